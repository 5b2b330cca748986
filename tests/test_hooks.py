"""`on_event`: real commands and real servers that fail, hang, redirect and come back, told by real watchers."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from harness import HASTY_STUB, ROOT, Site, complaint, wait_until

from watcher.journal import listening, tell
from watcher.operation.hook_calls import place_of, run_command
from watcher.operation.hook_troubles import Tally
from watcher.operation.hooks import Hooks, names
from watcher.sections import Hook, HookEvent

SCRIPT = [sys.executable, "-P", str(ROOT / "tests" / "hook_command.py")]
SECRET = "a-token-of-mine"


class Server:
    """A server on this machine that takes what is posted.

    Attributes:
        answers: what it answers next, each a code or "hang"; then 204.
        requests: path, headers and body of each that was answered.
    """

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.location = self.retry_after = ""
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
                answer = outer.answers.pop(0) if outer.answers else 204
                if answer == "hang up":
                    return
                if answer == "hang":
                    outer.requests.append((self.path, dict(self.headers), body))
                    outer.over.wait(60)
                    return
                self.send_response(int(answer))
                if outer.retry_after and int(answer) in (429, 503):
                    self.send_header("Retry-After", outer.retry_after)
                if outer.location and int(answer) // 100 == 3:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                outer.requests.append((self.path, dict(self.headers), body))

            def do_GET(self) -> None:  # what urllib would make of a redirect
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def encrypt(self, folder: Path) -> None:
        """From now on it speaks TLS, with a certificate that it made itself."""
        key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
        subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def told(self) -> list[str]:
        return [body["event"] for _, _, body in self.requests]

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def hooked(make_site: Callable[..., Site]) -> Callable[..., Site]:
    """Make sites with the stub engine and these hooks."""

    def make(*hooks: dict[str, Any]) -> Site:
        return make_site(**HASTY_STUB, on_event=list(hooks))

    return make


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Commands


def test_a_command_is_told_of_each_event_that_it_asked_for(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    events = ["started", "done", "failed", "batch", "stopped", "engine_trouble"]
    site = hooked({"events": events, "command": [*SCRIPT, str(told)]})
    running = site.start()
    site.drop("sub/ä b.png", b"a picture")
    site.drop("bad.png", b"UNSUPPORTED")
    wait_until(lambda: {"done", "failed", "batch"} <= {json.loads(line)["event"] for line in lines_of(told)}, "them")
    assert running.stop() == 0
    found = [json.loads(line) for line in lines_of(told)]
    by_event = {entry["event"]: entry for entry in found}
    assert found[0]["event"] == "started" and found[-1]["event"] == "stopped"
    assert "engine_trouble" not in by_event
    done = by_event["done"]
    assert done["picture"] == "sub/ä b.png"
    assert Path(done["result_path"]).read_bytes().startswith(b"RESULT")
    assert done["seconds"] >= 0 and done["reused"] is False
    failed = by_event["failed"]
    assert (failed["picture"], Path(failed["failed_path"])) == ("bad.png", site.failed / "bad.png")
    assert failed["reason"]
    assert sum(entry.get("delivered", 0) for entry in found) == 1
    for entry in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", entry["time"])
        assert entry["message"] and entry["host"]


def test_files_are_found_by_what_is_told_of_them_whatever_their_names(
    hooked: Callable[..., Site], tmp_path: Path
) -> None:
    """Line breaks, quotes, and bytes that are no text: what `picture` and `message` show is for people."""
    told = tmp_path / "told"
    site = hooked({"events": ["done", "failed"], "command": [*SCRIPT, str(told)]})
    names = ["a\nb.png", 'it\'s "$(so)".png', "100%25.png", "no text \udcff.png", "\x1b[31m.png", "\\n.png"]
    for name in names:
        site.drop(name, f"picture {names.index(name)}".encode())
        site.drop(f"bad {name}", b"UNSUPPORTED")
    assert site.once().returncode == 1
    entries = [json.loads(line) for line in lines_of(told)]
    assert len(entries) == 2 * len(names)
    found = {"done": set(), "failed": set()}  # type: dict[str, set[bytes]]
    for entry in entries:
        kind = "result" if entry["event"] == "done" else "failed"
        place = unquote_to_bytes(urlsplit(entry[f"{kind}_uri"]).path)
        assert os.path.isfile(place)
        found[entry["event"]].add(os.path.basename(place))
        assert Path(entry[f"{kind}_path"]).exists() or b"\xff" in place
        assert entry["message"].isprintable()
    assert found["done"] == {os.fsencode(name) for name in names}
    assert found["failed"] == {os.fsencode(f"bad {name}") for name in names}


@pytest.mark.parametrize(("event", "words"), [("done", b"SLOW 1 a picture"), ("failed", b"SLOW 1 UNSUPPORTED")])
def test_a_picture_whose_move_had_to_wait_is_told_when_it_ends(
    hooked: Callable[..., Site], tmp_path: Path, event: str, words: bytes
) -> None:
    told, others, away = tmp_path / "told", tmp_path / "others", tmp_path / "away"
    site = hooked(
        {"events": ["done", "failed"], "command": [*SCRIPT, str(told)]},
        {"events": ["waiting"], "command": [*SCRIPT, str(others)]},
    )
    folder = site.archive if event == "done" else site.failed
    running = site.start()
    site.drop("sub/a.png", words)
    wait_until(lambda: "engine started" in running.log(), "the engine")
    folder.rename(away)
    wait_until(lambda: len(lines_of(others)) > 2, "it to be tried again")
    assert not told.exists()
    away.rename(folder)
    (entry,) = [json.loads(line) for line in wait_until(lambda: lines_of(told), "the end")]
    assert (entry["event"], entry["picture"]) == (event, "sub/a.png")
    if event == "done":
        assert Path(entry["result_path"]) == site.outbox / "sub" / "a.png"
        assert entry["reused"] is False and entry["seconds"] == 0
    else:
        assert Path(entry["failed_path"]) == site.failed / "sub" / "a.png"
        assert entry["reason"]
    assert running.stop() == 0
    for line in lines_of(others):
        waiting = json.loads(line)
        assert set(waiting) == {"event", "time", "host", "message", "pictures", "reason", "when"}
        assert waiting["pictures"] == "sub/a.png"


def test_a_cron_run_tells_its_hooks_too(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["done"], "command": [*SCRIPT, str(told)]})
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    (line,) = lines_of(told)
    assert json.loads(line)["picture"] == "a.png"


def test_a_hook_that_hangs_is_killed_with_its_children_and_keeps_nothing_waiting(
    hooked: Callable[..., Site], tmp_path: Path
) -> None:
    told, others = tmp_path / "told", tmp_path / "others"
    hang = {"events": ["started"], "command": [*SCRIPT, str(told), "hang"], "timeout_seconds": 3, "attempts": 1}
    site = hooked(hang, {"events": ["done"], "command": [*SCRIPT, str(others)]})
    running = site.start()
    pids = [int(pid) for pid in wait_until(lambda: lines_of(told), "the hook to hang")[0].split()]
    site.drop("a.png", b"a picture")
    wait_until(lambda: lines_of(others), "the other hook to be told of the picture")
    wait_until(lambda: not any(alive(pid) for pid in pids), "the hook and its child to be killed")
    wait_until(lambda: "took too long and was killed" in running.log(), "the log to say it")
    assert running.stop() == 0


def test_what_a_hook_leaves_behind_with_its_output_open_is_ended(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["started"], "command": [*SCRIPT, str(told), "leave"]})
    running = site.start()
    child = int(wait_until(lambda: lines_of(told), "the hook")[0].split()[1])
    wait_until(lambda: not alive(child), "the child to be ended")
    assert running.stop() == 0
    assert "failed on" not in running.log()


def test_what_escapes_with_the_output_open_costs_the_watcher_nothing(tmp_path: Path) -> None:
    """A program that a hook starts for good, in a session of its own, cannot be found and killed."""
    told = tmp_path / "told"

    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = held()
    for _ in range(4):
        run_command([*SCRIPT, str(told), "escape"], b"{}\n", lambda: time.monotonic() + 30)
    pids = [int(line.split()[1]) for line in lines_of(told)]
    assert all(alive(pid) for pid in pids)
    wait_until(lambda: held() == before, "threads and pipes to be given back")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_what_escapes_without_reading_what_it_is_told_costs_the_watcher_nothing() -> None:
    """An event with the last words of an engine may be longer than what a pipe takes at once."""

    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = held()
    leave = "import subprocess, sys; subprocess.Popen(['sleep', '20'], stdout=2, start_new_session=True)"
    for _ in range(3):
        run_command([sys.executable, "-c", leave], b"x" * 300_000, lambda: time.monotonic() + 30)
    wait_until(lambda: held() == before, "threads and pipes to be given back", 10)


def test_a_long_event_arrives_whole(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run_command(["sh", "-c", f"sleep 0.5; cat > {told}"], b"x" * 300_000, lambda: time.monotonic() + 30)
    assert told.read_bytes() == b"x" * 300_000


def test_what_a_command_writes_disturbs_no_terminal(hooked: Callable[..., Site]) -> None:
    words = ["sh", "-c", r"printf 'red \033[31m\377\n'; exit 3"]
    running = hooked({"events": ["started"], "command": words, "attempts": 1}).start()
    wait_until(lambda: "ended with code 3: red \\x1b[31m\\xff" in running.log(), "the log to say it")
    assert running.stop() == 0


def test_a_cron_run_waits_for_hooks_that_are_slow(hooked: Callable[..., Site], tmp_path: Path) -> None:
    """Nobody asked it to stop: what a watcher that is stopped may give up is the rule here."""
    told = tmp_path / "told"
    site = hooked({"events": ["done"], "command": ["sh", "-c", f"sleep 0.9; cat >> {told}"]})
    for number in range(5):
        site.drop(f"{number}.png", f"picture {number}".encode())
    done = site.once()
    assert done.returncode == 0
    assert len(lines_of(told)) == 5, done.stderr


def test_a_cron_run_that_is_stopped_does_not_wait_for_its_hooks(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["done"], "command": [*SCRIPT, str(told), "hang"], "timeout_seconds": 3000})
    site.drop("a.png", b"a picture")
    running = site.start("once", ready=False)
    pids = [int(pid) for pid in wait_until(lambda: lines_of(told), "the hook to hang")[0].split()]
    assert running.stop(patience=30) == 0
    assert "failed on done: was given up, as the watcher stops" in running.log()
    assert not any(alive(pid) for pid in pids)


def test_a_hook_that_fails_is_tried_again_and_told_shortly(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["started"], "command": [*SCRIPT, str(told), "fail"], "attempts": 2})
    running = site.start()
    wait_until(lambda: len(lines_of(told)) == 2, "the second attempt")
    wait_until(lambda: len(re.findall("ended with code 3: the last line", running.log())) == 2, "the log to say it")
    assert "again in 1 s" in running.log()
    assert len(max(running.log().splitlines(), key=len)) < 500
    assert running.stop() == 0


def programs(folder: Path) -> dict[str, tuple[str, str]]:
    """Programs that cannot be started, each with what is to be said of it."""
    plain, gone = folder / "plain.sh", folder / "gone.sh"
    plain.write_text("#!/bin/sh\n")
    gone.write_text("#!/no/such/interpreter\n")
    gone.chmod(0o700)
    return {
        "no-such-program": ("no-such-program is not on the PATH (", "write its whole path"),
        str(folder / "none.sh"): (f"there is no {folder}/none.sh", "write its whole path"),
        str(plain): (f"{plain} is not executable by this user", f"chmod +x {plain}"),
        str(folder): (f"{folder} is a folder", "write the path of the program"),
        f"curl --data {SECRET} https://x/{SECRET}": ("curl ... is one word", "[program, argument, ...]"),
        str(gone): (f"{gone} names an interpreter in its first line that is not there", "correct that line"),
    }


@pytest.mark.parametrize("number", range(6))
def test_a_command_that_cannot_be_started_is_told_at_the_start_and_by_the_doctor(
    hooked: Callable[..., Site], tmp_path: Path, number: int
) -> None:
    """The first event may come after months, and be the one that matters."""
    program, (problem, remedy) = list(programs(tmp_path).items())[number]
    site = hooked({"events": ["inbox_gone"], "command": [program, SECRET], "attempts": 1})
    running = site.start()
    (line,) = [line for line in running.log().splitlines() if "on_event" in line]
    assert "warning: on_event.0: " in line and problem in line and remedy in line
    assert line.index("on_event") and running.log().index(line) < running.log().index("watching ")
    checks = {check["name"]: check for check in json.loads(site.run("doctor", "--json").stdout)}
    assert checks["on_event.0"]["verdict"] == "note"
    assert problem in checks["on_event.0"]["text"] and remedy in checks["on_event.0"]["text"]
    site.inbox.rmdir()
    wait_until(lambda: "on_event.0" in running.log().replace(line, "", 1), "the event")
    later = running.log().replace(line, "", 1)
    assert "failed on inbox_gone: cannot be started" in later and problem in later
    assert SECRET not in running.log() + site.run("doctor").stdout
    assert running.stop() == 0


def test_hooks_of_one_host_and_one_program_are_told_apart(hooked: Callable[..., Site], server: Server) -> None:
    server.answers = [500, 500]
    failing = {"events": ["started"], "command": ["false", SECRET], "attempts": 1}
    same = {"events": ["started"], "url": f"{server.url}/{SECRET}", "attempts": 1}
    running = hooked(same, failing, same, failing).start()
    names = [f"on_event.{number} ({what})" for number, what in enumerate((server.url, "false") * 2)]
    wait_until(lambda: all(f"warning: {name} failed on started" in running.log() for name in names), "all four")
    assert running.stop() == 0


def test_a_command_that_can_be_started_is_nothing_to_warn_of(hooked: Callable[..., Site], tmp_path: Path) -> None:
    here = tmp_path / "site" / "here.sh"
    site = hooked({"events": ["done"], "command": ["./here.sh"]}, {"events": ["done"], "command": ["true"]})
    here.write_text("#!/bin/sh\n")
    here.chmod(0o700)
    running = site.start()
    assert "on_event" not in running.log()
    checks = {check["name"]: check for check in json.loads(site.run("doctor", "--json").stdout)}
    assert {checks["on_event.0"]["verdict"], checks["on_event.1"]["verdict"]} == {"ok"}
    assert running.stop() == 0


# Webhooks


def test_a_webhook_is_told_again_until_it_accepts(hooked: Callable[..., Site], server: Server) -> None:
    server.answers = [503, 500]
    headers = {"Authorization": "Bearer ${HOOK_TOKEN}", "X-Site": "attic"}
    site = hooked({"events": ["done"], "url": f"{server.url}/in?key={SECRET}", "headers": headers})
    site.environment["HOOK_TOKEN"] = SECRET
    running = site.start("run", "--log-format", "json", "--verbose")
    site.drop("a.png", b"a picture")
    wait_until(lambda: len(server.requests) == 3, "the third attempt")
    assert running.stop() == 0
    path, sent, body = server.requests[-1]
    assert path == f"/in?key={SECRET}"
    assert (sent["Content-Type"], sent["Authorization"], sent["X-Site"]) == (
        "application/json",
        f"Bearer {SECRET}",
        "attic",
    )
    assert (body["event"], body["picture"]) == ("done", "a.png")
    assert [entry[2] for entry in server.requests] == [body] * 3
    assert f"on_event.0 ({server.url}) failed on done: the server answers 503" in running.log()
    assert SECRET not in running.log(), "it is a password"


def test_a_server_that_answers_byte_by_byte_has_no_more_time_than_any_other(
    hooked: Callable[..., Site],
) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening_socket:

        def trickle() -> None:
            connection, _ = listening_socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.1):
                    connection.sendall(b"X")

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listening_socket.getsockname()[1]}"
        site = hooked({"events": ["started"], "url": url, "timeout_seconds": 1, "attempts": 1})
        running = site.start()
        try:
            told = f"on_event.0 ({url}) failed on started: no answer in time"
            wait_until(lambda: told in running.log(), "it to be given up", 15)
        finally:
            over.set()
            thread.join()
        assert running.stop() == 0


def test_a_server_that_asks_for_time_gets_it(hooked: Callable[..., Site], server: Server) -> None:
    server.answers, server.retry_after = [429, 503], "2"
    running = hooked({"events": ["started"], "url": server.url}).start()
    wait_until(lambda: len(server.requests) == 3, "the third attempt")
    assert "the server answers 429 Too Many Requests; again in 2 s" in running.log()
    assert "the server answers 503 Service Unavailable; again in 2 s" in running.log()
    assert running.stop() == 0


def test_a_server_that_hangs_up_is_told_in_words(hooked: Callable[..., Site], server: Server) -> None:
    server.answers = ["hang up"]
    running = hooked({"events": ["started"], "url": server.url, "attempts": 1}).start()
    wait_until(lambda: "failed on started: the connection was closed before an answer" in running.log(), "the log")
    assert running.stop() == 0


def test_a_server_whose_certificate_nobody_vouches_for_is_told_nothing(
    hooked: Callable[..., Site], server: Server, tmp_path: Path
) -> None:
    server.encrypt(tmp_path)
    site = hooked({"events": ["started"], "url": f"{server.url}/{SECRET}", "attempts": 1})
    running = site.start()
    told = f"on_event.0 ({server.url}) failed on started: [SSL: CERTIFICATE_VERIFY_FAILED]"
    wait_until(lambda: told in running.log(), "the log to say it")
    assert running.stop() == 0
    assert server.requests == []
    assert SECRET not in running.log()


@pytest.mark.parametrize("url", ["https://h.example:http/x", "https://h.example/ü", "https://[::1/x"])
def test_an_address_that_is_none_is_told_at_the_start(hooked: Callable[..., Site], url: str) -> None:
    site = hooked({"events": ["inbox_gone"], "url": url, "attempts": 1})
    running = site.start()
    assert "warning: on_event.0: what is there for url is no address" in running.log()
    assert running.stop() == 0


def test_a_redirect_is_not_followed(hooked: Callable[..., Site], server: Server) -> None:
    server.answers, server.location = [302], f"{server.url}/elsewhere/{SECRET}"
    site = hooked({"events": ["started"], "url": f"{server.url}/in", "attempts": 1})
    running = site.start()
    wait_until(lambda: f"redirects to {server.url}, which is not followed" in running.log(), "the log to say it")
    assert running.stop() == 0
    assert [path for path, _, _ in server.requests] == ["/in"]
    assert SECRET not in running.log()


@pytest.mark.slow
def test_a_stop_waits_a_little_then_says_what_was_not_delivered(hooked: Callable[..., Site], server: Server) -> None:
    """The default timeout is longer than the drain: the limit is the drain's."""
    server.answers = ["hang"] * 20
    hooks = [{"events": ["started", "stopped"], "url": server.url, "timeout_seconds": 3000, "attempts": 20}]
    site = hooked(*hooks)
    running = site.start()
    wait_until(lambda: server.requests, "the first to be under way")
    assert running.stop() == 0
    assert re.search(rf"on_event.0 \({server.url}\): 2 events were not delivered before the stop", running.log())


