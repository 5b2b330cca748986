"""When an engine is to be warm by the clock: cron expressions, each with how long. Pure: the time is passed in.

A state, not a list of alarms: a watcher that starts in the midst of such a time, or whose machine slept over its
beginning, finds itself in it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from watcher.sections import WarmTime


class Span(NamedTuple):
    """From `since` to `until`, Unix time."""

    since: float
    until: float


class LocalZone(tzinfo):
    """The zone of this machine with all its changes of clocks, by the C library, as cron has it."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """What the C library says; of an hour that comes twice, `fold` tells which."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Not told apart: nobody here asks."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """Not told apart: nobody here asks."""
        return None

    def fromutc(self, moment: datetime) -> datetime:
        """The local time of a moment that is given in UTC."""
        return datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


class Schedule:
    """The times of a config."""

    def __init__(self, times: Sequence[WarmTime]) -> None:
        """Take times whose expressions `problem` found sound."""
        self._times = times
        self._zone = LocalZone()
        self._known = (0.0, 0.0)  # between these, what was found last holds
        self._current: Span | None = None
        self._next_start: float | None = None

    def current(self, now: float) -> Span | None:
        """The time that is on, `now` in Unix time: of several the one that ends last."""
        self._look(now)
        return self._current

    def next_start(self, now: float) -> float | None:
        """When the next one begins, Unix time; None: never."""
        self._look(now)
        return self._next_start

    def _look(self, now: float) -> None:
        # asked at each turn of the loop; and the clock may be set back
        if self._known[0] <= now < self._known[1]:
            return
        spans: list[Span] = []
        starts: list[float] = []
        for time in self._times:
            # from where one that is still on could have begun; not backwards, as some hours come twice
            dates = CronSim(time.at, datetime.fromtimestamp(now - time.for_seconds, self._zone))
            for date in dates:
                start = date.timestamp()
                if start > now:
                    starts.append(start)
                    break
                if start + time.for_seconds > now:
                    spans.append(Span(start, start + time.for_seconds))
        self._current = max(spans, key=lambda span: span.until, default=None)
        self._next_start = min(starts, default=None)
        changes = starts + ([self._current.until] if self._current else [])
        self._known = (now, min(changes, default=now + 86_400.0))


def problem(expression: str) -> str:
    """What is wrong with a cron expression; empty if nothing is."""
    if len(expression.split()) != 5:
        return "five fields are needed: minute, hour, day of month, month, day of week"
    try:
        next(CronSim(expression, datetime(2024, 1, 1)))
    except CronSimError as error:
        return str(error).lower()
    except StopIteration:
        return "there is no such day"
    return ""
