"""`python -P -m watcher.queue.work_horse`: the process that does one job, started by a worker before there is one.

Its stdin has two lines: who it works for, and, when there is one, its job. It ends with the worker.
"""

import os
import platform
import signal
import sys
import time
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError

from sr_engine import models
from sr_engine.errors import ModelError
from watcher import config
from watcher.engine.model import models_folder
from watcher.errors import ConfigError
from watcher.logs import begin_log, begin_rq_log
from watcher.queue.lifelines import die_with
from watcher.queue.redis_link import connect, without_patience
from watcher.queue.shard_work import Place, upscale_shard
from watcher.queue.shards import RUNS_KEY, Report, Run, named
from watcher.queue.worker import HorseJob, HorseOrders, fetch_job

_RUNS_SECONDS = 7 * 86_400


class _Grace:
    """The time that the picture in work has, once the worker was asked to stop."""

    seconds = 0.0

    def __init__(self) -> None:
        self._until: float | None = None

    def begin(self) -> None:
        """Called by a signal handler."""
        if self._until is None:
            self._until = time.monotonic() + self.seconds

    def until(self) -> float | None:
        """None, or the monotonic time by which the picture in work has to be finished."""
        return self._until


def main() -> None:
    """Wait for a job and do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not (line := _line()):
        return
    orders = HorseOrders.of_line(line)
    die_with(orders.parent)
    begin_log(orders.log_format, verbose=orders.verbose)
    begin_rq_log()
    with connect(orders.url, for_ever=True) as connection:
        with without_patience(connection):
            connection.ping()  # so that the connection is there when the job is
        place = _place(orders)
        if line := _line():
            _do(msgspec.json.decode(line, type=HorseJob), orders, place, connection)


def _line() -> str:
    """What the worker says next; empty when it ended, perhaps in the middle of it."""
    line = sys.stdin.readline()
    return line if line.endswith("\n") else ""


def _place(orders: HorseOrders) -> Place | str:
    """This worker, read before there is a job; or why it cannot work."""
    try:
        settings = (
            config.load(orders.config_path, os.environ) if orders.config_path else config.without_file(os.environ)
        )
        folder = models_folder(settings)
        return Place(orders.share, settings, folder, models.installed(folder), platform.node(), orders.parent)
    except (ConfigError, ModelError) as error:
        return f"{named(platform.node(), orders.parent)}: {error.message}"


def _do(told: HorseJob, orders: HorseOrders, place: Place | str, connection: Redis) -> None:
    grace = _Grace()

    def keep(run: Run) -> None:
        key = RUNS_KEY.format(told.job)
        with without_patience(connection):
            connection.hset(key, run.id, msgspec.json.encode(run))
            connection.expire(key, _RUNS_SECONDS)

    def work(manifest: Any) -> Any:
        if isinstance(place, str):
            return msgspec.to_builtins(Report(host=platform.node(), worker=orders.parent, refused=place))
        grace.seconds = place.config.engine.grace_seconds
        return upscale_shard(place, told.execution, keep, grace.until, manifest)

    worker, job, queue = fetch_job(connection, orders, told)
    job.handler = work
    worker.stop_work = grace.begin
    worker.main_work_horse(job, queue)


if __name__ == "__main__":
    try:
        main()
    except (RedisError, NoSuchJobError) as error:  # it came back empty since the worker took the job
        raise SystemExit(f"the job is gone: {error}") from error
