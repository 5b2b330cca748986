"""The wall: who gets in, what other sites can make a browser do, and what every answer says to browsers."""

import contextlib
import http.client
import re
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml
from harness import Site, complaint, photo
from visits import TOKEN, Answer, Page, Visitor, fill

from watcher import config
from watcher.errors import ConfigError
from webpage.app import create_app
from webpage.security import Allowance, Wall, is_local_name
from webpage.site import Site as Pages

PLACES = ["/", "/gallery", "/bill", "/pictures/1", "/pictures/1/after", "/thumbnails/1", "/events", "/latest"]
API = ["/api/v1/status", "/api/v1/pictures", "/api/v1/pictures/1/result", "/api/v1/report", "/api/v1/openapi.json"]


@pytest.fixture
def walled(open_page: Callable[..., Page]) -> Page:
    return open_page(DROPSCALE_WEB__TOKEN=TOKEN)


def secret_and_cookie(answer: Answer) -> tuple[str, str]:
    found = re.search(r'<meta name="secret" content="([0-9a-f]+)">', answer.text)
    assert found
    return found[1], answer.headers["Set-Cookie"].split(";")[0]


# The token


@pytest.mark.parametrize("path", PLACES)
def test_a_stranger_is_sent_to_the_door(still_walled: Page, path: str) -> None:
    answer = still_walled.visitor().get(path)
    assert (answer.status, answer.headers["Location"]) == (302, "/login")


@pytest.mark.parametrize("path", API)
def test_a_strange_program_is_told_what_is_missing(still_walled: Page, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": "x=y"}):
        answer = still_walled.visitor(**headers).get(path)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.text


_OPEN = {"static", "pages.login", "pages.let_in"}


def test_no_route_was_forgotten(still_walled: Page) -> None:
    app = create_app(Pages.of(config.load(str(still_walled.site.config_path), {})))
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint not in _OPEN]
    assert len(rules) > 18
    for rule in rules:
        path = re.sub("<[^>]+>", "1", rule.rule)
        for method in (rule.methods or set()) - {"POST"}:
            answer = still_walled.visitor().ask(method, path)
            assert answer.status == 401 or answer.headers["Location"] == "/login", f"{method} {path}"


def test_a_program_with_the_token_comes_in(walled: Page) -> None:
    visitor = walled.visitor(Authorization=f"Bearer {TOKEN}")
    assert visitor.get("/api/v1/status").status == 200
    assert visitor.upload("a.png", photo(1)).status == 201


def log_in(page: Page, token: str, **more: str) -> Answer:
    visitor = page.visitor()
    secret, cookie = secret_and_cookie(visitor.get("/login"))
    form = urlencode({"secret": secret, "token": token}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie, "Origin": page.url}
    return visitor.ask("POST", "/login", form, {**headers, **more})


def test_behind_a_proxy_with_tls_the_session_never_goes_over_plain_http(still_walled: Page) -> None:
    def session(**more: str) -> str:
        cookies = log_in(still_walled, TOKEN, **more).headers.get_all("Set-Cookie")
        return next(value for value in cookies if "session" in value)

    assert "Secure" in session(Origin="https://pictures.example", Host="pictures.example")
    assert "Secure" not in session()


def test_a_person_with_the_token_comes_in_and_leaves(still_walled: Page) -> None:
    walled = still_walled
    answer = log_in(walled, TOKEN)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    (session,) = (value for value in answer.headers.get_all("Set-Cookie") if "session" in value)
    assert "HttpOnly" in session and "SameSite=Strict" in session
    cookie = session.split(";")[0]
    assert walled.visitor(Cookie=cookie).get("/").status == 200
    # neither a longer life nor another visitor's can be made of it
    name, _, value = cookie.partition("=")
    until, _, signature = value.partition(".")
    for forged in (f"{int(until) + 1}.{signature}", f"{until}.{signature[:-1]}0", f"{until}.", "9999999999.", ""):
        if forged != value:
            assert walled.visitor(Cookie=f"{name}={forged}").get("/").status == 302


