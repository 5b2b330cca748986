"""The bill: hours of a device, split by days, against always-on."""

import pytest
from local_time import at

from watcher.accounting.bill import EngineRun, Period, Price, bill, month

pytestmark = pytest.mark.usefixtures("berlin")
PRICE = Price(0.6, "CNY")
HOUR = 3600.0


def run_of(since: str, seconds: float, device: str = "cuda:0", host: str = "box", **others: float) -> EngineRun:
    held_from = at(since)
    fields = {"load_seconds": 2.0, "compute_seconds": seconds / 2, "pictures": 3, "energy_joules": None, **others}
    return EngineRun(host=host, device=device, held_from=held_from, ended_at=held_from + seconds, **fields)


def test_fifty_minutes_a_day_cost_fifteen_and_always_on_432() -> None:
    """The estimate that the whole thing began with: 30 days of 24 hours at 0.60 an hour."""
    period = Period(at("2026-11-01"), at("2026-12-01"), at("2026-12-05"))
    result = bill(period, PRICE, [run_of(f"2026-11-{day:02}T12:00", 50 * 60) for day in range(1, 31)])
    assert result.cost == pytest.approx(15.0)
    assert result.always_on_cost == pytest.approx(432.0)
    assert result.saving == pytest.approx(1 - 15 / 432)
    assert result.forecast == pytest.approx(15.0), "the month is over"
    assert [round(day.gpu_seconds) for day in result.days] == [3000] * 30


def test_a_month_that_is_not_over() -> None:
    result = bill(month("", at("2026-11-11")), PRICE, [run_of("2026-11-03T10:00", HOUR)])
    assert result.always_on_cost == pytest.approx(10 * 24 * 0.6)
    assert result.forecast == pytest.approx(0.6 * 3)
    assert len(result.days) == 10, "those to come are not shown"


def test_a_run_over_midnight_belongs_to_both_days_and_one_over_the_end_to_the_period_only_in_part() -> None:
    period = month("2026-11", at("2027-01-01"))
    runs = [run_of("2026-11-04T23:30", HOUR), run_of("2026-11-30T23:50", HOUR), run_of("2026-10-31T23:30", HOUR)]
    result = bill(period, PRICE, runs)
    seconds = {day.date: day.gpu_seconds for day in result.days if day.gpu_seconds}
    assert seconds == {"2026-11-01": 1800, "2026-11-04": 1800, "2026-11-05": 1800, "2026-11-30": 600}
    assert result.gpu_seconds == sum(seconds.values())


def test_the_days_on_which_clocks_change_have_23_and_25_hours() -> None:
    for text, hours in (("2026-03", 31 * 24 - 1), ("2026-10", 31 * 24 + 1)):
        period = month(text, at("2027-01-01"))
        assert period.seconds == hours * HOUR
        whole = EngineRun("box", "cuda", period.since, period.until, 0, 0, 0, None)
        result = bill(period, PRICE, [whole])
        assert len(result.days) == 31
        assert sum(day.gpu_seconds for day in result.days) == pytest.approx(result.gpu_seconds)
        assert result.saving == pytest.approx(0)


def test_a_cpu_is_shown_and_never_billed() -> None:
    period = month("2026-11", at("2026-11-30"))
    result = bill(
        period, PRICE, [run_of("2026-11-03T10:00", HOUR, "cpu"), run_of("2026-11-03T10:00", 60, "tensorrt:1")]
    )
    assert (result.gpu_seconds, result.cpu_seconds, result.engine_starts) == (60, HOUR, 2)
    assert result.cost == pytest.approx(0.01)
    (day,) = (day for day in result.days if day.gpu_seconds)
    assert (day.gpu_seconds, day.cpu_seconds) == (60, HOUR)
    assert result.devices == {("box", "cpu"): HOUR, ("box", "tensorrt:1"): 60}


def test_an_engine_that_never_said_what_it_runs_on_is_billed() -> None:
    """It may have held the device before it failed."""
    assert bill(month("2026-11", at("2026-11-30")), PRICE, [run_of("2026-11-03T10:00", 5, "")]).gpu_seconds == 5


def test_always_on_means_as_many_devices_as_were_used() -> None:
    period = month("2026-11", at("2027-01-01"))
    runs = [run_of("2026-11-03T10:00", 60, host=host, device="cuda:0") for host in ("one", "two")]
    assert bill(period, PRICE, runs).always_on_cost == pytest.approx(2 * 432.0)


