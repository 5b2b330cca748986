"""`dropscale doctor`: what this machine has, what is missing, and what an engine costs before its first tile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from harness import QUICK, STUB_ENGINE, Site, photo

from watcher.engine.coldstart import sample

PARTS = ["process", "imports", "pretence", "ready", "first tile", "exit"]  # of the stub's start


def examine(site: Site, code: int = 0) -> dict[str, dict[str, Any]]:
    """Its checks by name."""
    done = site.run("doctor", "--json")
    assert done.returncode == code, done.stdout
    return {check["name"]: check for check in json.loads(done.stdout)}


def bad(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["text"] for name, check in checks.items() if check["verdict"] == "bad"}


def test_doctor_finds_a_working_machine(site: Site) -> None:
    checks = examine(site)
    assert {"dropscale", "packages", "folders.inbox", "watching", "inotify", "state", "model", "engine"} <= set(checks)
    assert {"runtime.opencv", "runtime.openvino", "runtime.onnx", "cold start"} <= set(checks)
    assert all(check["verdict"] in {"ok", "note"} for check in checks.values())
    assert "opencv" in checks["runtime.opencv"]["text"]
    assert " on cpu, " in checks["engine"]["text"]
    plain = site.run("doctor")
    assert plain.returncode == 0
    assert len(plain.stdout.splitlines()) == len(checks)


def test_doctor_names_every_trouble_and_exits_3(make_site: Callable[..., Site]) -> None:
    site = make_site(engine={"command": ["/nonexistent/engine"], "model": "no-such-model"})
    site.outbox.rmdir()
    troubles = bad(examine(site, code=3))
    assert set(troubles) == {"folders.outbox", "model", "engine"}
    assert "no-such-model" in troubles["model"]
    assert "/nonexistent/engine" in troubles["engine"]


@pytest.fixture(params=["", "TERSE"])
def words(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_cold_start_is_told_in_phases_as_far_as_the_engine_tells_them(stub_site: Site, words: str) -> None:
    stub_site.environment["STUB"] = words
    checks = examine(stub_site)
    assert checks["engine"]["text"] == "stub on cpu, fp32" + ("" if words else " (there is no other)")
    milliseconds = checks["cold start"]["milliseconds"]
    assert list(milliseconds) == (PARTS if not words else PARTS[3:])
    assert all(0 <= value < 20_000 for value in milliseconds.values())
    text = checks["cold start"]["text"]
    assert text.startswith(f"ready after {milliseconds['ready']:.0f} ms")
    assert ("(process " in text) == (not words)
    assert "; first tile " in text and "; exit " in text
    assert not stub_site.state.exists() and not stub_site.engines()
    assert all("milliseconds" not in check for name, check in checks.items() if name != "cold start")


@pytest.mark.parametrize(("ill", "told"), [("UNUSABLE", "libGL.so.1 is missing"), ("NOSTART", "exited with code 9")])
def test_an_engine_that_cannot_work_is_told_with_its_reason(stub_site: Site, ill: str, told: str) -> None:
    stub_site.environment["STUB"] = ill
    checks = examine(stub_site, code=3)
    assert "cold start" not in checks
    assert told in bad(checks)["engine"]


REFUSING = """
import json, sys
def say(**event):
    print(json.dumps({"v": 2, **event}), flush=True)
say(type="ready", runtime="x", device="cpu", precision="x", load_seconds=0)
sys.stdin.readline()
"""
FAILS = 'say(type="failed", id=1, code="upscale_failed", message="no", fault="picture", retryable=False)'
GIVES_UP = 'say(type="failed", id=None, code="out_of_memory", message="no room", fault="environment", retryable=True)'
ENDS = 'say(type="bye", pictures=1, failed=1, seconds=0)\n'


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (f"{FAILS}\n{ENDS}", "the picture to test with failed: no"),
        (GIVES_UP, "no room"),
        ("", "the engine exited with code 0"),
    ],
)
def test_an_engine_that_starts_and_does_not_work_is_told(
    make_site: Callable[..., Site], script: str, told: str
) -> None:
    site = make_site()
    (site.root / "engine.py").write_text(REFUSING + script)
    site.configure(engine={**QUICK["engine"], "command": [STUB_ENGINE[0], str(site.root / "engine.py")]})
    troubles = bad(examine(site, code=3))
    assert set(troubles) == {"cold start"}
    assert told in troubles["cold start"]


def test_a_runtime_that_the_config_asks_for_and_nobody_installed_is_bad(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from watcher.operation import doctor
    from watcher.sections import Config, Engine

    monkeypatch.setitem(doctor._RUNTIMES, "onnx", ("no_such_module", ("no-such-package",), "onnxruntime"))
    absent = doctor._runtime(Config(), "onnx")
    assert (absent.verdict, absent.text) == ("note", "not installed: pip install onnxruntime")
    needed = doctor._runtime(Config(engine=Engine(runtime="onnx")), "onnx")
    assert needed.verdict == "bad" and needed.text.endswith("or set engine.runtime to auto")
    elsewhere = Config(engine=Engine(runtime="onnx", command=("another", "python")))
    assert doctor._runtime(elsewhere, "onnx").verdict == "note"


def test_two_packages_that_overwrite_each_other_are_noted(site: Site, tmp_path: Path) -> None:
    """As after `pip install onnxruntime-gpu` beside onnxruntime: what counts is which came last."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        about = tmp_path / "site" / f"{name}-1.99.0.dist-info" / "METADATA"
        about.parent.mkdir(parents=True)
        about.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.99.0\n")
    site.environment["PYTHONPATH"] = str(tmp_path / "site")
    check = examine(site)["runtime.onnx"]
    assert check["verdict"] == "note"
    assert check["text"].startswith(
        "onnxruntime-gpu 1.99.0 and onnxruntime 1.99.0 write to the same files: pip uninstall"
    )


def test_the_picture_to_test_with_is_a_sound_one() -> None:
    picture = cv2.imdecode(np.frombuffer(sample(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (512, 512, 3)
    assert picture.std() > 50


def test_delivered_pictures_are_told_with_their_note_and_the_engine_with_its_reason(stub_site: Site) -> None:
    site = stub_site
    site.drop("a.png", b"NOTED")
    site.drop("b.png", photo(1))
    (site.root / "c.png").write_bytes(b"NOTED")
    log = site.once().stderr
    assert "stub on cpu, fp32 (there is no other)\n" in log
    assert "a.png -> a.png (192 x 192, 0.0 s; a stub cannot do better)\n" in log
    assert "b.png -> b.png (192 x 192, 0.0 s)\n" in log
    assert "c.png (192 x 192; a stub cannot do better)\n" in site.run("upscale", "c.png", "-o", "results").stderr
