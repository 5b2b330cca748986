"""How good a network is, measured as benchmarks/quality.py does: while it is trained, and through the engine."""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from network import Edsr

import sr_engine

JPEG = 75

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import quality  # noqa: E402


def of_network(network: Edsr, test_set: Path) -> float:
    """Mean PSNR on luma in dB of a network in PyTorch."""

    def enlarge(low: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            values = network(torch.from_numpy(low.astype(np.float32)).permute(2, 0, 1)[None] / 255)
        return (values[0].permute(1, 2, 0) * 255).round().clip(0, 255).numpy().astype(np.uint8)

    return quality.judge(enlarge, quality.pairs(test_set)).psnr


def of_model(name: str, test_set: Path) -> tuple[quality.Quality, quality.Quality]:
    """What an installed model does in the product's own engine: with clean reductions, and after JPEG of `JPEG`."""
    enlarge = functools.partial(sr_engine.upscale, model=name, precision="fp32", device="cpu")
    return of_enlarger(enlarge, test_set)


def of_enlarger(enlarge: quality.Enlarge, test_set: Path) -> tuple[quality.Quality, quality.Quality]:
    """The same for anything that enlarges."""
    clean = quality.pairs(test_set)
    spoilt = [quality.Pair(high, quality.compressed(low, JPEG)) for high, low in clean]
    return quality.judge(enlarge, clean), quality.judge(enlarge, spoilt)
