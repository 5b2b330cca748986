"""What `status` and `report` tell of the queue."""

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Site, wait_until
from machines import QueueSite, RedisServer
from test_both_executors import settle
from test_queue_faults import begin, working_horse


def working(site: QueueSite) -> str:
    return str(site.status()["working"])


def test_status_tells_what_is_queued_and_what_runs_where(queue_site: QueueSite) -> None:
    begin(queue_site, 2, 30.0)
    wait_until(lambda: working(queue_site).count("queued for a worker") == 2, "both to be queued")
    queue_site.worker()
    host = socket.gethostname()

    def one_of_each() -> bool:
        told = working(queue_site)
        return f"running on {host}" in told and "queued for a worker" in told

    wait_until(one_of_each, "one to run, and one to wait")
    wait_until(lambda: queue_site.status()["workers"]["listening"], "the watcher to count who listens")
    report = queue_site.status()
    assert report["workers"] == {"redis": queue_site.server.url, "listening": 1, "refusing": []}
    assert "queue" not in report["watcher"]
    told = queue_site.run("status").stdout
    assert "workers   1 at unix://" in told


def test_status_tells_what_is_tried_again(queue_site: QueueSite) -> None:
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 1, 6.0)
    os.kill(working_horse(queue_site, worker), signal.SIGKILL)
    wait_until(lambda: "again" in working(queue_site), "the status to say that it is done again")
    settle(promise)
    assert queue_site.status()["workers"] is None
    worker.stop()


def test_without_a_worker_pictures_wait_and_status_says_for_what(make_queue_site: Callable[..., QueueSite]) -> None:
    site = make_queue_site(queue={"worker_seconds": 0.3})
    promise, _ = begin(site, 2, 0.1)
    wait_until(lambda: "start `dropscale worker`" in str(site.status()["waiting"]), "the reason")
    promise.check_now()
    site.worker("--burst")
    settle(promise)


def test_no_engine_is_promised_to_be_kept(make_queue_site: Callable[..., QueueSite]) -> None:
    site = make_queue_site(engine={"keep_warm_seconds": 60})
    site.environment["DROPSCALE_WARM"] = "[{at: '* * * * *', for_seconds: 120}]"
    running = site.start()
    assert "count for nothing with executor: rq" in running.log()
    assert site.status()["engine"]["next_warm"] is None
    assert running.stop() == 0


def test_a_worker_that_comes_ends_the_waiting_for_one(make_queue_site: Callable[..., QueueSite]) -> None:
    """The next try is in five minutes, which no test waits for."""
    site = make_queue_site(queue={"worker_seconds": 0.3}, retry={"first_seconds": 300, "max_seconds": 300})
    promise, watcher = begin(site, 2, 0.1)
    wait_until(lambda: "no worker listens" in site.troubles(), "the pictures to wait for one")
    site.worker()
    settle(promise)
    assert "a worker listens" in watcher.log()


def test_a_worker_that_comes_for_a_later_batch_ends_the_waiting_of_an_earlier_one(
    make_queue_site: Callable[..., QueueSite],
) -> None:
    """While a batch waits for a worker nobody else looks out for one."""
    site = make_queue_site(queue={"worker_seconds": 3}, retry={"first_seconds": 300, "max_seconds": 300})
    promise, watcher = begin(site, 1, 0.1)
    wait_until(lambda: "no worker listens" in site.troubles(), "the picture to wait for one")
    promise.drop("later.png", b"another picture")
    wait_until(lambda: watcher.log().count("queued as job") == 2, "the later batch")
    site.worker()
    settle(promise)
    assert watcher.log().count("no worker listens") == 2, "the later batch found it"


@pytest.mark.slow
def test_a_worker_that_can_ends_the_waiting_for_one_that_refuses(
    make_queue_site: Callable[..., QueueSite], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("it is not empty")
    site = make_queue_site(retry={"first_seconds": 300, "max_seconds": 300})
    wrong = site.worker(share=tmp_path / "other")
    promise, _ = begin(site, 1, 0.1)
    wait_until(lambda: "is the watcher's share mounted there?" in site.troubles(), "the ledger")
    wrong.stop()
    site.worker()
    settle(promise)


@pytest.mark.slow
def test_redis_that_is_back_ends_the_waiting_for_it(
    make_queue_site: Callable[..., QueueSite], server: RedisServer
) -> None:
    site = make_queue_site(retry={"first_seconds": 300, "max_seconds": 300})
    site.worker()
    server.kill()
    promise, _ = begin(site, 1, 0.1)
    wait_until(lambda: "does not answer" in site.troubles(), "the ledger to say why")
    server.start()
    settle(promise)


def test_a_local_site_has_no_queue(stub_site: Site) -> None:
    stub_site.drop("a.png", b"a picture")
    assert stub_site.once().returncode == 0
    assert stub_site.status()["workers"] is None


def test_the_report_sums_engines_by_machine(queue_site: QueueSite) -> None:
    queue_site.worker()
    promise, watcher = begin(queue_site, 3, 0.3)
    settle(promise)
    watcher.stop()
    done = queue_site.run("report", "--json")
    assert done.returncode == 0, done.stderr
    assert f'"host": "{socket.gethostname()}"' in done.stdout
    assert queue_site.query("SELECT COUNT(DISTINCT remote), SUM(done) FROM engine_runs") == [(3, 3)]


def test_doctor_looks_at_the_queue(queue_site: QueueSite) -> None:
    assert "workers that listen: 0; start `dropscale worker`" in queue_site.run("doctor").stdout
    queue_site.worker()
    assert "workers that listen: 1" in queue_site.run("doctor").stdout
    queue_site.server.kill()
    done = queue_site.run("doctor")
    assert done.returncode == 3
    assert "does not answer" in done.stdout


def test_an_engine_that_has_ended_is_entered_once_while_its_job_goes_on(queue_site: QueueSite, tmp_path: Path) -> None:
    """Each entry is a transaction, which waits for the disk."""
    (tmp_path / "dropscale").mkdir()  # where the stub counts its engines
    queue_site.worker(XDG_CACHE_HOME=str(tmp_path))
    queue_site.drop("a.png", b"LADDER 1 SLOW 6 ")  # the first engine asks for another one
    watcher = queue_site.start()
    ended = "SELECT remote FROM engine_runs WHERE exited_at IS NOT NULL AND remote IS NOT NULL"
    wait_until(lambda: queue_site.query(ended), f"the first engine's end: {watcher.log_path}")
    with contextlib.closing(sqlite3.connect(queue_site.state / "ledger.sqlite3", timeout=30)) as connection:
        versions = set()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            versions.add(connection.execute("PRAGMA data_version").fetchone())
            time.sleep(0.02)
    assert queue_site.engines(), "the second one is at work still"
    assert len(versions) < 10, "one write or two a second"
