"""`on_event`: tell a command or a webhook what happens, without ever keeping the work waiting.

Each hook has a queue and a thread of its own, so that one that hangs delays no other. An event that finds the queue
full is dropped, counted and told.
"""

import os
import platform
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from watcher.errors import ConfigError
from watcher.files.names import Location
from watcher.journal import as_json, tell, warn
from watcher.operation.hook_calls import CallFailed, address_fault, place_of, program_fault, run_command, shown_program
from watcher.operation.hook_troubles import Tally
from watcher.sections import Hook

_MOST_WAITING = 1000  # events, for each hook
_FIRST_PAUSE_SECONDS = 1.0  # before the second attempt; each further one is twice as long
_LONGEST_PAUSE_SECONDS = 60.0
_DRAIN_SECONDS = 3.0  # at a stop
_ONCE_SECONDS = 60.0  # at the end of `once`, which nobody asked to stop
_LOOK_SECONDS = 0.1
_LAST_SECONDS = 2.0  # from giving up to the end of a command that was killed

# Events of the journal, and what users call them.
_EVENTS = {
    "watching": "started",
    "stopped": "stopped",
    "delivered": "done",
    "failed": "failed",
    "waiting": "waiting",
    "batch": "batch",
    "budget": "budget",
    "held": "budget",
    "released": "budget",
    "engine_trouble": "engine_trouble",
    "engine_unusable": "engine_trouble",
    "engine_lost": "engine_trouble",
    "not_on_the_gpu": "engine_trouble",
    "not_released": "engine_trouble",
    "paused": "inbox_gone",
    "armed": "inbox_back",
}

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def names(hooks: Sequence[Hook]) -> list[str]:
    """What they are called: by their places in the config, as two may have one program or one host."""
    return [f"on_event.{number} ({shown(hook)})" for number, hook in enumerate(hooks)]


def shown(hook: Hook) -> str:
    """No more of its address or command than may be shown."""
    return place_of(hook.url) if hook.url else os.path.basename(shown_program(hook.command[0]))


def faults(hooks: Sequence[Hook]) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Of each hook its key, and why it cannot be called and what to do, or None."""
    for number, hook in enumerate(hooks):
        yield f"on_event.{number}", program_fault(hook.command[0]) if hook.command else address_fault(hook.url)


def headers_of(hook: Hook, environ: Mapping[str, str]) -> dict[str, str]:
    """Its headers, with the environment's variables in place of `${NAME}`.

    Raises:
        ConfigError: a variable is not set, or its value is nothing for a header.
    """

    def value(found: re.Match[str]) -> str:
        text = environ.get(found[1])
        if not text or not (text.isascii() and text.isprintable()):
            problem = "is not set" if not text else "holds more than printable ASCII"
            raise ConfigError(
                f"on_event: the environment variable {found[1]}, which a header names, {problem}",
                "set it for the watcher, or correct on_event",
            )
        return text

    return {name: _VARIABLE.sub(value, text) for name, text in hook.headers.items()}


def payload(event: str, text: str, fields: Mapping[str, Any]) -> bytes:
    """What a hook is told: one JSON object, and the end of a line.

    Args:
        event: as users call it.
        text: of the journal, a format string over `fields`.
        fields: of the journal's event; they go along. Where a file lies is told as a path and as a URI.
    """
    told: dict[str, Any] = {
        "event": event,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": platform.node(),
        "message": text.format(**fields),
    }
    for key, value in fields.items():
        if isinstance(value, Location):
            told[key] = value.text
            told[key.removesuffix("_path") + "_uri"] = value.uri
        else:
            told[key] = value
    return as_json(told) + b"\n"


class Hooks:
    """All hooks of a config, at work until `close`."""

    def __init__(self, hooks: Sequence[Hook], environ: Mapping[str, str], tally: Tally) -> None:
        """Start a thread for each.

        Args:
            hooks: those of the config.
            environ: for their headers.
            tally: hears what becomes of events, by `names`.

        Raises:
            ConfigError: as `headers_of`.
        """
        headers = [headers_of(hook, environ) for hook in hooks]
        self._lines = [_Line(*each, tally) for each in zip(names(hooks), hooks, headers, strict=True)]

    def hear(self, event: str, text: str, fields: Mapping[str, Any]) -> None:
        """An event of the journal, on any thread; returns at once."""
        name = _EVENTS.get(event)
        lines = [line for line in self._lines if name in line.hook.events]
        if name is not None and lines:
            told = payload(name, text, fields)
            for line in lines:
                line.put(name, told)

    def drain(self, stopping: Callable[[], bool]) -> None:
        """Wait until all is delivered, for no longer than _ONCE_SECONDS and not when `stopping`."""
        until = time.monotonic() + _ONCE_SECONDS
        while any(line.is_behind() for line in self._lines) and time.monotonic() < until and not stopping():
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Give what waits a few seconds, one attempt each, then give up and say how much was not delivered."""
        until = time.monotonic() + _DRAIN_SECONDS
        for line in self._lines:
            line.begin_to_close(until)
        for line in self._lines:
            line.close()


