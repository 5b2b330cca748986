"""What other settings would have cost: the same pictures again, with another window or with an engine kept warm.

Pure. The engine of the replay loads, computes and exits as long as those of the period did on the average.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

QUIET_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0)
KEEP_WARM_SECONDS = (0.0, 60.0, 300.0, 900.0, 3600.0)


class Costs(NamedTuple):
    """What an engine takes, in seconds: to load, for each picture, and to exit."""

    load_seconds: float
    picture_seconds: float
    exit_seconds: float


class Setting(NamedTuple):
    """What is tried: when a window closes, and how long an engine is kept after it."""

    quiet_seconds: float
    keep_warm_seconds: float
    max_seconds: float
    max_files: int


@dataclass(frozen=True)
class Outcome:
    """What a setting would have meant.

    Attributes:
        engine_starts: that many loads.
        held_seconds: of the device.
        mean_wait_seconds, longest_wait_seconds: from a picture being whole to its result.
    """

    setting: Setting
    engine_starts: int
    held_seconds: float
    mean_wait_seconds: float
    longest_wait_seconds: float


class Window(NamedTuple):
    """Pictures that share a batch: when the first and the last of them came, how many, and when it closed."""

    closed_at: float
    pictures: int
    arrivals: float  # the sum of their times, since the closing of the window, so zero or less
    first: float


def windows(arrivals: Sequence[tuple[float, int]], setting: Setting) -> list[Window]:
    """Cut arrivals into windows, as `watcher.window` does.

    Args:
        arrivals: times, in order, and how many pictures came at each.
        setting: when a window closes.
    """
    found: list[Window] = []
    count, weighted = 0, 0.0
    first = last = 0.0
    for time, pictures in arrivals:
        if count and (time > last + setting.quiet_seconds or time > first + setting.max_seconds):
            found.append(_closed(first, last, count, weighted, setting))
            count, weighted = 0, 0.0
        if not count:
            first = time
        last = time
        count += pictures
        weighted += pictures * (time - first)
        if count >= setting.max_files:
            found.append(Window(time, count, weighted - count * (time - first), first - time))
            count, weighted = 0, 0.0
    if count:
        found.append(_closed(first, last, count, weighted, setting))
    return found


def _closed(first: float, last: float, count: int, weighted: float, setting: Setting) -> Window:
    closed_at = min(last + setting.quiet_seconds, first + setting.max_seconds)
    return Window(closed_at, count, weighted - count * (closed_at - first), first - closed_at)


def run(batches: Sequence[Window], setting: Setting, costs: Costs) -> Outcome:
    """One engine at a time over the windows: each waits for the one before."""
    starts, pictures = 0, 0
    held = waited = longest = 0.0
    free_at = warm_until = float("-inf")
    for window in batches:
        begin = max(window.closed_at, free_at)
        if begin <= warm_until:
            held += begin - free_at  # it was kept for this
        else:
            if starts:
                held += min(setting.keep_warm_seconds, begin - free_at) + costs.exit_seconds
            starts += 1
            held += costs.load_seconds
            begin += costs.load_seconds
        work = window.pictures * costs.picture_seconds
        held += work
        free_at = begin + work
        warm_until = free_at + setting.keep_warm_seconds if setting.keep_warm_seconds else float("-inf")
        # results come one after the other: on the average after half of the work
        delay = begin - window.closed_at
        waited += window.pictures * (delay + work / 2) - window.arrivals
        longest = max(longest, free_at - window.closed_at - window.first)
        pictures += window.pictures
    if starts:
        held += setting.keep_warm_seconds + costs.exit_seconds
    return Outcome(setting, starts, held, waited / pictures if pictures else 0.0, longest)


def compare(arrivals: Sequence[tuple[float, int]], costs: Costs, max_seconds: float, max_files: int) -> list[Outcome]:
    """Every pair of QUIET_SECONDS and KEEP_WARM_SECONDS."""
    outcomes = []
    for quiet in QUIET_SECONDS:
        base = Setting(quiet, 0.0, max(max_seconds, quiet), max_files)
        batches = windows(arrivals, base)
        outcomes += [
            run(batches, setting, costs)
            for keep in KEEP_WARM_SECONDS
            for setting in [base._replace(keep_warm_seconds=keep)]
        ]
    return outcomes


def cheapest(outcomes: Sequence[Outcome], wait_seconds: float) -> Outcome | None:
    """The one that holds the device for the least time, of those whose mean wait is within `wait_seconds`."""
    allowed = [outcome for outcome in outcomes if outcome.mean_wait_seconds <= wait_seconds]
    return min(allowed, key=lambda outcome: (outcome.held_seconds, outcome.mean_wait_seconds), default=None)
