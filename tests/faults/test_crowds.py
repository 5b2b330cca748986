"""Ten thousand pictures at once, beside an archive and an outbox of a hundred thousand files."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import HASTE, QUICK, STUB_ENGINE, Site, command, wait_until
from promise import Promise
from strace import needs_strace

PICTURES, BATCH = 10_000, 1_000
FOLDERS, IN_EACH, IN_ONE = 380, 250, 5_000  # 100,000 files
# Measured: 30 MB with one picture, 45 MB with ten thousand: 1.5 kB for path and identity of each, since here they all
# wait in one window. Waves leave nothing behind (test_soak.py).
MOST_KILOBYTES = 56_000
SETTINGS = {
    **HASTE,
    "window": {"quiet_seconds": 0.5, "max_seconds": 60, "max_files": BATCH},
    "engine": {**QUICK["engine"], "command": STUB_ENGINE, "deadline_seconds": 120},
}


@pytest.fixture
def crowded(make_site: Callable[..., Site]) -> Iterator[tuple[Site, Promise]]:
    """A site that has been at work for years."""
    site = make_site(**SETTINGS)
    promise = Promise(site)
    assert site.once().returncode == 0  # a new ledger would read the outbox
    for key in ("archive", "outbox"):
        for number in range(FOLDERS):
            folder = site.root / key / "earlier" / f"{number:03}"
            folder.mkdir(parents=True)
            for name in range(IN_EACH):
                os.close(os.open(f"{folder}/{name}.png", os.O_CREAT | os.O_WRONLY))
        for number in range(IN_ONE):
            promise.place(site.root / key / "crowd" / f"old {number}.png", b"old %d" % number)
    yield site, promise
    for path in (*site.root.glob("* of earlier"), site.archive, site.outbox):
        shutil.rmtree(path)  # too much to be kept for a look


def peak_kilobytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_thousand_at_once_beside_a_hundred_thousand_that_are_done(crowded: tuple[Site, Promise]) -> None:
    site, promise = crowded
    for number in range(PICTURES):
        folder = "crowd/" if number % 2 else f"album {number % 100}/"
        promise.originals[f"{folder}{number:05}.png"] = data = b"picture %d" % number
        (site.inbox / folder).mkdir(exist_ok=True)
        (site.inbox / folder / f"{number:05}.png").write_bytes(data)
    running = site.start()
    wait_until(lambda: len(site.upscaled()) >= PICTURES // BATCH and not site.names(site.inbox), "all to be done", 300)
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the books to be closed")
    peak = peak_kilobytes(running.pid)
    print(f"{peak} kB")
    assert site.upscaled() == [BATCH] * (PICTURES // BATCH), "one engine a window, and each picture once"
    assert running.stop() == 0
    for key in ("archive", "outbox"):
        earlier = site.root / f"{key} of earlier"
        (site.root / key / "earlier").rename(earlier)
        assert sum(len(names) for _, _, names in os.walk(earlier)) == FOLDERS * IN_EACH
    promise.check_end()
    assert peak < MOST_KILOBYTES


@pytest.mark.slow
def test_a_start_lists_neither_archive_nor_outbox(make_site: Callable[..., Site]) -> None:
    """However many years lie there; nor does it for a picture."""
    needs_strace()
    site = make_site(**SETTINGS)
    for number in range(3):
        site.drop(f"sub/{number}.png", b"earlier %d" % number)
    assert site.once().returncode == 0
    promise = Promise(site)
    for number in range(3):
        promise.originals[f"sub/{number}.png"] = b"earlier %d" % number
    trace = site.root / "trace"
    site.command = ["strace", "-D", "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=getdents64", command()]
    running = site.start()
    promise.drop("sub/new.png", b"new")
    wait_until(lambda: "sub/new.png" in site.names(site.archive), "the picture")
    assert running.stop() == 0
    listed = trace.read_text()
    assert f"<{site.inbox}>" in listed
    for folder in (site.archive, site.failed):
        assert str(folder) not in listed
    assert f"<{site.outbox}>" not in listed and f"<{site.outbox}/sub>" not in listed, "but its staging folder may be"
    promise.check_end()
