"""How far the running batch is, for the page: a small file in the state folder, as an engine works.

It costs nothing at rest, and next to nothing else: at most two small writes a second, none for a batch that is over
before the first of them. What a killed watcher left there tells its process id, by which a reader knows it for stale.
"""

import contextlib
import os
import time

import msgspec

from watcher.files.filesystem import replace_file
from watcher.progress import Progress

FILE_NAME = "progress.json"
_INTERVAL_SECONDS = 0.5
_MOST_PICTURES = 8  # in work at a time; engines have fewer


class Work(msgspec.Struct, frozen=True):
    """A picture in work: `done` of `total` tiles."""

    path: str
    done: int
    total: int


class Live(msgspec.Struct, frozen=True):
    """What the file says.

    Attributes:
        pid: of the watcher that wrote it.
        pictures: in the batch; 0: none runs.
        ended: how many of them have come to their end.
        working: those in work that have tiles.
        at: when it was written, Unix time.
    """

    pid: int = 0
    pictures: int = 0
    ended: int = 0
    working: tuple[Work, ...] = ()
    at: float = 0.0


def read(state_folder: str) -> Live:
    """What the watcher last told; nothing if there is no such file, or none that makes sense."""
    try:
        with open(os.path.join(state_folder, FILE_NAME), "rb") as file:
            return msgspec.json.decode(file.read(1 << 16), type=Live)
    except (OSError, msgspec.DecodeError):
        return Live()


class LiveProgress:
    """A progress that is shown elsewhere, too. For one thread at a time."""

    def __init__(self, shown: Progress, state_folder: str) -> None:
        """Pass everything on to `shown`, and write it into the state folder."""
        self._shown = shown
        self._path = os.path.join(state_folder, FILE_NAME)
        self._pictures = self._ended = 0
        self._is_told = False
        self._working: dict[str, Work] = {}
        self._next = 0.0

    def begin(self, pictures: int) -> None:
        """A batch begins."""
        self._pictures, self._ended = pictures, 0
        self._working.clear()
        self._next = time.monotonic() + _INTERVAL_SECONDS
        self._shown.begin(pictures)

    def work(self, name: str, done: int, total: int) -> None:
        """A picture has `done` of `total` tiles."""
        self._working.pop(name, None)
        if done < total:
            self._working[name] = Work(name, done, total)  # the latest is the last
        while len(self._working) > _MOST_PICTURES:
            del self._working[next(iter(self._working))]
        self._tell()
        self._shown.work(name, done, total)

    def advance(self) -> None:
        """One picture more has come to its end."""
        self._ended += 1
        self._tell()
        self._shown.advance()

    def end(self) -> None:
        """The batch is over."""
        self._pictures = 0
        self._working.clear()
        if self._is_told:
            self._write()
            self._is_told = False
        self._shown.end()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._pictures and now >= self._next:
            self._next = now + _INTERVAL_SECONDS
            self._is_told = True
            self._write()

    def _write(self) -> None:
        live = Live(os.getpid(), self._pictures, self._ended, tuple(self._working.values()), round(time.time(), 3))
        with contextlib.suppress(OSError):  # a full disk is told by those who cannot do without
            replace_file(self._path, msgspec.json.encode(live))
