"""What is beyond the budget, or outside the hours, waits in the inbox; what is urgent does not."""

import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from harness import HASTY_STUB, Running, Site, wait_until
from promise import Promise

# A stub that works for 0.3 s on a picture costs 1 an hour x 3600 s: more than 0.2 in any case.
PRICE = {"per_hour": 3600, "currency": "EUR"}
USED_UP = {"per_day": 0.2}
PICTURE = b"a picture SLOW 0.3 "


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    site = make_site(**HASTY_STUB, cost=PRICE, budget=USED_UP)
    site.environment["STUB"] = "DEVICE cuda:0"
    return site


def spend(site: Site, promise: Promise) -> None:
    """The day's budget."""
    promise.drop("first.png", PICTURE)
    assert site.once().returncode == 0
    assert site.names(site.archive) == {"first.png"}


def closed_hours() -> dict[str, object]:
    """In which now is not, nor will be while a test runs."""
    later = datetime.now() + timedelta(hours=2)
    return {"only_between": [f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M}"]}


def test_beyond_the_budget_pictures_wait_and_status_says_until_when(site: Site) -> None:
    promise = Promise(site)
    spend(site, promise)
    promise.drop("second.png", b"another picture")
    done = site.once()
    assert done.returncode == 0 and "the budget is used up" in done.stderr, done.stderr
    promise.check_now()
    assert site.names(site.inbox) == {"second.png"} and site.engines() == []
    report = site.status()
    midnight = datetime.combine(datetime.now().date() + timedelta(days=1), datetime.min.time())
    assert datetime.fromisoformat(report["held"]["until"]).timestamp() == midnight.timestamp()
    assert "held until" in report["waiting"][0]["why"]
    (budget,) = report["budgets"]
    assert budget["period"] == "day" and budget["limit"] == 0.2 and budget["unit"] == "EUR" and budget["share"] > 1
    text = site.run("status").stdout
    assert "held      no engine starts before" in text and "of this day's 0.2 EUR" in text
    assert "never counted" not in text
    assert "of 0.2 EUR a day" in site.run("report").stdout


def test_where_engines_have_a_cpu_status_and_doctor_say_that_no_budget_holds_them(site: Site) -> None:
    site.environment["STUB"] = "DEVICE cpu"
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    assert "(0 %); engines on a CPU, as here, are never counted" in site.run("status").stdout
    assert "note  budget           it counts GPUs" in site.run("doctor").stdout


def test_what_is_urgent_passes_and_goes_first(site: Site) -> None:
    promise = Promise(site)
    spend(site, promise)
    promise.drop("second.png", b"another picture")
    promise.drop("urgent/sub/now.png", b"an urgent picture")
    promise.drop("urgently.png", b"only called so")
    assert site.once().returncode == 0
    assert site.names(site.archive) == {"first.png", "urgent/sub/now.png"}
    assert site.names(site.outbox) == {"first.png", "urgent/sub/now.png"}
    why = {row["path"]: row["why"] for row in site.status()["waiting"]}
    assert set(why) == {"second.png", "urgently.png"}


def test_a_greater_budget_is_taken_up_by_a_reload(site: Site) -> None:
    promise = Promise(site)
    spend(site, promise)
    running = site.start()
    promise.drop("second.png", b"another picture")
    wait_until(lambda: "pictures wait until" in running.log(), "the hold")
    promise.drop("third.png", b"a third one")
    promise.drop("urgent/now.png", b"an urgent picture")
    wait_until(lambda: "urgent/now.png" in site.names(site.archive), "the urgent one")
    assert site.names(site.inbox) == {"second.png", "third.png"}
    wait_until(lambda: not site.engines() and running.log().count("engine ended") == 1, "the end of its engine")
    assert running.log().count("pictures wait until") == 1, "told once"
    site.configure(**HASTY_STUB, cost=PRICE, budget={"per_day": 20_000})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not site.names(site.inbox) and not site.engines(), "the others")
    assert running.stop() == 0
    promise.check_end()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_watcher_that_holds_pictures_sleeps(site: Site) -> None:
    promise = Promise(site)
    spend(site, promise)
    running = site.start()
    promise.drop("second.png", b"another picture")
    wait_until(lambda: "pictures wait until" in running.log(), "the hold")
    before = sleeps(running.pid)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 3, "three seconds")
    assert sleeps(running.pid) - before < 20, "it asks again and again"
    assert running.stop() == 0


