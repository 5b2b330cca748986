"""Workers that come while pictures wait for one: a thread asks Redis, so that nobody waits for the next try.

It runs only from when a batch gave up until a worker has come, or the next batch begins.
"""

import threading
from collections.abc import Callable

from watcher.queue.redis_link import connect, listeners, without_patience
from watcher.sections import Queue

_ASK_SECONDS = 2.0


class Newcomers:
    """Looks out for workers of a queue."""

    def __init__(self, settings: Queue, on_arrival: Callable[[], None]) -> None:
        """Nobody is looked out for yet.

        Args:
            settings: of the queue.
            on_arrival: called from another thread when one has come.
        """
        self._settings = settings
        self._on_arrival = on_arrival
        self._end: threading.Event | None = None
        self._came = threading.Event()

    def look_out(self, known: frozenset[bytes] | None) -> None:
        """Until a worker has come that is not among the known ones; None: those that Redis names now, if it answers."""
        self.end()
        self._end = threading.Event()
        threading.Thread(target=self._ask, args=(known, self._end), name="newcomers", daemon=True).start()

    def end(self) -> None:
        """Look out no more, and forget who came."""
        if self._end is not None:
            self._end.set()
            self._end = None
        self._came.clear()

    def have_come(self) -> bool:
        """Whether one has come; told once."""
        came = self._came.is_set()
        self._came.clear()
        return came

    def _ask(self, known: frozenset[bytes] | None, end: threading.Event) -> None:
        if known is None:
            known = self._here()
        while not end.wait(_ASK_SECONDS):
            if self._here() - known and not end.is_set():
                self._came.set()
                self._on_arrival()
                return

    def _here(self) -> frozenset[bytes]:
        """Who listens; nobody, where Redis does not answer."""
        here: frozenset[bytes] = frozenset()
        with connect(self._settings.url) as connection, without_patience(connection):
            here = listeners(connection, self._settings.name)
        return here  # noqa: RET504 - what fails in the block passes here
