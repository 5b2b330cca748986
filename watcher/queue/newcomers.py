"""Workers that come while pictures wait for one: a thread asks Redis, so that nobody waits for the next try.

It runs only from when a batch gave up until a worker has come, or the next batch begins, which finds out by itself.
"""

import contextlib
import threading
from collections.abc import Callable

from watcher.queue.redis_link import connect, listeners, without_patience
from watcher.sections import Queue

_ASK_SECONDS = 2.0


class Newcomers:
    """Looks out for workers of a queue.

    Attributes:
        on_arrival: called from another thread when one has come; None: nobody is looked out for.
    """

    on_arrival: Callable[[], None] | None = None

    def __init__(self, settings: Queue) -> None:
        """Nobody is looked out for yet."""
        self._settings = settings
        self._end: threading.Event | None = None
        self._came = threading.Event()
        self._awaited = False  # by pictures that wait, since a batch gave up

    def look_out(self, known: frozenset[bytes] | None) -> None:
        """Until a worker has come that is not among the known ones; None: those that Redis names now, if it answers."""
        self.end()
        if self.on_arrival is None:
            return
        self._awaited = True
        self._end = threading.Event()
        arguments = (known, self._end, self.on_arrival)
        threading.Thread(target=self._ask, args=arguments, name="newcomers", daemon=True).start()

    def end(self) -> None:
        """Look out no more, and forget who came."""
        if self._end is not None:
            self._end.set()
            self._end = None
        self._came.clear()

    def serve(self) -> None:
        """A batch was served: while it was, nobody looked out, and pictures of an earlier one may wait still."""
        if self._awaited:
            self._came.set()

    def have_come(self) -> bool:
        """Whether one has come; told once."""
        came = self._came.is_set()
        self._came.clear()
        self._awaited = self._awaited and not came
        return came

    def _ask(self, known: frozenset[bytes] | None, end: threading.Event, on_arrival: Callable[[], None]) -> None:
        if known is None:
            known = self._here()
        while not end.wait(_ASK_SECONDS):
            if self._here() - known and not end.is_set():
                self._came.set()
                on_arrival()
                return

    def _here(self) -> frozenset[bytes]:
        """Who listens; nobody, where Redis does not answer."""
        here: frozenset[bytes] = frozenset()
        # of an address that cannot work the batch has told
        with contextlib.suppress(Exception), connect(self._settings.url) as connection, without_patience(connection):
            here = listeners(connection, self._settings.name)
        return here
