"""Training crops: detailed squares of the photographs, with their antialiased bicubic reductions."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import photographs
from PIL import Image

LOW_SIDE = 64
"""Side of a reduced crop in pixels; a patch of this size or less is cut out of it at random."""

_LEAST_DETAIL, _MOST_DETAIL = 0.3, 6.0
"""Bounds of a crop's weight, in levels of bicubic error: skies keep a little, noise and lettering don't rule."""

_WORTH_KEEPING = 0.6
"""Crops with less bicubic error (levels) are left out: nearly half of all pixels, and nothing to learn from them."""


@dataclass(frozen=True)
class Crops:
    """Crops in pairs.

    Attributes:
        high: uint8 of shape (N, 3, scale * LOW_SIDE, scale * LOW_SIDE), RGB.
        low: uint8 of shape (N, 3, LOW_SIDE, LOW_SIDE), RGB.
        detail: float of shape (N,): mean error of bicubic enlargement in levels, clipped; how often to draw a crop.
    """

    high: np.ndarray
    low: np.ndarray
    detail: np.ndarray


def load(folder: str, scale: int, listed: Iterable[photographs.Photograph] | None = None) -> Crops:
    """Crops of the photographs in `folder`; cut once, kept there as `crops-x<scale>.npz`.

    Args:
        folder: where the photographs are.
        scale: how much smaller the reductions are.
        listed: which photographs; None: those of the manifest.
    """
    cache = os.path.join(folder, f"crops-x{scale}.npz")
    if not os.path.exists(cache):
        high, low, detail = (np.concatenate(part) for part in zip(*_cut_all(folder, scale, listed), strict=True))
        np.savez(cache + ".part.npz", high=high, low=low, detail=detail)
        os.replace(cache + ".part.npz", cache)
    with np.load(cache) as kept:
        return Crops(kept["high"], kept["low"], kept["detail"])


def _cut_all(
    folder: str, scale: int, listed: Iterable[photographs.Photograph] | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [
        _cut(_sharp(os.path.join(folder, photograph.file), photograph.downscale, scale), scale)
        for photograph in (photographs.load_manifest() if listed is None else listed)
    ]


def _sharp(path: str, downscale: int, scale: int) -> Image.Image:
    """The picture at the size at which its pixels are sharp, its sides multiples of `scale`."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width, height = picture.width // downscale, picture.height // downscale
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture.crop((0, 0, width - width % scale, height - height % scale))


def _cut(picture: Image.Image, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture's crops side by side, those with nothing to learn left out."""
    # Pillow's bicubic widens its kernel when it reduces, as MATLAB's imresize does, with which test sets are made:
    # within one level of it but for the outermost two pixels.
    reduced = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    enlarged = reduced.resize(picture.size, Image.Resampling.BICUBIC)
    high, low, bicubic = (np.asarray(one).transpose(2, 0, 1) for one in (picture, reduced, enlarged))
    error = np.abs(high.astype(np.float32) - bicubic).mean(axis=0)
    found: list[tuple[np.ndarray, np.ndarray, float]] = []
    high_side = scale * LOW_SIDE
    for top in range(0, low.shape[1] - LOW_SIDE + 1, LOW_SIDE):
        for left in range(0, low.shape[2] - LOW_SIDE + 1, LOW_SIDE):
            down, right = scale * top, scale * left
            detail = float(error[down : down + high_side, right : right + high_side].mean())
            if detail >= _WORTH_KEEPING:
                found.append(
                    (
                        high[:, down : down + high_side, right : right + high_side],
                        low[:, top : top + LOW_SIDE, left : left + LOW_SIDE],
                        min(max(detail, _LEAST_DETAIL), _MOST_DETAIL),
                    )
                )
    if not found:
        empty = np.empty((0, 3, high_side, high_side), np.uint8)
        return empty, np.empty((0, 3, LOW_SIDE, LOW_SIDE), np.uint8), np.empty(0, np.float32)
    return (
        np.stack([one for one, _, _ in found]),
        np.stack([one for _, one, _ in found]),
        np.array([one for _, _, one in found], np.float32),
    )
