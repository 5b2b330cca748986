"""The page in a real browser: drop, watch, compare, try again; in Chinese, on a phone, in the dark, by keyboard."""

import base64
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness import Site, photo, wait_until
from visits import TOKEN, Page, fill

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator
    from playwright.sync_api import Page as Tab

Open = Callable[..., "BrowserContext"]
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 3,
    "is_mobile": True,
    "has_touch": True,
}
pytestmark = pytest.mark.slow  # a browser takes its time

REAL = {"engine": {"start_seconds": 60}, "watch": {"settle_seconds": 0.1, "incomplete_seconds": 0.1}}

# What a drag from a file manager brings; playwright has no drag of files of its own.
DROP = """([name, data, type]) => {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const brought = new DataTransfer();
  brought.items.add(new File([bytes], name, { type }));
  const drop = document.getElementById("drop");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    drop.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: brought }));
  }
}"""
PASTE = DROP.replace("const drop", "const unused").replace(
    """for (const kind of ["dragenter", "dragover", "drop"]) {
    drop.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: brought }));
  }""",
    'document.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: brought }));',
)


def drop(tab: "Tab", name: str, data: bytes, how: str = DROP) -> None:
    tab.evaluate(how, [name, base64.b64encode(data).decode(), "image/png"])


def show(site: Site) -> Page:
    """A page with two results, one of them real to look at, and a picture that failed."""
    fill(site, done=2, failed=1)
    for folder, side in ((site.archive, 100), (site.outbox, 300)):
        (folder / "2025").mkdir()
        (folder / "2025" / "picture 1.jpg").write_bytes(photo(1, side, side, ".jpg"))
    (site.failed / "2025").mkdir()
    (site.failed / "2025" / "picture 3.jpg").write_bytes(photo(3, extension=".jpg"))
    return Page(site)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Such a page for tests that only look."""
    site = Site(tmp_path_factory.mktemp("shown") / "site")
    site.drop("a.png", b"a picture")
    site.drop("b.txt", b"no picture")
    yield show(site)
    site.close()


def test_a_dropped_picture_is_followed_to_its_result(make_site: Callable[..., Site], open_context: Open) -> None:
    """With the real engine: dropped, seen in work with its tiles, done, compared, found among the latest."""
    site = make_site(**REAL)
    site.start()
    page = Page(site)
    tab = open_context(viewport={"width": 1200, "height": 900}).new_page()
    tab.goto(page.url)
    expect_text(tab.locator("#engine"), "Engine off")
    tab.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => {
          window.seen.add(document.getElementById("now").dataset.state);
          for (const bar of document.querySelectorAll("#batch progress")) window.seen.add(bar.ariaLabel);
        }).observe(document.getElementById("now"), { subtree: true, childList: true, attributes: true }); }"""
    )
    drop(tab, "a meadow.png", photo(5, 1100, 900))
    row = tab.locator("#uploads li")
    expect_text(row.locator(".name"), "a meadow.png")
    link = row.locator("a")
    link.wait_for(timeout=90_000)
    assert tab.evaluate("window.seen.has('working') && window.seen.has('This window')")
    tab.locator("#latest .name", has_text="a meadow.png").wait_for()
    link.click()
    expect_text(tab.locator("h1"), "a meadow.png")
    tab.locator("#compare").wait_for()
    sizes = "Original 1100 \u00d7 900"
    assert sizes in tab.locator(".facts").inner_text().replace("\n", " ")
    assert tab.evaluate("document.getElementById('after').decode().then(() => after.naturalWidth)") == 3300
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "a meadow.png"


def test_pasted_chosen_and_many_at_once(page: Page, open_context: Open) -> None:
    tab = open_context().new_page()
    tab.goto(page.url)
    drop(tab, "image.png", photo(1), PASTE)
    tab.set_input_files(
        "#files", [{"name": f"{n}.png", "mimeType": "image/png", "buffer": photo(10 + n)} for n in range(9)]
    )
    tab.set_input_files("#camera", [{"name": "photo.png", "mimeType": "image/png", "buffer": photo(30)}])
    names = {"image.png", "photo.png", *(f"{n}.png" for n in range(9))}
    wait_until(lambda: page.site.names(page.site.inbox) == names, "all of them")
    tab.locator("#uploads li .state", has_text="waiting").nth(10).wait_for()
    expect_text(tab.locator("#uploads-summary"), "In the inbox: 11")
    assert tab.locator("#camera").get_attribute("capture") == "environment"


