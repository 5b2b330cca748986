"""Engines that are loaded ahead of the pictures: by the clock, or because somebody asked. And let go at once."""

import contextlib
import os
import signal
import sqlite3
import subprocess

import pytest
from harness import Site, command, complaint, wait_until
from promise import Promise
from warm_site import MakeSite, check_books, deliver, exits, kept, state, wait_gone, wait_warm

# By the clock


def test_it_is_loaded_by_the_schedule(make_site: MakeSite) -> None:
    site = kept(make_site, 0, warm=[{"at": "* * * * *", "for_seconds": 120}])
    promise = Promise(site)
    running = site.start()
    first = wait_warm(site)
    told = state(site)
    assert (told["why"], told["process"]) == ("schedule", first)
    assert f"by the schedule, process {first}" in site.run("status").stdout
    promise.drop("a.png", b"one")
    promise.check_now()
    assert wait_warm(site, 2) == first
    assert running.stop() == 0
    promise.check_end()
    check_books(site)
    rows = site.query("SELECT why, starts_engine, batch IS NOT NULL, pictures FROM warm_ups ORDER BY id LIMIT 2")
    assert rows == [("schedule", 1, 1, 1), ("schedule", 0, 0, 0)]
    assert site.query("SELECT batch FROM engine_runs") == [(None,)], "no batch started it"


def test_status_says_when_it_will_be_loaded(make_site: MakeSite) -> None:
    site = kept(make_site, 0, warm=[{"at": "0 0 29 2 *", "for_seconds": 1}])
    site.start()
    assert "-02-29T00:00:00" in state(site)["next_warm"] or "-02-28T" in state(site)["next_warm"]
    assert "off; loaded at " in site.run("status").stdout


@pytest.mark.slow
def test_one_that_cannot_be_loaded_is_tried_again_and_pictures_are_not_blamed(make_site: MakeSite) -> None:
    site = kept(make_site, 0, warm=[{"at": "* * * * *", "for_seconds": 120}])
    running = site.start(STUB="UNUSABLE")
    wait_until(lambda: running.log().count("libGL.so.1 is missing") > 2, "it to be tried again")
    assert not site.engines() or len(site.engines()) == 1
    assert running.stop() == 0
    assert not site.engines()
    assert site.query("SELECT COUNT(*) FROM warm_ups WHERE ended_at IS NULL OR idle_seconds > 0") == [(0,)]


# By hand


@pytest.mark.slow
def test_somebody_asks_for_it_and_calls_it_off(make_site: MakeSite) -> None:
    site = kept(make_site, 0)
    running = site.start()
    done = site.run("warm", "--for", "30m")
    assert done.returncode == 0 and done.stdout.startswith("the engine is kept warm until "), done.stderr
    first = wait_warm(site)
    told = state(site)
    assert told["why"] == "command"
    deliver(site, "a.png", b"one")
    assert wait_warm(site, 2) == first, "until the time that was asked for"
    assert state(site)["until"] == told["until"]
    longer = site.run("warm", "--for", "2h")
    assert longer.returncode == 0
    wait_until(lambda: state(site)["until"] > told["until"], "the new time")
    assert site.engines() == [first]
    off = site.run("warm", "--off")
    assert off.returncode == 0 and "no engine is kept from now on" in off.stdout
    wait_gone(site, running)
    assert exits(site) == [0]
    deliver(site, "b.png", b"two")
    wait_gone(site, running)
    assert running.stop() == 0
    check_books(site)
    assert site.upscaled() == [1, 1]


@pytest.mark.slow
def test_called_off_is_also_what_the_schedule_wants_now(make_site: MakeSite) -> None:
    site = kept(make_site, 600, warm=[{"at": "0 0 * * *", "for_seconds": 86400}])
    running = site.start()
    wait_warm(site)
    assert site.run("warm", "--off").returncode == 0
    wait_gone(site, running)
    deliver(site, "a.png", b"one")
    wait_warm(site, 2)
    assert state(site)["why"] == "keep_warm"
    assert running.stop() == 0


