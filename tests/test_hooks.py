"""`on_event`: real commands and real servers that fail, hang, redirect and come back, told by real watchers."""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from harness import HASTY_STUB, ROOT, Site, complaint, wait_until

from watcher.hook_calls import place_of
from watcher.hooks import Hooks
from watcher.journal import listening, tell
from watcher.sections import Folders, Hook, HookEvent

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
        self.location = ""
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
                answer = outer.answers.pop(0) if outer.answers else 204
                if answer == "hang":
                    outer.requests.append((self.path, dict(self.headers), body))
                    outer.over.wait(60)
                    return
                self.send_response(int(answer))
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
    assert (failed["picture"], Path(failed["folder"])) == ("bad.png", site.failed / "bad.png")
    assert failed["reason"]
    assert sum(entry.get("delivered", 0) for entry in found) == 1
    for entry in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", entry["time"])
        assert entry["message"] and entry["host"]


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


def test_a_hook_that_fails_is_tried_again_and_told_shortly(hooked: Callable[..., Site], tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = hooked({"events": ["started"], "command": [*SCRIPT, str(told), "fail"], "attempts": 2})
    running = site.start()
    wait_until(lambda: len(lines_of(told)) == 2, "the second attempt")
    wait_until(lambda: len(re.findall("ended with code 3", running.log())) == 2, "the log to say it")
    assert "again in 1 s" in running.log()
    assert len(max(running.log().splitlines(), key=len)) < 500
    assert running.stop() == 0


def test_a_command_that_is_not_there_is_told(hooked: Callable[..., Site]) -> None:
    site = hooked({"events": ["started"], "command": ["no-such-program", SECRET], "attempts": 1})
    running = site.start()
    wait_until(lambda: "the hook no-such-program failed on started: cannot be started" in running.log(), "the log")
    assert SECRET not in running.log()
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
    assert f"the hook {server.url} failed on done: the server answers 503" in running.log()
    assert SECRET not in running.log(), "it is a password"


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
    assert re.search(rf"the hook {server.url}: 2 events were not delivered before the stop", running.log())


def test_a_server_that_is_not_there_is_told_by_its_place(hooked: Callable[..., Site], server: Server) -> None:
    url = server.url
    server.close()
    site = hooked({"events": ["started"], "url": f"{url}/{SECRET}", "attempts": 1})
    running = site.start()
    wait_until(lambda: f"the hook {url} failed on started: Connection refused" in running.log(), "the log to say it")
    assert SECRET not in running.log()
    assert running.stop() == 0


# The queue


def test_events_that_find_no_room_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate, told = tmp_path / "gate", tmp_path / "told"
    words = ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; cat >> {told}"]
    hook = Hook(events=("done",), command=tuple(words), timeout_seconds=60)
    caplog.set_level(logging.INFO, "dropscale")
    hooks = Hooks([hook], Folders(outbox="/out"), {})
    with listening(hooks.hear):
        for number in range(1005):
            tell("delivered", "{picture} -> {result}", picture=f"{number}.png", result="r.png")
    messages = [record.getMessage() for record in caplog.records]
    assert "the hook sh is behind by 1000 events: further ones are dropped until it has caught up" in messages
    gate.touch()
    wait_until(lambda: "the hook sh: 5 events were dropped" in caplog.text, "it to catch up")
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
