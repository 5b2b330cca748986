"""Make docs/before-after.jpg: the same crop of a photograph enlarged by cubic interpolation and by dropscale.

python benchmarks/before_after.py docs/bee.jpg docs/before-after.jpg
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

SCALE = 3
MODEL = "edsr-lite-x3-photo"  # the bee is a JPEG of the web
ZOOM = 2  # each pixel of the result is shown as ZOOM x ZOOM, so that a reader sees it
LEFT, TOP, WIDTH, HEIGHT = 530, 390, 240, 230  # of the crop, in pixels of the result


def main(source: str, target: str) -> None:
    """Write the comparison: cubic on the left, dropscale on the right, each with its name below."""
    small = cv2.imread(source)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dropscale", "upscale", source, "-o", folder, "--model", MODEL], check=True)
        ours = cv2.imread(str(next(Path(folder).iterdir())))
    cubic = cv2.resize(small, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    panels = [panel(cubic, "cubic interpolation"), panel(ours, f"dropscale, {MODEL}")]
    cv2.imwrite(target, np.hstack(panels), [cv2.IMWRITE_JPEG_QUALITY, 90])


def panel(picture: np.ndarray, name: str) -> np.ndarray:
    """The crop, zoomed, over a strip with its name."""
    crop = picture[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    zoomed = cv2.resize(crop, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
    framed = cv2.copyMakeBorder(zoomed, 4, 30, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(framed, name, (8, framed.shape[0] - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return framed


if __name__ == "__main__":
    main(*sys.argv[1:3])
