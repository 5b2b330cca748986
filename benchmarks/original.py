"""One picture in a process of its own, as the original design of such a service does it.

python benchmarks/original.py WEIGHTS.onnx SOURCE TARGET.jpg
"""

import sys

import cv2
import numpy as np


def main(weights: str, source: str, target: str) -> None:
    """Enlarge the whole picture at once."""
    picture = cv2.imread(source)
    network = cv2.dnn.readNetFromONNX(weights)
    network.setInput(cv2.dnn.blobFromImage(picture, 1 / 255, swapRB=True))
    result = network.forward()[0, ::-1].transpose(1, 2, 0)
    result = np.rint(np.clip(result * 255, 0, 255)).astype(np.uint8)
    cv2.imwrite(target, result, [cv2.IMWRITE_JPEG_QUALITY, 95])


if __name__ == "__main__":
    main(*sys.argv[1:4])
