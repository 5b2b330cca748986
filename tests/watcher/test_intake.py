"""Files between being whole and a batch: two windows, hashes ahead."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from watcher.files.filesystem import Identity, look_at
from watcher.intake import Closing, Intake
from watcher.sections import WindowLimits

LIMITS = WindowLimits(quiet_seconds=5, max_seconds=60, max_files=2)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    (tmp_path / "urgent").mkdir()
    made = Intake(str(tmp_path), LIMITS)
    yield made
    made.close()


def whole(intake: Intake, root: Path, path: str, now: float) -> Identity:
    (root / path).write_bytes(path.encode())
    identity = look_at(str(root / path))
    assert identity is not None
    intake.add(path, identity, now)
    return identity


def test_what_is_urgent_goes_first_though_it_is_younger(intake: Intake, tmp_path: Path) -> None:
    whole(intake, tmp_path, "a.png", 100)
    whole(intake, tmp_path, "urgent/u.png", 104.9)
    assert intake.closing(105, urgent_only=False) == Closing("urgent ones go first", urgent=True)
    assert [taken.path for taken in intake.take(urgent=True)] == ["urgent/u.png"]
    assert intake.closing(105, urgent_only=False) == Closing("quiet for 5 s", urgent=False)
    assert intake.closing(105, urgent_only=True) is None


def test_a_file_that_is_engaged_waits_for_no_other_batch(intake: Intake, tmp_path: Path) -> None:
    """A move that a full disk broke off is carried on while its file is in the window again."""
    whole(intake, tmp_path, "a.png", 100)
    intake.engage(["a.png"])
    assert not intake.waits(urgent=False)
    whole(intake, tmp_path, "a.png", 101)
    assert not intake.waits(urgent=False)
    assert intake.disengage() == {"a.png"}
    assert intake.take(urgent=False) == []


def test_what_is_urgent_is_hashed_while_what_is_held_is_read(intake: Intake, tmp_path: Path) -> None:
    """Held files may be hundreds of gigabytes, which one thread reads one after the other."""
    big = tmp_path / "big.png"
    big.write_bytes(b"")
    os.truncate(big, 100 << 30)  # nothing but a hole, which takes a minute to read
    identity = look_at(str(big))
    assert identity is not None
    intake.add("big.png", identity, 100)
    identity = whole(intake, tmp_path, "urgent/u.png", 101)
    (urgent,) = intake.take(urgent=True)
    (held,) = intake.take(urgent=False)
    assert urgent.content.result(30).identity == identity
    assert not held.content.done()
    os.truncate(big, 0)
    assert isinstance(held.content.exception(30), OSError), "it changed"


def test_a_file_that_changes_in_the_window_is_forgotten(intake: Intake, tmp_path: Path) -> None:
    identity = whole(intake, tmp_path, "a.png", 100)
    assert intake.holds("a.png", identity)
    assert not intake.holds("a.png", identity._replace(size=99))
    assert not intake.waits(urgent=False)
