"""A ledger that is lost or damaged costs neither a picture nor, where it can be known, work that was done."""

import itertools
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import HASTY_STUB, Site, below, photo, stub_result, wait_until
from promise import Promise
from strace import NAMES, Fault, Ground, needs_strace

LEDGER = "ledger.sqlite3"


@pytest.fixture
def hasty(make_site: Callable[..., Site]) -> Site:
    return make_site(**HASTY_STUB)


def lose_state(site: Site) -> None:
    """However often a watcher at work puts another file there meanwhile."""

    def is_gone() -> bool:
        shutil.rmtree(site.state, ignore_errors=True)
        return not site.state.exists()

    wait_until(is_gone, "the state folder to be gone")


def lose_file(site: Site) -> None:
    for path in site.state.glob(f"{LEDGER}*"):
        path.unlink()


def empty(site: Site) -> None:
    os.truncate(site.state / LEDGER, 0)


def garbage(site: Site) -> None:
    (site.state / LEDGER).write_bytes(b"not a database " * 5000)


def half(site: Site) -> None:
    os.truncate(site.state / LEDGER, (site.state / LEDGER).stat().st_size // 2)


def first_page(site: Site) -> None:
    with (site.state / LEDGER).open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 2000)


def a_later_page(site: Site) -> None:
    with (site.state / LEDGER).open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096))


def no_table(site: Site) -> None:
    with closing(sqlite3.connect(site.state / LEDGER)) as connection:
        connection.execute("DROP TABLE pictures")
        connection.commit()


LOSSES = [lose_state, lose_file, empty]
DAMAGES = [garbage, half, first_page, a_later_page, no_table]


@pytest.mark.parametrize("strike", LOSSES + DAMAGES)
def test_what_lies_in_the_outbox_is_not_done_again(hasty: Site, strike: Callable[[Site], None]) -> None:
    """The same picture under another name, after the ledger was lost: the earlier result is taken."""
    promise = Promise(hasty)
    promise.drop("sub/a.png", b"a picture")
    promise.drop("b.png", b"another picture")
    assert hasty.once().returncode == 0
    strike(hasty)
    promise.drop("a again.png", b"a picture")
    promise.drop("new.png", b"a new picture")
    done = hasty.once()
    assert done.returncode == 0, done.stderr
    promise.check_end(ledger=False)
    assert hasty.upscaled()[-1] == 1, "the new picture alone"
    assert hasty.query("SELECT path, reused FROM pictures WHERE reused") == [(b"a again.png", 1)]
    assert "2 results in the outbox" in done.stderr
    aside = [path.name for path in hasty.state.glob("ledger.damaged-*.sqlite3")]
    assert len(aside) == (strike in DAMAGES), done.stderr
    assert all(name in done.stderr for name in aside), "the log names it"
    assert hasty.status()["totals"]["done"] == 4


def test_the_time_that_engines_took_is_kept_where_it_can_be_read(hasty: Site) -> None:
    hasty.drop("a.png", b"a picture")
    assert hasty.once().returncode == 0
    (before,) = hasty.query("SELECT pid, spawned_at, exited_at, done FROM engine_runs")
    no_table(hasty)
    assert hasty.once().returncode == 0
    assert hasty.query("SELECT pid, spawned_at, exited_at, done FROM engine_runs") == [before]


def test_a_result_that_was_changed_since_is_not_taken_for_the_earlier_one(hasty: Site) -> None:
    hasty.drop("a.png", b"a picture")
    assert hasty.once().returncode == 0
    with (hasty.outbox / "a.png").open("ab") as file:
        file.write(b"edited by the user")
    lose_state(hasty)
    hasty.drop("again.png", b"a picture")
    assert hasty.once().returncode == 0
    assert hasty.files(hasty.outbox)["again.png"] == stub_result(b"a picture")
    assert hasty.upscaled() == [1]


def test_a_result_made_by_other_settings_is_not_taken(hasty: Site) -> None:
    hasty.drop("a.png", b"a picture")
    assert hasty.once().returncode == 0
    lose_state(hasty)
    hasty.configure(**HASTY_STUB, output={"jpeg_quality": 50})
    hasty.drop("again.png", b"a picture")
    assert hasty.once().returncode == 0
    assert hasty.upscaled() == [1]


