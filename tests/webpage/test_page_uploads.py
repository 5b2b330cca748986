"""The way into the inbox: what is refused, what names become, and that nothing is ever overwritten or left over."""

import contextlib
import os
import socket
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from harness import Site, below, photo, wait_until
from visits import Page, Visitor, hidden, make_ledger

from watcher import config
from watcher.files.ignore import IgnoreRules
from webpage.reading import Reading
from webpage.uploads import Uploads, plain_name

# What a request may call a picture, and what nobody may get out of it.
TRAVERSALS = [
    "../../evil.png",
    "..\\..\\evil.png",
    "/etc/cron.d/evil.png",
    "C:\\Windows\\evil.png",
    "\\\\server\\share\\evil.png",
    "....//....//evil.png",
    "..%2f..%2fevil.png",
    "%2e%2e%2fevil.png",
    "evil.png/",
    "evil.png/.",
    "a/../../evil.png",
    "..",
    ".",
    "/",
    "\\",
    "./.dropscale-1-aaaa.part",
    ".dropscale-upload-1.part",
    ".htaccess",
    "evil.png\0.txt",
    "evil\n.png",
    "evil\r\nX: y.png",
    "CON",
    "nul.png",
    "COM1.jpg",
    "evil.png::$DATA",
    "evil.png:Zone.Identifier",
    "\u202egnp.live.png",
    "\ud7ff\uffff.png",
    "\uff0fetc\uff0fevil.png",
    "x" * 900 + ".png",
    "é" * 300 + ".png",
    "😀" * 200,
    " .. ",
    '?*<>|".png',
    "$(touch evil).png",
    "; rm -rf ~.png",
    "-rf.png",
]


@pytest.mark.parametrize("wish", TRAVERSALS)
def test_a_wish_becomes_a_plain_name(wish: str) -> None:
    name = plain_name(wish)
    assert os.path.basename(name) == name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert not set(name) & set('/\\<>:"|?*\0\n\r')
    assert name.isprintable()
    assert len(os.fsencode(name)) <= 200
    assert plain_name(name) == name


def test_no_name_leads_out_of_the_inbox(page: Page, visitor: Visitor) -> None:
    outside = {path for path in below(page.site.root) if page.site.inbox not in path.parents}
    accepted = 0
    for number, wish in enumerate(TRAVERSALS):
        answer = visitor.upload(wish, photo(number))
        assert answer.status in (201, 422), (wish, answer.text)
        accepted += answer.status == 201
    found = list(below(page.site.inbox))
    assert len(found) == accepted > len(TRAVERSALS) // 2
    assert all(path.parent == page.site.inbox for path in found)
    rules = IgnoreRules()
    assert [path.name for path in found if rules.reason(path.name)] == [], "the watcher would leave these alone"
    mine = {page.running.log_path}
    after = {path for path in below(page.site.root) if page.site.inbox not in path.parents}
    assert {path for path in after - outside - mine if page.site.state not in path.parents} == set()


def test_a_taken_name_is_not_overwritten(page: Page, visitor: Visitor) -> None:
    first, second = photo(1), photo(2)
    names = [visitor.upload("a.png", data).json["name"] for data in (first, second)]
    assert names[0] == "a.png"
    assert names[1].startswith("a~")
    assert page.site.files(page.site.inbox) == {names[0]: first, names[1]: second}


def test_a_name_without_an_ending_gets_that_of_its_kind(page: Page, visitor: Visitor) -> None:
    assert visitor.upload("blob", photo(1)).json["name"] == "blob.png"
    assert visitor.upload("notes.txt", photo(2, extension=".jpg")).json["name"] == "notes.txt.jpg"


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size; its pixels are a few bytes of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


