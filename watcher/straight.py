"""`dropscale upscale`: one batch without inbox, ledger and archive. Originals stay where they are."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence

from sr_engine import protocol
from watcher.config import Config
from watcher.engine import EngineProcess, EngineTrouble
from watcher.errors import EngineUnusable, EnvironmentFault
from watcher.filesystem import candidate_names, display, longest_name, publish
from watcher.journal import tell, warn
from watcher.progress import Progress


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
    failed = 0
    progress.begin(len(pending))
    try:
        while pending:
            before = len(pending)
            try:
                failed += _run_engine(config, models_folder, pending, staging, output_folder, progress=progress)
            except EngineTrouble as trouble:
                blamed = trouble.in_work & set(pending)
                for number in blamed:
                    warn("failed", "{file}: {why}", file=display(pending.pop(number)), why=trouble.message)
                    failed += 1
                if len(pending) == before:
                    raise EngineUnusable(
                        f"{trouble.message} {trouble.stderr[-500:]}", "see `dropscale doctor`"
                    ) from None
    finally:
        progress.end()
        shutil.rmtree(staging, ignore_errors=True)
    return failed


def _run_engine(
    config: Config,
    models_folder: str,
    pending: dict[int, str],
    staging: str,
    output_folder: str,
    *,
    progress: Progress,
) -> int:
    requests = [
        protocol.Upscale(
            id=number,
            source=protocol.encode_path(file),
            target=protocol.encode_path(os.path.join(staging, str(number))),
            output=config.output.wire(),
        )
        for number, file in pending.items()
    ]
    failed = 0
    with contextlib.closing(_start(config, models_folder)) as engine:
        for event in engine.upscale(requests, lambda: None):
            if isinstance(event, protocol.Failed) and event.id is None:
                raise EngineUnusable(event.message, "see `dropscale doctor`")
            if isinstance(event, protocol.Progress) and event.id in pending:
                progress.work(display(os.path.basename(pending[event.id])), event.done, event.total)
            elif isinstance(event, protocol.Failed) and event.code is protocol.Code.UNWRITABLE:
                raise EnvironmentFault(f"{output_folder}: {event.message}", "free space, or name another -o DIR")
            elif isinstance(event, protocol.Failed) and event.id in pending:
                warn("failed", "{file}: {why}", file=display(pending.pop(event.id)), why=event.message)
                progress.advance()
                failed += 1
            elif isinstance(event, protocol.Done) and event.id in pending:
                file = pending.pop(event.id)
                result = _publish(protocol.decode_path(event.target), file, output_folder, event.source_sha256)
                progress.advance()
                size = f"{event.width} x {event.height}"
                tell("delivered", "{file} -> {result} ({size})", file=display(file), result=display(result), size=size)
    return failed


def _start(config: Config, models_folder: str) -> EngineProcess:
    try:
        return EngineProcess(config.engine, models_folder)
    except OSError as error:
        raise EngineUnusable(f"the engine cannot be started ({error})", "see engine.command") from error


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