def sleeps(process: int) -> int:
    """How often its main thread went to sleep so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_a_cpu_is_never_billed_and_never_held(site: Site) -> None:
    site.environment["STUB"] = ""
    promise = Promise(site)
    spend(site, promise)
    promise.drop("second.png", b"another picture")
    assert site.once().returncode == 0
    promise.check_end()


def test_close_to_the_budget_there_is_one_warning(site: Site) -> None:
    promise = Promise(site)
    spend(site, promise)
    used = site.status()["budgets"][0]["used"]
    site.configure(**HASTY_STUB, cost=PRICE, budget={"per_day": used / 0.9, "per_month": 0})
    running = site.start()
    wait_until(lambda: "90 % of a budget are used" in running.log(), "the warning")
    promise.drop("sub/second.png", b"another " + PICTURE)
    wait_until(lambda: not site.names(site.inbox), "it is within the budget still, when it begins")
    promise.drop("third.png", b"a third one")
    wait_until(lambda: "pictures wait until" in running.log(), "the hold")
    assert running.log().count("% of a budget are used") == 1
    assert running.stop() == 0
    promise.check_now()


def test_outside_the_hours_pictures_wait(site: Site) -> None:
    promise = Promise(site)
    site.configure(**HASTY_STUB, budget=closed_hours())
    promise.drop("first.png", b"a picture")
    promise.drop("urgent/now.png", b"an urgent picture")
    done = site.once()
    assert done.returncode == 0 and "(budget.only_between); those in urgent/ do not" in done.stderr
    assert site.names(site.archive) == {"urgent/now.png"}
    site.configure(**HASTY_STUB)
    assert site.once().returncode == 0
    promise.check_end()


def test_without_an_urgent_folder_none_is_urgent(site: Site) -> None:
    site.configure(**{**HASTY_STUB, "window": {**HASTY_STUB["window"], "urgent_folder": ""}}, budget=closed_hours())
    site.drop("urgent/now.png", b"an urgent picture")
    assert site.once().returncode == 0
    assert site.names(site.inbox) == {"urgent/now.png"}


def held_and_taken_away(site: Site) -> tuple[Promise, Running]:
    """A watcher that holds a picture, which is taken away."""
    promise = Promise(site)
    spend(site, promise)
    running = site.start()
    second = site.drop("second.png", b"another picture")
    wait_until(lambda: "pictures wait until" in running.log(), "the hold")
    second.unlink()
    return promise, running


def test_what_was_taken_away_while_it_was_held_starts_no_engine(site: Site) -> None:
    promise, running = held_and_taken_away(site)
    site.configure(**HASTY_STUB, cost=PRICE, budget={"per_day": 20_000})
    running.process.send_signal(signal.SIGHUP)
    promise.drop("third.png", b"a third one")
    wait_until(lambda: "third.png" in site.names(site.archive), "the one that is there")
    assert running.stop() == 0
    assert site.upscaled() == [1, 1]


@pytest.mark.slow
def test_one_that_is_taken_away_alone_starts_none_when_the_hold_ends(site: Site) -> None:
    _, running = held_and_taken_away(site)
    site.execute("UPDATE engine_runs SET spawned_at = spawned_at - 864000")  # as if that day were over
    wait_until(lambda: "window closed" in running.log(), "the end of the hold")
    assert running.stop() == 0
    assert "engine started" not in running.log()


@pytest.mark.parametrize("killed", [False, True])
def test_a_cpu_is_no_gpu_while_it_works_nor_after_a_kill(site: Site, killed: bool) -> None:
    site.environment["STUB"] = ""
    promise = Promise(site)
    promise.drop("a.png", b"a picture SLOW 2 ")
    running = site.start()
    wait_until(lambda: site.status()["engine"]["state"] == "working", "the engine")
    assert site.status()["budgets"][0]["used"] == 0
    if killed:
        running.kill()
        assert site.once().returncode == 0
    else:
        wait_until(lambda: not site.names(site.inbox), "the picture")
        assert running.stop() == 0
    assert site.status()["budgets"][0]["used"] == 0
    promise.check_end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another system says it otherwise")
def test_a_ledger_that_does_not_answer_for_a_while_ends_no_watcher(site: Site) -> None:
    running = site.start()
    aside = site.root / "aside"
    site.state.rename(aside)
    site.state.symlink_to("state")  # a link to itself: an error that says nothing of the file
    wait_until(lambda: "does not answer" in running.log(), "the error")
    seen = running.log().count("does not answer")
    wait_until(lambda: running.log().count("does not answer") > seen + 1, "more of it")
    site.state.unlink()
    aside.rename(site.state)
    site.drop("a.png", b"a picture")
    wait_until(lambda: "a.png" in site.names(site.archive), "the picture")
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"only_between": ["7-9"]}, "budget.only_between: ['7-9'] is not allowed"),
        ({"quiet_hours": ["00:00-00:00"]}, "budget.quiet_hours: no time of the day is left"),
        ({"per_day": -1}, "budget.per_day: -1 is not allowed; expected a number, 0 or more"),
        ({"unit": "hours"}, "expected one of money, gpu_minutes"),
    ],
)
def test_what_a_budget_cannot_be_is_refused(site: Site, budget: dict[str, object], told: str) -> None:
    site.configure(**HASTY_STUB, budget=budget)
    done = site.once()
    assert done.returncode == 2 and told in done.stderr, done.stderr
