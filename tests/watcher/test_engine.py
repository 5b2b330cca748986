"""`EngineProcess` against real child processes."""

import contextlib
import time
from pathlib import Path

import msgspec
import pytest
from talks import Make, Requests, is_gone, names, never

from sr_engine import protocol
from sr_engine.protocol import Limits
from watcher.engine.ends import EngineGaveUp, EngineTrouble
from watcher.engine.process import EngineProcess
from watcher.sections import Engine


def test_a_conversation_from_ready_to_bye(make: Make, requests: Requests) -> None:
    engine = make()
    events = list(engine.upscale(requests(b"one", b"UNSUPPORTED"), never))
    said = ["ready", "started", "started", "progress", "done", "started", "started", "failed", "bye"]
    assert names(events) == said
    assert engine.ready is not None and engine.ready_at is not None
    assert (engine.done, engine.failed, engine.peak_memory_bytes) == (1, 1, 1)
    assert engine.meter.spawned_at <= engine.ready.started_at <= engine.ready_at
    engine.close()
    assert engine.returncode == 0 and is_gone(engine.pid)


ECHO = """
    import json, sys
    told = {"runtime": "x", "device": "cpu", "precision": "x", "load_seconds": 0, "reason": json.dumps(sys.argv[1:])}
    print(json.dumps({"type": "ready", "v": 2, **told}), flush=True)
    sys.stdin.read()
"""


def told_arguments(engine: EngineProcess) -> list[str]:
    with contextlib.closing(engine.upscale([], never)) as events:
        next(events)
    assert engine.ready is not None
    return list(msgspec.json.decode(engine.ready.reason))


def test_the_engine_is_told_all_that_the_config_says(make: Make, tmp_path: Path) -> None:
    cache = tmp_path / "state" / "engines"
    arguments = told_arguments(
        make(ECHO, model="edsr-x3", runtime="onnx", device="cuda:1", precision="fp32", ensemble=True, threads=3)
    )
    limits = arguments.pop()
    assert arguments == [
        *("--model", "edsr-x3", "--models-folder", str(tmp_path), "--runtime", "onnx", "--device", "cuda:1"),
        *("--precision", "fp32", "--ensemble", "--threads", "3", "--cache-folder", str(cache), "--limits"),
    ]
    assert msgspec.json.decode(limits, type=Limits) == Limits()
    assert cache.is_dir(), "made by whoever starts the engine"


