"""A kill at any system call that changes a file neither loses a picture nor delivers it twice."""

import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import HASTY_STUB, Site, command, wait_until
from promise import Promise


def needs_strace() -> None:
    """Skip where a process cannot be killed at a chosen system call."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: it kills at a chosen system call")
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=unlink,unlinkat"]
    done = subprocess.run([*probe, "true"], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"strace may not trace here: {done.stderr.decode(errors='replace').strip()}")


# Everything that changes files, in groups of which each machine uses one member. `write` is for copies and reasons.
NAMES = ["renameat2", "?unlink,unlinkat", "?mkdir,mkdirat", "?rmdir", "?link,linkat", "?rename,?renameat"]
SYNCS = ["fsync", "fdatasync"]
CONTENT = ["?pwrite64", "write", "utimensat", "?chmod,fchmodat"]

Finished = subprocess.CompletedProcess[str]
Scene = Callable[[Promise], set[str]]


def one_picture_and_one_that_fails(promise: Promise) -> set[str]:
    promise.drop("sub/a.png", b"a picture")
    promise.drop("b.png", b"UNSUPPORTED")
    return {"b.png"}


def names_that_are_taken(promise: Promise) -> set[str]:
    """Three pictures of two contents, and files of the user's at every name that they would get."""
    promise.drop("a.png", b"a picture")
    promise.drop("twin.png", b"a picture")
    promise.drop("b.png", b"UNSUPPORTED")
    site = promise.site
    promise.place(site.failed / "b.png", b"an earlier b")
    promise.place(site.failed / "b.png.reason.txt", b"an earlier reason")
    promise.place(site.archive / "a.png", b"an earlier a")
    return {"b.png"}


class Sweep:
    """Runs of `dropscale once`, each killed at another system call, each on folders of its own."""

    def __init__(
        self,
        root: Path,
        scene: Scene,
        elsewhere: Path | None = None,
        lacking: Sequence[str] = (),
        *,
        thorough: bool = False,
    ) -> None:
        """Prepare.

        Args:
            root: a folder for the runs.
            scene: drops the pictures; returns the names of those that have to fail.
            elsewhere: a folder on another file system, for archive and failed.
            lacking: system calls that the file systems of this sweep do not have.
            thorough: run again after everything was finished, too.
        """
        self._numbers = itertools.count()
        self._root = root
        self._scene = scene
        self._elsewhere = elsewhere
        self._lacking = lacking
        self._thorough = thorough
        self._template = self._site("template")
        assert self._template.once().returncode == 0  # the ledger is there: its making has a test of its own

    def kill_at_all(self, kinds: Sequence[str]) -> dict[str, int]:
        """`kill_at_every` of each kind, two kinds at a time."""
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(kinds, pool.map(self.kill_at_every, kinds), strict=True))

    def kill_at_every(self, calls: str, first: int = 1) -> int:
        """Kill at the first, second, ... of these calls, until a run ends unharmed; returns how many there were."""
        number = first
        while self.kill_at(calls, number):
            number += 1
            assert number < 400, f"{calls}: there seems to be no end"
        return number - first

    def kill_at_creations(self) -> int:
        """Kill at each `open` that makes a file of ours; they are told from hundreds of others by a first run."""
        site, _, _ = self._prepare("openat")
        trace = site.root / "trace"
        done = self._once(site, trace, "openat")
        assert done.returncode in {0, 1}, done.stderr
        lines = trace.read_text(errors="replace").splitlines()
        main = lines[0].split()[0]
        own = [line for line in lines if line.split()[0] == main and "openat(" in line]
        folders = (site.root, *([self._elsewhere] if self._elsewhere else []))
        numbers = [
            number
            for number, line in enumerate(own, 1)
            if "O_CREAT" in line and any(f'"{folder}' in line for folder in folders)
        ]
        assert len(numbers) >= 4, "at least the lock, the ledger, its log and a reason are created"
        for number in numbers:
            assert self.kill_at("openat", number), f"the {number}th openat was not reached"
        return len(numbers)

    def kill_at(self, calls: str, number: int) -> bool:
        """Whether the run was killed there. Then another one has to finish everything, and a third to find nothing."""
        site, promise, failing = self._prepare(re.sub(r"\W", "", calls))
        trace = site.root / "trace"
        done = self._once(site, trace, calls, f"signal=SIGKILL:when={number}")
        killed = done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
        where = f"killed at {calls} number {number}"
        assert killed or done.returncode in {0, 1}, f"{where}: {done.stderr}"
        try:
            promise.check_now()
            wait_until(lambda: not site.engines(), "the engine to end with its watcher")
            for attempt in range(2):
                if attempt and not self._thorough and not site.names(site.inbox):
                    break
                again = self._once(site)
                assert again.returncode in {0, 1}, again.stderr
                promise.check_now()
            promise.check_end(failing)
        except BaseException as error:
            error.add_note(f"{where}; then:\n{done.stderr}{again.stderr if 'again' in locals() else ''}")
            error.add_note("\n".join(trace.read_text(errors="replace").splitlines()[-5:]))
            raise
        self._remove(site)
        return killed

    def _prepare(self, name: str) -> tuple[Site, Promise, set[str]]:
        site = self._site(f"{next(self._numbers)}-{name}")
        shutil.copytree(self._template.state, site.state)
        promise = Promise(site, placeholders="?link,linkat" in self._lacking)
        return site, promise, self._scene(promise)

    def _site(self, name: str) -> Site:
        folders = {}
        if self._elsewhere:
            folders = {key: str(self._elsewhere / name / key) for key in ("archive", "failed")}
        site = Site(self._root / name, **HASTY_STUB, folders=folders)
        for key, folder in folders.items():
            Path(folder).mkdir(parents=True)
            getattr(site, key).rmdir()
            setattr(site, key, Path(folder))
        return site

    def _once(self, site: Site, trace: Path | None = None, calls: str = "", fate: str = "") -> Finished:
        once = [command(), "once", "--config", str(site.config_path)]
        if calls or self._lacking:
            traced = ",".join([calls] * bool(calls) + [call for call in self._lacking if call != calls])
            faults = [
                *([f"{calls}:{fate}"] if fate else []),
                *(f"{call}:error={ERRORS[call]}" for call in self._lacking),
            ]
            injected = [option for fault in faults for option in ("-e", f"inject={fault}")]
            once = ["strace", "-f", "-qq", "-o", str(trace or os.devnull), "-e", f"trace={traced}", *injected, *once]
        return subprocess.run(
            once,
            check=False,
            cwd=site.root,
            env=site.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )

    def _remove(self, site: Site) -> None:
        shutil.rmtree(site.root)
        if self._elsewhere:
            shutil.rmtree(site.archive.parent)


