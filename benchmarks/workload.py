"""What the bill is worth: what on-demand saves, how exact the meter is, and how long a report takes.

    python benchmarks/workload.py [--photos DIR] [--only PART,...] [--update docs/benchmarks.md]

Parts: saving, meter, report. Prints Markdown tables; --update also puts them between the marks of a page. Linux only.

saving: ten pictures a day at random times, as in the design that dropscale began with. The phases of the engine are
measured in this run, a cold start for each photograph, and the month is replayed from them as `dropscale report` does.
meter: windows with one small picture each; the time that the ledger has of each engine against that which a shell
around the engine has measured.
report: `dropscale report --json` over a ledger of many rows, on which a year of work is spread.
"""

import argparse
import contextlib
import math
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import figures
import numpy as np
import yaml
from photographs import Photographs

from watcher.accounting.accounts import Accounts
from watcher.accounting.replay import Costs, Outcome, Setting, run, windows
from watcher.ledger import Ledger

DAYS, A_DAY = 30, 10
PHOTOGRAPHS, PHOTOGRAPH_PIXELS = 10, 1.5e6
BATCHES = 100
ROWS, RUNS = 1_000_000, 20_000
ROUNDS = 5
DROPSCALE = str(Path(sys.executable).parent / "dropscale")
TIMED = 'log=$1; shift; began=$(date +%s.%N); "$@"; code=$?; echo "$began $(date +%s.%N)" >> "$log"; exit $code'


