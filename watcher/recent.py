"""What the ledger says of the moment, for `status`: the last batch, the engine, since when pictures wait."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from watcher.ledger import Ledger

ENGINE_NOTES = {"engine", "engine_since"}  # which `outside` writes


def arrivals(ledger: Ledger) -> dict[str, float]:
    """When the pictures came that the ledger knows and that are not done, Unix time, by path below the inbox."""
    sql = (
        "SELECT path, COALESCE(arrived_at, created_at) FROM pictures WHERE state NOT IN ('done', 'failed', 'withdrawn')"
    )
    return {os.fsdecode(path): arrived_at for path, arrived_at in ledger.select(sql, ())}


def engine(notes: Mapping[str, str], *, running: bool) -> dict[str, Any]:
    """Its state, and since when: an engine does not outlive its watcher."""
    state = notes.get("engine", "off") if running else "off"
    since = _time(float(notes["engine_since"])) if running and "engine_since" in notes else None
    return {"state": state, "since": since}


def last_batch(ledger: Ledger) -> dict[str, Any] | None:
    """The batch that was started last, and what became of its pictures so far."""
    sql = "SELECT id, started_at, finished_at, closed_by, pictures FROM batches ORDER BY id DESC LIMIT 1"
    row = next(iter(ledger.select(sql, ())), None)
    if row is None:
        return None
    identifier, started_at, finished_at, closed_by, pictures = row
    # by the index over states and times: there is none over batches
    sql = (
        "SELECT COALESCE(SUM(state = 'done'), 0), COALESCE(SUM(state = 'done' AND reused), 0),"
        " COALESCE(SUM(state = 'failed'), 0) FROM pictures"
        " WHERE state IN ('done', 'failed') AND changed_at >= ? AND batch = ?"
    )
    ((done, reused, failed),) = ledger.select(sql, (started_at, identifier))
    return {
        "id": identifier,
        "started_at": _time(started_at),
        "finished_at": _time(finished_at) if finished_at is not None else None,
        "closed_by": closed_by,
        "pictures": pictures,
        "done": done,
        "reused": reused,
        "failed": failed,
    }


def works_on_cpu(ledger: Ledger) -> bool:
    """Whether the last engine that told its device had a CPU."""
    sql = "SELECT device FROM engine_runs WHERE device IS NOT NULL ORDER BY id DESC LIMIT 1"
    return [device for (device,) in ledger.select(sql, ())] == ["cpu"]


def describe(batch: Mapping[str, Any], *, running: bool) -> str:
    """The same for a person, as one line of `status`."""
    when = datetime.fromisoformat(batch["started_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    what = f"{batch['done']} of {batch['pictures']} done" + (f", {batch['failed']} failed" if batch["failed"] else "")
    end = "" if batch["finished_at"] else ", not over yet" if running else ", interrupted"
    return f"last      batch of {when}: {what}{end}"


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
