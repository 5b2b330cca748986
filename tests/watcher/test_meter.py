"""The meter of an engine: its parts add up to what the process took."""

import pytest

from sr_engine import protocol
from sr_engine.protocol import Bye, Code, Done, Failed, Fault, Ready, Started
from watcher.accounting.meter import Meter


def ready(started_at: float = 0.0) -> Ready:
    return Ready(runtime="stub", device="cuda:0", precision="fp16", load_seconds=1.0, started_at=started_at)


def started(number: int, width: int = 10) -> Started:
    return Started(id=number, width=width, height=10)


def done(number: int) -> Done:
    paths = {"target": "", "source_sha256": "", "result_sha256": "", "result_bytes": 0, "width": 0, "height": 0}
    times = {"decode_seconds": 0.0, "upscale_seconds": 0.0, "encode_seconds": 0.0, "peak_memory_bytes": 0}
    return Done(id=number, **paths, **times)


def heard(*events: tuple[float, protocol.AnyEvent], ended: float) -> Meter:
    """A meter that began at 100 on the monotonic clock, and at 5,000 of Unix time."""
    meter = Meter(5000.0, 100.0)
    for seconds, event in events:
        meter.heard(event, 100 + seconds)
    meter.ended(100 + ended)
    return meter


def test_the_parts_of_a_run() -> None:
    bye = Bye(pictures=2, failed=1, seconds=9)
    failed = Failed(id=2, code=Code.UNDECODABLE, message="", fault=Fault.PICTURE, retryable=False)
    meter = heard(
        (3, ready(5000.5)),
        *((4, started(1, 0)), (4.5, started(1)), (5, started(2)), (6, done(1)), (7, failed)),  # overlapping: 4 .. 7
        *((8, started(3)), (8.5, done(3)), (9, bye)),
        ended=9.25,
    )
    assert (meter.spawn_seconds, meter.load_seconds) == (pytest.approx(0.5), pytest.approx(2.5))
    assert meter.compute_seconds == pytest.approx(3.5)
    assert meter.exit_seconds == pytest.approx(0.25)
    assert meter.idle_seconds == pytest.approx(9.25 - 0.5 - 2.5 - 3.5 - 0.25)
    assert (meter.held_from_at, meter.ended_at) == (pytest.approx(5000.5), pytest.approx(5009.25))


def test_an_engine_that_was_killed_at_work_worked_to_its_end() -> None:
    meter = heard((1, ready(5000.1)), (2, started(1)), ended=10)
    assert (meter.compute_seconds, meter.exit_seconds) == (8, 0)
    assert meter.ended_at == 5010


def test_an_engine_that_never_was_ready_held_its_device_from_the_start() -> None:
    meter = heard(ended=4)
    assert (meter.held_from_at, meter.ended_at, meter.idle_seconds) == (5000, 5004, 4)


@pytest.mark.parametrize("started_at", [0.0, 4000.0, 9000.0], ids=["not told", "before", "after"])
def test_a_clock_that_was_set_between_does_not_matter(started_at: float) -> None:
    """Of the engine's own clock nothing more is believed than is possible."""
    meter = heard((2, ready(started_at)), ended=3)
    assert 5000 <= meter.held_from_at <= 5002
    assert meter.spawn_seconds + meter.load_seconds == pytest.approx(2)