class Site:
    """Folders with a config; the engine runs within a shell that takes its time."""

    def __init__(self, root: Path, quiet_seconds: float) -> None:
        self.root, self.times = root, root / "times"
        for name in ("inbox", "outbox", "archive", "failed"):
            (root / name).mkdir()
        engine = ["sh", "-c", TIMED, "sh", str(self.times), sys.executable, "-P", "-m", "sr_engine"]
        config = {
            "folders": {"state": "state"},
            "watch": {"settle_seconds": 0.1},
            "window": {"quiet_seconds": quiet_seconds},
            "engine": {"command": engine},
        }
        (root / "config.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """Dropscale over these folders."""
        return [DROPSCALE, *arguments, "--config", str(self.root / "config.yaml")]

    def archived(self) -> int:
        """How many pictures are done."""
        return sum(1 for path in (self.root / "archive").iterdir() if not path.name.startswith("."))

    def timed(self) -> list[float]:
        """What the shell measured of each engine, in seconds."""
        spans = [line.split() for line in self.times.read_text().splitlines()]
        return [float(ended) - float(began) for began, ended in spans]

    def ledger(self) -> Ledger:
        """Open until the caller closes it."""
        return Ledger(str(self.root / "state"))


def until(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("it did not come to an end")
        time.sleep(0.05)


def measured_costs(photographs: Photographs, folder: Path) -> Costs:
    """What an engine takes: each photograph alone, with a cold start."""
    site = Site(folder, 0.1)
    for number in range(PHOTOGRAPHS):
        photographs.write(number, PHOTOGRAPH_PIXELS, site.root / "inbox")
        subprocess.run(site.command("once"), check=True, capture_output=True)
    with contextlib.closing(site.ledger()) as ledger:
        costs = Accounts(ledger).costs(0, time.time())
    if costs is None or site.archived() < PHOTOGRAPHS:
        sys.exit("not every photograph came to its end")
    return costs


def saving(photographs: Photographs, folder: Path) -> list[str]:
    """The month of the original's workload, from phases that are measured now."""
    costs = measured_costs(photographs, folder)
    chance = random.Random(0)
    arrivals = sorted((day * 86_400 + chance.random() * 86_400, 1) for day in range(DAYS) for _ in range(A_DAY))
    period = DAYS * 86_400
    lines = [
        f"One photograph of {PHOTOGRAPH_PIXELS / 1e6:g} megapixels, alone: {costs.load_seconds:.2f} s until the engine "
        f"can work, {costs.picture_seconds:.2f} s of work, {costs.exit_seconds:.2f} s to exit "
        f"(mean of {PHOTOGRAPHS}: {photographs.origin}).",
        "",
        f"| {A_DAY} pictures a day, {DAYS} days | engine starts | held per picture | of the time | saved | mean wait |",
        "|---|---|---|---|---|---|",
    ]
    for name, setting in {
        "quiet_seconds 5, as it comes": Setting(5, 0, 60, 200),
        "quiet_seconds 300": Setting(300, 0, 300, 200),
        "kept warm for 15 minutes": Setting(5, 900, 60, 200),
    }.items():
        lines.append(saved(name, run(windows(arrivals, setting), setting, costs), len(arrivals), period))
    return lines


def saved(name: str, outcome: Outcome, pictures: int, period: float) -> str:
    """A row."""
    share = outcome.held_seconds / period
    return (
        f"| {name} | {outcome.engine_starts} | {outcome.held_seconds / pictures:.2f} s | {share:.3%} "
        f"| **{1 - share:.2%}** | {outcome.mean_wait_seconds:.1f} s |"
    )


def meter(_: Photographs, folder: Path) -> list[str]:
    """Metered against measured from outside, over many batches."""
    site = Site(folder, 0.1)
    chance = np.random.default_rng(0)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(site.command("run"), stderr=log, stdin=subprocess.DEVNULL)
        try:
            for number in range(BATCHES):
                picture = chance.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                cv2.imwrite(str(site.root / "inbox" / f"{number}.png"), picture)
                until(lambda done=number + 1: site.archived() == done)
                until(lambda done=number + 1: site.times.exists() and len(site.timed()) == done)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    parts = "spawn_seconds + load_seconds + compute_seconds + idle_seconds + exit_seconds"
    with contextlib.closing(site.ledger()) as ledger:
        rows = ledger.select(f"SELECT exited_at - spawned_at, {parts} FROM engine_runs ORDER BY id", ())
    outside = site.timed()
    ratios = [whole / timed for (whole, _), timed in zip(rows, outside, strict=True)]
    total = sum(whole for whole, _ in rows) / sum(outside)
    summed = sum(phases for _, phases in rows) / sum(whole for whole, _ in rows)
    return [
        f"| engines, one after the other | {len(rows)} |",
        "|---|---|",
        f"| time in the ledger against that of a shell around them, in all | **{total:.4f}** |",
        "| the same for each: smallest, median, largest "
        f"| {min(ratios):.3f}, {statistics.median(ratios):.3f}, {max(ratios):.3f} |",
        f"| sum of the phases against the whole time | {summed:.4f} |",
    ]


def report(_: Photographs, folder: Path) -> list[str]:
    """How long a report takes."""
    site = Site(folder, 5)
    fill(site)
    lines = [
        f"| `dropscale report`, {ROWS:,} pictures and {RUNS:,} engine runs of a year | median of {ROUNDS} | bound |",
        "|---|---|---|",
    ]
    first = (datetime.now() - timedelta(days=365)).date()
    for name, options in {"this month": [], "the whole year": ["--since", first.isoformat()]}.items():
        took = [report_seconds(site, *options) for _ in range(ROUNDS)]
        lines.append(f"| {name}, with the replay | {statistics.median(took):.2f} s | 2 s |")
    return lines


def report_seconds(site: Site, *options: str) -> float:
    """From the start of the command to its end."""
    began = time.perf_counter()
    subprocess.run(site.command("report", "--json", *options), check=True, capture_output=True)
    return time.perf_counter() - began


def fill(site: Site) -> None:
    """A year of work."""
    subprocess.run(site.command("init"), check=True, capture_output=True)
    chance, now = random.Random(0), time.time()
    begin = now - 365 * 86_400
    with contextlib.closing(sqlite3.connect(site.root / "state" / "ledger.sqlite3")) as connection:
        spawns = sorted(begin + chance.random() * (now - begin) for _ in range(RUNS))
        connection.executemany(
            "INSERT INTO batches (id, started_at, finished_at, closed_by, pictures) VALUES (?, ?, ?, 'quiet', ?)",
            [(number + 1, at, at + 60, ROWS // RUNS) for number, at in enumerate(spawns)],
        )
        connection.executemany(
            "INSERT INTO engine_runs (batch, host, pid, spawned_at, ready_at, exited_at, exit_code, device, model,"
            " done, held_from, spawn_seconds, load_seconds, compute_seconds, idle_seconds, exit_seconds)"
            " VALUES (?, 'box', 1, ?, ?, ?, 0, 'cuda:0', 'edsr-x3', ?, ?, 0.1, 2, 50, 0.5, 0.4)",
            [(n + 1, at, at + 2.1, at + 53, ROWS // RUNS, at + 0.1) for n, at in enumerate(spawns)],
        )
        connection.executemany(
            "INSERT INTO pictures (batch, path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, reused,"
            " arrived_at, created_at, changed_at) VALUES (?, ?, '1', '1', 1, '1', '1', ?, 'r', 'done', ?, ?, ?, ?)",
            (
                (n // (ROWS // RUNS) + 1, b"%d.jpg" % n, f"{n:064x}", int(n % 20 == 0), at - 5, at, at + 30)
                for n in range(ROWS)
                for at in [spawns[min(n // (ROWS // RUNS), RUNS - 1)] + math.fmod(n, 4)]
            ),
        )
        connection.commit()


PARTS: dict[str, Callable[[Photographs, Path], list[str]]] = {"saving": saving, "meter": meter, "report": report}


def main() -> None:
    """Measure, print, and put the tables into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder of photographs; default: docs/bee.jpg")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--update", type=Path, help="page to put the tables into")
    options = parser.parse_args()
    photographs = Photographs(options.photos)
    about = f"Machine: {figures.machine()}; {figures.versions()}. {datetime.now():%Y-%m-%d}."
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            table = "\n".join([about, "", *PARTS[name](photographs, Path(folder))])
        print(table, end="\n\n")
        if options.update:
            figures.update(options.update, name, table)


if __name__ == "__main__":
    main()
