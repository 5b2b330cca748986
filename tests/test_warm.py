"""Engines that are kept for the next window, and their ends."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, STUB_ENGINE, complaint, photo, stub_result, wait_until
from promise import Promise, real_owner
from warm_site import MakeSite, check_books, deliver, exits, kept, state, wait_delivered, wait_gone, wait_warm

# The next window


def test_two_windows_are_served_by_one_process(make_site: MakeSite) -> None:
    site = kept(make_site)
    promise = Promise(site)
    running = site.start()
    promise.drop("a.png", b"one")
    promise.drop("b.png", b"two UNSUPPORTED")
    first = wait_warm(site)
    promise.drop("c.png", b"three SLOW 0.3 ")
    promise.drop("d.png", b"four")
    assert wait_warm(site, 2) == first
    assert state(site)["process"] == first and state(site)["why"] == "keep_warm"
    promise.check_now()
    assert running.stop() == 0
    assert not site.engines(), "it does not outlive its watcher"
    promise.check_end(failed={"b.png"})
    check_books(site)
    assert exits(site) == [0], "it said goodbye"
    assert site.query("SELECT done, failed FROM engine_runs") == [(3, 1)]
    ((compute, idle),) = site.query("SELECT compute_seconds, idle_seconds FROM engine_runs")
    assert compute > 0.25 and idle > 0
    rows = site.query("SELECT why, starts_engine, batch IS NOT NULL, pictures FROM warm_ups ORDER BY id")
    assert rows == [("keep_warm", 0, 1, 2), ("keep_warm", 0, 0, 0)]
    ((spared,),) = site.query("SELECT spared_seconds FROM warm_ups WHERE batch IS NOT NULL")
    ((cold,),) = site.query("SELECT spawn_seconds + load_seconds FROM engine_runs")
    assert spared == pytest.approx(cold)
    (sums,) = json.loads(site.run("report", "--json").stdout)["warm_ups"]
    assert (sums["why"], sums["warm_ups"], sums["batches"], sums["pictures"]) == ("keep_warm", 2, 1, 2)
    assert sums["wait_saved_seconds"] == pytest.approx(2 * spared, abs=0.01)
    assert sums["cost"] == 0, "it is a CPU"
    assert "after batches, 2 times" in site.run("report").stdout


def test_the_real_engine_gives_the_same_bytes_to_the_second_window(make_site: MakeSite) -> None:
    """A lone picture does not wait for another one, either."""
    pictures = {"a.png": photo(1), "b.png": photo(2, 64, 40), "c.jpg": photo(3, 50, 50, ".jpg")}
    results = []
    for name, seconds in (("kept", 600), ("not kept", 0)):
        site = make_site(name, engine={**QUICK["engine"], "start_seconds": 60, "keep_warm_seconds": seconds})
        promise = Promise(site, real_owner)
        running = site.start()
        for picture, data in pictures.items():
            promise.drop(picture, data)
            wait_delivered(site, picture)
        assert running.stop() == 0
        promise.check_end()
        check_books(site)
        assert site.upscaled() == ([3] if seconds else [1, 1, 1])
        results.append(site.files(site.outbox))
    assert results[0] == results[1]


def test_it_is_let_go_when_its_time_is_up(make_site: MakeSite) -> None:
    site = kept(make_site, 0.5)
    running = site.start()
    deliver(site, "a.png", b"one")
    wait_gone(site, running)
    assert exits(site) == [0] and "its time is up" in running.log()
    ((idle,),) = site.query("SELECT idle_seconds FROM warm_ups")
    assert idle > 0.49
    told = state(site)
    assert told["state"] == "off" and not any(told[key] for key in ("process", "why", "until", "refused", "next_warm"))
    deliver(site, "b.png", b"two")
    assert len(exits(site)) == 2, "a fresh one"
    wait_gone(site, running)
    check_books(site)


def test_a_single_look_keeps_no_engine(make_site: MakeSite) -> None:
    site = kept(make_site)
    site.drop("a.png", b"one")
    assert site.once().returncode == 0
    assert exits(site) == [0] and not site.engines()
    assert not site.query("SELECT id FROM warm_ups")


# Its ends


def test_one_that_is_killed_at_rest_is_noticed_and_no_picture_suffers(make_site: MakeSite) -> None:
    site = kept(make_site, engine={"attempts": 1})
    promise = Promise(site)
    running = site.start()
    promise.drop("a.png", b"one")
    os.kill(wait_warm(site), signal.SIGKILL)
    wait_gone(site, running)
    wait_until(lambda: "the engine that was kept warm is lost" in running.log(), "it to be told")
    assert exits(site) == [-9]
    promise.drop("b.png", b"two")
    wait_warm(site, 2)
    assert running.stop() == 0
    promise.check_end()
    check_books(site)
    assert site.query("SELECT MAX(attempts), MAX(waits) FROM pictures") == [(0, 0)]


def test_one_that_dies_when_it_is_asked_again_counts_against_nobody(make_site: MakeSite) -> None:
    """It died at rest, and nobody had noticed when the batch took it."""
    site = kept(make_site, engine={"attempts": 1})
    promise = Promise(site)
    running = site.start(STUB="MORTAL")
    promise.drop("a.png", b"one")
    wait_warm(site)
    promise.drop("b.png", b"two")
    wait_warm(site, 2)
    assert running.stop() == 0
    promise.check_end()
    check_books(site)
    assert exits(site) == [9, 0]
    assert site.query("SELECT MAX(attempts), MAX(waits) FROM pictures") == [(0, 0)]
    assert len(site.query("SELECT id FROM batches")) == 2, "within the same batch"
    ((used, spared),) = site.query("SELECT batch, spared_seconds FROM warm_ups ORDER BY id LIMIT 1")
    assert used is None and spared is None, "the batch had to start one all the same"


@pytest.mark.slow
@pytest.mark.parametrize("word", [b"SELFKILL", b"CRASH"])
def test_one_that_ends_at_work_is_not_kept_and_suspects_have_engines_of_their_own(
    make_site: MakeSite, word: bytes
) -> None:
    site = kept(make_site)
    promise = Promise(site)
    running = site.start()
    promise.drop("a.png", b"one")
    wait_warm(site)
    promise.drop("bad.png", word)
    promise.drop("good.png", b"two")
    wait_until(lambda: "good.png" in site.names(site.archive), "the other one to be delivered")
    if word == b"CRASH":
        wait_until(lambda: "bad.png" in site.names(site.failed), "the picture to fail")
    else:
        wait_until(lambda: site.query("SELECT id FROM pictures WHERE waits > 0"), "the picture to wait")
        (site.inbox / "bad.png").unlink()
        del promise.originals["bad.png"]
        wait_until(lambda: not site.query("SELECT id FROM pictures WHERE state = 'waiting'"), "it to be forgotten")
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the batch to end")
    assert not site.engines(), "the last one was for the suspect alone"
    assert running.stop() == 0
    promise.check_end(failed={"bad.png"} if word == b"CRASH" else set())
    check_books(site)


@pytest.mark.slow
def test_one_whose_surroundings_failed_is_not_kept(make_site: MakeSite) -> None:
    """Its device may have broken down, which only ends with the process."""
    site = kept(make_site, retry={"first_seconds": 600, "max_seconds": 600})
    running = site.start()
    site.drop("a.png", b"DISKFULL")
    wait_until(lambda: site.query("SELECT id FROM pictures WHERE waits > 0"), "the picture to wait")
    wait_gone(site, running)
    assert not site.query("SELECT id FROM warm_ups")
    check_books(site)


@pytest.mark.slow
def test_a_reload_keeps_it_unless_it_would_be_another_one(make_site: MakeSite) -> None:
    site = kept(make_site)
    running = site.start()
    deliver(site, "a.png", b"one")
    first = wait_warm(site)

    def reload(times: int, **sections: Any) -> None:
        engine = {**QUICK["engine"], "command": STUB_ENGINE, "keep_warm_seconds": 500, **sections.pop("engine", {})}
        site.configure(engine=engine, **sections)
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.log().count("watching ") > times, "the new config to be in use")

    reload(1, window={"quiet_seconds": 0.2})
    assert site.engines() == [first]
    assert state(site)["state"] == "warm", "nor are its books closed"
    deliver(site, "b.png", b"two")
    assert wait_warm(site, 2) == first
    reload(2, engine={"threads": 1})
    wait_gone(site, running)
    assert "started with other settings" in running.log()
    deliver(site, "c.png", b"three")
    wait_warm(site, 3)
    reload(3, engine={"threads": 1, "keep_warm_seconds": 0})
    wait_gone(site, running)
    assert running.stop() == 0
    check_books(site)
    assert site.upscaled() == [2, 1]


def test_it_ends_with_a_watcher_that_is_killed(make_site: MakeSite) -> None:
    site = kept(make_site, cost={"per_hour": 3600, "currency": "EUR"}, budget={"per_month": 10})
    running = site.start(STUB="DEVICE cuda:0")
    deliver(site, "a.png", b"one")
    wait_warm(site)
    running.kill()
    wait_until(lambda: not site.engines(), "the engine to end")
    ended = time.time()
    assert state(site)["state"] == "off"
    wait_until(lambda: time.time() > ended + 2, "some time to pass")
    ((began,),) = site.query("SELECT held_from FROM engine_runs")
    before = json.loads(site.run("report", "--json").stdout)
    assert before["gpu_seconds"] <= ended + 0.1 - began, "it does not cost any more, though nobody has closed its books"
    assert before["warm_ups"][0]["cost"] <= before["cost"] == site.status()["budgets"][0]["used"]
    assert site.once().returncode == 0
    after = json.loads(site.run("report", "--json").stdout)
    assert [after[key] for key in ("cost", "warm_ups")] == [before[key] for key in ("cost", "warm_ups")]
    assert not site.query("SELECT id FROM warm_ups WHERE ended_at IS NULL OR idle_seconds IS NULL")
    ((exited_at, spawn, load, done),) = site.query(
        "SELECT exited_at, spawn_seconds, load_seconds, done FROM engine_runs"
    )
    assert exited_at <= ended + 0.1, "by its real end, not by the next start"
    assert spawn > 0 and load > 0 and done == 1, "what was known when it came to rest is not lost"


def test_it_ends_with_a_ledger_that_is_removed(make_site: MakeSite) -> None:
    """The watcher becomes another process; the engine must not stay with nobody to ask it anything."""
    site = kept(make_site)
    running = site.start()
    deliver(site, "a.png", b"one")
    first = wait_warm(site)
    shutil.rmtree(site.state)
    wait_until(lambda: first not in site.engines(), "the engine to end")
    deliver(site, "b.png", b"two")
    assert running.stop() == 0
    assert not site.engines()


def test_it_is_let_go_when_the_inbox_goes(make_site: MakeSite) -> None:
    site = kept(make_site)
    running = site.start()
    deliver(site, "a.png", b"one")
    wait_warm(site)
    site.inbox.rename(site.root / "away")
    wait_gone(site, running)
    (site.root / "away").rename(site.inbox)


@pytest.mark.slow
def test_beyond_the_budget_none_is_kept_or_loaded_ahead(make_site: MakeSite) -> None:
    """Idle time is paid for, too: what is held when the budget is used up is let go."""
    site = kept(
        make_site,
        warm=[{"at": "* * * * *", "for_seconds": 120}],
        cost={"per_hour": 3600, "currency": "EUR"},
        budget={"per_day": 0.5},
    )
    running = site.start(STUB="DEVICE cuda:0")
    wait_gone(site, running)
    wait_until(lambda: "no engine is kept warm: the budget is used up" in running.log(), "the reason to be told")
    told = state(site)
    assert told["state"] == "off" and "of this day's 0.5 EUR, until" in told["refused"]
    assert "off; not kept warm: the budget is used up" in site.run("status").stdout
    assert "the budget is used up" in complaint(site.run("warm", "--for", "1m"), 3)
    deliver(site, "urgent/a.png", b"one")
    wait_gone(site, running)
    assert running.stop() == 0
    check_books(site)
    assert site.query("SELECT COUNT(*) FROM warm_ups WHERE why != 'schedule'") == [(0,)]


def test_results_are_the_stubs(make_site: MakeSite) -> None:
    """What the other tests call delivered is what the engine made of it."""
    site = kept(make_site)
    site.start()
    deliver(site, "a.png", b"one")
    assert Path(site.outbox / "a.png").read_bytes() == stub_result(b"one")