def test_the_state_folder_is_removed_while_the_watcher_waits(hasty: Site) -> None:
    """It says so, makes another ledger, holds a lock on it, and goes on."""
    promise = Promise(hasty)
    running = hasty.start()
    promise.drop("a.png", b"a picture")
    wait_until(lambda: hasty.names(hasty.archive) == {"a.png"}, "the first picture")
    lose_state(hasty)
    wait_until(lambda: running.log().count("watching ") == 2, "the watcher to begin anew")
    assert "was removed" in running.log() and "1 results in the outbox" in running.log()
    promise.drop("b.png", b"a picture")
    promise.drop("c.png", b"another one")
    wait_until(lambda: hasty.names(hasty.archive) == {"a.png", "b.png", "c.png"}, "the others")
    second = hasty.once()
    assert second.returncode == 0 and "another watcher is at work" in second.stdout
    assert f"process {running.pid} " in second.stdout, "it is the same process still"
    assert running.stop() == 0
    promise.check_end(ledger=False)
    assert hasty.upscaled() == [1]


@pytest.mark.parametrize("strike", [lose_state, garbage])
def test_the_ledger_is_lost_in_the_middle_of_a_batch(hasty: Site, strike: Callable[[Site], None]) -> None:
    promise = Promise(hasty)
    for number in range(6):
        promise.drop(f"{number}.png", f"picture {number} SLOW 0.3 ".encode())
    running = hasty.start()
    wait_until(lambda: len(hasty.names(hasty.outbox)) >= 2, "some results")
    strike(hasty)
    promise.check_now()
    wait_until(lambda: not hasty.names(hasty.inbox) and not hasty.engines(), "all to be delivered")
    promise.drop("later.png", b"later")
    wait_until(lambda: not hasty.names(hasty.inbox), "the one that came later")
    assert running.stop() == 0, running.log()
    promise.check_end(ledger=False)


def test_once_says_that_its_ledger_was_lost_and_the_next_one_goes_on(hasty: Site) -> None:
    promise = Promise(hasty)
    promise.drop("a.png", b"a picture SLOW 1 ")
    running = hasty.start("once", ready=False)
    wait_until(hasty.engines, "the engine")
    lose_state(hasty)
    assert running.process.wait(60) == 3
    assert "was removed" in running.log() and "What to do: start dropscale" in running.log()
    promise.check_now()
    assert hasty.once().returncode == 0
    promise.check_end(ledger=False)


def test_a_stop_after_the_ledger_was_lost_is_a_stop(hasty: Site) -> None:
    hasty.configure(**{**HASTY_STUB, "retry": {"first_seconds": 600, "max_seconds": 600}})
    running = hasty.start()
    lose_state(hasty)
    assert running.stop() in {0, 3}, running.log()
    assert running.log().count("watching ") == 1


def test_signals_that_come_while_it_begins_anew_are_not_lost(hasty: Site) -> None:
    """A hangup would end a process that has no handler yet, and a stop must end it in good order."""
    needs_strace()
    delay = ["-e", "trace=execve", "-e", "inject=execve:delay_enter=2000000:when=2+"]
    hasty.command = ["strace", "-D", "-f", "-qq", "-o", os.devnull, *delay, *hasty.command]
    running = hasty.start()
    lose_state(hasty)
    wait_until(lambda: "beginning anew" in running.log(), "the new beginning")
    running.process.send_signal(signal.SIGHUP)
    assert running.stop() == 0, running.log()
    assert running.log().rstrip().endswith("stopped")


def test_status_of_a_damaged_ledger_says_what_to_do(hasty: Site) -> None:
    assert hasty.once().returncode == 0
    garbage(hasty)
    told = hasty.run("status")
    assert told.returncode == 3 and "start dropscale: it makes the ledger anew" in told.stderr
    assert (hasty.state / LEDGER).read_bytes().startswith(b"not a database"), "only a watcher sets it aside"


# Both at once


def two_pictures(promise: Promise) -> set[str]:
    promise.drop("sub/a.png", photo(1))
    promise.drop("b.png", photo(2))
    return set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["one file system", "two file systems", "no exclusive rename"])
