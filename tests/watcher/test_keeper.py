"""The keeper of the engine, with real processes, as the loop and the batches of a watcher ask it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import STUB_ENGINE, wait_until
from house import House

from sr_engine import protocol
from watcher.accounting import engine_runs
from watcher.accounting.warm_ups import Wanted
from watcher.engine.keeper import EngineKeeper
from watcher.engine.process import EngineProcess
from watcher.engine.schedule import Schedule
from watcher.engine.terms import Order, Terms
from watcher.engine.wishes import Wish, answer_to, ask, withdraw
from watcher.ledger import Ledger
from watcher.sections import Engine, Retry, WarmTime


class Watcher:
    """The loop of a watcher, as far as it is about the engine; each step is a turn."""

    def __init__(
        self, house: House, keep_warm_seconds: float, longest_seconds: float, schedule: Schedule | None
    ) -> None:
        self.ledger = house.ledger
        self.reason = ""
        self.log: list[str] = []
        settings = Engine(command=tuple(STUB_ENGINE), keep_warm_seconds=keep_warm_seconds)
        self.keeper = EngineKeeper(self.ledger, longest_seconds)
        self.keeper.adopt(Order(settings, str(house.state), protocol.Limits(), str(house.state / "engines"), ""))
        self.keeper.keep(Terms(schedule, Retry(0.1, 0.2), lambda: self.reason, lambda: None))
        self._folder = house.inbox
        self._number = 0

    def step(self) -> None:
        self.keeper.hear_wishes()
        if errand := self.keeper.errand(may_load=True):
            errand()

    def turn_until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(lambda: self.step() or condition(), what)

    def batch(self) -> None:
        """One picture."""
        self.work(self.keeper.take(self.ledger.open_batch("quiet", 1), alone=False))

    def work(self, engine: EngineProcess) -> None:
        """One picture, in an engine that was taken."""
        self._number += 1
        source = self._folder / f"{self._number}.png"
        source.write_bytes(b"a picture")
        request = protocol.Upscale(id=self._number, source=str(source), target=f"{source}-result")
        events = list(engine.upscale([request], lambda: None))
        assert any(isinstance(event, protocol.Done) for event in events)
        self.keeper.give_back(engine)

    def rows(self) -> list[tuple[str, bool, bool, int]]:
        """Why, whether the engine was started for it, whether a batch took it, its pictures."""
        found = self.ledger.select("SELECT why, starts_engine, batch, pictures FROM warm_ups ORDER BY id", ())
        return [(why, bool(starts), batch is not None, pictures) for why, starts, batch, pictures in found]

    def starts(self) -> int:
        return len(self.ledger.select("SELECT id FROM engine_runs", ()))


@pytest.fixture
def make_watcher(house: House) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make(keep: float = 0, longest: float = 3600, schedule: Schedule | None = None) -> Watcher:
        made.append(Watcher(house, keep, longest, schedule))
        return made[-1]

    yield make
    for watcher in made:
        watcher.keeper.close()
        assert watcher.keeper.run is None


def test_without_a_reason_each_batch_has_an_engine_of_its_own(make_watcher: Callable[..., Watcher]) -> None:
    watcher = make_watcher()
    watcher.batch()
    assert watcher.keeper.run is None
    watcher.batch()
    assert (watcher.starts(), watcher.rows()) == (2, [])


def has_ended(pid: int) -> bool:
    """Whether this child has, which nobody has reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


@pytest.mark.parametrize("is_ready", [True, False])
def test_one_whose_time_is_up_ends_also_while_a_job_has_no_work_for_it(
    make_watcher: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch, is_ready: bool
) -> None:
    """The job copies earlier results, or a share does not answer; what it costs ends with the process."""
    if not is_ready:
        monkeypatch.setenv("STUB", "LATE 30")
    watcher = make_watcher(schedule=Schedule([WarmTime("* * * * *", 120)]))
    watcher.turn_until(lambda: watcher.keeper.run, "the engine to be loaded")
    if is_ready:
        watcher.turn_until(lambda: watcher.ledger.select("SELECT 1 FROM engine_runs WHERE ready_at > 0", ()), "ready")
    ((pid,),) = watcher.ledger.select("SELECT pid FROM engine_runs", ())
    watcher.keeper.guard()
    assert not has_ended(pid), "its time is not up"
    watcher.reason = "the budget is used up"
    watcher.keeper.guard()
    wait_until(lambda: has_ended(pid), "the engine to end")
    gone_at = time.time()
    watcher.keeper.guard()
    watcher.reason = ""
    monkeypatch.setenv("STUB", "")
    wait_until(lambda: time.time() > gone_at + 0.5, "the job to go on")
    watcher.batch()
    assert watcher.starts() == 2, "no batch takes one that is leaving"
    ((exited_at, code),) = watcher.ledger.select("SELECT exited_at, exit_code FROM engine_runs WHERE id = 1", ())
    assert exited_at < gone_at + 0.1 and code == (0 if is_ready else -9)
    assert watcher.rows()[0] == ("schedule", True, False, 0)