def test_a_server_that_is_not_there_is_told_by_its_place(hooked: Callable[..., Site], server: Server) -> None:
    url = server.url
    server.close()
    site = hooked({"events": ["started"], "url": f"{url}/{SECRET}", "attempts": 1})
    running = site.start()
    wait_until(
        lambda: f"on_event.0 ({url}) failed on started: Connection refused" in running.log(), "the log to say it"
    )
    assert SECRET not in running.log()
    assert running.stop() == 0


# The queue


def test_events_that_find_no_room_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate, told = tmp_path / "gate", tmp_path / "told"
    words = ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; cat >> {told}"]
    hook = Hook(events=("done",), command=tuple(words), timeout_seconds=60)
    caplog.set_level(logging.INFO, "dropscale")
    hooks = Hooks([hook], {}, Tally(names([hook]), [], lambda _troubles: None))
    with listening(hooks.hear):
        for number in range(1005):
            tell("delivered", "{picture} -> {result}", picture=f"{number}.png", result="r.png")
    messages = [record.getMessage() for record in caplog.records]
    assert "on_event.0 (sh) is behind by 1000 events: further ones are dropped until it has caught up" in messages
    gate.touch()
    wait_until(lambda: "on_event.0 (sh): 5 events were dropped" in caplog.text, "it to catch up")
    hooks.close()
    assert len(lines_of(told)) == 1000
    assert "not delivered" not in caplog.text


