"""What the page costs: its first view with ten thousand results, memory at rest, and a large upload.

    python benchmarks/page.py [--update docs/benchmarks.md]

Linux only: figures come from /proc. The first view is that of Chromium with an empty cache (apt-get install chromium;
pip install playwright); without it only what the server sends is measured. The engine is the tests' stub, and the
ledger is written by the tests' `fill`; the newest results are JPEGs of docs/bee.jpg: there has to be something to show.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import figures

ROOT = Path(__file__).resolve().parent.parent
# first of all the root: a script beside this one is called as the package `watcher`
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "webpage")]

from harness import STUB_ENGINE, Site, wait_until  # noqa: E402 - they lie in the tests' folders
from visits import ADDRESS, Page, Visitor, fill  # noqa: E402

RESULTS = 10_000
ROUNDS = 20
SMALL_BYTES, LARGE_BYTES = 2_000_000, 200_000_000
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", type=Path, metavar="FILE")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = ["| the page | value | bound |", "|---|---|---|"]
        rows += [f"| {what} | {value} | {bound} |" for what, value, bound in measured(Path(folder))]
    table = "\n".join([f"Machine: {figures.machine()}; {figures.versions()}", "", *rows])
    print(table)
    if wanted.update:
        figures.update(wanted.update, "page", table)


def measured(folder: Path) -> Iterator[tuple[str, str, str]]:
    """What was measured, its value, and what it must not exceed."""
    site = Site(folder / "site", engine={"command": STUB_ENGINE}, web={"enabled": True, "port": 0})
    fill(site, done=RESULTS)
    show_bees(site)
    running = site.start()
    visitor = Visitor(int(wait_until(lambda: ADDRESS.search(running.log()), "the page")[2]))
    try:
        took = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            visitor.get("/")
            took.append(time.perf_counter() - begun)
        yield f"first page from the server, {RESULTS:,} results, median of {ROUNDS}", milliseconds(took), "200 ms"
        yield from in_a_browser(visitor)
        yield from at_rest(running.pid, visitor)
    finally:
        running.stop()
        site.close()
    yield from large_upload(folder)


def show_bees(site: Site) -> None:
    """Put something into the archive for the newest results."""
    picture = cv2.imread(str(ROOT / "docs" / "bee.jpg"))
    (site.archive / "2025").mkdir()
    for number in range(RESULTS - 47, RESULTS + 1):
        shifted = picture[(number % 16) * 10 :, (number % 7) * 10 :]
        cv2.imwrite(str(site.archive / "2025" / f"picture {number}.jpg"), shifted)


def in_a_browser(visitor: Visitor) -> Iterator[tuple[str, str, str]]:
    """The first view with an empty cache: bytes of everything, and the time until all of it is there."""
    try:
        from playwright.sync_api import Error, Request, sync_playwright  # noqa: PLC0415 - it may be missing
    except ModuleNotFoundError:
        return
    took, weights = [], []
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=SWITCHES)
        except Error:
            return
        for _ in range(ROUNDS + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            received: list[int] = []

            def weigh(request: Request, received: list[int] = received) -> None:
                if not request.url.endswith("/events"):  # that ends with its tab, and can be asked nothing then
                    received.append(sum(request.sizes().values()))

            tab.on("requestfinished", weigh)
            tab.goto(f"http://127.0.0.1:{visitor.port}/", wait_until="load")
            took.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart") / 1000)
            tab.locator("#engine", has_text="Engine off").wait_for()
            weights.append(sum(received))
            context.close()
        browser.close()
    # the first one makes the thumbnails
    yield f"the same in Chromium, with an empty cache, all loaded, median of {ROUNDS}", milliseconds(took[1:]), "200 ms"
    yield "its weight, headers and six thumbnails included", f"{max(weights) / 1e3:.0f} kB", "100 kB"


def at_rest(watcher: int, visitor: Visitor) -> Iterator[tuple[str, str, str]]:
    """After every page and an upload that was enlarged."""
    for path in ("/", "/gallery", "/bill", "/api/v1/status", "/api/v1/report", "/thumbnails/9999"):
        visitor.get(path)
    answer = visitor.upload("bee.jpg", (ROOT / "docs" / "bee.jpg").read_bytes())
    wait_until(lambda: visitor.fate(answer)["state"] == "done", "the upload to be enlarged")
    time.sleep(8)
    (page,) = children(watcher)
    values = [resident(pid, "VmRSS") for pid in (watcher, page)]
    text = f"{sum(values):.1f} MB ({values[0]:.1f} + {values[1]:.1f})"
    yield "memory at rest, watcher and page", text, "80 MB"


def large_upload(folder: Path) -> Iterator[tuple[str, str, str]]:
    """How much more memory the page needs at its peak for a large upload than for a small one."""
    page = Page(Site(folder / "upload"))
    head = (ROOT / "docs" / "bee.jpg").read_bytes()
    peaks = []
    for size in (SMALL_BYTES, LARGE_BYTES):
        pieces = [head, *[bytes(100_000)] * ((size - len(head)) // 100_000)]
        length = {"Content-Length": str(sum(map(len, pieces)))}
        answer = page.visitor().ask("POST", f"/api/v1/pictures?name={size}.jpg", iter(pieces), length)
        assert answer.status == 201, answer.text
        peaks.append(resident(page.running.pid, "VmHWM"))
    page.running.stop()
    text = f"{peaks[1] / peaks[0]:.2f} ({peaks[0]:.1f} MB, {peaks[1]:.1f} MB)"
    yield (
        f"peak memory of the page, upload of {LARGE_BYTES / 1e6:.0f} MB : of {SMALL_BYTES / 1e6:.0f} MB",
        text,
        "constant",
    )


def children(pid: int) -> list[int]:
    """Process ids of the children that are there."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def resident(pid: int, field: str) -> float:
    """A size of a process, in 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def milliseconds(seconds: list[float]) -> str:
    """Median and largest."""
    return f"{statistics.median(seconds) * 1e3:.0f} ms (at most {max(seconds) * 1e3:.0f})"


if __name__ == "__main__":
    main()