def test_the_watcher_killed_at_any_change_of_a_name_carries_on(tmp_path: Path) -> None:
    """Killed at each rename, unlink, mkdir, rmdir and link of a run: the next runs finish it, byte for byte."""
    needs_strace()
    sweep = Sweep(tmp_path, one_picture_and_one_that_fails)
    counts = sweep.kill_at_all(NAMES)
    # result, original, reason, failed original; the folder of the batch, and the one above it
    assert counts["renameat2"] >= 4 and counts["?rmdir"] >= 2 and counts["?mkdir,mkdirat"] >= 4, counts


def test_the_watcher_killed_on_the_way_to_another_file_system_carries_on(
    tmp_path: Path, other_filesystem: Path
) -> None:
    """Archive and failed on a tmpfs: killed at each rename and unlink of copy, verify, publish, remove."""
    needs_strace()
    sweep = Sweep(tmp_path, one_picture_and_one_that_fails, other_filesystem)
    counts = sweep.kill_at_all(["renameat2", "?rename,?renameat", "?unlink,unlinkat"])
    assert counts["?rename,?renameat"] >= 2, f"both originals are taken out of reach before they are removed: {counts}"


# What file systems can lack, how FAT and network shares say so, and the calls that are used instead.
ERRORS = {"renameat2": "EINVAL", "?link,linkat": "EPERM"}
LACKING = [
    pytest.param(("renameat2",), ("?link,linkat", "?rename,?renameat"), id="no exclusive rename"),
    pytest.param(("renameat2", "?link,linkat"), ("?rename,?renameat",), id="nor links"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("lacking", "used"), LACKING)
def test_the_watcher_killed_on_a_file_system_that_lacks_calls_carries_on(
    tmp_path: Path, lacking: tuple[str, ...], used: tuple[str, ...]
) -> None:
    """Without renameat2 (network shares), and without links, too (FAT): killed at each call that stands in for them."""
    needs_strace()
    sweep = Sweep(tmp_path, one_picture_and_one_that_fails, lacking=lacking)
    counts = sweep.kill_at_all(used)
    assert min(counts.values()) >= 2, counts


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("lacking", "used"), LACKING)
@pytest.mark.parametrize("scene", [one_picture_and_one_that_fails, names_that_are_taken])
def test_the_watcher_killed_at_each_step_on_a_file_system_that_lacks_calls_carries_on(
    tmp_path: Path, scene: Scene, lacking: tuple[str, ...], used: tuple[str, ...]
) -> None:
    """The complete sweep without renameat2, and without links, too."""
    needs_strace()
    sweep = Sweep(tmp_path, scene, lacking=lacking, thorough=True)
    print(sweep.kill_at_all([*used, "?unlink,unlinkat", "fsync", "write", "utimensat"]))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", [one_picture_and_one_that_fails, names_that_are_taken])
@pytest.mark.parametrize("calls", [*NAMES, *SYNCS, *CONTENT, "creations"])
def test_the_watcher_killed_at_each_step_carries_on(tmp_path: Path, scene: Scene, calls: str) -> None:
    """The complete sweep on one file system: every call that changes a file."""
    needs_strace()
    sweep = Sweep(tmp_path, scene, thorough=True)
    points = sweep.kill_at_creations() if calls == "creations" else sweep.kill_at_every(calls)
    print(f"{scene.__name__}, {calls}: {points} points")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", [one_picture_and_one_that_fails, names_that_are_taken])
@pytest.mark.parametrize("calls", [*NAMES, *SYNCS, *CONTENT, "creations"])
def test_the_watcher_killed_at_each_step_across_file_systems_carries_on(
    tmp_path: Path, other_filesystem: Path, scene: Scene, calls: str
) -> None:
    """The complete sweep with archive and failed on another file system."""
    needs_strace()
    sweep = Sweep(tmp_path, scene, other_filesystem, thorough=True)
    points = sweep.kill_at_creations() if calls == "creations" else sweep.kill_at_every(calls)
    print(f"{scene.__name__}, {calls}: {points} points")


@pytest.mark.slow
@pytest.mark.parametrize("calls", ["?pwrite64", "fdatasync", "fsync"])
def test_the_watcher_killed_while_it_makes_its_ledger_begins_anew(tmp_path: Path, calls: str) -> None:
    """The first start of all, killed at each write of the new ledger."""
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
        number += 1
    assert number > 3
