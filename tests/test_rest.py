"""The watcher at rest: what it costs while nobody drops anything (its share of a core: benchmarks/watching.py)."""

import sys
from pathlib import Path

import pytest
from harness import Site, wait_until

MOST_BYTES = 30 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_idle_watcher_stays_small_and_no_engine_is_left(stub_site: Site) -> None:
    for number in range(1000):
        (stub_site.archive / f"{number}.jpg").write_bytes(b"archived %d" % number)
    running = stub_site.start()
    stub_site.drop("a.png", b"a picture")
    wait_until(lambda: "engine ended" in running.log(), "the batch to end")
    assert wait_until(lambda: resident_bytes(running.pid) < MOST_BYTES, "the memory to be returned", 10)
    assert not stub_site.engines()
    assert running.stop() == 0


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
