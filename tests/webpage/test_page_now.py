"""What happens now: told as it changes, while somebody listens; engine, tiles, what waits and why."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import STUB_ENGINE, Site, photo, wait_until
from visits import Page, Visitor, fill, next_event

from watcher.operation import live
from watcher.operation.live import Live, LiveProgress, Work
from watcher.progress import NoProgress
from webpage.now import MOST_STREAMS


def follow(page: Page, until: Callable[[Any], bool]) -> list[Any]:
    """All events until one of a kind."""
    deadline = time.monotonic() + 60
    with page.visitor().listening() as stream:
        events = [next_event(stream)]
        while not until(events[-1]):
            assert time.monotonic() < deadline, events[-1]
            events.append(next_event(stream))
    return events


def test_a_batch_is_followed_from_the_inbox_to_the_end(page: Page) -> None:
    page.site.start()
    page.site.drop("a.png", b"TILES 20")
    events = follow(page, lambda now: now["totals"]["done"] == 1 and now["engine"]["state"] == "off")
    states = [now["engine"]["state"] for now in events]
    assert "working" in states
    working = [work for now in events if now["batch"] for work in now["batch"]["working"]]
    assert working
    assert {(work["path"], work["total"]) for work in working} == {("a.png", 20)}
    done = [work["done"] for work in working]
    assert done == sorted(done) and 0 < done[0] < done[-1] < 20
    assert events[-1]["batch"] is None


def test_an_engine_that_loads_its_model_is_starting(page: Page) -> None:
    page.site.start(STUB="LATE 2")
    page.site.drop("a.png", b"a picture")
    events = follow(page, lambda now: now["totals"]["done"] == 1)
    assert "starting" in [now["engine"]["state"] for now in events]


def test_an_engine_that_is_kept_is_warm_and_off_when_its_watcher_is_killed(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(engine={"command": STUB_ENGINE, "keep_warm_seconds": 60})
    page = Page(site)
    running = site.start()
    for done in (1, 2):  # the second one finds the engine warm
        site.drop(f"{done}.png", b"TILES 4 %d" % done)
        events = follow(page, lambda now, done=done: now["engine"]["state"] == "warm" and now["totals"]["done"] == done)
    assert "working" in [now["engine"]["state"] for now in events]
    assert events[-1]["engine"]["until"]
    running.kill()
    wait_until(lambda: page.visitor().get("/api/v1/status").json["engine"]["state"] == "off", "the engine to be off")


def test_what_waits_says_why(page: Page, visitor: Visitor) -> None:
    for number in range(60):
        page.site.drop(f"{number:02}.png", b"a picture")
    page.site.drop("notes.txt", b"no picture")
    wait_until(lambda: visitor.get("/api/v1/status").json["waiting"]["count"] == 60, "the files to be seen")
    now = visitor.get("/api/v1/status").json
    assert len(now["waiting"]["files"]) == 50
    assert "no watcher is running" in now["waiting"]["files"][0]["why"]
    assert now["ignored"] == {"count": 1, "files": [{"path": "notes.txt", "why": "not a picture (.txt)"}]}


def test_hours_without_engines_are_told(make_site: Callable[..., Site]) -> None:
    hour = (time.localtime().tm_hour + 12) % 24
    hours = f"{hour:02}:00-{hour:02}:30"
    page = Page(make_site(budget={"only_between": [hours]}))
    fill(page.site)
    page.site.drop("a.png", b"a picture")
    now = wait_until(lambda: (found := page.visitor().get("/api/v1/status").json)["held"] and found, "the hours")
    assert now["held"]["why"] == "engines do not start in these hours (budget.only_between)"
    assert "held until" in now["waiting"]["files"][0]["why"]


def test_a_folder_that_is_gone_is_a_problem_and_no_end(page: Page, visitor: Visitor) -> None:
    page.site.outbox.rmdir()
    wait_until(lambda: visitor.get("/api/v1/status").json["problems"], "the problem")
    assert "outbox" in visitor.get("/api/v1/status").json["problems"][0]
    page.site.inbox.rmdir()
    wait_until(lambda: "inbox" in visitor.get("/api/v1/status").json["problems"][0], "the other problem")
    page.site.inbox.mkdir()
    page.site.outbox.mkdir()
    wait_until(lambda: not visitor.get("/api/v1/status").json["problems"], "the problems to be over")


def test_too_many_listeners_are_sent_away_and_the_page_still_answers(page: Page, visitor: Visitor) -> None:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(page.visitor().listening()) for _ in range(MOST_STREAMS)]
        assert [stream.status for stream in streams] == [200] * MOST_STREAMS
        assert all(next_event(stream)["engine"]["state"] == "off" for stream in streams)
        with page.visitor().listening() as refused:
            assert refused.status == 503
        assert visitor.get("/api/v1/status").status == 200
        assert visitor.get("/").status == 200

    def heard() -> bool:
        with page.visitor().listening() as stream:
            return stream.status == 200

    wait_until(heard, "a place to be free again", 10)


def test_a_page_with_listeners_stops_at_once(page: Page) -> None:
    with page.visitor().listening() as stream:
        next_event(stream)
        assert page.running.stop(patience=5) == 0
    assert "still running" not in page.running.log()


def test_progress_is_written_at_most_twice_a_second_and_never_for_a_short_batch(tmp_path: Path) -> None:
    progress = LiveProgress(NoProgress(), str(tmp_path))
    path = tmp_path / live.FILE_NAME
    progress.begin(3)
    for number in range(1000):
        progress.work("a.png", number, 1000)
    progress.advance()
    progress.end()
    assert not path.exists()
    assert live.read(str(tmp_path)) == Live()

    progress.begin(3)
    writes = []
    until = time.monotonic() + 1.3
    number = 0
    while time.monotonic() < until:
        number += 1
        progress.work(f"{number % 20}.png", 1, 2)
        if path.exists() and (not writes or writes[-1] != path.stat().st_mtime_ns):
            writes.append(path.stat().st_mtime_ns)
    assert 1 <= len(writes) <= 2
    told = live.read(str(tmp_path))
    assert (told.pictures, told.ended) == (3, 0)
    assert len(told.working) == 8
    progress.end()
    assert live.read(str(tmp_path)).pictures == 0


def test_a_finished_picture_is_no_longer_in_work(tmp_path: Path) -> None:
    progress = LiveProgress(NoProgress(), str(tmp_path))
    progress._next = 0
    progress.begin(2)
    progress._next = 0
    progress.work("a.png", 1, 2)
    assert live.read(str(tmp_path)).working == (Work("a.png", 1, 2),)
    progress._next = 0
    progress.work("a.png", 2, 2)
    assert live.read(str(tmp_path)).working == ()


def test_a_progress_file_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"pid": "x"}', "null", json.dumps({"pictures": {}})):
        (tmp_path / live.FILE_NAME).write_text(text)
        assert live.read(str(tmp_path)) == Live()


def test_progress_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    progress = LiveProgress(NoProgress(), str(tmp_path / "gone"))
    progress.begin(1)
    progress._next = 0
    progress.work("a.png", 1, 2)
    progress.end()


def test_the_page_reads_the_picture_names_as_they_are(page: Page, visitor: Visitor, stub_site: Site) -> None:
    stub_site.drop("ünïcode 图片.png", photo(1))
    wait_until(lambda: visitor.get("/api/v1/status").json["waiting"]["count"] == 1, "the file")
    assert visitor.get("/api/v1/status").json["waiting"]["files"][0]["path"] == "ünïcode 图片.png"
