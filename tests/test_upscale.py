"""`dropscale upscale FILE`: results beside the originals, without a config and without a watcher."""

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import Site, complaint, dropscale, photo, stub_result, wait_until

pytestmark = pytest.mark.usefixtures("users_cache")


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
    given = ["good.png", "bad.png", "crash.png", "missing.png", "folder", "b.png"]
    (site.root / "folder").mkdir()
    done = site.run("upscale", *given, "-o", "results")
    assert done.returncode == 1
    assert site.files(site.root / "results") == {"good.png": stub_result(photo(1)), "b.png": stub_result(photo(2))}
    for name in ("bad.png", "crash.png", "missing.png", "folder"):
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
