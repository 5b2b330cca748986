"""Engines of workers are metered as those of the watcher's own machine are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpus import Gpus
from harness import QUICK, STUB_ENGINE
from machines import QueueSite, RedisServer
from test_gpu_runs import report, trusted

pytest.importorskip("rq")


@pytest.fixture
def far_site(tmp_path: Path, gpus: Gpus) -> Iterator[QueueSite]:
    server = RedisServer()
    server.start()
    site = QueueSite(tmp_path / "site", server, engine={"command": STUB_ENGINE, **QUICK["engine"], "device": "cuda:0"})
    site.environment |= {**gpus.environment, "STUB": "DEVICE cuda:0 CONTEXT 500 1500"}
    yield site
    site.close()
    server.close()


@trusted
def test_accounts_energy_and_release_of_a_worker_are_in_the_bill(far_site: QueueSite, gpus: Gpus) -> None:
    gpus.describe("accounting on", "watts 3600")
    far_site.drop("slow.png", b"SLOW 2 ")  # longer than the 1.5 s that the driver is going to tell
    far_site.worker()
    assert far_site.once().returncode == 0
    names = (
        "device, held_by, exited_at - held_from, energy_joules, device_peak_bytes, release_seconds, unreleased_bytes"
    )
    ((device, held_by, held, energy, peak, release, unreleased),) = far_site.query(f"SELECT {names} FROM engine_runs")
    assert (device, held_by, held, peak) == ("cuda:0", "nvml", pytest.approx(1.5), 500 << 20)
    assert energy >= 3600 * 2
    assert release is not None and unreleased == 0
    assert report(far_site)["releases"]["measured"] == 1
