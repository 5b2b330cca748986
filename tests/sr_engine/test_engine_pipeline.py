"""The pipeline: several pictures at a time, each answered once, memory bounded, a device that is too small."""

import json
import os
import sys
import threading
import time

import cv2
import msgspec
import numpy as np
import pytest
from engine_files import draw, written
from harness import wait_until

from sr_engine.protocol import Code, Done, Failed, Fault, Progress, Ready, Started, Upscale, decode_path, encode_path
from sr_engine.queues import Room, TileQueue

FAST = ("--runtime", "opencv")


def ask(number, source, target):
    return Upscale(id=number, source=encode_path(os.fspath(source)), target=encode_path(os.fspath(target)))


def test_many_pictures_are_answered_once_each(converse, tmp_path):
    kinds = (".png", ".jpg", ".webp", ".tiff", ".bmp")
    engine = converse(*FAST)
    for number in range(40):
        source = tmp_path / f"{number}{kinds[number % len(kinds)]}"
        source.write_bytes(written(source.suffix, draw(8 + number, 60 - number, number)))
        engine.say(ask(number, source, tmp_path / f"out{number}"))
    heard, code = engine.finish()
    assert code == 0
    done = [event for event in heard if isinstance(event, Done)]
    assert sorted(event.id for event in done) == list(range(40))
    for event in done:
        result = cv2.imread(decode_path(event.target))
        expected = cv2.resize(draw(8 + event.id, 60 - event.id, event.id), None, fx=3, fy=3)
        assert result.shape == expected.shape == (event.height, event.width, 3)
        assert np.abs(result.astype(int) - expected).mean() < 12  # the right picture, not its neighbour

    in_work = most = 0
    for event in heard:
        in_work += isinstance(event, Started) and not event.width
        in_work -= isinstance(event, Done)
        most = max(most, in_work)
    assert 2 <= most <= 6 + (os.cpu_count() or 1)


def test_progress_counts_to_the_number_of_tiles(converse, model, tmp_path):
    (tmp_path / "tiles.json").write_bytes(
        msgspec.json.encode({f"opencv cpu {model.sha256[:16]}": {"pixels": 1, "at": time.time()}})
    )
    source = tmp_path / "a.png"
    source.write_bytes(written(".png", draw(300, 200)))
    engine = converse(*FAST, "--cache-folder", os.fspath(tmp_path))
    engine.say(ask(1, source, tmp_path / "out"))
    heard, _ = engine.finish()
    progress = [(event.done, event.total) for event in heard if isinstance(event, Progress)]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert cv2.imread(os.fspath(tmp_path / "out.png")).shape == (900, 600, 3)


def test_every_page_becomes_a_page(converse, tmp_path):
    pages = [draw(20, 30, 1), draw(25, 15, 2)]
    assert cv2.imwritemulti(os.fspath(tmp_path / "a.tiff"), pages)
    engine = converse(*FAST)
    engine.say(ask(1, tmp_path / "a.tiff", tmp_path / "out"))
    engine.finish()
    whole, results = cv2.imreadmulti(os.fspath(tmp_path / "out.tiff"))
    assert whole
    assert [page.shape for page in results] == [(60, 90, 3), (75, 45, 3)]
    assert np.abs(cv2.resize(results[1], (15, 25), interpolation=cv2.INTER_AREA).astype(int) - pages[1]).mean() < 3


