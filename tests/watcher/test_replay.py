"""The replay: what the same pictures would have cost with other settings, against sums done by hand."""

import random

import pytest

from watcher.accounting.replay import Costs, Setting, cheapest, compare, run, windows
from watcher.window import Window as LiveWindow

COSTS = Costs(load_seconds=4, picture_seconds=1, exit_seconds=0.5)


def setting(quiet: float = 5, warm: float = 0, most: float = 60, files: int = 200) -> Setting:
    return Setting(quiet, warm, most, files)


def test_two_windows_by_hand() -> None:
    """Pictures at 0, 2 and 100: closed at 7 and at 105."""
    found = windows([(0, 1), (2, 1), (100, 1)], setting())
    assert [(window.closed_at, window.pictures) for window in found] == [(7, 2), (105, 1)]
    cold = run(found, setting(), COSTS)
    assert cold.engine_starts == 2
    assert cold.held_seconds == pytest.approx(2 * (4 + 0.5) + 3)
    # 0 -> 7 + 4 + 1, 2 -> 7 + 4 + 1 on the average of both, 100 -> 105 + 4 + 0.5
    assert cold.mean_wait_seconds == pytest.approx(((7 - 0) + (7 - 2) + 2 * (4 + 1) + (5 + 4 + 0.5)) / 3)
    assert cold.longest_wait_seconds == pytest.approx(7 + 4 + 2)


def test_an_engine_that_is_warm_loads_once_and_its_idle_time_is_paid() -> None:
    found = windows([(0, 1), (100, 1)], setting())
    warm = run(found, setting(warm=300), COSTS)
    assert warm.engine_starts == 1
    # loaded at 9, done at 10, idle until 105, done at 106, kept for 300 more
    assert warm.held_seconds == pytest.approx(4 + 1 + 95 + 1 + 300 + 0.5)
    assert warm.mean_wait_seconds == pytest.approx(((5 + 4 + 0.5) + (5 + 0.5)) / 2)
    too_short = run(found, setting(warm=60), COSTS)
    assert too_short.engine_starts == 2
    assert too_short.held_seconds == pytest.approx(2 * (4 + 1 + 60 + 0.5))


def test_a_window_that_closes_while_the_engine_works_waits_for_it() -> None:
    found = windows([(0, 20), (10, 1)], setting())
    outcome = run(found, setting(), COSTS)
    assert [window.closed_at for window in found] == [5, 15]
    assert outcome.longest_wait_seconds == pytest.approx(5 + 4 + 20)
    second = (5 + 4 + 20) + 4 + 0.5 - 10  # it begins when the first is done, not when it was closed
    assert outcome.mean_wait_seconds == pytest.approx((20 * (5 + 4 + 10) + second) / 21)


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_those_of_the_watcher(seed: int) -> None:
    """Against the very window that collects pictures in `run`."""
    chance = random.Random(seed)
    times = sorted(chance.uniform(0, 300) for _ in range(120))
    wanted = setting(quiet=3, most=20, files=8)
    live: LiveWindow[int] = LiveWindow(wanted.quiet_seconds, wanted.max_seconds, wanted.max_files, 10**9)
    expected = []

    def close_before(now: float) -> None:
        while len(live) and (closes_at := live.closes_at()) is not None and closes_at < now:
            expected.append((closes_at, len(live.take())))

    for number, time in enumerate(times):
        close_before(time)
        live.add(number, 0, time)
        if live.closing_reason(time) is not None:
            expected.append((time, len(live.take())))
    close_before(float("inf"))
    found = [(window.closed_at, window.pictures) for window in windows([(time, 1) for time in times], wanted)]
    assert found == [(pytest.approx(time), count) for time, count in expected]


def test_the_cheapest_within_a_wanted_wait() -> None:
    arrivals = [(3600.0 * hour + 40 * number, 1) for hour in range(24) for number in range(10)]
    outcomes = compare(arrivals, COSTS, max_seconds=60, max_files=200)
    best = cheapest(outcomes, 1e9)
    assert best is not None and best.held_seconds == min(outcome.held_seconds for outcome in outcomes)
    quick = cheapest(outcomes, 8)
    assert quick is not None and quick.mean_wait_seconds <= 8
    assert quick.held_seconds > best.held_seconds, "who wants it sooner pays more"
    assert cheapest(outcomes, 0.5) is None


def test_nothing_came() -> None:
    assert {outcome.held_seconds for outcome in compare([], COSTS, 60, 200)} == {0}