def test_energy_is_told_only_where_it_was_measured() -> None:
    period = month("2026-11", at("2027-01-01"))
    assert bill(period, PRICE, [run_of("2026-11-03T10:00", 60)]).energy_joules is None
    runs = [run_of("2026-11-03T10:00", 60), run_of("2026-11-03T11:00", 60, energy_joules=4000.0)]
    assert bill(period, PRICE, runs).energy_joules == 4000


def test_a_period_in_which_nothing_happened() -> None:
    result = bill(month("2026-11", at("2026-11-02")), PRICE, [])
    assert (result.cost, result.saving, result.forecast) == (0, 1, 0)
    empty = bill(Period(at("2026-11-02"), at("2026-11-03"), at("2026-11-02")), PRICE, [])
    assert (empty.saving, empty.forecast, empty.days) == (None, 0, [])


def test_nothing_is_compared_before_the_ledger_begins() -> None:
    """Who installs it on the 21st has saved nothing on the 20 days before."""
    period = month("2026-11", at("2026-12-05"))
    result = bill(period, PRICE, [run_of("2026-11-22T10:00", HOUR)], ledger_since=at("2026-11-21"))
    assert result.always_on_cost == pytest.approx(10 * 24 * 0.6)
    assert result.saving == pytest.approx(1 - 1 / 240)
    before = bill(month("2026-10", at("2026-12-05")), PRICE, [], ledger_since=at("2026-11-21"))
    assert (before.always_on_cost, before.saving, before.counted_since) == (0, None, at("2026-11-01"))
    after = bill(month("2026-12", at("2026-12-05")), PRICE, [], ledger_since=at("2026-11-21"))
    assert (after.always_on_cost, after.saving) == (pytest.approx(4 * 24 * 0.6), 1)


def test_the_forecast_goes_by_the_days_that_the_ledger_knows() -> None:
    period = month("2026-11", at("2026-11-25"))
    runs = [run_of(f"2026-11-{day}T10:00", HOUR) for day in (21, 22, 23, 24)]
    assert bill(period, PRICE, runs, ledger_since=at("2026-11-21")).forecast == pytest.approx(10 * 0.6)
    at_once = month("2026-11", at("2026-11-21T00:05"))
    first = bill(at_once, PRICE, [run_of("2026-11-21T00:00", 60)], ledger_since=at("2026-11-21"))
    assert first.forecast == pytest.approx(0.01 * (1 + 10 - 5 / 1440)), "five minutes are no pace"


def test_on_cpus_there_is_nothing_to_save() -> None:
    result = bill(month("2026-11", at("2026-12-05")), PRICE, [run_of("2026-11-22T10:00", HOUR, "cpu")])
    assert (result.is_billed, result.cost, result.always_on_cost, result.saving) == (False, 0, 0, None)


def test_what_never_named_its_device_is_taken_for_another_of_its_machine() -> None:
    period = month("2026-11", at("2026-12-05"))
    runs = [run_of("2026-11-22T10:00", 60, device, host) for device, host in (("", "a"), ("cpu", "a"), ("", "b"))]
    result = bill(period, PRICE, [*runs, run_of("2026-11-22T10:00", 7, "cuda:1", "b")])
    assert (result.cpu_seconds, result.gpu_seconds, result.billed_devices) == (120, 67, 1)
    assert sum(day.gpu_seconds for day in result.days) == 67


@pytest.mark.parametrize("text", ["2026", "2026-13", "november", "2026-11-05"])
def test_what_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match=r"time data|unconverted"):
        month(text, 0.0)


def test_an_engine_that_never_said_what_it_held_is_no_further_device() -> None:
    period = Period(at("2026-11-01"), at("2026-12-01"), at("2026-12-05"))
    known, unknown, elsewhere = (
        run_of("2026-11-05T12:00", 60, device, host) for device, host in (("cuda:0", "a"), ("", "a"), ("", "b"))
    )
    assert bill(period, PRICE, [known, unknown]).billed_devices == 1
    assert bill(period, PRICE, [known, unknown, elsewhere]).billed_devices == 2
    assert bill(period, PRICE, [unknown]).always_on_cost == pytest.approx(432.0)
