"""The API by plain HTTP over a real server: upload, state, result, list, retry, report."""

import json
import sqlite3
from collections.abc import Callable

import pytest
from harness import Site, photo, stub_result, wait_until
from visits import Page, Visitor, fill


def test_an_upload_goes_through_the_inbox_to_its_result(page: Page, visitor: Visitor) -> None:
    page.site.start()
    data = photo(1)
    answer = visitor.upload("a bee.png", data)
    assert answer.status == 201, answer.text
    assert answer.json["name"] == "a bee.png"
    assert answer.headers["Location"] == f"/api/v1/uploads/{answer.json['upload']}"
    fate = wait_until(lambda: (found := visitor.fate(answer))["state"] == "done" and found, "the result")
    result = visitor.get(fate["result"])
    assert result.status == 200
    assert result.body == stub_result(data)
    assert 'filename="a bee.png"' in result.headers["Content-Disposition"]
    assert page.site.files(page.site.archive) == {"a bee.png": data}


def test_a_result_that_is_a_picture_comes_under_its_own_type(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=1, names="x.png")
    (page.site.outbox / "2025").mkdir()
    (page.site.outbox / "2025" / "x.png").write_bytes(photo(3, extension=".jpg"))
    answer = visitor.get("/api/v1/pictures/1/result?view")
    assert answer.headers["Content-Type"] == "image/jpeg"
    (page.site.outbox / "2025" / "x.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    answer = visitor.get("/api/v1/pictures/1/result?view")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_what_waits_says_so_and_what_was_taken_away_is_gone(page: Page, visitor: Visitor) -> None:
    answer = visitor.upload("a.png", photo(1))
    assert visitor.fate(answer) == {
        "name": "a.png",
        "state": "waiting",
        "why": "",
        "code": "",
        "picture": None,
        "result": None,
    }
    (page.site.inbox / "a.png").unlink()
    assert visitor.fate(answer)["state"] == "gone"
    forged = answer.json["upload"][:-4] + "AAAA"
    assert visitor.get(f"/api/v1/uploads/{forged}").status == 404


def test_a_failed_picture_says_why_and_is_tried_again(make_site: Callable[..., Site]) -> None:
    # damage that the header does not show: only the engine finds it
    site = make_site(watch={"settle_seconds": 0.1, "incomplete_seconds": 0.1})
    page = Page(site)
    visitor = page.visitor()
    running = site.start()
    answer = visitor.upload("cut.png", photo(2)[:-60])
    assert answer.status == 201
    fate = wait_until(lambda: (found := visitor.fate(answer))["state"] == "failed" and found, "the failure")
    assert fate["why"]
    listed = visitor.get("/api/v1/pictures?state=failed").json["pictures"]
    assert [(entry["path"], entry["reason"]) for entry in listed] == [("cut.png", fate["why"])]
    assert running.stop() == 0
    back = visitor.ask("POST", f"/api/v1/pictures/{fate['picture']}/retry")
    assert (back.status, back.json) == (200, {"name": "cut.png"})
    assert site.names(site.inbox) == {"cut.png"}
    assert not site.names(site.failed)
    again = visitor.ask("POST", f"/api/v1/pictures/{fate['picture']}/retry")
    assert again.status == 404


def test_a_failed_picture_that_somebody_took_away_cannot_be_tried_again(page: Page, visitor: Visitor) -> None:
    fill(page.site, failed=1)
    answer = visitor.ask("POST", "/api/v1/pictures/1/retry")
    assert (answer.status, answer.json["error"]["code"]) == (409, "gone")


def test_the_list_goes_from_page_to_page_to_its_end(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=25, failed=3)
    seen, cursor = [], ""
    for _ in range(3):
        leaf = visitor.get(f"/api/v1/pictures?count=10&cursor={cursor}").json
        seen += [entry["id"] for entry in leaf["pictures"]]
        cursor = leaf["next"]
    assert (seen, cursor) == (list(range(25, 0, -1)), "")
    found = visitor.get("/api/v1/pictures?search=PICTURE%201.").json["pictures"]
    assert [entry["path"] for entry in found] == ["2025/picture 1.jpg"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/pictures?state=waiting", 400),
        ("/api/v1/pictures?count=0", 400),
        ("/api/v1/pictures?count=ten", 400),
        ("/api/v1/pictures?cursor=1", 400),
        ("/api/v1/pictures?cursor=99999999999999999999_0_1", 400),
        ("/api/v1/pictures/7", 404),
        (f"/api/v1/pictures/{1 << 70}", 404),
        ("/api/v1/pictures/../../etc/passwd", 404),
        ("/api/v1/uploads/x", 404),
        ("/api/v1/report?month=2026-13", 400),
        ("/api/v1/report?month=0000-01", 400),
        ("/api/v1/nothing", 404),
    ],
)
def test_what_makes_no_sense_is_answered_with_a_reason(still: Page, path: str, status: int) -> None:
    answer = still.visitor().get(path)
    assert answer.status == status
    assert answer.json["error"]["message"]
    assert "Traceback" not in still.running.log()


