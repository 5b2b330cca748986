"""When an engine counts as hung; the times are made up."""

import pytest

from sr_engine.protocol import AnyEvent, Bye, Code, Done, Failed, Fault, Progress, Ready, Started
from watcher.engine.patience import Patience
from watcher.sections import Engine

SETTINGS = Engine(start_seconds=100, deadline_seconds=10, deadline_seconds_per_megapixel=5)
READY = Ready(runtime="x", device="cpu", precision="fp32", load_seconds=1)


def reading(picture: int) -> Started:
    return Started(id=picture, width=0, height=0)


def started(picture: int, megapixels: int = 0) -> Started:
    return Started(id=picture, width=1000 * max(megapixels, 1), height=1000 if megapixels else 1)


def done(picture: int) -> Done:
    sizes = {"result_bytes": 1, "width": 3, "height": 3, "peak_memory_bytes": 1}
    seconds = {"decode_seconds": 0.0, "upscale_seconds": 0.0, "encode_seconds": 0.0}
    return Done(id=picture, target="", source_sha256="", result_sha256="", **sizes, **seconds)


def failed(picture: int) -> Failed:
    return Failed(id=picture, code=Code.UNDECODABLE, message="", fault=Fault.PICTURE, retryable=False)


def tile(picture: int, number: int, total: int = 4) -> Progress:
    return Progress(id=picture, done=number, total=total)


def patience(*events: AnyEvent, pictures: int = 3) -> Patience:
    """A clock that was started at 0, ready at 0, and heard these events at 0."""
    clock = Patience(SETTINGS, range(1, pictures + 1), 0)
    for event in (READY, *events):
        assert clock.heard(event, 0)
    return clock


def test_the_start_has_a_time_of_its_own() -> None:
    clock = Patience(SETTINGS, [1], 7)
    assert clock.until == 107
    assert clock.heard(READY, 50)
    assert clock.until == 60
    assert not clock.heard(READY, 55)


def test_the_largest_picture_in_work_sets_the_time() -> None:
    clock = patience(reading(1), started(1, 2), started(2, 8), started(3))
    assert clock.until == pytest.approx(10 + 8 * 5)
    assert clock.heard(done(2), 0)
    assert clock.until == pytest.approx(10 + 2 * 5)
    assert clock.in_work == {1, 3}


@pytest.mark.parametrize(("mflop", "factor"), [(0, 1), (0.6, 1), (2.5, 1), (25, 10)])
def test_pixels_that_mean_more_work_get_more_time(mflop: float, factor: float) -> None:
    clock = Patience(SETTINGS, [1], 0)
    ready = Ready(runtime="x", device="cpu", precision="fp32", load_seconds=1, mflop_per_pixel=mflop)
    for event in (ready, reading(1), started(1, 2)):
        assert clock.heard(event, 0)
    assert clock.until == pytest.approx(10 + 2 * 5 * factor)


@pytest.mark.parametrize("event", [reading(3), started(1), tile(2, 2), done(1), done(2), done(3), failed(1)])
def test_whatever_moves_one_picture_restarts_the_clock_of_all(event: AnyEvent) -> None:
    clock = patience(reading(1), started(2), tile(2, 1))
    assert clock.heard(event, 9)
    assert clock.until == pytest.approx(19, abs=0.1)


@pytest.mark.parametrize(
    "event",
    [
        *(reading(1), started(1), reading(2)),  # told before
        *(tile(1, 2), tile(1, 1), tile(1, 0)),  # as many or fewer than told before
        *(tile(1, 5), tile(1, 5, 99)),  # more than there are, or all of a sudden there are more
        *(tile(3, 1), started(3), done(3), failed(3)),  # ended already
        *(reading(4), started(4), tile(4, 1), done(4)),  # nobody asked for it
        Bye(pictures=3, failed=0, seconds=1),
        READY,
    ],
)
def test_chatter_does_not(event: AnyEvent) -> None:
    clock = patience(started(1), tile(1, 2), reading(2), started(3), done(3))
    before = clock.until, clock.in_work
    assert not clock.heard(event, 9)
    assert (clock.until, clock.in_work) == before


def test_an_engine_is_reading_when_all_pictures_in_work_are_being_read() -> None:
    clock = patience()
    assert not clock.is_reading
    clock.heard(reading(1), 0)
    clock.heard(reading(2), 0)
    assert clock.is_reading
    clock.heard(started(1), 0)
    assert not clock.is_reading
    clock.heard(failed(1), 0)
    assert clock.is_reading
