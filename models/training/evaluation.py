"""How good a network is, measured as benchmarks/quality.py does: while it is trained, and through the engine."""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from network import Edsr

import sr_engine

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import quality


def of_network(network: Edsr, test_set: Path) -> float:
    """Mean PSNR on luma in dB of a network in PyTorch."""

    def enlarge(low: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            values = network(torch.from_numpy(low.astype(np.float32)).permute(2, 0, 1)[None] / 255)
        return (values[0].permute(1, 2, 0) * 255).round().clip(0, 255).numpy().astype(np.uint8)

    return quality.judge(enlarge, quality.pairs(test_set)).psnr


def of_model(name: str, test_set: Path) -> float:
    """Mean PSNR on luma in dB of an installed model in the product's own engine."""
    enlarge = functools.partial(sr_engine.upscale, model=name, precision="fp32", device="cpu")
    return quality.judge(enlarge, quality.pairs(test_set)).psnr
