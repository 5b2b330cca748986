"""`EngineProcess` that stays, is stopped, or let go, against real child processes."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import STUB_ENGINE, wait_until
from talks import Make, Requests, answers, is_gone, never

from sr_engine import protocol
from watcher.engine.ends import EngineStopped, EngineTrouble

# Staying


def test_one_that_stays_answers_again_and_ends_when_it_is_let_go(make: Make, requests: Requests) -> None:
    engine = make()
    *first, last = requests(b"one", b"UNSUPPORTED", b"three")
    assert answers(engine, first) == ["done", "failed"]
    assert engine.is_fit and engine.returncode is None
    engine.attend()
    assert answers(engine, [last]) == ["done"]
    engine.dismiss()
    assert engine.returncode == 0 and is_gone(engine.pid)
    meter = engine.meter
    parts = (meter.spawn_seconds, meter.load_seconds, meter.compute_seconds, meter.idle_seconds, meter.exit_seconds)
    assert sum(parts) == pytest.approx(meter.ended_at - meter.spawned_at) and min(parts) > 0


def test_silence_at_rest_is_no_hang_and_deadlines_begin_anew(make: Make, requests: Requests) -> None:
    engine = make(deadline_seconds=0.4, start_seconds=5.0)
    *slow, hanging = requests(b"SLOW 0.25 ", b"SLOW 0.25 ", b"HANG")
    for request in slow:
        assert answers(engine, [request]) == ["done"]
        rested = time.monotonic()
        wait_until(lambda rested=rested: time.monotonic() > rested + 0.6, "a rest beyond its deadline")
        assert not engine.wants_attention
        engine.attend()
    with pytest.raises(EngineTrouble, match="not done in its time") as caught:
        answers(engine, [hanging])
    assert caught.value.in_work == {3} and not engine.is_fit


@pytest.mark.parametrize("word", [b"DISKFULL", b"HOSTMEMORY"])
def test_one_that_told_of_a_failure_around_it_is_not_fit_for_more(make: Make, requests: Requests, word: bytes) -> None:
    """A device that broke down stays so, and memory in pieces too, as long as the process lives."""
    engine = make()
    assert answers(engine, requests(word, b"two")) == ["failed", "done"]
    assert not engine.is_fit


def test_the_death_of_one_at_rest_is_told(make: Make, requests: Requests) -> None:
    engine = make()
    answers(engine, requests(b"one"))
    os.kill(engine.pid, 9)
    wait_until(lambda: engine.wants_attention, "its end to be heard")
    with pytest.raises(EngineTrouble, match="SIGKILL") as caught:
        engine.attend()
    assert caught.value.in_work == set() and not caught.value.blames


def test_one_at_rest_that_is_dead_by_then_leaves_all_unanswered(make: Make, requests: Requests) -> None:
    engine = make()
    answers(engine, requests(b"one"))
    os.kill(engine.pid, 9)
    with pytest.raises(EngineTrouble, match="SIGKILL") as caught:
        answers(engine, requests(b"two"))
    assert caught.value.in_work == set()


def test_one_that_is_loaded_ahead_has_its_time_to_start_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB", "NEVERREADY")
    engine = make(start_seconds=0.3)
    assert not engine.wants_attention
    wait_until(lambda: engine.wants_attention, "its time to be over")
    with pytest.raises(EngineTrouble, match=r"not ready after 0\.3 s"):
        engine.attend()
    assert is_gone(engine.pid)


def test_one_that_is_loading_is_let_go_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB", "LATE 60")
    engine = make()
    begun = time.monotonic()
    engine.dismiss()
    assert time.monotonic() - begun < 5 and is_gone(engine.pid)


def test_one_that_talks_at_rest_is_not_believed(make: Make, requests: Requests) -> None:
    engine = make("""
        print('{"type":"ready","v":2,"runtime":"x","device":"cpu","precision":"x","load_seconds":0}', flush=True)
        print('{"type":"progress","v":2,"id":1,"done":1,"total":2}', flush=True)
        input()
    """)
    with pytest.raises(EngineTrouble, match="without being asked"):
        while True:
            wait_until(lambda: engine.wants_attention, "it to talk")
            engine.attend()
    assert engine.ready is not None and is_gone(engine.pid)


# Stopping


def test_a_stop_ends_an_idle_engine_at_once(make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB", "LATE 30")
    engine = make()
    begun = time.monotonic()
    with pytest.raises(EngineStopped):
        list(engine.upscale(requests(b"one"), lambda: begun + 60))
    assert time.monotonic() - begun < 3 and is_gone(engine.pid)


def test_a_stop_lets_the_picture_in_work_finish_and_begins_no_other(make: Make, requests: Requests) -> None:
    engine = make()
    stop: list[float] = []
    events = []
    with pytest.raises(EngineStopped):
        for event in engine.upscale(requests(b"SLOW 0.5 ", b"two", b"three"), lambda: stop[0] if stop else None):
            events.append(event)
            if isinstance(event, protocol.Started) and not stop:
                stop.append(time.monotonic() + 20)
    assert [event.id for event in events if isinstance(event, protocol.Done)] == [1]
    assert is_gone(engine.pid)


def test_a_stop_waits_for_all_pictures_in_work(make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB", "TOGETHER 3")
    stop: list[float] = []
    done = []
    with pytest.raises(EngineStopped):
        for event in make().upscale(requests(*[b"SLOW 0.2 "] * 5), lambda: stop[0] if stop else None):
            if isinstance(event, protocol.Started) and event.id == 3:
                stop.append(time.monotonic() + 20)
            done += [event.id] if isinstance(event, protocol.Done) else []
    assert done == [1, 2, 3]


def test_a_stop_abandons_the_picture_in_work_when_the_grace_time_ends(make: Make, requests: Requests) -> None:
    engine = make()
    begun = time.monotonic()
    stop: list[float] = []
    with pytest.raises(EngineStopped):
        for event in engine.upscale(requests(b"HANG"), lambda: stop[0] if stop else None):
            if isinstance(event, protocol.Started):
                stop.append(time.monotonic() + 0.5)
    assert 0.5 <= time.monotonic() - begun < 5 and is_gone(engine.pid)


# Letting go


def test_engines_that_will_not_end_are_killed_in_the_end(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ignores that its stdin closed, another that it is to end, one closed its output and stays: all at once."""
    monkeypatch.setenv("STUB", "DEAF")
    deaf = make()
    with contextlib.closing(deaf.upscale(requests(b"SLOW 60 "), never)) as events:
        next(events)
    stubborn = make("""
        import time
        print('{"type":"ready","v":2,"runtime":"x","device":"cpu","precision":"x","load_seconds":0}', flush=True)
        time.sleep(3600)
    """)
    wait_until(lambda: stubborn.wants_attention, "it to be ready")
    stubborn.attend()
    mute = make("""
        import os, time
        os.close(1)
        time.sleep(3600)
    """)
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        closing = pool.submit(deaf.close)
        pool.submit(stubborn.dismiss)
        with pytest.raises(EngineTrouble, match="closed its output"):
            list(mute.upscale(requests(b"SLOW 60 "), never))
        closing.result()
    assert time.monotonic() - begun < 15
    assert deaf.returncode == stubborn.returncode == -9
    assert all(is_gone(engine.pid) for engine in (deaf, stubborn, mute))