def test_what_is_refused_says_why(page: Page, open_context: Open) -> None:
    tab = open_context(quiet=False).new_page()
    tab.goto(page.url)
    drop(tab, "notes.png", b"just a text")
    expect_text(tab.locator("#uploads .reason"), "this is not a picture")
    assert not page.site.files(page.site.inbox)


def test_a_file_that_is_too_large_is_not_even_sent(make_site: Callable[..., Site], open_context: Open) -> None:
    page = Page(make_site(web={"upload_megabytes": 1}))
    tab = open_context().new_page()
    tab.goto(page.url)
    sent: list[str] = []
    tab.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    drop(tab, "big.png", bytes(2 << 20))
    expect_text(tab.locator("#uploads .reason"), "larger than 1 MB")
    assert not sent


def test_without_events_it_asks_again_and_again(page: Page, open_context: Open) -> None:
    tab = open_context(quiet=False).new_page()
    tab.route("**/events", lambda route: route.fulfill(status=503))
    tab.goto(page.url)
    expect_text(tab.locator("#engine"), "Engine off")
    assert tab.locator("#now").get_attribute("data-by") == "asking"
    page.site.drop("a.png", b"a picture")
    expect_text(tab.locator("#lists"), "Waiting: 1")


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_tab_that_nobody_sees_holds_no_connection(page: Page, open_context: Open) -> None:
    """Six are all that a browser has for one server: four tabs and two uploads, and the next tab hung."""
    context = open_context()
    tabs = []
    for _ in range(8):
        tab = context.new_page()
        tab.goto(page.url)
        tab.locator("#now[data-by=events]").wait_for()
        tabs.append(tab)
        if len(tabs) < 8:
            tab.evaluate(HIDE, True)
    page.site.drop("a.png", b"a picture")
    expect_text(tabs[-1].locator("#lists"), "Waiting: 1")
    assert not tabs[0].locator("#lists summary").count()
    tabs[0].evaluate(HIDE, False)
    expect_text(tabs[0].locator("#lists"), "Waiting: 1")


def test_who_was_let_out_meanwhile_comes_to_the_door(open_page: Callable[..., Page], open_context: Open) -> None:
    page = open_page(DROPSCALE_WEB__TOKEN=TOKEN)
    context = open_context(quiet=False)
    tab = context.new_page()
    tab.goto(page.url)
    tab.get_by_label("Token").fill(TOKEN)
    tab.get_by_role("button", name="Come in").click()
    tab.locator("#now[data-by=events]").wait_for()
    context.clear_cookies()
    tab.evaluate(HIDE, True)
    tab.evaluate(HIDE, False)
    tab.wait_for_url("**/login")


def shows(tab: "Tab") -> float:
    return float(tab.locator("#handle").get_attribute("aria-valuenow") or -1)


def test_the_slider_works_by_keyboard(shown: Page, open_context: Open) -> None:
    tab = open_context().new_page()
    tab.goto(f"{shown.url}/pictures/1")
    handle = tab.get_by_role("slider")
    handle.focus()
    seen = []
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "Shift+ArrowRight", "PageUp", "Home", "ArrowLeft", "End"):
        tab.keyboard.press(key)
        seen.append(shows(tab))
    assert seen == [52, 50, 48, 58, 68, 0, 0, 100]
    clip = tab.locator("#clip").evaluate("element => getComputedStyle(element).clipPath")
    assert clip in ("inset(0px 0%)", "inset(0px 0% 0px 0px)")


