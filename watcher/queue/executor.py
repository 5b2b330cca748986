"""`executor: rq`: the pictures of a batch are upscaled by workers on other machines, through a queue on Redis.

To a batch it looks like an engine: requests go in, what became of each picture comes out. The truth is the shelf: what
is finished lies there, whatever the queue says. The queue only says who is at what, and can be lost at any time.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from sr_engine import protocol
from sr_engine.models import Model
from watcher.delivery import STAGING
from watcher.engine.ends import EngineGaveUp, EngineStopped, EngineTrouble
from watcher.errors import ConfigError, EnvironmentFault
from watcher.intake import pixels_of
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.queue import remote_runs, shelf
from watcher.queue.flights import Flight, Flights
from watcher.queue.needs import share_of
from watcher.queue.newcomers import Newcomers
from watcher.queue.note import NOTE, OWNER_NOTE
from watcher.queue.redis_link import RedisGone, check, connect, faults_told
from watcher.queue.shards import UNKNOWN_PIXELS, Entry, Run, Shard, content_key, cut, deadlines_of, digest_of, limits_of
from watcher.rows import Picture
from watcher.sections import Config
from watcher.wording import count_of

_POLL_SECONDS = 0.1
_NOTE_SECONDS = 1.0
_MOST_REFUSALS = 3  # of one job, by whatever workers
_MOST_LOSSES = 1000  # of jobs in a row: all those of a large window may vanish at once, with Redis
# Clients of network file systems remember for up to a minute that a name was not there (NFS: acdirmax).
_VISIBLE_SECONDS = 70.0


class QueueExecutor:
    """Hands out what a batch can use in the place of an engine process."""

    def __init__(self, config: Config, model: Model, ledger: Ledger) -> None:
        """Prepare; Redis is not asked yet.

        Raises:
            ConfigError: queue.url is no address.
        """
        self._config = config
        self._model = model
        self._ledger = ledger
        self._connection = connect(config.queue.url)
        self._refusing: dict[str, str] = {}
        self._newcomers = Newcomers(config.queue)

    def look_out_for_workers(self, wake: Callable[[], None]) -> None:
        """When a batch gives up, call `wake` once a worker has come; for a watcher that stays."""
        self._newcomers.on_arrival = wake

    def workers_have_come(self) -> bool:
        """Whether one has since a batch gave up; told once."""
        return self._newcomers.have_come()

    def close(self) -> None:
        """Look out for nobody any more."""
        self._newcomers.end()

    def take(self, batch: int, pictures: Sequence[Picture]) -> "QueueEngine":
        """For pictures of a batch; to be closed."""
        self.close()
        flights, refusing = self._flights(), self._refusing
        return QueueEngine(self._config, self._model, self._ledger, flights, batch, pictures, refusing, self._newcomers)

    def _flights(self) -> Flights:
        owner = self._ledger.notes().get(OWNER_NOTE, "")
        if not owner:
            owner = uuid.uuid4().hex[:12]
            self._ledger.note(**{OWNER_NOTE: owner})
        return Flights(self._connection, self._config.queue, owner, self._model)


@dataclass
class _Wanted:
    """A picture that is not answered yet."""

    request: protocol.Upscale
    picture: Picture
    entry: Entry
    answer: protocol.Done | None = None  # which the share does not show yet
    answered_at: float = 0.0


@dataclass
class QueueEngine:
    """What stands in the place of an engine process, for one set of pictures.

    Attributes:
        rested: never, as an engine does that is kept for the next batch.
    """

    rested: ClassVar[bool] = False

    config: Config
    model: Model
    ledger: Ledger
    flights: Flights
    batch: int
    pictures: Sequence[Picture]
    refusing: dict[str, str]  # by worker: why it refused its last job
    newcomers: Newcomers
    _wanted: dict[str, _Wanted] = field(default_factory=dict)  # by content key
    _suspects: set[int] = field(default_factory=set)
    _trouble: EngineTrouble | None = None
    _hopeless: str = ""  # why it is no use to go on
    _losses: int = 0  # of jobs, in a row
    _shelf: str = ""
    _noted: str = ""
    _noted_at: float = 0.0
    _entered: dict[str, Run] = field(default_factory=dict)
    _measured: set[str] = field(default_factory=set)  # runs after which it was seen whether memory is back

    def upscale(
        self, requests: Sequence[protocol.Upscale], stopping: Callable[[], float | None]
    ) -> Iterator[protocol.AnyEvent]:
        """Let workers do the requests; yields `done` and `failed` of each, as they come.

        Raises:
            EngineTrouble: an engine died over a picture, when all others are done.
            EngineGaveUp: Redis does not answer, no worker listens, or none can do the work.
            EngineStopped: `stopping` said so. What is in the queue stays there, and is found by the next watcher.
        """
        try:
            yield from self._upscale_if_possible(requests, stopping)
        except EngineGaveUp:
            self.newcomers.look_out(self.flights.listeners if self._hopeless else None)
            raise
        except EngineTrouble:
            self.newcomers.serve()
            raise
        self.newcomers.serve()

    def _upscale_if_possible(
        self, requests: Sequence[protocol.Upscale], stopping: Callable[[], float | None]
    ) -> Iterator[protocol.AnyEvent]:
        url = self.config.queue.url
        try:
            check(self.flights.connection, url)
            with faults_told(url):
                yield from self._upscale(requests, stopping)
        except RedisGone as error:
            raise EngineGaveUp(str(error), retryable=False) from error
        except (EnvironmentFault, ConfigError) as error:
            raise EngineGaveUp(f"{error.message}: {error.remedy}", retryable=False) from error

    def close(self) -> None:
        """The batch needs it no more."""
        self.flights.connection.close()
        self._close_runs([run for run in self._entered.values() if run.ended_at is None])
        self.ledger.note(**{NOTE: ""})

    # The story of a window

    def _upscale(
        self, requests: Sequence[protocol.Upscale], stopping: Callable[[], float | None]
    ) -> Iterator[protocol.AnyEvent]:
        self._shelf = shelf.open_shelf(self.config.folders.outbox, STAGING)
        self._want(requests)
        self._take_over_earlier()
        yield from self._finished_before()
        self._enqueue([wanted.entry for key, wanted in self._wanted.items() if not self.flights.carries(key)])
        while self._wanted:
            if stopping() is not None:
                raise EngineStopped(set())
            landed = self.flights.poll()
            self._note()
            for flight in landed:
                yield from self._land(flight)
            yield from self._answer_late_ones()
            self._see_runs()
            self._hopeless = self._hopeless or self.flights.hopeless()
            if self._hopeless:
                raise EngineGaveUp(self._hopeless, retryable=False)
            if not landed:
                time.sleep(_POLL_SECONDS)
        if self._trouble is not None:
            raise self._trouble

    def _want(self, requests: Sequence[protocol.Upscale]) -> None:
        pictures = {picture.id: picture for picture in self.pictures}
        share = share_of(self.config)
        for request in requests:
            picture = pictures[request.id]
            key = content_key(picture.sha256, picture.recipe)
            path = os.path.relpath(protocol.decode_path(request.source), share)
            entry = Entry(
                path=protocol.encode_path(path.replace(os.sep, "/")),
                bytes=picture.identity.size,
                sha256=picture.sha256,
                key=key,
                pixels=pixels_of(protocol.decode_path(request.source)) or UNKNOWN_PIXELS,
            )
            self._wanted[key] = _Wanted(request, picture, entry)

    def _take_over_earlier(self) -> None:
        """Jobs of an earlier watcher, or of a batch that gave up: go on with those that are wanted, drop the others."""
        needed = {content_key(row.sha256, row.recipe) for row in self.ledger.open_rows()}
        for report in self.flights.adopt(set(self._wanted), needed):
            self._enter(report.runs)
        if adopted := len(self.flights):
            tell("queue_adopted", "{jobs} jobs of before are in the queue still", jobs=adopted)

    def _finished_before(self) -> Iterator[protocol.AnyEvent]:
        """What workers finished while no watcher was looking."""
        for key in list(self._wanted):
            yield from self._from_shelf(key)

    def _enqueue(self, entries: Sequence[Entry], attempt: int = 0, refusals: int = 0) -> None:
        settings = self.config
        for part in cut(entries, settings.queue.shard_pixels):
            relative = os.path.relpath(self._shelf, share_of(settings)).replace(os.sep, "/")
            shard = Shard(
                shelf=protocol.encode_path(relative),
                entries=tuple(part),
                model=settings.engine.model,
                model_digest=digest_of(self.model),
                ensemble=settings.engine.ensemble,
                precision=settings.engine.precision,
                output=settings.output.wire(),
                limits=limits_of(settings.limits),
                deadlines=deadlines_of(settings.engine),
            )
            flight = self.flights.enqueue(shard, attempt, refusals)
            what = count_of(len(part), "picture")
            tell("queued", "{what} queued as job {job}", what=what, pictures=len(part), job=flight.job_id)

    # What becomes of a job

    def _land(self, flight: Flight) -> Iterator[protocol.AnyEvent]:
        """A job ended, well or not, or vanished."""
        report = flight.report
        told_of = {run.id for run in report.runs} if report is not None else set()
        self._close_runs([run for run in flight.runs.values() if run.id not in told_of])
        if report is not None:
            self._enter(report.runs)
            self.refusing.pop(report.worker_name, None)
            if report.refused:
                self.refusing[report.worker_name] = report.refused
            for answer in report.answers:
                yield from self._answer(flight.shard.entries, answer)
        left = [entry for entry in flight.shard.entries if self._is_open(entry.key)]
        for entry in left:
            yield from self._from_shelf(entry.key)
        left = [entry for entry in left if self._is_open(entry.key)]
        if left:
            self._try_again(flight, left)

    def _try_again(self, flight: Flight, left: list[Entry]) -> None:
        report = flight.report
        if report is None:
            self._retry_lost(flight, left)
        elif report.refused:
            # a device that is busy, perhaps with our own work on that machine, is free again some time
            refusals = flight.refusals + (not (report.busy and self.flights.are_at_work()))
            if refusals >= _MOST_REFUSALS:
                self._hopeless = report.refused
                return
            warn("queue_refused", "job {job} refused: {reason}", job=flight.job_id, reason=report.refused)
            self._enqueue(left, flight.attempt + 1, refusals)
        elif report.trouble is not None:
            trouble, entries = report.trouble, flight.shard.entries
            in_work = {entries[number].key for number in trouble.in_work if number < len(entries)}
            message = f"{trouble.message} (on {report.worker_name})"
            self._suspect(in_work, message, blames=trouble.blames, stderr=trouble.stderr, is_told=trouble.is_told)
            rest = [entry for entry in left if entry.key not in in_work]
            if not in_work and flight.attempt + 1 >= self.config.engine.attempts:
                self._hopeless = message  # it is the engine that is ill
                return
            if rest:
                warn("queue_trouble", "{reason}; {left} pictures go on", reason=message, left=len(rest))
                self._enqueue(rest, flight.attempt + 1)
        else:  # the worker was asked to stop
            self._enqueue(left, flight.attempt + 1)

    def _retry_lost(self, flight: Flight, left: list[Entry]) -> None:
        """A job without a report: its worker was lost, or Redis was."""
        if not flight.is_failed:
            self._losses += 1
            if self._losses > _MOST_LOSSES:
                self._hopeless = f"jobs are lost again and again, the last one {flight.why}"
                return
            text, what = "job {job} {why}; queued again: {what}", count_of(len(left), "picture")
            warn("queue_lost", text, job=flight.job_id, why=flight.why, what=what, pictures=len(left))
            self._enqueue(left, flight.attempt + 1)
        elif len(left) > 1:
            warn("queue_lost", "job {job} {why}: its pictures are tried one by one", job=flight.job_id, why=flight.why)
            for entry in left:
                self._enqueue([entry], flight.attempt + 1)
        else:
            self._suspect({left[0].key}, f"its job {flight.why}", blames=False)

    def _suspect(self, keys: set[str], message: str, *, blames: bool, stderr: str = "", is_told: bool = False) -> None:
        """These pictures are for the batch to judge, alone."""
        found = {self._wanted.pop(key).request.id for key in keys if key in self._wanted}
        self._suspects |= found
        if found:
            self._trouble = EngineTrouble(message, set(self._suspects), blames=blames, stderr=stderr, is_told=is_told)

    # Answers

    def _answer(self, entries: Sequence[Entry], answer: protocol.Done | protocol.Failed) -> Iterator[protocol.AnyEvent]:
        if answer.id is None or not 0 <= answer.id < len(entries):
            return
        entry = entries[answer.id]
        wanted = self._wanted.get(entry.key)
        if wanted is None:
            return
        self._losses = 0
        if isinstance(answer, protocol.Done) and answer.source_sha256 == entry.sha256:
            wanted.answer, wanted.answered_at = answer, time.monotonic()
            yield from self._deliver(entry.key, wanted)
        else:
            del self._wanted[entry.key]
            yield msgspec.structs.replace(answer, id=wanted.request.id)

    def _from_shelf(self, key: str) -> Iterator[protocol.AnyEvent]:
        wanted = self._wanted[key]
        if (finished := shelf.find(self._shelf, key, wanted.entry.sha256)) is not None:
            wanted.answer = finished.done
            yield from self._deliver(key, wanted)

    def _deliver(self, key: str, wanted: _Wanted) -> Iterator[protocol.AnyEvent]:
        """Take the result off the shelf, if the share shows it yet."""
        assert wanted.answer is not None
        finished = shelf.located(self._shelf, key, wanted.answer)
        target = protocol.decode_path(wanted.request.target)
        try:
            path = shelf.take(self._shelf, key, finished, target) if finished is not None else ""
        except FileNotFoundError:
            return
        del self._wanted[key]
        if path:
            yield msgspec.structs.replace(wanted.answer, id=wanted.request.id, target=protocol.encode_path(path))

    def _answer_late_ones(self) -> Iterator[protocol.AnyEvent]:
        for key, wanted in list(self._wanted.items()):
            if wanted.answer is None:
                continue
            yield from self._deliver(key, wanted)
            if key in self._wanted and time.monotonic() > wanted.answered_at + _VISIBLE_SECONDS:
                wanted.answer = None
                text = "the result of {path} never came into sight: it is done again"
                warn("queue_lost", text, path=wanted.entry.path)
                self._enqueue([wanted.entry], 1)

    def _is_open(self, key: str) -> bool:
        return key in self._wanted and self._wanted[key].answer is None

    # The books

    def _see_runs(self) -> None:
        for flight in self.flights:
            for run in flight.runs.values():
                if run != self._entered.get(run.id):
                    self._enter([run])

    def _enter(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.release_seconds is not None and run.id not in self._measured:
                self._measured.add(run.id)
                remote_runs.note_release(self.ledger, run)
            remote_runs.enter(self.ledger, self.batch, run)
            self._entered[run.id] = run

    def _close_runs(self, runs: Iterable[Run]) -> None:
        """Of a worker that was lost: they ended when they were seen last."""
        self._enter([run if run.ended_at else msgspec.structs.replace(run, ended_at=run.seen_at) for run in list(runs)])

    def _note(self) -> None:
        """Tell `status` where the pictures are, once a second at most."""
        if time.monotonic() < self._noted_at + _NOTE_SECONDS:
            return
        ids = {key: wanted.picture.id for key, wanted in self._wanted.items()}
        note = self.flights.state(self.batch, ids, tuple(self.refusing.values())).as_note()
        if note[NOTE] != self._noted:
            self.ledger.note(**note)
            self._noted = note[NOTE]
        self._noted_at = time.monotonic()
