"""A report as a person reads it: lines for a terminal, and a page of HTML that needs no network.

Both are made from what `report.as_json` gives, so that they say the same as it does.
"""

import html
import math
from datetime import datetime, timedelta
from typing import Any

from watcher.wording import count_of

_BAR = 40  # characters of the longest day's bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_CHART = (720, 160)  # pixels

Row = dict[str, Any]


def lines(report: Row) -> list[str]:
    """For a terminal."""
    told = [f"{name:<10} {text}" for name, text in _facts(report)]
    if any(_seconds(day) for day in report["days"]):
        told += ["", f"{_held(report)} {_unit(report)[0]} a day", *_bars(report)]
    if report["settings"]:
        told += ["", f"{_replay(report)}, {_measure(report)} and mean wait:", *_grid(report), *_advice(report)]
    return told


def page(report: Row) -> str:
    """A page of HTML, whole in itself."""
    title = f"dropscale, {_period(report)}"
    facts = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(text)}</dd>" for name, text in _facts(report))
    parts = [f"<h1>{_safe(title)}</h1>", f"<dl>{facts}</dl>"]
    if any(_seconds(day) for day in report["days"]):
        parts += [f"<h2>{_held(report)} {_unit(report)[0]} a day</h2>", _chart(report)]
    if report["settings"]:
        parts += [f"<h2>{_replay(report)}</h2>", _table(report)]
        parts += [f"<p>{_safe(line)}</p>" for line in _advice(report) if line]
    body = "\n".join(parts)
    return _PAGE.format(title=_safe(title), body=body)


def _facts(report: Row) -> list[tuple[str, str]]:
    pictures, currency = report["pictures"], report["currency"]
    held = report["gpu_seconds"]
    over = "" if report["complete"] else ", so far"
    done = f"{pictures['done']} done, {pictures['reused']} of them from an earlier result"
    facts = [
        ("period", f"{_period(report)}{over}"),
        ("pictures", f"{done}; {pictures['failed']} failed"),
        ("engines", f"{count_of(report['engine_starts'], 'start')} for {count_of(report['batches'], 'batch')}"),
    ]
    if _is_billed(report):
        facts += [
            ("GPU", f"{_duration(held)} held{_parts(report)}"),
            *_timed(report),
            ("cost", f"{report['cost']:.2f} {currency} at {report['per_hour']:g} {currency} an hour"),
            ("always on", _always_on(report)),
        ]
        if not report["complete"]:
            facts.append(("forecast", f"{report['forecast']:.2f} {currency} for the whole period"))
    for budget in report["budgets"]:
        used = f"{budget['used']:.2f} of {budget['limit']:g} {budget['unit']}"
        facts.append(("budget", f"{used} a {budget['period']}: {budget['share']:.0%} used"))
    if report["cpu_seconds"]:
        facts.append(("CPU", f"{_duration(report['cpu_seconds'])} of engines on CPUs, which are not billed"))
    if report["energy_kwh"] is not None:
        energy = f"{report['energy_kwh']:.3g}" if report["energy_kwh"] >= 0.001 else f"{report['energy_kwh']:.6f}"
        facts.append(("energy", f"{energy} kWh of the whole GPUs meanwhile, by their driver"))
    if releases := report["releases"]["measured"]:
        facts.append(("memory", _returned(report["releases"], releases)))
    facts += [("warm", _warm(sums, currency)) for sums in report["warm_ups"]]
    if len(report["devices"]) > 1:
        each = [f"{row['device'] or 'unknown'} on {row['host'] or 'this machine'}" for row in report["devices"]]
        times = [_duration(row["seconds"]) for row in report["devices"]]
        facts += [("", f"{name}: {time}") for name, time in zip(each, times, strict=True)]
    return facts