def test_a_wrong_token_stays_outside_and_may_not_be_tried_for_ever(walled: Page) -> None:
    statuses = [log_in(walled, f"wrong {number}").status for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert log_in(walled, TOKEN).status == 429


def test_a_session_ends_in_time_and_with_its_token() -> None:
    wall = Wall(b"k" * 32, TOKEN)
    session = wall.session()
    cookie = {"COOKIE": f"{wall.session_cookie}={session}"}
    assert wall.admits(cookie, "")
    assert not Wall(b"k" * 32, TOKEN + "!").admits(cookie, ""), "the token was changed"
    past = str(int(time.time()) - 1)
    expired = f"{past}.{wall._sign('session', past)}"
    assert not wall.admits({"COOKIE": f"{wall.session_cookie}={expired}"}, "")


def test_a_stranger_cannot_make_the_server_hold_a_large_body(still_walled: Page) -> None:
    """Answered as soon as the headers are there, before the first megabyte."""
    with socket.create_connection(("127.0.0.1", still_walled.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/v1/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 209715200\r\n\r\n"
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


def test_the_page_refuses_to_show_itself_to_all(stub_site: Site) -> None:
    said = complaint(stub_site.run("web", "--host", "0.0.0.0", "--port", "0"), 2)
    assert "web.token" in said and "DROPSCALE_WEB__TOKEN" in said
    stub_site.configure(web={"enabled": True, "host": "::"})
    assert "web.token" in complaint(stub_site.run("run"), 2)


def test_with_a_token_it_shows_itself_to_all(open_page: Callable[..., Page]) -> None:
    page = open_page("--host", "0.0.0.0", DROPSCALE_WEB__TOKEN=TOKEN)
    assert page.visitor().get("/").status == 302


@pytest.mark.parametrize("token", ["short", "has a space in it, long as it is", "x" * 201, "tökentökentökentöken"])
def test_a_bad_token_is_refused(tmp_path: Path, token: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"web": {"token": token}}))
    with pytest.raises(ConfigError, match=r"web\.token"):
        config.load(str(path), {})


# Other sites


def test_without_a_token_only_names_of_this_machine_are_answered(still: Page) -> None:
    """What a name that somebody bent to 127.0.0.1 would send."""
    for host in (f"evil.example:{still.port}", "evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example"):
        for path in ("/", "/api/v1/status", "/events", "/static/page.css"):
            assert still.visitor(Host=host).get(path).status == 403, host
    for host in ("localhost", f"127.0.0.1:{still.port}", "[::1]:80", "pictures.localhost"):
        assert still.visitor(Host=host).get("/").status == 200
    assert not is_local_name("[::1")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have but one address of their own")
def test_another_address_of_this_machine_is_answered_under_its_own_name(open_page: Callable[..., Page]) -> None:
    page = open_page("--host", "127.0.0.2")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.2", page.port, timeout=20)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


CHANGES = ["/api/v1/pictures?name=a.png", "/api/v1/pictures/3/retry", "/login", "/logout"]


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Cookie": "anything=1"},
        {"Cookie": "anything=1", "X-Dropscale-Secret": "0" * 64},
    ],
    ids=str,
)
def test_a_browser_changes_nothing_for_another_site(still: Page, path: str, headers: dict[str, str]) -> None:
    page = still
    before = page.site.names(page.site.root)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = page.visitor().ask("POST", path, photo(1), {"Content-Type": kind, **headers})
        assert answer.status == 403
    assert page.site.names(page.site.root) == before


def test_a_page_of_ours_may(page: Page) -> None:
    visitor = page.visitor()
    secret, cookie = secret_and_cookie(visitor.get("/"))
    own = {"Origin": page.url, "Sec-Fetch-Site": "same-origin", "Cookie": cookie}
    assert visitor.upload("a.png", photo(1), **own).status == 403
    assert visitor.upload("a.png", photo(1), **own, **{"X-Dropscale-Secret": secret}).status == 201
    # another browser's secret is of no use
    other, _ = secret_and_cookie(visitor.get("/"))
    assert other != secret
    assert visitor.upload("a.png", photo(1), **own, **{"X-Dropscale-Secret": other}).status == 403


