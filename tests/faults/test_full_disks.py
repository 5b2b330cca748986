"""Disks that are full, or became read-only: pictures wait, status says why, and all goes on once they are not."""

import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from enclosure import Enclosure
from harness import wait_until
from outcomes import wait_done, wait_saying, whys
from promise import Promise

SMALL = "size=64k"  # sixteen pages: three of the pictures below
FULL = os.strerror(errno.ENOSPC)
READ_ONLY = os.strerror(errno.EROFS)


SLOW = pytest.mark.slow


def picture(number: int, says: str = "") -> bytes:
    """Of five pages."""
    return f"picture {number} {says} ".encode() + b"%d" % number * 19_000


def drop(promise: Promise, numbers: Collection[int], says: str = "") -> None:
    for number in numbers:
        promise.drop(f"sub {number % 2}/{number}.png", picture(number, says))


@pytest.mark.parametrize(
    ("folder", "lacks"),
    [
        ("outbox", SMALL),
        pytest.param("archive", SMALL, marks=SLOW),
        pytest.param("failed", SMALL, marks=SLOW),
        pytest.param("outbox", "nr_inodes=6", marks=SLOW),
        pytest.param("archive", "nr_inodes=6", marks=SLOW),
    ],
)
def test_a_disk_that_fills_up_makes_pictures_wait_until_there_is_space(
    enclose: Callable[..., Enclosure], folder: str, lacks: str
) -> None:
    site = enclose()
    full = getattr(site, folder)
    site.mount(full, lacks)
    promise = Promise(site)
    says = "UNSUPPORTED" if folder == "failed" else ""
    drop(promise, range(6), says)
    done = site.once()
    assert done.returncode == 3, done.stderr
    assert FULL in done.stderr
    promise.check_now()
    left = wait_saying(site, FULL)
    assert lacks != SMALL or len(left) < 6, "what there was space for is done"

    running = site.start()
    drop(promise, [6], says)
    wait_until(lambda: FULL in running.log(), "the log to say it")
    wait_saying(site, FULL, len(left) + 1 if lacks == SMALL else 1)
    promise.check_now()
    site.remount(full, "size=1m,nr_inodes=1000")
    wait_done(site)
    promise.check_end(set(promise.originals) if says else None)
    assert running.stop() == 0


def test_a_disk_full_of_the_inbox_alone_is_no_trouble(enclose: Callable[..., Enclosure]) -> None:
    """Nothing of ours is written there, and originals leave it."""
    site = enclose()
    site.mount(site.inbox, "size=64k,nr_inodes=7")  # the root, two folders, three pictures, and what fills the rest
    promise = Promise(site)
    drop(promise, range(2))
    promise.drop("bad.png", picture(7, "UNSUPPORTED"))
    fill(site.inbox / "filler.txt")
    assert os.statvfs(site.inbox).f_bavail == 0 and os.statvfs(site.inbox).f_favail == 0
    done = site.once()
    assert done.returncode == 1, done.stderr
    (site.inbox / "filler.txt").unlink()
    promise.check_end({"bad.png"})


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_full_disk_of_the_ledger_stops_all_moves_until_there_is_space(enclose: Callable[..., Enclosure]) -> None:
    """Without the ledger nothing may be moved: no intent could be noted."""
    site = enclose()
    site.mount(site.state, "size=2m")
    promise = Promise(site)
    running = site.start()
    drop(promise, range(2))
    wait_done(site)
    drop(promise, range(2, 5), "SLOW 0.3")
    wait_until(site.engines, "the engine to work")
    fill(site.state / "filler")
    drop(promise, range(5, 7))
    wait_until(lambda: "disk is full" in running.log(), "the log to say it")
    promise.check_now()
    (problem,) = site.status()["problems"]
    assert "folders.state" in problem and "full" in problem
    found = whys(site)
    assert set(found) >= site.names(site.inbox)
    assert all("ledger cannot be written: its disk is full" in why for why in found.values()), found
    (site.state / "filler").unlink()
    wait_done(site)
    promise.check_end()
    assert running.stop() == 0


def test_once_and_status_on_a_full_disk_of_the_ledger_say_so(enclose: Callable[..., Enclosure]) -> None:
    site = enclose()
    site.mount(site.state, "size=2m")
    promise = Promise(site)
    drop(promise, range(2))
    assert site.once().returncode == 0
    drop(promise, range(2, 4))
    fill(site.state / "filler")
    done = site.once()
    assert done.returncode == 3
    assert "the ledger" in done.stderr and "free space on its disk" in done.stderr, done.stderr
    promise.check_now()
    (problem,) = site.status()["problems"]
    assert "folders.state" in problem and "full" in problem
    assert whys(site) == dict.fromkeys(site.names(site.inbox), "the ledger cannot be written: its disk is full")
    (site.state / "filler").unlink()
    assert site.once().returncode == 0
    promise.check_end()


@pytest.mark.parametrize("folder", [pytest.param("outbox", marks=SLOW), "archive", pytest.param("failed", marks=SLOW)])
def test_a_disk_that_becomes_read_only_makes_pictures_wait_until_it_is_not(
    enclose: Callable[..., Enclosure], folder: str
) -> None:
    """As the kernel does with a disk that has errors."""
    site = enclose()
    disk = getattr(site, folder)
    site.mount(disk)
    promise = Promise(site)
    running = site.start()
    says = "UNSUPPORTED" if folder == "failed" else ""
    drop(promise, range(2), says)
    wait_done(site)
    site.remount(disk, "ro")
    drop(promise, range(2, 4), says)
    wait_saying(site, READ_ONLY, 2)
    promise.check_now()
    (problem,) = site.status()["problems"]
    assert f"folders.{folder}" in problem and "read-only" in problem
    site.remount(disk, "rw")
    wait_done(site)
    promise.check_end(set(promise.originals) if says else None)
    assert running.stop() == 0


@pytest.mark.parametrize("folder", ["outbox", "state"])
def test_once_refuses_to_start_on_a_read_only_disk_and_names_it(enclose: Callable[..., Enclosure], folder: str) -> None:
    site = enclose()
    disk = getattr(site, folder)
    site.mount(disk)
    promise = Promise(site)
    drop(promise, [1])
    assert site.once().returncode == 0
    site.remount(disk, "ro")
    drop(promise, [2])
    refused = site.once()
    assert refused.returncode == 3
    assert f"folders.{folder}" in refused.stderr and "read-only" in refused.stderr
    promise.check_now()
    (problem,) = site.status()["problems"]
    assert f"folders.{folder}" in problem and "read-only" in problem
    site.remount(disk, "rw")
    assert site.once().returncode == 0
    promise.check_end()
