"""Runs of `dropscale once` beneath strace, which kills or reports errors at a chosen system call on a site's own files.

strace looks at calls on given paths only (its -P), and counts only those: so a number names the same call whatever
Python imports. The paths are those that an unharmed run touches.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import HASTY_STUB, QUICK, STUB_ENGINE, Site, command, wait_until
from promise import Promise

# Everything that changes files, in groups of which each machine uses one member.
NAMES = ["renameat2", "?unlink,unlinkat", "?mkdir,mkdirat", "?rmdir", "?link,linkat", "?rename,?renameat"]
OPENING = "?open,openat"  # to read, or to create
SYNCS = ["fsync"]
CONTENT = ["write", "?utimensat,?chmod,?fchmod,fchmodat,?chown,?fchown,?setxattr,?lsetxattr"]
LEDGER = ["?pwrite64", "fdatasync", "ftruncate"]  # SQLite's own; it makes and removes its files by the calls above

QUICKLY = ["--seccomp-bpf"]  # only the calls that are traced are slow; needs strace 5.4

EARLIER = b"a picture that is in the archive already"

# What file systems can lack, and how FAT and network shares say so.
LACKING = {"renameat2": "EINVAL", "?link,linkat": "EPERM"}

Finished = subprocess.CompletedProcess[str]
Scene = Callable[[Promise], set[str]]


def needs_strace() -> None:
    """Skip where no call can be chosen at which a process is to be killed, or to be told of an error."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: it kills, or reports an error, at a chosen system call")
    for options in (["-b", "execve"], QUICKLY):
        probe = ["strace", "-f", *options, "-qq", "-o", os.devnull, "-P", os.devnull, sys.executable, "-V"]
        done = subprocess.run(probe, check=False, capture_output=True)
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip()
            pytest.skip(f"strace may not trace here, or is older than 5.4: {why}")


def one_picture_and_one_that_fails(promise: Promise) -> set[str]:
    promise.drop("sub/a.png", b"a picture")
    promise.drop("b.png", b"UNSUPPORTED")
    return {"b.png"}


def names_that_are_taken(promise: Promise) -> set[str]:
    """Three pictures of two contents, and files of the user's at names that two of them would get."""
    promise.drop("sub/a.png", b"a picture")
    promise.drop("twin.png", b"a picture")
    promise.drop("b.png", b"UNSUPPORTED")
    site = promise.site
    promise.place(site.failed / "b.png", b"an earlier b")
    promise.place(site.failed / "b.png.reason.txt", b"an earlier reason")
    promise.place(site.archive / "twin.png", b"an earlier twin")
    return {"b.png"}


def a_picture_that_was_done_before(promise: Promise) -> set[str]:
    """Its earlier result is copied, without an engine."""
    promise.drop("again.png", EARLIER)
    return set()


class Fault(NamedTuple):
    """What strace does.

    Attributes:
        calls: system calls, as strace names them.
        fate: for example `signal=SIGKILL` or `error=EIO`.
        when: at which of them, counted for each call and thread apart: `3`; `3+` is that and all later ones.
        below: only in that folder of the site: "inbox", "outbox", "archive" or "failed".
    """

    calls: str
    fate: str
    when: str
    below: str = ""

    def __str__(self) -> str:
        return f"{self.calls}, {self.fate}, number {self.when} {self.below and f'in {self.below}'}"