def test_the_secret_outlives_a_restart(page: Page, open_page: Callable[..., Page]) -> None:
    secret, cookie = secret_and_cookie(page.visitor().get("/"))
    again = open_page()
    assert secret_and_cookie(again.visitor(Cookie=cookie).get("/")) == (secret, cookie)
    mode = stat.S_IMODE((page.site.state / "page-key").stat().st_mode)
    assert mode == 0o600


def test_what_asks_only_may_not_change(still: Page) -> None:
    visitor = still.visitor()
    for path in CHANGES[1:]:
        assert visitor.get(path).status in (302, 405)
    for method in ("PUT", "DELETE", "PATCH"):
        assert visitor.ask(method, "/api/v1/pictures/1").status == 405
    assert visitor.ask("TRACE", "/").status == 405


# What is said to browsers


@pytest.mark.parametrize(
    "path", ["/", "/gallery", "/bill", "/nothing", "/api/v1/status", "/static/page.css", "/events"]
)
def test_every_answer_says_what_browsers_may_do_with_it(page: Page, path: str) -> None:
    if path == "/events":
        with page.visitor().listening() as stream:
            headers = stream.headers
    else:
        headers = page.visitor().get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http:" not in policy and "https:" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers


def test_pages_hold_no_inline_script_or_style_and_nothing_from_elsewhere(still: Page) -> None:
    visitor = still.visitor()
    for path in ("/", "/gallery", "/gallery?state=failed", "/bill", "/pictures/1", "/pictures/3", "/nothing"):
        text = visitor.get(path).text
        assert not re.search(r"<script(?![^>]*(src=|application/json))", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|https?://", text)


def test_names_cannot_become_markup(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=1, failed=1, names="<img src=x onerror=alert({number})>\u202e.jpg")
    for path in ("/", "/gallery", "/gallery?state=failed&search=%3Cimg", "/pictures/1", "/pictures/2"):
        text = visitor.get(path).text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text


def test_a_link_in_the_outbox_leads_nowhere(page: Page, visitor: Visitor) -> None:
    fill(page.site, done=2, names="x{number}")
    target = page.site.root / "secret.png"
    target.write_bytes(photo(1))
    (page.site.outbox / "2025").mkdir()
    (page.site.outbox / "2025" / "x1").symlink_to(target)
    assert visitor.get("/api/v1/pictures/1/result").status == 409
    (page.site.outbox / "2025" / "x1").unlink()
    (page.site.outbox / "2025").rmdir()
    (page.site.outbox / "2025").symlink_to(page.site.root, target_is_directory=True)
    (page.site.root / "x2").write_bytes(photo(1))
    assert visitor.get("/api/v1/pictures/2/result").status == 409


def test_the_token_is_told_to_nobody(walled: Page) -> None:
    texts = [
        walled.running.log(),
        walled.site.run("doctor", "--json").stdout,
        walled.site.run("status", "--json").stdout,
    ]
    assert all(TOKEN not in text for text in texts)


def test_an_allowance_is_saved_up_for_a_minute_and_no_longer() -> None:
    allowance = Allowance(6)
    assert [allowance.take("a", 0.0) for _ in range(7)] == [0.0] * 6 + [10.0]
    assert allowance.take("b", 0.0) == 0.0
    assert allowance.take("a", 10.0) == 0.0
    assert allowance.take("a", 10.0) == 10.0
    assert allowance.look("a", 10.0) == 10.0
    assert allowance.look("nobody", 10.0) == 0.0
    assert [allowance.take("a", 9e9) for _ in range(7)] == [0.0] * 6 + [10.0]


def test_all_addresses_of_one_ipv6_network_share_an_allowance() -> None:
    allowance = Allowance(1)
    assert allowance.take("2001:db8::1", 0.0) == 0.0
    assert allowance.take("2001:db8::ffff:2", 0.0) > 0
    assert allowance.take("2001:db8:0:1::1", 0.0) == 0.0
    assert allowance.take("::ffff:192.0.2.1", 0.0) == allowance.take("::ffff:192.0.2.2", 0.0) == 0.0
