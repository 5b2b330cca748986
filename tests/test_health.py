"""`dropscale health` and what `status --json` says of the moment: of real watchers, stopped ones and none."""

import os
import re
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from harness import HASTY_STUB, Running, Site, complaint, wait_until

from watcher.operation.health import STALE_SECONDS


def health(site: Site, code: int) -> str:
    """The one line that it prints."""
    done = site.run("health")
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    verdict, _, why = line.partition(": ")
    assert verdict == ("unhealthy" if code else "healthy")
    return why


class Stopped(NamedTuple):
    """A site whose watcher is stopped by a signal (SIGSTOP): alive, and doing nothing."""

    site: Site
    running: Running


@pytest.fixture
def stopped(stub_site: Site) -> Stopped:
    running = stub_site.start()
    wait_until(lambda: stub_site.run("health").returncode == 0, "the watcher to be healthy")
    running.process.send_signal(signal.SIGSTOP)
    return Stopped(stub_site, running)


def test_without_a_watcher_nothing_is_healthy(stub_site: Site) -> None:
    assert "no watcher is running" in health(stub_site, 1)
    assert stub_site.once().returncode == 0
    assert "no watcher is running" in health(stub_site, 1)


def test_a_watcher_at_rest_is_healthy_until_it_ends(stub_site: Site) -> None:
    running = stub_site.start()
    wait_until(lambda: stub_site.run("health").returncode == 0, "the watcher to be healthy")
    assert str(stub_site.inbox) in health(stub_site, 0)
    assert running.stop() == 0
    assert "no watcher is running" in health(stub_site, 1)


@pytest.mark.slow
def test_a_watcher_that_hangs_is_not_healthy_and_is_again_when_it_goes_on(stopped: Stopped) -> None:
    """It holds the lock and its process is there, which is all that a look at processes would tell."""
    heartbeat = stopped.site.state / "heartbeat"
    long_ago = time.time() - STALE_SECONDS - 5
    os.utime(heartbeat, (long_ago, long_ago))
    # who was started after its last beat would be one that has not begun yet
    stopped.site.execute("UPDATE notes SET value = '1000' WHERE key = 'started_at'")
    assert re.search(r"no sign of life for \d\d+ s", health(stopped.site, 1))
    stopped.running.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stopped.site.run("health").returncode == 0, "the next beat of the heart")


def test_status_says_that_a_watcher_hangs(stopped: Stopped) -> None:
    assert stopped.site.status()["problems"] == []
    long_ago = time.time() - STALE_SECONDS - 5
    os.utime(stopped.site.state / "heartbeat", (long_ago, long_ago))
    stopped.site.execute("UPDATE notes SET value = '1000' WHERE key = 'started_at'")
    (problem,) = stopped.site.status()["problems"]
    assert re.search(r"the watcher hangs, or a share that it looks at: no sign of life for \d\d+ s", problem)
    told, _, _ = problem.rpartition(" for ")
    assert f"PROBLEM   {told}" in stopped.site.run("status").stdout
    stopped.site.execute(f"UPDATE notes SET value = '{time.time()}' WHERE key = 'started_at'")
    assert stopped.site.status()["problems"] == [], "the beat was of an earlier one: this may be `once`"
    stopped.site.execute("UPDATE notes SET value = '1000' WHERE key = 'started_at'")
    stopped.running.kill()
    assert stopped.site.status()["problems"] == [], "who is gone does not hang"


def test_a_watcher_that_has_not_begun_yet_is_not_healthy(stopped: Stopped) -> None:
    (stopped.site.state / "heartbeat").unlink()
    assert "has not begun to watch yet" in health(stopped.site, 1)


def test_the_heart_of_an_earlier_watcher_does_not_count(stopped: Stopped) -> None:
    long_ago = time.time() - STALE_SECONDS - 5
    os.utime(stopped.site.state / "heartbeat", (long_ago, long_ago))
    assert "has not begun to watch yet" in health(stopped.site, 1)


def test_a_folder_whose_name_is_no_text_is_told_all_the_same(make_site: Callable[..., Site]) -> None:
    site = make_site("odd\udcff\x1b", **HASTY_STUB)
    site.start()
    wait_until(lambda: site.run("health").returncode == 0, "the watcher to be healthy")
    site.archive.rmdir()
    assert "odd\\xff\\x1b/archive is not there" in health(site, 1)


