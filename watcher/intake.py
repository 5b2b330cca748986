"""What is whole and waits for a batch, or is in one: files with their hashes, and the windows that gather them.

There are two windows: what is urgent does not wait for a batch of all else, nor for the governor.
"""

import itertools
import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from sr_engine.headers import HeaderError, read_header
from watcher.files import filesystem
from watcher.files.filesystem import Digest, Identity, digest
from watcher.sections import WindowLimits
from watcher.window import Window


class Taken(NamedTuple):
    """A file that goes into a batch.

    Attributes:
        path: below the inbox.
        identity: of the file that was seen to be whole.
        arrived_at: when that was, Unix time.
        content: its digest, as soon as it was read.
    """

    path: str
    identity: Identity
    arrived_at: float
    content: "Future[Digest]"


class Closing(NamedTuple):
    """A window that closes, why, and whether it is the urgent one."""

    reason: str
    urgent: bool


class _Held(NamedTuple):
    identity: Identity
    arrived_at: float
    content: "Future[Digest] | None" = None  # not asked for yet, for each that waits takes memory


class Intake:
    """The files in the windows and in the running batch. For the main thread."""

    def __init__(self, root: str, limits: WindowLimits) -> None:
        """An empty one.

        Args:
            root: the inbox; paths are below it.
            limits: when a window closes.
        """
        self._root = root
        self._most_ahead = limits.max_files
        self._is_urgent = limits.is_urgent
        self._urgent, self._ordinary = (
            Window[str](limits.quiet_seconds, limits.max_seconds, limits.max_files, limits.max_pixels) for _ in range(2)
        )
        self._held: dict[str, _Held] = {}
        self._in_batch: set[str] = set()
        # By whether they are urgent: files of the windows whose hashes were asked for, and who hashes them. What is
        # urgent must not wait until gigabytes of what is held are read.
        self._ahead: dict[bool, set[str]] = {True: set(), False: set()}
        self._hashers = {True: ThreadPoolExecutor(1, "urgent"), False: ThreadPoolExecutor(1, "hash")}

    def __len__(self) -> int:
        """How many wait for a batch."""
        return len(self._urgent) + len(self._ordinary)

    def waiting_since(self) -> float | None:
        """When the first that waits in the window was whole, Unix time, or None."""
        waiting = (held.arrived_at for path, held in self._held.items() if path not in self._in_batch)
        return next(waiting, None)

    def add(self, path: str, identity: Identity, now: float) -> None:
        """A file is whole.

        Args:
            path: below the inbox.
            identity: as it was seen to be whole.
            now: monotonic seconds.
        """
        if path in self._in_batch:
            return  # it is looked at again when that is over
        self._held[path] = _Held(identity, time.time())
        ahead = self._ahead[self._is_urgent(path)]
        if len(ahead) < self._most_ahead:
            self._hash(path)
            ahead.add(path)
        self._window_of(path).add(path, pixels_of(os.path.join(self._root, path)), now)

    def holds(self, path: str, identity: Identity) -> bool:
        """Whether a file is in the window or in work; one that changed in the window is forgotten."""
        if path in self._in_batch:
            return True
        if path not in self._held:
            return False
        if self._held[path].identity.same_state(identity):
            return True
        self._forget(path)
        return False

    def forget_window(self) -> None:
        """The inbox is gone."""
        for path in [*self._urgent.take_all(), *self._ordinary.take_all()]:
            self._forget(path)

    def closing(self, now: float, *, urgent_only: bool) -> Closing | None:
        """The window that closes at `now` (monotonic seconds): the urgent one first, even if it is young."""
        if reason := self._urgent.closing_reason(now):
            return Closing(reason, urgent=True)
        if urgent_only or not (reason := self._ordinary.closing_reason(now)):
            return None
        return Closing("urgent ones go first", urgent=True) if len(self._urgent) else Closing(reason, urgent=False)

    def close_times(self, *, urgent_only: bool) -> list[float]:
        """When windows close by time alone, monotonic seconds; see `Window.closes_at`."""
        windows = [self._urgent] if urgent_only else [self._urgent, self._ordinary]
        return [closes_at for window in windows if (closes_at := window.closes_at()) is not None]

    def waits(self, *, urgent: bool) -> bool:
        """Whether anything does in one of the two windows."""
        return len(self._window(urgent=urgent)) > 0

    def take(self, *, urgent: bool) -> list[Taken]:
        """The files of one batch, and those of the next are hashed while it runs."""
        paths = self._window(urgent=urgent).take()
        self.engage(paths)
        ahead = self._ahead[urgent]
        ahead.difference_update(paths)
        taken = [
            Taken(path, self._held[path].identity, self._held[path].arrived_at, self._hash(path)) for path in paths
        ]
        of_kind = (path for path in self._held if path not in self._in_batch and self._is_urgent(path) is urgent)
        for path in itertools.islice(of_kind, self._most_ahead):
            self._hash(path)
            ahead.add(path)
        return taken

    def engage(self, paths: Iterable[str]) -> None:
        """These are in work, and wait for no other batch."""
        for path in paths:
            self._in_batch.add(path)
            self._window_of(path).discard(path)

    def disengage(self) -> set[str]:
        """The work is over; returns what was in it."""
        paths, self._in_batch = self._in_batch, set()
        for path in paths:
            self._forget(path)
        return paths

    def close(self) -> None:
        """Hash no more."""
        for hasher in self._hashers.values():
            hasher.shutdown(cancel_futures=True)

    def _window(self, *, urgent: bool) -> Window[str]:
        return self._urgent if urgent else self._ordinary

    def _window_of(self, path: str) -> Window[str]:
        return self._window(urgent=self._is_urgent(path))

    def _forget(self, path: str) -> None:
        self._window_of(path).discard(path)
        self._held.pop(path, None)
        self._ahead[self._is_urgent(path)].discard(path)

    def _hash(self, path: str) -> "Future[Digest]":
        held = self._held[path]
        content = held.content
        if content is None:
            content = self._hashers[self._is_urgent(path)].submit(digest, os.path.join(self._root, path))
            self._held[path] = held._replace(content=content)
        return content


def pixels_of(path: str) -> int:
    """Width times height, from the header; 0 where it cannot be told: the engine will say why."""
    try:
        with filesystem.open_regular(path) as file:
            header = read_header(file)
    except (HeaderError, OSError):
        return 0
    return header.width * header.height
