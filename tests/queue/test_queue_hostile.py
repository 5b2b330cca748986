"""Whoever can write to Redis can put anything into the queue: it is refused in one line, and the worker lives."""

import base64
import json
import os
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import redis
from harness import wait_until
from machines import QueueSite
from test_both_executors import settle
from test_queue_faults import begin

QUEUE = "rq:queue:dropscale"


class _Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made by a pickle",)


def call(function: str, *arguments: object) -> bytes:
    return json.dumps([function, None, arguments, {}]).encode()


def put(site: QueueSite, name: bytes, **fields: str | bytes | int) -> None:
    """A job by hand: a hash, and its name in the list."""
    sound = {"data": call("dropscale.shard", {}), "status": "queued", "origin": "dropscale", "timeout": 60}
    with site.server.client() as client:
        client.hset(b"rq:job:" + name, mapping={**sound, **fields})
        client.rpush(QUEUE, name)


BAD: dict[str, dict[str, str | bytes | int]] = {
    "pickle": {"data": pickle.dumps(_Bomb())},
    "packed-pickle": {"data": zlib.compress(pickle.dumps(_Bomb()))},
    "function": {"data": call("os.mkdir", "made by a job")},
    "method": {"data": json.dumps(["mkdir", "os", ["made"], {}]).encode()},
    "no-call": {"data": b"7"},
    "not-hashable": {"data": json.dumps([["os.mkdir"], {}, "made", 7]).encode()},
    "many-arguments": {"data": call("dropscale.shard", {}, 1, 2)},
    "no-arguments": {"data": call("dropscale.shard")},
    "deep": {"data": b"[" * 100_000},
    "bomb": {"data": zlib.compress(b'["' + bytes(65 << 20) + b'"]', 9)},
    "large": {"data": call("dropscale.shard", {"entries": ["x" * 1000] * 10_000})},
    "no-text-\xff\xfe": {},
    "lines\nINFO all is well": {},
    "status": {"status": "anything"},
    "time": {"created_at": "yesterday"},
    "timeout": {"timeout": "soon"},
    "for-ever": {"timeout": -1, "data": call("os.mkdir", "made")},
    "retries": {"retries_left": "many"},
    "types": {"result_ttl": "x" * 10_000, "meta": b"\xff", "dependency_ids": b"{"},
}


def test_a_worker_refuses_what_is_no_job_in_one_line_each_and_lives(queue_site: QueueSite) -> None:
    worker = queue_site.worker()
    for name, fields in BAD.items():
        put(queue_site, name.encode("latin-1"), **fields)
    with queue_site.server.client() as client:
        client.set("rq:job:a-string", "no hash")
        client.rpush(QUEUE, "a-string")
    promise, watcher = begin(queue_site, 1, 0.1)
    settle(promise)
    log = worker.log()
    assert worker.process.poll() is None, log
    assert "\nINFO all is well" not in log
    assert not list(queue_site.root.glob("made*"))
    assert max(len(line) for line in log.splitlines()) < 500, log
    warnings = [line for line in log.splitlines() if "warning: job" in line]
    assert len(warnings) == len(BAD) + 1, log
    for name in [*BAD, "a-string"]:
        shown = name.encode("latin-1").decode(errors="backslashreplace").partition("\n")[0]
        (line,) = [line for line in warnings if f" job {shown} " in line]
        assert "none of dropscale's" in line or "of another version of dropscale" in line, line
    assert "warning" not in watcher.log(), watcher.log()


def test_a_watcher_passes_over_what_is_no_job(queue_site: QueueSite) -> None:
    for name, fields in BAD.items():
        if name not in ("bomb", "large"):  # they take their time
            put(queue_site, name.encode("latin-1"), **fields)
    promise, watcher = begin(queue_site, 1, 0.1)
    wait_until(lambda: "queued as job" in watcher.log(), "the watcher to queue it")
    queue_site.worker()
    settle(promise)
    assert "warning" not in watcher.log(), watcher.log()


