"""Make the pictures of the page in README: docs/page.jpg, docs/page-compare.jpg, docs/page-bill.jpg.

    python benchmarks/screenshots.py docs

What is shown is real: crops of docs/bee.jpg go through a watcher and its engine. Only the bill is an example, of a GPU
in use for some minutes on most days of a month; no GPU was needed for it. It needs chromium (apt-get install chromium
fonts-inter) and the extra `test`.
"""

import contextlib
import random
import sqlite3
import sys
import tempfile
from datetime import datetime
from io import BytesIO
from pathlib import Path

import cv2
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
# first of all the root: a script beside this one is called as the package `watcher`
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "webpage")]

from harness import Site, wait_until  # noqa: E402 - they lie in the tests' folders
from visits import Page  # noqa: E402

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CROPS = {  # top, left, height, width of docs/bee.jpg, 540 x 426
    "garden.jpg": (0, 0, 426, 540),
    "wing.jpg": (150, 30, 150, 200),
    "blossom.jpg": (120, 250, 280, 290),
    "eye.jpg": (90, 210, 120, 160),
    "petals.jpg": (0, 280, 220, 260),
    "stripes.jpg": (180, 100, 170, 140),
}
MONTH = "2026-10"
QUALITY = 86


def main(target: Path) -> None:
    """Write the three pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=SWITCHES)
        site = Site(Path(folder) / "site", engine={"model": "edsr-lite-x3-photo"}, watch={"settle_seconds": 0.2})
        site.start()
        page = Page(site)
        drop(site)
        shoot_home(browser, site, page, target / "page.jpg")
        garden = site.query("SELECT id FROM pictures WHERE path = CAST('garden.jpg' AS BLOB)")[0][0]
        shoot(browser, f"{page.url}/pictures/{garden}", target / "page-compare.jpg", height=830, zoom=True)
        site.close()
        bill = Site(Path(folder) / "bill")
        example_month(bill)
        url = f"{Page(bill).url}/bill?month={MONTH}"
        shoot(browser, url, target / "page-bill.jpg", height=860, dark=True)
        bill.close()
        browser.close()


def drop(site: Site) -> None:
    """All crops, and wait for their results."""
    picture = cv2.imread(str(ROOT / "docs" / "bee.jpg"))
    for name, (top, left, height, width) in CROPS.items():
        data = cv2.imencode(".jpg", picture[top : top + height, left : left + width])[1]
        site.drop(name, data.tobytes())
        wait_until(lambda name=name: name in site.names(site.archive), name)


def shoot_home(browser: Browser, site: Site, page: Page, target: Path) -> None:
    """While larger pictures are in work, so that there is something to see."""
    context = browser.new_context(viewport={"width": 1200, "height": 830}, bypass_csp=True)
    tab = context.new_page()
    tab.goto(page.url)
    tab.locator("#engine", has_text="Engine off").wait_for()
    tab.wait_for_function("[...document.querySelectorAll('.thumb img')].every((image) => image.naturalWidth > 0)")
    picture = cv2.imread(str(ROOT / "docs" / "bee.jpg"))
    files = []
    for number, name in enumerate(("poster.png", "calendar.png", "cover.png")):
        large = cv2.resize(picture, None, fx=3 + number, fy=3 + number, interpolation=cv2.INTER_CUBIC)
        files.append({"name": name, "mimeType": "image/png", "buffer": cv2.imencode(".png", large)[1].tobytes()})
    tab.set_input_files("#files", files)
    tab.locator("#batch .work").nth(1).wait_for(timeout=60_000)
    save(tab.screenshot(), target)
    wait_until(lambda: "cover.png" in site.names(site.archive), "the last picture", 180)
    context.close()


def shoot(browser: Browser, url: str, target: Path, *, height: int, dark: bool = False, zoom: bool = False) -> None:
    """One page."""
    context = browser.new_context(
        viewport={"width": 1200, "height": height}, color_scheme="dark" if dark else "light", bypass_csp=True
    )
    tab = context.new_page()
    tab.goto(url, wait_until="networkidle")
    if zoom:
        tab.get_by_role("button", name="2:1").click()
        view = tab.locator("#compare")
        view.focus()
        for key in ["ArrowLeft"] * 5 + ["ArrowUp"] * 8:  # the eye of the bee
            tab.keyboard.press(key)
        tab.evaluate("document.activeElement.blur()")
        tab.wait_for_function("[...document.images].every((image) => image.complete)")
    save(tab.screenshot(), target)
    context.close()


def save(png: bytes, target: Path) -> None:
    """As a small file."""
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").save(target, quality=QUALITY, optimize=True, progressive=True)


def example_month(site: Site) -> None:
    """A month of a GPU that works for some minutes a day, most of them in office hours."""
    from watcher.ledger import Ledger  # noqa: PLC0415 - not the script beside this one

    site.state.mkdir()
    Ledger(str(site.state)).close()
    dice = random.Random(8)
    first = datetime.strptime(MONTH, "%Y-%m")
    runs = []
    for day in range(31):
        weekday = (first.weekday() + day) % 7
        for _ in range(dice.randint(0, 2) if weekday > 4 else dice.randint(5, 16)):
            begin = first.timestamp() + day * 86_400 + 3600 * min(max(dice.gauss(14, 3), 7), 22)
            runs.append((begin, begin + dice.uniform(40, 420)))
    with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO engine_runs (pid, spawned_at, held_from, exited_at, model, device, host, done, load_seconds,"
            " compute_seconds) VALUES (1, ?1, ?1, ?2, 'edsr-x3', 'cuda:0', 'example', 20, 3, ?2 - ?1 - 3)",
            runs,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
