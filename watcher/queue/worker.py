"""A worker of the queue: RQ's, with what makes it lose no job, hold no GPU, and find back to a Redis that was away.

RQ's defaults need 10 to 15 minutes to notice a lost worker; the figures here, half a minute. `docs/design.md` says what
each difference to RQ's own worker is for.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import ConnectionError, TimeoutError
from rq import Queue, SpawnWorker
from rq.exceptions import NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.worker import WorkerStatus
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from sr_engine import protocol
from watcher.files.names import display
from watcher.journal import logger, tell, warn
from watcher.queue.address import shown
from watcher.queue.redis_link import SERIALIZER, ShardJob, listed, queue, without_patience

WORKER_TTL_SECONDS = 30
MAINTENANCE_SECONDS = 30
HEARTBEAT_SECONDS = 5
# Beyond the next heartbeat; RQ's own is 60. A job of a lost worker is given to another one when it is over.
_LEASE_SECONDS = 25
# The first rest of a worker that had to refuse a job, and the longest: it must not take all from those that can.
_REST_SECONDS, _LONGEST_REST_SECONDS = 2.0, 60.0
_SHARE_SECONDS = 2.0
_MOST_SHOWN = 200  # letters of what comes from Redis, in the log


class HorseOrders(msgspec.Struct, frozen=True):
    """What a work horse is told when it is started, by its stdin: an address may hold a password, which `ps` shows.

    Attributes:
        parent: process id of the worker.
        url, queue, name: of Redis, the queue, and the worker on it.
        share, config_path: as given to the command.
        log_format, verbose: likewise.
    """

    parent: int
    url: str
    queue: str
    name: str
    share: str
    config_path: str
    log_format: str
    verbose: bool

    def as_line(self) -> bytes:
        """For the stdin of a work horse, with encoded paths."""
        share, config_path = protocol.encode_path(self.share), protocol.encode_path(self.config_path)
        return msgspec.json.encode(msgspec.structs.replace(self, share=share, config_path=config_path)) + b"\n"

    @classmethod
    def of_line(cls, line: str) -> "HorseOrders":
        """Undo `as_line`."""
        told = msgspec.json.decode(line, type=cls)
        share, config_path = protocol.decode_path(told.share), protocol.decode_path(told.config_path)
        return msgspec.structs.replace(told, share=share, config_path=config_path)


class HorseJob(msgspec.Struct, frozen=True):
    """The job of a work horse, told when there is one."""

    job: str
    execution: str


class _Horse(NamedTuple):
    pid: int
    orders: int  # descriptor to write its job to


class ShardWorker(SpawnWorker):
    """One worker of one queue; with several, RQ loses a job whose worker dies as it takes it.

    Attributes:
        orders: for work horses; None in a work horse.
        stop_work: called there on SIGTERM.
    """

    orders: HorseOrders | None = None
    stop_work: Callable[[], None] | None = None
    _is_resting = False

    def __init__(self, queues: Any, name: str | None = None, **settings: Any) -> None:
        """As RQ's, which makes such objects for other workers, too."""
        settings = {
            "worker_ttl": WORKER_TTL_SECONDS,
            "maintenance_interval": MAINTENANCE_SECONDS,
            "job_monitoring_interval": HEARTBEAT_SECONDS,
            "serializer": SERIALIZER,
            "job_class": ShardJob,
            **settings,
        }
        super().__init__(queues, name, **settings)
        self._spare: _Horse | None = None
        self._stops = 0
        self._refusals = 0  # in a row
        self._share_mount = ""  # what the share was seen to lie on; empty: this machine's own disk

    # Where this differs from RQ's worker

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """How long a job is this worker's own after a sign of life, in seconds."""
        return int(self.job_monitoring_interval) + _LEASE_SECONDS

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """A sign of life; after Redis came back empty, the worker introduces itself again."""
        if pipeline is None and self.birth_date and not self._is_registered():
            self.connection.delete(self.key)
            self.register_birth()  # type: ignore[no-untyped-call]
        super().heartbeat(timeout, pipeline)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job; not for one before the share is there. What is no job is thrown out of the queue."""
        while True:
            self._await_share()
            try:
                return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            except (StopRequested, ConnectionError, TimeoutError):
                raise
            except Exception as error:  # RQ's worker would quit, and the next one, too
                if not self._throw_out():
                    if timeout is None:  # it is to end when there is nothing to do
                        raise
                    warn("queue_ill", "the queue cannot be read ({why}); trying again", why=_brief(error))
                    self._rest(_REST_SECONDS)

    def run_maintenance_tasks(self) -> None:
        """As RQ's; what somebody wrote into its lists is no reason to quit."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except (StopRequested, ConnectionError, TimeoutError):
            raise
        except Exception as error:
            self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]  # not again at once
            self.queues[0].release_maintenance_lock()  # type: ignore[no-untyped-call]
            if not self._throw_out():
                warn("queue_ill", "RQ's lists of the queue cannot be cleared up ({why})", why=_brief(error))

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Let a work horse do it. A worker that had to refuse it takes a rest: others may be able to."""
        tell("job_started", "job {job} of {queue}", job=job.id, queue=queue.name)
        super().execute_job(job, queue)
        result = job.latest_result()
        value = result.return_value if result is not None else None
        reason = value.get("refused") if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and value.get("absent"):
            tell("job_late", "job {job} left alone: {reason}", job=job.id, reason=reason)
            self._rest(_REST_SECONDS)  # no longer one each time: a whole window may have been left behind
        elif reason:
            warn("job_refused", "job {job} refused: {reason}", job=job.id, reason=reason)
            self._refusals += 1
            self._rest(min(_REST_SECONDS * 2.0 ** (self._refusals - 1), _LONGEST_REST_SECONDS))
        else:
            self._refusals = 0
            tell("job_ended", "job {job} ended", job=job.id)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Give the job to the work horse that is ready, and make the next one ready."""
        horse = self._spare or self._start_horse()
        self._spare = None
        assert self.execution is not None
        _write(horse.orders, msgspec.json.encode(HorseJob(job.id, self.execution.id)) + b"\n")
        os.close(horse.orders)
        self._horse_pid = horse.pid
        self._spare = self._start_horse()

    def request_stop(self, signum: int, frame: Any) -> None:
        """The first signal lets the picture in work finish, a second one ends it, a third one the worker itself."""
        self._stops += 1
        self._stop_requested = True
        if self.get_state() != WorkerStatus.BUSY or self._is_resting:
            raise StopRequested
        if self._stops > 2:
            raise SystemExit(128 + signum)
        if self.horse_pid and self._stops == 2:
            self.kill_horse()
        elif self.horse_pid:
            tell("stopping", "stopping: the picture in work may finish, a second signal abandons it")
            os.kill(self.horse_pid, signal.SIGTERM)

    def register_death(self) -> None:
        """Sign off, if Redis is there."""
        with without_patience(self.connection):
            super().register_death()  # type: ignore[no-untyped-call]

    def unsubscribe(self) -> None:
        """Likewise."""
        with without_patience(self.connection):
            super().unsubscribe()  # type: ignore[no-untyped-call]

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """A worker that stops closes what its listening thread reads: with RQ's, that one ends with a traceback."""
        if self._stop_requested:
            pubsub_thread.stop()
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def _install_signal_handlers(self) -> None:
        """The last step before the first job."""
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        self._spare = self._start_horse()
        assert self.orders is not None
        text = "working for the queue {queue} at {redis}, share {share}"
        share = display(self.orders.share)
        tell("worker_ready", text, queue=self.orders.queue, redis=shown(self.orders.url), share=share)

    def setup_work_horse_signals(self) -> None:
        """In the work horse: Ctrl-C is for the worker, which passes on what is to be done."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.stop_work() if self.stop_work else None)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """In the work horse: a line in the log, where RQ prints a traceback."""
        foreign = isinstance(job, ShardJob) and not job.is_ours
        why = "it is none of dropscale's, which workers do not do" if foreign else _brief(exc_info[1])
        warn("job_broken", "job {job} was broken off: {why}", job=job.id, why=why)

    # Private

    def _is_registered(self) -> bool:
        return bool(self.connection.sismember(WORKERS_BY_QUEUE_KEY % self.queues[0].name, self.key))

    def _throw_out(self) -> int:
        """Remove what was just taken out of the queue and cannot be read as a job; returns how many there were."""
        place, thrown_out = self.queues[0].intermediate_queue.key, 0
        for name in listed(self.connection, place):
            try:
                ShardJob.fetch(name.decode(), connection=self.connection, serializer=SERIALIZER)
            except NoSuchJobError:
                continue  # RQ passes over it
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                self.connection.lrem(place, 0, name)  # type: ignore[arg-type]  # bytes will do
                self.connection.delete(ShardJob.redis_job_namespace_prefix.encode() + name)
                thrown_out += 1
                shown = name.decode(errors="backslashreplace")[:_MOST_SHOWN]
                text = "job {job} refused: it is none of dropscale's, and cannot be read ({why}); it is removed"
                warn("job_refused", text, job=shown, why=_brief(error))
        return thrown_out

    def _start_horse(self) -> _Horse:
        """A process that is ready to work and holds no device: to start Python takes longer than a small job."""
        assert self.orders is not None
        reading, writing = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "watcher.queue.work_horse"],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)],
                setpgroup=0,  # a group of its own, with its engine in it: to be killed with one signal
            )
        except OSError:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        _write(writing, self.orders.as_line())
        return _Horse(pid, writing)

    def _await_share(self) -> None:
        assert self.orders is not None
        told = ""
        while problem := share_problem(self.orders.share, self._share_mount):
            if problem != told:
                warn("share_gone", "{problem}; taking no jobs meanwhile", problem=problem)
                told = problem
            self.heartbeat()
            self._rest(_SHARE_SECONDS)
        if told:
            tell("share_back", "the share is back")
        self._share_mount = mount_of(self.orders.share) or self._share_mount

    def _rest(self, seconds: float) -> None:
        self._is_resting = True
        try:
            if self._stop_requested:
                raise StopRequested
            time.sleep(seconds)
        finally:
            self._is_resting = False


def _brief(error: BaseException) -> str:
    """An error in words, of which somebody else may have chosen any number."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:_MOST_SHOWN]


