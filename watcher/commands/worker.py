"""`dropscale worker`: does the jobs of the queue on this machine."""

import os
import time
import uuid

import click

from watcher.commands.options import config_option, load_if_any, log_options, path_if_any
from watcher.errors import EXIT_DONE, EnvironmentFault, UsageError
from watcher.files.names import display
from watcher.journal import tell, warn
from watcher.logs import begin_log, begin_rq_log
from watcher.queue.needs import require_packages
from watcher.sections import Config, Queue

URL_VARIABLE = "DROPSCALE_QUEUE__URL"
_LONGEST_PAUSE_SECONDS = 30.0
_REMEDY = "start it, or correct queue.url or --url"


@click.command()
@click.option("--share", required=True, metavar="DIR", help="Where the watcher's share is mounted on this machine.")
@click.option("--url", default="", help="Of Redis, in place of queue.url; $DROPSCALE_QUEUE__URL shows in no `ps`.")
@click.option("--burst", is_flag=True, help="End when the queue is empty; for cloud instances on demand.")
@click.option("--max-idle-time", type=click.IntRange(min=1), metavar="S", help="End after S seconds without a job.")
@config_option
@log_options
def worker(
    share: str,
    url: str,
    burst: bool,
    max_idle_time: int | None,
    config_path: str | None,
    log_format: str,
    verbose: bool,
) -> int:
    """Do the jobs of a watcher with `executor: rq`, one at a time; no engine runs while there is none."""
    begin_log(log_format, verbose=verbose)
    if not hasattr(os, "posix_spawn"):
        raise UsageError("workers need Linux, or another POSIX system", "use executor: local here")
    require_packages()
    from watcher.queue.worker import HorseOrders, make_worker, share_problem  # noqa: PLC0415 - needs RQ

    path, config = path_if_any(config_path), load_if_any(config_path)
    share = os.path.abspath(share)
    if problem := share_problem(share):
        raise EnvironmentFault(problem, "mount it, or name another --share DIR")
    begin_rq_log()
    origin = "" if url else _origin(config, path)
    url = url or config.queue.url
    _await_redis(url, origin, for_ever=not burst)
    from watcher.queue.redis_link import RedisGone, connect, faults_told  # noqa: PLC0415 - needs RQ

    orders = HorseOrders(
        parent=os.getpid(),
        url=url,
        queue=config.queue.name,
        name=f"dropscale-{uuid.uuid4().hex}",
        share=share,
        config_path=os.path.abspath(path) if path else "",
        log_format=log_format,
        verbose=verbose,
    )
    try:
        with connect(url, for_ever=True) as connection, faults_told(url):
            make_worker(connection, orders).work(burst=burst, max_idle_time=max_idle_time)
    except RedisGone as error:
        raise EnvironmentFault(str(error), _REMEDY) from error
    tell("goodbye", "stopped")
    return EXIT_DONE


def _origin(config: Config, path: str) -> str:
    """Where the address is from that no --url names, and how to name another one."""
    if URL_VARIABLE in os.environ:
        return f"; the address is that of {URL_VARIABLE}"
    if config.queue.url != Queue().url:
        return f"; the address is queue.url of {display(path)}"
    return f"; that is the default address: name the watcher's with --url or {URL_VARIABLE}"


def _await_redis(url: str, origin: str, *, for_ever: bool) -> None:
    from watcher.queue.redis_link import RedisGone, check, connect  # noqa: PLC0415 - needs RQ

    pause = 1.0
    with connect(url) as connection:
        while True:
            try:
                check(connection, url)
                return
            except RedisGone as error:
                if not for_ever:
                    raise EnvironmentFault(f"{error}{origin}", _REMEDY) from error
                warn("no_redis", "{problem}{origin}; trying again", problem=str(error), origin=origin)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
