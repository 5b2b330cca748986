"""Every command as a user, a script or cron types it: what it prints, what it leaves alone, how it exits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from harness import QUICK, ROOT, STUB_ENGINE, Site, complaint, dropscale, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}
COMMANDS = ["init", "run", "once", "status", "retry", "upscale", "doctor"]


# Help and init


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_what_a_command_does(tmp_path: Path, name: str) -> None:
    done = dropscale(tmp_path, name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: dropscale " + name)
    assert len(done.stdout.splitlines()) > 4
    assert not list(tmp_path.iterdir())


def test_the_help_lists_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    done = dropscale(tmp_path, "--help")
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert "Exit codes: 0 done, 1 some pictures failed, 2 usage or config, 3 environment" in done.stdout


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--frobnicate"], ["upscale"], ["upscale", "x.png"]])
def test_a_wrong_command_line_exits_2(tmp_path: Path, arguments: list[str]) -> None:
    done = dropscale(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Usage: dropscale" in done.stderr


def test_init_writes_the_default_config_and_creates_what_the_commands_need(tmp_path: Path) -> None:
    done = dropscale(tmp_path, "init", "photos")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "photos"
    assert (made / "config.yaml").read_text() == (ROOT / "config.yaml").read_text()
    assert {path.name for path in made.iterdir()} == {
        *("config.yaml", "inbox", "outbox", "archive", "failed", ".dropscale"),
    }
    assert dropscale(made, "once").returncode == 0
    assert dropscale(made, "status").returncode == 0


def test_init_writes_the_settings_that_it_is_given_among_the_comments(tmp_path: Path) -> None:
    given = ["--set", "folders.state=elsewhere", "--set", "web.port=8444", "--set", "executor=local"]
    assert dropscale(tmp_path, "init", "site", *given).returncode == 0
    written = (tmp_path / "site" / "config.yaml").read_text()
    before, after = (text.splitlines() for text in ((ROOT / "config.yaml").read_text(), written))
    changed = [line for old, line in zip(before, after, strict=True) if old != line]
    assert [line.split("#")[0].strip() for line in changed] == ["state: elsewhere", "port: 8444"]
    assert all("# " in line for line in changed)
    assert (tmp_path / "site" / "elsewhere" / "ledger.sqlite3").exists()
    assert "set these keys there" in complaint(dropscale(tmp_path, "init", "site", *given), 2)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("port=1", "port is no key of the config"),
        ("folders.stat=x", "folders.stat is no key"),
        ("folders.state", "KEY=VALUE is needed"),
        ("web.port=many", "web.port: 'many' is not allowed"),
        ("folders.state=[", "is not YAML"),
    ],
)
def test_init_with_a_setting_that_is_none_writes_nothing(tmp_path: Path, setting: str, told: str) -> None:
    assert told in complaint(dropscale(tmp_path, "init", "site", "--set", setting), 2)
    assert not (tmp_path / "site" / "config.yaml").exists()


def test_init_into_what_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for name in ("taken", "taken/below"):
        assert f"{name} is no folder" in complaint(dropscale(tmp_path, "init", name), 2)


def test_init_tells_of_settings_that_it_takes_from_an_edited_checkout(tmp_path: Path) -> None:
    """Who edited the config of a checkout has addresses and tokens in it, and may not want them elsewhere."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("watcher", "sr_engine", "models"):
        (checkout / name).symlink_to(ROOT / name)
    text = (ROOT / "config.yaml").read_text()
    assert "on_event: []" in text
    (checkout / "config.yaml").write_text(text.replace("on_event: []", "on_event: [{events: [done], command: [say]}]"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from watcher.cli import main; main()", "init", "photos"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"your settings from {checkout}/config.yaml, not the defaults, in: on_event" in done.stdout


def test_a_command_that_is_none_is_told_with_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'status'?" in dropscale(tmp_path, "staus").stderr
    assert "Did you mean" not in dropscale(tmp_path, "nonsense").stderr


def test_init_again_changes_nothing(tmp_path: Path) -> None:
    dropscale(tmp_path, "init")
    (tmp_path / "config.yaml").write_text("folders: {inbox: elsewhere}  # mine\n")
    (tmp_path / "inbox" / "a.png").write_bytes(photo(1))
    done = dropscale(tmp_path, "init")
    assert done.returncode == 0
    assert "stays as it is" in done.stdout
    assert (tmp_path / "config.yaml").read_text() == "folders: {inbox: elsewhere}  # mine\n"
    assert (tmp_path / "inbox" / "a.png").read_bytes() == photo(1)
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.parametrize("name", ["run", "once", "status", "retry", "doctor"])
def test_without_a_config_a_command_says_how_to_get_one(tmp_path: Path, name: str) -> None:
    text = complaint(dropscale(tmp_path, name), 2)
    assert "there is no config.yaml" in text
    assert "dropscale init" in text
    assert not list(tmp_path.iterdir())


def test_the_config_can_be_named_by_the_environment(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(engine=STUB)
    site.drop("a.png", photo(1))
    assert dropscale(tmp_path, "once", DROPSCALE_CONFIG=str(site.config_path)).returncode == 0
    assert site.names(site.archive) == {"a.png"}


# Status


def test_status_tells_what_waits_what_is_ignored_what_failed_and_what_was_done(stub_site: Site) -> None:
    site = stub_site
    site.drop("bad.png", b"UNSUPPORTED")
    site.drop("done.png", photo(1))
    site.once()
    site.drop("new.png", photo(2))
    site.drop("notes.txt", b"")
    report = site.status()
    assert report["running"] is False
    assert [(entry["path"], entry["why"]) for entry in report["waiting"]] == [
        ("new.png", "no watcher is running: start `dropscale run` or `dropscale once`")
    ]
    assert [entry["path"] for entry in report["ignored"]] == ["notes.txt"]
    assert [(entry["path"], entry["why"]) for entry in report["failed"]] == [
        ("bad.png", "such pictures are not handled")
    ]
    assert report["totals"] == {"done": 1, "reused": 0, "failed": 1}
    plain = site.run("status").stdout
    for part in ("not running", "waiting   1", "new.png: ", "notes.txt: ", "bad.png: such", "1 done"):
        assert part in plain


def test_status_tells_what_is_in_work_and_how_the_watcher_is(stub_site: Site) -> None:
    site = stub_site
    running = site.start()
    site.drop("slow.png", b"SLOW 3")
    wait_until(lambda: "engine ready" in running.log(), "the engine")
    report = site.status()
    assert report["running"] is True
    assert [(entry["path"], entry["state"]) for entry in report["working"]] == [("slow.png", "claimed")]
    assert report["waiting"] == []
    assert report["watcher"]["pid"] == running.pid
    assert report["watcher"]["watching"] == "yes"
    assert report["watcher"]["backend"].startswith("native events")
    assert abs(datetime.fromisoformat(report["watcher"]["last_reconcile"]).timestamp() - time.time()) < 60
    assert f"running (process {running.pid})" in site.run("status").stdout


def test_status_before_anything_was_done_and_of_a_missing_inbox(make_site: Callable[..., Site]) -> None:
    site = make_site()
    report = site.status()
    assert report["totals"] == {"done": 0, "reused": 0, "failed": 0}
    assert report["problems"] == []
    site.inbox.rmdir()
    (problem,) = site.status()["problems"]
    assert "folders.inbox" in problem
    assert "PROBLEM   folders.inbox" in site.run("status").stdout


# One watcher at a time


def test_a_second_watcher_names_the_first_and_exits_0(stub_site: Site) -> None:
    running = stub_site.start()
    others = [stub_site.start(verb, ready=False) for verb in ("run", "once")]
    for other in others:
        assert other.process.wait(20) == 0
        (line,) = other.log().splitlines()
        assert f"another watcher is at work: process {running.pid} on " in line
    assert running.process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that the kernel frees")
def test_a_watcher_with_another_state_folder_is_refused_and_told_of(stub_site: Site, tmp_path: Path) -> None:
    """As where a service has its state in /var/lib, and somebody types the command beside it."""
    stranger = "the watcher of this inbox has another state folder: give folders.state as it has it"
    running = stub_site.start()
    own = dict(stub_site.environment)
    stub_site.environment["DROPSCALE_FOLDERS__STATE"] = str(tmp_path / "another")
    for name in ("run", "once"):
        refused = complaint(stub_site.run(name), 3)
        assert f"another watcher has {stub_site.inbox}, with a state folder of its own" in refused
    assert stub_site.status()["problems"] == [stranger]
    assert stub_site.run("health").stdout == f"unhealthy: {stranger}\n"
    assert stranger in complaint(stub_site.run("warm", "--for", "1m"), 3)
    running.kill()
    stub_site.drop("a.png", b"picture")
    assert stub_site.status()["problems"] == []
    assert stub_site.run("once").returncode == 0, "a kill leaves nothing behind"
    stub_site.environment.clear()
    stub_site.environment.update(own)
    assert stub_site.run("once").returncode == 0


def test_a_reload_moves_to_no_inbox_that_another_watcher_has(make_site: Callable[..., Site]) -> None:
    first, second = make_site("first", engine=STUB), make_site("second", engine=STUB)
    first.start()
    running = second.start()
    second.configure(engine=STUB, folders={"inbox": str(first.inbox)})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: f"the config stays as it was: another watcher has {first.inbox}" in running.log(), "the refusal")
    third = second.root / "third"
    third.mkdir()
    second.configure(engine=STUB, folders={"inbox": str(third)})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: f"watching {third}" in running.log(), "the new inbox")
    second.configure(engine=STUB, folders={"state": "elsewhere"})
    assert second.run("once").returncode == 0, "the inbox that it left is free"


def test_ten_starts_of_once_at_the_same_time_deliver_each_picture_once(stub_site: Site) -> None:
    """Cron overlaps are normal: every one exits 0."""
    site = stub_site
    pictures = {f"{number}.png": photo(number, 8, 8) for number in range(20)}
    for name, data in pictures.items():
        site.drop(name, data)
    starts = [site.start("once", ready=False) for _ in range(10)]
    for start in starts:
        assert start.process.wait(60) == 0, start.log()
    assert site.files(site.archive) == pictures
    assert site.files(site.outbox) == {name: stub_result(data) for name, data in pictures.items()}
    assert sum(site.upscaled()) == 20


OPEN_THE_LEDGER = """
import sys, time
from watcher.ledger import Ledger
print("here", flush=True)
moment = float(sys.stdin.readline())
while time.time() < moment:
    pass
Ledger(sys.argv[1]).close()
"""


def test_several_processes_may_create_the_ledger_in_the_same_moment(tmp_path: Path) -> None:
    """As `once` and `status` of two cron lines at the very first minute."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        arguments = [sys.executable, "-c", OPEN_THE_LEDGER, str(folder)]
        pipe = subprocess.PIPE
        processes = [
            subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) for _ in range(5)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
        moment = f"{time.time() + 0.1}\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(moment)
            process.stdin.flush()
        for process in processes:
            _, complaints = process.communicate(timeout=60)
            assert process.returncode == 0, complaints


# Logs


def test_json_logs_are_one_object_with_an_event_a_line(make_site: Callable[..., Site]) -> None:
    site = make_site(engine={**QUICK["engine"], **STUB, "attempts": 1})
    running = site.start("run", "--log-format", "json")
    for number, data in enumerate([photo(1), photo(1), b"UNSUPPORTED", b"CRASH", b"DISKFULL", b"UNDECODABLE"]):
        site.drop(f"{number}.png", data)
    wait_until(lambda: "5.png" in site.names(site.failed), "the last to end")
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"reload"' in running.log(), "the reload")
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.log().splitlines()]
    assert all({"time", "level", "event", "message"} <= set(line) for line in lines)
    events = {line["event"] for line in lines}
    assert events >= {
        *("model", "watching", "window", "engine_started", "engine_ready", "engine_trouble", "engine_ended"),
        *("delivered", "failed", "waiting", "incomplete", "reload", "goodbye"),
    }
    assert "dropscale" not in events, "a line without an event of its own"


def test_run_says_at_its_start_what_it_watches_how_and_with_which_model(make_site: Callable[..., Site]) -> None:
    """And, in a synced folder, that archiving deletes on the other devices."""
    site = make_site(engine=STUB)
    (site.inbox / ".stfolder").mkdir()
    running = site.start()
    log = running.log()
    assert f"watching {site.inbox}: native events" in log
    assert "edsr-lite-x3" in log
    assert "warning: the inbox seems to be synced by Syncthing" in log
    assert "deletes it from the inbox on every other device" in log
