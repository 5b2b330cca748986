import os
import subprocess
import sys
from pathlib import Path

import pytest

from watcher.files import filesystem
from watcher.files.filesystem import Identity
from watcher.files.settling import Settled, Settling


class Watched:
    """A folder's files, and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = False
        self.settling = Settling(2.0, self._look_at, self._writer_present)

    def add(self, name: str, now: float, *, announced: bool = True) -> None:
        identity = self._look_at(name)
        assert identity is not None
        self.settling.add(name, identity, now, announced=announced)

    def look(self, now: float) -> list[Settled]:
        return list(self.settling.look(now))

    def paths(self, now: float) -> list[str]:
        return [settled.path for settled in self.look(now)]

    def _look_at(self, name: str) -> Identity | None:
        if self.broken:
            raise OSError(5, "the share stumbles")
        return filesystem.look_at(str(self.folder / name))

    def _writer_present(self, name: str) -> bool | None:
        return filesystem.writer_present(str(self.folder / name))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_file_is_whole_after_two_equal_looks_and_not_before(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    watched.add("a", 100.0)
    assert watched.settling.next_look() == 102.0
    assert watched.paths(101.9) == []
    (settled,) = watched.look(102.0)
    assert settled == Settled("a", filesystem.look_at(str(tmp_path / "a")), True, 2.0)
    assert len(watched.settling) == 0 and watched.settling.next_look() is None
    assert watched.paths(200.0) == [], "a file is told once"


def test_a_growing_file_is_whole_two_seconds_after_its_last_change(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    watched.add("a", 0.0)
    for second in (2.0, 4.0, 6.0):
        with path.open("ab") as file:
            file.write(b"more")
        assert watched.paths(second) == []
        assert "a" in watched.settling
    (settled,) = watched.look(8.0)
    assert settled.unchanged_seconds == 2.0 and settled.identity.size == 13


def test_a_file_with_an_old_mtime_waits_as_long_as_any(watched: Watched, tmp_path: Path) -> None:
    """A file that was moved in keeps its mtime: age says nothing."""
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (1, 1))
    watched.add("old", 50.0)
    assert watched.paths(51.0) == []
    assert watched.paths(52.0) == ["old"]


def test_a_change_that_keeps_the_size_and_sets_the_mtime_back_is_seen(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = path.stat()
    watched.add("a", 0.0)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watched.paths(2.0) == []
    assert watched.paths(4.0) == ["a"]


def test_a_file_that_was_replaced_is_another_one(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    watched.add("a", 0.0)
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "b").replace(tmp_path / "a")
    assert watched.paths(2.0) == []
    assert watched.paths(4.0) == ["a"]


def test_a_file_that_left_is_forgotten_and_may_come_again(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    watched.add("a", 0.0)
    path.unlink()
    assert watched.paths(2.0) == [] and "a" not in watched.settling
    path.write_bytes(b"x")
    watched.add("a", 3.0)
    assert watched.paths(4.9) == []
    assert watched.paths(5.0) == ["a"]


def test_seeing_a_file_again_does_not_make_it_wait_longer(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    watched.add("a", 0.0, announced=False)
    watched.add("a", 1.5, announced=True)
    (settled,) = watched.look(2.0)
    assert settled.announced, "an event told of it in the end"
    (tmp_path / "b").write_bytes(b"x")
    watched.add("b", 3.0, announced=False)
    (settled,) = watched.look(5.0)
    assert not settled.announced


@pytest.mark.skipif(sys.platform != "linux", reason="writers are seen by leases")
def test_a_file_that_somebody_has_open_for_writing_is_not_whole(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"half")
    script = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        watched.add("a", 0.0)
        assert [watched.paths(now) for now in (2.0, 4.0, 60.0)] == [[], [], []]
        writer.communicate(b"\n")
    assert watched.paths(62.0) == ["a"]


def test_a_share_that_stumbles_loses_nothing(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    watched.add("a", 0.0)
    watched.broken = True
    assert watched.paths(2.0) == [] and watched.settling.next_look() == 4.0
    watched.broken = False
    assert watched.paths(4.0) == ["a"]


def test_ten_thousand_files_are_looked_at_once_each(watched: Watched, tmp_path: Path) -> None:
    for number in range(10_000):
        watched.settling.add(f"{number}", Identity(1, number, 1, 1, 1), number / 1000, announced=True)
    assert len(watched.settling) == 10_000
    assert watched.paths(1.999) == []
    assert watched.paths(12.0) == [], "none of them is there"
    assert len(watched.settling) == 0


def test_clear_forgets_everything(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    watched.add("a", 0.0)
    watched.settling.clear()
    assert len(watched.settling) == 0 and watched.paths(100.0) == []