def test_the_picture_moves_and_zooms_by_keyboard_and_wheel(shown: Page, open_context: Open) -> None:
    tab = open_context(viewport={"width": 1000, "height": 700}).new_page()
    tab.goto(f"{shown.url}/pictures/1")
    view = tab.locator("#compare")

    def scale() -> float:
        return float(view.get_attribute("data-scale") or 0)

    fit = scale()
    tab.get_by_role("button", name="4:1").click()
    assert scale() == 4
    assert view.evaluate("element => element.classList.contains('pixels')")
    place = tab.locator("#after").evaluate("element => element.style.transform")
    view.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#after").evaluate("element => element.style.transform") != place
    both = tab.evaluate("[after.style.transform, before.style.transform]")
    assert both[0] == both[1]
    tab.keyboard.press("-")
    assert scale() < 4
    tab.keyboard.press("0")
    assert scale() == pytest.approx(fit)
    view.hover()
    tab.mouse.wheel(0, -300)
    wait_until(lambda: scale() > fit, "the wheel to enlarge")
    tab.get_by_role("button", name="original").click()
    assert tab.evaluate("before.decode().then(() => before.naturalWidth)") == 100
    tab.get_by_role("button", name="bicubic").click()
    assert tab.evaluate("before.decode().then(() => before.naturalWidth)") == 300


def test_the_slider_works_by_mouse_and_by_touch(shown: Page, open_context: Open) -> None:
    tab = open_context(viewport={"width": 1000, "height": 800}).new_page()
    tab.goto(f"{shown.url}/pictures/1")
    box = tab.locator("#compare").bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] / 2, y)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 4, y, steps=4)
    tab.mouse.up()
    assert shows(tab) == pytest.approx(25, abs=1)

    phone = open_context(**PHONE)
    tab = phone.new_page()
    tab.goto(f"{shown.url}/pictures/1")
    box = tab.locator("#compare").bounding_box()
    assert box
    fingers = phone.new_cdp_session(tab)
    y = box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (box["x"] + box["width"] / 2, y))
    touch("touchMove", (box["x"] + box["width"] * 0.7, y))
    touch("touchEnd")
    wait_until(lambda: shows(tab) == pytest.approx(70, abs=1), "the finger to move the slider", 10)
    before = float(tab.locator("#compare").get_attribute("data-scale") or 0)
    middle = box["x"] + box["width"] * 0.3
    touch("touchStart", (middle - 20, y - 60), (middle + 20, y - 60))
    touch("touchMove", (middle - 60, y - 60), (middle + 60, y - 60))
    touch("touchEnd")
    wait_until(lambda: float(tab.locator("#compare").get_attribute("data-scale") or 0) > before * 2, "two fingers", 10)


def test_a_failed_picture_is_tried_again_by_its_button(site: Site, open_context: Open) -> None:
    shown = show(site)
    tab = open_context().new_page()
    tab.goto(f"{shown.url}/gallery?state=failed")
    card = tab.locator(".card", has_text="picture 3.jpg")
    expect_text(card.locator(".reason"), "it is damaged")
    card.get_by_role("button", name="Try 2025/picture 3.jpg again").click()
    expect_text(tab.get_by_role("status"), "is back in the inbox")
    wait_until(lambda: not card.count(), "the card to go")
    assert shown.site.names(shown.site.inbox) == {"2025/picture 3.jpg"}
    assert not shown.site.names(shown.site.failed)


def test_the_gallery_is_searched_by_name(shown: Page, open_context: Open) -> None:
    tab = open_context().new_page()
    tab.goto(f"{shown.url}/gallery")
    assert tab.locator(".card").count() == 2
    tab.get_by_role("searchbox").fill("PICTURE 2")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/gallery?search=*")
    assert tab.locator(".card .name").all_inner_texts() == ["2025/picture 2.jpg"]


def test_it_speaks_chinese_to_a_chinese_browser(page: Page, open_context: Open) -> None:
    page.site.drop("a.png", b"a picture")
    tab = open_context(locale="zh-CN").new_page()
    tab.goto(page.url)
    expect_text(tab.locator("#engine"), "引擎已关机")
    expect_text(tab.locator("h1"), "投入一张图片\uff0c取回放大 3 倍的结果")
    expect_text(tab.locator("#lists .why"), "监视程序没有运行")
    fill(page.site)
    page.site.execute(
        "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, trouble,"
        " not_before, created_at, changed_at) VALUES (CAST('a.png' AS BLOB), '1', '1', 9, '1', '1', 'a', 'r',"
        " 'waiting', 'cannot be decoded, perhaps unfinished: it is cut off', 9e9, 1, 1)"
    )
    expect_text(tab.locator("#lists .why"), "无法解码")
    expect_text(tab.locator("#lists .why"), "监视程序下次检查时再试")  # none is running
    drop(tab, "图片.png", photo(1))
    expect_text(tab.locator("#uploads .state"), "等待中")
    for path in ("/", "/gallery", "/bill"):
        tab.goto(page.url + path)
        assert tab.locator("html").get_attribute("lang") == "zh-Hans"


