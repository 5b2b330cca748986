"""What became of the events of hooks: counted for metrics, and noted for `status` where they did not arrive."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from watcher.wording import clock, count_of

NOTE = "hooks"  # in the ledger
RESULTS = ("delivered", "failed", "dropped")


class Trouble(msgspec.Struct, frozen=True):
    """A hook whose last event did not arrive.

    Attributes:
        hook: its name.
        events: how many did not since one did.
        since: when the first of them did not, Unix time.
        event: the last, as users call it; empty where several were given up at once.
        problem: why.
    """

    hook: str
    events: int
    since: float
    event: str
    problem: str

    def report(self) -> dict[str, Any]:
        """For `status`."""
        since = datetime.fromtimestamp(self.since, UTC).isoformat(timespec="milliseconds")
        return {**msgspec.structs.asdict(self), "since": since, "told": str(self)}

    def __str__(self) -> str:
        """On one line."""
        what = f", {self.event}" if self.event else ""
        count = count_of(self.events, "event")
        return f"{self.hook}: {count} not delivered since {clock(self.since)}; the last{what}: {self.problem}"


def read(notes: Mapping[str, str]) -> list[Trouble]:
    """Those that were noted last; none if there is nothing, or nothing of this version."""
    try:
        return msgspec.json.decode(notes.get(NOTE, ""), type=list[Trouble])
    except msgspec.DecodeError:
        return []


def as_note(troubles: Iterable[Trouble]) -> dict[str, str]:
    """For `Ledger.note`."""
    return {NOTE: msgspec.json.encode(list(troubles)).decode()}


class Tally:
    """Of all hooks, from any thread.

    Attributes:
        counts: how many events came to which end, by the hook's name and one of RESULTS. Its keys never change.
    """

    def __init__(
        self, hooks: Iterable[str], troubles: Iterable[Trouble], changed: Callable[[Iterable[Trouble]], None]
    ) -> None:
        """Begin to count.

        Args:
            hooks: their names.
            troubles: what an earlier watcher left; that of other hooks is forgotten.
            changed: called with all there are, one call at a time.
        """
        self._lock = threading.Lock()
        self._changed = changed
        self.counts = {(hook, result): 0 for hook in hooks for result in RESULTS}
        self._troubles = {trouble.hook: trouble for trouble in troubles if (trouble.hook, "failed") in self.counts}
        changed(self._troubles.values())

    def delivered(self, hook: str) -> None:
        """An event of this hook has arrived."""
        with self._lock:
            self.counts[hook, "delivered"] += 1
            if self._troubles.pop(hook, None) is not None:
                self._changed(self._troubles.values())

    def failed(self, hook: str, event: str, problem: str) -> None:
        """An event did not arrive, and there will be no other attempt."""
        with self._lock:
            self.counts[hook, "failed"] += 1
            self._trouble(hook, event, problem, 1)

    def dropped(self, hook: str, count: int, problem: str) -> None:
        """There was no room for so many events, or no time."""
        with self._lock:
            self.counts[hook, "dropped"] += count
            self._trouble(hook, "", problem, count)

    def _trouble(self, hook: str, event: str, problem: str, count: int) -> None:
        before = self._troubles.get(hook)
        events, since = (before.events, before.since) if before else (0, time.time())
        self._troubles[hook] = Trouble(hook, events + count, since, event, problem)
        self._changed(self._troubles.values())
