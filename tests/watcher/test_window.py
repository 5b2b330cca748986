import time

import pytest

from watcher.window import Window


def window(
    quiet_seconds: float = 5, max_seconds: float = 60, max_files: int = 200, max_pixels: int = 400_000_000
) -> Window[str]:
    return Window(quiet_seconds, max_seconds, max_files, max_pixels)


def test_empty_window_never_closes() -> None:
    w = window()
    assert len(w) == 0
    assert w.closing_reason(1e9) is None
    assert w.closes_at() is None
    assert w.take() == []


def test_closes_when_no_other_picture_follows() -> None:
    w = window()
    w.add("a", 10, now=100)
    w.add("b", 10, now=103)
    assert w.closes_at() == 108
    assert w.closing_reason(107.9) is None
    assert w.closing_reason(108) == "quiet for 5 s"
    assert w.take() == ["a", "b"]
    assert w.closes_at() is None


def test_closes_at_last_although_pictures_keep_coming() -> None:
    w = window(quiet_seconds=5, max_seconds=60)
    for second in range(61):
        w.add(f"{second}", 10, now=1000 + second)
    assert w.closes_at() == 1060
    assert w.closing_reason(1059.9) is None
    assert w.closing_reason(1060) == "open for 60 s"


def test_the_earlier_deadline_is_the_reason_however_late_the_question() -> None:
    quiet_first = window(quiet_seconds=5, max_seconds=60)
    quiet_first.add("a", 1, now=0)
    assert quiet_first.closing_reason(1000) == "quiet for 5 s"
    longest_first = window(quiet_seconds=5, max_seconds=7)
    longest_first.add("a", 1, now=0)
    longest_first.add("b", 1, now=4)
    assert longest_first.closing_reason(1000) == "open for 7 s"


@pytest.mark.parametrize("now", [0.1, 12345.6789, 98765.4321, 1e7 + 1 / 3])
def test_a_caller_who_sleeps_until_closes_at_finds_it_closed(now: float) -> None:
    w = window(quiet_seconds=0.1, max_seconds=0.3)
    w.add("a", 1, now)
    closes_at = w.closes_at()
    assert closes_at is not None
    assert w.closing_reason(closes_at) == "quiet for 0.1 s"


def test_closes_with_the_last_file_that_fits() -> None:
    w = window(max_files=3)
    w.add("a", 1, now=0)
    w.add("b", 1, now=0)
    assert w.closing_reason(0) is None
    w.add("c", 1, now=0)
    assert w.closing_reason(0) == "3 pictures"


def test_one_picture_at_a_time() -> None:
    w = window(max_files=1)
    w.add("a", 1, now=0)
    assert w.closing_reason(0) == "one picture"


def test_closes_with_too_many_pixels() -> None:
    w = window(max_pixels=400_000_000)
    w.add("a", 250_000_000, now=0)
    assert w.closing_reason(0) is None
    w.add("b", 150_000_000, now=0)
    assert w.closing_reason(0) == "400 megapixels"


def test_reason_shows_odd_limits_plainly() -> None:
    w = window(quiet_seconds=0.25, max_pixels=2_500_000)
    w.add("a", 1, now=0)
    assert w.closing_reason(1) == "quiet for 0.25 s"
    w.add("b", 3_000_000, now=0)
    assert w.closing_reason(1) == "2.5 megapixels"


def test_files_beyond_the_limit_open_the_next_window_with_the_time_they_have_waited() -> None:
    w = window(quiet_seconds=5, max_seconds=60, max_files=2)
    for number, name in enumerate("abcde"):
        w.add(name, 1, now=10 + number)
    assert w.take() == ["a", "b"]
    assert len(w) == 3
    assert w.closing_reason(15) == "2 pictures"
    assert w.take() == ["c", "d"]
    assert w.closes_at() == 14 + 5
    assert w.closing_reason(15) is None
    assert w.closing_reason(19) == "quiet for 5 s"
    assert w.take() == ["e"]
    assert len(w) == 0


