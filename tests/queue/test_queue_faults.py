"""Workers, work horses, engines and Redis are killed, cut off and doubled: nothing is lost, nothing is done twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from harness import HASTY_STUB, Running, wait_until
from machines import QueueSite, RedisServer, children
from promise import Promise
from test_both_executors import settle

from watcher.queue import shelf
from watcher.queue.worker import HorseOrders

MakeSite = Callable[..., QueueSite]


def begin(site: QueueSite, pictures: int, seconds: float) -> tuple[Promise, Running]:
    """A watcher with so many pictures, each of which takes so long."""
    promise = Promise(site)
    for number in range(pictures):
        promise.drop(f"{number}.png", b"picture %d SLOW %.1f " % (number, seconds))
    return promise, site.start()


def working_horse(site: QueueSite, worker: Running) -> int:
    """Process id of the work horse that has an engine."""
    found: list[int] = wait_until(
        lambda: [horse for horse in site.horses(worker) if children(horse)], "a work horse with an engine"
    )
    return found[0]


def at_work(site: QueueSite, workers: list[Running]) -> list[int]:
    return [horse for worker in workers for horse in site.horses(worker) if children(horse)]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_killed_work_horse_takes_its_engine_along_and_the_job_is_done_again(queue_site: QueueSite) -> None:
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 2, 1.0)
    horse = working_horse(queue_site, worker)
    (engine,) = children(horse)
    os.kill(horse, signal.SIGKILL)
    wait_until(lambda: is_gone(engine), "the engine to go, too")
    settle(promise)
    assert worker.process.poll() is None


def test_nothing_outlives_a_killed_worker(queue_site: QueueSite) -> None:
    """The recovery, which takes half a minute, is among the slow tests."""
    worker = queue_site.worker()
    begin(queue_site, 1, 30.0)
    horse = working_horse(queue_site, worker)
    family = [horse, *children(horse), *site_horses(queue_site, worker)]
    worker.kill()
    wait_until(lambda: all(is_gone(pid) for pid in family), "work horses and engine to go")


def site_horses(site: QueueSite, worker: Running) -> list[int]:
    horses: list[int] = wait_until(lambda: len(site.horses(worker)) == 2 and site.horses(worker), "the next horse")
    return horses


@pytest.mark.slow
def test_the_job_of_a_killed_worker_is_done_by_another_within_a_minute(queue_site: QueueSite) -> None:
    first = queue_site.worker()
    promise, _ = begin(queue_site, 1, 3.0)
    working_horse(queue_site, first)
    queue_site.worker()
    killed_at = time.monotonic()
    first.kill()
    settle(promise)
    assert time.monotonic() - killed_at < 60


@pytest.mark.slow
def test_a_killed_worker_without_another_is_waited_for(make_queue_site: MakeSite) -> None:
    site = make_queue_site(queue={"worker_seconds": 5}, retry={"first_seconds": 1, "max_seconds": 2})
    worker = site.worker()
    promise, _ = begin(site, 1, 3.0)
    working_horse(site, worker)
    worker.kill()
    wait_until(lambda: "no worker listens" in site.troubles(), "the ledger to say why", 150)
    promise.check_now()
    site.worker()
    settle(promise)


def test_redis_that_is_restarted_empty_is_filled_again(queue_site: QueueSite, server: RedisServer) -> None:
    workers = [queue_site.worker(), queue_site.worker()]
    promise, _ = begin(queue_site, 8, 0.5)
    wait_until(lambda: queue_site.names(queue_site.archive), "the first picture")
    server.kill()
    server.start()
    settle(promise)
    assert all(worker.process.poll() is None for worker in workers)


def test_workers_that_redis_forgot_introduce_themselves_again(queue_site: QueueSite, server: RedisServer) -> None:
    worker = queue_site.worker()
    server.kill()
    server.start()
    promise, _ = begin(queue_site, 2, 0.1)
    settle(promise)
    with server.client() as client:
        wait_until(lambda: client.scard("rq:workers:dropscale") == 1, "the worker to be known again")
    assert worker.process.poll() is None


def test_pictures_wait_with_the_reason_while_redis_is_away(queue_site: QueueSite, server: RedisServer) -> None:
    worker = queue_site.worker()
    promise, watcher = begin(queue_site, 4, 0.5)
    wait_until(lambda: queue_site.names(queue_site.archive), "the first picture")
    server.kill()
    wait_until(lambda: "does not answer" in queue_site.troubles(), "the ledger to say why")
    promise.check_now()
    server.start()
    settle(promise)
    assert worker.process.poll() is None
    assert "does not answer" in watcher.log()


def test_workers_wait_while_redis_refuses_to_write(queue_site: QueueSite, server: RedisServer) -> None:
    """Its memory is full, or it became a replica: RQ's worker quits over that."""
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 3, 0.5)
    wait_until(lambda: queue_site.names(queue_site.archive), "the first picture")
    with server.client() as client:
        client.config_set("maxmemory", "1")
        wait_until(lambda: "trying again" in worker.log(), "the worker to say why it does nothing")
        client.config_set("maxmemory", "0")
    settle(promise)
    assert worker.process.poll() is None


