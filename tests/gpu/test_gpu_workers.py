"""Engines of workers are metered as those of the watcher's own machine are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpus import Gpus
from harness import QUICK, STUB_ENGINE, photo
from machines import QueueSite, RedisServer
from test_device_lock import HOLD
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


def test_memory_that_a_worker_does_not_get_back_is_an_alarm_of_the_watcher(far_site: QueueSite, gpus: Gpus) -> None:
    """Until an engine there gives back all that it had."""
    worker = far_site.worker(STUB="DEVICE cuda:0 LEAK 700")
    far_site.drop("a.png", b"a picture")
    done = far_site.once()
    assert done.returncode == 0 and "700 MiB are not back" in done.stderr, done.stderr
    alarm = far_site.status()["gpu"]["alarm"]
    assert alarm.startswith(f"{os.uname().nodename}: ") and "cuda:0: 700 MiB are not back" in alarm
    assert f"PROBLEM   {alarm}" in far_site.run("status").stdout
    assert worker.stop() == 0

    gpus.describe()
    far_site.worker(STUB="DEVICE cuda:0 CONTEXT 500 1500")
    far_site.drop("b.png", b"another picture")
    assert far_site.once().returncode == 0
    assert far_site.status()["gpu"]["alarm"] == ""


@pytest.mark.slow
def test_a_worker_whose_gpu_is_busy_leaves_the_work_to_the_one_that_has_it(
    far_site: QueueSite, gpus: Gpus, tmp_path: Path
) -> None:
    """As two workers on one GPU: however often one of them is refused, the batch goes on."""
    hold = subprocess.Popen([sys.executable, "-c", HOLD, gpus.uuid], stdout=subprocess.PIPE, text=True)
    assert hold.stdout is not None and hold.stdout.readline() == "held\n"
    try:
        far_site.worker()  # its engine, the stub, does not ask
        shut_out = far_site.worker(
            DROPSCALE_ENGINE__COMMAND="[]",
            DROPSCALE_ENGINE__RUNTIME="onnx",
            DROPSCALE_ENGINE__DEVICE="cuda:0",
            PYTHONPATH=gpus.gpu_build_of_onnxruntime(tmp_path / "path"),
        )
        for number in range(2):
            far_site.drop(f"{number}.png", photo(number) + b" SLOW 10 ")
        done = far_site.once()
        assert done.returncode == 0, done.stderr
        assert shut_out.log().count(f"another dropscale (process {hold.pid}) uses cuda:0") >= 3, shut_out.log()
        assert "cannot work" not in done.stderr
    finally:
        hold.kill()
        hold.wait()
        hold.stdout.close()
