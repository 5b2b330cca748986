"""Random patches for training, without end."""

from collections.abc import Iterator

import numpy as np
import torch
from crops import LOW_SIDE, Crops
from degradation import degraded
from recipes import Recipe
from torch import Tensor


def batches(crops: Crops, recipe: Recipe, device: torch.device, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of float32 tensors 0..1: inputs (N, 3, patch, patch), and what they should become, `scale` times larger.

    Crops are drawn in proportion to their detail, then cut, mirrored and turned at random.
    """
    chance = np.random.default_rng(seed)
    share = crops.detail / crops.detail.sum()
    while True:
        chosen = chance.choice(len(share), recipe.batch, p=share)
        low, high = zip(*(_patch(crops, index, recipe, chance) for index in chosen), strict=True)
        yield _tensor(low, device), _tensor(high, device)


def _patch(crops: Crops, index: int, recipe: Recipe, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    high = crops.high[index]
    # The whole crop is degraded, then cut: the squares of JPEG shall not always begin at the patch's corner.
    low = degraded(high, recipe.scale, chance) if recipe.degraded else crops.low[index]
    top, left = chance.integers(0, LOW_SIDE - recipe.patch, 2, endpoint=True)
    turns, mirrored = chance.integers(4), chance.integers(2)
    return tuple(  # type: ignore[return-value]
        _turned(_window(crop, top * size, left * size, recipe.patch * size), turns, mirrored)
        for crop, size in ((low, 1), (high, recipe.scale))
    )


def _window(crop: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    return crop[:, top : top + side, left : left + side]


def _turned(crop: np.ndarray, turns: int, mirrored: int) -> np.ndarray:
    turned = np.rot90(crop, turns, (1, 2))
    return turned[:, :, ::-1] if mirrored else turned


def _tensor(patches: tuple[np.ndarray, ...], device: torch.device) -> Tensor:
    stacked = torch.from_numpy(np.stack(patches)).to(device).float().div_(255)
    return stacked.contiguous(memory_format=torch.channels_last)
