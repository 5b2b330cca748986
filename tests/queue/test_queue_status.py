"""What `status` and `report` tell of the queue."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Site, wait_until
from machines import QueueSite, RedisServer
from test_both_executors import settle
from test_queue_faults import begin, working_horse

from sr_engine.models import default_name


def working(site: QueueSite) -> str:
    return str(site.status()["working"])


def test_status_tells_what_is_queued_and_what_runs_where(queue_site: QueueSite) -> None:
    begin(queue_site, 2, 30.0)
    wait_until(lambda: working(queue_site).count("queued, no worker listens") == 2, "both to be queued")
    assert queue_site.status()["engine"]["state"] == "off"
    worker = queue_site.worker()
    place = f"running on {socket.gethostname()}, worker process {worker.pid}"

    def one_of_each() -> bool:
        told = working(queue_site)
        return place in told and "queued for a worker" in told

    wait_until(one_of_each, "one to run, and one to wait")
    report = queue_site.status()
    redis = queue_site.server.url
    assert report["workers"] == {"redis": redis, "listening": 1, "problem": "", "engines": 1, "refusing": []}
    assert report["engine"]["state"] == "working"
    assert "queue" not in report["watcher"]
    told = queue_site.run("status").stdout
    assert "engine    1 on workers\n" in told
    assert "workers   1 at unix://" in told


def test_workers_on_one_machine_are_told_apart(queue_site: QueueSite) -> None:
    workers = [queue_site.worker(), queue_site.worker()]
    begin(queue_site, 2, 30.0)
    places = [f"worker process {worker.pid}'" for worker in workers]
    wait_until(lambda: all(place in working(queue_site) for place in places), "each to have a picture")
    assert queue_site.status()["workers"]["engines"] == 2


def test_workers_are_counted_while_nothing_is_queued(queue_site: QueueSite) -> None:
    """Also where no watcher runs: who sets it up wants to see that they are there."""
    told = queue_site.run("status").stdout
    assert f"workers   none listens at {queue_site.server.url}: start `dropscale worker`" in told
    assert "engine    " not in told
    watcher = queue_site.start()
    queue_site.worker()
    queue_site.worker()
    told = queue_site.run("status").stdout
    assert f"workers   2 at {queue_site.server.url}\n" in told
    assert "engine    off; workers start their own\n" in told
    assert watcher.stop() == 0


def test_a_redis_that_is_away_does_not_hold_up_status(queue_site: QueueSite, server: RedisServer) -> None:
    server.kill()
    told = queue_site.run("status").stdout
    assert f"workers   not known: Redis at {server.url} does not answer" in told
    report = queue_site.status()["workers"]
    assert report["listening"] is None and "does not answer" in report["problem"]
    queue_site.environment["DROPSCALE_QUEUE__URL"] = "hunter2-and-more"
    told = queue_site.run("status").stdout
    assert "workers   not known: queue.url is not the address of a Redis server" in told and "hunter2" not in told


def test_a_redis_that_says_nothing_does_not_hold_up_status(queue_site: QueueSite, server: RedisServer) -> None:
    """Who is patient asks it for a minute."""
    server.pause()
    done = queue_site.run("status", timeout=30)
    server.go_on()
    assert f"workers   not known: Redis at {server.url} does not answer" in done.stdout
    with server.client() as client:
        wait_until(lambda: len(client.client_list()) == 1, "the connection to be closed")


def test_status_works_without_rq(queue_site: QueueSite) -> None:
    hidden = "import sys; sys.modules['rq'] = sys.modules['redis'] = None; from watcher.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "status", "--config", str(queue_site.config_path)],
        check=False,
        env=queue_site.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "workers   not known: the package rq is not installed: install it: `pip install rq`\n" in done.stdout


def test_status_tells_what_is_tried_again(queue_site: QueueSite) -> None:
    worker = queue_site.worker()
    promise, _ = begin(queue_site, 1, 6.0)
    os.kill(working_horse(queue_site, worker), signal.SIGKILL)
    wait_until(lambda: "again" in working(queue_site), "the status to say that it is done again")
    settle(promise)
    assert queue_site.status()["workers"]["engines"] == 0
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


def test_a_model_that_the_watcher_s_machine_chose_is_told_at_the_start_and_by_doctor(queue_site: QueueSite) -> None:
    """It may have a GPU, or none, where the workers are the other way round."""
    assert "note  model" not in queue_site.run("doctor").stdout
    running = queue_site.start()
    assert "engine.model is auto" not in running.log()
    assert running.stop() == 0
    queue_site.environment["DROPSCALE_ENGINE__MODEL"] = "auto"
    name = default_name("auto", "auto")
    advice = f"engine.model is auto: {name} was chosen by this machine, not by the workers; set engine.model: {name}"
    running = queue_site.start()
    assert advice in running.log()
    assert running.stop() == 0
    doctor = queue_site.run("doctor").stdout
    assert any(line.startswith("note  model ") and advice in line for line in doctor.splitlines())
    queue_site.environment["DROPSCALE_EXECUTOR"] = "local"
    assert "engine.model is auto" not in queue_site.run("doctor").stdout + queue_site.once().stderr