def _always_on(report: Row) -> str:
    begin = report["counted_since"]
    if report["saving"] is None:
        if not report["begun"]:
            return "nothing to compare with: this has not begun yet"
        return "nothing to compare with: the ledger begins after this"
    since = f" since {begin[:10]}, when the ledger begins" if begin[:10] > report["since"][:10] else ""
    saved = math.floor(report["saving"] * 1e4) / 1e4  # 99.996 % are not all
    return f"{report['always_on_cost']:.2f} {report['currency']}{since}: {saved:.2%} saved"


def _warm(sums: Row, currency: str) -> str:
    why = {"keep_warm": "after batches", "schedule": "by the schedule", "command": "by hand"}[sums["why"]]
    times = "once" if sums["warm_ups"] == 1 else f"{sums['warm_ups']} times"
    batches = count_of(sums["batches"], "batch")
    saved = f"{batches} found it so, {_duration(sums['wait_saved_seconds'])} of waiting saved by their pictures"
    cost = f"; cost {sums['cost']:.2f} {currency}, {sums['spared_cost']:.2f} of starts spared" if sums["cost"] else ""
    return f"{why}, {times}: {_duration(sums['idle_seconds'])} idle; {saved}{cost}"


def _parts(report: Row) -> str:
    held = report["gpu_seconds"]
    if not held:
        return ""
    load, compute = report["gpu_load_seconds"] / held, report["gpu_compute_seconds"] / held
    return f": {load:.0%} loading, {compute:.0%} computing, {max(1 - load - compute, 0):.0%} idle"


def _timed(report: Row) -> list[tuple[str, str]]:
    """Who timed it."""
    by = report["gpu_seconds_by"]
    if not by["nvml"]:
        return [("", "by the clock, from an engine's first line to its end")] if by["wall"] else []
    clock = f", {_duration(by['wall'])} by the clock, from an engine's first line to its end" if by["wall"] else ""
    return [("", f"{_duration(by['nvml'])} of it by the driver's accounts (NVML){clock}")]


def _returned(releases: Row, measured: int) -> str:
    late = releases["late"]
    told = f"not back within a second after {late} of {measured} engines: see the log for not_released" if late else ""
    if measured > late:
        mean, longest = _duration(releases["mean_seconds"]), _duration(releases["longest_seconds"])
        told += "; else " if late else ""
        told += f"back {mean} after an engine's end, {longest} at the longest"
    return told


def _is_billed(report: Row) -> bool:
    """As `watcher.accounting.bill.Bill.is_billed`."""
    return bool(report["gpu_seconds"] or not report["cpu_seconds"])


def _key(report: Row) -> str:
    return "gpu_seconds" if _is_billed(report) else "cpu_seconds"


def _held(report: Row) -> str:
    return "GPU" if _is_billed(report) else "CPU"


def _seconds(day: Row) -> float:
    return float(day["gpu_seconds"] + day["cpu_seconds"])


def _bars(report: Row) -> list[str]:
    days, key, (_, unit_seconds) = report["days"], _key(report), _unit(report)
    longest = max(day[key] for day in days)
    told = []
    for day in days:
        eighths = round(day[key] / longest * _BAR * 8) if longest else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        told.append(f"{day['date']} {day[key] / unit_seconds:8.1f} {bar}".rstrip())
    return told


def _replay(report: Row) -> str:
    which = "The same pictures"
    if report["replayed_since"][:10] > report["since"][:10]:
        which = f"The pictures since {report['replayed_since'][:10]}"
    return f"{which} with another quiet time of the window, and with an engine that stays"


def _grid(report: Row) -> list[str]:
    columns, rows, cells = _cells(report)
    head = f"{'window quiet':>14} | " + " | ".join(f"{'warm ' + _duration(keep):>20}" for keep in columns)
    told = [head, "-" * len(head)]
    for quiet in rows:
        told.append(f"{_duration(quiet):>14} | " + " | ".join(f"{cells[quiet, keep]:>20}" for keep in columns))
    return told


def _measure(report: Row) -> str:
    return "cost" if _is_billed(report) else "CPU time"


def _spent(report: Row, setting: Row) -> str:
    return f"{setting['cost']:.2f}" if _is_billed(report) else _duration(setting["held_seconds"])


