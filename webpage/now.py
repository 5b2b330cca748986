"""What happens now: what waits and why, what runs, how far it is. As long as nobody looks, nothing is looked at.

Two looks are put together. The quick one (the lock, the watcher's progress file, one row of the ledger) is taken up to
twice a second. The thorough one, `dropscale status`, lists the inbox; it is taken as often as it is cheap, and shared
by all who look.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from watcher import instance, memory, recent
from watcher.accounting import warm_ups
from watcher.errors import DropscaleError
from watcher.files.names import told
from watcher.operation import live
from watcher.operation.status import collect, engine_now
from watcher.queue import note as queue_note
from watcher.sections import Config
from webpage.reading import Reading

SHOWN = 50  # files of each list; their number is told in any case
MOST_STREAMS = 4  # each keeps a thread of the server; who comes later asks again and again instead
_QUICK_SECONDS = 0.5
_THOROUGH_SECONDS = 2.0
_THOROUGH_SHARE = 20  # a thorough look may take a 20th of the time
_HEARTBEAT_SECONDS = 15.0
_LISTS = ("waiting", "working", "ignored")
_MANY_FILES = 5_000  # in the inbox: then what the look took is worth giving back

_OFF = {"state": "off", "process": None, "why": None, "until": None}
_LATEST = (
    "SELECT state, changed_at FROM (SELECT state, changed_at FROM pictures WHERE state = 'done'"
    " ORDER BY changed_at DESC LIMIT 1) UNION ALL SELECT state, changed_at FROM (SELECT state, changed_at"
    " FROM pictures WHERE state = 'failed' ORDER BY changed_at DESC LIMIT 1)"
)


class Now:
    """The state of things, for any number of threads."""

    def __init__(self, config: Config, reading: Reading) -> None:
        """Nothing is looked at before somebody asks."""
        self._config = config
        self._reading = reading
        self._lock = threading.Lock()
        self._quick: dict[str, Any] = {}
        self._thorough: dict[str, Any] = {}
        self._next_quick = self._next_thorough = 0.0
        self._soonest_thorough = 0.0
        self._streams = threading.BoundedSemaphore(MOST_STREAMS)
        self._stopping = threading.Event()

    def look(self) -> dict[str, Any]:
        """All that the page shows and `/api/v1/status` tells."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next_quick:
                before, self._quick = self._quick, self._look_quickly()
                self._next_quick = now + _QUICK_SECONDS
                if before.get("engine") != self._quick["engine"] or before.get("ended") != self._quick["ended"]:
                    self._next_thorough = min(self._next_thorough, self._soonest_thorough)
            if now >= self._next_thorough:
                self._thorough = self._look_thoroughly()
                ended = time.monotonic()
                self._soonest_thorough = ended + (ended - now) * _THOROUGH_SHARE / 4
                self._next_thorough = ended + max(_THOROUGH_SECONDS, (ended - now) * _THOROUGH_SHARE)
            quick = {key: value for key, value in self._quick.items() if key != "ended"}
            return {**self._thorough, **quick}

    def stream(self, is_alone: Callable[[], bool]) -> Iterator[bytes] | None:
        """Server-sent events: the state of things, each time that it changed. None: there are too many streams.

        Args:
            is_alone: whether the listener went away.
        """
        if self._stopping.is_set() or not self._streams.acquire(blocking=False):
            return None
        events = self._events(is_alone)
        next(events)  # into its `try`: from now on its end, whenever it comes, gives the place back
        return events

    def close(self) -> None:
        """End all streams."""
        self._stopping.set()

    def _events(self, is_alone: Callable[[], bool]) -> Iterator[bytes]:
        try:
            yield b""
            last, silent_since = b"", time.monotonic()
            while not self._stopping.wait(_QUICK_SECONDS if last else 0) and not is_alone():
                event = json.dumps(self.look(), ensure_ascii=False, separators=(",", ":")).encode()
                if event != last:
                    last, silent_since = event, time.monotonic()
                    yield b"data: " + event + b"\n\n"
                elif time.monotonic() - silent_since > _HEARTBEAT_SECONDS:
                    silent_since = time.monotonic()
                    yield b":\n\n"  # so that nothing in between takes the connection for dead
        finally:
            self._streams.release()

    def _look_quickly(self) -> dict[str, Any]:
        state = self._config.folders.state
        running = instance.is_running(state)
        told_live = live.read(state) if running else live.Live()
        try:
            notes = dict(self._reading.select("SELECT key, value FROM notes"))
            by_runs = warm_ups.engine_now(self._reading, running=running)
            ended = self._reading.select(_LATEST)
        except DropscaleError:
            notes, ended = {}, []
            by_runs = dict(_OFF)
        far = queue_note.read(notes) if running else None
        engine = engine_now(by_runs, recent.engine(notes, running=running), far)
        batch = None
        if told_live.pictures > 0 and notes.get("pid") == str(told_live.pid):
            batch = {
                "pictures": told_live.pictures,
                "ended": told_live.ended,
                "working": [{"path": work.path, "done": work.done, "total": work.total} for work in told_live.working],
            }
        return {
            "running": running,
            "engine": {key: engine[key] for key in ("state", "since", "until")},
            "batch": batch,
            "ended": ended,
        }

    def _look_thoroughly(self) -> dict[str, Any]:
        problem = ""
        try:
            report = collect(self._config)
        except DropscaleError as error:
            report, problem = {}, f"{error.message}; {error.remedy}"
        except OSError as error:
            report, problem = {}, told(error)
        lists: dict[str, Any] = {}
        for name in _LISTS:
            files = report.get(name, [])
            shown = [{"path": file["path"], "why": file["why"]} for file in files[:SHOWN]]
            lists[name] = {"count": len(files), "files": shown}
        notes = report.get("watcher", {})
        gpu = report.get("gpu", {"waiting": "", "alarm": ""})
        hooks = [trouble["told"] for trouble in report.get("hooks", [])]
        facts = {
            "problems": [problem] if problem else [*report["problems"], *filter(None, [gpu["alarm"]]), *hooks],
            "held": report.get("held"),
            "gpu_waiting": gpu["waiting"],
            "watching": notes.get("watching", ""),
            "backend": notes.get("backend", ""),
            "totals": report.get("totals", {"done": 0, "reused": 0, "failed": 0}),
        }
        if sum(lists[name]["count"] for name in _LISTS) > _MANY_FILES:
            del report
            memory.return_freed()
        return {**lists, **facts}
