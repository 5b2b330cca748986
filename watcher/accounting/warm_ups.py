"""The rows of the ledger that speak of engines held without work: why, until when, and which batch found one so.

One row is one stretch of time: from the end of a batch, or from a start ahead of any, until a batch takes the engine
or it is let go. A busy hour of the schedule is many such rows, with one `wanted_at`.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from watcher.accounting.bill import WarmUp
from watcher.ledger import Ledger
from watcher.rows import Selects


class Wanted(NamedTuple):
    """Why an engine is to be warm.

    Attributes:
        why: "command", "schedule" or "keep_warm".
        since: when that began, Unix time.
        until: on the monotonic clock.
    """

    why: str
    since: float
    until: float

    @property
    def until_at(self) -> float:
        """The same in Unix time, as far as the clocks are now."""
        # rounded, as both clocks were not read at the same instant: 9:00 would be told as 8:59:59
        return round(time.time() + self.until - time.monotonic(), 2)


def begin(ledger: Ledger, run: int, wanted: Wanted, *, starts_engine: bool) -> int:
    """An engine is held from now on; returns the id of the row."""
    now = time.time()
    with ledger.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO warm_ups (run, why, wanted_at, wanted_until, starts_engine, began_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (run, wanted.why, wanted.since, wanted.until_at, int(starts_engine), now),
        )
        return int(cursor.lastrowid or 0)


def prolong(ledger: Ledger, row: int, wanted: Wanted) -> None:
    """It is wanted until another time."""
    with ledger.transaction() as connection:
        connection.execute("UPDATE warm_ups SET wanted_until = ? WHERE id = ?", (wanted.until_at, row))


def end(
    ledger: Ledger, row: int, idle_seconds: float, batch: int | None = None, spared_seconds: float | None = None
) -> None:
    """A batch takes the engine, or it was let go."""
    with ledger.transaction() as connection:
        connection.execute(
            "UPDATE warm_ups SET ended_at = ?, idle_seconds = ?, batch = ?, spared_seconds = ? WHERE id = ?",
            (time.time(), idle_seconds, batch, spared_seconds, row),
        )


def served(ledger: Ledger, row: int, pictures: int) -> None:
    """What the batch that took the engine had of it; one that had nothing of it was spared nothing."""
    with ledger.transaction() as connection:
        if pictures:
            connection.execute("UPDATE warm_ups SET pictures = ? WHERE id = ?", (pictures, row))
        else:
            connection.execute("UPDATE warm_ups SET batch = NULL, spared_seconds = NULL WHERE id = ?", (row,))


def between(ledger: Selects, since: float, until: float, now: float) -> Iterator[WarmUp]:
    """Those that began in a period, Unix time, each with what its engine took to start and to end.

    An engine that was never ready took all its time to start.
    """
    rows = ledger.select(
        "SELECT why, wanted_at, COALESCE(device, ''), starts_engine,"
        " COALESCE(w.idle_seconds, MAX(? - MAX(began_at, COALESCE(ready_at, ?)), 0)), w.batch IS NOT NULL, pictures,"
        " COALESCE(spared_seconds, 0), CASE WHEN ready_at IS NOT NULL THEN COALESCE(load_seconds, 0)"
        " ELSE MAX(COALESCE(exited_at, ?) - COALESCE(held_from, spawned_at), 0) END, COALESCE(exit_seconds, 0)"
        " FROM warm_ups w JOIN engine_runs r ON r.id = w.run WHERE began_at >= ? AND began_at < ? ORDER BY w.id",
        (now, now, now, since, until),
    )
    return (WarmUp(*row) for row in rows)


def engine_now(ledger: Selects, *, running: bool) -> dict[str, Any]:
    """What the engine is doing, for `status`.

    Args:
        ledger: of the watcher.
        running: whether that lives.

    Returns:
        state: "off", "starting" (ahead of any batch), "warm" or "working"; process: its id, None where there is none;
        why and until (RFC 3339): for "starting" and "warm".
    """
    newest = ledger.select(
        "SELECT r.pid, r.ready_at, w.why, w.wanted_until FROM engine_runs r"
        " LEFT JOIN warm_ups w ON w.run = r.id AND w.ended_at IS NULL"
        " WHERE r.id = (SELECT MAX(id) FROM engine_runs WHERE remote IS NULL) AND r.exited_at IS NULL",
        (),
    )
    if not newest or not running:
        return {"state": "off", "process": None, "why": None, "until": None}
    pid, ready_at, why, until = newest[0]
    if why is None:
        return {"state": "working", "process": pid, "why": None, "until": None}
    until_told = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
    return {"state": "starting" if ready_at is None else "warm", "process": pid, "why": why, "until": until_told}
