import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from watcher.accounting import engine_runs
from watcher.errors import LedgerError, LedgerLost
from watcher.files.filesystem import Digest, Identity
from watcher.ledger import FILE_NAME, Ledger
from watcher.rows import State
from watcher.schema import MIGRATIONS


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(str(tmp_path))
    yield ledger
    ledger.close()


def content(tag: str, inode: int = 1) -> Digest:
    return Digest(tag * 64, Identity(7, inode, 10, 20, 30))


def raw(tmp_path: Path) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(tmp_path / FILE_NAME))


def test_a_new_ledger_has_every_migration(ledger: Ledger, tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"pictures", "batches", "engine_runs", "notes"} <= tables


def test_a_ledger_that_is_opened_again_keeps_its_rows(tmp_path: Path) -> None:
    with closing(Ledger(str(tmp_path))) as ledger:
        (picture,) = ledger.claim(ledger.open_batch("quiet", 1), [("a.png", content("a"))], "recipe")
    with closing(Ledger(str(tmp_path))) as ledger:
        assert ledger.open_rows() == [picture]


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Ledger(str(tmp_path)).close()
    with raw(tmp_path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 5}")
    with pytest.raises(LedgerError, match="newer dropscale") as caught:
        Ledger(str(tmp_path))
    assert "install that version" in caught.value.remedy
    with raw(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 5,)


@pytest.mark.parametrize("damage", ["garbage", "header", "half"])
def test_a_damaged_ledger_is_told_with_a_remedy(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE_NAME
    Ledger(str(tmp_path)).close()
    whole = path.read_bytes()
    path.write_bytes(
        {"garbage": b"not a database" * 999, "header": b"\0" * 100 + whole[100:], "half": whole[:5000]}[damage]
    )
    with pytest.raises(LedgerLost) as caught:
        Ledger(str(tmp_path))
    assert str(path) in caught.value.message and "makes the ledger anew from the folders" in caught.value.remedy


def test_a_ledger_in_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open the ledger"):
        Ledger(str(tmp_path / "absent"))


OPENER = """
import sys
from contextlib import closing
from watcher.ledger import Ledger
print("ready", flush=True); sys.stdin.readline()
with closing(Ledger(sys.argv[1])) as ledger:
    ledger.note(hello="world")
"""


def test_processes_that_make_the_ledger_at_once_all_get_it(tmp_path: Path) -> None:
    """`dropscale status` beside the very first start of the watcher."""
    openers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPENER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    for opener in openers:
        _, errors = opener.communicate()
        assert opener.returncode == 0, errors


def test_every_commit_is_on_the_disk_when_it_returns(ledger: Ledger) -> None:
    """An intent must survive a power cut that comes right after the rename that it announces."""
    with ledger.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_path_has_one_open_row(ledger: Ledger, tmp_path: Path) -> None:
    batch = ledger.open_batch("quiet", 1)
    (first,) = ledger.claim(batch, [("a.png", content("a"))], "recipe")
    (again,) = ledger.claim(batch, [("a.png", content("b"))], "recipe")
    assert again.id == first.id and again.sha256 == "b" * 64
    with raw(tmp_path) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, created_at,"
            " changed_at) VALUES (?, '1', '1', 1, 1, 1, 'x', 'r', 'waiting', 0, 0)",
            (b"a.png",),
        )
    ledger.finish(first.id, State.DONE)
    (new,) = ledger.claim(batch, [("a.png", content("a"))], "recipe")
    assert new.id != first.id, "a closed row makes room"


def test_a_waiting_picture_keeps_its_history_only_with_its_content(ledger: Ledger) -> None:
    batch = ledger.open_batch("quiet", 1)
    (picture,) = ledger.claim(batch, [("a.png", content("a"))], "recipe")
    assert ledger.count_attempt(picture.id) == 1
    ledger.suspect(picture.id, "cut short")
    ledger.wait(picture.id, "disk full", 1e12)
    waiting = ledger.picture(picture.id)
    assert (waiting.state, waiting.waits, waiting.trouble, waiting.not_before) == (State.WAITING, 1, "disk full", 1e12)

    (same,) = ledger.claim(batch, [("a.png", content("a", inode=2))], "recipe")
    assert (same.attempts, same.waits, same.not_before, same.trouble) == (1, 1, 0, "")
    assert same.suspected_at == waiting.suspected_at and same.identity.inode == 2
    (other_recipe,) = ledger.claim(batch, [("a.png", content("a"))], "another recipe")
    assert (other_recipe.attempts, other_recipe.waits, other_recipe.recipe) == (1, 1, "another recipe")
    (other,) = ledger.claim(batch, [("a.png", content("b"))], "another recipe")
    assert (other.attempts, other.waits, other.suspected_at) == (0, 0, None)


@pytest.mark.parametrize("state", [State.PUBLISHING, State.ARCHIVING, State.QUARANTINING])
def test_a_picture_that_is_being_moved_cannot_be_claimed(ledger: Ledger, state: State) -> None:
    batch = ledger.open_batch("quiet", 1)
    (picture,) = ledger.claim(batch, [("a.png", content("a"))], "recipe")
    if state is State.QUARANTINING:
        ledger.intend_quarantine(picture.id, "a.png", "why")
    else:
        ledger.intend_publish(picture.id, "/staged", "a.png", "s" * 64, 5, reused=False)
    if state is State.ARCHIVING:
        ledger.intend_archive(picture.id, "a.png")
    assert ledger.claim(batch, [("a.png", content("b")), ("b.png", content("b"))], "recipe") == [ledger.open_rows()[1]]
    ledger.wait(picture.id, "archive gone", 5.0)
    moving = ledger.picture(picture.id)
    assert (moving.state, moving.trouble, moving.sha256) == (state, "archive gone", "a" * 64)
    ledger.release([picture.id])
    assert ledger.picture(picture.id).state is state, "only a claim is given back"


