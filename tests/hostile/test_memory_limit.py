"""The engine's own limit: one picture cannot take the machine, and is blamed only when it was alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import QUICK, Site, photo

from sr_engine import machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")

MEGABYTE = 1 << 20
ROOM = 40  # megabytes: what a small picture takes, and the large one by its header, but not with the network's tensors
ASK = """
import sys
from sr_engine import machine
limit = machine.limit_own_memory(int(sys.argv[1]))
try:
    data = bytearray(int(sys.argv[2]))
    print(limit, len(data))
except MemoryError:
    print(limit, "refused")
"""


def ask(limit: int, wanted: int, **options: object) -> list[str]:
    command = [sys.executable, "-c", ASK, str(limit), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout).split()


def held_at_rest(site: Site) -> int:
    """Megabytes that an engine counts before it has any picture: threads differ from machine to machine."""
    command = [sys.executable, "-P", "-m", "sr_engine", "--model", "edsr-lite-x3", "--runtime", "opencv"]
    engine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=site.root)
    assert engine.stdin and engine.stdout
    with engine:
        assert b'"ready"' in engine.stdout.readline()
        status = Path(f"/proc/{engine.pid}/status").read_text()
        engine.stdin.close()
    return int(status.partition("VmData:")[2].split()[0]) // 1024


@pytest.fixture
def make_small(make_site: Callable[..., Site]) -> Callable[[int], Site]:
    """A site whose engine may hold so many megabytes for pictures."""

    def make(megabytes: int) -> Site:
        site = make_site()
        limit = held_at_rest(site) + megabytes
        engine = {**QUICK["engine"], "runtime": "opencv", "deadline_seconds": 60}
        site.configure(engine=engine, limits={"engine_megabytes": limit})
        return site

    return make


def test_what_is_beyond_the_limit_is_refused_by_the_system() -> None:
    assert ask(600 * MEGABYTE, 100 * MEGABYTE) == [str(600 * MEGABYTE), str(100 * MEGABYTE)]
    assert ask(600 * MEGABYTE, 700 * MEGABYTE) == [str(600 * MEGABYTE), "refused"]


def test_without_a_figure_it_is_most_of_the_machine() -> None:
    limit = int(ask(0, 1)[0])
    assert limit == max(machine.total_bytes() // 8 * 7, 2 << 30)


def test_a_limit_that_somebody_set_outside_is_not_raised() -> None:
    import resource

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (500 * MEGABYTE, 500 * MEGABYTE))

    assert ask(600 * MEGABYTE, 550 * MEGABYTE, preexec_fn=lower) == [str(500 * MEGABYTE), "refused"]


def test_a_picture_that_is_too_large_for_it_by_its_header_fails_at_once(make_small: Callable[[int], Site]) -> None:
    site = make_small(200)
    site.drop("large.jpg", photo(1, 6000, 4000, ".jpg"))
    site.drop("small.png", photo(2))
    assert site.once().returncode == 1
    assert site.names(site.archive) == {"small.png"}
    reason = (site.failed / "large.jpg.reason.txt").read_text()
    assert "6000 x 4000 pixels need about" in reason and "raise limits.engine_megabytes" in reason
    assert site.upscaled() == [1], "no engine was lost to it"


@pytest.mark.slow
def test_a_picture_that_hits_the_limit_alone_fails_and_says_what_to_do(make_small: Callable[[int], Site]) -> None:
    """Its header promised less than it takes with the network's own memory. No engine holds more than it may."""
    site = make_small(ROOM)
    data = photo(1, 700, 500, ".jpg")
    site.drop("large.jpg", data)
    for seed in range(2, 5):
        site.drop(f"{seed}.png", photo(seed))
    done = site.once()
    assert done.returncode == 1, done.stderr
    assert site.files(site.failed)["large.jpg"] == data
    reason = (site.failed / "large.jpg.reason.txt").read_text()
    assert "it needs more memory than the engine may hold" in reason, reason
    assert "raise limits.engine_megabytes" in reason
    assert site.names(site.archive) == {"2.png", "3.png", "4.png"}
    (largest,) = site.query("SELECT MAX(peak_memory_bytes) FROM engine_runs")[0]
    assert 0 < largest < (held_at_rest(site) + ROOM) * MEGABYTE
    assert not site.engines()
