"""What an engine costs before and after its work: a real start, timed in phases, with one small picture."""

import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from sr_engine import protocol
from watcher.engine.ends import MOST_RESTARTS, EngineGaveUp, EngineStopped, EngineTrouble
from watcher.engine.process import EngineProcess
from watcher.sections import Config

_SIDE = 512  # pixels of the picture


@dataclass
class ColdStart:
    """One start of an engine.

    Attributes:
        ready: what it said when its model was loaded; None if it never was.
        milliseconds: the parts of the start in their order, "process" (until the first line of the engine's own code)
            and those that it tells; "ready", from the start to the loaded model; "first tile", from there to the first
            tile, or to the result if it tells of no tiles; "exit", from its last word to the end of the process.
        problem: what went wrong, a sentence; empty if nothing did.
        busy: whether that was only that others hold the device.
    """

    ready: protocol.Ready | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    busy: bool = False


def measure(
    config: Config,
    models_folder: str,
    stopping: Callable[[], float | None] = lambda: None,
    ended: Callable[[EngineProcess], None] = lambda _: None,
) -> ColdStart:
    """Start the engine that a batch would start, and a fresh one if it asks for that.

    Args:
        config: of the batch.
        models_folder: where models.yaml is.
        stopping: as `EngineProcess.upscale` takes it.
        ended: told of each engine when it was reaped, for somebody pays for it.
    """
    cold = ColdStart()
    for _ in range(1 + MOST_RESTARTS):
        cold = ColdStart()
        try:
            with tempfile.TemporaryDirectory(prefix="dropscale-", ignore_cleanup_errors=True) as folder:
                _run(config, models_folder, folder, cold, stopping, ended)
        except EngineGaveUp as gave_up:
            cold.problem, cold.busy = gave_up.message, gave_up.busy
            if gave_up.retryable:
                continue
        except EngineTrouble as trouble:
            cold.problem = f"{trouble.message} {trouble.stderr[-300:]}"
        except EngineStopped:
            cold.problem = "it was stopped while it was tested"
        except OSError as error:
            cold.problem = f"the picture to test with cannot be written: {error}"
        break
    return cold


def sample() -> bytes:
    """A PNG of 512 x 512 pixels, full of colours."""
    colours = bytes(range(256)) * 8
    rows = b"".join(b"\0" + colours[row % 256 :][: 3 * _SIDE] for row in range(_SIDE))  # 0: no filter
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _run(
    config: Config,
    models_folder: str,
    folder: str,
    cold: ColdStart,
    stopping: Callable[[], float | None],
    ended: Callable[[EngineProcess], None],
) -> None:
    source = os.path.join(folder, "sample.png")
    with open(source, "wb") as file:
        file.write(sample())
    target = os.path.join(folder, "result")
    request = protocol.Upscale(id=1, source=protocol.encode_path(source), target=protocol.encode_path(target))
    # the one of the batches, but to create the state folder is not for us
    cache_folder = config.folders.engines if os.path.isdir(config.folders.state) else ""
    try:
        limits = protocol.Limits(engine_bytes=config.limits.wire().engine_bytes)
        engine = EngineProcess(config.engine, models_folder, limits, cache_folder)
    except OSError as error:
        cold.problem = f"cannot be started: {error}; see engine.command"
        return
    try:
        _listen(engine, request, cold, stopping)
        last_word = time.perf_counter()
    finally:
        engine.close()
        ended(engine)
    cold.milliseconds["exit"] = _milliseconds(time.perf_counter() - last_word)


def _listen(
    engine: EngineProcess, request: protocol.Upscale, cold: ColdStart, stopping: Callable[[], float | None]
) -> None:
    ready_at = time.perf_counter()
    for event in engine.upscale([request], stopping):
        now = time.perf_counter()
        if isinstance(event, protocol.Ready):
            ready_at = now
            cold.ready = event
            parts = {"process": max(event.started_at - engine.meter.spawned_at, 0.0)} if event.started_at else {}
            parts |= {**event.phases, "ready": event.load_seconds + parts.get("process", 0.0)}
            cold.milliseconds = {name: _milliseconds(seconds) for name, seconds in parts.items()}
        elif isinstance(event, protocol.Progress | protocol.Done):
            cold.milliseconds.setdefault("first tile", _milliseconds(now - ready_at))
        elif isinstance(event, protocol.Failed):
            cold.problem = f"the picture to test with failed: {event.message}"


def _milliseconds(seconds: float) -> float:
    return round(1e3 * seconds, 1)
