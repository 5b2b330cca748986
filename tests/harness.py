"""A place of its own for each test: folders, a config with short times, and the installed command.

The tests drive `dropscale` as a user does: real files, real child processes, and conditions that are polled with a
deadline instead of sleeps.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STUB_ENGINE = [sys.executable, "-P", str(ROOT / "tests" / "engines" / "stub.py")]
PATIENCE_SECONDS = 60.0

# Short enough to test with, long enough for a slow machine not to take a pause for an end.
QUICK: dict[str, dict[str, Any]] = {
    "watch": {"settle_seconds": 0.1, "rescan_seconds": 300, "poll_seconds": 0.3, "incomplete_seconds": 0.5},
    "window": {"quiet_seconds": 0.1, "max_seconds": 2},
    "engine": {"start_seconds": 20, "deadline_seconds": 20, "grace_seconds": 10},
    "retry": {"first_seconds": 0.3, "max_seconds": 1},
}

# Shorter still, for tests of many runs.
HASTE: dict[str, dict[str, Any]] = {
    "watch": {**QUICK["watch"], "settle_seconds": 0.05, "incomplete_seconds": 0.1},
    "window": {"quiet_seconds": 0.05, "max_seconds": 0.3, "max_files": 6},
    "retry": {"first_seconds": 0.05, "max_seconds": 0.2},
}
HASTY_STUB: dict[str, dict[str, Any]] = {**HASTE, "engine": {**QUICK["engine"], "command": STUB_ENGINE}}


def command() -> str:
    """The installed console script of the Python that runs the tests."""
    found = shutil.which("dropscale", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail("the command dropscale is not installed: pip install -e '.[test]'")
    return found


def dropscale(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The bare command in a folder, without a config unless there is one."""
    done = subprocess.run(
        [command(), *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def complaint(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one message of a command that refused: its first line says what, perhaps with a remedy below."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("dropscale: ")
    assert sum(line.startswith("dropscale: ") for line in lines) == 1
    return done.stderr


def photo(seed: int, width: int = 48, height: int = 32, extension: str = ".png") -> bytes:
    """A small photograph-like picture: smooth, with an edge and some noise; every seed another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(picture, (width // 2, height // 2), min(width, height) // 4, (20, 40, 220), -1)
    noise = rng.integers(0, 6, picture.shape, dtype=np.uint8)
    return bytes(cv2.imencode(extension, cv2.add(picture, noise))[1])


def below(folder: Path) -> Iterator[Path]:
    """Every file below a folder; unlike rglob it does not mind folders that vanish while it looks."""
    return (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def everything_below(folder: Path) -> set[str]:
    """Relative path of every file and folder below a folder, while others make and remove them."""
    found = set()
    for parent, folders, names in os.walk(folder):
        found |= {str(Path(parent, name).relative_to(folder)) for name in (*folders, *names)}
    return found


def stub_result(data: bytes) -> bytes:
    """What the stub engine makes of a picture."""
    return b"RESULT " + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE_SECONDS) -> Any:
    """Poll until the condition is truthy, and return it; fail with `what` when patience ends."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            pytest.fail(f"waited {patience:g} s in vain: {what}")
        time.sleep(0.02)


class Running:
    """A `dropscale run` in the background."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log_path = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, signal_number: int = signal.SIGTERM, patience: float = PATIENCE_SECONDS) -> int:
        """Ask it to stop and wait; returns its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(patience)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Site:
    """Inbox, outbox, archive, failed and state of one test, with the commands over them."""

    def __init__(self, root: Path, **overrides: Any) -> None:
        self.root = root
        self.config_path = root / "config.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.configure(**overrides)
        self.inbox, self.outbox = root / "inbox", root / "outbox"
        self.archive, self.failed, self.state = root / "archive", root / "failed", root / "state"
        for folder in (self.inbox, self.outbox, self.archive, self.failed):
            folder.mkdir(exist_ok=True)
        self.environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
        self.command = [command()]  # what `start` puts before the verb
        self._running: list[Running] = []

    def configure(self, **overrides: Any) -> None:
        """Write the config: QUICK, with keys of sections replaced; lists as they are."""
        lists = {key: value for key, value in overrides.items() if isinstance(value, list)}
        sections = {*QUICK, *overrides} - lists.keys()
        tree = {section: {**QUICK.get(section, {}), **overrides.get(section, {})} for section in sections} | lists
        tree["folders"] = {"state": "state", **tree.get("folders", {})}
        self.config_path.write_text(yaml.safe_dump(tree))

    def drop(self, name: str, data: bytes) -> Path:
        """Write a file into the inbox, the way a copy does."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def run(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """One command to its end, which no traceback may be part of."""
        done = subprocess.run(
            [command(), *arguments, "--config", str(self.config_path)],
            check=False,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=options.pop("timeout", 120),
            **options,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def once(self) -> "subprocess.CompletedProcess[str]":
        return self.run("once")

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def start(self, verb: str = "run", *arguments: str, ready: bool = True, **environment: str) -> Running:
        """`dropscale run`, or another command, in the background; returns when it watches."""
        log = self.root / f"run-{len(self._running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command, verb, *arguments, "--config", str(self.config_path)],
                cwd=self.root,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        running = Running(process, log)
        self._running.append(running)
        if ready:
            wait_until(
                lambda: "watching " in running.log() or process.poll() is not None, f"the watcher to watch: {log}"
            )
            assert process.poll() is None, running.log()
        return running

    def close(self) -> None:
        """End what the test left running, by its own process ids; no log may hold a traceback."""
        for running in self._running:
            if running.process.poll() is None:
                running.kill()
        for pid in self.engines():
            os.kill(pid, signal.SIGKILL)
        for running in self._running:
            assert "Traceback" not in running.log(), running.log()

    def engines(self) -> list[int]:
        """Process ids of the engines that work for this site: children that read from its folders."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                cwd = os.readlink(entry / "cwd")
            except OSError:
                continue
            ours = b"sr_engine" in line or any(b"engines" in part for part in line)
            is_engine = b"--models-folder" in line and ours
            if is_engine and state != "Z" and Path(cwd) == self.root:
                found.append(int(entry.name))
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the ledger, which may not be there yet."""
        path = self.state / "ledger.sqlite3"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        """Change the ledger behind everybody's back."""
        with contextlib.closing(sqlite3.connect(self.state / "ledger.sqlite3", timeout=30)) as connection:
            assert connection.execute(sql).rowcount > 0
            connection.commit()

    def upscaled(self) -> list[int]:
        """How many pictures each engine that was started upscaled, oldest first."""
        return [int(done) for (done,) in self.query("SELECT done FROM engine_runs ORDER BY id")]

    @staticmethod
    def files(folder: Path) -> dict[str, bytes]:
        """Content of every file below a folder, by relative path; hidden ones, too."""
        found = {}
        for path in sorted(below(folder)):
            with contextlib.suppress(FileNotFoundError):  # gone since
                if path.is_file() and not path.is_symlink():
                    found[str(path.relative_to(folder))] = path.read_bytes()
        return found

    def names(self, folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in below(folder) if path.is_file()}

    def contents(self, *folders: Path) -> list[str]:
        """SHA-256 of every file in the folders."""
        return [hashlib.sha256(data).hexdigest() for folder in folders for data in self.files(folder).values()]
