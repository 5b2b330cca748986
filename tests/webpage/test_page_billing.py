"""The bill as it is drawn: strips of days, bars, and a whole month's page."""

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from visits import Page, Visitor, fill

from watcher.accounting.bill import EngineRun, Period, Price, month
from watcher.sections import Budget, Config, Cost
from webpage import billing
from webpage.billing import Statement, strips
from webpage.reading import Reading

BUDGET = Budget(per_day=1.5, per_month=40)
MIDNIGHT = datetime(2025, 6, 10).timestamp()


def run(begin: float, end: float, device: str = "cuda:0") -> EngineRun:
    return EngineRun("host", device, MIDNIGHT + begin, MIDNIGHT + end, 1.0, 1.0, 1, None)


def strip_of(*runs: EngineRun, days: int = 1) -> billing.Strip:
    until = (datetime(2025, 6, 10) + timedelta(days=days)).timestamp()
    return strips(runs, Period(MIDNIGHT, until, until))[-1]


def test_a_run_is_drawn_where_it_was() -> None:
    strip = strip_of(run(6 * 3600, 6.5 * 3600))
    assert strip == billing.Strip("2025-06-10", 1800, 1, ((180, 195),))


def test_a_short_run_can_be_seen_and_close_ones_become_one() -> None:
    assert strip_of(run(10, 11)).parts == ((0, 1),)
    assert strip_of(run(0, 60), run(130, 200), run(7200, 7201)).parts == ((0, 2), (60, 61))
    assert strip_of(*(run(n * 60, n * 60 + 5) for n in range(1440))).parts == ((0, 720),)


def test_two_at_a_time_count_once() -> None:
    strip = strip_of(run(0, 600), run(300, 900, "cuda:1"), run(400, 500))
    assert (strip.on_seconds, strip.starts, strip.parts) == (900, 3, ((0, 8),))


def test_a_run_over_midnight_is_on_both_days() -> None:
    over = run(86_400 - 600, 86_400 + 1200)
    until = (datetime(2025, 6, 10) + timedelta(days=2)).timestamp()
    later, earlier = strips([over], Period(MIDNIGHT, until, until))
    assert (earlier.on_seconds, earlier.starts, earlier.parts) == (600, 1, ((715, 720),))
    assert (later.on_seconds, later.starts, later.parts) == (1200, 0, ((0, 10),))


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
@pytest.mark.parametrize(
    ("day", "hours"),
    [((2025, 3, 30), 23), ((2025, 10, 26), 25), ((2025, 6, 10), 24)],
    ids=["clocks put forward", "clocks put back", "usual"],
)
def test_a_run_is_drawn_at_the_hour_that_the_clock_showed(
    in_berlin: None, day: tuple[int, int, int], hours: int
) -> None:
    midnight = datetime(*day)
    until = (midnight + timedelta(days=1)).timestamp()
    assert until - midnight.timestamp() == hours * 3600
    period = Period(midnight.timestamp(), until, until)

    def drawn(*spans: tuple[float, float]) -> billing.Strip:
        (strip,) = strips([EngineRun("h", "cuda:0", begin, end, 1, 1, 1, None) for begin, end in spans], period)
        return strip

    evening = midnight.replace(hour=23).timestamp()
    assert drawn((evening, evening + 3600)).parts == ((690, 720),)
    whole = drawn((midnight.timestamp(), until))
    assert whole.on_seconds == hours * 3600
    assert whole.parts == (((0, 60), (90, 720)) if hours == 23 else ((0, 720),))
    over = (midnight.timestamp() + 1.5 * 3600, midnight.timestamp() + 3.5 * 3600)
    assert drawn(over).parts == {23: ((45, 60), (90, 135)), 24: ((45, 105),), 25: ((45, 90),)}[hours]


def test_only_the_latest_days_have_strips() -> None:
    period = month("2025-06", datetime(2025, 6, 25, 12).timestamp())
    assert [strip.date for strip in strips([], period)] == [f"2025-06-{day:02}" for day in range(25, 11, -1)]


@pytest.fixture
def billed(page: Page) -> Page:
    """A month of a GPU at work for ten minutes a day."""
    fill(page.site, done=5)
    with contextlib.closing(sqlite3.connect(page.site.state / "ledger.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO engine_runs (pid, spawned_at, held_from, exited_at, model, device, host, done, load_seconds,"
            " compute_seconds, exit_seconds, spawn_seconds)"
            " VALUES (1, ?1, ?1, ?2, 'm', 'cuda:0', 'h', 3, 2, 590, 1, 1)",
            [(MIDNIGHT + day * 86_400, MIDNIGHT + day * 86_400 + 600) for day in range(-9, 21)],
        )
    return page


def statement(page: Page) -> Statement:
    return billing.statement(
        Reading(str(page.site.state)), Config(cost=Cost(per_hour=6.0, currency="EUR"), budget=BUDGET), "2025-06"
    )


def test_a_month_that_is_over_has_its_own_budget_only(billed: Page) -> None:
    (use,) = statement(billed).budgets
    assert (use.name, use.limit, use.unit) == ("month", 40, "EUR")
    assert use.used == pytest.approx(30.0, rel=0.01)


def test_a_month_adds_up(billed: Page) -> None:
    told = statement(billed)
    assert told.bill.gpu_seconds == 30 * 600
    assert told.bill.price == Price(6.0, "EUR")
    assert told.bill.cost == pytest.approx(30.0)
    assert told.bill.always_on_cost == pytest.approx(30 * 24 * 6.0)
    assert (told.previous, told.following) == ("2025-05", "2025-07")
    figures = billing.figures(told)
    assert figures["is_billed"]
    assert figures["longest"] == 10.0
    bars = figures["bars"]
    assert isinstance(bars, list) and len(bars) == 30
    assert all(x >= 0 and x + width <= 720 and y >= 0 and y + tall == 160 for _, _, x, y, width, tall in bars)


def test_the_page_of_a_month_shows_it(billed: Page) -> None:
    billed.site.configure(cost={"per_hour": 6.0, "currency": "EUR"}, budget={"per_day": 1.5, "per_month": 40})
    text = Page(billed.site).visitor().get("/bill?month=2025-06").text
    for shown in ("€30.00", "€4,320.00", "99.3 %", "€6.00 an hour", "300.0 min of GPU", "30.00 of 40 EUR"):
        assert shown in text, shown
    assert text.count('class="on"') == 14
    assert "Forecast" not in text, "the month is over"
    labels = re.findall(r'role="img" aria-label="([^"]+)"', text)
    assert labels[0] == "2025-06-30: on for 10.0 min; starts: 1"


def test_a_month_without_a_gpu_shows_the_minutes_of_its_cpu(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=1)
    with contextlib.closing(sqlite3.connect(page.site.state / "ledger.sqlite3")) as connection, connection:
        connection.execute(
            "INSERT INTO engine_runs (pid, spawned_at, exited_at, model, device) VALUES (1, ?1, ?1 + 90, 'm', 'cpu')",
            (MIDNIGHT,),
        )
    text = visitor.get("/bill?month=2025-06").text
    assert "CPU minutes a day" in text
    assert "not billed" in text
    assert "min of CPU" in text
    assert "Saved" not in text, "nothing would have been paid for"


def test_months_that_never_were_are_not_found(visitor: Visitor) -> None:
    for text in ("2025-13", "x", "2025-06-01", "0001-01", "99999-01"):
        assert visitor.get(f"/bill?month={text}").status == 404
