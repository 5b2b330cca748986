"""The config as a user edits it: what is refused and how, what the environment overrides, what SIGHUP reloads."""

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from harness import QUICK, ROOT, STUB_ENGINE, Site, complaint, photo, wait_until

STUB = {"command": STUB_ENGINE}


# Defaults


def test_the_default_config_is_what_the_program_assumes(make_site: Callable[..., Site]) -> None:
    """Every key is shown in config.yaml with its default, so an empty config is the same."""
    shown = yaml.safe_load((ROOT / "config.yaml").read_text())
    site = make_site()
    reports = []
    for text in ("", yaml.safe_dump(shown)):
        site.config_path.write_text(text)
        checks = json.loads(site.run("doctor", "--json").stdout)
        checks = [check for check in checks if check["name"] != "cold start"]  # never twice the same, nor is free space
        reports.append([re.sub(r"[0-9.]+ GB free", "", check["text"]) for check in checks])
    assert reports[0] == reports[1]


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
    "no list of times": ("warm: {at: '0 8 * * *'}", ["warm", "a list of sections"]),
    "a time that is a text": ("warm: ['0 8 * * *']", ["warm.0", "a section with keys"]),
    "no such minute": (
        "warm: [{at: 0 8 * * *, for_seconds: 60}, {at: 61 * * * *, for_seconds: 60}]",
        ["warm.1.at", "'61 * * * *'", "a cron expression (bad minute)"],
    ),
    "no such day": ("warm: [{at: 0 8 30 2 *, for_seconds: 60}]", ["warm.0.at", "'0 8 30 2 *'", "bad day-of-month"]),
    "seconds, too": ("warm: [{at: 0 0 8 * * *, for_seconds: 60}]", ["warm.0.at", "five fields"]),
    "for how long?": ("warm: [{at: 0 8 * * *}]", ["warm.0.for_seconds", "is missing"]),
    "longer than a day": ("warm: [{at: 0 8 * * *, for_seconds: 90000}]", ["warm.0.for_seconds", "90000", "86400"]),
    "another name for it": ("warm: [{at: 0 8 * * *, for_minutes: 10}]", ["warm.0.for_minutes", "for_seconds"]),
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


def test_commands_that_only_look_leave_a_damaged_ledger_to_the_watcher(stub_site: Site) -> None:
    site = stub_site
    site.state.mkdir()
    (site.state / "ledger.sqlite3").write_bytes(b"not a database, " * 300)
    site.drop("a.png", photo(1))
    for name in ("status", "retry"):
        message = complaint(site.run(name), 3)
        assert "cannot open the ledger" in message
    assert "start dropscale: it makes the ledger anew" in message
    assert site.files(site.inbox) == {"a.png": photo(1)}


def test_a_model_that_is_not_the_one_of_the_manifest_is_refused(make_site: Callable[..., Site]) -> None:
    site = make_site()
    folder = site.root / "models"
    shutil.copytree(ROOT / "models", folder, ignore=shutil.ignore_patterns("training"))
    site.configure(engine={"models_folder": str(folder)})
    site.drop("a.png", photo(1, 8, 8))
    assert site.once().returncode == 0, "the copy itself has to be good"
    weights = folder / "edsr-lite-x3.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    message = complaint(site.once(), 3)
    assert str(weights) in message
    assert "is not the file that the manifest names" in message
    weights.unlink()
    assert str(weights) in complaint(site.once(), 3)
    (folder / "models.yaml").write_text("models: [1]")
    assert "models.yaml is broken" in complaint(site.once(), 3)
    shutil.rmtree(folder)
    assert site.once().returncode == 0, "the one that came along stands in"
    site.configure(engine={"models_folder": str(folder), "model": "mine"})
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
