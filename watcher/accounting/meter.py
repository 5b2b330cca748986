"""How long an engine held its device, and what it did meanwhile. Pure: events and times come in."""

from dataclasses import dataclass, field

from sr_engine import protocol


@dataclass
class Meter:
    """The meter of one engine process. Times named `_at` are Unix time, the others monotonic seconds.

    Attributes:
        spawned_at: when the process was started.
        started: the same on the monotonic clock.
        held_from_at: when it first could hold its device: at the start of its own code, before any library.
        spawn_seconds: until the first line of its own code.
        load_seconds: from there until it was ready.
        compute_seconds: with a picture in work.
        exit_seconds: from its last word to the end of the process.
        ended_at: when it was reaped.
    """

    spawned_at: float
    started: float
    held_from_at: float = 0.0
    spawn_seconds: float = 0.0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0
    exit_seconds: float = 0.0
    ended_at: float = 0.0
    _in_work: set[int] = field(default_factory=set)
    _busy_since: float = 0.0
    _last_word: float | None = None

    def __post_init__(self) -> None:
        self.held_from_at = self.spawned_at

    def heard(self, event: protocol.AnyEvent, arrived: float) -> None:
        """Something that the engine told, and when it arrived."""
        if isinstance(event, protocol.Ready):
            since_spawn = arrived - self.started
            if event.started_at:  # the engine's own clock: it may have been set meanwhile
                self.spawn_seconds = min(max(event.started_at - self.spawned_at, 0.0), since_spawn)
            self.load_seconds = since_spawn - self.spawn_seconds
            self.held_from_at = self.spawned_at + self.spawn_seconds
        elif isinstance(event, protocol.Bye):
            self._last_word = arrived
        elif isinstance(event, protocol.Started):
            if not self._in_work:
                self._busy_since = arrived
            self._in_work.add(event.id)
        elif isinstance(event, protocol.Done | protocol.Failed) and event.id in self._in_work:
            self._in_work.discard(event.id)
            if not self._in_work:
                self.compute_seconds += arrived - self._busy_since

    def ended(self, now: float) -> None:
        """The process was reaped, `now` on the monotonic clock; what was in work then was work."""
        if self._in_work:
            self.compute_seconds += now - self._busy_since
            self._in_work.clear()
        self.exit_seconds = now - self._last_word if self._last_word is not None else 0.0
        # by the monotonic clock: the other one may have been set meanwhile
        self.ended_at = self.spawned_at + now - self.started

    @property
    def idle_seconds(self) -> float:
        """What is left: neither starting, nor working, nor ending."""
        rest = self.spawn_seconds + self.load_seconds + self.compute_seconds + self.exit_seconds
        return max(self.ended_at - self.spawned_at - rest, 0.0)
