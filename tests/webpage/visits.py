"""A page that runs, and a visitor that is no browser: plain HTTP, with every header in the test's hands."""

import contextlib
import http.client
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from harness import Running, Site, wait_until

from watcher.ledger import Ledger

ADDRESS = re.compile(r"the page is at http://([0-9.]+|\[[0-9a-f:]+\]):([0-9]+)/")
TOKEN = "a-token-that-nobody-guesses"


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Visitor:
    """Asks one page. Nothing is sent that a test does not name, but Host and Content-Length."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.headers = headers

    def ask(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def upload(self, name: str, data: bytes, **headers: str) -> Answer:
        path = f"/api/v1/pictures?name={quote(name, safe='')}"
        return self.ask("POST", path, data, {"Content-Type": "application/octet-stream", **headers})

    def fate(self, answer: Answer) -> Any:
        return self.get(f"/api/v1/uploads/{answer.json['upload']}").json

    @contextlib.contextmanager
    def listening(self) -> Iterator[http.client.HTTPResponse]:
        """A stream of events, while the block runs."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/events", headers=self.headers)
            with contextlib.closing(connection.getresponse()) as stream:
                yield stream


def next_event(stream: http.client.HTTPResponse) -> Any:
    while True:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return json.loads(line.removeprefix(b"data: "))


class Page:
    """A `dropscale web` in the background."""

    def __init__(self, site: Site, *arguments: str, **environment: str) -> None:
        self.site = site
        self.running: Running = site.start("web", "--port", "0", *arguments, ready=False, **environment)
        wait_until(lambda: self.address() or self.running.process.poll() is not None, "the page to be there")
        found = self.address()
        assert found, self.running.log()
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://127.0.0.1:{self.port}"

    def address(self) -> re.Match[str] | None:
        return ADDRESS.search(self.running.log())

    def visitor(self, **headers: str) -> Visitor:
        return Visitor(self.port, **headers)


def fill(site: Site, done: int = 0, failed: int = 0, names: str = "picture {number}.jpg") -> None:
    """Write a ledger that knows of so many pictures, a second apart; picture 1 is the oldest."""
    Ledger(str(site.state)).close() if site.state.exists() else make_ledger(site)
    rows = [
        (
            f"2025/{names.format(number=number)}".encode(),
            f"{number:064x}",
            "done" if number <= done else "failed",
            "" if number <= done else "it is damaged",
            f"2025/{names.format(number=number)}".encode(),
            1_700_000_000.25 + number,
        )
        for number in range(1, done + failed + 1)
    ]
    with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, reason,"
            " result_path, result_sha256, result_bytes, moved_path, created_at, changed_at, arrived_at)"
            " SELECT ?1, '1', '1', 1000, '1', '1', ?2, 'recipe', ?3, ?4, ?5, ?2, 9000, ?5, ?6, ?6, ?6",
            rows,
        )


def make_ledger(site: Site) -> None:
    site.state.mkdir(exist_ok=True)
    Ledger(str(site.state)).close()


def hidden(folder: Path) -> list[str]:
    """Names of ours that should not stay."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]
