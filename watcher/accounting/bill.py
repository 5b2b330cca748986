"""GPU time and money: what a period cost, what always-on would have cost, and what the month will come to.

Pure: the runs of engines come in, sums go out. The one price is that of an hour in which the device is held; a device
is held from the first context that an engine made on it until the engine's process was gone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

_CPU = "cpu"
_LEAST_PACE_SECONDS = 86_400.0  # the minutes after an installation say nothing of a month


def is_billed(device: str) -> bool:
    """Whether a device is paid for by the hour; a CPU is there anyway."""
    return device.partition(":")[0] != _CPU


class EngineRun(NamedTuple):
    """One engine process, as the ledger has it. Times are Unix time.

    Attributes:
        device: "cuda:0", ..., "cpu"; empty if it never said.
        held_from: when it first could hold its device.
        ended_at: when it was gone; of one that still runs, now.
        load_seconds: from its start until it could work.
        compute_seconds: with a picture in work.
        pictures: that it answered.
        energy_joules: of its device meanwhile, if that was measured.
        held_by: who timed `held_from`: "nvml", the driver's account of the process, or "wall", the watcher's clock.
        release_seconds: from its end until the device's memory was back, or nobody waited any more; None: not known.
        unreleased_bytes: what was not back then; None: not known.
    """

    host: str
    device: str
    held_from: float
    ended_at: float
    load_seconds: float
    compute_seconds: float
    pictures: int
    energy_joules: float | None
    held_by: str = "wall"
    release_seconds: float | None = None
    unreleased_bytes: int | None = None

    @property
    def held_seconds(self) -> float:
        """How long the device was its own."""
        return max(self.ended_at - self.held_from, 0.0)

    @property
    def is_billed(self) -> bool:
        """Whether it held what an hour is paid for; a CPU is there anyway."""
        return is_billed(self.device)


class WarmUp(NamedTuple):
    """One stretch of time for which an engine was held without work, as the ledger has it.

    Attributes:
        why: "keep_warm", "schedule" or "command".
        wanted_at: the same for all stretches of one warm-up, Unix time.
        device: as in `EngineRun`.
        starts_engine: whether the engine was started for it.
        idle_seconds: with the model loaded.
        is_used: whether a batch found the engine so.
        pictures: of that batch.
        spared_seconds: of a cold start, for each of them.
        load_seconds, exit_seconds: of the engine, which a batch of its own would have needed, too.
    """

    why: str
    wanted_at: float
    device: str
    starts_engine: bool
    idle_seconds: float
    is_used: bool
    pictures: int
    spared_seconds: float
    load_seconds: float
    exit_seconds: float

    @property
    def is_billed(self) -> bool:
        """As `EngineRun.is_billed`."""
        return is_billed(self.device)


@dataclass
class WarmBill:
    """What the warm-ups of one kind cost and saved. Each batch that found an engine did without a start and an exit.

    Attributes:
        why: the kind.
        warm_ups: how many.
        idle_seconds: that engines were held without work.
        batches, pictures: that found an engine.
        wait_saved_seconds: of cold starts, by all these pictures together.
        held_seconds: of billed devices, for idling and for starts ahead.
        spared_seconds: of billed devices, for the starts that batches did without.
    """

    why: str
    warm_ups: int = 0
    idle_seconds: float = 0.0
    batches: int = 0
    pictures: int = 0
    wait_saved_seconds: float = 0.0
    held_seconds: float = 0.0
    spared_seconds: float = 0.0


def warm_bills(rows: Iterable[WarmUp]) -> list[WarmBill]:
    """The sums of each kind that there was."""
    bills: dict[str, WarmBill] = {}
    seen: set[tuple[str, float]] = set()
    for row in rows:
        sums = bills.setdefault(row.why, WarmBill(row.why))
        sums.warm_ups += (row.why, row.wanted_at) not in seen
        seen.add((row.why, row.wanted_at))
        sums.idle_seconds += row.idle_seconds
        sums.batches += row.is_used
        sums.pictures += row.pictures
        sums.wait_saved_seconds += row.pictures * row.spared_seconds
        if row.is_billed:
            start_seconds = row.load_seconds + row.exit_seconds
            sums.held_seconds += row.idle_seconds + (start_seconds if row.starts_engine else 0.0)
            sums.spared_seconds += start_seconds if row.is_used else 0.0
    return [bills[why] for why in sorted(bills)]


class Price(NamedTuple):
    """What an hour of the device costs, in which currency (ISO 4217)."""

    per_hour: float
    currency: str

    def of(self, seconds: float) -> float:
        """The price of so many seconds."""
        return seconds / 3600 * self.per_hour


class Period(NamedTuple):
    """From `since` to `until`, Unix time; `now` lies in it if it has not ended yet."""

    since: float
    until: float
    now: float

    @property
    def elapsed_seconds(self) -> float:
        """As far as it is over."""
        return max(min(self.until, self.now) - self.since, 0.0)

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.until - self.since

    def days(self) -> Iterator[tuple[str, float, float]]:
        """Date (ISO 8601, local), begin and end of each day that has begun."""
        day = datetime.fromtimestamp(self.since)
        end = min(self.until, self.now)
        while day.timestamp() < end:
            # by the calendar, not by 86,400 s: clocks are changed twice a year
            following = datetime(day.year, day.month, day.day) + timedelta(days=1)
            yield day.date().isoformat(), day.timestamp(), min(following.timestamp(), end)
            day = following


def month(text: str, now: float) -> Period:
    """The period of a month.

    Args:
        text: "2026-11"; empty: the month of `now`.
        now: Unix time.

    Raises:
        ValueError: it is no month.
    """
    first = datetime.strptime(text, "%Y-%m") if text else datetime.fromtimestamp(now)
    first = first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(first.timestamp(), following.timestamp(), now)


@dataclass
class Day:
    """What engines held on one day, in seconds: of devices that are billed, and of CPUs; the energy, if known."""

    date: str
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joules: float | None = None


@dataclass
class Releases:
    """Whether billed devices got their memory back after each engine's end, where that can be told.

    Attributes:
        measured: how many ends.
        late: after how many some was not back within a second.
        total_seconds, longest_seconds: until it was, of the others.
    """

    measured: int = 0
    late: int = 0
    total_seconds: float = 0.0
    longest_seconds: float = 0.0

    @property
    def mean_seconds(self) -> float:
        """Of those that were back."""
        return self.total_seconds / max(self.measured - self.late, 1)

    def add(self, run: EngineRun) -> None:
        """One more."""
        if run.release_seconds is None:
            return
        self.measured += 1
        if run.unreleased_bytes:
            self.late += 1
        else:
            self.total_seconds += run.release_seconds
            self.longest_seconds = max(self.longest_seconds, run.release_seconds)


@dataclass
class Bill:
    """The sums of a period.

    Attributes:
        counted_since: Unix time at which the ledger begins, if that is within the period: before it nobody knows what
            was held, so nothing is compared.
        engine_starts: processes.
        gpu_seconds: that billed devices were held.
        cpu_seconds: that engines on CPUs ran; not billed.
        load_seconds, compute_seconds: of the billed ones, where their time went; the rest was idle.
        devices: seconds held by host and device.
        held_by: `gpu_seconds` by who timed them, "nvml" or "wall".
        energy_joules: where it was measured; None: nowhere.
        releases: of the devices' memory.
        cost, always_on_cost: so far, in the price's currency.
        forecast: cost of the whole period if it goes on like this.
        days: one entry each.
    """

    period: Period
    price: Price
    counted_since: float
    engine_starts: int = 0
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0
    devices: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    held_by: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    energy_joules: float | None = None
    releases: Releases = field(default_factory=Releases)
    days: list[Day] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """So far."""
        return self.price.of(self.gpu_seconds)

    @property
    def is_billed(self) -> bool:
        """Whether its engines were paid for by the hour; False: all of them ran on CPUs."""
        return self.gpu_seconds > 0 or self.cpu_seconds == 0

    @property
    def counted_seconds(self) -> float:
        """How much of the period the ledger knows."""
        return max(min(self.period.until, self.period.now) - self.counted_since, 0.0)

    @property
    def always_on_cost(self) -> float:
        """Of one device held all the time that is counted, or of as many as were in use; 0 where all are CPUs."""
        return self.price.of(self.counted_seconds) * max(self.billed_devices, 1) if self.is_billed else 0.0

    @property
    def billed_devices(self) -> int:
        """How many different ones were held."""
        return sum(is_billed(device) for _, device in self.devices)

    @property
    def saving(self) -> float | None:
        """Share of the always-on cost that was not paid, 0 .. 1; None: there is nothing to compare with."""
        return 1 - self.cost / self.always_on_cost if self.always_on_cost else None

    @property
    def forecast(self) -> float:
        """Cost of the whole period at the pace so far, of which a day is the least to go by."""
        left = max(self.period.until - max(self.period.now, self.period.since), 0.0)
        return self.cost + self.cost / max(self.counted_seconds, _LEAST_PACE_SECONDS) * left


def bill(period: Period, price: Price, runs: Iterable[EngineRun], ledger_since: float = 0.0) -> Bill:
    """Sum up the runs; of those that reach beyond the period, the part within.

    A run that never named its device is taken for another of its machine's, if there is one; else it is billed: it may
    have held a GPU before it failed.

    Args:
        period: of the bill.
        price: of an hour.
        runs: all that touch the period.
        ledger_since: when the ledger begins, Unix time.
    """
    result = Bill(period, price, min(max(period.since, ledger_since), max(min(period.until, period.now), period.since)))
    days = [(Day(date), since, until) for date, since, until in period.days()]
    devices: dict[str, str] = {}
    unnamed: list[EngineRun] = []
    for run in runs:
        if not run.device:
            unnamed.append(run)
            continue
        if not is_billed(devices.get(run.host, _CPU)) or run.is_billed:
            devices[run.host] = run.device
        _enter(run, result, days)
    for run in unnamed:
        _enter(run._replace(device=devices.get(run.host, "")), result, days)
    result.days = [day for day, _, _ in days]
    return result


def _enter(run: EngineRun, result: Bill, days: Sequence[tuple[Day, float, float]]) -> None:
    held = _overlap(run, result.period.since, min(result.period.until, result.period.now))
    result.engine_starts += 1
    result.devices[run.host, run.device] += held
    if run.is_billed:
        result.gpu_seconds += held
        result.held_by[run.held_by] += held
        result.releases.add(run)
        result.load_seconds += min(run.load_seconds, held)
        result.compute_seconds += min(run.compute_seconds, held)
    else:
        result.cpu_seconds += held
    if run.energy_joules is not None:
        result.energy_joules = (result.energy_joules or 0.0) + _energy(run, held)
    _spread(run, days)


def _spread(run: EngineRun, days: Sequence[tuple[Day, float, float]]) -> None:
    for day, since, until in _days_of(run, days):
        held = _overlap(run, since, until)
        if run.is_billed:
            day.gpu_seconds += held
        else:
            day.cpu_seconds += held
        if run.energy_joules is not None and held:
            day.energy_joules = (day.energy_joules or 0.0) + _energy(run, held)


def _days_of(run: EngineRun, days: Sequence[tuple[Day, float, float]]) -> Iterator[tuple[Day, float, float]]:
    """Those that the run touches, found without looking at all of them: days are nearly equally long."""
    if not days:
        return
    number = int((run.held_from - days[0][1]) // 86_400) - 1
    for entry in days[max(number, 0) :]:
        if entry[1] >= run.ended_at:
            return
        yield entry


def _overlap(run: EngineRun, since: float, until: float) -> float:
    return max(min(run.ended_at, until) - max(run.held_from, since), 0.0)


def _energy(run: EngineRun, held_seconds: float) -> float:
    """The part of its energy that falls to a part of its time, in joules."""
    return (run.energy_joules or 0.0) * (held_seconds / run.held_seconds if run.held_seconds else 1.0)
