"""Damage that a look at the whole ledger does not see, or that makes Python stumble: it ends with a new ledger, too."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from harness import HASTY_STUB, Site, wait_until
from promise import Promise

from watcher.files.names import hidden_name

LEDGER = "ledger.sqlite3"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde"
JPEG = b"\xff\xd8\xff\xc0\0\x11\x08\0\1\0\1\3\1\x11\0\2\x11\0\3\x11\0 and so on"


@pytest.fixture
def hasty(make_site: Callable[..., Site]) -> Site:
    """With a budget, for which the rows of engines are read."""
    return make_site(**HASTY_STUB, budget={"per_day": 1000})


def write(site: Site, sql: str) -> None:
    with closing(sqlite3.connect(site.state / LEDGER)) as connection:
        connection.execute(sql)
        connection.commit()


def bytes_at(site: Site, offset: int, data: bytes) -> None:
    with (site.state / LEDGER).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def an_index_points_nowhere(site: Site) -> None:
    """One byte: the row of which the index of contents speaks."""
    whole = (site.state / LEDGER).read_bytes()
    ((sha256, recipe),) = site.query("SELECT sha256, recipe FROM pictures WHERE id = 2")
    entry = sha256.encode() + recipe.encode()
    at = whole.index(entry + b"\x02") + len(entry)
    bytes_at(site, at, b"\x64")


def a_state_that_is_none(site: Site) -> None:
    write(site, "UPDATE pictures SET state = 'zone' WHERE id = 1")


def a_number_that_is_none(site: Site) -> None:
    write(site, "UPDATE pictures SET inode = 'x7' WHERE id = 2")


def a_path_that_is_none(site: Site) -> None:
    write(site, "UPDATE pictures SET path = 5 WHERE id = 2")


def a_text_that_is_none(site: Site) -> None:
    write(site, "UPDATE pictures SET recipe = recipe, reason = CAST(x'ff' AS TEXT) WHERE id = 2")


def a_note_that_is_none(site: Site) -> None:
    write(site, "UPDATE notes SET value = CAST(x'ff' AS TEXT)")


def a_version_below_zero(site: Site) -> None:
    write(site, "PRAGMA user_version = -3")


def a_version_out_of_reach(site: Site) -> None:
    write(site, "PRAGMA user_version = 1700000000")


def a_version_that_was_forgotten(site: Site) -> None:
    write(site, "PRAGMA user_version = 0")


def a_format_that_is_none(site: Site) -> None:
    bytes_at(site, 44, (9).to_bytes(4, "big"))


def a_time_that_is_none(site: Site) -> None:
    write(site, "UPDATE engine_runs SET exited_at = 'x'")


def a_device_that_is_none(site: Site) -> None:
    write(site, "UPDATE engine_runs SET device = x'00'")


def a_note_that_is_no_number(site: Site) -> None:
    write(site, "UPDATE notes SET value = 'x' WHERE key = 'started_at'")


SICKNESSES = [
    an_index_points_nowhere,
    a_state_that_is_none,
    a_number_that_is_none,
    a_path_that_is_none,
    a_text_that_is_none,
    a_note_that_is_none,
    a_time_that_is_none,
    a_device_that_is_none,
    a_note_that_is_no_number,
    a_version_below_zero,
    a_version_out_of_reach,
    a_version_that_was_forgotten,
    a_format_that_is_none,
]


def fall_ill(site: Site, promise: Promise, strike: Callable[[Site], None]) -> None:
    promise.drop("a.png", b"a picture")
    promise.drop("sub/b.png", b"another picture")
    assert site.once().returncode == 0
    strike(site)
    promise.drop("b again.png", b"another picture")
    promise.drop("a again.png", b"a picture")
    promise.drop("new.png", b"a new picture")


@pytest.mark.parametrize("strike", SICKNESSES)
def test_a_sick_ledger_costs_two_starts_at_most(hasty: Site, strike: Callable[[Site], None]) -> None:
    promise = Promise(hasty)
    fall_ill(hasty, promise, strike)
    done = hasty.once()
    assert done.returncode in {0, 3} and "Traceback" not in done.stderr, done.stderr
    if done.returncode == 3:
        assert "start dropscale: it makes the ledger anew" in done.stderr
        done = hasty.once()
    assert done.returncode == 0, done.stderr
    promise.check_end(ledger=False)
    assert len(list(hasty.state.glob("ledger.damaged-*.sqlite3"))) == 1, done.stderr
    if strike not in {a_time_that_is_none, a_device_that_is_none}:
        assert hasty.query("SELECT pid FROM engine_runs WHERE id = 1"), "the time that engines took is kept"


@pytest.mark.slow
@pytest.mark.parametrize("strike", SICKNESSES)
def test_a_watcher_with_a_sick_ledger_begins_anew_once(hasty: Site, strike: Callable[[Site], None]) -> None:
    promise = Promise(hasty)
    fall_ill(hasty, promise, strike)
    running = hasty.start()
    wait_until(lambda: not hasty.names(hasty.inbox) and not hasty.engines(), "all to be delivered")
    assert running.log().count("beginning anew") <= 1
    assert running.stop() == 0, running.log()
    assert "Traceback" not in running.log()
    promise.check_end(ledger=False)


def test_a_sick_ledger_keeps_what_it_knew_of_shares(hasty: Site) -> None:
    assert hasty.once().returncode == 0
    write(hasty, f"INSERT OR REPLACE INTO notes VALUES ('mounted outbox', '{hasty.outbox}')")
    a_later_table_is_gone(hasty)
    done = hasty.once()
    assert done.returncode == 3 and "was a mount point" in done.stderr, done.stderr


def a_later_table_is_gone(site: Site) -> None:
    write(site, "DROP TABLE engine_runs")


def test_of_engine_runs_each_that_can_be_read_is_kept(hasty: Site) -> None:
    """A lost batch must not take the runs with it that refer to it."""
    hasty.drop("a.png", b"a picture")
    assert hasty.once().returncode == 0
    write(hasty, "DROP TABLE pictures")
    with closing(sqlite3.connect(hasty.state / LEDGER)) as connection:
        connection.execute("DELETE FROM batches")
        connection.execute("DROP TABLE batches")
        connection.commit()
    assert hasty.once().returncode == 0
    ((kept,),) = hasty.query("SELECT COUNT(*) FROM engine_runs")
    assert kept == 1


def test_a_file_in_the_place_of_a_folder_ends_no_sweep(hasty: Site) -> None:
    left = hasty.archive / "sub" / ".dropscale-7-0123456789abcdef.part"
    left.parent.mkdir()
    left.write_bytes(PNG)
    (hasty.failed / "sub").write_bytes(b"somebody's file")
    done = hasty.once()
    assert done.returncode == 0, done.stderr
    assert hasty.files(hasty.archive) == {"sub/recovered.png": PNG}


def test_a_whole_original_on_its_way_is_no_copy_of_one_that_begins_alike(hasty: Site) -> None:
    """Its hidden name begins with the hash of what it holds when it is whole."""
    longer = PNG + b" and more"
    (hasty.archive / "longer.png").write_bytes(longer)
    left = Path(hidden_name(str(hasty.archive / "a.png"), 7, sha256(PNG).hexdigest()))
    left.write_bytes(PNG)
    done = hasty.once()
    assert done.returncode == 0 and "is back in the inbox" in done.stderr, done.stderr
    assert hasty.files(hasty.archive) == {"longer.png": longer, "recovered.png": PNG}


@pytest.mark.parametrize("name", [".dropscale-7-aside.part", ".dropscale-0-0123456789abcdef.part"])
def test_a_hidden_copy_in_the_inbox_is_never_an_original(hasty: Site, name: str) -> None:
    """What lies aside there is a second name of a file, or a copy on its way back from `failed`."""
    (hasty.inbox / name).write_bytes(b"half a pict")
    assert hasty.once().returncode == 0
    assert hasty.files(hasty.inbox) == {} and hasty.files(hasty.archive) == {}


def test_a_recovered_original_keeps_its_own_kind(hasty: Site) -> None:
    """Its result may be of another kind: output.format."""
    promise = Promise(hasty)
    promise.drop("a.jpg", JPEG)
    assert hasty.once().returncode == 0
    (hasty.outbox / "a.jpg").rename(hasty.outbox / "a.png")
    (hasty.archive / "a.jpg").rename(hasty.archive / ".dropscale-7-0123456789abcdef.part")
    for path in hasty.state.glob(f"{LEDGER}*"):
        path.unlink()
    done = hasty.once()
    assert done.returncode == 0 and "it is back in the inbox as a.jpg" in done.stderr, done.stderr
    assert hasty.files(hasty.archive) == {"a.jpg": JPEG}
    assert hasty.names(hasty.outbox) == {"a.png"}
