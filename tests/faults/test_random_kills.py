"""Kills at random moments, of watcher, engine or both, neither lose a picture nor deliver it twice."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from harness import HASTE, HASTY_STUB, QUICK, Running, Site, photo, wait_until
from promise import Promise, real_owner


class Stream:
    """Pictures of all kinds, dropped one after another."""

    def __init__(self, promise: Promise, chance: random.Random) -> None:
        self.failing: set[str] = set()
        self._promise = promise
        self._chance = chance

    def drop(self) -> None:
        number = len(self._promise.originals)
        name, data = f"{number:03}.png", f"picture {number} {self._chance.randbytes(200).hex()} SLOW "
        kind = self._chance.random()
        if kind < 0.1:
            name = f"sub {number % 3}/{name}"
        elif kind < 0.2 and number:
            self._promise.drop(name, self._chance.choice(list(self._promise.originals.values())))
            if b"UNSUPPORTED" in self._promise.originals[name]:
                self.failing.add(name)
            return
        elif kind < 0.3:
            data = f"UNSUPPORTED {data}"
            self.failing.add(name)
        self._promise.drop(name, f"{data}{self._chance.uniform(0.0, 0.1):.3f} ".encode())


def kill(pids: Sequence[int]) -> int:
    """Kill processes; returns how many were there to be killed."""
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def strike(site: Site, running: Running, stream: Stream, chance: random.Random) -> str | None:
    """Kill somebody at some moment; returns whom, or None where the engine was faster."""
    whom = chance.choice(["watcher", "engine", "both"])
    if whom == "watcher":
        # at any moment from its start: recovery, the first look, a window, a batch
        time.sleep(chance.uniform(0.05, 0.5))
        running.kill()
        return whom
    stream.drop()
    wait_until(site.engines, "an engine that can be killed")
    time.sleep(chance.uniform(0.0, 0.15))
    engines = site.engines()
    if whom == "both":
        os.kill(running.pid, signal.SIGKILL)
    killed = kill(engines)
    if whom == "both":
        running.kill()
    return whom if killed else "watcher" if whom == "both" else None


@pytest.fixture
def site_of_one(make_site: Callable[..., Site]) -> Site:
    """All folders on one file system."""
    return make_site(**HASTY_STUB)


@pytest.fixture
def site_of_two(make_site: Callable[..., Site], other_filesystem: Path) -> Site:
    """Archive and failed on another file system: originals are copied."""
    folders = {key: str(other_filesystem / key) for key in ("archive", "failed")}
    for folder in folders.values():
        Path(folder).mkdir()
    site = make_site(**HASTY_STUB, folders=folders)
    site.archive, site.failed = Path(folders["archive"]), Path(folders["failed"])
    return site


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["site_of_one", "site_of_two"])
def test_250_kills_over_a_stream_of_pictures_lose_nothing_and_deliver_nothing_twice(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Kill -9 of watcher, engine or both at random moments: the promise holds, during the stream and after it."""
    site: Site = request.getfixturevalue(kind)
    chance = random.Random(kind)
    promise = Promise(site)
    stream = Stream(promise, chance)
    running = site.start(ready=False)
    kills: Counter[str] = Counter()
    while kills.total() < 250 or len(promise.originals) < 250:
        for _ in range(chance.choice([0, 1, 1, 2])):
            stream.drop()
        whom = strike(site, running, stream, chance)
        promise.check_now()
        if whom is not None:
            kills[whom] += 1
        if running.process.poll() is not None:
            running = site.start(ready=False)
    print(f"{len(promise.originals)} pictures, {len(stream.failing)} of them to fail; kills: {dict(kills)}")
    assert min(kills[whom] for whom in ("watcher", "engine", "both")) >= 40, kills

    stream.drop()
    wait_until(lambda: site.names(site.inbox) == set(), f"the inbox to be empty: {running.log_path}")
    assert running.stop() == 0, running.log()
    promise.check_end(stream.failing)
    assert site.engines() == []


def test_a_killed_engine_is_never_the_fault_of_its_picture(make_site: Callable[..., Site]) -> None:
    """However often the engine is killed over one picture, the picture waits: it was somebody else's doing."""
    site = make_site(**HASTY_STUB)
    promise = Promise(site)
    promise.drop("a.png", b"SLOW 2 a picture")
    running = site.start()
    for _ in range(6):  # more often than engine.attempts allows for a crash
        (engine,) = wait_until(site.engines, "the engine")
        kill([engine])
        wait_until(lambda engine=engine: engine not in site.engines(), "the engine to be gone")
        promise.check_now()
    assert site.names(site.failed) == set()
    wait_until(lambda: site.names(site.archive) == {"a.png"}, "the picture to be delivered")
    assert running.stop() == 0
    promise.check_end()


def test_kills_of_the_real_engine_and_its_watcher_leave_whole_results_only(make_site: Callable[..., Site]) -> None:
    """With the real engine: killed while it decodes, upscales and writes, each result is whole and x3."""
    site = make_site(**HASTE, engine={**QUICK["engine"]})
    chance = random.Random(7)
    promise = Promise(site, real_owner)
    for number in range(4):
        promise.drop(f"{number}.png", photo(number, 160, 120))
    for _ in range(5):
        running = site.start(ready=False)
        wait_until(site.engines, "the engine to start")
        time.sleep(chance.uniform(0.2, 1.0))
        victims = site.engines() if chance.random() < 0.4 else [running.pid]
        kill(victims)
        promise.check_now()
        running.kill()
        if not site.names(site.inbox):
            break
    running = site.start()
    wait_until(lambda: site.names(site.inbox) == set(), f"the inbox to be empty: {running.log_path}")
    assert running.stop() == 0, running.log()
    promise.check_end()
