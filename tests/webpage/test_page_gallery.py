"""Ten thousand results: every page of them comes from an index, is as small as the first, and has no gaps."""

import contextlib
import os
import re
import sqlite3
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Site, photo, wait_until
from visits import Page, Visitor, fill

from watcher.sections import Folders
from webpage import gallery
from webpage.gallery import BadCursor, Gallery
from webpage.reading import Reading

MANY = 10_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("many") / "site")
    fill(site, done=MANY, failed=200)
    yield site
    site.close()


def gallery_of(site: Site, **limits: int) -> Gallery:
    folders = Folders(*(str(path) for path in (site.inbox, site.outbox, site.archive, site.failed, site.state)))
    return Gallery(Reading(str(site.state)), folders, **limits)


def test_all_pages_together_hold_each_result_once(many: Site) -> None:
    shelf = gallery_of(many)
    seen: list[int] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        leaf = shelf.leaf("done", cursor=cursor, count=200)
        seen += [card.id for card in leaf.cards]
        cursor, pages = leaf.following, pages + 1
    assert seen == list(range(MANY, 0, -1))
    assert pages == MANY // 200


def test_results_of_the_same_moment_are_neither_lost_nor_shown_twice(site: Site) -> None:
    fill(site, done=30)
    with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection, connection:
        connection.execute("UPDATE pictures SET changed_at = 1700000000.1234567, reused = id % 2")
    shelf, seen, cursor = gallery_of(site), [], ""
    while True:
        leaf = shelf.leaf("done", cursor=cursor, count=7)
        seen += [card.id for card in leaf.cards]
        if not (cursor := leaf.following):
            break
    assert sorted(seen) == list(range(1, 31))


@pytest.mark.parametrize("query", [gallery._NEWEST, gallery._FURTHER])
def test_a_page_is_found_by_the_index_without_sorting(many: Site, query: str) -> None:
    values = ("done", 48) if query is gallery._NEWEST else ("done", 1_700_005_000.0, 0, 5000, 48)
    with contextlib.closing(sqlite3.connect(many.state / "ledger.sqlite3")) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values))
    assert "SEARCH pictures USING INDEX by_end" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


def test_a_search_looks_through_a_bounded_number_and_goes_on_behind_it(many: Site) -> None:
    shelf = gallery_of(many, most_searched=4_000)
    found, cursor, requests = [], "", 0
    while requests == 0 or cursor:
        leaf = shelf.leaf("done", "PICTURE 77", cursor)
        found += [card.path for card in leaf.cards]
        cursor, requests = leaf.following, requests + 1
    assert found == [f"2025/picture {number}.jpg" for number in [*range(7799, 7699, -1), *range(779, 769, -1), 77]]
    assert requests <= 6


@pytest.mark.parametrize(
    ("name", "searches"),
    [
        (unicodedata.normalize("NFD", "Café.png").encode(), ["café", "CAFÉ", unicodedata.normalize("NFD", "fé")]),
        (b"caf\xe9.png", ["\\xe9", "caf"]),
        (b"a\nb.png", ["a\\nb"]),
        (b"100%_a.png", ["%", "_", "100%_A"]),
        ("图片.png".encode(), ["图"]),
    ],
    ids=ascii,
)
def test_a_name_is_found_as_it_is_read(site: Site, name: bytes, searches: list[str]) -> None:
    fill(site, done=3)
    with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection, connection:
        connection.execute("UPDATE pictures SET path = ? WHERE id = 2", (name,))
    for search in searches:
        assert [card.id for card in gallery_of(site).leaf("done", search).cards] == [2], search


def test_a_search_without_a_find_says_so(still: Page) -> None:
    assert "No name here has “nowhere” in it." in still.visitor().get("/gallery?search=nowhere").text
    assert "Nothing yet." not in still.visitor().get("/gallery?search=nowhere").text


def test_a_cursor_of_somebody_else_is_refused(many: Site) -> None:
    for cursor in ("x", "1_2_3", "1e5_0_1", "-1_0_1", "1_0_1'--", "nan_0_1", "٣_0_1"):
        with pytest.raises(BadCursor):
            gallery_of(many).leaf("done", cursor=cursor)


@pytest.fixture(scope="module")
def busy_page(many: Site) -> Visitor:
    return Page(many).visitor()


def test_pages_stay_small_however_many_there_are(busy_page: Visitor) -> None:
    first = busy_page.get("/")
    assert first.status == 200
    assert len(first.body) < 8_000
    assert len(busy_page.get("/gallery").body) < 40_000
    assert len(busy_page.get("/gallery?state=failed").body) < 60_000
    assert len(busy_page.get("/bill").body) < 40_000


def test_what_the_first_page_loads_is_small(busy_page: Visitor) -> None:
    names = ["page.css", "common.js", "home.js", "now.js", "upload.js", "mark.svg"]
    total = sum(len(busy_page.get(f"/static/{name}").body) for name in names)
    assert total < 40_000, "with six thumbnails of ten kilobytes the first page has to stay under a hundred"


def test_a_thumbnail_is_made_once_small_and_kept(site: Site) -> None:
    fill(site, done=2, names="x.jpg")
    (site.archive / "2025").mkdir()
    (site.archive / "2025" / "x.jpg").write_bytes(photo(1, 1600, 1200, ".jpg"))
    page = Page(site)
    visitor = page.visitor()
    (address,) = set(re.findall(r"/thumbnails/1[^\"]*", visitor.get("/").text))
    first = visitor.get(address)
    assert (first.status, first.headers["Content-Type"]) == (200, "image/webp")
    assert "immutable" in first.headers["Cache-Control"]
    assert len(first.body) < 16_000
    (made,) = (site.state / "page" / "thumbnails").rglob("*.webp")
    before = made.stat().st_mtime_ns
    assert visitor.get(address).body == first.body
    assert made.stat().st_mtime_ns == before


