"""Signs of life of a running watcher: a heartbeat for `dropscale health`, and what metrics show of the moment.

The heartbeat is the time of a file in the state folder. A note in the ledger would be a transaction, and a question
that the watcher answers would keep who asks waiting.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

BEAT_SECONDS = 10.0  # the loop turns at least once in `inbox.ROOT_CHECK_SECONDS`
_FILE_NAME = "heartbeat"

# What the engine is doing once the journal told of these.
_ENGINE = {
    "engine_started": "starting",
    "engine_ready": "working",
    "engine_warm": "warm",
    "engine_taken": "working",
    "engine_ended": "off",
}


class Vitals:
    """How a watcher is. The loop writes it, other threads read single attributes.

    Attributes:
        watching: whether the inbox is there and watched.
        last_reconcile: when it was last looked through, Unix time; 0: not yet.
        events_missed: pictures that a scan found and no event announced.
        waiting: pictures that it knows of and that no batch has taken.
        waiting_since: when the first of them that is whole, or nearly so, came; Unix time. Those of which the ledger
            knows are older.
        engine: "off", "starting", "working" or "warm".
        hook_events: how many events of hooks came to which end, by hook and result.
    """

    def __init__(self, state_folder: str) -> None:
        self.watching = False
        self.last_reconcile = 0.0
        self.events_missed = 0
        self.waiting = 0
        self.waiting_since: float | None = None
        self.engine = "off"
        self.hook_events: Mapping[tuple[str, str], int] = {}
        self._path = os.path.join(state_folder, _FILE_NAME)
        self._next_beat = 0.0

    def beat(self) -> None:
        """The loop turned over. May be called often: the file is touched every BEAT_SECONDS."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        first = not self._next_beat
        self._next_beat = now + BEAT_SECONDS
        with contextlib.suppress(OSError):  # without it, `health` says that it is missing
            if first:  # later on, a state folder that is being removed must not get new files
                open(self._path, "ab").close()
            os.utime(self._path)

    def hear(self, event: str, _text: str, _fields: Mapping[str, Any]) -> None:
        """An event of the journal."""
        self.engine = _ENGINE.get(event, self.engine)


def last_beat(state_folder: str) -> float | None:
    """When a watcher's loop turned over last, Unix time; None: never."""
    try:
        return os.stat(os.path.join(state_folder, _FILE_NAME)).st_mtime
    except FileNotFoundError:
        return None
