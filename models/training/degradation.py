"""What happens to pictures before people drop them: a soft lens, noise, JPEG."""

import io

import numpy as np
from PIL import Image, ImageFilter

_BLURRED, _NOISY, _COMPRESSED = 0.4, 0.4, 0.9
"""Shares of the crops that each fault befalls."""

_MOST_BLUR = 1.8
"""Standard deviation of the blur, in pixels of the large picture."""

_MOST_NOISE = 5.0
"""Standard deviation of the noise, in levels of the reduced picture."""

_QUALITY = (40, 95)
"""Of JPEG, from phones' messengers to cameras."""


def degraded(high: np.ndarray, scale: int, chance: np.random.Generator) -> np.ndarray:
    """A reduced crop as it might arrive.

    Args:
        high: uint8 of shape (3, scale * side, scale * side), RGB.
        scale: how much larger `high` is.
        chance: where the faults are drawn.

    Returns:
        uint8 of shape (3, side, side).
    """
    picture = Image.fromarray(high.transpose(1, 2, 0))
    if chance.random() < _BLURRED:
        picture = picture.filter(ImageFilter.GaussianBlur(chance.uniform(0.2, _MOST_BLUR)))
    picture = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    if chance.random() < _NOISY:
        picture = _noisy(picture, chance)
    if chance.random() < _COMPRESSED:
        picture = _compressed(picture, chance)
    return np.asarray(picture).transpose(2, 0, 1)


def _noisy(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Gaussian noise: half of the time the same in all colours, as grain is."""
    height, width = picture.height, picture.width
    channels = 1 if chance.random() < 0.5 else 3
    noise = chance.normal(0, chance.uniform(0, _MOST_NOISE), (height, width, channels))
    return Image.fromarray(np.clip(np.rint(np.asarray(picture) + noise), 0, 255).astype(np.uint8))


def _compressed(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    """JPEG, mostly with colours at half the size as cameras and messengers write it."""
    buffer = io.BytesIO()
    subsampling = "4:2:0" if chance.random() < 0.8 else "4:4:4"
    picture.save(buffer, "JPEG", quality=int(chance.integers(*_QUALITY, endpoint=True)), subsampling=subsampling)
    return Image.open(buffer).convert("RGB")
