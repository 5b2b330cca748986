"""Whoever can write to Redis can put anything into the queue: it is refused in one line, and the worker lives."""

import json
import os
import pickle
import zlib
from typing import Any

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