def test_before_the_first_watcher_there_is_nothing_and_no_error(page: Page, visitor: Visitor) -> None:
    assert not (page.site.state / "ledger.sqlite3").exists()
    assert visitor.get("/api/v1/pictures").json == {"pictures": [], "next": ""}
    assert visitor.get("/api/v1/report").status == 503
    assert visitor.get("/api/v1/status").json["running"] is False
    for path in ("/", "/gallery", "/gallery?state=failed&search=x", "/bill", "/bill?month=2020-02"):
        assert visitor.get(path).status == 200
    assert not (page.site.state / "ledger.sqlite3").exists()


def test_the_report_is_that_of_the_command(page: Page, visitor: Visitor) -> None:
    page.site.start()
    visitor.upload("a.png", photo(1))
    wait_until(lambda: page.site.upscaled() == [1] and not page.site.engines(), "the engine to end")
    wait_until(lambda: page.site.query("SELECT exited_at FROM engine_runs")[0][0] is not None, "its bill")
    told = visitor.get("/api/v1/report").json
    said = json.loads(page.site.run("report", "--json").stdout)
    for key in ("since", "pictures", "engine_starts", "cpu_seconds", "currency", "devices"):
        assert told[key] == said[key]


def test_asking_changes_nothing_in_the_ledger(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=3, failed=2)
    paths = ("/", "/gallery", "/bill", "/pictures/1", "/thumbnails/1", "/api/v1/status", "/api/v1/report")
    with sqlite3.connect(page.site.state / "ledger.sqlite3") as watching:
        before = watching.execute("PRAGMA data_version").fetchone()
        for path in paths:
            assert visitor.get(path).status in (200, 302)
        assert watching.execute("PRAGMA data_version").fetchone() == before
    watching.close()


def test_a_ledger_that_cannot_be_read_is_told_without_a_traceback(page: Page, visitor: Visitor) -> None:
    (page.site.state / "ledger.sqlite3").write_bytes(b"no ledger at all" * 1000)
    for path in ("/api/v1/pictures", "/gallery"):
        answer = visitor.get(path)
        assert answer.status == 503
        assert "cannot read the ledger" in answer.text
    assert "Traceback" not in page.running.log()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("UPDATE engine_runs SET compute_seconds = 'x'", "engine_runs.compute_seconds"),
        ("UPDATE engine_runs SET exited_at = x'00ff'", "engine_runs.exited_at"),
        ("UPDATE pictures SET changed_at = 'x'", "pictures.changed_at"),
        ("UPDATE pictures SET changed_at = 1e300", "pictures.changed_at"),
        ("UPDATE pictures SET path = 1.5", "pictures.path"),
        ("UPDATE pictures SET size = x'00ff'", "pictures.size"),
    ],
)
def test_a_value_that_makes_no_sense_is_told_with_its_place_and_a_remedy(
    page: Page, visitor: Visitor, change: str, place: str
) -> None:
    """It was a bare 500, with a traceback in the log."""
    fill(page.site, done=2)
    page.site.execute(
        "INSERT INTO engine_runs (pid, spawned_at, exited_at, model, device, compute_seconds, load_seconds, done)"
        " SELECT 1, unixepoch() - 60, unixepoch() - 30, 'm', 'cuda:0', 20, 2, 3"
    )
    page.site.execute(change)
    paths = ("/gallery", "/api/v1/pictures") if "pictures" in place else ("/bill", "/api/v1/report")
    told = 0
    for path in paths:
        answer = visitor.get(path)
        if answer.status != 200:  # a size is not on every page
            assert answer.status == 503
            assert place in answer.text and "ledger.sqlite3" in answer.text
            assert "start" in answer.text
            told += 1
    assert told
    assert "Traceback" not in page.running.log()
    assert visitor.get("/bill?month=2020-13").status == 404
