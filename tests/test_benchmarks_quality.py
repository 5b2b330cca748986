"""What benchmarks/quality.py measures, against closed forms and a published figure; and the command as it is typed."""

import importlib
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from harness import ROOT
from PIL import Image

SCRIPT = ROOT / "benchmarks" / "quality.py"
SET5 = ROOT.parent / "shared" / "pictures" / "Set5"
SIZES = (100, 92)  # no multiples of three
CORNERS = ((150, 60), (300, 200))
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    """The script's functions. Its folder doesn't stay on the path: names there are those of other modules elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        return importlib.import_module("quality")


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """Two small crops of the bee, without reductions."""
    folder = tmp_path / "Bees"
    (folder / "HR").mkdir(parents=True)
    width, height = SIZES
    with Image.open(ROOT / "docs" / "bee.jpg") as bee:
        for number, (left, top) in enumerate(CORNERS):
            bee.crop((left, top, left + width, top + height)).save(folder / "HR" / f"{number}.png")
    (folder / "HR" / "Thumbs.db").write_bytes(b"no picture")
    return folder


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], check=False, capture_output=True, text=True, timeout=200
    )


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a table by the first of their row."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# The measures


def test_identical_pictures_differ_in_nothing(quality: ModuleType) -> None:
    assert quality.compare(noise(40, 30, 3), noise(40, 30, 3)) == (math.inf, pytest.approx(1))


@pytest.mark.parametrize("levels", [1, 7, 100])
def test_psnr_of_a_constant_offset(quality: ModuleType, levels: int) -> None:
    dark = noise(40, 30, 3) // 2
    found = quality.compare(dark + np.uint8(levels), dark).psnr
    assert found == pytest.approx(20 * math.log10(255 / (levels * 219 / 255)))  # Y has 219 levels of 255


def test_ssim_of_constant_pictures(quality: ModuleType) -> None:
    a, b = (np.full((20, 25, 3), level, np.uint8) for level in (60, 110))
    first, second = (16 + level * 219 / 255 for level in (60, 110))
    expected = (2 * first * second + C1) / (first**2 + second**2 + C1)
    assert quality.compare(a, b).ssim == pytest.approx(expected)


def test_ssim_of_one_window_by_its_definition(quality: ModuleType) -> None:
    a, b = noise(2, 11, 11).astype(float)
    distances = np.arange(-5, 6)
    weights = np.exp(-(distances[:, None] ** 2 + distances**2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    variance_a, variance_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    expected = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    expected /= (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    assert quality.ssim(a, b) == pytest.approx(expected)


def test_the_border_does_not_count_and_what_is_within_does(quality: ModuleType) -> None:
    picture = noise(40, 30, 3)
    changed = picture.copy()
    changed[:3], changed[-3:], changed[:, :3], changed[:, -3:] = 0, 0, 0, 0
    assert quality.compare(changed, picture).psnr == math.inf
    changed[3, 3] ^= 0x80
    assert quality.compare(changed, picture).psnr < 60


def test_luma_is_that_of_studios(quality: ModuleType) -> None:
    colours = np.uint8([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]])
    assert quality.luma(colours)[0] == pytest.approx([16, 235, 16 + 65.481, 16 + 24.966])


def test_jpeg_does_to_a_picture_what_jpeg_does(quality: ModuleType, small_set: Path) -> None:
    picture = quality.pairs(small_set)[0].high
    good, bad = (quality.compressed(picture, level) for level in (95, 30))
    assert picture.shape == good.shape == bad.shape
    assert 50 > quality.compare(good, picture).psnr > quality.compare(bad, picture).psnr + 3


@pytest.mark.skipif(not SET5.is_dir(), reason="the Set5 pictures are not here, and may not be in the project")
def test_bicubic_on_set5_is_what_is_published(quality: ModuleType, tmp_path: Path) -> None:
    assert quality.judge(quality.bicubic, quality.pairs(SET5)).psnr == pytest.approx(30.40, abs=0.01)
    shutil.copytree(SET5 / "HR", tmp_path / "Set5" / "HR")
    assert quality.judge(quality.bicubic, quality.pairs(tmp_path / "Set5")).psnr == pytest.approx(30.40, abs=0.03)


# Sets


def test_originals_are_cut_and_reduced(quality: ModuleType, small_set: Path) -> None:
    for high, low in quality.pairs(small_set):
        assert high.shape == (90, 99, 3)
        assert low.shape == (30, 33, 3)


def test_reductions_that_are_there_are_taken(quality: ModuleType, small_set: Path) -> None:
    (small_set / "LRx3").mkdir()
    for number in range(len(CORNERS)):
        Image.fromarray(noise(30, 33, 3)).save(small_set / "LRx3" / f"{number}.png")
    assert all((low == noise(30, 33, 3)).all() for _, low in quality.pairs(small_set))


def test_sets_that_are_none_are_refused(small_set: Path, tmp_path: Path) -> None:
    (small_set / "LRx3").mkdir()
    for folder, reason in ((tmp_path, "no pictures in"), (small_set, "No such file")):
        done = run(folder, "--models", "edsr-lite-x3")
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
    Image.fromarray(noise(50, 50, 3)).save(small_set / "LRx3" / "0.png")
    assert "0.png is 50 x 50, not 33 x 30" in run(small_set, "--models", "edsr-lite-x3").stderr


# The command


def test_the_command_prints_a_table_with_bicubic_and_the_model(small_set: Path) -> None:
    done = run(small_set, "--models", "edsr-lite-x3", "--ensemble")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Bees, 2 pictures:\n\n| model ")
    table = rows(done.stdout)
    assert table["model"][2:] == ["PSNR", "SSIM", "PSNR, JPEG 75", "SSIM, JPEG 75", "PSNR+"]
    bicubic, ours = table["bicubic"], table["edsr-lite-x3"]
    assert bicubic[:2] == ["", ""]
    assert ours[:2] == ["313,883", "0.626"]
    assert decibels(ours[2]) > decibels(bicubic[2]) + 0.5
    assert float(ours[3]) > float(bicubic[3])
    assert decibels(ours[4]) < decibels(ours[2])  # JPEG costs
    assert float(ours[5]) < float(ours[3])
    assert decibels(ours[6]) > decibels(ours[2]) - 0.1
    assert bicubic[6] == ""


def test_the_command_updates_the_page_of_the_models(small_set: Path, tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    shutil.copy(ROOT / "docs" / "models.md", page)
    done = run(small_set, "--models", "edsr-lite-x3", "--jpeg", "50", "--models-folder", tmp_path, "--update", page)
    assert done.returncode == 0, done.stderr
    marks = re.compile("(?s)(?<=<!-- quality -->\n).*(?=<!-- end of quality -->)")
    before, after = (marks.split(path.read_text()) for path in (ROOT / "docs" / "models.md", page))
    assert len(before) == 2
    assert before == after
    (table,) = marks.findall(page.read_text())
    assert table.strip() == done.stdout.strip()
    assert rows(table)["model"][4:] == ["PSNR, JPEG 50", "SSIM, JPEG 50"]


def test_a_model_that_is_not_there_is_a_sentence(small_set: Path) -> None:
    done = run(small_set, "--models", "edsr-x33")
    assert done.returncode == 1
    assert done.stderr.startswith("no model is called 'edsr-x33'")
    assert done.stdout == ""


def decibels(cell: str) -> float:
    value, unit = cell.split()
    assert unit == "dB"
    return float(value)
