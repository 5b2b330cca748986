"""The jobs of one watcher in the queue: put there, watched, taken over when their worker is lost.

RQ repeats a job whose work horse died at once, and some worker repeats one whose worker died, in its own time, if there
is another worker. What falls between these is found here: a job that shows no sign of life, one that is in no list any
more, and one that vanished because Redis came back empty. Times are of the monotonic clock of this machine: what is
looked for is change, so that the workers' clocks need not agree with it.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError
from rq import Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation
from rq.executions import ExecutionRegistry
from rq.job import JobStatus
from rq.results import Result

from sr_engine.models import Model
from watcher.errors import EnvironmentFault
from watcher.files.names import display
from watcher.journal import logger
from watcher.queue.address import shown
from watcher.queue.note import JobState, QueueState
from watcher.queue.redis_link import SERIALIZER, RedisGone, ShardJob, check, connect, listed, listeners, queue
from watcher.queue.shards import FUNCTION, RUNS_KEY, Report, Run, Shard, named, read_report, read_shard, timeout_seconds
from watcher.sections import Queue as Settings

_KEPT_SECONDS = 7 * 86_400  # reports of jobs that ended while no watcher was there: they have the bill
# A worker gives a sign of life every 5 s, see `watcher.queue.worker`.
_LOST_SECONDS = 35.0
_AUDIT_SECONDS, _POLLS_SECONDS = 2.0, 0.2
_RUNS_SECONDS = 1.0
RESULTS_KEY = Result.get_key("{}")  # type: ignore[no-untyped-call]
_WAITING = (JobStatus.QUEUED, JobStatus.CREATED)


@dataclass(eq=False)
class Flight:
    """A job on its way.

    Attributes:
        attempt: how many of its kind there were before.
        refusals: by workers that could not do it.
        runs: of engines, as far as they were told of.
        report: what came of it; None where it was lost.
        is_failed: whether it was repeated as often as it may be.
        is_repeated: whether it was repeated by RQ.
        why: it was lost, in words that follow on its name.
    """

    job_id: str
    shard: Shard
    attempt: int = 0
    refusals: int = 0
    status: str = JobStatus.QUEUED
    runs: dict[str, Run] = field(default_factory=dict)
    report: Report | None = None
    is_failed: bool = False
    is_repeated: bool = False
    why: str = ""
    sign: Any = None
    sign_seen: float = field(default_factory=time.monotonic)

    @property
    def engine(self) -> Run | None:
        """The one that was started last for it, while it is in work."""
        return next(reversed(self.runs.values()), None) if self.status == JobStatus.STARTED else None

    def where(self, *, has_listeners: bool) -> str:
        """For `status`.

        Args:
            has_listeners: whether any worker listens to the queue.
        """
        again = ", again" if self.attempt or self.is_repeated else ""
        if self.status != JobStatus.STARTED:
            queued = "queued for a worker" if has_listeners else "queued, no worker listens"
            return f"retrying: {queued}{again}" if again else queued
        run = self.engine
        return f"running on {named(run.host, run.worker)}{again}" if run is not None else f"taken by a worker{again}"


class Flights:
    """Those of one batch."""

    def __init__(self, connection: Redis, settings: Settings, owner: str, model: Model) -> None:
        """Nothing is on its way.

        Args:
            connection: to Redis.
            settings: of the queue.
            owner: of the jobs: what other watchers have put into the same queue is left alone.
            model: of the batch, for how long it may take.
        """
        self.connection = connection
        self.listeners: frozenset[bytes] = frozenset()
        self._settings = settings
        self._owner = owner
        self._model = model
        self._queue = queue(connection, settings.name)
        self._flights: dict[str, Flight] = {}
        self._audited_at = self._runs_read_at = float("-inf")
        self._alone_since: float | None = None

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flights.values()))

    def __len__(self) -> int:
        return len(self._flights)

    def carries(self, key: str) -> bool:
        """Whether a picture is on its way."""
        return any(entry.key == key for flight in self._flights.values() for entry in flight.shard.entries)

    def state(self, batch: int, ids: Mapping[str, int], refusing: tuple[str, ...]) -> QueueState:
        """What `status` tells of them.

        Args:
            batch: its id.
            ids: of the pictures that are not done, by content key.
            refusing: as in `QueueState`.
        """
        jobs = tuple(
            JobState(
                tuple(ids[entry.key] for entry in flight.shard.entries if entry.key in ids),
                flight.where(has_listeners=bool(self.listeners)),
            )
            for flight in self
        )
        engines = sum(flight.engine is not None and flight.engine.ended_at is None for flight in self)
        return QueueState(batch, shown(self._settings.url), len(self.listeners), jobs, refusing, engines)

    def are_at_work(self) -> bool:
        """Whether a worker is at one of them."""
        return any(flight.status == JobStatus.STARTED for flight in self._flights.values())

    def enqueue(self, shard: Shard, attempt: int, refusals: int) -> Flight:
        """Put a job into the queue; one that is there already is not doubled."""
        seconds = timeout_seconds(shard.deadlines, shard.entries, self._model, ensemble=shard.ensemble)
        # no interval: it would need RQ's scheduler
        retry = Retry(max=self._settings.retries) if self._settings.retries else None
        while True:
            job_id = f"{self._owner}-{shard.digest}-{attempt}"
            try:
                self._queue.enqueue_call(
                    FUNCTION,
                    args=(msgspec.to_builtins(shard),),
                    timeout=seconds,
                    result_ttl=_KEPT_SECONDS,
                    failure_ttl=_KEPT_SECONDS,
                    description=f"{len(shard.entries)} pictures",
                    job_id=job_id,
                    retry=retry,
                    unique=True,
                )
            except DuplicateJobError:
                # our own, whose acknowledgement was lost; one that came to its end is no use
                if self._status(job_id) not in (*_WAITING, JobStatus.STARTED):
                    attempt += 1
                    continue
            flight = Flight(job_id, shard, attempt, refusals)
            self._flights[job_id] = flight
            return flight

    def adopt(self, wanted: set[str], needed: set[str]) -> list[Report]:
        """Go on with what an earlier batch, or an earlier watcher, left in the queue.

        Args:
            wanted: content keys of this batch.
            needed: those of all pictures that are not done.

        Returns:
            Reports that nobody has read.
        """
        reports = []
        for job_id in self._ours():
            status = self._status(job_id)
            shard = self._shard(job_id)
            keys = {entry.key for entry in shard.entries} if shard is not None else set()
            alive = status in (*_WAITING, JobStatus.STARTED)
            if shard is not None and alive and keys & wanted:
                attempt = int(job_id.rpartition("-")[2])
                self._flights[job_id] = Flight(job_id, shard, attempt, status=str(status))
            elif not alive or (status in _WAITING and not keys & needed):
                if (report := self._report(job_id)) is not None:
                    reports.append(report)
                self._forget(job_id)
        return reports

    def poll(self) -> list[Flight]:
        """Look after all; returns those that ended or were lost, which are no longer among them."""
        now = time.monotonic()
        with self.connection.pipeline(transaction=False) as pipeline:
            for flight in self._flights.values():
                pipeline.hmget(ShardJob.key_for(flight.job_id), "status", "last_heartbeat", "retries_left")
            answers = pipeline.execute()
        for flight, (status, heartbeat, retries_left) in zip(self._flights.values(), answers, strict=True):
            sign = (status, heartbeat, retries_left)
            flight.is_repeated = retries_left is not None and retries_left != b"%d" % self._settings.retries
            if sign != flight.sign:
                flight.sign, flight.sign_seen = sign, now
            flight.status = _text(status)
        self._read_runs(now)
        self._audit(now)
        landed = [flight for flight in self._flights.values() if self._has_landed(flight, now)]
        for flight in landed:
            flight.runs |= self._runs([flight])[0]
            self._forget(flight.job_id)
            del self._flights[flight.job_id]
        return landed

    def hopeless(self) -> str:
        """Why nothing is going to happen, once it was so for long enough; else empty."""
        if self.listeners or self.are_at_work():
            self._alone_since = None
            return ""
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        if now < self._alone_since + self._settings.worker_seconds:
            return ""
        where = f"the queue {self._settings.name} at {shown(self._settings.url)}"
        return f"no worker listens to {where}: start `dropscale worker` on a machine that has the share"

    # One job

    def _has_landed(self, flight: Flight, now: float) -> bool:
        status = flight.status
        if not status:
            flight.why = "has vanished from Redis"
        elif status == JobStatus.FINISHED:
            flight.report = self._report(flight.job_id)
            flight.why = "left no report that can be read"
        elif status == JobStatus.STARTED or status in _WAITING:
            if now < flight.sign_seen + _LOST_SECONDS:
                return False
            flight.why = "was lost with its worker"
        else:
            flight.is_failed = True
            flight.why = self._last_words(flight.job_id)
        return True

    def _status(self, job_id: str) -> str:
        return _text(self.connection.hget(ShardJob.key_for(job_id), "status"))

    def _shard(self, job_id: str) -> Shard | None:
        shard = None
        with _reading():
            shard = read_shard(ShardJob.fetch(job_id, connection=self.connection, serializer=SERIALIZER).args[0])
        return shard  # noqa: RET504 - what fails in the block passes here

    def _report(self, job_id: str) -> Report | None:
        with _reading():
            result = ShardJob(job_id, connection=self.connection, serializer=SERIALIZER).latest_result()
            if result is not None and result.type is Result.Type.SUCCESSFUL:
                return read_report(result.return_value)
        return None

    def _last_words(self, job_id: str) -> str:
        words = "nothing is known"
        with _reading():
            result = ShardJob(job_id, connection=self.connection, serializer=SERIALIZER).latest_result()
            if result is not None and (lines := (result.exc_string or "").strip().splitlines()):
                words = display(lines[-1])
        return f"was broken off again and again: {words}"

    def _forget(self, job_id: str) -> None:
        """Remove whatever Redis has of a job; a worker that is at it does not mind."""
        job = ShardJob(job_id, connection=self.connection, serializer=SERIALIZER)
        job.origin = self._queue.name
        # RQ looks for executions whose own keys may have expired, and for the status of what Redis has lost
        with contextlib.suppress(ValueError, InvalidJobOperation):
            job.delete()
        executions = ExecutionRegistry(job_id, self.connection).key
        self.connection.delete(RUNS_KEY.format(job_id), job.key, RESULTS_KEY.format(job_id), executions)
        for registry in (self._queue.finished_job_registry, self._queue.failed_job_registry):
            registry.remove(job_id)

    # All of them

    def _ours(self) -> list[str]:
        registries = (
            self._queue.started_job_registry,
            self._queue.finished_job_registry,
            self._queue.failed_job_registry,
        )
        everywhere = [*self._listed(self._queue.key), *self._listed(self._queue.intermediate_queue.key)]
        for registry in registries:
            # of those in work, each name is followed by that of its execution
            everywhere += [_text(name).partition(":")[0] for name in self.connection.zrange(registry.key, 0, -1)]
        ours = re.compile(f"{re.escape(self._owner)}-[0-9a-f]+-[0-9]{{1,9}}")
        return [job_id for job_id in dict.fromkeys(everywhere) if ours.fullmatch(job_id)]

    def _listed(self, key: str) -> list[str]:
        """Names in one of RQ's lists; RQ itself fails over one that is no text."""
        return [_text(name) for name in listed(self.connection, key)]

    def _audit(self, now: float) -> None:
        """Who listens, and whether all that waits does so in the queue."""
        # where something runs somebody listens: `status` is not to say otherwise until the next look
        is_late = not self.listeners and self.are_at_work()
        if now < self._audited_at + (_POLLS_SECONDS if is_late else _AUDIT_SECONDS):
            return
        self._audited_at = now
        self.listeners = listeners(self.connection, self._settings.name)
        waiting = set(self._listed(self._queue.key))
        for flight in self._flights.values():
            if flight.job_id in waiting:
                flight.sign_seen = now

    def _read_runs(self, now: float) -> None:
        if now < self._runs_read_at + _RUNS_SECONDS:
            return
        self._runs_read_at = now
        at_work = [flight for flight in self._flights.values() if flight.status == JobStatus.STARTED]
        for flight, runs in zip(at_work, self._runs(at_work), strict=True):
            flight.runs |= runs

    def _runs(self, flights: Iterable[Flight]) -> list[dict[str, Run]]:
        with self.connection.pipeline(transaction=False) as pipeline:
            for flight in flights:
                pipeline.hgetall(RUNS_KEY.format(flight.job_id))
            found = pipeline.execute()
        return [_decoded(values) for values in found]


def listening(settings: Settings) -> int:
    """How many workers listen to the queue.

    Raises:
        EnvironmentFault: Redis does not answer, or not as it should.
        ConfigError: queue.url is no address.
    """
    with connect(settings.url) as connection:
        try:
            check(connection, settings.url)
            return len(listeners(connection, settings.name))
        except (RedisGone, RedisError) as error:
            raise EnvironmentFault(str(error), "start it, or correct queue.url") from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What somebody else may have put there; what RQ or we cannot make anything of is as if it were not there."""
    try:
        yield
    except RedisError:
        raise
    except Exception as error:
        logger.debug("Redis holds something that cannot be read: %s: %s", type(error).__name__, error)


def _text(value: object) -> str:
    """Of what Redis holds; empty: nothing."""
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _decoded(values: dict[bytes, bytes]) -> dict[str, Run]:
    runs = {}
    for value in values.values():
        with contextlib.suppress(msgspec.DecodeError):
            run = msgspec.json.decode(value, type=Run)
            runs[run.id] = run
    return runs
