"""An error of the disk or the share at any system call makes pictures wait; it never sends one to `failed`.

Errors are reported to the watcher, or to the engine, at calls on the site's own files, one or many a run. A run may end
with 0, 1 or 3, and says nothing of its insides; then undisturbed ones finish everything, byte for byte.
"""

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import photo
from strace import (
    CONTENT,
    LEDGER,
    NAMES,
    OPENING,
    QUICKLY,
    SYNCS,
    Fault,
    Ground,
    Scene,
    a_picture_that_was_done_before,
    is_over,
    names_that_are_taken,
    needs_strace,
    one_picture_and_one_that_fails,
)

from sr_engine import protocol

# A full disk, a bad one, rights that were withdrawn, another file system behind a folder, a signal, and a file handle
# that a server has forgotten.
ERRNOS = ("ENOSPC", "EIO", "EACCES", "EXDEV", "EINTR", "ESTALE")
LASTING = tuple(errno for errno in ERRNOS if errno != "EINTR")  # Python tries again until there is none

LOOKS = "?stat,?lstat,newfstatat,?fstat,?statx"
LISTING = ["getdents64", "statfs", "?access,?faccessat,?faccessat2"]
READING = ["read", "?lseek"]
LOCKS = ["flock", "fcntl"]
KINDS = ["opening", "contents", "looks"]
ALL = ",".join([*NAMES, *CONTENT, *SYNCS, *READING, *LISTING, OPENING, LOOKS])

FOLDERS = ["inbox", "outbox", "archive", "failed"]
SCENES = [names_that_are_taken, a_picture_that_was_done_before]


