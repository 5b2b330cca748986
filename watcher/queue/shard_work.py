"""One shard on a worker: paths are mapped to this machine's mount, an engine runs, results go onto the shelf.

Runs in the work horse, the process that RQ starts for a job. Nothing of the job is trusted: it is data, whose paths
must stay within the share, and the program that is started is this machine's own.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import platformdirs

from sr_engine import models, protocol
from watcher.engine import coldstart
from watcher.engine.ends import MOST_RESTARTS, EngineGaveUp, EngineStopped, EngineTrouble
from watcher.engine.nvidia import DeviceWatch, may_use_nvidia
from watcher.engine.process import EngineProcess
from watcher.files.names import told
from watcher.queue import shelf
from watcher.queue.lifelines import dies_with_this_process
from watcher.queue.shards import VERSION, Entry, Report, Run, Shard, Trouble, digest_of, named, read_shard
from watcher.sections import Config

_SIGN_OF_LIFE_SECONDS = 5.0
# Of the engine's --admission: where others hold the GPU, another machine is to do the job, not this one's CPU.
_FULL = "full"


class Place(NamedTuple):
    """This worker.

    Attributes:
        share: where the share is mounted here.
        config: its own: which program, runtime and device, how much memory.
        models_folder: where this machine's own models are.
        models: all that it has, by name.
        host: what the ledger calls it.
        worker: process id of the worker; 0: not known.
    """

    share: str
    config: Config
    models_folder: str
    models: Mapping[str, models.Installed]
    host: str
    worker: int = 0

    @property
    def name(self) -> str:
        """For a person."""
        return named(self.host, self.worker)


class _Refused(Exception):
    """This worker cannot do such jobs; `busy` and `absent` are those of `Report`."""

    def __init__(self, why: str, *, busy: bool = False, absent: bool = False) -> None:
        super().__init__(why)
        self.busy, self.absent = busy, absent


class _NobodyWaits(Exception):
    """The watcher has what it wanted, or wants it no more."""


def upscale_shard(
    place: Place, execution: str, tell_run: Callable[[Run], None], stopping: Callable[[], float | None], manifest: Any
) -> dict[str, Any]:
    """Do a job.

    Args:
        place: this worker.
        execution: of the job, names what is in the making.
        tell_run: told of each engine when it starts, gets on and ends.
        stopping: None, or the monotonic time by which the picture in work has to be finished.
        manifest: a `Shard` as JSON has it.

    Returns:
        A `Report`, likewise.
    """
    try:
        shard = read_shard(manifest)
    except ValueError:
        shard = None
    if shard is None or shard.v != VERSION:
        reason = f"{place.name}: the job is of another version of dropscale: install the same one on both machines"
        report = Report(host=place.host, worker=place.worker, refused=reason)
    else:
        report = _Work(place, shard, execution, tell_run, stopping).report()
    answer: dict[str, Any] = msgspec.to_builtins(report)
    return answer


@dataclass
class _Work:
    place: Place
    shard: Shard
    execution: str
    tell_run: Callable[[Run], None]
    stopping: Callable[[], float | None]
    shelf: str = ""
    answers: dict[int, protocol.Done | protocol.Failed] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    trouble: Trouble | None = None
    _told_at: float = 0.0

    def report(self) -> Report:
        """Do it all; whatever happens, what came of it."""
        refused, busy, absent = "", False, False
        try:
            self.shelf = self._open_shelf()
            model = self._model()
            sources = self._sources()
            if sources:
                self._upscale(sources, model)
        except _Refused as error:
            refused, busy, absent = f"{self.place.name}: {error}", error.busy, error.absent
        except _NobodyWaits:
            pass
        except OSError as error:
            refused = f"{self.place.name}: {told(error)}"
        return Report(
            host=self.place.host,
            worker=self.place.worker,
            answers=tuple(self.answers.values()),
            runs=tuple(self.runs),
            trouble=self.trouble,
            refused=refused,
            busy=busy,
            absent=absent,
        )

    # Before an engine is started

    def _open_shelf(self) -> str:
        """Where results go; it must be there already.

        Raises:
            _Refused: it is not. Where the folder is that would hold it, this is another share, or nobody waits.
        """
        path = self._below(self.shard.shelf)
        if path is None:
            raise _Refused("the job's shelf lies outside of the share")
        if not os.path.isdir(path):
            missing = f"there is no {self.shard.shelf} in {self.place.share}"
            if os.path.isdir(os.path.dirname(os.path.dirname(path))):
                raise _Refused(f"{missing}: nobody waits any more, or it is not the watcher's share", absent=True)
            raise _Refused(f"{missing}: is the watcher's share mounted there?")
        return path

    def _model(self) -> models.Installed:
        name = self.shard.model
        found = self.place.models.get(name)
        if found is None:
            raise _Refused(f"no model is called {name!r} here: add the watcher's file with `dropscale models add`")
        if digest_of(found.model) != self.shard.model_digest:
            raise _Refused(
                f"the model {name} is another one than the watcher's: add the watcher's file, or install its dropscale"
            )
        return found

    def _sources(self) -> dict[int, str]:
        """Path of every picture that has to be done; the others are answered."""
        sources = {}
        for number, entry in enumerate(self.shard.entries):
            if (finished := shelf.find(self.shelf, entry.key, entry.sha256)) is not None:
                self.answers[number] = msgspec.structs.replace(finished.done, id=number)
                continue
            path = self._below(entry.path)
            problem = "its path leads out of the share" if path is None else _difference(path, entry)
            if problem or path is None:
                self.answers[number] = protocol.Failed(
                    id=number,
                    code=protocol.Code.UNREADABLE,
                    message=f"{self.place.host}: {problem}",
                    fault=protocol.Fault.ENVIRONMENT,
                    retryable=True,
                )
            else:
                sources[number] = path
        return sources

    def _below(self, encoded: str) -> str | None:
        """A path of the share on this machine, its folders resolved; None if it leads out of it."""
        path = protocol.decode_path(encoded)
        if os.path.isabs(path) or "\0" in path or not {"", os.curdir, os.pardir}.isdisjoint(path.split("/")):
            return None
        folder, name = os.path.split(path)
        root = os.path.realpath(self.place.share)
        parent = os.path.realpath(os.path.join(root, folder))
        full = os.path.join(parent, name)  # a link of that name is not followed by whoever opens it
        inside = os.path.commonpath((root, parent)) == root and not os.path.islink(full)
        return full if inside else None

    # The engine

    def _upscale(self, sources: Mapping[int, str], model: models.Installed) -> None:
        restarts = 0
        while left := {number: path for number, path in sources.items() if number not in self.answers}:
            try:
                self._run_engine(left, model)
            except EngineGaveUp as gave_up:
                restarts += 1
                if gave_up.busy or not gave_up.retryable or restarts > MOST_RESTARTS:
                    raise _Refused(gave_up.message, busy=gave_up.busy) from gave_up
                continue
            except EngineTrouble as trouble:
                self._blame(trouble)
            except EngineStopped:
                pass
            return

    def _blame(self, trouble: EngineTrouble) -> None:
        """Tell how the engine ended; a picture is to blame only where a sound one does no harm."""
        if trouble.blames and trouble.in_work:
            config = msgspec.structs.replace(self.place.config, engine=self._settings())
            if problem := coldstart.measure(config, self.place.models_folder, self.stopping, self._enter).problem:
                if self.stopping() is not None:  # nobody knows then: another worker finds out
                    return
                raise _Refused(f"the engine does not work here, with a sound picture neither: {problem}") from trouble
        in_work = tuple(sorted(trouble.in_work))
        self.trouble = Trouble(trouble.message, in_work, trouble.blames, trouble.stderr[-2000:], trouble.is_told)

    def _enter(self, engine: EngineProcess) -> None:
        """A further engine has ended: it is paid for, too."""
        self.runs.append(self._run(engine, f"{self.execution}-{len(self.runs) + 1}"))
        self._tell()

    def _run_engine(self, sources: Mapping[int, str], model: models.Installed) -> None:
        run_id = f"{self.execution}-{len(self.runs) + 1}"
        requests = [
            protocol.Upscale(
                id=number,
                source=protocol.encode_path(path),
                target=protocol.encode_path(os.path.join(self.shelf, f"{self.shard.entries[number].key}.{run_id}")),
                output=self.shard.output,
            )
            for number, path in sources.items()
        ]
        watch = DeviceWatch(self._settings())
        try:
            # it locks the GPU itself, and holds the lock until it is gone
            engine = EngineProcess(
                self._settings(),
                self.place.models_folder,
                self._limits(),
                _cache_folder(),
                model.model.sha256,
                _FULL if may_use_nvidia(self._settings()) else "",
                spawn=dies_with_this_process(),
            )
        except OSError as error:
            watch.close()
            raise _Refused(f"the engine cannot be started: {told(error)}; see engine.command") from error
        self.runs.append(self._run(engine, run_id))
        self._tell()
        try:
            for event in engine.upscale(requests, lambda: self._tick(engine)):
                self._hear(event, run_id)
        finally:
            engine.close()
            with contextlib.closing(watch):
                columns, left = watch.measure(engine)
                run, alarm = self._run(engine, run_id), watch.alarm(engine, left)
            if "held_from" in columns:
                columns["held_from_at"] = columns.pop("held_from")
            self.runs[-1] = msgspec.structs.replace(run, alarm=alarm, **columns)
            self._tell()

    def _hear(self, event: protocol.AnyEvent, run_id: str) -> None:
        if isinstance(event, protocol.Failed) and event.id is not None:
            self.answers[event.id] = event
        elif isinstance(event, protocol.Done):
            entry = self.shard.entries[event.id]
            made = protocol.decode_path(event.target)
            if os.path.dirname(made) != self.shelf:
                raise _Refused(f"the engine put a result where it was not asked to: {made}")
            if event.source_sha256 != entry.sha256:  # it was rewritten: no result of what was claimed
                os.unlink(made)
                self.answers[event.id] = event
                return
            try:
                self.answers[event.id] = shelf.put(self.shelf, entry.key, run_id, event)
            except FileNotFoundError:
                raise _NobodyWaits from None

    def _tick(self, engine: EngineProcess) -> float | None:
        """Asked twice a second while the engine works."""
        if time.monotonic() - self._told_at >= _SIGN_OF_LIFE_SECONDS:
            self.runs[-1] = self._run(engine, self.runs[-1].id)
            self._tell()
        return self.stopping()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        self.tell_run(self.runs[-1])

    def _run(self, engine: EngineProcess, run_id: str) -> Run:
        ready, meter = engine.ready, engine.meter
        ended = engine.returncode is not None and meter.ended_at > 0
        return Run(
            id=run_id,
            host=self.place.host,
            worker=self.place.worker,
            pid=engine.pid,
            model=self.shard.model,
            spawned_at=meter.spawned_at,
            seen_at=time.time(),
            ready_at=engine.ready_at,
            ended_at=meter.ended_at if ended else None,
            held_from_at=meter.held_from_at,
            exit_code=engine.returncode,
            runtime=ready.runtime if ready else None,
            # who pays for it must be known, should it never be ready
            device=ready.device if ready else self._expected_device(),
            precision=ready.precision if ready else None,
            done=engine.done,
            failed=engine.failed,
            peak_memory_bytes=engine.peak_memory_bytes,
            spawn_seconds=meter.spawn_seconds if ended else None,
            load_seconds=meter.load_seconds if ended else None,
            compute_seconds=meter.compute_seconds if ended else None,
            idle_seconds=meter.idle_seconds if ended else None,
            exit_seconds=meter.exit_seconds if ended else None,
        )

    def _expected_device(self) -> str | None:
        engine = self.place.config.engine
        return None if models.expects_gpu(engine.runtime, engine.device) else "cpu"

    def _settings(self) -> Any:
        """The engine of this machine, with what decides about results and deadlines as the watcher has it."""
        shard = self.shard
        return msgspec.structs.replace(
            self.place.config.engine,
            model=shard.model,
            ensemble=shard.ensemble,
            precision=shard.precision,
            **msgspec.structs.asdict(shard.deadlines),
        )

    def _limits(self) -> protocol.Limits:
        own = self.place.config.limits.wire()
        return msgspec.structs.replace(self.shard.limits, memory_bytes=own.memory_bytes, engine_bytes=own.engine_bytes)


def _difference(path: str, entry: Entry) -> str:
    """What this machine sees of a picture otherwise than the watcher does; empty: nothing."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size
    except OSError as error:
        return f"cannot read {error.filename}: {error.strerror}"
    return "" if size == entry.bytes else f"sees {size} bytes of it, and the watcher {entry.bytes}: the share lags"


def _cache_folder() -> str:
    """Where engines of this user remember compiled models and sizes of tiles; empty for one without a home."""
    try:
        return platformdirs.user_cache_dir("dropscale", appauthor=False)
    except RuntimeError:
        return ""