def test_a_picture_beyond_a_limit_is_refused_from_its_header(converse, tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(written(".png", draw(40, 50)))
    for limits, words in (('{"pixels":1999}', "limits"), ('{"side":49}', "limits"), ('{"file_bytes":99}', "limits")):
        engine = converse(*FAST, "--limits", limits)
        engine.say(ask(1, source, tmp_path / "out"))
        heard, _ = engine.finish()
        (failed,) = [event for event in heard if isinstance(event, Failed)]
        assert (failed.code, failed.fault) == (Code.TOO_LARGE, Fault.PICTURE)
        assert words in failed.message


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")
def test_a_device_out_of_memory_goes_on_with_smaller_tiles_in_a_fresh_process(converse, tmp_path):
    """The limit of address space stands for the device's memory: OpenCV's allocation fails in the middle of a tile."""
    source = tmp_path / "a.png"
    source.write_bytes(written(".png", draw(880, 880)))
    sizes = []
    for attempt in range(6):
        engine = converse(
            *FAST,
            "--threads",
            "1",
            "--cache-folder",
            os.fspath(tmp_path / "cache"),
            before=["sh", "-c", 'ulimit -v 850000; exec "$@"', "sh"],
            environment={"OPENBLAS_NUM_THREADS": "1"},  # its threads' stacks count too
        )
        engine.say(ask(1, source, tmp_path / f"out{attempt}"))
        last = engine.hear_until(Done, Failed)[-1]
        if isinstance(last, Done):
            break
        assert (last.id, last.code, last.fault, last.retryable) == (None, Code.OUT_OF_MEMORY, Fault.ENVIRONMENT, True)
        assert engine.hear() is None
        assert engine.process.wait(30) == 3
        ((_, remembered),) = json.loads((tmp_path / "cache" / "tiles.json").read_text()).items()
        sizes.append(remembered["pixels"])
    assert isinstance(last, Done)
    assert sizes
    assert sizes == [sizes[0] // 2**step for step in range(len(sizes))]
    assert cv2.imread(decode_path(last.target)).shape == (2640, 2640, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")
def test_a_device_out_of_memory_with_nowhere_to_remember_it_waits(converse, tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(written(".png", draw(880, 880)))
    engine = converse(
        *FAST,
        "--threads",
        "1",
        before=["sh", "-c", 'ulimit -v 850000; exec "$@"', "sh"],
        environment={"OPENBLAS_NUM_THREADS": "1"},
    )
    engine.say(ask(1, source, tmp_path / "out"))
    last = engine.hear_until(Done, Failed)[-1]
    assert (last.id, last.code, last.retryable) == (None, Code.OUT_OF_MEMORY, False)


def test_the_start_is_told_in_phases(converse):
    engine = converse(*FAST)
    ready = engine.hear_until(Ready)[-1]
    assert list(ready.phases) == ["imports", "verify", "opencv", "runtime", "pipeline"]
    assert sum(ready.phases.values()) == pytest.approx(ready.load_seconds, abs=0.05)


class Piece:
    def __init__(self, kind):
        self.kind = kind


def test_batches_take_equal_jobs_of_any_picture_and_keep_the_order_of_the_rest():
    queue = TileQueue()
    one, two, three = (Piece(kind) for kind in "aba")
    queue.add("first", [one, two])
    queue.add("second", [three])
    assert queue.take(4) == [("first", one), ("second", three)]
    assert queue.take(4) == [("first", two)]
    queue.close()
    assert queue.take(4) == []


def test_a_spoilt_batch_is_run_again_one_by_one():
    queue = TileQueue()
    jobs = [Piece("a"), Piece("a"), Piece("a")]
    queue.add("picture", jobs)
    batch = queue.take(2)
    queue.return_singly(batch)
    assert [queue.take(2) for _ in range(3)] == [[("picture", job)] for job in jobs]


def test_the_jobs_of_a_failed_picture_are_forgotten():
    queue = TileQueue()
    queue.add("bad", [Piece("a")])
    queue.add("good", [last := Piece("a")])
    queue.drop("bad")
    assert queue.take(9) == [("good", last)]
    assert queue.abandon()
    assert not queue.abandon()
    assert queue.take(9) == []


def test_the_room_is_bounded_but_one_picture_always_gets_in():
    room = Room(100, pictures=9)
    room.take(1000)
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (room.take(60), entered.set()))
    waiting.start()
    assert not entered.wait(0.05)
    room.leave(1000)
    assert entered.wait(10)
    waiting.join()
    room.take(40)
    order = []
    large = threading.Thread(target=lambda: (room.take(70), order.append("large")))
    large.start()
    wait_until(lambda: room._waiting, "large waits")
    small = threading.Thread(target=lambda: (room.take(1), order.append("small")))
    small.start()
    room.leave(60)
    room.leave(40)
    large.join(10)
    small.join(10)
    assert order == ["large", "small"]  # what needs little does not overtake for ever what needs much
    places = Room(1, pictures=1)
    places.enter()
    second = threading.Thread(target=places.enter)
    second.start()
    second.join(0.05)
    assert second.is_alive()
    places.leave(0)
    second.join(10)
    assert not second.is_alive()
