"""Files over HTTP, from a real server on loopback that may break off, lie or refuse."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from watcher.errors import EnvironmentFault
from watcher.models.download import Pin, download

CONTENT = os.urandom(700_000)
PIN = Pin(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every path, with ranges.

    Attributes:
        content: what.
        breaks_off_after: bytes of an answer after which the connection is closed; None: never.
        knows_ranges: whether it honours them.
        asked: path and Range header of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.breaks_off_after: int | None = None
        self.knows_ranges = True
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.knows_ranges else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        part = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: self.server.breaks_off_after])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_file_comes_whole(server: Server, tmp_path: Path) -> None:
    heard: list[int] = []
    target = tmp_path / "file"
    assert download([server.address + "/file"], str(target), PIN, heard.append) == server.address + "/file"
    assert target.read_bytes() == CONTENT
    assert heard[-1] == len(CONTENT)
    assert heard == sorted(heard)
    assert os.listdir(tmp_path) == ["file"]


def test_a_git_blob_id_is_as_good(server: Server, tmp_path: Path) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    download([server.address + "/file"], str(tmp_path / "file"), Pin(len(CONTENT), git_blob=blob))
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_what_broke_off_goes_on(server: Server, tmp_path: Path, knows_ranges: bool) -> None:
    server.breaks_off_after = 300_000
    with pytest.raises(EnvironmentFault, match="300000 bytes, expected 700000"):
        download([server.address + "/file"], str(tmp_path / "file"), PIN)
    assert os.listdir(tmp_path) == ["file.part"]
    server.breaks_off_after, server.knows_ranges = None, knows_ranges
    download([server.address + "/file"], str(tmp_path / "file"), PIN)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[-1] == ("/file", "bytes=300000-")


def test_the_next_address_goes_on_where_the_first_broke_off(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:100])
    used = download([server.address + "/missing", server.address + "/file"], str(tmp_path / "file"), PIN)
    assert used == server.address + "/file"
    assert [asked for _, asked in server.asked] == ["bytes=100-", "bytes=100-"]


def test_another_file_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    other = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(EnvironmentFault, match=f"sha256 {other}, expected {PIN.sha256}"):
        download([server.address + "/file"], str(tmp_path / "file"), PIN)
    assert os.listdir(tmp_path) == []


def test_an_endless_file_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 50
    with pytest.raises(EnvironmentFault, match="700001 bytes, expected 700000"):
        download([server.address + "/file"], str(tmp_path / "file"), PIN)
    assert os.listdir(tmp_path) == []


def test_a_part_that_is_of_another_file_is_found_out_and_the_next_try_succeeds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"?" * 1000)
    with pytest.raises(EnvironmentFault, match="expected"):
        download([server.address + "/file"], str(tmp_path / "file"), PIN)
    download([server.address + "/file"], str(tmp_path / "file"), PIN)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_every_address_is_named_with_its_reason(server: Server, tmp_path: Path) -> None:
    addresses = [server.address + "/missing", "file:///etc/passwd", "http://127.0.0.1:9/x"]
    with pytest.raises(EnvironmentFault) as raised:
        download(addresses, str(tmp_path / "file"), PIN)
    message = raised.value.message
    assert "/missing: the server answers 404 Not Found" in message
    assert "file:///etc/passwd: only http and https addresses are fetched" in message
    assert "http://127.0.0.1:9/x: Connection refused" in message
    assert "models add FILE" in raised.value.remedy
    assert not (tmp_path / "file").exists()


def test_the_proxy_of_the_environment_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    download(["http://models.invalid/file"], str(tmp_path / "file"), PIN)
    assert server.asked == [("http://models.invalid/file", None)]
