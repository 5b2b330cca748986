"""What tests of `EngineProcess` say to an engine, and how they look at what it says."""

import os
from collections.abc import Callable

from sr_engine import protocol
from watcher.engine.process import EngineProcess

Make = Callable[..., EngineProcess]
Requests = Callable[..., list[protocol.Upscale]]


def is_gone(pid: int) -> bool:
    """Whether no process has that id, not even as a zombie that nobody reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def never() -> None:
    return None


def names(events: list[protocol.AnyEvent]) -> list[str]:
    return [type(event).__name__.lower() for event in events]


def answers(engine: EngineProcess, asked: list[protocol.Upscale]) -> list[str]:
    engine.stays = True
    return [name for name in names(list(engine.upscale(asked, never))) if name in ("done", "failed", "bye")]
