"""How long an engine may be quiet before it counts as hung: pure, the times are passed in.

It works on several pictures at a time, and each may have to wait for its turn behind others. So there is one clock,
and whatever moves any picture starts it again: a picture begun or ended, a tile more. Of these there are only so many;
mere chatter does not keep a hung engine alive.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sr_engine import protocol
from watcher.sections import Engine

# Of the networks that come along the heaviest: for what is heavier than that, pixels get more time in proportion.
_USUAL_MFLOP = 2.5


@dataclass
class _Work:
    megapixels: float = 0.0
    is_read: bool = False
    tiles: int = 0
    total: int = 0


class Patience:
    """The clock of one batch in an engine process; times are those of the monotonic clock."""

    def __init__(
        self, settings: Engine, pictures: Iterable[int], now: float, ready: protocol.Ready | None = None
    ) -> None:
        """Start the clock.

        Args:
            settings: how long things may take.
            pictures: ids of those that the engine was asked for.
            now: the time.
            ready: what it said when it was; None: it is not ready yet.
        """
        self._settings = settings
        self._unanswered = set(pictures)
        self._in_work: dict[int, _Work] = {}
        self._ready = False
        self._heaviness = 1.0
        self._moved_at = now
        if ready is not None:
            self._moves(ready)

    @property
    def in_work(self) -> set[int]:
        """Ids of the pictures that were begun and have not ended."""
        return set(self._in_work)

    @property
    def until(self) -> float:
        """When the engine counts as hung, unless something moves before: the largest picture in work sets the time."""
        if not self._ready:
            return self._moved_at + self._settings.start_seconds
        megapixels = max((work.megapixels for work in self._in_work.values()), default=0.0)
        per_megapixel = self._settings.deadline_seconds_per_megapixel * self._heaviness
        allowed = self._settings.deadline_seconds + per_megapixel * megapixels
        return self._moved_at + allowed

    @property
    def is_reading(self) -> bool:
        """Whether all it does is to read pictures: a slow share is not their fault."""
        return bool(self._in_work) and not any(work.is_read for work in self._in_work.values())

    def heard(self, event: protocol.AnyEvent, arrived: float) -> bool:
        """Note what the engine told at the time `arrived`; whether anything moved."""
        moved = self._moves(event)
        if moved:
            self._moved_at = arrived
        return moved

    def _moves(self, event: protocol.AnyEvent) -> bool:
        if isinstance(event, protocol.Ready):
            first, self._ready = not self._ready, True
            self._heaviness = max(event.mflop_per_pixel / _USUAL_MFLOP, 1.0)
            return first
        if isinstance(event, protocol.Bye) or event.id not in self._unanswered:
            return False
        if isinstance(event, protocol.Done | protocol.Failed):
            self._unanswered.discard(event.id)
            self._in_work.pop(event.id, None)
            return True
        work = self._in_work.get(event.id)
        if isinstance(event, protocol.Started):
            return self._begins(event, work)
        if work is None:
            return False
        work.total = work.total or event.total  # the first word counts, or it would never end
        more = work.tiles < event.done <= work.total
        work.tiles = event.done if more else work.tiles
        return more

    def _begins(self, event: protocol.Started, work: _Work | None) -> bool:
        """Told twice of each picture, the second time with its sides."""
        if work is not None and (work.is_read or not event.width):
            return False
        self._in_work[event.id] = _Work(event.width * event.height / 1e6, is_read=bool(event.width))
        return True
