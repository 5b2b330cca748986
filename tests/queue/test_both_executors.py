"""What is promised does not depend on who upscales: an engine here, or workers of the queue."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import QUICK, Site, photo, wait_until
from promise import Promise, real_owner

MakeSite = Callable[..., Site]


def settle(promise: Promise, failed: set[str] | None = None) -> None:
    """Wait until all is done, and check it."""
    site = promise.site
    total = len(promise.originals)

    def ended() -> bool:
        promise.check_now()
        reasons = {name for name in site.names(site.failed) if name.endswith(".reason.txt")}
        return len(site.names(site.archive)) + len(reasons) == total and is_idle(site)

    wait_until(ended, f"the end of all {total} pictures")
    promise.check_end(failed)


def is_idle(site: Site) -> bool:
    return not site.query("SELECT id FROM batches WHERE finished_at IS NULL") and not (site.outbox / STAGING).exists()


STAGING = ".dropscale-staging"


def test_pictures_of_all_fates_come_to_their_end(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    for number in range(5):
        promise.drop(f"{number}.png", b"picture %d" % number)
    promise.drop("twin.png", b"picture 1")
    promise.drop("sub/deep/a.png", b"another")
    promise.drop("odd\udcff \n%41.png", b"a name that is no text")
    promise.drop("bad.png", b"UNSUPPORTED")
    promise.drop("torn.png", b"UNDECODABLE")
    running = site.start()
    settle(promise, {"bad.png", "torn.png"})
    assert running.stop() == 0


def test_once_is_enough(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    for number in range(3):
        promise.drop(f"{number}.png", b"picture %d" % number)
    done = site.once()
    assert done.returncode == 0, done.stderr
    promise.check_end()


def test_what_was_done_before_needs_no_engine(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    promise.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    engines = len(site.upscaled())
    promise.drop("b.png", b"a picture")
    assert site.once().returncode == 0
    promise.check_end()
    assert len(site.upscaled()) == engines


@pytest.mark.parametrize(
    "fate", ["CRASH", pytest.param("EXIT", marks=pytest.mark.slow), pytest.param("GARBAGE", marks=pytest.mark.slow)]
)
def test_a_picture_that_takes_engines_down_fails_alone(any_site: MakeSite, fate: str) -> None:
    site = any_site(queue={"shard_pixels": 10_000_000})
    promise = Promise(site)
    for number in range(4):
        promise.drop(f"{number}.png", b"picture %d" % number)
    promise.drop("guilty.png", fate.encode())
    running = site.start()
    settle(promise, {"guilty.png"})
    assert "2 times" in (site.failed / "guilty.png.reason.txt").read_text()
    running.stop()


def test_an_engine_that_is_killed_blames_nobody(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    promise.drop("slow.png", b"a picture SLOW 1.5 ")
    running = site.start()
    (engine,) = wait_until(site.engines, "an engine")
    wait_until(lambda: at_work(site), "a picture in work")
    os.kill(engine, signal.SIGKILL)
    settle(promise)
    running.stop()


def at_work(site: Site) -> bool:
    return bool(site.query("SELECT id FROM pictures WHERE state = 'claimed'")) and bool(site.engines())


def test_an_ill_engine_lets_pictures_wait_and_says_why(any_site: MakeSite, tmp_path: Path) -> None:
    """It crashes over every picture; so no picture is to blame."""
    starts = tmp_path / "starts"
    os.environ["STUB"] = f"ALWAYSCRASH COUNT {starts}"
    try:
        site = any_site()
        site.environment["STUB"] = os.environ["STUB"]
    finally:
        del os.environ["STUB"]
    promise = Promise(site)
    promise.drop("a.png", b"a picture")
    done = site.once()
    assert done.returncode == 3, done.stderr
    promise.check_now()
    assert site.names(site.failed) == set()
    (waiting,) = site.status()["waiting"]
    assert "SIGABRT" in waiting["why"]
    # that which was tested with a sound picture was on the device, too
    runs = [code for (code,) in site.query("SELECT exit_code FROM engine_runs")]
    assert runs == [-signal.SIGABRT] * len(runs) and len(runs) == len(starts.read_bytes()) > 1


@pytest.mark.slow
def test_a_full_disk_makes_pictures_wait(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    promise.drop("a.png", b"DISKFULL")
    assert site.once().returncode == 3
    promise.check_now()
    (waiting,) = site.status()["waiting"]
    assert "no space left" in waiting["why"]


def test_a_watcher_that_is_killed_carries_on(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    for number in range(6):
        promise.drop(f"{number}.png", b"picture %d SLOW 0.2 " % number)
    running = site.start()
    wait_until(lambda: site.names(site.archive), "the first picture")
    running.kill()
    promise.check_now()
    site.start()
    settle(promise)


@pytest.mark.slow
def test_a_stop_and_a_start_lose_nothing(any_site: MakeSite) -> None:
    site = any_site()
    promise = Promise(site)
    for number in range(6):
        promise.drop(f"{number}.png", b"picture %d SLOW 0.3 " % number)
    running = site.start()
    wait_until(lambda: site.names(site.archive), "the first picture")
    assert running.stop() == 0
    promise.check_now()
    site.start()
    settle(promise)


def test_the_time_of_engines_is_in_the_ledger(any_site: MakeSite) -> None:
    site = any_site()
    site.drop("a.png", b"a picture SLOW 0.3 ")
    assert site.once().returncode == 0
    ((host, device, compute, spawned, exited),) = site.query(
        "SELECT host, device, compute_seconds, spawned_at, exited_at FROM engine_runs"
    )
    assert host == os.uname().nodename
    assert device == "cpu"
    assert 0.1 <= compute <= exited - spawned  # by when events arrive, which may be late


def test_photographs_are_enlarged_by_the_real_engine(any_site: MakeSite) -> None:
    site = any_site(engine={**QUICK["engine"], "model": "edsr-lite-x3"}, queue={"shard_pixels": 3000})
    promise = Promise(site, real_owner)
    for number in range(4):
        promise.drop(f"{number}.png", photo(number))
    assert site.once().returncode == 0
    promise.check_end()
