"""The networks that are trained, and how long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How one model comes to be.

    Attributes:
        blocks: residual blocks.
        features: channels of each convolution.
        steps: of the optimiser.
        rate: highest learning rate; it rises over `WARM_UP_STEPS`, then falls along a cosine to nothing.
        begins_with: the recipe whose weights it begins with; None begins with chance.
        degraded: whether the input is blurred, noisy and compressed as JPEG.
        scale: output pixels per input pixel along each side.
        batch: patches in a step.
        patch: side of a patch, in input pixels.
    """

    blocks: int
    features: int
    steps: int
    rate: float = 8e-4
    begins_with: str | None = None
    degraded: bool = False
    scale: int = 3
    batch: int = 16
    patch: int = 48


WARM_UP_STEPS = 200

RECIPES = {
    "edsr-lite-x3": Recipe(blocks=16, features=32, steps=26_000),
    "edsr-lite-x3-photo": Recipe(16, 32, steps=4_000, rate=4e-4, begins_with="edsr-lite-x3", degraded=True),
    "edsr-x3": Recipe(blocks=16, features=64, steps=9_000, rate=6e-4),
    "edsr-x3-photo": Recipe(16, 64, steps=2_000, rate=3e-4, begins_with="edsr-x3", degraded=True),
}