def test_a_worker_waits_while_the_queue_is_something_else(queue_site: QueueSite) -> None:
    with queue_site.server.client() as client:
        client.set(QUEUE, "no list")
        worker = queue_site.worker()
        wait_until(lambda: "the queue cannot be read" in worker.log(), "the worker to say so")
        client.delete(QUEUE)
    promise, _ = begin(queue_site, 1, 0.1)
    settle(promise)
    assert worker.process.poll() is None


# What a watcher reads of its own jobs


def _run(**fields: object) -> str:
    sound = {"id": "x", "host": "h", "pid": 1, "model": "m", "spawned_at": 1.0, "seen_at": 2.0}
    return json.dumps({**sound, **fields})


def _finish(client: redis.Redis, job: str, value: object) -> None:
    packed = base64.b64encode(json.dumps(value).encode())
    client.xadd(f"rq:results:{job}", {"type": 1, "return_value": packed})
    client.hset(f"rq:job:{job}", "status", "finished")


def _copy(client: redis.Redis, job: str) -> None:
    """Under a name that is nearly one of this watcher's."""
    name = job.partition("-")[0] + "-x-y"
    client.rpush(QUEUE, name)
    client.copy(f"rq:job:{job}", f"rq:job:{name}")


TAMPERED: dict[str, Callable[[redis.Redis, str], object]] = {
    "retries": lambda client, job: client.hset(f"rq:job:{job}", "retries_left", "many"),
    "status": lambda client, job: client.hset(f"rq:job:{job}", "status", b"\xff"),
    "large number": lambda client, job: client.hset(f"dropscale:runs:{job}", "x", _run(pid=2**70)),
    "late date": lambda client, job: client.hset(f"dropscale:runs:{job}", "x", _run(spawned_at=1e300)),
    "name": _copy,
    "registry": lambda client, _: client.zadd("rq:wip:dropscale", {b"\xff": 1e10, b"a:b:c": 1e10, b"": 1e10}),
    "registries": lambda client, _: [
        client.zadd(f"rq:{name}:dropscale", {b"\xff": 1e10}) for name in ("finished", "failed")
    ],
    "half a character": lambda client, job: _finish(client, job, {"host": "h", "refused": "\ud800"}),
    "no number": lambda client, job: _finish(
        client, job, {"host": "h", "runs": [json.loads(_run()) | {"seen_at": float("inf")}]}
    ),
    "no report": lambda client, job: _finish(client, job, 7),
    "no result": lambda client, job: (
        client.xadd(f"rq:results:{job}", {"nothing": "of ours"}),
        client.hset(f"rq:job:{job}", "status", "finished"),
    ),
    "last words": lambda client, job: (
        client.xadd(f"rq:results:{job}", {"type": 2, "exc_string": "no base64"}),
        client.hset(f"rq:job:{job}", "status", "failed"),
    ),
}


# What the watcher that put the job there reads; the others are for the one that takes it over.
WHILE_IT_WATCHES = {"retries", "status", "late date", "half a character", "no number", "no report", "last words"}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_watcher_goes_on_whatever_becomes_of_its_own_jobs(queue_site: QueueSite, how: str) -> None:
    _, watcher = begin(queue_site, 1, 0.5)
    with queue_site.server.client() as client:
        keys: list[bytes] = wait_until(lambda: client.keys("rq:job:*"), "the job")
        if how not in WHILE_IT_WATCHES:
            watcher.kill()
        TAMPERED[how](client, keys[0].decode().rpartition(":")[2])
    if how not in WHILE_IT_WATCHES:
        watcher = queue_site.start()
        wait_until(lambda: "window closed" in watcher.log(), "the next batch")
    queue_site.worker()
    wait_until(lambda: queue_site.names(queue_site.archive), f"the picture: {watcher.log_path}")
    assert "broken off" not in watcher.log().replace("was broken off again", ""), watcher.log()
    assert queue_site.run("report").returncode == 0