def test_an_engine_works_without_a_cache_folder_that_cannot_be_made(make: Make, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    assert "--cache-folder" not in told_arguments(make(ECHO))


def test_an_engine_that_gives_up_says_whether_a_fresh_one_will_do_better(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineGaveUp, match="no memory for tiles") as caught:
        list(make().upscale(requests(b"LADDER 1"), never))
    assert caught.value.retryable
    monkeypatch.setenv("STUB", "UNUSABLE")
    with pytest.raises(EngineGaveUp, match="libGL") as caught:
        list(make().upscale(requests(b"one"), never))
    assert not caught.value.retryable


def test_a_program_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        EngineProcess(Engine(command=(str(tmp_path / "absent"),)), str(tmp_path), Limits())


@pytest.mark.parametrize(
    ("word", "told", "blames"),
    [
        (b"CRASH", "ended by SIGABRT", True),
        (b"EXIT", "exited with code 7", True),
        (b"SELFKILL", "ended by SIGKILL", False),
        (b"GARBAGE", "talked nonsense", True),
    ],
)
def test_an_engine_that_ends_early_names_the_picture_in_work(
    make: Make, requests: Requests, word: bytes, told: str, blames: bool
) -> None:
    engine = make()
    events = []
    with pytest.raises(EngineTrouble, match=told) as caught:
        for event in engine.upscale(requests(b"one", word, b"three"), never):
            events.append(event)
    assert names(events).count("done") == 1, "what was done before counts"
    assert caught.value.in_work == {2} and caught.value.blames is blames
    assert is_gone(engine.pid)
    if word == b"EXIT":
        assert "I was told to exit" in caught.value.stderr


def test_a_hanging_picture_is_given_up_at_its_deadline(make: Make, requests: Requests) -> None:
    engine = make(deadline_seconds=0.5)
    begun = time.monotonic()
    with pytest.raises(EngineTrouble, match="not done in its time") as caught:
        list(engine.upscale(requests(b"HANG", b"two"), never))
    assert 0.5 <= time.monotonic() - begun < 5
    assert caught.value.in_work == {1} and caught.value.blames and is_gone(engine.pid)


def test_a_larger_picture_has_more_time(make: Make, requests: Requests) -> None:
    """The stub says 64 x 64: 0.004 megapixels."""
    engine = make(deadline_seconds=0.1, deadline_seconds_per_megapixel=1000)
    assert names(list(engine.upscale(requests(b"SLOW 0.5 "), never)))[-1] == "bye"


def test_each_picture_has_the_whole_of_its_time(make: Make, requests: Requests) -> None:
    engine = make(deadline_seconds=1.0)
    events = list(engine.upscale(requests(*[b"SLOW 0.4 "] * 4), never))
    assert names(events).count("done") == 4


@pytest.mark.parametrize("word", [b"CRASH", b"HANG"])
def test_all_pictures_in_work_are_named_when_the_engine_ends(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    monkeypatch.setenv("STUB", "TOGETHER 3")
    with pytest.raises(EngineTrouble) as caught:
        list(make(deadline_seconds=0.5).upscale(requests(b"one", word, b"three", b"four", b"five"), never))
    assert caught.value.in_work == {2, 3, 4} and caught.value.blames


def test_pictures_that_wait_behind_others_are_not_late(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four begin at once; the last one is done long after its deadline."""
    monkeypatch.setenv("STUB", "TOGETHER 4")
    events = list(make(deadline_seconds=1.0).upscale(requests(*[b"SLOW 0.4 "] * 4), never))
    assert names(events)[:9] == ["ready", *["started"] * 8]
    assert names(events).count("done") == 4


def test_a_picture_may_take_long_as_long_as_it_moves(make: Make, requests: Requests) -> None:
    events = list(make(deadline_seconds=0.7).upscale(requests(b"TILES 6 "), never))
    assert names(events)[-2:] == ["done", "bye"]


def test_the_same_tile_again_is_no_progress(make: Make, requests: Requests) -> None:
    begun = time.monotonic()
    with pytest.raises(EngineTrouble, match="not done in its time") as caught:
        list(make(deadline_seconds=0.4).upscale(requests(b"CHATTER"), never))
    assert caught.value.in_work == {1} and time.monotonic() - begun < 5


def test_an_engine_that_never_gets_ready_is_given_up(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB", "NEVERREADY")
    engine = make(start_seconds=0.5)
    with pytest.raises(EngineTrouble, match=r"not ready after 0\.5 s") as caught:
        list(engine.upscale(requests(b"one"), never))
    assert caught.value.in_work == set() and is_gone(engine.pid)


def test_a_slow_consumer_does_not_make_the_engine_look_hung(make: Make, requests: Requests) -> None:
    """Delivery may take longer than any deadline: what the engine answered meanwhile lies ready."""
    engine = make(deadline_seconds=0.3)
    done = 0
    for event in engine.upscale(requests(b"one", b"two", b"SLOW 0.1 "), never):
        if isinstance(event, protocol.Done):
            done += 1
            time.sleep(0.6)  # the delivery itself
    assert done == 3


def test_an_engine_that_leaves_pictures_unanswered_is_told(make: Make, requests: Requests) -> None:
    engine = make("""
        print('{"type":"ready","v":2,"runtime":"x","device":"cpu","precision":"x","load_seconds":0}', flush=True)
        print('{"type":"bye","v":2,"pictures":0,"failed":0,"seconds":0}', flush=True)
    """)
    with pytest.raises(EngineTrouble, match="left 2 pictures unanswered"):
        list(engine.upscale(requests(b"one", b"two"), never))


def test_another_version_of_the_protocol_is_nonsense(make: Make, requests: Requests) -> None:
    engine = make("""
        print('{"type":"ready","v":99,"runtime":"x","device":"cpu","precision":"x","load_seconds":0}', flush=True)
        input()
    """)
    with pytest.raises(EngineTrouble, match="version 99"):
        list(engine.upscale(requests(b"one"), never))
