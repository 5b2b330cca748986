"""The governor: whether an engine may start now, by the budget and by the hours that the config allows.

Pure but for what was spent, which the ledger knows. Days and months are those of the local calendar, as in the report.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from watcher.sections import Budget, Cost

WARN_SHARE = 0.8  # of a budget

_LOOK_AHEAD_SECONDS = 2 * 86_400.0  # hours repeat daily, and a change of the clocks may swallow them once

Spent = Callable[[float, float], float]  # seconds that billed devices were held from one Unix time to another


class Hold(NamedTuple):
    """Engines may not start.

    Attributes:
        kind: "budget" or "hours".
        reason: for people.
        until: Unix time at which to ask again.
    """

    kind: str
    reason: str
    until: float


class Use(NamedTuple):
    """How much of a budget is used, in its unit.

    Attributes:
        name: "day" or "month".
        used, limit: in the unit of the budget.
        unit: for people: "CNY", or "GPU minutes".
        until: Unix time at which the next begins.
    """

    name: str
    used: float
    limit: float
    unit: str
    until: float

    @property
    def share(self) -> float:
        """1 and more: it is used up."""
        return self.used / self.limit

    def __str__(self) -> str:
        return f"{self.used:.2f} of this {self.name}'s {self.limit:g} {self.unit}"


class Governor:
    """Asked before each engine that is started for ordinary pictures."""

    def __init__(self, budget: Budget, cost: Cost, spent: Spent) -> None:
        self._budget = budget
        self._cost = cost
        self._spent = spent
        self._only_between = [_range(text) for text in budget.only_between]
        self._quiet = [_range(text) for text in budget.quiet_hours]

    def hold(self, now: float, uses: Sequence[Use] | None = None) -> Hold | None:
        """Why no engine may start; None: it may.

        Args:
            now: Unix time.
            uses: what `uses` told, of that time or a little before.
        """
        holds = [
            Hold("budget", f"the budget is used up: {use}", self._opens_at(use.until))
            for use in (self.uses(now) if uses is None else uses)
            if use.share >= 1 and use.until > now
        ]
        if key := self._closed_by(datetime.fromtimestamp(now).time()):
            holds.append(Hold("hours", f"engines do not start in these hours (budget.{key})", self._opens_at(now)))
        return max(holds, key=lambda hold: hold.until, default=None)

    def uses(self, now: float) -> list[Use]:
        """How much of each budget that is set was used by `now` (Unix time)."""
        today = datetime.fromtimestamp(now).date()
        first = today.replace(day=1)
        periods = [
            ("day", self._budget.per_day, today, today + timedelta(days=1)),
            ("month", self._budget.per_month, first, (first + timedelta(days=31)).replace(day=1)),
        ]
        return [
            Use(name, self._in_unit(self._spent(_begin(since), now)), limit, self._unit, _begin(until))
            for name, limit, since, until in periods
            if limit
        ]

    @property
    def _unit(self) -> str:
        return self._cost.currency if self._budget.unit == "money" else "GPU minutes"

    def _in_unit(self, seconds: float) -> float:
        return seconds / 3600 * self._cost.per_hour if self._budget.unit == "money" else seconds / 60

    def _is_open(self, now: float) -> bool:
        return not self._closed_by(datetime.fromtimestamp(now).time())

    def _closed_by(self, clock: time) -> str:
        """Which key of the config lets no engine start at this time of the day; empty: none."""
        if any(_contains(hours, clock) for hours in self._quiet):
            return "quiet_hours"
        is_allowed = not self._only_between or any(_contains(hours, clock) for hours in self._only_between)
        return "" if is_allowed else "only_between"

    def _opens_at(self, now: float) -> float:
        """The first time from `now` on in open hours; if there is none, when to look again.

        Minute by minute, for clocks leap twice a year, over the ends of hours too.
        """
        if self._is_open(now):
            return now
        minute = (now // 60 + 1) * 60
        return next((at for at in _minutes(minute, _LOOK_AHEAD_SECONDS) if self._is_open(at)), minute)


def contradiction(budget: Budget) -> str:
    """Which keys of the budget leave no time of the day at all; empty if there is some."""
    governor = Governor(budget, Cost(), lambda since, until: 0.0)
    closed = {governor._closed_by(time(minute // 60, minute % 60)) for minute in range(24 * 60)}
    return "" if "" in closed else " and ".join(f"budget.{key}" for key in sorted(closed))


_Hours = tuple[time, time]


def _range(text: str) -> _Hours:
    begin, end = (time.fromisoformat(part.replace("24:", "00:")) for part in text.split("-"))
    return begin, end


def _contains(hours: _Hours, clock: time) -> bool:
    """From the first to before the second; over midnight if that is earlier, the whole day if it is the same."""
    begin, end = hours
    if begin < end:
        return begin <= clock < end
    return clock >= begin or clock < end


def _minutes(since: float, seconds: float) -> Iterator[float]:
    return (since + 60 * number for number in range(int(seconds // 60)))


def _begin(day: date) -> float:
    return datetime.combine(day, time()).timestamp()
