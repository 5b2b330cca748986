"""A kill at any system call that changes a file neither loses a picture nor delivers it twice.

The watcher is killed at each such call on a file of the site: names, contents, creations, syncs, SQLite's own writes to
the ledger, its log and its index among them. The engine goes on until it sees its stdin close. In runs of their own it
is the engine that is killed, at each of its calls, and every fresh engine of that run, too. Both at once, at random
moments: `test_random_kills.py`.
"""

import itertools
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import HASTY_STUB, Site, command, wait_until
from promise import Promise
from strace import (
    CONTENT,
    NAMES,
    OPENING,
    SYNCS,
    Fault,
    Ground,
    Scene,
    a_picture_that_was_done_before,
    names_that_are_taken,
    needs_strace,
    one_picture_and_one_that_fails,
)

KINDS = {
    "names": NAMES,
    "contents": [*CONTENT, *SYNCS],
    "ledger": ["fdatasync", "ftruncate"],
    "creations": [],
}


class Sweep:
    """Runs of `dropscale once`, each killed at another system call, each on folders of its own."""

    def __init__(self, ground: Ground, *, thorough: bool = False) -> None:
        """Prepare; with `thorough`, run again after everything was finished, too."""
        self._ground = ground
        self._of_engine = ground.of_engine
        self._thorough = thorough

    def kill_at_all(self, kinds: Sequence[str]) -> dict[str, int]:
        """`kill_at_every` of each kind, two kinds at a time."""
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(kinds, pool.map(self.kill_at_every, kinds), strict=True))

    def kill_at_every(self, calls: str) -> int:
        """Kill at the first, second, ... of these calls, until a run ends unharmed; returns how many there were."""
        for number in itertools.count(1):
            assert number < 400, f"{calls}: there seems to be no end"
            if not self.kill_at(calls, number):
                print(f"{calls}: {number - 1} kills")
                return number - 1
        raise AssertionError

    def kill_at_creations(self) -> None:
        """Kill at each `open` that makes a file."""
        numbers = self._ground.creations()
        assert len(numbers) >= 4, "at least the lock, the ledger, its log and a reason are created"
        for number in numbers:
            # a few files fewer are opened where a process ends sooner
            nearby = range(number, max(number - 4, 0), -1)
            assert any(self.kill_at(OPENING, nth) for nth in nearby), f"the {number}th opening was not reached"
        print(f"creations: {len(numbers)} kills")

    def kill_at_kind(self, kind: str) -> None:
        """One of KINDS."""
        if kind == "creations":
            self.kill_at_creations()
        for calls in KINDS[kind]:
            self.kill_at_every(calls)

    def kill_at(self, calls: str, number: int) -> bool:
        """Whether there was a kill. Then another run has to finish everything, and a third to find nothing."""
        site, promise, failing = self._ground.prepare()
        fault = Fault(calls, "signal=SIGKILL", str(number))
        done, trace = self._ground.once(site, fault)
        killed = any("+++ killed by SIGKILL" in line for line in trace)
        try:
            ended = {0, 1, 3} if self._of_engine else {0, 1}
            assert killed or done.returncode in ended, done.stderr
            promise.check_now()
            self._ground.finish(site, promise, failing, 2 if self._of_engine else 1)
            if killed and self._thorough:
                self._ground.finish(site, promise, failing, 1)
        except BaseException as error:
            error.add_note(f"{fault}; it said:\n{done.stderr}")
            error.add_note("\n".join(trace[-5:]))
            raise
        self._ground.remove(site)
        return killed


def test_the_watcher_killed_at_any_change_of_a_name_carries_on(tmp_path: Path) -> None:
    """Killed at each rename, unlink, mkdir, rmdir and link of a run: the next runs finish it, byte for byte."""
    needs_strace()
    sweep = Sweep(Ground(tmp_path, one_picture_and_one_that_fails))
    counts = sweep.kill_at_all(NAMES)
    # result, original, reason, failed original; the folder of the batch, and the one above it
    assert counts["renameat2"] >= 4 and counts["?rmdir"] >= 2 and counts["?mkdir,mkdirat"] >= 4, counts


