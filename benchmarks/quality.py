"""How near enlarged pictures come to the originals: PSNR and SSIM of each model and of bicubic interpolation.

    python benchmarks/quality.py SET... [--models NAME...] [--jpeg 75] [--ensemble] [--update docs/models.md]

A SET is a folder with originals in HR/ and their reductions, of the same names, in LRx3/. Without LRx3/ they are made
by antialiased bicubic interpolation, which is MATLAB's within one level. Each model enlarges the reductions as they
are, and once more after JPEG compression. Everything is measured as papers do it: on Y of ITU-R BT.601, of results
rounded to 8 bits, without a border of `SCALE` pixels.

Prints a Markdown table for each SET; --update also puts them between the marks of a page.
"""

import argparse
import functools
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import figures
import numpy as np
import PIL
from PIL import Image

import sr_engine
from sr_engine import graphs, models
from sr_engine.errors import EngineError, ModelError

SCALE = 3
KINDS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
PART = "quality"

# SSIM as Wang et al. define it, "Image quality assessment: from error visibility to structural similarity", 2004.
WINDOW, SIGMA = 11, 1.5
LARGEST = 255
C1, C2 = (0.01 * LARGEST) ** 2, (0.03 * LARGEST) ** 2

# HxWx3 of red, green and blue, uint8, to the same SCALE times as high and wide.
Enlarge = Callable[[np.ndarray], np.ndarray]


class Pair(NamedTuple):
    """A picture as it was, and reduced."""

    high: np.ndarray
    low: np.ndarray


class Quality(NamedTuple):
    """Means over some pictures: PSNR in dB, SSIM of 1 at most."""

    psnr: float
    ssim: float


class Competitor(NamedTuple):
    """What enlarges.

    Attributes:
        name: for the table.
        cost: numbers that it learned and MFLOP per pixel of the original, for the table.
        enlarge: a picture.
        ensemble: the same by self-ensemble; None where that changes nothing.
    """

    name: str
    cost: str
    enlarge: Enlarge
    ensemble: Enlarge | None


# Pictures


def pairs(folder: Path) -> list[Pair]:
    """All pictures of a set."""
    originals = folder / "HR"
    paths = sorted(each for each in originals.iterdir() if each.suffix.lower() in KINDS) if originals.is_dir() else []
    if not paths:
        sys.exit(f"{folder} is not a set: there are no pictures in {originals}")
    return [pair(path, folder / f"LRx{SCALE}") for path in paths]