def test_a_new_ledger_does_not_leave_browsers_with_the_pictures_of_the_old_one(site: Site) -> None:
    """It gives the same ids to other pictures; what a browser keeps for ever must not be found by an id."""
    (site.archive / "2025").mkdir()
    addresses = []
    for number, name in enumerate(("x.jpg", "y.jpg")):
        fill(site, done=1, names=name)
        site.execute(f"UPDATE pictures SET sha256 = 'a{number}' || substr(sha256, 3)")
        (site.archive / "2025" / name).write_bytes(photo(number, extension=".jpg"))
        page = Page(site)
        (address,) = set(re.findall(r"/thumbnails/1[^\"]*", page.visitor().get("/gallery").text))
        assert "immutable" in page.visitor().get(address).headers["Cache-Control"]
        for id_alone in ("/thumbnails/1", "/thumbnails/1?of=0", "/pictures/1/before"):
            assert page.visitor().get(id_alone).headers["Cache-Control"] == "no-cache", id_alone
        addresses.append(address)
        page.running.stop()
        (site.state / "ledger.sqlite3").unlink()
    assert addresses[0] != addresses[1]


def test_what_could_not_be_shown_is_tried_again_when_it_is_another_file_or_an_hour_later(site: Site) -> None:
    fill(site, done=1, names="x.jpg")
    (site.archive / "2025").mkdir()
    original = site.archive / "2025" / "x.jpg"
    original.write_bytes(b"damaged")
    visitor = Page(site).visitor()
    assert visitor.get("/thumbnails/1").status == 302
    (refused,) = (site.state / "page" / "thumbnails").rglob("*.no")
    at = refused.stat().st_mtime_ns
    assert visitor.get("/thumbnails/1").status == 302
    assert refused.stat().st_mtime_ns == at, "it is not tried at each look"
    os.utime(refused, (time.time() - 4000, time.time() - 4000))
    assert visitor.get("/thumbnails/1").status == 302
    assert refused.stat().st_mtime_ns >= at, "but an hour later"
    original.write_bytes(photo(1, extension=".jpg"))
    assert visitor.get("/thumbnails/1").status == 200


def test_a_result_that_somebody_replaced_is_shown_as_it_is_now(site: Site) -> None:
    fill(site, done=1, names="x.tiff")
    (site.outbox / "2025").mkdir()
    visitor = Page(site).visitor()
    shown = []
    for width in (60, 90):
        (site.outbox / "2025" / "x.tiff").write_bytes(photo(1, width, width, ".tiff"))
        shown.append(visitor.get("/pictures/1/after").body)
    assert shown[0] != shown[1]


def children(pid: int) -> list[str]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for path in found for child in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_what_cannot_be_shown_has_a_stand_in_and_the_child_ends(site: Site) -> None:
    fill(site, done=1, failed=1, names="x.jpg")
    (site.failed / "2025").mkdir()
    (site.failed / "2025" / "x.jpg").write_bytes(b"no picture")
    page = Page(site)
    for picture in (1, 2):
        answer = page.visitor().get(f"/thumbnails/{picture}")
        assert (answer.status, answer.headers["Location"]) == (302, "/static/none.svg")
    assert children(page.running.pid)
    wait_until(lambda: not children(page.running.pid), "the child that makes pictures to end")


def test_kinds_that_browsers_do_not_know_get_a_copy_to_look_at(site: Site) -> None:
    fill(site, done=1, names="x.tiff")
    for folder, width in ((site.archive, 60), (site.outbox, 180)):
        (folder / "2025").mkdir()
        (folder / "2025" / "x.tiff").write_bytes(photo(1, width, width, ".tiff"))
    visitor = Page(site).visitor()
    for what in ("before", "after", "cubic"):
        assert visitor.get(f"/pictures/1/{what}").headers["Content-Type"] == "image/webp"
    assert visitor.get("/api/v1/pictures/1/result").headers["Content-Type"] == "image/tiff"
    assert "Browsers do not show TIFF" in visitor.get("/pictures/1").text


def test_turned_and_deep_and_coloured_pictures_are_shown_as_they_are_meant(tmp_path: Path) -> None:
    import cv2
    import numpy as np
    from PIL import Image, ImageCms

    from sr_engine import protocol
    from webpage.rendering import render

    def rendered(name: str) -> Image.Image:
        source, target = (protocol.encode_path(str(tmp_path / each)) for each in (name, name + ".webp"))
        render({"source": source, "target": target, "kind": "thumbnail", "width": 0, "height": 0})
        with Image.open(tmp_path / f"{name}.webp") as made:
            made.load()
            return made

    turned = Image.new("RGB", (400, 100), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert rendered("turned.jpg").size == (64, 256)
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((50, 50), 0x8000, np.uint16))
    assert abs(rendered("deep.png").convert("L").getpixel((25, 25)) - 128) < 3  # type: ignore[operator]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (50, 50), (200, 30, 60)).save(tmp_path / "profile.png", icc_profile=profile)
    shown = rendered("profile.png")
    assert "icc_profile" not in shown.info
    assert np.abs(np.asarray(shown.convert("RGB"), int)[25, 25] - (200, 30, 60)).max() < 8