def test_close_is_bounded_while_the_requests_fill_the_pipe(make: Make, requests: Requests) -> None:
    """An engine that reads nothing, more requests than a pipe holds, and a batch that ends for another reason."""
    engine = make("""
        import time
        print('{"type":"ready","v":2,"runtime":"x","device":"cpu","precision":"x","load_seconds":0}', flush=True)
        time.sleep(3600)
    """)
    many = requests(b"one") * 3000
    with contextlib.closing(engine.upscale(many, never)) as events:
        next(events)
    begun = time.monotonic()
    engine.close()
    assert time.monotonic() - begun < 15 and is_gone(engine.pid)


def test_many_requests_and_a_long_stderr_do_not_block_each_other(make: Make, requests: Requests) -> None:
    engine = make("""
        import json, sys
        sys.stderr.write(("x" * 99 + "\\n") * 5000)
        def say(**event):
            print(json.dumps({"v": 2, **event}), flush=True)
        say(type="ready", runtime="x", device="cpu", precision="x", load_seconds=0)
        for line in sys.stdin:
            request = json.loads(line)
            if request["type"] == "end":
                break
            say(type="failed", id=request["id"], code="unsupported", message="no", fault="picture", retryable=False)
            sys.stderr.write("another line\\n")
        say(type="bye", pictures=3000, failed=3000, seconds=0)
    """)
    events = list(engine.upscale(requests(b"one") * 3000, never))
    assert len(events) == 3002 and engine.failed == 3000


def test_the_engine_ends_when_its_watcher_is_killed(tmp_path: Path) -> None:
    """A child of a process that is gone: it sees its stdin close."""
    (tmp_path / "a.png").write_bytes(b"SLOW 60 ")
    script = f"""
        import os, signal, sys
        from sr_engine import protocol
        from watcher.sections import Engine
        from watcher.engine.process import EngineProcess
        engine = EngineProcess(Engine(command=tuple({STUB_ENGINE!r})), "models", protocol.Limits())
        request = protocol.Upscale(id=1, source={str(tmp_path / "a.png")!r}, target={str(tmp_path / "result")!r})
        for event in engine.upscale([request], lambda: None):
            if isinstance(event, protocol.Started):
                print(engine.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True, timeout=30
    )
    pid = int(done.stdout)
    wait_until(lambda: is_gone(pid), "the engine to end", 10)