def test_a_listener_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: str, _text: str, _fields: Any) -> None:
        raise ValueError(event)

    heard: list[str] = []
    with listening(broken), listening(lambda event, _text, _fields: heard.append(event)):
        tell("quiet", "below the level of the log", level=logging.DEBUG)
    tell("later", "nobody listens any more", level=logging.DEBUG)
    assert heard == ["quiet"]
    assert "a listener failed on quiet: ValueError: quiet" in caplog.text


# What is to be seen of them


def test_a_hook_that_failed_for_good_is_seen_in_status_until_an_event_reaches_it(
    hooked: Callable[..., Site], server: Server, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    hooks = [
        {"events": ["done"], "command": [*SCRIPT, str(told)]},
        {"events": ["done", "started"], "url": f"{server.url}/{SECRET}", "attempts": 1},
    ]
    site = hooked(*hooks)
    server.answers = [204, 500, 503]
    running = site.start()
    wait_until(lambda: server.requests, "the start to be told")
    assert site.status()["hooks"] == []
    site.drop("a.png", b"a picture")
    wait_until(lambda: site.status()["hooks"], "the first failure")
    site.drop("b.png", b"b picture")
    (trouble,) = wait_until(lambda: (now := site.status()["hooks"]) and now[0]["events"] == 2 and now, "the second")
    assert trouble["hook"] == f"on_event.1 ({server.url})"
    assert (trouble["event"], trouble["problem"]) == ("done", "the server answers 503 Service Unavailable")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", trouble["since"])
    line = f"PROBLEM   on_event.1 ({server.url}): 2 events not delivered since "
    shown = site.run("status").stdout
    assert line in shown and "the last, done: the server answers 503 Service Unavailable" in shown
    assert SECRET not in shown
    assert running.stop() == 0
    assert line in site.run("status").stdout, "who looks later is to see it, too"
    running = site.start()
    wait_until(lambda: site.status()["hooks"] == [], "the event that reaches it to end that")
    assert running.stop() == 0


def test_the_trouble_of_a_hook_that_is_configured_no_more_is_forgotten(hooked: Callable[..., Site]) -> None:
    site = hooked({"events": ["done"], "command": ["false"], "attempts": 1})
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    assert site.status()["hooks"][0]["problem"] == "ended with code 1"
    assert site.once().returncode == 0
    assert site.status()["hooks"], "a run without events proves nothing"
    site.configure(**HASTY_STUB)
    assert site.once().returncode == 0
    assert site.status()["hooks"] == []


# What is refused

BAD = {
    "neither": ({"events": ["done"]}, "on_event.0: one of command and url is needed"),
    "both": ({"events": ["done"], "command": ["a"], "url": "https://x"}, "and only one"),
    "no events": ({"command": ["a"]}, "events is missing"),
    "unknown event": ({"events": ["dnoe"], "command": ["a"]}, "on_event.0.events: ['dnoe'] is not allowed"),
    "unknown key": ({"events": ["done"], "cmd": ["a"]}, "on_event.0.cmd: unknown key"),
    "another scheme": ({"events": ["done"], "url": f"file:///{SECRET}"}, "on_event.0.url: what is there"),
    "a password in the address": ({"events": ["done"], "url": f"https://u:{SECRET}@x"}, "those go into headers"),
    "headers as a text": ({"events": ["done"], "url": "https://x", "headers": SECRET}, "on_event.0.headers: what is"),
    "a second line in a header": (
        {"events": ["done"], "url": "https://x", "headers": {"A": f"b\r\n{SECRET}"}},
        "on_event.0.headers: what is there",
    ),
    "a variable that is not set": (
        {"events": ["done"], "url": "https://x", "headers": {"A": "${NOT_THERE}"}},
        "the environment variable NOT_THERE, which a header names, is not set",
    ),
    "a text": (f"https://{SECRET}", "on_event.0: what is there is not allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_hook_is_refused_without_repeating_secrets(hooked: Callable[..., Site], name: str) -> None:
    hook, expected = BAD[name]
    message = complaint(hooked(hook).run("run"), 2)
    assert expected in message
    assert SECRET not in message


def test_a_reload_loses_no_event_of_a_hook_that_stays_as_it_was(hooked: Callable[..., Site], tmp_path: Path) -> None:
    """It may be far behind, and take its time for each event."""
    gate, told = tmp_path / "gate", tmp_path / "told"
    words = ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; cat >> {told}"]
    hooks = [{"events": ["done"], "command": words, "timeout_seconds": 60}]
    site = hooked(*hooks)
    running = site.start()
    for name in "abc":
        site.drop(f"{name}.png", f"picture {name}".encode())
    wait_until(lambda: len(site.names(site.archive)) == 3, "the pictures")
    site.configure(**HASTY_STUB, on_event=hooks, cost={"per_hour": 2})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.log().count("watching ") == 2, "the new config")
    gate.touch()
    wait_until(lambda: len(lines_of(told)) == 3, "the events from before")
    site.drop("d.png", b"picture d")
    wait_until(lambda: len(lines_of(told)) == 4, "the event from after it")
    assert running.stop() == 0
    assert "on_event" not in running.log()


def test_a_reload_that_is_refused_leaves_the_hooks_as_they_were(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["done"], "command": [*SCRIPT, str(told)]})
    running = site.start()
    site.configure(**HASTY_STUB, on_event=[{**BAD["a variable that is not set"][0]}])  # type: ignore[dict-item]
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the config stays as it was" in running.log(), "the refusal")
    site.drop("a.png", b"a picture")
    wait_until(lambda: lines_of(told), "the old hook")
    site.configure(**HASTY_STUB, on_event=[])
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.log().count("watching ") == 2, "the new config")
    site.drop("b.png", b"another")
    wait_until(lambda: "b.png" in site.names(site.archive), "the picture")
    assert running.stop() == 0
    assert len(lines_of(told)) == 1


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://h.example/a/b?c", "https://h.example"),
        ("http://h:80", "http://h:80"),
        ("https://h?secret", "https://h"),
        ("https://[::1]:8/x", "https://[::1]:8"),
    ],
)
def test_of_an_address_only_its_place_is_shown(url: str, place: str) -> None:
    assert place_of(url) == place