def test_an_inbox_that_went_away_is_told_until_it_is_back(stub_site: Site) -> None:
    stub_site.start()
    away = stub_site.root / "away"
    stub_site.inbox.rename(away)
    wait_until(lambda: "the inbox is gone" in stub_site.run("health").stdout, "the watcher to notice")
    away.rename(stub_site.inbox)
    wait_until(lambda: stub_site.run("health").returncode == 0, "the watcher to take it up again")


def test_another_folder_that_went_away_is_told(stub_site: Site) -> None:
    stub_site.start()
    wait_until(lambda: stub_site.run("health").returncode == 0, "the watcher to be healthy")
    stub_site.archive.rmdir()
    assert re.search(r"folders\.archive: .* is not there", health(stub_site, 1))


def test_a_ledger_that_cannot_be_read_is_told(stopped: Stopped) -> None:
    for name in ("ledger.sqlite3-wal", "ledger.sqlite3-shm"):
        (stopped.site.state / name).unlink()
    (stopped.site.state / "ledger.sqlite3").write_bytes(b"no database at all, " * 400)
    assert re.search(r"the ledger .* cannot be read: file is not a database", health(stopped.site, 1))


def test_an_inbox_that_nobody_looked_through_for_long_is_told(stopped: Stopped) -> None:
    stopped.site.execute("UPDATE notes SET value = value - 1000 WHERE key = 'last_reconcile'")
    assert re.search(r"looked through 1\d\d\d s ago: watch.rescan_seconds is 300", health(stopped.site, 1))


def test_a_wrong_config_has_a_code_of_its_own(stub_site: Site) -> None:
    stub_site.config_path.write_text("watch: {settle_seconds: soon}")
    assert "watch.settle_seconds" in complaint(stub_site.run("health"), 2)


@pytest.mark.slow
def test_the_heartbeat_is_no_more_than_a_file_touched_now_and_then(stub_site: Site) -> None:
    stub_site.start()
    heartbeat = stub_site.state / "heartbeat"
    first = wait_until(lambda: heartbeat.exists() and heartbeat.stat().st_mtime_ns, "the first beat")
    wait_until(lambda: heartbeat.stat().st_mtime_ns != first, "the second beat")
    assert heartbeat.stat().st_size == 0
    between = heartbeat.stat().st_mtime_ns - first
    assert between > 5e9, "each is a write to a disk that may want to sleep"


# What status says of the moment


def test_status_tells_queue_ages_engine_and_the_last_batch(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB)
    path = site.drop("old.png", b"SLOW 2 a picture")
    report = site.status()
    assert (report["engine"]["state"], report["engine"]["since"]) == ("off", None)
    assert report["last_batch"] is None
    (waiting,) = report["waiting"]
    assert report["queue"] == {"waiting": 1, "working": 0, "oldest_waiting_seconds": waiting["age_seconds"]}
    assert 0 <= waiting["age_seconds"] <= time.time() - path.stat().st_ctime

    running = site.start()
    at_work = wait_until(lambda: (now := site.status())["engine"]["state"] == "working" and now, "the engine to work")
    assert at_work["queue"]["working"] == 1
    assert at_work["last_batch"]["finished_at"] is None
    wait_until(lambda: site.status()["engine"]["state"] == "off", "the engine to end")
    batch = wait_until(lambda: (last := site.status()["last_batch"])["finished_at"] and last, "the batch to end")
    assert (batch["pictures"], batch["done"], batch["failed"]) == (1, 1, 0)
    site.drop("bad.png", b"UNSUPPORTED")
    failed = wait_until(lambda: (last := site.status()["last_batch"])["failed"] and last, "the next batch")
    assert failed["id"] > batch["id"] and failed["done"] == 0
    assert running.stop() == 0
    report = site.status()
    assert report["watcher"]["events_missed"] == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", report["watcher"]["last_reconcile"])
    assert "last      batch of " in site.run("status").stdout


def test_an_engine_does_not_outlive_its_watcher_in_status(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB)
    site.drop("a.png", b"SLOW 30")
    running = site.start()
    wait_until(lambda: site.status()["engine"]["state"] == "working", "the engine to work")
    running.kill()
    assert site.status()["engine"]["state"] == "off"
