"""Watchers that share a Redis, settings that change while jobs are on their way, budgets, and a Redis that forgets."""

import signal
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from harness import Running, Site, wait_until
from machines import QueueSite, RedisServer
from promise import Promise
from test_both_executors import settle
from test_queue_faults import begin

MakeSite = Callable[..., QueueSite]
GPU = {"STUB": "DEVICE cuda:0"}


def change(site: Site, watcher: Running, **sections: object) -> None:
    """Another config, which the watcher reads."""
    tree = {**yaml.safe_load(site.config_path.read_text()), **sections}
    site.config_path.write_text(yaml.safe_dump(tree))
    watcher.process.send_signal(signal.SIGHUP)


# Neighbours


@pytest.mark.parametrize("names", [("one", "other"), ("same", "same")])
def test_two_watchers_on_one_redis_get_their_own_results(
    make_queue_site: MakeSite, tmp_path: Path, names: tuple[str, str]
) -> None:
    sites = [
        make_queue_site(f"site-{number}", queue={"share": str(tmp_path), "name": name})
        for number, name in enumerate(names)
    ]
    promises = []
    for number, site in enumerate(sites):
        site.worker(share=tmp_path)
        promises.append(Promise(site))
        for picture in range(4):
            promises[-1].drop(f"{picture}.png", b"picture %d of %d SLOW 0.2 " % (picture, number))
        promises[-1].drop("same.png", b"in both of them")
    for site in sites:
        site.start()
    for promise in promises:
        settle(promise)


def test_a_worker_with_the_share_of_another_watcher_refuses(make_queue_site: MakeSite) -> None:
    """It has folders of the same names, so that only the shelf tells."""
    site, other = make_queue_site(), make_queue_site("other")
    worker = site.worker(share=other.root)
    promise, watcher = begin(site, 1, 0.1)
    wait_until(lambda: "not the watcher's share" in site.troubles(), f"the ledger: {watcher.log_path}")
    promise.check_now()
    assert "left alone" in worker.log()
    worker.stop()
    site.worker()
    settle(promise)


# Budgets


def test_engines_on_workers_use_up_the_budget(make_queue_site: MakeSite) -> None:
    site = make_queue_site(budget={"unit": "gpu_minutes", "per_day": 0.01})
    site.worker(**GPU)
    promise, watcher = begin(site, 1, 1.0)
    wait_until(lambda: site.names(site.archive), "the first picture")
    promise.drop("later.png", b"another picture")
    wait_until(lambda: "pictures wait until" in watcher.log(), "the budget to hold it")
    assert site.upscaled() == [1]
    status = site.status()
    assert status["held"]["why"].startswith("the budget is used up") and status["budgets"][0]["share"] >= 1
    change(site, watcher, budget={})
    settle(promise)


def test_outside_of_the_hours_no_job_is_sent(make_queue_site: MakeSite, server: RedisServer) -> None:
    begins, ends = (f"{datetime.now() + timedelta(hours=hours):%H:%M}" for hours in (2, 4))
    site = make_queue_site(budget={"only_between": [f"{begins}-{ends}"]})
    site.worker()
    promise, watcher = begin(site, 2, 0.1)
    wait_until(lambda: "pictures wait until" in watcher.log(), "the hours to hold them")
    with server.client() as client:
        assert client.llen("rq:queue:dropscale") == 0 and not client.keys("rq:job:*")
    change(site, watcher, budget={})
    settle(promise)


# Another executor


def test_a_change_of_the_executor_loses_nothing_and_does_nothing_twice(make_queue_site: MakeSite) -> None:
    site = make_queue_site()
    site.worker()
    del site.environment["DROPSCALE_EXECUTOR"]
    promise = Promise(site)

    def drop(number: int) -> None:
        for each in range(3):
            promise.drop(f"{number}-{each}.png", b"picture %d of %d SLOW 0.4 " % (each, number))

    drop(0)
    watcher = site.start()
    for number, executor in enumerate(["rq", "local", "rq"], 1):
        wait_until(lambda number=number: len(site.names(site.archive)) > 3 * number - 3, "a batch to be at work")
        promise.check_now()
        change(site, watcher, executor=executor)
        drop(number)
    settle(promise)
    assert watcher.stop() == 0
    promise.check_end()
    assert sum(site.upscaled()) == 12, "nothing was done twice"
    jobs = site.query("SELECT COUNT(*) FROM engine_runs WHERE remote IS NOT NULL")
    assert jobs[0][0] >= 3, f"workers on {socket.gethostname()} had their part: {jobs}"


# A Redis that forgets


def forget(server: RedisServer, how: str) -> None:
    with server.client() as client:
        if how == "all":
            client.flushall()
            return
        jobs = [*client.keys("rq:job:*"), *client.keys("rq:results:*"), *client.keys("dropscale:*")]
        if jobs:
            client.delete(*jobs)  # as `maxmemory-policy allkeys-lru` does: some keys go, lists stay


@pytest.mark.parametrize("how", ["all", "some"])
def test_what_redis_forgets_at_any_stage_is_done_once(queue_site: QueueSite, server: RedisServer, how: str) -> None:
    promise, watcher = begin(queue_site, 3, 1.0)
    wait_until(lambda: "queued as job" in watcher.log(), "the jobs to be queued")
    forget(server, how)  # while they are queued
    worker = queue_site.worker()
    wait_until(queue_site.engines, "an engine at work")
    forget(server, how)  # while one runs
    wait_until(lambda: queue_site.names(queue_site.archive), "a picture")
    watcher.process.send_signal(signal.SIGSTOP)
    jobs_before = worker.log().count(" ended")
    wait_until(lambda: worker.log().count(" ended") > jobs_before, "a job to finish unread")
    forget(server, how)  # while it is finished, and not read yet
    watcher.process.send_signal(signal.SIGCONT)
    settle(promise)
    assert worker.process.poll() is None
    assert "broken off" not in watcher.log()
    assert watcher.stop() == worker.stop() == 0


def test_a_redis_that_evicts_keys_costs_time_only(make_queue_site: MakeSite) -> None:
    server = RedisServer("--maxmemory-policy", "allkeys-lru")
    server.start()
    try:
        with server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 4_000_000)
        site = make_queue_site(window={"quiet_seconds": 0.05, "max_seconds": 0.3, "max_files": 30})
        site.environment["DROPSCALE_QUEUE__URL"] = server.url
        worker = site.worker()
        promise, watcher = begin(site, 20, 0.1)
        for number in range(400):
            with server.client() as client:
                client.set(f"ballast-{number}", b"x" * 20_000)
        settle(promise)
        with server.client() as client:
            assert client.info("stats")["evicted_keys"] > 0
        assert "broken off" not in watcher.log()
        assert worker.process.poll() is None
    finally:
        server.close()
