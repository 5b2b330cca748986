"""Ten thousand small pictures through one watcher: nothing lost, nothing twice, and nothing that grows with them."""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import HASTE, QUICK, STUB_ENGINE, Site, stub_result, wait_until

PICTURES, WAVE = 10_000, 250
WARM = 2_000  # by then caches and heaps have the size that they keep
SETTINGS = {
    **HASTE,
    "window": {"quiet_seconds": 0.05, "max_seconds": 1, "max_files": 200},
    "engine": {**QUICK["engine"], "command": STUB_ENGINE},
}


def names_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith(".")]


def resident_kilobytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_thousand_pictures_leave_memory_files_and_ledger_flat(make_site: Callable[..., Site]) -> None:
    site = make_site(**SETTINGS)
    running = site.start()
    warm: Counter[str] = Counter()
    for first in range(0, PICTURES, WAVE):
        for number in range(first, first + WAVE):
            (site.inbox / f"{number:05}.png").write_bytes(b"picture %d" % number)
        wait_until(lambda: len(os.listdir(site.inbox)) < WAVE, "the wave to be taken", 120)
        if first == WARM:
            wait_until(lambda: not os.listdir(site.inbox) and not site.engines(), "the warm-up to end")
            warm = measure(site, running.pid)
    wait_until(lambda: not os.listdir(site.inbox) and not site.engines(), "the last wave", 120)
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the last batch to close")
    end = measure(site, running.pid)
    print(f"after {WARM + WAVE}: {dict(warm)}; after {PICTURES}: {dict(end)}")
    assert end["files"] == warm["files"] and end["threads"] == warm["threads"], (warm, end)
    assert end["resident kB"] < warm["resident kB"] + 2_000, (warm, end)
    assert end["ledger bytes a picture"] <= warm["ledger bytes a picture"] * 1.1, (warm, end)

    assert sorted(names_in(site.archive)) == [f"{number:05}.png" for number in range(PICTURES)]
    assert sorted(names_in(site.outbox)) == [f"{number:05}.png" for number in range(PICTURES)]
    for number in range(PICTURES):
        data = b"picture %d" % number
        assert (site.archive / f"{number:05}.png").read_bytes() == data
        assert (site.outbox / f"{number:05}.png").read_bytes() == stub_result(data)
    assert os.listdir(site.failed) == []
    assert site.query("SELECT state, COUNT(*) FROM pictures GROUP BY state") == [("done", PICTURES)]
    assert sum(site.upscaled()) == PICTURES, "each was upscaled once"
    assert running.stop() == 0
    with closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def measure(site: Site, pid: int) -> "Counter[str]":
    """What the watcher holds; its log of writes is not counted: SQLite lets it grow and shrink."""
    done = site.query("SELECT COUNT(*) FROM pictures WHERE state = 'done'")[0][0]
    return Counter(
        {
            "files": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "resident kB": resident_kilobytes(pid),
            "ledger bytes a picture": (site.state / "ledger.sqlite3").stat().st_size // done,
        }
    )
