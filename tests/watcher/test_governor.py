"""When engines may start, by hours and by what was spent."""

from datetime import datetime

import pytest
from local_time import at

from watcher.engine.governor import Governor, contradiction
from watcher.sections import Budget, Cost


def hold_until(governor: Governor, now: str) -> str | None:
    hold = governor.hold(at(now))
    return None if hold is None else datetime.fromtimestamp(hold.until).isoformat(" ", "minutes")


def of_hours(*only_between: str, quiet: tuple[str, ...] = ()) -> Governor:
    return Governor(Budget(only_between=only_between, quiet_hours=quiet), Cost(), lambda since, until: 0.0)


@pytest.mark.parametrize(
    ("governor", "now", "until"),
    [
        (of_hours(), "2026-11-23 12:00", None),
        (of_hours("23:00-07:00"), "2026-11-23 23:00", None),
        (of_hours("23:00-07:00"), "2026-11-24 06:59", None),
        (of_hours("23:00-07:00"), "2026-11-24 07:00", "2026-11-24 23:00"),
        (of_hours("23:00-07:00"), "2026-11-24 22:59", "2026-11-24 23:00"),
        (of_hours("01:00-02:00", "12:00-13:00"), "2026-11-24 02:30", "2026-11-24 12:00"),
        (of_hours("01:00-02:00", "12:00-13:00"), "2026-11-24 13:30", "2026-11-25 01:00"),
        (of_hours(quiet=("09:00-17:30",)), "2026-11-24 08:59", None),
        (of_hours(quiet=("09:00-17:30",)), "2026-11-24 09:00", "2026-11-24 17:30"),
        (of_hours(quiet=("22:00-06:00",)), "2026-12-31 23:00", "2027-01-01 06:00"),
        (of_hours("20:00-08:00", quiet=("20:00-21:00",)), "2026-11-24 12:00", "2026-11-24 21:00"),
        (of_hours("00:00-00:00"), "2026-11-24 12:00", None),
    ],
)
def test_hours(governor: Governor, now: str, until: str | None) -> None:
    assert hold_until(governor, now) == until


class Spending:
    """So much money, at 3600 an hour: one unit a second, from a time on."""

    def __init__(self, seconds: float, since: str) -> None:
        self._seconds, self._since = seconds, at(since)

    def __call__(self, since: float, until: float) -> float:
        begin = max(since, self._since)
        return max(min(until - begin, self._seconds - (begin - self._since)), 0.0)


def of_budget(spending: Spending, per_day: float = 0, per_month: float = 0, unit: str = "money") -> Governor:
    return Governor(Budget(unit=unit, per_day=per_day, per_month=per_month), Cost(per_hour=3600), spending)


@pytest.mark.parametrize(
    ("per_day", "per_month", "now", "until"),
    [
        (0, 0, "2026-11-23 12:00", None),
        (100, 0, "2026-11-23 12:00", "2026-11-24 00:00"),
        (101, 0, "2026-11-23 12:00", None),
        (100, 0, "2026-11-24 00:00", None),
        (0, 100, "2026-11-24 12:00", "2026-12-01 00:00"),
        (100, 100, "2026-11-23 12:00", "2026-12-01 00:00"),
        (0, 100, "2026-12-01 00:00", None),
    ],
)
def test_a_budget_that_is_used_up_holds_until_the_next(
    per_day: float, per_month: float, now: str, until: str | None
) -> None:
    spending = Spending(100, "2026-11-23 10:00")
    assert hold_until(of_budget(spending, per_day, per_month), now) == until


def test_a_budget_in_minutes_knows_no_price() -> None:
    spending = Spending(120, "2026-11-23 10:00")
    (use,) = of_budget(spending, per_day=4, unit="gpu_minutes").uses(at("2026-11-23 12:00"))
    assert (use.used, use.share, use.unit) == (2, 0.5, "GPU minutes")
    assert str(use) == "2.00 of this day's 4 GPU minutes"


def test_after_a_budget_the_hours_count_again() -> None:
    budget = Budget(per_day=1, only_between=("08:00-20:00",))
    governor = Governor(budget, Cost(per_hour=3600), Spending(1, "2026-11-23 10:00"))
    assert hold_until(governor, "2026-11-23 12:00") == "2026-11-24 08:00"


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("now", ["2026-03-29 00:30", "2026-03-29 01:59", "2026-10-25 01:30", "2026-10-25 02:10"])
def test_hours_that_the_clocks_leap_over_end_in_the_end(now: str) -> None:
    """On 29 March 2026 there is no 02:30, on 25 October there are two: asked again and again, it opens."""
    governor = of_hours("02:30-02:45", quiet=())
    moment = at(now)
    for _ in range(5):
        hold = governor.hold(moment)
        if hold is None:
            break
        assert hold.until > moment
        assert hold.until - moment <= 49 * 3600
        moment = hold.until
    assert governor.hold(moment) is None


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("governor", "now", "until"),
    [
        (of_hours(quiet=("22:00-02:30",)), "2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00"),
        (of_hours(quiet=("02:30-03:30",)), "2026-10-25 02:40+02:00", "2026-10-25 02:00+01:00"),
        (of_hours("02:30-04:00"), "2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00"),
    ],
)
def test_hours_end_at_the_minute_when_the_clocks_leap(governor: Governor, now: str, until: str) -> None:
    hold = governor.hold(at(now))
    assert hold is not None and hold.until == at(until)


def test_of_hours_and_budget_the_later_is_told() -> None:
    budget = Budget(per_day=1, quiet_hours=("12:00-13:00",))
    governor = Governor(budget, Cost(per_hour=3600), Spending(1, "2026-11-23 10:00"))
    assert hold_until(governor, "2026-11-23 12:30") == "2026-11-24 00:00"


def test_hours_that_leave_none_are_a_contradiction() -> None:
    assert not contradiction(Budget(only_between=("08:00-09:00",), quiet_hours=("08:00-08:59",)))
    both = Budget(only_between=("08:00-09:00",), quiet_hours=("07:00-10:00",))
    assert contradiction(both) == "budget.only_between and budget.quiet_hours"
    assert contradiction(Budget(quiet_hours=("09:00-09:00",))) == "budget.quiet_hours"


def test_a_day_may_end_at_24() -> None:
    assert not contradiction(Budget(only_between=("00:00-24:00",)))
    evening = Governor(Budget(quiet_hours=("22:00-24:00",)), Cost(), lambda since, until: 0.0)
    closed = [hour for hour in range(24) if evening.hold(at(f"2026-03-04T{hour:02}:30"))]
    assert closed == [22, 23]
