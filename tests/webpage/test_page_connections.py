"""What a connection is told before the page is asked: by raw sockets, where a client library would be too polite."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from harness import Site, photo, wait_until
from visits import TOKEN, Page, Visitor

from watcher import config
from webpage import server
from webpage.site import Site as Pages

LARGE = 1 << 20


def said_to(page: Page, request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Status line, headers and body of all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as connection:
        connection.sendall(request)
        whole = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, dict(line.decode().lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ("Content-Length: 99999999999", 413, "too_large"),
        ("Content-Length: -5", 400, "bad_request"),
        ("Transfer-Encoding: gzip", 501, "not_implemented"),
        ("X: " + "x" * 40_000, 431, "request_header_fields_too_large"),
    ],
)
def test_what_the_server_refuses_by_itself_is_json_too(still: Page, head: str, status: int, code: str) -> None:
    request = f"POST /api/v1/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n\r\n"
    first, headers, body = said_to(still, request.encode())
    assert first.split()[1] == str(status).encode()
    assert json.loads(body)["error"]["code"] == code
    assert (headers["content-type"], headers["x-content-type-options"]) == ("application/json", "nosniff")


def test_a_stranger_who_asks_first_is_told_to_stay_away_and_not_to_go_on(still_walled: Page) -> None:
    """As curl does before it sends a large body; it was told to go on, and then that its headers were too large."""
    request = "POST /api/v1/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n"
    first, _, body = said_to(still_walled, f"{request}Expect: 100-continue\r\n\r\n".encode())
    assert first == b"HTTP/1.1 401 Token"
    assert json.loads(body)["error"]["code"] == "token"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others cannot limit another process")
@pytest.mark.parametrize("how", ["at once", "in chunks"])
def test_a_full_disk_on_the_way_is_told_at_the_end_of_the_body(page: Page, visitor: Visitor, how: str) -> None:
    """The connection was cut, without a word but for a traceback in the log."""
    import resource

    resource.prlimit(page.running.pid, resource.RLIMIT_FSIZE, (LARGE, LARGE))
    data = photo(1) + bytes(2 * LARGE)
    body = (data[at : at + LARGE // 3] for at in range(0, len(data), LARGE // 3)) if how == "in chunks" else data
    answer = visitor.ask("POST", "/api/v1/pictures?name=a.png", body)
    assert (answer.status, answer.json["error"]["code"]) == (507, "no_room")
    assert "state folder" in answer.json["error"]["message"]
    assert visitor.upload("b.png", photo(2)).status == 201
    assert page.site.names(page.site.inbox) == {"b.png"}
    assert "Traceback" not in page.running.log()


@pytest.fixture
def impatient(stub_site: Site) -> Iterator[int]:
    """A server that waits for a second only, in this process; its port."""
    stub_site.state.mkdir()
    settings = config.load(str(stub_site.config_path), {})
    pages = Pages.of(settings)
    listener = server._listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    running = server._server(pages, listener, str(stub_site.state), silent_seconds=1)
    thread = threading.Thread(target=running.run)
    thread.start()
    yield port
    pages.close()
    running.task_dispatcher.shutdown()
    running.close()
    running.asyncore.close_all(running._map)
    thread.join()


@pytest.mark.parametrize(
    "begun", [b"GET / HTTP/1.1\r\nHost: ", b"POST /login HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"]
)
def test_who_sends_a_byte_now_and_then_does_not_keep_a_place(impatient: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        connection.sendall(begun)
        connection.setblocking(False)

        def is_closed() -> bool:
            try:
                connection.send(b"x")
                return connection.recv(1) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        wait_until(is_closed, "the server to lose its patience", 20)


def test_a_large_upload_may_take_its_time(impatient: int) -> None:
    data = photo(1) + bytes(90_000)
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        head = f"POST /api/v1/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode())
        until = time.monotonic() + 2.5  # more than twice its patience with others
        sent = 0
        while time.monotonic() < until:
            connection.sendall(data[sent : sent + 100])
            sent += 100
            time.sleep(0.05)
        connection.sendall(data[sent:])
        assert connection.recv(64).startswith(b"HTTP/1.1 201 ")


def test_tokens_are_not_guessed_for_ever(open_page: Callable[..., Page]) -> None:
    walled = open_page(DROPSCALE_WEB__TOKEN=TOKEN)

    def status(token: str) -> int:
        return walled.visitor(Authorization=f"Bearer {token}").get("/api/v1/status").status

    assert status(TOKEN) == 200
    # an allowance grows while it is asked, so several tries may be needed
    wait_until(lambda: 429 in {status("wrong") for _ in range(100)}, "guesses not to be heard any more")
    wait_until(
        lambda: status("wrong") and status(TOKEN) == 429,
        "the right one to be told the same: else it would be known from the others",
    )
    large = {"Authorization": f"Bearer {TOKEN}", "Content-Length": "90000"}
    wait_until(
        lambda: (
            status("wrong") and walled.visitor().ask("POST", "/api/v1/pictures?name=a.png", None, large).status == 401
        ),
        "a large body not to be read either",
    )
