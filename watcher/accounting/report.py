"""`dropscale report`: what a period cost, against always-on and against other settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from watcher.accounting import replay
from watcher.accounting.accounts import Accounts, Pictures
from watcher.accounting.bill import Bill, Period, Price, WarmBill, bill, warm_bills
from watcher.accounting.replay import Outcome
from watcher.engine.governor import Governor, Use


@dataclass(frozen=True)
class Settings:
    """What of the config the report is about.

    Attributes:
        price: of an hour.
        max_seconds, max_files: of windows, as they are now.
        wait_seconds: that pictures may wait on the average, for the recommendation.
        governor: knows the budgets.
    """

    price: Price
    max_seconds: float
    max_files: int
    wait_seconds: float
    governor: Governor


@dataclass(frozen=True)
class Report:
    """All that is told of a period; what is replayed may begin later, where pictures are very many."""

    period: Period
    pictures: Pictures
    bill: Bill
    warm: Sequence[WarmBill]
    replayed_since: float | None
    outcomes: Sequence[Outcome]
    cheapest: Outcome | None
    budgets: Sequence[Use]
    settings: Settings


def collect(accounts: Accounts, period: Period, settings: Settings) -> Report:
    """Read the ledger and sum up.

    Raises:
        LedgerError: it cannot be read.
    """
    end = min(period.until, period.now)
    runs = accounts.engine_runs(period.since, end, period.now)
    begin = accounts.begin()
    summed = bill(period, settings.price, runs, period.now if begin is None else begin)
    outcomes: list[Outcome] = []
    arrivals: list[tuple[float, int]] = []
    if (costs := accounts.costs(period.since, end)) is not None:
        arrivals = accounts.arrivals(period.since, end)
        outcomes = replay.compare(arrivals, costs, settings.max_seconds, settings.max_files)
    best = replay.cheapest(outcomes, settings.wait_seconds)
    replayed_since = arrivals[0][0] if arrivals else None
    pictures = accounts.pictures(period.since, end)
    warm = warm_bills(accounts.warm_ups(period.since, end, period.now))
    budgets = settings.governor.uses(max(end - 1, period.since))
    if period.now >= period.until:
        budgets = [use for use in budgets if use.name == "month"]  # its last day says nothing of the others
    return Report(period, pictures, summed, warm, replayed_since, outcomes, best, budgets, settings)


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with units in the names; money in the report's currency.

    `saving` is None where there is nothing to compare with: all engines ran on CPUs, the ledger begins later, or the
    period has not begun.
    """
    summed, period, pictures = report.bill, report.period, report.pictures
    return {
        "since": _time(period.since),
        "until": _time(period.until),
        "begun": period.now >= period.since,
        "complete": period.now >= period.until,
        "counted_since": _time(summed.counted_since),
        "pictures": {"done": pictures.done, "reused": pictures.reused, "failed": pictures.failed},
        "batches": pictures.batches,
        "engine_starts": summed.engine_starts,
        "gpu_seconds": round(summed.gpu_seconds, 3),
        "gpu_load_seconds": round(summed.load_seconds, 3),
        "gpu_compute_seconds": round(summed.compute_seconds, 3),
        "cpu_seconds": round(summed.cpu_seconds, 3),
        "gpu_seconds_by": {"nvml": round(summed.held_by["nvml"], 3), "wall": round(summed.held_by["wall"], 3)},
        "energy_kwh": _kwh(summed.energy_joules),
        "releases": {
            "measured": summed.releases.measured,
            "late": summed.releases.late,
            "mean_seconds": round(summed.releases.mean_seconds, 3),
            "longest_seconds": round(summed.releases.longest_seconds, 3),
        },
        "currency": summed.price.currency,
        "per_hour": summed.price.per_hour,
        "cost": round(summed.cost, 4),
        "always_on_cost": round(summed.always_on_cost, 4),
        "saving": None if summed.saving is None else round(summed.saving, 6),
        "forecast": round(summed.forecast, 4),
        "budgets": [
            {
                "period": use.name,
                "used": round(use.used, 4),
                "limit": use.limit,
                "unit": use.unit,
                "share": round(use.share, 4),
            }
            for use in report.budgets
        ],
        "devices": [
            {"host": host, "device": device, "seconds": round(seconds, 3)}
            for (host, device), seconds in sorted(summed.devices.items())
        ],
        "days": [
            {
                "date": day.date,
                "gpu_seconds": round(day.gpu_seconds, 3),
                "cpu_seconds": round(day.cpu_seconds, 3),
                "energy_kwh": _kwh(day.energy_joules),
            }
            for day in summed.days
        ],
        "warm_ups": [_warm(sums, summed.price) for sums in report.warm],
        "replayed_since": None if report.replayed_since is None else _time(report.replayed_since),
        "settings": [_outcome(outcome, summed) for outcome in report.outcomes],
        "wanted_wait_seconds": report.settings.wait_seconds,
        "cheapest": None if report.cheapest is None else _outcome(report.cheapest, summed),
    }


def as_csv(report: Report) -> list[list[str]]:
    """One row a day, after a row of titles; an energy that is not known is empty."""
    price = report.bill.price
    rows = [["date", "gpu_seconds", "cpu_seconds", f"cost_{price.currency.lower()}", "energy_kwh"]]
    for day in report.bill.days:
        cost = price.of(day.gpu_seconds)
        energy = "" if day.energy_joules is None else f"{_kwh(day.energy_joules):.6f}"
        rows.append([day.date, f"{day.gpu_seconds:.3f}", f"{day.cpu_seconds:.3f}", f"{cost:.4f}", energy])
    return rows


def _warm(sums: WarmBill, price: Price) -> dict[str, Any]:
    return {
        "why": sums.why,
        "warm_ups": sums.warm_ups,
        "idle_seconds": round(sums.idle_seconds, 3),
        "batches": sums.batches,
        "pictures": sums.pictures,
        "wait_saved_seconds": round(sums.wait_saved_seconds, 3),
        "cost": round(price.of(sums.held_seconds), 4),
        "spared_cost": round(price.of(sums.spared_seconds), 4),
    }


def _outcome(outcome: Outcome, summed: Bill) -> dict[str, float | int]:
    return {
        "quiet_seconds": outcome.setting.quiet_seconds,
        "keep_warm_seconds": outcome.setting.keep_warm_seconds,
        "engine_starts": outcome.engine_starts,
        "held_seconds": round(outcome.held_seconds, 3),
        "cost": round(summed.price.of(outcome.held_seconds), 4) if summed.is_billed else 0.0,
        "mean_wait_seconds": round(outcome.mean_wait_seconds, 2),
        "longest_wait_seconds": round(outcome.longest_wait_seconds, 2),
    }


def _kwh(joules: float | None) -> float | None:
    return None if joules is None else round(joules / 3.6e6, 6)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
