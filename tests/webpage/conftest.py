"""Fixtures of the page: one that runs, and a real browser to look at it with."""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness import Site, photo
from visits import TOKEN, Page, Visitor, fill

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

pytest.importorskip("flask", reason="the extra web is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# of the browser's own doing nothing may leave this machine
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture
def open_page(stub_site: Site) -> Callable[..., Page]:
    """Start a page over the stub's site, with arguments and environment."""
    return lambda *arguments, **environment: Page(stub_site, *arguments, **environment)


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A page over folders in which nothing has happened yet."""
    return open_page()


@pytest.fixture
def visitor(page: Page) -> Visitor:
    return page.visitor()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page for tests that only ask: two results, and a failed picture. Nothing may be changed there."""
    yield from _still(tmp_path_factory)


@pytest.fixture(scope="module")
def still_walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The same behind a token."""
    yield from _still(tmp_path_factory, DROPSCALE_WEB__TOKEN=TOKEN)


def _still(tmp_path_factory: pytest.TempPathFactory, **environment: str) -> Iterator[Page]:
    site = Site(tmp_path_factory.mktemp("still") / "site")
    fill(site, done=2, failed=1)
    (site.failed / "2025").mkdir()
    (site.failed / "2025" / "picture 3.jpg").write_bytes(photo(3))
    yield Page(site, **environment)
    site.close()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Debian's Chromium, driven by Playwright; no browser is downloaded."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture
def open_context(browser: "Browser") -> "Iterator[Callable[..., BrowserContext]]":
    """A browser of somebody's own; what its console complains of fails the test."""
    contexts: list[tuple[BrowserContext, list[str]]] = []

    def open_one(*, quiet: bool = True, **options: Any) -> "BrowserContext":
        complaints: list[str] = []
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append((context, complaints))
        if quiet:
            context.on("console", lambda message: message.type == "error" and complaints.append(message.text))
            context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context

    yield open_one
    for context, complaints in contexts:
        context.close()
        assert not complaints