def test_the_page_lists_each_event_with_what_is_sent(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    page = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8").split("## Hooks")[1]
    rows = re.findall(r"^\| ([^|]*`) \|[^|]*\|([^|]*)\|$", page, re.M)
    fields = {event: set(re.findall(r"`(\w+)`", row[1])) for row in rows for event in re.findall(r"`(\w+)`", row[0])}
    assert set(fields) == set(get_args(HookEvent))
    site = hooked({"events": sorted(fields), "command": [*SCRIPT, str(told)]})
    running = site.start()
    for number, words in enumerate(("a picture", "UNSUPPORTED", "DISKFULL", "CRASH")):
        site.drop(f"{number}.png", words.encode())
    expected = {"started", "done", "failed", "waiting", "batch", "engine_trouble", "stopped"}

    def events() -> dict[str, set[str]]:
        return {(entry := json.loads(line))["event"]: set(entry) for line in lines_of(told)}

    wait_until(lambda: expected - set(events()) == {"stopped"}, "all of them")
    assert running.stop() == 0
    common = {"event", "time", "host", "message"}
    for event, found in events().items():
        assert fields[event] <= found or event in ("stopped", "engine_trouble"), event
        assert found - common <= fields[event] | {"stderr"}, event


def test_that_a_warm_engine_is_lost_is_trouble_with_the_engine(make_site: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    hooks = [{"events": ["engine_trouble"], "command": [*SCRIPT, str(told)]}]
    engine = {**HASTY_STUB["engine"], "keep_warm_seconds": 600}
    site = make_site(**{**HASTY_STUB, "engine": engine}, on_event=hooks)
    running = site.start()
    site.drop("a.png", b"a picture")
    wait_until(lambda: "the engine is kept warm" in running.log(), "it to be kept")
    os.kill(site.status()["engine"]["process"], signal.SIGKILL)
    (entry,) = [json.loads(line) for line in wait_until(lambda: lines_of(told), "the hook")]
    assert running.stop() == 0
    assert entry["event"] == "engine_trouble" and "SIGKILL" in entry["reason"]


def test_pictures_that_wait_for_the_hour_are_told_as_budget(make_site: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    begin, end = (time.strftime("%H:%M", time.localtime(time.time() + hours * 3600)) for hours in (-1, 2))
    hooks = [{"events": ["budget"], "command": [*SCRIPT, str(told)]}]
    site = make_site(**HASTY_STUB, budget={"quiet_hours": [f"{begin}-{end}"]}, on_event=hooks)
    running = site.start()
    site.drop("a.png", b"a picture")
    entry = json.loads(wait_until(lambda: lines_of(told), "the hook")[0])
    assert entry["event"] == "budget" and "pictures wait until" in entry["message"]
    assert running.stop() == 0


def test_an_inbox_whose_name_is_no_text_is_told_as_any_other(make_site: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    hooks = [{"events": ["inbox_gone", "inbox_back"], "command": [*SCRIPT, str(told)]}]
    site = make_site("odd\udcff\x1b", **HASTY_STUB, on_event=hooks)
    running = site.start("run", "--log-format", "json")
    away = site.root / "away"
    site.inbox.rename(away)
    wait_until(lambda: lines_of(told), "the inbox to be gone")
    away.rename(site.inbox)
    wait_until(lambda: len(lines_of(told)) == 2, "it to be back")
    site.outbox.rmdir()
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the config stays as it was: folders.outbox" in running.log(), "the refusal")
    assert running.stop() == 0
    gone, back = (json.loads(line) for line in lines_of(told))
    assert (gone["event"], back["event"]) == ("inbox_gone", "inbox_back")
    assert "odd\\xff\\x1b/inbox" in gone["inbox"] == back["inbox"]
    assert "a listener failed" not in running.log()