class Errors:
    """Runs of `dropscale once`, each told of errors at other system calls, each on folders of its own."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._errnos = itertools.cycle(ERRNOS)
        self.injected: Counter[str] = Counter()
        self.runs = 0

    def at_every(self, calls: str) -> None:
        """Every error at the first, second, ... of these calls, until a run has none."""
        for number in itertools.count(1):
            assert number < 400, f"{calls}: there seems to be no end"
            if not sum([self.at(Fault(calls, f"error={errno}", str(number))) for errno in ERRNOS]):
                return

    def in_turn(self, calls: str, step: int = 1) -> None:
        """One error at each of these calls, or at one of so many: each time another one."""
        for number in itertools.count(1, step):
            assert number < 800, f"{calls}: there seems to be no end"
            if not self.at(Fault(calls, f"error={next(self._errnos)}", str(number))):
                return

    def at(self, fault: Fault) -> int:
        """How many errors there were. Whatever was left by this run, undisturbed ones have to finish."""
        site, promise, failing = self._ground.prepare()
        done, trace = self._ground.once(site, fault)
        calls = "|".join(re.findall(r"\w+", fault.calls))  # others may be lacking, which is an error, too
        injected = [line for line in trace if re.search(rf"\b({calls})\b.*\(INJECTED\)", line)]
        try:
            assert done.returncode in {0, 1, 3}, f"exit code {done.returncode}"
            assert "Traceback" not in done.stderr + done.stdout
            blamed = set(site.files(site.failed).values())
            assert not [name for name, data in promise.originals.items() if data in blamed and name not in failing]
            promise.check_now()
            self._ground.finish(site, promise, failing, runs=0 if is_over(site) else 3)
        except BaseException as error:
            error.add_note(f"{fault}; it said:\n{done.stdout}{done.stderr}")
            error.add_note("\n".join(injected[:5]))
            raise
        self._ground.remove(site)
        self.injected.update(re.findall(r"= -1 (E[A-Z]+) .*\(INJECTED\)", "\n".join(injected)))
        self.runs += 1
        return len(injected)

    def tell(self) -> None:
        """Print what was injected."""
        print(f"{self.injected.total()} errors in {self.runs} runs: {dict(self.injected)}")


@pytest.mark.slow
def test_an_error_at_any_move_makes_pictures_wait(tmp_path: Path) -> None:
    """At each rename and unlink; and at everything in one of the folders, as when its share goes."""
    needs_strace()
    errors = Errors(Ground(tmp_path, one_picture_and_one_that_fails))
    errors.in_turn("renameat2")
    errors.in_turn("?unlink,unlinkat")
    for folder, errno in zip(FOLDERS, LASTING, strict=False):
        errors.at(Fault(ALL, f"error={errno}", "6+", folder))
    errors.tell()
    assert errors.injected.total() > 20


def one_error_a_run(errors: Errors, kind: str) -> None:
    """At each call of a kind."""
    if kind == "opening":
        for calls in [OPENING, *LISTING]:
            errors.in_turn(calls)
    elif kind == "contents":
        for calls in [*CONTENT, *READING, *SYNCS]:
            errors.in_turn(calls)
    else:
        errors.in_turn(LOOKS, step=11)
    errors.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_at_any_call_make_pictures_wait(tmp_path: Path, scene: Scene, kind: str) -> None:
    """One error a run. Those at names are met on the way to another file system, too, which takes the same calls."""
    needs_strace()
    errors = Errors(Ground(tmp_path, scene))
    one_error_a_run(errors, kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_on_the_way_to_another_file_system_make_pictures_wait(
    tmp_path: Path, other_filesystem: Path, kind: str
) -> None:
    """With archive and failed on another file system, which takes more calls."""
    needs_strace()
    errors = Errors(Ground(tmp_path, names_that_are_taken, other_filesystem))
    one_error_a_run(errors, kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", NAMES)
def test_every_error_at_a_name_on_the_way_to_another_file_system_makes_pictures_wait(
    tmp_path: Path, other_filesystem: Path, calls: str
) -> None:
    needs_strace()
    errors = Errors(Ground(tmp_path, names_that_are_taken, other_filesystem))
    errors.at_every(calls)
    errors.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lacking", [("renameat2",), ("renameat2", "?link,linkat")])
def test_errors_on_a_file_system_that_lacks_calls_make_pictures_wait(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    """At the calls that stand in for an exclusive rename, and for links."""
    needs_strace()
    errors = Errors(Ground(tmp_path, names_that_are_taken, lacking=lacking))
    for calls in NAMES:
        if calls not in lacking:
            errors.in_turn(calls)
    errors.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", [*LEDGER, "?pread64", *LOCKS])
def test_errors_at_the_ledger_make_pictures_wait(tmp_path: Path, calls: str) -> None:
    """At the reads, writes and locks of SQLite."""
    needs_strace()
    errors = Errors(Ground(tmp_path, one_picture_and_one_that_fails))
    errors.in_turn(calls, step={"?pwrite64": 2, "fcntl": 23}.get(calls, 1))
    errors.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_fails_from_some_call_on_makes_pictures_wait(tmp_path: Path, folder: str) -> None:
    """It fails until the end of the run, as when a disk becomes full or a share goes."""
    needs_strace()
    errors = Errors(Ground(tmp_path, names_that_are_taken))
    for errno in LASTING:
        for number in (2, 5, 11):
            errors.at(Fault(ALL, f"error={errno}", f"{number}+", folder))
    errors.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_errors_of_the_engine_make_pictures_wait(tmp_path: Path) -> None:
    """The engine of the tests, and each fresh one: where it opens, reads, writes and syncs."""
    needs_strace()
    errors = Errors(Ground(tmp_path, names_that_are_taken, of_engine=True))
    for calls in (OPENING, "read", "write", "fsync"):
        errors.at_every(calls)
    errors.tell()
    assert set(errors.injected) == set(ERRNOS)


def _engine_under(faults: Sequence[str], source: Path, target: Path) -> tuple[list[protocol.AnyEvent], int]:
    """One picture given to the real engine; what it told, and how many errors it met at the picture or the result."""
    trace = source.parent / "trace"
    paths = [option for path in (source, target.with_suffix(".png"), target.parent) for option in ("-P", str(path))]
    strace = ["strace", "-f", "-qq", *QUICKLY, "-o", str(trace), *paths, *faults]
    engine = [sys.executable, "-P", "-m", "sr_engine", "--model", "edsr-lite-x3", "--runtime", "opencv"]
    with subprocess.Popen([*strace, *engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        request = protocol.Upscale(
            id=1,
            source=protocol.encode_path(os.fspath(source)),
            target=protocol.encode_path(os.fspath(target)),
        )
        process.stdin.write(protocol.encode(request) + protocol.encode(protocol.End()))
        process.stdin.flush()
        heard = [protocol.decode_event(line) for line in process.stdout]
    assert process.returncode == 0
    return heard, trace.read_text(errors="replace").count("(INJECTED)")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", [OPENING, LOOKS, *READING, "write", "fsync", "close"])
def test_the_real_engine_blames_no_picture_for_an_error(tmp_path: Path, calls: str) -> None:
    """At each of its calls on the picture and the result: done all the same, or the surroundings are to blame."""
    needs_strace()
    source = tmp_path / "a.png"
    source.write_bytes(photo(1))
    injected: Counter[str] = Counter()
    for number in itertools.count(1):
        before = injected.total()
        for errno in ERRNOS if calls in {OPENING, "write", "fsync"} else ERRNOS[number % len(ERRNOS) :][:1]:
            folder = tmp_path / f"{number}-{errno}"
            folder.mkdir()
            inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={errno}:when={number}"]
            heard, count = _engine_under(inject, source, folder / "out")
            injected[errno] += count
            (answer,) = [event for event in heard if isinstance(event, protocol.Done | protocol.Failed)]
            if isinstance(answer, protocol.Done):
                assert os.listdir(folder) == ["out.png"]
            else:
                assert (answer.id, answer.fault) == (1, protocol.Fault.ENVIRONMENT), answer
                assert "None" not in answer.message
                assert os.listdir(folder) == [], "nothing of an unfinished result stays"
        if injected.total() == before:
            break
    print(f"{calls}: {injected.total()} errors: {dict(injected)}")
    assert injected.total() > 0
