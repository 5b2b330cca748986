"""`dropscale upscale`: one batch without inbox, ledger and archive. Originals stay where they are."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sr_engine import protocol
from watcher.engine.ends import MOST_RESTARTS, EngineGaveUp, EngineTrouble
from watcher.engine.process import EngineProcess
from watcher.errors import EngineUnusable, EnvironmentFault
from watcher.files.filesystem import publish
from watcher.files.names import candidate_names, display, longest_name
from watcher.journal import tell, warn
from watcher.progress import Progress
from watcher.sections import Config

_SEE_DOCTOR = "see `dropscale doctor`"


def upscale_files(
    config: Config, models_folder: str, files: Sequence[str], output_folder: str, progress: Progress
) -> int:
    """Upscale files into a folder; existing files are never overwritten.

    Returns:
        How many failed; each was told with its reason.

    Raises:
        EnvironmentFault: the output folder cannot be written.
        EngineUnusable: the engine cannot work here.
    """
    try:
        os.makedirs(output_folder, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".dropscale-", dir=output_folder)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write into {output_folder} ({error.strerror})", "name another -o DIR"
        ) from error
    # a link that the user names is meant
    pending = {number: os.path.realpath(file) for number, file in enumerate(files, 1)}
    work = _Work(config, models_folder, output_folder, staging, progress, pending)
    progress.begin(len(pending))
    try:
        work.upscale_all()
    finally:
        progress.end()
        shutil.rmtree(staging, ignore_errors=True)
    return work.failed


@dataclass
class _Work:
    config: Config
    models_folder: str
    output_folder: str
    staging: str
    progress: Progress
    pending: dict[int, str]
    failed: int = field(default=0, init=False)

    def upscale_all(self) -> None:
        """Run an engine over all files; after a crash the rest goes on, and those that were in work each alone."""
        groups = [list(self.pending)]
        while groups:
            group = groups.pop(0)
            trouble = self._run_engine(group)
            if trouble is None:
                continue
            left = self._left(group)
            in_work = [number for number in left if number in trouble.in_work]
            if len(in_work) == 1:
                self._fail(in_work[0], trouble.message)
            elif in_work:
                groups += [[number] for number in in_work]
            elif left == group:
                raise EngineUnusable(f"{trouble.message} {trouble.stderr[-500:]}", _SEE_DOCTOR)
            if rest := [number for number in left if number not in in_work]:
                groups.insert(0, rest)

    def _run_engine(self, group: list[int]) -> EngineTrouble | None:
        """Run an engine over a group, and a fresh one whenever it asks for that; returns how it failed, if it did."""
        restarts = 0
        while True:
            try:
                self._run_process(group)
            except EngineTrouble as trouble:
                return trouble
            except EngineGaveUp as gave_up:
                left = self._left(group)
                restarts = restarts + 1 if left == group else 1
                if not left:
                    return None
                if not gave_up.retryable or restarts > MOST_RESTARTS:
                    raise EngineUnusable(gave_up.message, _SEE_DOCTOR) from None
                warn("engine_restarts", "{reason}; starting a fresh engine", reason=gave_up.message)
                group = left
            else:
                return None

    def _run_process(self, group: list[int]) -> None:
        requests = [
            protocol.Upscale(
                id=number,
                source=protocol.encode_path(self.pending[number]),
                target=protocol.encode_path(os.path.join(self.staging, f"{number}-{time.monotonic_ns()}")),
                output=self.config.output.wire(),
            )
            for number in group
        ]
        with contextlib.closing(self._start()) as engine:
            for event in engine.upscale(requests, lambda: None):
                self._handle(event)

    def _start(self) -> EngineProcess:
        config = self.config
        try:
            return EngineProcess(config.engine, self.models_folder, config.limits.wire(), _cache_folder(config))
        except OSError as error:
            raise EngineUnusable(f"the engine cannot be started ({error})", "see engine.command") from error

    def _handle(self, event: protocol.AnyEvent) -> None:
        if isinstance(event, protocol.Failed) and event.code is protocol.Code.UNWRITABLE:
            raise EnvironmentFault(f"{self.output_folder}: {event.message}", "free space, or name another -o DIR")
        if isinstance(event, protocol.Ready | protocol.Bye) or event.id not in self.pending:
            return
        if isinstance(event, protocol.Progress):
            self.progress.work(display(os.path.basename(self.pending[event.id])), event.done, event.total)
        elif isinstance(event, protocol.Failed):
            self._fail(event.id, event.message)
        elif isinstance(event, protocol.Done):
            file = self.pending.pop(event.id)
            result = _publish(protocol.decode_path(event.target), file, self.output_folder, event.source_sha256)
            self.progress.advance()
            how = f"{event.width} x {event.height}" + (f"; {event.note}" if event.note else "")
            tell("delivered", "{file} -> {result} ({how})", file=display(file), result=display(result), how=how)

    def _fail(self, number: int, why: str) -> None:
        warn("failed", "{file}: {why}", file=display(self.pending.pop(number)), why=why)
        self.progress.advance()
        self.failed += 1

    def _left(self, group: list[int]) -> list[int]:
        return [number for number in group if number in self.pending]


def _cache_folder(config: Config) -> str:
    """The watcher's, if there is a watcher; else the user's own."""
    if os.path.isdir(config.folders.state):
        return config.folders.engines
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dropscale")


def _publish(staged: str, file: str, output_folder: str, sha256: str) -> str:
    extension = os.path.splitext(staged)[1]
    name = os.path.splitext(os.path.basename(file))[0] + extension
    for candidate in candidate_names(name, sha256[:8], longest_name(output_folder)):
        target = os.path.join(output_folder, candidate)
        if target == file:
            continue
        try:
            publish(staged, target)
        except FileExistsError:
            continue
        except OSError as error:
            raise EnvironmentFault(
                f"cannot write {target} ({error.strerror})", "free space, or name another -o DIR"
            ) from error
        return target
    raise AssertionError("candidate_names never ends")
