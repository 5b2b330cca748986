"""Engines that go down with several pictures in work, or ask for a fresh one: real child processes, see stub.py.

Whoever merely was in work beside the guilty one is delivered.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import STUB_ENGINE, Site, photo, stub_result

GOOD = {f"good {number}.png": photo(number, 8, 8) for number in range(3)}
ENGINE: dict[str, Any] = {
    "command": STUB_ENGINE,
    "start_seconds": 10,
    "deadline_seconds": 0.5,
    "deadline_seconds_per_megapixel": 0,
}

pytestmark = pytest.mark.usefixtures("users_cache")


def drop(site: Site, pictures: dict[str, bytes]) -> None:
    for name, data in pictures.items():
        site.drop(name, data)


# Several pictures in work at a time


def test_of_several_pictures_in_work_only_the_guilty_one_fails(make_site: Callable[..., Site]) -> None:
    """All of them are suspects; each is tried alone."""
    reasons = {b"CRASH": "the engine was ended by SIGABRT while", b"HANG": "a picture was not done in its time while"}
    sites = {words: make_site(words.decode(), engine=ENGINE) for words in reasons}
    for words, site in sites.items():
        drop(site, {"bad 0.png": words, **GOOD})
    starts = [site.start("once", ready=False, STUB="TOGETHER 4") for site in sites.values()]
    for running, site, reason in zip(starts, sites.values(), reasons.values(), strict=True):
        assert running.process.wait(60) == 1, running.log()
        assert site.files(site.outbox) == {name: stub_result(data) for name, data in GOOD.items()}
        assert site.files(site.archive) == GOOD
        failed = site.files(site.failed)
        assert set(failed) == {"bad 0.png", "bad 0.png.reason.txt"}
        assert reason in failed["bad 0.png.reason.txt"].decode()
        assert not site.names(site.inbox)
        assert max(site.upscaled()[1:]) <= 1, "after the crash, engines with one picture each"


def test_an_engine_that_crashes_on_any_picture_fails_none(make_site: Callable[..., Site]) -> None:
    """A driver that is broken, say: before the first picture is blamed the engine gets one that is sound."""
    site = make_site("ill", engine=ENGINE)
    drop(site, GOOD)
    running = site.start("once", ready=False, STUB="ALWAYSCRASH")
    running.process.wait(60)
    assert not site.names(site.failed), running.log()
    assert site.files(site.inbox) == GOOD
    assert "testing the engine with a picture that is sound" in running.log()


def test_upscale_tries_the_files_that_were_in_work_alone(stub_site: Site) -> None:
    site = stub_site
    for name, data in {"bad.png": b"EXIT", **GOOD}.items():
        (site.root / name).write_bytes(data)
    site.environment["STUB"] = "TOGETHER 3"
    done = site.run("upscale", *list(GOOD)[:1], "bad.png", *list(GOOD)[1:], "-o", "results")
    assert done.returncode == 1, done.stderr
    assert site.files(site.root / "results") == {name: stub_result(data) for name, data in GOOD.items()}
    assert re.search(r"warning: \S*bad\.png: the engine exited with code 7\n", done.stderr)


# An engine that asks for a fresh one


def test_an_engine_that_asks_for_a_fresh_one_gets_it_at_once(make_site: Callable[..., Site]) -> None:
    """As when the device's memory does not suffice for tiles of this size."""
    site = make_site(engine=ENGINE)
    drop(site, {"bad 0.png": b"LADDER 3", **GOOD})
    done = site.run("once", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert site.files(site.outbox).pop("bad 0.png") == stub_result(b"LADDER 3")
    assert site.names(site.archive) == {"bad 0.png", *GOOD} and not site.names(site.failed)
    restarts = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "engine_restarts"]
    assert len(restarts) == 3
    assert restarts[0]["message"].startswith("no memory for tiles of this size; starting a fresh engine for the ")
    assert len(site.upscaled()) == 4 and sum(site.upscaled()) == 4
    assert site.query("SELECT COUNT(*) FROM engine_runs WHERE exited_at IS NULL") == [(0,)]


def test_an_engine_that_asks_for_ever_is_unusable_in_the_end(make_site: Callable[..., Site]) -> None:
    """No picture is to blame, so all that are left wait."""
    site = make_site(engine=ENGINE)
    drop(site, {"0.png": photo(0), "1.png": b"LADDER 99", "2.png": photo(2)})
    (site.root / "file.png").write_bytes(b"LADDER 99")
    done = site.once()
    assert done.returncode == 3
    assert done.stderr.count("starting a fresh engine") == len(site.upscaled()) - 1 >= 10
    assert "the engine cannot work: no memory for tiles" in done.stderr
    why = {entry["path"]: entry["why"] for entry in site.status()["waiting"]}
    assert "no memory for tiles" in why["1.png"]
    assert not site.names(site.failed)
    assert site.names(site.inbox) | site.names(site.archive) == {"0.png", "1.png", "2.png"}
    done = site.run("upscale", "file.png", "-o", "results")
    assert done.returncode == 3
    assert "no memory for tiles" in done.stderr


def test_upscale_starts_fresh_engines_as_well(stub_site: Site, users_cache: Path) -> None:
    """Without a watcher's state folder what it remembers lies in the user's own."""
    site = stub_site
    (site.root / "a.png").write_bytes(b"LADDER 2")
    done = site.run("upscale", "a.png", "-o", "results")
    assert done.returncode == 0, done.stderr
    assert site.files(site.root / "results") == {"a.png": stub_result(b"LADDER 2")}
    assert done.stderr.count("starting a fresh engine") == 2
    assert (users_cache / "dropscale" / "steps").exists() and not site.state.exists()