def _cells(report: Row) -> tuple[list[float], list[float], dict[tuple[float, float], str]]:
    settings = report["settings"]
    columns = sorted({row["keep_warm_seconds"] for row in settings})
    rows = sorted({row["quiet_seconds"] for row in settings})
    cells = {
        (
            row["quiet_seconds"],
            row["keep_warm_seconds"],
        ): f"{_spent(report, row)}, {_duration(row['mean_wait_seconds'])}"
        for row in settings
    }
    return columns, rows, cells


def _advice(report: Row) -> list[str]:
    best, wanted = report["cheapest"], _duration(report["wanted_wait_seconds"])
    if best is None:
        return ["", f"None of them keeps the mean wait within {wanted}."]
    is_billed = _is_billed(report)
    which = "Cheapest" if is_billed else "Least CPU time"
    spent = f"{best['cost']:.2f} {report['currency']}" if is_billed else _duration(best["held_seconds"])
    return [
        "",
        f"{which} with a mean wait within {wanted}: window.quiet_seconds {best['quiet_seconds']:g}, "
        f"engine.keep_warm_seconds {best['keep_warm_seconds']:g}: {spent}, {count_of(best['engine_starts'], 'start')}, "
        f"{_duration(best['mean_wait_seconds'])} on the average.",
    ]


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.4g} h"


def _chart(report: Row) -> str:
    days, key, (unit, unit_seconds) = report["days"], _key(report), _unit(report)
    width, height = _CHART
    longest = max(day[key] for day in days) or 1.0
    step = width / len(days)
    bars = ""
    for number, day in enumerate(days):
        tall = day[key] / longest * height
        place = f'x="{number * step:.1f}" y="{height - tall:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}"'
        bars += f"<rect {place}><title>{day['date']}: {day[key] / unit_seconds:.1f} {unit}</title></rect>"
    label = f"{unit} a day, {longest / unit_seconds:.1f} at most"
    ends = f'<text x="0" y="{height + 16}">{days[0]["date"]}</text>'
    ends += f'<text x="{width}" y="{height + 16}" text-anchor="end">{days[-1]["date"]}</text>'
    return f'<svg viewBox="0 0 {width} {height + 20}" role="img" aria-label="{label}">{bars}{ends}</svg>'


def _unit(report: Row) -> tuple[str, float]:
    """What days are told in, and how many seconds that has: no column of zeros where there is little."""
    return ("minutes", 60.0) if max(day[_key(report)] for day in report["days"]) >= 60 else ("seconds", 1.0)


def _period(report: Row) -> str:
    """First and last day, as `--since` and `--until` take them; the report itself ends at a midnight."""
    last = datetime.fromisoformat(report["until"]) - timedelta(seconds=1)
    return f"{report['since'][:10]} to {last:%Y-%m-%d}"


def _table(report: Row) -> str:
    columns, rows, cells = _cells(report)
    head = "<tr><th>quiet</th>" + "".join(f"<th>warm {_duration(keep)}</th>" for keep in columns) + "</tr>"
    body = "".join(
        f"<tr><th>{_duration(quiet)}</th>"
        + "".join(f"<td>{_safe(cells[quiet, keep])}</td>" for keep in columns)
        + "</tr>"
        for quiet in rows
    )
    measure = f"Cost in {report['currency']}" if _is_billed(report) else "CPU time"
    caption = f"{_safe(measure)}, mean wait"
    return f"<table><caption>{caption}</caption>{head}{body}</table>"


def _safe(text: str) -> str:
    return html.escape(text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem }}
dt {{ font-weight: 600 }} dd {{ margin: 0 }}
svg {{ width: 100%; height: auto }} rect {{ fill: #2a7d4f }} text {{ font-size: 12px; fill: currentColor }}
table {{ border-collapse: collapse }} th, td {{ padding: .2rem .6rem; text-align: right; border: 1px solid #8886 }}
caption {{ text-align: left }}
</style></head><body>
{body}
</body></html>
"""
