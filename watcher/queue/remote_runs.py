"""Engine runs on other machines, in the ledger: each once, however often it is told of."""

import time

from watcher.journal import warn
from watcher.ledger import Ledger
from watcher.queue import note
from watcher.queue.shards import Run


def enter(ledger: Ledger, batch: int, run: Run) -> None:
    """Enter a run, or what is new of it. One that has ended stays as it ended.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    columns = {
        "batch": batch,
        "remote": run.id,
        "exited_at": run.ended_at,
        "held_from": run.held_from_at,
        **{name: getattr(run, name) for name in _SAME},
    }
    names = ", ".join(columns)
    places = ", ".join("?" * len(columns))
    news = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("batch", "remote"))
    with ledger.transaction() as connection:
        connection.execute(
            f"INSERT INTO engine_runs ({names}) VALUES ({places})"  # noqa: S608 - our own names, values are bound
            f" ON CONFLICT (remote) WHERE remote IS NOT NULL DO UPDATE SET {news}"
            " WHERE engine_runs.exit_seconds IS NULL OR excluded.exit_seconds IS NOT NULL",
            tuple(columns.values()),
        )


_SAME = (
    "host",
    "pid",
    "spawned_at",
    "ready_at",
    "exit_code",
    "runtime",
    "device",
    "precision",
    "model",
    "done",
    "failed",
    "peak_memory_bytes",
    "spawn_seconds",
    "load_seconds",
    "compute_seconds",
    "idle_seconds",
    "exit_seconds",
    "held_by",
    "energy_joules",
    "device_peak_bytes",
    "release_seconds",
    "unreleased_bytes",
)


def note_release(ledger: Ledger, run: Run) -> None:
    """A run was looked after when it had ended: `status` tells of memory that is not back, until one gives back all.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    alarm = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {run.alarm}" if run.alarm else ""
    if alarm:
        warn("not_released", "{host}: {alarm}", host=run.host, alarm=run.alarm)
    if news := note.with_alarm(ledger.notes(), run.host, run.device or "", alarm):
        ledger.note(**news)
