"""The network in this process: which runtimes work here, and what their results are worth."""

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
from conversation import MODEL

from sr_engine import models
from sr_engine.errors import UnusableEngine
from sr_engine.loading import Choice, load
from sr_engine.network import Network
from sr_engine.runtimes import Options

RUNTIMES = ("openvino", "onnx", "opencv")
SCALE = 3


def installed() -> list[str]:
    """The runtimes that are here."""
    return [name for name in RUNTIMES if not importlib.import_module(f"sr_engine.runtimes.{name}").missing()]


def network(runtime: str, precision: str) -> Network:
    """The model in a runtime."""
    choice = Choice(MODEL, models.default_folder(), runtime, Options(device="cpu", precision=precision))
    return load(choice).network


def usable(runtime: str, precision: str) -> bool:
    """Whether this runtime works here, and has the precision."""
    try:
        network(runtime, precision).close()
    except UnusableEngine as error:
        sys.stderr.write(f"not measured, {runtime} {precision}: {error.message}\n")
        return False
    return True


def set5(enlarge: Network, folder: Path | None) -> float:
    """Mean PSNR of luma on the five pictures, without a border of `SCALE` pixels, as papers measure it."""
    decibels = []
    for path in sorted((folder / "HR").iterdir()) if folder else []:
        result = enlarge([cv2.imread(str(folder / "LRx3" / path.name))])[0]
        error = luma(result) - luma(cv2.imread(str(path)))[: result.shape[0], : result.shape[1]]
        decibels.append(10 * np.log10(255**2 / (error[SCALE:-SCALE, SCALE:-SCALE] ** 2).mean()))
    return float(np.mean(decibels)) if decibels else 0.0


def luma(picture: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601, 16 .. 235."""
    return picture.astype(float) @ np.array([24.966, 128.553, 65.481]) / 255 + 16