def test_the_ledger_is_lost_after_a_kill_at_any_change_of_a_name(
    tmp_path: Path, other_filesystem: Path, place: str
) -> None:
    """Then nobody knows what was under way, and all is found out from the folders.

    One thing cannot be: an original that was copied to another file system and not removed yet looks as if it had been
    dropped again, and the archive gets a second. Its result is not delivered twice.
    """
    needs_strace()
    elsewhere = other_filesystem if place == "two file systems" else None
    lacking = ("renameat2",) if place == "no exclusive rename" else ()
    ground = Ground(tmp_path, two_pictures, elsewhere, lacking)
    kills = 0
    for calls in NAMES:
        for number in itertools.count(1):
            site, promise, _ = ground.prepare()
            _, trace = ground.once(site, Fault(calls, "signal=SIGKILL", str(number)))
            wait_until(lambda site=site: not site.engines(), "the engine to end with its watcher")
            lose_state(site)
            promise.check_now()
            done, _ = ground.once(site)
            assert done.returncode == 0, done.stderr
            seconds = [path for path in below(site.archive) if "~" in path.name]
            assert len(seconds) <= (elsewhere is not None)
            for path in seconds:
                assert path.read_bytes() in promise.originals.values()
                path.unlink()
            promise.check_end(ledger=False)
            ground.remove(site)
            if not any("+++ killed by SIGKILL" in line for line in trace):
                break
            kills += 1
    print(f"{kills} kills")
    assert kills > 15


# Hidden files of ours that no ledger knows


def hidden(folder: Path, tag: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".dropscale-7-{tag}.part"


def test_an_original_on_its_way_when_the_ledger_was_lost_comes_back(hasty: Site) -> None:
    """Its name was in the ledger alone."""
    data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde"
    hidden(hasty.archive / "sub", "0123456789abcdef").write_bytes(data)
    done = hasty.once()
    assert done.returncode == 0 and "sub/recovered.png" in done.stderr, done.stderr
    assert hasty.files(hasty.archive) == {"sub/recovered.png": data}
    assert hasty.files(hasty.outbox) == {"sub/recovered.png": stub_result(data)}


@pytest.mark.parametrize("length", [0, 5, 9], ids=["empty", "a part", "whole"])
def test_copies_on_their_way_when_the_ledger_was_lost_are_removed(hasty: Site, length: int) -> None:
    promise = Promise(hasty)
    promise.drop("sub/a.png", b"a picture")
    hidden(hasty.archive / "sub", "0123456789abcdef").write_bytes(b"a picture"[:length])
    hidden(hasty.inbox / "sub", "aside").write_bytes(b"a picture"[:length])
    hidden(hasty.failed / "sub", "reason").write_bytes(b"could not be enl")
    hidden(hasty.outbox / "sub", "0123456789abcdef").write_bytes(b"RESULT")
    assert hasty.once().returncode == 0
    promise.check_end()


def test_a_leftover_that_cannot_be_removed_is_told_and_stops_nothing(hasty: Site) -> None:
    needs_strace()
    promise = Promise(hasty)
    promise.drop("sub/a.png", b"a picture")
    left = hidden(hasty.outbox / "sub", "0123456789abcdef")
    left.write_bytes(b"RESULT")
    inject = ["-P", str(left), "-e", "trace=unlink,unlinkat", "-e", "inject=unlink,unlinkat:error=EACCES"]
    hasty.command = ["strace", "-D", "-f", "-qq", "-o", os.devnull, *inject, *hasty.command]
    running = hasty.start("once", ready=False)
    assert running.process.wait(60) == 0, running.log()
    assert "and stays: Permission denied" in running.log()
    left.unlink()
    promise.check_end()


def test_hidden_files_of_others_are_left_alone(hasty: Site) -> None:
    """Only names exactly like ours are ours."""
    others = [hasty.archive / ".dropscale-notes.txt", hasty.outbox / ".dropscale-7.part", hasty.failed / ".hidden.part"]
    for path in others:
        path.write_bytes(b"")
    assert hasty.once().returncode == 0
    assert all(path.exists() for path in others)
