"""What the watcher costs: at rest, per file of a large drop, from a settled picture to the engine, and in the long run.

    python benchmarks/watching.py [rest] [drop] [latency] [soak]

The engine is the tests' stub, a real child process that copies instead of upscaling, so that only the watcher is
measured. Linux only: figures come from /proc. Prints Markdown tables for docs/benchmarks.md.
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

STUB = Path(__file__).resolve().parent.parent / "tests" / "engines" / "stub.py"
TICKS = os.sysconf("SC_CLK_TCK")
REST_SECONDS = 60
ARCHIVED = 1000
DROPS = (2500, 5000, 10000)
ROUNDS = 20
SOAK, SOAK_STEP, WAVE = 10_000, 2_000, 250
SETTLE_SECONDS, QUIET_SECONDS = 0.5, 1.0


class Site:
    """Folders in a temporary directory with a `dropscale run` over them."""

    def __init__(self, root: Path, **window: float) -> None:
        self.root = root
        for name in ("inbox", "outbox", "archive", "failed"):
            (root / name).mkdir()
        config = {
            "folders": {"state": "state"},
            "watch": {"settle_seconds": SETTLE_SECONDS},
            "window": {"quiet_seconds": QUIET_SECONDS, **window},
            "engine": {"command": [sys.executable, "-P", str(STUB)]},
        }
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        self.log = root / "log"

    def __enter__(self) -> "Site":
        command = str(Path(sys.executable).parent / "dropscale")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [command, "run", "--log-format", "json", "--verbose"],
                cwd=self.root,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        wait_until(lambda: any(event["event"] == "watching" for event in self.events()))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def events(self) -> list[dict[str, Any]]:
        """All complete lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def cpu_seconds(self) -> float:
        """User and system time of the watcher itself."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_megabytes(self) -> float:
        """Resident set of the watcher, in 10^6 bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def rest(root: Path) -> None:
    """A minute with nothing to do, after one batch."""
    site = Site(root)
    for number in range(ARCHIVED):
        (root / "archive" / f"{number}.jpg").write_bytes(b"archived %d" % number)
    with site:
        (root / "inbox" / "one.jpg").write_bytes(b"a picture")
        wait_until((root / "archive" / "one.jpg").exists)
        wait_until(lambda: any(event["event"] == "engine_ended" for event in site.events()))
        time.sleep(2)
        cpu, begun = site.cpu_seconds(), time.monotonic()
        time.sleep(REST_SECONDS)
        share = (site.cpu_seconds() - cpu) / (time.monotonic() - begun)
        megabytes = site.resident_megabytes()
    print(f"| at rest, {ARCHIVED:,} files in the archive, after a batch | value | bound |\n|---|---|---|")
    print(f"| share of one core over {REST_SECONDS} s | {share:.3%} | 0.2 % |")
    print(f"| resident memory | {megabytes:.1f} MB | 30 MB |\n")


def drop(root: Path) -> None:
    """Files dropped at once: all admitted, none lost, and what each costs."""
    print("| files dropped at once | delivered | watcher CPU per file | against the first row |\n|---|---|---|---|")
    first = 0.0
    for count in DROPS:
        folder = root / str(count)
        folder.mkdir()
        with Site(folder, max_files=1000) as site:
            before = site.cpu_seconds()
            for number in range(count):
                (folder / "inbox" / f"{number}.jpg").write_bytes(b"picture %d" % number)
            archive = folder / "archive"
            wait_until(lambda archive=archive, count=count: len(os.listdir(archive)) >= count, patience=1800)
            wait_until(lambda site=site: site.events()[-1]["event"] == "batch")
            each = (site.cpu_seconds() - before) / count
            delivered = len([name for name in os.listdir(folder / "outbox") if not name.startswith(".")])
        first = first or each
        print(f"| {count:,} | {delivered:,} | {each * 1e3:.2f} ms | {each / first:.2f} |", flush=True)
    print()


def latency(root: Path) -> None:
    """From the second look, which found a picture whole, to the engine's start, beyond `quiet_seconds`."""
    beyond = []
    with Site(root) as site:
        for number in range(ROUNDS):
            (root / "inbox" / f"{number}.jpg").write_bytes(b"picture %d" % number)
            wait_until(lambda number=number: (root / "archive" / f"{number}.jpg").exists())
            times = {event["event"]: datetime.fromisoformat(event["time"]) for event in site.events()}
            beyond.append((times["engine_started"] - times["settled"]).total_seconds() - QUIET_SECONDS)
    print("| settled to engine spawned, beyond quiet_seconds | ms | bound |\n|---|---|---|")
    print(f"| median of {ROUNDS} | {statistics.median(beyond) * 1e3:.0f} | 100 |")
    print(f"| largest | {max(beyond) * 1e3:.0f} | 100 |\n")


def soak(root: Path) -> None:
    """Pictures one after another through one watcher: whether it gets slower or larger with what it has done."""
    print("| pictures so far | a second, against the first row | watcher CPU per picture, against it | resident |")
    print("|---|---|---|---|")
    rows: list[tuple[float, float]] = []
    with Site(root, max_files=200, quiet_seconds=0.05) as site:
        for start in range(0, SOAK, SOAK_STEP):
            cpu, begun = site.cpu_seconds(), time.monotonic()
            for number in range(start, start + SOAK_STEP):
                if number % WAVE == 0:
                    wait_until(lambda: len(os.listdir(root / "inbox")) < WAVE)
                (root / "inbox" / f"{number}.jpg").write_bytes(b"picture %d" % number)
            wait_until(lambda: not os.listdir(root / "inbox"))
            rows.append((SOAK_STEP / (time.monotonic() - begun), (site.cpu_seconds() - cpu) / SOAK_STEP))
            rate, each = (now / first for now, first in zip(rows[-1], rows[0], strict=True))
            done = start + SOAK_STEP
            print(f"| {done:,} | {rate:.2f} | {each:.2f} | {site.resident_megabytes():.1f} MB |", flush=True)
    print(f"\nThe first row: {rows[0][0]:.0f} pictures a second, {rows[0][1] * 1e3:.2f} ms of CPU each.\n")


def wait_until(condition: Callable[[], Any], patience: float = 120) -> None:
    """Poll a condition."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.05)


def machine() -> str:
    """The processor and what runs on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def main(names: list[str]) -> None:
    """Run the benchmarks that were named, or all."""
    print(f"Machine: {machine()}\n")
    for benchmark in (rest, drop, latency, soak):
        if not names or benchmark.__name__ in names:
            with tempfile.TemporaryDirectory() as folder:
                benchmark(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
