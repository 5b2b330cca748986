"""The pictures that are measured, made from a few photographs."""

import math
import random
from pathlib import Path

import cv2
import numpy as np

BEE = Path(__file__).resolve().parent.parent / "docs" / "bee.jpg"
SMALLEST, LARGEST = 0.05e6, 2e6  # pixels
QUALITY = 95


class Photographs:
    """Photographs of a folder, or the one of this repository.

    Attributes:
        origin: which they are, for the reader of the figures.
        originals: as they are.
    """

    def __init__(self, folder: str | None) -> None:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".jpg", ".png")) if folder else [BEE]
        self.originals = [cv2.imread(str(path)) for path in paths]
        self.origin = ", ".join(path.name for path in paths)

    def picture(self, number: int, pixels: float) -> np.ndarray:
        """A photograph of about so many pixels: one of those that are large enough, in turn, scaled down.

        If none is, one is continued by mirroring it: blown up it would hold less than a photograph of that size does.
        """
        enough = [original for original in self.originals if original.shape[0] * original.shape[1] >= pixels]
        if enough:
            original = enough[number % len(enough)]
            factor = math.sqrt(pixels / (original.shape[0] * original.shape[1]))
            return cv2.resize(original, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        original = self.originals[number % len(self.originals)]
        height, width = round(math.sqrt(pixels * 3 / 4)), round(math.sqrt(pixels * 4 / 3))
        below, beside = (max(0, length - old) for length, old in zip((height, width), original.shape[:2], strict=True))
        return cv2.copyMakeBorder(original, 0, below, 0, beside, cv2.BORDER_REFLECT)[:height, :width]

    def write(self, number: int, pixels: float, folder: Path) -> Path:
        """The same as a JPEG file."""
        path = folder / f"{number:03}-{pixels:.0f}.jpg"
        cv2.imwrite(str(path), self.picture(number, pixels), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return path

    def batch(self, count: int, folder: Path) -> list[Path]:
        """Files from the smallest size to the largest, in an arbitrary order that is always the same."""
        sizes = enumerate(np.geomspace(SMALLEST, LARGEST, count))
        paths = [self.write(number, pixels, folder) for number, pixels in sizes]
        random.Random(0).shuffle(paths)
        return paths


def pixels_of(paths: list[Path]) -> int:
    """Of all these pictures together."""
    return sum(math.prod(cv2.imread(str(path)).shape[:2]) for path in paths)