def test_a_wish_takes_over_from_what_the_config_says(make_watcher: Callable[..., Watcher], house: House) -> None:
    watcher = make_watcher(keep=600)
    watcher.batch()
    other = Ledger(str(house.state))
    wish, off = Wish("1", time.time(), 3600), Wish("2", time.time(), 0)
    ask(other, wish)
    watcher.turn_until(lambda: answer_to(other, wish), "an answer")
    watcher.turn_until(lambda: len(watcher.rows()) == 2, "the new reason to be booked")
    watcher.batch()
    assert watcher.rows() == [
        ("keep_warm", False, False, 0),
        ("command", False, True, 1),
        ("command", False, False, 0),
    ]
    ask(other, off)
    watcher.turn_until(lambda: watcher.keeper.run is None, "the engine to be let go")
    assert watcher.starts() == 1
    assert watcher.ledger.select("SELECT id FROM warm_ups WHERE ended_at IS NULL", ()) == []
    ask(other, Wish("3", time.time(), 3600))
    watcher.reason = "it is Sunday"
    watcher.turn_until(lambda: (answer := answer_to(other, Wish("3", 0, 0))) and answer.refused, "a refusal")
    other.close()


def test_an_engine_at_work_that_is_called_off_ends_with_its_batch(
    make_watcher: Callable[..., Watcher], house: House
) -> None:
    watcher = make_watcher(keep=600)
    engine = watcher.keeper.take(watcher.ledger.open_batch("quiet", 1), alone=False)
    with contextlib.closing(Ledger(str(house.state))) as other:
        ask(other, Wish("1", time.time(), 0))
        watcher.keeper.hear_wishes()
        answer = answer_to(other, Wish("1", 0, 0))
        assert answer is not None and "one at work ends with its batch" in answer.text
    watcher.work(engine)
    assert watcher.keeper.run is None
    watcher.batch()
    assert watcher.keeper.run is not None, "the next one is kept again"


def test_wishes_at_the_same_time_are_all_answered_and_rubbish_is_none(
    make_watcher: Callable[..., Watcher], house: House
) -> None:
    watcher = make_watcher()
    first, second, gone = (Wish(name, time.time(), 60) for name in ("1", "2", "3"))
    with contextlib.closing(Ledger(str(house.state))) as other:
        other.note(warm_wish='{"id": 3}', warm_answer="rubbish")
        watcher.step()
        for wish in (first, gone, second):
            ask(other, wish)
        withdraw(other, gone)
        watcher.step()
        assert answer_to(other, first) and answer_to(other, second) and not answer_to(other, gone)
        assert other.notes()["warm_wish"] == "[]"
        assert watcher.starts() == 1


def test_what_is_wanted_until_a_full_minute_is_told_so() -> None:
    for _ in range(50):
        minute = (time.time() // 60 + 5) * 60
        wanted = Wanted("schedule", 0.0, time.monotonic() + minute - time.time())
        assert wanted.until_at == minute


def test_a_reason_against_it_ends_it_and_nothing_is_loaded(make_watcher: Callable[..., Watcher]) -> None:
    watcher = make_watcher(schedule=Schedule([WarmTime("* * * * *", 120)]))
    watcher.turn_until(lambda: watcher.keeper.run, "the engine to be loaded")
    watcher.reason = "the budget is used up"
    watcher.turn_until(lambda: watcher.keeper.run is None, "the engine to be let go")
    for _ in range(3):
        watcher.step()
    assert watcher.starts() == 1 and watcher.ledger.notes()["warm_refused"] == "the budget is used up"
    watcher.reason = ""
    watcher.turn_until(lambda: watcher.starts() == 2, "it to be loaded again")
    assert watcher.ledger.notes()["warm_refused"] == ""


def test_an_old_one_is_replaced(make_watcher: Callable[..., Watcher]) -> None:
    watcher = make_watcher(schedule=Schedule([WarmTime("* * * * *", 120)]), longest=0.5)
    watcher.turn_until(lambda: watcher.starts() == 2, "a second one")
    kept = make_watcher(keep=600, longest=0.0)
    kept.batch()
    assert kept.keeper.run is None, "none is kept that is old when its batch ends"


def test_one_that_died_is_started_again_after_a_while(make_watcher: Callable[..., Watcher]) -> None:
    watcher = make_watcher(schedule=Schedule([WarmTime("* * * * *", 120)]))
    watcher.turn_until(lambda: watcher.keeper.run, "the engine to be loaded")
    ((pid,),) = watcher.ledger.select("SELECT pid FROM engine_runs", ())
    os.kill(pid, 9)
    watcher.turn_until(lambda: watcher.starts() == 2, "a second one")
    codes = watcher.ledger.select("SELECT exit_code FROM engine_runs ORDER BY id", ())
    assert codes == [(-9,), (None,)]


def test_after_a_kill_its_books_are_closed_but_those_of_one_that_lives_are_not(house: House) -> None:
    ledger = house.ledger
    dead, alive = (engine_runs.begin(ledger, None, pid, "m", 100.0) for pid in (1, 2))
    with ledger.transaction() as connection:
        connection.executemany(
            "INSERT INTO warm_ups (run, why, wanted_at, wanted_until, starts_engine, began_at)"
            " VALUES (?, 'schedule', 100, 900, 1, 110)",
            [(dead,), (alive,)],
        )
        connection.execute("UPDATE engine_runs SET ready_at = 130 WHERE id = ?", (dead,))
    (seen := Path(house.state / "engine-seen")).touch()
    os.utime(seen, (150, 150))
    engine_runs.close_open(ledger, 1000.0, alive)
    rows = ledger.select(
        "SELECT exited_at, ended_at, w.idle_seconds FROM warm_ups w JOIN engine_runs r ON r.id = w.run ORDER BY w.id",
        (),
    )
    assert rows == [(150.0, 150.0, 20.0), (None, None, None)]