def test_a_claim_is_all_or_nothing(ledger: Ledger) -> None:
    batch = ledger.open_batch("quiet", 2)

    def found() -> Iterator[tuple[str, Digest]]:
        yield "a.png", content("a")
        raise OSError("the share is gone")

    with pytest.raises(OSError):
        ledger.claim(batch, found(), "recipe")
    assert ledger.open_rows() == []
    ledger.claim(batch, [("a.png", content("a"))], "recipe")


def test_names_are_bytes_and_numbers_may_be_huge(ledger: Ledger) -> None:
    names = [os.fsdecode(b"\xff\xfe.png"), "画.png", "e\u0301.png", "é.png", "a\nb.png"]
    identity = Identity(2**64 - 1, 2**64 - 2, 2**40, -1, 2**62)
    claimed = ledger.claim(
        ledger.open_batch("quiet", 5), [(name, Digest("a" * 64, identity)) for name in names], "recipe"
    )
    assert [picture.path for picture in claimed] == names
    assert all(picture.identity == identity for picture in ledger.open_rows())


def test_earlier_results_are_those_that_were_published_newest_first(ledger: Ledger) -> None:
    batch = ledger.open_batch("quiet", 4)
    pictures = ledger.claim(batch, [(f"{n}.png", content("a")) for n in range(4)], "recipe")
    for picture in pictures:
        ledger.intend_publish(picture.id, "/staged", picture.path, "s" * 64, 5, reused=False)
    ledger.finish(pictures[0].id, State.DONE)
    ledger.intend_archive(pictures[1].id, "1.png")
    ledger.finish(pictures[2].id, State.WITHDRAWN)
    assert [row.path for row in ledger.earlier_results("a" * 64, "recipe")] == ["1.png", "0.png"]
    assert ledger.earlier_results("a" * 64, "another recipe") == []
    assert ledger.counts() == {State.DONE: 1, State.ARCHIVING: 1, State.WITHDRAWN: 1, State.PUBLISHING: 1}


def test_a_waiting_file_that_left_is_forgotten_and_a_moving_one_is_not(ledger: Ledger) -> None:
    batch = ledger.open_batch("quiet", 2)
    waiting, moving = ledger.claim(batch, [("a.png", content("a")), ("b.png", content("b"))], "recipe")
    ledger.wait(waiting.id, "why", 0)
    ledger.intend_quarantine(moving.id, "b.png", "why")
    ledger.forget_waiting("a.png")
    ledger.forget_waiting("b.png")
    assert [row.id for row in ledger.open_rows()] == [moving.id]


def test_a_failed_row_is_found_again_by_where_its_picture_lies(ledger: Ledger) -> None:
    (picture,) = ledger.claim(ledger.open_batch("quiet", 1), [("sub/a.png", content("a"))], "recipe")
    ledger.intend_quarantine(picture.id, "sub/a~1.png", "why")
    ledger.finish(picture.id, State.FAILED, "why")
    assert ledger.reopen_failed("sub/a.png") is None
    row = ledger.reopen_failed("sub/a~1.png")
    assert row is not None and row.path == "sub/a.png"
    assert ledger.reopen_failed("sub/a~1.png") is None


def test_runs_and_batches_that_a_kill_left_open_are_closed(ledger: Ledger, tmp_path: Path) -> None:
    batch = ledger.open_batch("quiet", 1)
    engine_runs.begin(ledger, batch, 123, "model", 5.0)
    engine_runs.close_open(ledger, 99.0)
    with raw(tmp_path) as connection:
        assert connection.execute("SELECT exited_at FROM engine_runs").fetchall() == [(5.0,)], "it was never seen"
        assert connection.execute("SELECT finished_at FROM batches").fetchall() == [(99.0,)]


READER = """
import sys
from contextlib import closing
from watcher.ledger import Ledger
with closing(Ledger(sys.argv[1])) as ledger:
    print("ready", flush=True)
    while sys.stdin.readline() != "stop\\n":
        print(len(ledger.open_rows()), ledger.notes().get("n"), flush=True)
"""


def test_another_process_reads_while_this_one_writes(ledger: Ledger, tmp_path: Path) -> None:
    batch = ledger.open_batch("quiet", 1)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(20):
            with ledger.transaction() as connection:  # a transaction that is open does not keep readers out
                connection.execute("INSERT OR REPLACE INTO notes VALUES ('n', ?)", (str(number),))
                reader.stdin.write("read\n")
                reader.stdin.flush()
                before = str(number - 1) if number else "None"
                assert reader.stdout.readline() == f"{number} {before}\n"
            ledger.claim(batch, [(f"{number}.png", content("a"))], "recipe")
        reader.communicate("stop\n")
    assert reader.returncode == 0


def test_threads_share_the_connection(ledger: Ledger) -> None:
    batch = ledger.open_batch("quiet", 1)
    problems: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(25):
                ledger.claim(batch, [(f"{worker}-{number}", content("a"))], "recipe")
                ledger.open_rows()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and len(ledger.open_rows()) == 100


def test_a_ledger_that_cannot_be_written_says_so_and_stays_usable(ledger: Ledger, tmp_path: Path) -> None:
    """Its disk is full: SQLite is told of a limit of pages."""
    with ledger.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="cannot write the ledger") as caught:
        ledger.note(**{f"key{number}": "x" * 5000 for number in range(10)})
    assert "free space" in caught.value.remedy
    assert ledger.notes() == {}, "nothing was changed"
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    ledger.note(key="value")
    assert ledger.notes() == {"key": "value"}


def test_a_row_that_is_not_there_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has no picture 42"):
        ledger.picture(42)