@pytest.mark.slow
def test_the_watcher_killed_on_the_way_to_another_file_system_carries_on(
    tmp_path: Path, other_filesystem: Path
) -> None:
    """Archive and failed on a tmpfs: killed at each rename and unlink of copy, verify, publish, remove."""
    needs_strace()
    sweep = Sweep(Ground(tmp_path, one_picture_and_one_that_fails, other_filesystem))
    counts = sweep.kill_at_all(["renameat2", "?rename,?renameat", "?unlink,unlinkat"])
    assert counts["?rename,?renameat"] >= 2, f"both originals are taken out of reach before they are removed: {counts}"


LACKING = [
    pytest.param(("renameat2",), ("?link,linkat", "?rename,?renameat"), id="no exclusive rename"),
    pytest.param(("renameat2", "?link,linkat"), ("?rename,?renameat",), id="nor links"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("lacking", "used"), LACKING)
def test_the_watcher_killed_at_each_step_on_a_file_system_that_lacks_calls_carries_on(
    tmp_path: Path, lacking: tuple[str, ...], used: tuple[str, ...]
) -> None:
    """The complete sweep without renameat2, and without links, too."""
    needs_strace()
    sweep = Sweep(Ground(tmp_path, names_that_are_taken, lacking=lacking), thorough=True)
    counts = {calls: sweep.kill_at_every(calls) for calls in [*used, "?unlink,unlinkat", "fsync", "write", "utimensat"]}
    assert min(counts[calls] for calls in used) >= 2, counts


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", [names_that_are_taken, a_picture_that_was_done_before])
@pytest.mark.parametrize("kind", KINDS)
def test_the_watcher_killed_at_each_step_carries_on(tmp_path: Path, scene: Scene, kind: str) -> None:
    """The complete sweep on one file system: every call that changes a file."""
    needs_strace()
    Sweep(Ground(tmp_path, scene), thorough=kind != "ledger").kill_at_kind(kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_the_watcher_killed_at_each_step_across_file_systems_carries_on(
    tmp_path: Path, other_filesystem: Path, kind: str
) -> None:
    """The complete sweep with archive and failed on another file system."""
    needs_strace()
    Sweep(Ground(tmp_path, names_that_are_taken, other_filesystem), thorough=kind != "ledger").kill_at_kind(kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_watcher_killed_at_each_write_of_its_ledger_carries_on(tmp_path: Path) -> None:
    """Half-written transactions. In other scenes the kill at its sync stands for all writes of one."""
    needs_strace()
    counts = Sweep(Ground(tmp_path, one_picture_and_one_that_fails)).kill_at_all(["?pwrite64"])
    assert counts["?pwrite64"] > 30, counts


@pytest.mark.slow
def test_the_engine_killed_at_each_step_blames_no_picture(tmp_path: Path) -> None:
    """Killed where it opens, reads, writes and syncs; so is each fresh engine of that run."""
    needs_strace()
    sweep = Sweep(Ground(tmp_path, names_that_are_taken, of_engine=True), thorough=True)
    counts = {calls: sweep.kill_at_every(calls) for calls in (OPENING, "read", "write", "fsync")}
    assert min(counts.values()) >= 1, counts


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "step"), [("?pwrite64", 4), ("fdatasync", 1), ("fsync", 1)])
def test_the_watcher_killed_while_it_makes_its_ledger_begins_anew(tmp_path: Path, calls: str, step: int) -> None:
    """The first start of all, killed at each sync of the new ledger, and at some of the writes between them."""
    needs_strace()
    number = 1
    while True:
        site = Site(tmp_path / str(number), **HASTY_STUB)
        promise = Promise(site)
        promise.drop("a.png", b"a picture")
        once = [command(), "once", "--config", str(site.config_path)]
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}"]
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", os.devnull, *inject, *once],
            check=False,
            cwd=site.root,
            env=site.environment,
            capture_output=True,
            timeout=120,
        )
        wait_until(lambda site=site: not site.engines(), "the engine to end with its watcher")
        assert site.once().returncode == 0
        promise.check_end()
        if done.returncode == 0:
            break
        number += step
    assert number > 3
    print(f"{calls}: {(number - 1) // step} kills")
