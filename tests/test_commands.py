"""Every command as a user, a script or cron types it: what it prints, what it leaves alone, how it exits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from harness import QUICK, ROOT, STUB_ENGINE, Site, command, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}
COMMANDS = ["init", "run", "once", "status", "retry", "upscale", "doctor"]


def dropscale(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The bare command in a folder, without a config unless there is one."""
    done = subprocess.run(
        [command(), *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def complaint(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one message of a command that refused: its first line says what, perhaps with a remedy below."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("dropscale: ")
    assert sum(line.startswith("dropscale: ") for line in lines) == 1
    return done.stderr


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dropscale upscale` without a watcher remembers things in the user's cache, which is not for tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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


# Upscale


def test_upscale_needs_no_config_and_leaves_the_originals(tmp_path: Path) -> None:
    data = photo(1, 40, 30)
    (tmp_path / "a.png").write_bytes(data)
    done = dropscale(tmp_path, "upscale", "a.png", "-o", "new/results")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes() == data
    result = np.frombuffer((tmp_path / "new/results/a.png").read_bytes(), np.uint8)
    assert cv2.imdecode(result, cv2.IMREAD_COLOR).shape == (90, 120, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "new"}
    assert {path.name for path in (tmp_path / "new/results").iterdir()} == {"a.png"}


def test_upscale_heeds_the_environment_without_a_config(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(1, 8, 8))
    done = dropscale(tmp_path, "upscale", "a.png", "-o", "results", DROPSCALE_OUTPUT__FORMAT="jpeg")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.jpg"]
    done = dropscale(tmp_path, "upscale", "a.png", "-o", "results", DROPSCALE_OUTPUT__FORMAT="psd")
    assert "output.format: 'psd' is not allowed" in complaint(done, 2)


def test_upscale_overwrites_nothing_not_even_its_own_original(stub_site: Site) -> None:
    site = stub_site
    folder = site.root / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / "a.png").write_bytes(photo(1))
    (folder / "below" / "a.png").write_bytes(photo(2))
    for _ in range(2):
        done = site.run("upscale", "photos/a.png", "photos/below/a.png", "-o", "photos")
        assert done.returncode == 0, done.stderr
    files = site.files(folder)
    assert files.pop("a.png") == photo(1)
    assert files.pop("below/a.png") == photo(2)
    assert sorted(files.values()) == sorted([stub_result(photo(1)), stub_result(photo(2))] * 2)


def test_upscale_tells_of_a_bad_file_and_does_the_others(stub_site: Site) -> None:
    site = stub_site
    for name, data in {
        "good.png": photo(1),
        "bad.png": b"UNSUPPORTED",
        "crash.png": b"CRASH",
        "b.png": photo(2),
    }.items():
        (site.root / name).write_bytes(data)
    done = site.run("upscale", "good.png", "bad.png", "crash.png", "missing.png", "b.png", "-o", "results")
    assert done.returncode == 1
    assert site.files(site.root / "results") == {"good.png": stub_result(photo(1)), "b.png": stub_result(photo(2))}
    for name in ("bad.png", "crash.png", "missing.png"):
        (line,) = (line for line in done.stderr.splitlines() if f"{name}: " in line)
        assert "warning" in line
    assert (site.root / "crash.png").read_bytes() == b"CRASH"


@pytest.mark.parametrize("ill", ["UNUSABLE", "NOSTART"])
def test_upscale_with_an_engine_that_cannot_work_exits_3(stub_site: Site, ill: str) -> None:
    (stub_site.root / "a.png").write_bytes(photo(1))
    stub_site.environment["STUB"] = ill
    complaint(stub_site.run("upscale", "a.png", "-o", "results"), 3)
    assert not list((stub_site.root / "results").iterdir())


def test_upscale_into_a_file_exits_3(stub_site: Site) -> None:
    (stub_site.root / "a.png").write_bytes(photo(1))
    (stub_site.root / "results").write_text("a file")
    assert "results" in complaint(stub_site.run("upscale", "a.png", "-o", "results"), 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_upscale_leaves_whole_results_only(stub_site: Site, number: signal.Signals) -> None:
    site = stub_site
    (site.root / "a.png").write_bytes(photo(1))
    (site.root / "slow.png").write_bytes(b"SLOW 40")
    running = site.start("upscale", "a.png", "slow.png", "-o", "results", ready=False)
    wait_until((site.root / "results" / "a.png").exists, "the first result")
    assert running.stop(number, patience=15) == 128 + number
    wait_until(lambda: not site.engines(), "the engine to be gone", 5)
    assert site.files(site.root / "results") == {"a.png": stub_result(photo(1))}
    assert [path.name for path in (site.root / "results").iterdir()] == ["a.png"]


# Bad configs

BAD_CONFIGS: dict[str, tuple[str, list[str]]] = {
    "unknown key": ("watch: {settle_second: 3}", ["watch.settle_second", "did you mean settle_seconds?"]),
    "unknown section": ("wacth: {}", ["wacth", "did you mean watch?"]),
    "wrong type": ("window: {max_files: many}", ["window.max_files", "'many'", "a whole number from 1 to 100000"]),
    "not positive": ("watch: {settle_seconds: 0}", ["watch.settle_seconds", "0", "greater than 0"]),
    "not a number": ("watch: {settle_seconds: .nan}", ["watch.settle_seconds", "nan", "a number of seconds"]),
    "infinite": ("watch: {settle_seconds: .inf}", ["watch.settle_seconds", "inf", "a number of seconds"]),
    "wrong choice": ("output: {format: psd}", ["output.format", "'psd'", "one of same, jpeg, png, webp, tiff, bmp"]),
    "no such device": ("engine: {device: tpu}", ["engine.device", "'tpu'", "one of auto, cpu, gpu, npu, cuda"]),
    "section is a text": ("watch: soon", ["watch", "'soon'", "a section"]),
    "empty ignore pattern": ("watch: {ignore: ['']}", ["watch.ignore", "names nothing"]),
    "broken ignore pattern": ("watch: {ignore: ['[z-a]']}", ["watch.ignore", "[z-a]"]),
    "ignore is a text": ("watch: {ignore: '*.bak'}", ["watch.ignore", "'*.bak'", "a list of patterns"]),
    "a list": ("- inbox", ["config.yaml", "['inbox']", "keys such as"]),
    "no YAML": ("watch: {", ["config.yaml", "is not YAML"]),
    "inbox inside outbox": ("folders: {inbox: outbox/new}", ["folders.inbox", "lies inside folders.outbox"]),
    "archive is the inbox": ("folders: {archive: inbox}", ["folders.", "is the same folder as folders."]),
    "state inside inbox": ("folders: {state: inbox/.dropscale}", ["folders.state", "lies inside folders.inbox"]),
    "empty folder": ("folders: {inbox: ''}", ["folders.inbox", "''", "not empty"]),
    "zero byte in a folder": ('folders: {inbox: "a\\0b"}', ["folders.inbox"]),
    "missing model": ("engine: {model: edsr-x99}", ["engine.model", "'edsr-x99'", "edsr-lite-x3"]),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_refused_in_one_message_with_key_value_and_what_is_allowed(
    make_site: Callable[..., Site], name: str
) -> None:
    text, parts = BAD_CONFIGS[name]
    site = make_site()
    site.config_path.write_text(text + "\n")
    message = complaint(site.once(), 2)
    for part in parts:
        assert part in message
    assert len(message.splitlines()) <= 6


def test_all_mistakes_are_told_at_once(site: Site) -> None:
    site.config_path.write_text(
        "watch: {settle_seconds: -1, recursive: 7}\nwindow: {max_files: 0}\noutput: {fromat: png}\n"
    )
    message = complaint(site.once(), 2)
    for key in ("watch.settle_seconds", "watch.recursive", "window.max_files", "output.fromat"):
        assert key in message


def test_a_folder_that_is_missing_or_a_file_is_an_environment_fault(site: Site) -> None:
    site.inbox.rmdir()
    message = complaint(site.once(), 3)
    assert "folders.inbox" in message
    assert str(site.inbox) in message
    site.inbox.mkdir()
    site.archive.rmdir()
    site.archive.write_text("a file")
    message = complaint(site.run("run"), 3)
    assert "folders.archive" in message
    site.archive.unlink()
    site.archive.mkdir()
    site.state.write_text("a file")
    assert "folders.state" in complaint(site.once(), 3)


def test_a_damaged_ledger_is_told_with_the_remedy(stub_site: Site) -> None:
    site = stub_site
    site.state.mkdir()
    (site.state / "ledger.sqlite3").write_bytes(b"not a database, " * 300)
    site.drop("a.png", photo(1))
    for name in ("once", "status", "retry"):
        message = complaint(site.run(name), 3)
        assert "cannot open the ledger" in message
    assert "move the state folder away" in message
    assert site.files(site.inbox) == {"a.png": photo(1)}


def test_a_model_that_is_not_the_one_of_the_manifest_is_refused(make_site: Callable[..., Site]) -> None:
    site = make_site()
    folder = site.root / "models"
    shutil.copytree(ROOT / "models", folder, ignore=shutil.ignore_patterns("training"))
    site.configure(engine={"models_folder": str(folder)})
    site.drop("a.png", photo(1, 8, 8))
    assert site.once().returncode == 0, "the copy itself has to be good"
    (weights,) = folder.glob("*.onnx")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    message = complaint(site.once(), 3)
    assert str(weights) in message
    assert "is not the file that the manifest names" in message
    weights.unlink()
    assert str(weights) in complaint(site.once(), 3)
    (folder / "models.yaml").write_text("models: [1]")
    assert "models.yaml is broken" in complaint(site.once(), 3)
    shutil.rmtree(folder)
    assert str(folder) in complaint(site.once(), 3)


def test_the_environment_overrides_the_config(stub_site: Site) -> None:
    site = stub_site
    site.environment |= {
        "DROPSCALE_FOLDERS__INBOX": "other",
        "DROPSCALE_WATCH__SETTLE_SECONDS": "0.1",
        "DROPSCALE_WATCH__IGNORE": "['b*']",
    }
    (site.root / "other").mkdir()
    (site.root / "other" / "a.png").write_bytes(photo(1))
    (site.root / "other" / "b.png").write_bytes(photo(2))
    assert site.once().returncode == 0
    assert site.names(site.archive) == {"a.png"}


def test_the_environment_fills_a_section_that_the_config_leaves_empty(site: Site) -> None:
    """As when every key of it is commented out."""
    site.config_path.write_text("folders: {state: state}\nwatch:\n  # backend: auto\nwindow:\n")
    site.environment["DROPSCALE_WATCH__SETTLE_SECONDS"] = "0.1"
    done = site.once()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("DROPSCALE_WINDOW__QUIET_SECONDS", "soon", ["window.quiet_seconds", "'soon'", "a number of seconds"]),
        ("DROPSCALE_WINDOW__QUITE_SECONDS", "1", ["window.quite_seconds", "did you mean quiet_seconds?"]),
        ("DROPSCALE_OUTPUT__FORMAT__KIND", "png", ["output.format"]),
        ("DROPSCALE_OUTPUT", "png", ["output", "'png'"]),
        ("DROPSCALE_WATCH__IGNORE", "[", ["DROPSCALE_WATCH__IGNORE", "'['", "not YAML"]),
    ],
)
def test_a_bad_override_is_refused_like_a_bad_config(site: Site, variable: str, value: str, parts: list[str]) -> None:
    site.environment[variable] = value
    message = complaint(site.once(), 2)
    for part in parts:
        assert part in message


# Reload

WARNING = re.compile("warning: the config stays as it was: (.+)")


def rewrite(site: Site, **overrides: dict[str, Any]) -> None:
    site.configure(**{"engine": STUB, **overrides})


def test_sighup_reads_the_config_again(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, window={"quiet_seconds": 60, "max_seconds": 60})
    running = site.start()
    site.drop("a.png", photo(1))
    site.drop("b.png", photo(2))
    time.sleep(0.4)
    assert not site.names(site.outbox), "the window has to be open still"
    rewrite(site, window=QUICK["window"], watch={"ignore": ["b.*"]})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: site.names(site.archive) == {"a.png"}, "the shorter window to close", 15)
    assert [entry["why"] for entry in site.status()["ignored"]] == ['your pattern "b.*"']
    site.drop("c.png", photo(3))
    wait_until(lambda: "c.png" in site.names(site.archive), "a picture after the reload", 15)
    assert site.names(site.inbox) == {"b.png"}


BROKEN_LATER = {
    "wrong value": "watch: {settle_seconds: never}",
    "no YAML": "watch: {",
    "bad pattern": "watch: {ignore: ['']}",
    "no model": "engine: {model: gone}",
    "no inbox": "folders: {inbox: gone, state: state}",
    "another state folder": "folders: {state: elsewhere}",
}


def test_a_broken_config_at_sighup_is_told_and_the_old_one_stays(stub_site: Site) -> None:
    site = stub_site
    running = site.start()
    for number, (name, text) in enumerate(BROKEN_LATER.items(), 1):
        site.config_path.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        warnings = wait_until(
            lambda count=number: (found := WARNING.findall(running.log())) and len(found) == count and found,
            f"the warning of {name}",
            15,
        )
        assert warnings[-1]
    site.drop("a.png", photo(1))
    wait_until(lambda: site.names(site.archive) == {"a.png"}, "a picture after it", 15)
    assert running.log().count("watching ") == 1, "a refused config must not start the watching anew"


def test_sighup_during_a_batch_interrupts_nothing(stub_site: Site) -> None:
    site = stub_site
    running = site.start()
    site.drop("a.png", b"SLOW 0.6")
    wait_until(lambda: "engine ready" in running.log(), "the engine")
    rewrite(site, window={**QUICK["window"], "max_files": 7})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.log().count("watching ") == 2, "the reload", 15)
    assert site.files(site.archive) == {"a.png": b"SLOW 0.6"}
    assert site.upscaled() == [1]


def test_a_stop_in_the_moment_of_a_reload_is_not_lost(stub_site: Site) -> None:
    for _ in range(3):
        running = stub_site.start()
        running.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 15
        while " again" not in running.log():
            assert time.monotonic() < deadline, "no reload"
        assert running.stop(patience=10) == 0


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


def test_the_default_config_is_what_the_program_assumes(make_site: Callable[..., Site]) -> None:
    """Every key is shown in config.yaml with its default, so an empty config is the same."""
    shown = yaml.safe_load((ROOT / "config.yaml").read_text())
    site = make_site()
    reports = []
    for text in ("", yaml.safe_dump(shown)):
        site.config_path.write_text(text)
        checks = json.loads(site.run("doctor", "--json").stdout)
        reports.append([check["text"] for check in checks if check["name"] != "cold start"])  # never twice the same
    assert reports[0] == reports[1]