def pair(path: Path, reductions: Path) -> Pair:
    """An original, cut to a multiple of `SCALE`, and its reduction."""
    high = read(path)
    height, width = (side // SCALE for side in high.shape[:2])
    high = high[: height * SCALE, : width * SCALE]
    if min(height, width) * SCALE < WINDOW + 2 * SCALE:
        sys.exit(f"{path} is too small to be measured: {WINDOW + 2 * SCALE} pixels on each side is the least")
    low = read(reductions / path.name) if reductions.is_dir() else resized(high, height, width)
    if low.shape != (height, width, 3):
        sys.exit(f"{reductions / path.name} is {low.shape[1]} x {low.shape[0]}, not {width} x {height}")
    return Pair(high, low)


def read(path: Path) -> np.ndarray:
    """HxWx3, red, green, blue."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG leaves of a picture, with colours at half the size."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer))


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """By bicubic interpolation, antialiased where it gets smaller."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


# Measures


def judge(enlarge: Enlarge, pictures: Sequence[Pair]) -> Quality:
    """Enlarge all the reductions and compare with the originals."""
    values = [compare(enlarge(low), high) for high, low in pictures]
    return Quality(*(float(np.mean(column)) for column in zip(*values, strict=True)))


def compare(result: np.ndarray, original: np.ndarray) -> Quality:
    """PSNR and SSIM of luma, without the border."""
    inner = slice(SCALE, -SCALE)
    ours, theirs = (luma(picture)[inner, inner] for picture in (result, original))
    return Quality(psnr(ours, theirs), ssim(ours, theirs))


def luma(picture: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601, 16 .. 235, not rounded; HxW."""
    return picture.astype(float) @ np.array([65.481, 128.553, 24.966]) / LARGEST + 16


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB; infinite if nothing differs."""
    error = float(((a - b) ** 2).mean())
    return 10 * math.log10(LARGEST**2 / error) if error else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over all places where the Gaussian window lies within the planes, which are float HxW."""
    mean_a, mean_b = averaged(a), averaged(b)
    variance_a, variance_b = averaged(a * a) - mean_a**2, averaged(b * b) - mean_b**2
    covariance = averaged(a * b) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return float((brightness * structure).mean())


def averaged(plane: np.ndarray) -> np.ndarray:
    """The Gaussian average around each place that has the whole window around it."""
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    return cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA)[inner, inner]


# Who takes part


def competitors(options: argparse.Namespace) -> list[Competitor]:
    """Bicubic interpolation, then the models that were named, or all of this scale."""
    known = models.installed(options.models_folder)
    names = options.models or [name for name, found in known.items() if found.model.scale == SCALE]
    return [Competitor("bicubic", "|", bicubic, None), *(competitor(name, options) for name in names)]


def bicubic(picture: np.ndarray) -> np.ndarray:
    """What the models are compared with."""
    height, width = picture.shape[:2]
    return resized(picture, height * SCALE, width * SCALE)


def competitor(name: str, options: argparse.Namespace) -> Competitor:
    """A model, in the fastest runtime that is here, with tiles as the engine cuts them."""
    found = models.find(name, options.models_folder)
    if found.model.scale != SCALE:
        raise ModelError(f"{name} enlarges {found.model.scale} times: only models that enlarge {SCALE} times compare")
    facts = graphs.described(Path(models.verify(found)).read_bytes(), name)
    enlarge = functools.partial(
        sr_engine.upscale, model=name, models_folder=options.models_folder, precision=options.precision
    )
    cost = f"{facts.weights:,} | {facts.flop_per_pixel / 1e6:.3g}"
    return Competitor(name, cost, enlarge, functools.partial(enlarge, ensemble=True))


# The tables


def tables(options: argparse.Namespace) -> Iterator[str]:
    """The lines for all sets."""
    everyone = competitors(options)
    for folder in options.sets:
        pictures = pairs(folder)
        yield f"{folder.resolve().name}, {len(pictures)} pictures:\n"
        yield from table(pictures, everyone, options)
        yield ""
    yield f"In {options.precision}; {figures.versions()}, Pillow {PIL.__version__}"


def table(pictures: Sequence[Pair], everyone: Sequence[Competitor], options: argparse.Namespace) -> Iterator[str]:
    """The lines for one set, each as soon as it is measured."""
    after = f"JPEG {options.jpeg}"
    titles = ["model", "weights", "MFLOP per pixel", "PSNR", "SSIM", f"PSNR, {after}", f"SSIM, {after}"]
    titles += ["PSNR+"] if options.ensemble else []
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    spoilt = [Pair(high, compressed(low, options.jpeg)) for high, low in pictures]
    for each in everyone:
        cells = [each.name, each.cost]
        for quality in (judge(each.enlarge, some) for some in (pictures, spoilt)):
            cells += [f"{quality.psnr:.2f} dB", f"{quality.ssim:.4f}"]
        if options.ensemble:
            cells.append(f"{judge(each.ensemble, pictures).psnr:.2f} dB" if each.ensemble else "")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, print, and update the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all that are installed and enlarge x3")
    parser.add_argument("--models-folder", default="", metavar="DIR", help="your own models; default: as the engine's")
    parser.add_argument("--jpeg", type=int, choices=range(1, 101), default=75, metavar="QUALITY", help="default: 75")
    parser.add_argument("--ensemble", action="store_true", help="PSNR by self-ensemble, too: eight times the work")
    parser.add_argument("--precision", default="fp32", choices=("auto", "fp32", "fp16", "bf16"))
    parser.add_argument("--update", type=Path, metavar="PAGE", help="put the tables there, too")
    options = parser.parse_args()
    lines = []
    try:
        for line in tables(options):
            print(line, flush=True)
            lines.append(line)
    except (EngineError, OSError) as error:
        sys.exit(str(error))
    if options.update:
        figures.update(options.update, PART, "\n".join(lines))


if __name__ == "__main__":
    main()