def share_problem(share: str, mount: str = "") -> str:
    """Why no job can be done in this folder; empty if nothing speaks against it.

    Args:
        share: the folder.
        mount: the mount point that it was seen to lie on. What is mounted there may come back as another device.
    """
    try:
        if not os.listdir(share):
            return f"the share {display(share)} is empty: is it mounted?"
    except OSError as error:
        return f"the share {display(share)} cannot be read ({error.strerror})"
    lies_there = mount and os.path.commonpath((mount, os.path.realpath(share))) == mount
    if lies_there and not os.path.ismount(mount):
        return f"the share {display(share)} is not mounted any more"
    return ""


def mount_of(share: str) -> str:
    """The mount point that a folder lies on; empty if that is the root of all."""
    point = os.path.realpath(share)
    while not os.path.ismount(point):
        point = os.path.dirname(point)
    return "" if point == os.path.dirname(point) else point


def make_worker(connection: Redis, orders: HorseOrders) -> ShardWorker:
    """A worker that is ready for `work`."""
    worker = ShardWorker([queue(connection, orders.queue)], orders.name, connection=connection)
    worker.orders = orders
    return worker


def fetch_job(connection: Redis, orders: HorseOrders, told: HorseJob) -> tuple[ShardWorker, ShardJob, Queue]:
    """What a work horse needs: its worker, which knows the execution, its job, and the queue.

    Raises:
        rq.exceptions.NoSuchJobError: Redis came back empty since the worker took the job.
    """
    origin = queue(connection, orders.queue)
    worker = ShardWorker([origin], orders.name, connection=connection, prepare_for_work=False)
    job = ShardJob.fetch(told.job, connection=connection, serializer=SERIALIZER)
    assert isinstance(job, ShardJob)
    try:
        execution = Execution.fetch(told.execution, told.job, connection=connection)
    except (KeyError, ValueError) as error:  # KeyError: a heartbeat has made it anew, with nothing else in it
        raise NoSuchJobError(f"{told.job} is not in work by Redis") from error
    execution._job = job
    worker.execution = execution
    return worker, job, origin


def _write(descriptor: int, data: bytes) -> None:
    try:
        os.write(descriptor, data)  # shorter than what a pipe takes at once
    except OSError as error:  # the horse died: waiting for it tells how
        logger.debug("a work horse did not take its orders: %s", error)
