"""When the engine is to be warm by the clock."""

from datetime import datetime

import pytest
from local_time import at

from watcher.engine.schedule import LocalZone, Schedule, problem
from watcher.sections import WarmTime

pytestmark = pytest.mark.usefixtures("berlin")
WORKDAYS = WarmTime("50 8 * * 1-5", 4200)


def told(schedule: Schedule, now: str) -> tuple[float, float] | None:
    """Since when and until when, in hours of the local clock from midnight of that day."""
    span = schedule.current(at(now))
    midnight = at(now[:10])
    return None if span is None else ((span.since - midnight) / 3600, (span.until - midnight) / 3600)


def test_it_is_on_from_its_time_until_its_end() -> None:
    schedule = Schedule([WORKDAYS])
    monday = "2026-11-23"
    for clock, expected in [
        ("08:49:59", None),
        ("08:50:00", (8 + 5 / 6, 10)),
        ("09:59:59", (8 + 5 / 6, 10)),
        ("10:00:00", None),
        ("08:55:00", (8 + 5 / 6, 10)),  # the clock was set back
    ]:
        assert told(schedule, f"{monday}T{clock}") == (pytest.approx(expected) if expected else None), clock


@pytest.mark.parametrize(
    ("now", "start"),
    [
        ("2026-11-20T08:49:00", "2026-11-20T08:50"),
        ("2026-11-20T08:50:00", "2026-11-23T08:50"),
        ("2026-11-21T12:00:00", "2026-11-23T08:50"),
    ],
)
def test_when_the_next_one_begins(now: str, start: str) -> None:
    assert Schedule([WORKDAYS]).next_start(at(now)) == at(start)


def test_of_several_the_one_that_ends_last_counts() -> None:
    schedule = Schedule([WarmTime("0 8 * * *", 3600), WarmTime("30 8 * * *", 3600), WarmTime("45 8 * * *", 60)])
    assert told(schedule, "2026-11-23T08:10") == (8, 9)
    assert told(schedule, "2026-11-23T08:45:30") == (8.5, 9.5)
    assert schedule.next_start(at("2026-11-23T08:10")) == at("2026-11-23T08:30")


def test_one_that_began_yesterday_is_on() -> None:
    assert told(Schedule([WarmTime("0 23 * * *", 7200)]), "2026-11-23T00:30") == (-1, 1)


def test_each_minute_again() -> None:
    schedule = Schedule([WarmTime("* * * * *", 120)])
    for second in range(0, 180, 7):
        now = at("2026-11-23T08:00") + second
        span = schedule.current(now)
        assert span is not None and span.since <= now < span.since + 60 and span.until == span.since + 120


def test_the_same_time_of_day_before_and_after_clocks_change() -> None:
    """In the night to 2026-03-29 an hour is left out, in that to 2026-10-25 one comes twice."""
    schedule = Schedule([WarmTime("50 8 * * *", 600)])
    for day in ("2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25"):
        assert schedule.current(at(f"{day}T08:55")) == (at(f"{day}T08:50"), at(f"{day}T09:00"))


def test_a_time_that_is_left_out_comes_late_and_one_that_comes_twice_is_taken_once() -> None:
    schedule = Schedule([WarmTime("30 2 * * *", 600)])
    assert schedule.next_start(at("2026-03-29T01:00")) == at("2026-03-29T03:00")
    first, second = at("2026-10-25T02:30"), datetime(2026, 10, 25, 2, 30, fold=1).timestamp()
    assert second - first == 3600
    starts = []
    now = at("2026-10-25T00:00")
    while (start := schedule.next_start(now)) is not None and start < at("2026-10-26"):
        starts.append(start)
        now = start
    assert starts == [first]
    assert schedule.current(first + 60) == (first, first + 600) and schedule.current(second + 60) is None


def test_one_that_is_on_over_the_change_lasts_as_long_as_it_was_told() -> None:
    schedule = Schedule([WarmTime("30 1 * * *", 7200)])
    for day in ("2026-03-29", "2026-10-25"):
        start = at(f"{day}T01:30")
        on = [second for second in range(-300, 10_800, 300) if schedule.current(start + second) is not None]
        assert (on[0], on[-1]) == (0, 6900)


def test_the_local_zone_is_that_of_the_c_library() -> None:
    zone = LocalZone()
    for text in ("2026-01-01", "2026-03-29T03:30", "2026-07-01T12:00", "2026-10-25T02:30", "2026-10-25T03:30"):
        moment = at(text)
        assert datetime.fromtimestamp(moment, zone).timestamp() == moment
    twice = datetime(2026, 10, 25, 2, 30, fold=1).timestamp()
    assert datetime.fromtimestamp(twice, zone).timestamp() == twice


@pytest.mark.parametrize("text", ["0 8 * * *", "*/5 8-10 1,15 * mon-fri", "0 0 29 2 *", "0 8 * * 1#2", "0 8 L * *"])
def test_what_is_understood(text: str) -> None:
    assert problem(text) == ""


@pytest.mark.parametrize(
    "text", ["", "8:50", "@daily", "0 8 * *", "0 0 8 * * *", "60 * * * *", "0 8 31 2 *", "0 8 * * x"]
)
def test_what_is_refused(text: str) -> None:
    assert problem(text)