def test_the_token_wall_lets_in_who_knows_it(open_page: Callable[..., Page], open_context: Open) -> None:
    page = open_page(DROPSCALE_WEB__TOKEN=TOKEN)
    tab = open_context(quiet=False).new_page()
    tab.goto(f"{page.url}/gallery")
    assert tab.url == f"{page.url}/login"
    tab.get_by_label("Token").fill("a wrong guess, alas")
    tab.get_by_role("button", name="Come in").click()
    expect_text(tab.get_by_role("alert"), "That is not the token.")
    tab.get_by_label("Token").fill(TOKEN)
    tab.get_by_role("button", name="Come in").click()
    expect_text(tab.locator("#engine"), "Engine off")
    drop(tab, "a.png", photo(1))
    wait_until(lambda: page.site.names(page.site.inbox) == {"a.png"}, "the upload")
    tab.get_by_role("button", name="Leave").click()
    tab.wait_for_url("**/login")
    tab.goto(page.url)
    assert tab.url == f"{page.url}/login"


PLACES = ["/", "/gallery", "/gallery?state=failed", "/pictures/1", "/pictures/2", "/pictures/3", "/bill", "/nothing"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="light"),
        pytest.param({"locale": "zh-CN", **PHONE}, id="chinese phone"),
        pytest.param({"color_scheme": "dark"}, id="dark", marks=pytest.mark.slow),
        pytest.param({"color_scheme": "dark", "forced_colors": "active"}, id="forced", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_and_nothing_sticks_out(shown: Page, open_context: Open, options: dict[str, Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    tab = open_context(quiet=False, **options, bypass_csp=True).new_page()
    for path in PLACES:
        tab.goto(shown.url + path)
        if path == "/":
            tab.locator("#lists summary").first.wait_for()
            drop(tab, "notes.png", b"just a text")
            tab.locator("#uploads .reason").wait_for()
        found = axe.run(
            tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        )
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"{path} is {wide} pixels too wide"


def test_axe_finds_nothing_at_the_door(open_page: Callable[..., Page], open_context: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = open_page(DROPSCALE_WEB__TOKEN=TOKEN)
    tab = open_context(bypass_csp=True).new_page()
    tab.goto(page.url)
    found = axe.run(tab)
    assert found.violations_count == 0, found.generate_report()


# What has the focus, and whether that can be seen; of a hidden field for files its label shows it.
FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return ["end", false];
  const label = at.type === "file" ? document.querySelector(`label[for="${at.id}"]`) : null;
  return [at.id || at.textContent.trim().split("\\n")[0], getComputedStyle(label ?? at).outlineStyle !== "none"];
}"""


def test_the_keyboard_reaches_everything_and_shows_where_it_is(shown: Page, open_context: Open) -> None:
    tab = open_context().new_page()
    tab.goto(shown.url)
    reached: list[tuple[str, bool]] = []
    for _ in range(30):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate(FOCUSED))
        if reached[-1][0] == "end":
            break
    assert reached.pop()[0] == "end"
    names = [name for name, _ in reached]
    for name in ("Skip to the content", "Gallery", "Bill", "files", "All results"):
        assert name in names, names
    assert all(visible for _, visible in reached), reached


def test_the_first_page_is_light_for_a_browser_and_asks_nobody_else(shown: Page, open_context: Open) -> None:
    tab = open_context().new_page()
    received: dict[str, int] = {}

    def count(response: Any) -> None:
        if not response.url.endswith("/events"):
            received[response.url] = len(response.body())

    tab.on("requestfinished", lambda request: count(request.response()))
    tab.goto(shown.url)
    expect_text(tab.locator("#engine"), "Engine off")
    tab.wait_for_load_state()
    assert all(url.startswith(shown.url) for url in received)
    assert 10_000 < sum(received.values()) < 100_000, received


def expect_text(place: "Locator", text: str) -> None:
    from playwright.sync_api import expect

    expect(place).to_contain_text(text)