@pytest.mark.slow
def test_redis_that_hangs_for_a_minute_costs_nothing_but_time(queue_site: QueueSite, server: RedisServer) -> None:
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 6, 1.0)
    wait_until(lambda: queue_site.names(queue_site.archive), "the first picture")
    server.pause()
    until = time.monotonic() + 60
    wait_until(lambda: promise.check_now() or time.monotonic() > until, "a minute", 70)  # type: ignore[func-returns-value]
    server.go_on()
    wait_until(lambda: len(queue_site.names(queue_site.archive)) == 6, "all pictures", 120)
    settle(promise)
    assert worker.process.poll() is None


def test_a_worker_without_the_share_does_not_start(queue_site: QueueSite, tmp_path: Path) -> None:
    (tmp_path / "unmounted").mkdir()
    done = queue_site.run("worker", "--share", str(tmp_path / "unmounted"))
    assert done.returncode == 3
    assert "is it mounted?" in done.stderr


@pytest.mark.slow
def test_a_worker_with_another_share_leaves_the_work_to_others(queue_site: QueueSite, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("it is not empty")
    wrong = queue_site.worker(share=tmp_path / "other")
    promise, _ = begin(queue_site, 3, 0.2)
    wait_until(lambda: "refused" in wrong.log(), "a refusal")
    queue_site.worker()
    settle(promise)


def test_a_refusal_reaches_the_status(queue_site: QueueSite, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("it is not empty")
    queue_site.worker(share=tmp_path / "other")
    begin(queue_site, 1, 0.1)
    wait_until(lambda: "is the watcher's share mounted there?" in queue_site.troubles(), "the ledger")


def test_a_share_that_goes_while_a_worker_waits_is_waited_for(queue_site: QueueSite, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    mount = tmp_path / "mount"
    mount.symlink_to(queue_site.root)
    worker = queue_site.worker(share=mount)
    mount.unlink()
    promise, _ = begin(queue_site, 1, 0.1)
    wait_until(lambda: "cannot be read" in worker.log(), "the worker to notice")
    mount.symlink_to(tmp_path / "empty")
    wait_until(lambda: "is it mounted?" in worker.log(), "the worker to tell of what is the matter now")
    mount.unlink()
    mount.symlink_to(queue_site.root)
    settle(promise)
    assert "the share is back" in worker.log()


def test_a_job_that_two_workers_do_at_the_same_time_is_delivered_once(
    queue_site: QueueSite, server: RedisServer
) -> None:
    """As when a slow worker's job is given to another one while it still works."""
    workers = [queue_site.worker(), queue_site.worker()]
    promise, watcher = begin(queue_site, 1, 4.0)
    wait_until(lambda: at_work(queue_site, workers), "the first one to work")
    with server.client() as client:
        client.flushall()  # for the watcher its job has vanished; the horse knows nothing of that
    horses = wait_until(lambda: len(found := at_work(queue_site, workers)) == 2 and found, "both to be at it")
    settle(promise)
    wait_until(lambda: all(is_gone(horse) for horse in horses), "the slower one to end")
    promise.drop("later.png", b"the batch that finds what the slower one left")
    settle(promise)
    assert len(queue_site.query("SELECT id FROM engine_runs")) == 3, "all are in the bill"
    assert "broken off" not in watcher.log()


def test_what_workers_finish_while_there_is_no_watcher_is_not_done_again(queue_site: QueueSite) -> None:
    queue_site.worker()
    promise, watcher = begin(queue_site, 4, 0.5)
    wait_until(lambda: queue_site.names(queue_site.archive), "the first picture")
    watcher.kill()
    staging = queue_site.outbox / ".dropscale-staging" / shelf.FOLDER
    left = 4 - len(queue_site.names(queue_site.archive))
    wait_until(lambda: len(list(staging.glob("*.json"))) == left, "the rest to lie on the shelf")
    queue_site.start()
    settle(promise)
    assert sum(queue_site.upscaled()) == 4, "each was done once"


def test_a_stop_lets_the_picture_in_work_finish(queue_site: QueueSite) -> None:
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 3, 1.5)
    horse = working_horse(queue_site, worker)
    assert worker.stop() == 0
    assert is_gone(horse)
    assert "job_broken" not in worker.log()
    queue_site.worker()
    settle(promise)
    assert sum(queue_site.upscaled()) == 3, "nothing was done twice"


@pytest.mark.slow
def test_a_second_signal_abandons_it(queue_site: QueueSite) -> None:
    worker = queue_site.worker("--verbose")
    begin(queue_site, 1, 60.0)
    horse = working_horse(queue_site, worker)
    wait_until(
        lambda: "slow work begins" in worker.log(), "the picture to be in work: before, the first signal ends all"
    )
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "may finish" in worker.log(), "the first signal to be heard")
    assert worker.stop() == 0
    wait_until(lambda: is_gone(horse), "the work horse to go")


def test_a_stop_while_the_engine_is_tested_calls_it_no_ill_one(make_queue_site: MakeSite) -> None:
    """After a crash over a picture the worker tries one that is sound; stopped meanwhile, it knows nothing."""
    site = make_queue_site(engine={**HASTY_STUB["engine"], "grace_seconds": 0.3})
    worker = site.worker(STUB="LATE 3")
    promise = Promise(site)
    promise.drop("bad.png", b"CRASH")
    watcher = site.start()
    crashed = "SELECT remote FROM engine_runs WHERE exited_at IS NOT NULL"
    wait_until(lambda: site.query(crashed) and site.engines(), "the one that is tested")
    worker.stop()
    wait_until(lambda: watcher.log().count("queued as job") == 2, f"it to be queued again: {watcher.log_path}")
    assert "does not work here" not in watcher.log(), watcher.log()
    site.worker()
    settle(promise, {"bad.png"})


def test_a_worker_stops_though_redis_is_away(queue_site: QueueSite, server: RedisServer) -> None:
    worker = queue_site.worker()
    server.kill()
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "said", [b"", b'{"parent": 1', b"orders and half a job"], ids=["nothing", "half a line", "more"]
)
def test_a_work_horse_whose_worker_is_killed_while_it_speaks_ends_without_a_word(
    server: RedisServer, tmp_path: Path, said: bytes
) -> None:
    if said.startswith(b"orders"):
        orders = HorseOrders(os.getpid(), server.url, "dropscale", "horse", str(tmp_path), "", "plain", verbose=False)
        said = msgspec.json.encode(orders) + b'\n{"job": "'
    done = subprocess.run(
        [sys.executable, "-P", "-m", "watcher.queue.work_horse"],
        input=said,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