class _Line:
    """The queue and the thread of one hook."""

    def __init__(self, name: str, hook: Hook, headers: Mapping[str, str], tally: Tally) -> None:
        self.name = name
        self._tally = tally
        self.hook = hook
        self._headers = headers
        # without a limit of its own, so that the end always finds its place
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._dropped = 0
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._lock = threading.Lock()
        self._undelivered = 0  # what waits or is under way
        self._thread = threading.Thread(target=self._work, name="hook", daemon=True)
        self._thread.start()

    def put(self, event: str, told: bytes) -> None:
        """Let it wait for its turn, if there is room."""
        with self._lock:
            full = self._undelivered >= _MOST_WAITING
            first = full and not self._dropped
            self._dropped += full
            self._undelivered += not full
        if not full:
            self._waiting.put((event, told))
        elif first:
            text = "{hook} is behind by {count} events: further ones are dropped until it has caught up"
            warn("hook_full", text, hook=self.name, count=_MOST_WAITING)

    def is_behind(self) -> bool:
        """Whether something waits or is under way."""
        with self._lock:
            return self._undelivered > 0

    def begin_to_close(self, until: float) -> None:
        """No pauses and no second attempts any more; from `until` (monotonic seconds) on, nothing."""
        self._give_up_at = until
        self._closing.set()
        self._waiting.put(None)

    def close(self) -> None:
        """Wait for the end, and say how many events were not delivered."""
        self._thread.join(max(self._give_up_at - time.monotonic(), 0) + _LAST_SECONDS)
        with self._lock:
            left = self._undelivered + self._dropped
        if left:
            problem = "not delivered before the stop"
            warn("hook_given_up", f"{{hook}}: {{count}} events were {problem}", hook=self.name, count=left)
            self._tally.dropped(self.name, left, problem)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            event, told = item
            if time.monotonic() >= self._give_up_at:
                return
            self._deliver(event, told)
            with self._lock:
                self._undelivered -= 1
                caught_up = self._dropped if not self._undelivered else 0
                self._dropped -= caught_up
            if caught_up:
                warn("hook_dropped", "{hook}: {count} events were dropped", hook=self.name, count=caught_up)
                self._tally.dropped(self.name, caught_up, "it was behind by too many")

    def _deliver(self, event: str, told: bytes) -> None:
        for attempt in range(1, self.hook.attempts + 1):
            try:
                self._call(told)
                self._tally.delivered(self.name)
                return
            except Exception as error:  # whatever it is, the next event has to find this thread alive
                unknown = CallFailed(f"{type(error).__name__}: {error}")
                problem = error if isinstance(error, CallFailed) else unknown
                text = "{hook} failed on {what}: {problem}"
                if attempt == self.hook.attempts or self._closing.is_set():
                    given_up = time.monotonic() >= self._give_up_at
                    why = "was given up, as the watcher stops or has other hooks" if given_up else str(problem)
                    warn("hook_failed", text, hook=self.name, what=event, problem=why, attempts=attempt)
                    self._tally.failed(self.name, event, why)
                    return
                pause = max(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), problem.asked_seconds)
                pause = min(pause, _LONGEST_PAUSE_SECONDS)
                tell(
                    "hook_retried",
                    text + "; again in {pause:g} s",
                    hook=self.name,
                    what=event,
                    problem=str(problem),
                    pause=pause,
                )
                self._closing.wait(pause)

    def _call(self, told: bytes) -> None:
        until = time.monotonic() + self.hook.timeout_seconds
        if self.hook.command:
            run_command(self.hook.command, told, lambda: min(until, self._give_up_at))
        else:
            from watcher.operation.webhook import post  # noqa: PLC0415 - keep the watcher itself small

            left = min(until, self._give_up_at) - time.monotonic()
            post(self.hook.url, self._headers, told, max(left, 0.1))
