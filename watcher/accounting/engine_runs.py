"""The rows of the ledger that speak of engine processes: one each, from its start to its real end."""

import contextlib
import os
import platform
from typing import TYPE_CHECKING, Any

from watcher import instance
from watcher.ledger import Ledger

if TYPE_CHECKING:
    from watcher.engine.process import EngineProcess

_SEEN_NAME = "engine-seen"  # beside the ledger: its time is when an engine was last at work


def begin(ledger: Ledger, batch: int | None, pid: int, model: str, spawned_at: float, device: str | None = None) -> int:
    """An engine process was started.

    Args:
        ledger: to write to.
        batch: that it is for; None: it is ahead of any.
        pid: its id.
        model: that it was told to load.
        spawned_at: Unix time.
        device: if that can be known before it says so.

    Returns:
        The id of the run.
    """
    with ledger.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO engine_runs (batch, host, pid, spawned_at, model, device) VALUES (?, ?, ?, ?, ?, ?)",
            (batch, platform.node(), pid, spawned_at, model, device),
        )
        return int(cursor.lastrowid or 0)


def note_progress(ledger: Ledger, run: int, engine: "EngineProcess") -> None:
    """The engine has its device, or rests: what is known by now, should this watcher be killed."""
    amend(ledger, run, **_known_of(engine))


def end(ledger: Ledger, run: int, engine: "EngineProcess") -> None:
    """The engine process was reaped."""
    amend(
        ledger,
        run,
        **_known_of(engine),
        exited_at=engine.meter.ended_at,
        idle_seconds=engine.meter.idle_seconds,
        exit_seconds=engine.meter.exit_seconds,
        exit_code=engine.returncode,
    )


def amend(ledger: Ledger, run: int, **columns: Any) -> None:
    """Enter what was learnt of a run."""
    ledger.change(run, table="engine_runs", **columns)


def close_open(ledger: Ledger, now: float, alive: int | None = None) -> None:
    """Close what a killed watcher left open: engines ended with it, when they were seen last, and so did its batches.

    Args:
        ledger: to write to.
        now: Unix time.
        alive: the run whose engine is held by this very watcher.
    """
    seen_at = min(_seen_at(os.path.dirname(ledger.path)), now)
    with ledger.transaction() as connection:
        connection.execute(
            "UPDATE engine_runs SET exited_at = MAX(?, COALESCE(ready_at, spawned_at))"
            " WHERE exited_at IS NULL AND id IS NOT ?",
            (seen_at, alive),
        )
        connection.execute(
            "UPDATE warm_ups SET ended_at = MAX(began_at, exited_at),"
            " idle_seconds = MAX(exited_at - MAX(began_at, COALESCE(ready_at, exited_at)), 0)"
            " FROM engine_runs r WHERE r.id = run AND ended_at IS NULL AND exited_at IS NOT NULL"
        )
        connection.execute("UPDATE batches SET finished_at = ? WHERE finished_at IS NULL", (now,))


def see(ledger: Ledger) -> None:
    """An engine is at work still: called often, so it is the time of a file and no transaction."""
    path = os.path.join(os.path.dirname(ledger.path), _SEEN_NAME)
    with contextlib.suppress(OSError), open(path, "ab"):
        os.utime(path)


def dead_since(state_folder: str) -> float | None:
    """When an engine was at work last, Unix time, if no watcher lives that could have one; None: one lives."""
    return None if instance.is_running(state_folder) else _seen_at(state_folder)


def _seen_at(state_folder: str) -> float:
    try:
        return os.stat(os.path.join(state_folder, _SEEN_NAME)).st_mtime
    except OSError:
        return 0.0


def _known_of(engine: "EngineProcess") -> dict[str, Any]:
    """What columns of its run hold, as far as it is known."""
    ready, meter = engine.ready, engine.meter
    return {
        "ready_at": engine.ready_at,
        "held_from": meter.held_from_at,
        "spawn_seconds": meter.spawn_seconds,
        "load_seconds": meter.load_seconds,
        "compute_seconds": meter.compute_seconds,
        "done": engine.done,
        "failed": engine.failed,
        "peak_memory_bytes": engine.peak_memory_bytes,
    } | ({"runtime": ready.runtime, "device": ready.device, "precision": ready.precision} if ready else {})
