"""Which files have to wait, and until when: what the ledger says of them, and what it cannot say."""

from collections.abc import Iterable

from watcher.files.filesystem import Identity
from watcher.rows import MOVING, Picture, State
from watcher.sections import Retry


class Waiting:
    """Files of the inbox that are not to be taken now. Times are monotonic seconds unless they say `clock`.

    Attributes:
        moving: open rows whose files are on their way to the archive or to `failed`, by path.
    """

    def __init__(self, retry: Retry, longest_seconds: float) -> None:
        """Nothing waits; nothing will wait longer than `longest_seconds`, whatever the ledger says."""
        self.moving: dict[str, Picture] = {}
        self._retry = retry
        self._longest_seconds = longest_seconds
        self._files: dict[str, Identity] = {}
        self._until: dict[str, float] = {}
        self._deferrals: dict[str, int] = {}  # in a row, of files that no row speaks of: unreadable, ledger refused

    def reread(self, rows: Iterable[Picture], now: float, clock: float) -> None:
        """Take over what the open rows say; files that were deferred stay so.

        Args:
            rows: all open rows.
            now: monotonic.
            clock: Unix time, in which rows say `not_before`.
        """
        deferred = {path: until for path, until in self._until.items() if path in self._deferrals}
        self.moving = {row.path: row for row in rows if row.state in MOVING}
        self._files = {path: identity for path, identity in self._files.items() if path in deferred}
        self._until = deferred
        for row in rows:
            if row.state is State.WAITING:
                self._files[row.path] = row.identity
            elif row.state not in MOVING:
                continue
            # a clock that was set back must not make anything wait for days
            remaining = min(max(row.not_before - clock, 0), self._longest_seconds)
            self._until[row.path] = max(now + remaining, deferred.get(row.path, 0))

    def defer(self, path: str, identity: Identity | None, now: float) -> None:
        """Let a file wait of which no row says so, each time in a row longer; None: it is not in the inbox now."""
        count = self._deferrals.get(path, 0)
        self._deferrals[path] = count + 1
        if identity is not None:
            self._files[path] = identity
        self._until[path] = now + self._retry.delay_seconds(count)

    def forgive(self, path: str) -> None:
        """The file is fine: its next deferral is the first again."""
        self._deferrals.pop(path, None)

    def __len__(self) -> int:
        """How many wait for their time."""
        return len(self._until)

    def holds(self, path: str, identity: Identity) -> bool:
        """Whether the file, as it is now, has to wait or is on its way."""
        waiting = self._files.get(path)
        return path in self.moving or (path in self._until and waiting is not None and waiting.same_state(identity))

    def due(self, now: float) -> list[str]:
        """Files whose time to wait is over; they are told once."""
        due = [path for path, until in self._until.items() if until <= now and path not in self.moving]
        for path in due:
            del self._until[path]
        return due

    def moving_due(self, now: float) -> list[Picture]:
        """Rows whose move is to be carried on; they are told once."""
        due = [row for path, row in self.moving.items() if self._until.get(path, now + 1) <= now]
        for row in due:
            del self._until[row.path]
        return due

    def times(self, *, moving: bool) -> list[float]:
        """When something is due; with or without the moves."""
        return [until for path, until in self._until.items() if moving or path not in self.moving]
