"""When is a file whole? After two looks `settle_seconds` apart that see the same file and no writer.

Never "old enough by its mtime": a file moved in keeps its old mtime, and the clock of a NAS is not ours.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from watcher.files.filesystem import Identity


class Settled(NamedTuple):
    """A file that is whole.

    Attributes:
        path: as it was given.
        identity: what both looks saw.
        announced: whether an event told of it, or only a scan.
        unchanged_seconds: how long it has been seen like this.
    """

    path: str
    identity: Identity
    announced: bool
    unchanged_seconds: float


@dataclass(slots=True)
class _Entry:
    identity: Identity
    since: float
    announced: bool


class Settling:
    """The files that are being watched until they are whole. Times are monotonic seconds, passed in."""

    def __init__(
        self,
        settle_seconds: float,
        look_at: Callable[[str], Identity | None],
        writer_present: Callable[[str], bool | None],
    ) -> None:
        """Look at files through `look_at` (identity, None when gone) and `writer_present` (None: can't tell).

        Either may raise OSError when the file system does not answer: the file is looked at again later.
        """
        self._settle_seconds = settle_seconds
        self._look_at = look_at
        self._writer_present = writer_present
        self._entries: dict[str, _Entry] = {}
        self._looks: deque[tuple[float, str]] = deque()  # all wait equally long, so the order is that of time

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def add(self, path: str, identity: Identity, now: float, *, announced: bool) -> None:
        """A file was seen: the first look. One that is known already only learns that an event announced it."""
        entry = self._entries.get(path)
        if entry is not None:
            entry.announced |= announced
            return
        self._entries[path] = _Entry(identity, now, announced)
        self._looks.append((now + self._settle_seconds, path))

    def next_look(self) -> float | None:
        """When `look` has something to do, or None."""
        return self._looks[0][0] if self._looks else None

    def oldest_since(self) -> float | None:
        """Since when the first of them looks as it does, monotonic seconds, or None."""
        first = next(iter(self._entries.values()), None)
        return None if first is None else first.since

    def look(self, now: float) -> Iterator[Settled]:
        """Look again at every file whose time has come, and yield those that are whole."""
        while self._looks and self._looks[0][0] <= now:
            path = self._looks.popleft()[1]
            entry = self._entries[path]
            try:
                identity = self._look_at(path)
                changed = identity is not None and not identity.same_state(entry.identity)
                busy = identity is not None and not changed and self._writer_present(path)
            except OSError:
                self._looks.append((now + self._settle_seconds, path))
                continue
            if identity is None:
                del self._entries[path]
            elif changed or busy:
                if changed:
                    entry.identity, entry.since = identity, now
                self._looks.append((now + self._settle_seconds, path))
            else:
                del self._entries[path]
                yield Settled(path, identity, entry.announced, now - entry.since)

    def clear(self) -> None:
        """Forget all: a scan will find them again."""
        self._entries.clear()
        self._looks.clear()