def test_what_stays_is_open_since_its_own_arrival() -> None:
    w = window(quiet_seconds=50, max_seconds=60, max_files=2)
    w.add("a", 1, now=0)
    w.add("b", 1, now=0)
    w.add("c", 1, now=30)
    assert w.take() == ["a", "b"]
    w.add("c2", 1, now=70)
    w.discard("c2")
    assert w.closes_at() == 90
    assert w.closing_reason(90) == "open for 60 s"


def test_pixels_beyond_the_limit_stay_in_order() -> None:
    w = window(max_pixels=100)
    for name, pixels in [("a", 60), ("b", 60), ("c", 10)]:
        w.add(name, pixels, now=0)
    assert w.take() == ["a"], "c would fit beside a, but b came first"
    assert w.closing_reason(0) is None
    assert w.take() == ["b", "c"]


def test_a_batch_may_hold_exactly_the_limit() -> None:
    w = window(max_pixels=100)
    w.add("a", 60, now=0)
    w.add("b", 40, now=0)
    assert w.take() == ["a", "b"]


def test_a_picture_larger_than_the_window_is_taken_alone() -> None:
    w = window(max_pixels=100)
    w.add("small", 10, now=0)
    w.add("huge", 1000, now=0)
    w.add("tiny", 1, now=0)
    assert w.take() == ["small"]
    assert w.closing_reason(0) == "0.0001 megapixels"
    assert w.take() == ["huge"]
    assert w.take() == ["tiny"]


def test_discarded_pictures_do_not_count() -> None:
    w = window(max_files=2, max_pixels=100)
    w.add("a", 90, now=0)
    w.add("b", 90, now=0)
    w.discard("a")
    w.discard("never seen")
    assert "a" not in w
    assert "b" in w
    assert len(w) == 1
    assert w.closing_reason(0) is None
    assert w.take() == ["b"]


def test_a_window_emptied_by_discard_opens_anew() -> None:
    w = window(quiet_seconds=5, max_seconds=7)
    w.add("a", 1, now=0)
    w.discard("a")
    assert w.closes_at() is None
    assert w.closing_reason(100) is None
    w.add("b", 1, now=100)
    assert w.closes_at() == 105
    w.add("c", 1, now=104)
    assert w.closes_at() == 107


def test_a_picture_that_comes_again_is_counted_once_with_its_new_size() -> None:
    w = window(quiet_seconds=5, max_pixels=100)
    w.add("a", 99, now=0)
    w.add("b", 1, now=1)
    assert w.closing_reason(1) == "0.0001 megapixels"
    w.add("a", 10, now=3)
    assert len(w) == 2
    assert w.closing_reason(3) is None
    assert w.closes_at() == 8, "it was written again, so its folder is not quiet yet"
    assert w.take() == ["a", "b"]


def test_items_may_be_anything_hashable() -> None:
    w: Window[tuple[bytes, int]] = Window(5, 60, 10, 10)
    w.add((b"caf\xe9.jpg", 1), 5, now=0)
    assert w.take() == [(b"caf\xe9.jpg", 1)]


def test_zero_quiet_seconds_close_at_once() -> None:
    w = window(quiet_seconds=0)
    w.add("a", 1, now=7)
    assert w.closing_reason(7) == "quiet for 0 s"


def test_a_backlog_of_many_pictures_is_no_burden() -> None:
    w = window(max_files=200)
    started = time.perf_counter()
    for number in range(100_000):
        w.add(f"{number}.jpg", 1, now=number)
        w.closing_reason(number)
        w.closes_at()
    batches = 0
    while w.take():
        batches += 1
    assert batches == 500
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((-1, 60, 1, 1), "-1 s"),
        ((5, -2, 1, 1), "-2 s"),
        ((5, 60, 0, 1), "0 files"),
        ((5, 60, 1, 0), "0 pixels"),
    ],
)
def test_impossible_limits_are_refused(limits: tuple[float, float, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Window(*limits)
