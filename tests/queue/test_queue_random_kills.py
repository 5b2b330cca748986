"""Kills at random moments, of everything that takes part in the queue: nothing is lost, nothing is done twice."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from harness import Running, wait_until
from machines import QueueSite, RedisServer, command_line
from promise import Promise
from test_both_executors import STAGING

PICTURES = 150
KILLING_SECONDS = 60.0
KINDS = ("worker", "horse", "engine", "watcher", "redis")


class Crew:
    """A watcher, two workers and a Redis server; who was killed is started again."""

    def __init__(self, site: QueueSite, server: RedisServer) -> None:
        self.site, self.server = site, server
        self.workers = [self._worker(), self._worker()]
        self.watcher = site.start()

    def strike(self, whom: str, chance: random.Random) -> bool:
        """Kill one of a kind; whether there was one."""
        if whom == "redis":
            self.server.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            self.server.start()
        elif whom == "watcher":
            self.watcher.kill()
            self.watcher = self.site.start(ready=False)
        elif whom == "worker":
            number = chance.randrange(len(self.workers))
            self.workers[number].kill()
            self.workers[number] = self._worker()
        else:
            pids = self.site.engines() if whom == "engine" else horses_of(self.site)
            if not pids:
                return False
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
        return True

    def _worker(self) -> Running:
        quiet = {"PYTHONWARNINGS": "error,ignore::ResourceWarning"}
        return self.site.start("worker", "--share", str(self.site.root), ready=False, **quiet)


def horses_of(site: QueueSite) -> list[int]:
    """Process ids of all work horses of a site, orphans among them."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == site.root:
                pid = int(entry.name)
                found += [pid] if b"watcher.queue.work_horse" in command_line(pid) else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7])
def test_random_kills_of_all_that_takes_part_lose_nothing_and_deliver_nothing_twice(
    make_queue_site: Callable[..., QueueSite], server: RedisServer, seed: int
) -> None:
    site = make_queue_site(window={"quiet_seconds": 0.05, "max_seconds": 0.5, "max_files": 20})
    promise, chance, kills = Promise(site), random.Random(seed), Counter[str]()
    crew = Crew(site, server)
    failing: set[str] = set()
    started = time.monotonic()
    while (passed := time.monotonic() - started) < KILLING_SECONDS or len(promise.originals) < PICTURES:
        while len(promise.originals) < min(PICTURES, PICTURES * passed / KILLING_SECONDS):
            number = len(promise.originals)
            kind = chance.random()
            bad = kind < 0.05
            twin = promise.originals.get(f"{number - 1}.png") if 0.05 <= kind < 0.1 else None
            words = f"{'UNSUPPORTED' if bad else 'a picture'} {number} SLOW {chance.uniform(0.0, 0.4):.2f} "
            promise.drop(f"{number}.png", twin or words.encode())
            if bad or (twin is not None and b"UNSUPPORTED" in twin):
                failing.add(f"{number}.png")
        whom = chance.choice(KINDS)
        if crew.strike(whom, chance):
            kills[whom] += 1
        promise.check_now()
        time.sleep(chance.uniform(0.1, 1.0))
    print(f"kills: {dict(kills)}")
    assert min(kills[whom] for whom in KINDS) >= 3, kills

    wait_until(lambda: not site.names(site.inbox), f"an empty inbox: {site.root}", 240)
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the last batch to end")
    assert crew.watcher.stop() == 0, crew.watcher.log()
    for worker in crew.workers:
        assert worker.stop() == 0, worker.log()
    assert (site.engines(), horses_of(site)) == ([], []), "nothing outlives its worker"
    assert not (site.outbox / STAGING).exists(), sorted((site.outbox / STAGING).rglob("*"))
    promise.check_end(failing)
    logs = "".join(path.read_text(errors="replace") for path in site.root.glob("run-*.log"))
    assert "the batch was broken off" not in logs