REFUSED = {
    "text": (b"just some text, no picture", "undecodable"),
    "empty": (b"", "undecodable"),
    "zeros": (bytes(5000), "undecodable"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "un"),
    "html": (b"<!doctype html><script>alert(1)</script>", "un"),
    "zip": (b"PK\x03\x04" + bytes(100), "un"),
    "bomb": (png(60_000, 60_000), "too_large"),
    "long": (png(100_000, 2), "too_large"),
    "nothing": (png(0, 5), "undecodable"),
    "beyond": (png(0xFFFFFFFF, 0xFFFFFFFF), "too_large"),
    "cut": (photo(1)[:20], "undecodable"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_for_us_never_gets_a_name(still: Page, kind: str) -> None:
    data, code = REFUSED[kind]
    answer = still.visitor().upload("a.png", data)
    assert answer.status == 422
    assert answer.json["error"]["code"].startswith(code)
    assert answer.json["error"]["message"]
    assert not still.site.files(still.site.inbox)


def test_a_name_that_the_inbox_leaves_alone_is_refused(page: Page, visitor: Visitor) -> None:
    answer = visitor.upload("~draft.png", photo(1))
    assert (answer.status, answer.json["error"]["code"]) == (422, "ignored")
    assert "give it another name" in answer.json["error"]["message"]
    assert not page.site.files(page.site.inbox)


def test_larger_than_allowed_is_refused_by_its_length_alone(
    make_site: Callable[..., Site],
) -> None:
    page = Page(make_site(web={"upload_megabytes": 1}))
    visitor = page.visitor()
    assert visitor.upload("a.png", photo(1)).status == 201
    # nothing of the body is sent: it is refused all the same
    answer = visitor.ask("POST", "/api/v1/pictures?name=b.png", None, {"Content-Length": str(5 << 20)})
    assert answer.status == 413
    assert page.site.names(page.site.inbox) == {"a.png"}


def test_larger_than_allowed_in_chunks_is_refused(make_site: Callable[..., Site]) -> None:
    page = Page(make_site(web={"upload_megabytes": 1}))

    def chunks() -> Iterator[bytes]:
        yield photo(1)
        for _ in range(24):
            yield bytes(1 << 16)

    answer = page.visitor().ask("POST", "/api/v1/pictures?name=b.png", chunks())
    assert answer.status == 413
    assert not page.site.files(page.site.inbox)


def test_a_body_in_chunks_is_taken(page: Page, visitor: Visitor) -> None:
    data = photo(1)
    pieces = (data[at : at + 100] for at in range(0, len(data), 100))
    answer = visitor.ask("POST", "/api/v1/pictures?name=b.png", pieces)
    assert answer.status == 201
    assert page.site.files(page.site.inbox) == {"b.png": data}


def test_a_form_is_told_how_it_is_done(visitor: Visitor) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
    answer = visitor.upload("a.png", body, **{"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status == 415
    assert "--data-binary" in answer.json["error"]["message"]


def test_too_many_a_minute_are_asked_to_wait(make_site: Callable[..., Site]) -> None:
    page = Page(make_site(web={"uploads_per_minute": 2}))
    visitor = page.visitor()
    answers = [visitor.upload("a.png", photo(number)) for number in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 60
    assert len(page.site.names(page.site.inbox)) == 2


def test_an_inbox_that_cannot_be_written_is_told(page: Page, visitor: Visitor) -> None:
    page.site.inbox.rmdir()
    answer = visitor.upload("a.png", photo(1))
    assert answer.status == 503
    assert "inbox" in answer.json["error"]["message"]
    assert "Traceback" not in page.running.log()


def test_nothing_is_put_onto_the_bare_mount_point_of_a_share(page: Page, visitor: Visitor) -> None:
    make_ledger(page.site)
    with contextlib.closing(sqlite3.connect(page.site.state / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute("INSERT INTO notes VALUES ('mounted inbox', ?)", (str(page.site.inbox),))
    answer = visitor.upload("a.png", photo(1))
    assert (answer.status, answer.json["error"]["code"]) == (503, "not_mounted")
    assert not page.site.files(page.site.inbox)


def test_the_watcher_never_sees_a_picture_that_is_still_coming(page: Page) -> None:
    """Neither half of one, nor the hidden name under which it lies; a broken one leaves nothing."""
    running = page.site.start()
    data = photo(1, 640, 480)
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        head = f"POST /api/v1/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: len(data) // 2])
    assert page.visitor().upload("b.png", photo(2)).status == 201
    wait_until(lambda: page.site.names(page.site.archive) == {"b.png"}, "the other picture")
    assert running.stop() == 0
    assert not page.site.files(page.site.inbox)


def test_what_a_kill_left_is_removed_a_day_later(stub_site: Site) -> None:
    old, young = (stub_site.inbox / f".dropscale-upload-{age}.part" for age in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half a picture")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    Page(stub_site)
    assert hidden(stub_site.inbox) == [young.name]


@pytest.mark.parametrize("stale_seconds", [0.0, 86_400.0])
def test_what_a_kill_left_is_also_removed_by_a_page_that_runs_for_months(stub_site: Site, stale_seconds: float) -> None:
    stub_site.state.mkdir()
    settings = config.load(str(stub_site.config_path), {})
    way_in = Uploads(settings, Reading(settings.folders.state), b"key", 3, stale_seconds)
    (stub_site.inbox / ".dropscale-upload-old.part").write_bytes(b"half a picture")
    way_in.receive(BytesIO(photo(1)), None, "a.png")
    assert hidden(stub_site.inbox) == ([] if stale_seconds == 0 else [".dropscale-upload-old.part"])
    assert (stub_site.inbox / "a.png").exists()


def resident_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_two_hundred_megabytes_take_no_more_memory_than_two(page: Page, visitor: Visitor) -> None:
    head = photo(1)
    peaks = []
    for number, size in enumerate((2 << 20, 200 << 20)):
        pieces = [head, *[bytes([number]) * (1 << 20)] * (size >> 20)]
        length = str(sum(map(len, pieces)))
        answer = visitor.ask("POST", f"/api/v1/pictures?name={number}.png", iter(pieces), {"Content-Length": length})
        assert answer.status == 201, answer.text
        peaks.append(resident_megabytes(page.running.pid))
    assert peaks[1] - peaks[0] < 8
