"""What a month's engines cost, by the day, and when they were on: the ledger's accounts as figures to draw."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from watcher.accounting.accounts import Pictures, seen_from_outside
from watcher.accounting.bill import Bill, EngineRun, Period, Price, bill, month
from watcher.engine.gate import governor_of
from watcher.engine.governor import Use
from watcher.sections import Config
from webpage.reading import Reading

STRIP_SECONDS = 120  # one part of a strip: two minutes, 720 in a day
STRIP_DAYS = 14
_LEAST_PARTS = 1
_QUARTER_SECONDS = 900


@dataclass(frozen=True)
class Strip:
    """When engines were on, on one day.

    Attributes:
        date: ISO 8601.
        on_seconds: together; two at a time count once.
        starts: that began on this day.
        parts: from and to by the clock on the wall, as parts of STRIP_SECONDS since midnight, in order, none touching
            the next. Where clocks are put back an hour, both hours are in one place.
    """

    date: str
    on_seconds: float
    starts: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Statement:
    """A month: its bill, its pictures, and the strips of its latest days."""

    bill: Bill
    pictures: Pictures
    strips: list[Strip]
    budgets: Sequence[Use]
    previous: str
    following: str


def statement(reading: Reading, config: Config, month_: str = "", now: float | None = None) -> Statement:
    """The month's account.

    Args:
        reading: the ledger.
        config: the price, and the budgets.
        month_: "2026-11"; empty: this one.
        now: Unix time.

    Raises:
        ValueError: it is no month.
        LedgerError: the ledger cannot be read.
    """
    now, cost = time.time() if now is None else now, config.cost
    period = month(month_, now)
    accounts = seen_from_outside(reading, config.folders.state)
    runs = list(accounts.engine_runs(period.since, min(period.until, now), now))
    pictures = accounts.pictures(period.since, period.until) if reading.is_there else Pictures(0, 0, 0, 0)
    begin = accounts.begin()
    summed = bill(period, Price(cost.per_hour, cost.currency), runs, now if begin is None else begin)
    first = datetime.fromtimestamp(period.since)
    budgets = governor_of(config, accounts).uses(min(now, period.until - 1)) if reading.is_there else []
    following = "" if period.until > now else f"{datetime.fromtimestamp(period.until):%Y-%m}"
    return Statement(
        summed,
        pictures,
        strips(runs, period),
        # the last day of a month that is over says nothing of the others
        [use for use in budgets if use.name == "month" or not following],
        f"{first - timedelta(days=1):%Y-%m}",
        following,
    )


def strips(runs: Iterable[EngineRun], period: Period) -> list[Strip]:
    """A strip for each of the latest days of a period, the newest first."""
    spans = sorted((run.held_from, run.ended_at) for run in runs)
    days = list(period.days())[-STRIP_DAYS:]
    return [_strip(date, since, spans) for date, since, _ in reversed(days)]


def _strip(date: str, since: float, spans: list[tuple[float, float]]) -> Strip:
    midnight = datetime.fromisoformat(date)
    until = (midnight + timedelta(days=1)).timestamp()
    is_usual = until - since == 86_400
    on_seconds, covered = 0.0, since
    parts: list[tuple[int, int]] = []
    starts = 0
    for begin, end in spans:
        if end <= since or begin >= until:
            continue
        starts += begin >= since
        first, last = max(begin, since), min(end, until)
        on_seconds += max(last - max(first, covered), 0.0)
        covered = max(covered, last)
        for piece, seconds in [(first, last - first)] if is_usual else _pieces(first, last):
            shown = (datetime.fromtimestamp(piece) - midnight).total_seconds()
            left = int(shown // STRIP_SECONDS)
            parts.append((left, max(int(-(-(shown + seconds) // STRIP_SECONDS)), left + _LEAST_PARTS)))
    return Strip(date, on_seconds, starts, _joined(parts))


def _pieces(first: float, last: float) -> Iterator[tuple[float, float]]:
    """Begin and length of parts within which no clock is changed: that happens at a quarter of an hour everywhere."""
    while first < last:
        following = min((first // _QUARTER_SECONDS + 1) * _QUARTER_SECONDS, last)
        yield first, following - first
        first = following


def _joined(parts: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for left, right in sorted(parts):
        if joined and left <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], right)
        else:
            joined.append((left, right))
    return tuple(joined)


CHART = (720, 160)  # units of the SVG


def figures(told: Statement) -> dict[str, object]:
    """What the page of the bill draws and tells beside the statement itself.

    Returns:
        is_billed: whether anything was held that is paid for; else minutes are those of CPUs.
        seconds, always_on_seconds: held, and of the period so far.
        bars: date, minutes, and x, y, width, height in units of CHART.
        longest: minutes of the longest day.
        wide: parts of a whole strip.
    """
    summed = told.bill
    is_billed = summed.is_billed
    held = [(day.date, (day.gpu_seconds if is_billed else day.cpu_seconds) / 60) for day in summed.days]
    longest = max((minutes for _, minutes in held), default=0.0)
    width, height = CHART
    step = width / max(len(held), 1)
    bars = []
    for number, (date, minutes) in enumerate(held):
        tall = minutes / longest * height if longest else 0.0
        tall = max(tall, 2.0) if minutes else 0.0
        bars.append(
            (date, minutes, round(number * step, 1), round(height - tall, 1), round(step * 0.7, 1), round(tall, 1))
        )
    return {
        "is_billed": is_billed,
        "seconds": summed.gpu_seconds if is_billed else summed.cpu_seconds,
        "bars": bars,
        "longest": longest,
        "chart": CHART,
        "wide": 86_400 // STRIP_SECONDS,
        "month": datetime.fromtimestamp(summed.period.since).strftime("%Y-%m"),
    }