class Ground:
    """Sites of one scene, each the same as the others but for its folder, and runs on them."""

    def __init__(
        self,
        root: Path,
        scene: Scene,
        elsewhere: Path | None = None,
        lacking: Sequence[str] = (),
        *,
        of_engine: bool = False,
    ) -> None:
        """Prepare.

        Args:
            root: a folder for the runs.
            scene: drops the pictures; returns the names of those that have to fail.
            elsewhere: a folder on another file system, for archive and failed.
            lacking: system calls that the file systems have not, see LACKING.
            of_engine: faults are for the engine, else for the watcher; never for both.
        """
        self._numbers = itertools.count()
        self._root = root
        self._scene = scene
        self._elsewhere = elsewhere
        self._lacking = lacking
        self.of_engine = of_engine
        self._template = self._site("template")  # with a ledger: its making has a test of its own
        self._template.drop("earlier.png", EARLIER)
        done = self._template.once()
        assert done.returncode == 0, done.stderr
        self._touched = self._find_touched()

    def prepare(self) -> tuple[Site, Promise, set[str]]:
        """A new site, with the pictures of the scene; the names of those that must fail."""
        site = self._site(f"{next(self._numbers):04}")
        for key in ("state", "outbox", "archive"):
            shutil.copytree(getattr(self._template, key), getattr(site, key), dirs_exist_ok=True)
        promise = Promise(site, placeholders="?link,linkat" in self._lacking)
        promise.originals["earlier.png"] = EARLIER
        return site, promise, self._scene(promise)

    def once(self, site: Site, fault: Fault | None = None) -> tuple[Finished, list[str]]:
        """`dropscale once`, with a fault or without; what strace saw of the calls that it was at."""
        if fault is None:
            return self._run(site, self._as_lacking()), []
        trace = site.root.with_suffix(".trace")
        trace.unlink(missing_ok=True)
        touched = [path for path in self._touched if f"/{fault.below}" in f"{path}/"]
        paths = [option for path in touched for option in ("-P", path.format(**_folders(site)))]
        calls = [*fault.calls.split(","), *self._lacking]
        inject = ["-e", f"trace={','.join(calls)}", "-e", f"inject={fault.calls}:{fault.fate}:when={fault.when}"]
        strace = ["strace", "-f", "-qq", "-A", "-o", str(trace), *paths, *inject, *self._lacks()]
        if self.of_engine:
            # a kill at a call is not seen by a strace that is quick
            self._let_run_engine(site, strace if "SIGKILL" in fault.fate else [*strace, *QUICKLY])
            done = self._run(site, self._as_lacking())
            self._let_run_engine(site, [])
        else:
            done = self._run(site, [*strace, "-b", "execve"])  # not QUICKLY: who leaves strace keeps its filter
        return done, trace.read_text(errors="replace").splitlines() if trace.exists() else []

    def creations(self) -> list[int]:
        """Which of the calls OPENING create a file."""
        site, _, _ = self.prepare()
        _, trace = self.once(site, Fault(OPENING, "delay_enter=0", "1"))
        seen: Counter[str] = Counter()
        found = []
        for thread, call in (line.split(maxsplit=1) for line in trace):
            if "openat(" in call or "open(" in call:
                seen[thread] += 1
                if "O_CREAT" in call:
                    found.append(seen[thread])
        self.remove(site)
        return sorted(set(found))

    def finish(self, site: Site, promise: Promise, failing: set[str], runs: int) -> str:
        """Undisturbed runs until nothing is in the inbox, at most so many; returns what they said."""
        wait_until(lambda: not site.engines(), "the engine to end with its watcher")
        said = ""
        for _ in range(runs):
            done, _ = self.once(site)
            said += done.stderr
            assert done.returncode in {0, 1, 3}, done.stderr
            promise.check_now()
            if is_over(site):
                break
            wait_until(lambda: not is_waiting(site), "the time to wait to be over")
        promise.check_end(failing)
        return said

    def remove(self, site: Site) -> None:
        """The runs of a site are over."""
        shutil.rmtree(site.root)
        site.root.with_suffix(".trace").unlink(missing_ok=True)
        if self._elsewhere:
            shutil.rmtree(site.archive.parent)

    def _site(self, name: str) -> Site:
        folders = {}
        if self._elsewhere:
            folders = {key: str(self._elsewhere / name / key) for key in ("archive", "failed")}
        site = Site(self._root / name, **HASTY_STUB, folders=folders)
        for key, folder in folders.items():
            Path(folder).mkdir(parents=True)
            getattr(site, key).rmdir()
            setattr(site, key, Path(folder))
        site.environment["STUB"] = "NAMED"  # or nobody could tell strace what results are called
        return site

    def _let_run_engine(self, site: Site, before: list[str]) -> None:
        folders = {}
        if self._elsewhere:
            folders = {key: str(getattr(site, key)) for key in ("archive", "failed")}
        site.configure(
            **{**HASTY_STUB, "engine": {**QUICK["engine"], "command": [*before, *STUB_ENGINE]}}, folders=folders
        )

    def _find_touched(self) -> list[str]:
        site, promise, _ = self.prepare()
        trace = site.root.with_suffix(".trace")
        strace = ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", str(trace), "-e", "trace=file,desc", *self._lacks()]
        done = self._run(site, strace)
        assert done.returncode in {0, 1}, done.stderr
        text = trace.read_text(errors="replace")
        found = set()
        for key, folder in _folders(site).items():
            for path in re.findall(f'["<]{re.escape(folder)}(|/[^">]*[^/">\\\\])/?[">]', text):
                if path != "/config.yaml":  # an unreadable config is a fault of its own kind
                    found.add(f"{{{key}}}{path}")
        promise.check_now()
        self.remove(site)
        return sorted(found)

    def _lacks(self) -> list[str]:
        return [option for call in self._lacking for option in ("-e", f"inject={call}:error={LACKING[call]}")]

    def _as_lacking(self) -> list[str]:
        if not self._lacking:
            return []
        calls = f"trace={','.join(self._lacking)}"
        return ["strace", "-f", "-qq", *QUICKLY, "-o", os.devnull, "-e", calls, *self._lacks()]

    @staticmethod
    def _run(site: Site, before: Sequence[str]) -> Finished:
        return subprocess.run(
            [*before, command(), "once", "--config", str(site.config_path)],
            check=False,
            cwd=site.root,
            env=site.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )


def is_over(site: Site) -> bool:
    """Whether there is nothing left to do for another run: no picture, no leftover, no account that was not closed."""
    if site.names(site.inbox) or any(name.startswith(".") for name in os.listdir(site.outbox)):
        return False
    unfinished = ("pictures", _OPEN), ("engine_runs", "exited_at IS NULL"), ("batches", "finished_at IS NULL")
    return not any(site.query(f"SELECT id FROM {table} WHERE {condition}") for table, condition in unfinished)


def is_waiting(site: Site) -> bool:
    """Whether a picture's time has not come yet."""
    return bool(site.query(f"SELECT id FROM pictures WHERE {_OPEN} AND not_before > {time.time()}"))


_OPEN = "state NOT IN ('done', 'failed', 'withdrawn')"


def _folders(site: Site) -> dict[str, str]:
    folders = {"root": site.root, "elsewhere": site.archive.parent}
    return {key: str(folder) for key, folder in folders.items() if key == "root" or folder != site.root}
