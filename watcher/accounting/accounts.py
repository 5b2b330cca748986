"""What the ledger knows of engines, pictures and their times, summed up by SQLite for `report`."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from watcher.accounting import engine_runs, warm_ups
from watcher.accounting.bill import EngineRun, WarmUp
from watcher.accounting.replay import Costs
from watcher.rows import Selects

_LONGEST_RUN_SECONDS = 7 * 86_400.0  # an engine that began earlier than this before a period is not looked for
_MOST_ARRIVALS = 50_000  # seconds with pictures: what is replayed in the time that a person waits

_COSTS = (
    "SELECT SUM(spawn_seconds + load_seconds), SUM(exit_seconds), SUM(compute_seconds), COUNT(*), SUM(done + failed)"
    " FROM engine_runs WHERE spawned_at >= ? AND spawned_at < ? AND exit_seconds IS NOT NULL"
)
# of one that nobody closed, the same as `engine_runs.close_open` will enter
_ENDED = "COALESCE(exited_at, MAX(?, COALESCE(ready_at, spawned_at)))"
_BILLED, _OTHERS = " AND device NOT LIKE 'cpu%'", " AND device LIKE 'cpu%'"


class Pictures(NamedTuple):
    """How many pictures came to an end in a period, and how many batches there were."""

    done: int
    reused: int
    failed: int
    batches: int


def seen_from_outside(ledger: Selects, state_folder: str) -> "Accounts":
    """The accounts for who is not the watcher: one that was killed, and not started since, left its last run open."""
    return Accounts(ledger, engine_runs.dead_since(state_folder))


class Accounts:
    """Sums over a ledger. Times are Unix time; `until` is not part of a period."""

    def __init__(self, ledger: Selects, dead_since: float | None = None) -> None:
        """Open the books.

        Args:
            ledger: stays open.
            dead_since: when engines were seen last that nobody closed, as their watcher is no more; None: it lives.
        """
        self._ledger = ledger
        self._select = ledger.select
        self._open_until = math.inf if dead_since is None else dead_since

    def pictures(self, since: float, until: float) -> Pictures:
        """Those that came to an end."""
        counts = "SELECT COUNT(*), SUM(reused) FROM pictures WHERE state = ? AND changed_at >= ? AND changed_at < ?"
        ((done, reused),) = self._select(counts, ("done", since, until))
        ((failed, _),) = self._select(counts, ("failed", since, until))
        ((batches,),) = self._select(
            "SELECT COUNT(*) FROM batches WHERE started_at >= ? AND started_at < ?", (since, until)
        )
        return Pictures(done, reused or 0, failed, batches)

    def arrivals(self, since: float, until: float) -> list[tuple[float, int]]:
        """When pictures were whole that needed an engine, by the second, and how many: the latest, if they are many."""
        latest = self._select(
            "SELECT CAST(arrived_at AS INTEGER) AS second, COUNT(*) FROM pictures"
            " WHERE arrived_at >= ? AND arrived_at < ? AND reused = 0 GROUP BY second ORDER BY second DESC LIMIT ?",
            (since, until, _MOST_ARRIVALS),
        )
        return latest[::-1]

    def costs(self, since: float, until: float) -> Costs | None:
        """What engines took on the average, on devices that are billed if there were any; None where none worked."""
        for condition in (_BILLED, _OTHERS):
            ((load, exit_, compute, runs, pictures),) = self._select(_COSTS + condition, (since, until))
            if pictures:
                return Costs((load or 0.0) / runs, (compute or 0.0) / pictures, (exit_ or 0.0) / runs)
        return None

    def warm_ups(self, since: float, until: float, now: float) -> Iterator[WarmUp]:
        """Those that began in the period; one that is still on ends now."""
        return warm_ups.between(self._ledger, since, until, min(now, self._open_until))

    def gpu_seconds(self, since: float, until: float) -> float:
        """How long devices that are billed were held, summed by SQLite; one that is at work still ends at `until`.

        Runs that never named their device are taken for others of their machine's, as in `watcher.accounting.bill`.
        """
        sums = self._select(
            f"SELECT host, SUM(MAX(MIN({_ENDED}, ?) - MAX(COALESCE(held_from, spawned_at), ?), 0)),"  # noqa: S608 - ours
            " CASE WHEN device IS NULL THEN '' WHEN device LIKE 'cpu%' THEN 'cpu' ELSE 'gpu' END AS kind"
            " FROM engine_runs WHERE spawned_at >= ? AND spawned_at < ? GROUP BY host, kind",
            (min(until, self._open_until), until, since, since - _LONGEST_RUN_SECONDS, until),
        )
        kinds = {(host, kind) for host, _, kind in sums}
        on_cpu = {host for host, kind in kinds if kind == "cpu"} - {host for host, kind in kinds if kind == "gpu"}
        return float(sum(seconds for host, seconds, kind in sums if kind == "gpu" or (not kind and host not in on_cpu)))

    def begin(self) -> float | None:
        """When the first picture or engine came that the ledger knows, Unix time."""
        signs = [("pictures", "arrived_at"), ("engine_runs", "spawned_at"), ("batches", "started_at")]
        # the condition is that of the index on arrivals, which is not used without
        asked = (f"SELECT MIN({column}) FROM {table} WHERE {column} IS NOT NULL" for table, column in signs)  # noqa: S608
        found = [self._select(text, ()) for text in asked]
        return min((at for rows in found for (at,) in rows if at is not None), default=None)

    def engine_runs(self, since: float, until: float, now: float) -> Iterator[EngineRun]:
        """Those that touch the period; one that is still at work ends now."""
        open_until = min(now, self._open_until)
        rows = self._select(
            f"SELECT host, COALESCE(device, ''), COALESCE(held_from, spawned_at), {_ENDED}, load_seconds,"  # noqa: S608 - ours
            " compute_seconds, done + failed, energy_joules, held_by, release_seconds, unreleased_bytes"
            f" FROM engine_runs WHERE spawned_at >= ? AND spawned_at < ? AND {_ENDED} >= ?",
            (open_until, since - _LONGEST_RUN_SECONDS, until, open_until, since),
        )
        for host, device, held_from, ended_at, load, compute, *rest in rows:
            yield EngineRun(host, device, held_from, ended_at, load or 0.0, compute or 0.0, *rest)