def stopped_without_a_lock(site: Site, pid: int) -> bool:
    os.kill(pid, signal.SIGSTOP)
    try:
        with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite3", timeout=0.2)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        os.kill(pid, signal.SIGCONT)
        return False
    return True


def test_several_ask_at_once_and_one_gives_up(make_site: MakeSite) -> None:
    """The watcher is busy meanwhile; who gave up does not get what he asked for."""
    site = kept(make_site, 0)
    running = site.start()
    wait_until(lambda: stopped_without_a_lock(site, running.pid), "the watcher to be stopped between two transactions")
    asking = [
        subprocess.Popen(
            [command(), "warm", "--for", text, "--config", str(site.config_path)],
            cwd=site.root,
            env=site.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for text in ("1m", "2m", "23h")
    ]
    wishes = "SELECT json_array_length(value) FROM notes WHERE key = 'warm_wish'"
    wait_until(lambda: site.query(wishes) == [(3,)], "all to have asked")
    asking[2].send_signal(signal.SIGINT)
    asking[2].communicate()
    assert asking[2].returncode != 0
    os.kill(running.pid, signal.SIGCONT)
    for process in asking[:2]:
        told, _ = process.communicate()
        assert process.returncode == 0 and b"the engine is kept warm until" in told, told
    wait_warm(site)
    ((until, began),) = site.query("SELECT wanted_until, began_at FROM warm_ups")
    assert until - began < 130
    assert running.stop() == 0


def test_a_stop_while_it_is_loading_leaves_none(make_site: MakeSite) -> None:
    site = kept(make_site, 0)
    running = site.start(STUB="LATE 30")
    assert site.run("warm", "--for", "60").returncode == 0
    wait_until(lambda: state(site)["state"] == "starting", "it to be started")
    assert "starting, to be warm until" in site.run("status").stdout
    assert running.stop(patience=10) == 0
    assert not site.engines()
    check_books(site)


@pytest.mark.slow
def test_a_picture_that_comes_while_it_is_loading_is_served_by_it(make_site: MakeSite) -> None:
    site = kept(make_site, 0)
    promise = Promise(site)
    running = site.start(STUB="LATE 1.5")
    assert site.run("warm", "--for", "60").returncode == 0
    promise.drop("a.png", b"one")
    wait_warm(site, 2)
    assert running.stop() == 0
    promise.check_end()
    check_books(site)
    assert site.upscaled() == [1]


@pytest.mark.slow
def test_a_wish_dies_with_the_watcher_that_it_was_meant_for(make_site: MakeSite) -> None:
    site = kept(make_site, 0)
    running = site.start()
    assert site.run("warm", "--for", "1h").returncode == 0
    wait_warm(site)
    running.kill()
    running = site.start()
    deliver(site, "a.png", b"one")
    wait_gone(site, running)
    assert site.upscaled() == [0, 1]


@pytest.mark.slow
def test_what_cannot_be_asked_for(make_site: MakeSite) -> None:
    site = kept(make_site)
    assert "no watcher is running" in complaint(site.run("warm", "--for", "30m"), 3)
    site.environment["DROPSCALE_EXECUTOR"] = "rq"
    assert "workers start their own" in complaint(site.run("warm", "--for", "30m"), 2)
    del site.environment["DROPSCALE_EXECUTOR"]
    for arguments in (
        ["--for", "soon"],
        ["--for", "0"],
        ["--for", "25h"],
        ["--for", "1h30m"],
        ["--for", "0.001s"],
        ["--for", "-5"],
        [],
        ["--for", "1h", "--off"],
    ):
        assert "30m" in complaint(site.run("warm", *arguments), 2)
    site.start()
    site.inbox.rename(site.root / "away")
    wait_until(lambda: site.status()["watcher"]["watching"] != "yes", "the watcher to notice")
    assert "the inbox is gone" in complaint(site.run("warm", "--for", "30m"), 3)
