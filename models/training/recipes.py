"""The networks that are trained, and how long."""

import math
from dataclasses import dataclass

WARM_UP_STEPS = 200


@dataclass(frozen=True)
class Recipe:
    """How one model comes to be.

    Attributes:
        blocks: residual blocks.
        features: channels of each convolution.
        cycles: one after the other: steps of the optimiser, and the highest learning rate. In each the rate rises over
            `WARM_UP_STEPS`, then falls along a cosine to nothing.
        begins_with: the recipe whose weights it begins with; None begins with chance.
        degraded: whether the input is blurred, noisy and compressed as JPEG.
        scale: output pixels per input pixel along each side.
        batch: patches in a step.
        patch: side of a patch, in input pixels.
    """

    blocks: int
    features: int
    cycles: tuple[tuple[int, float], ...]
    begins_with: str | None = None
    degraded: bool = False
    scale: int = 3
    batch: int = 16
    patch: int = 48

    @property
    def steps(self) -> int:
        """Of all cycles."""
        return sum(steps for steps, _ in self.cycles)

    def rate(self, step: int) -> float:
        """The learning rate at a step, from 0."""
        for steps, highest in self.cycles:
            if step < steps:
                rising = (step + 1) / WARM_UP_STEPS
                falling = 0.5 + 0.5 * math.cos(math.pi * (step - WARM_UP_STEPS) / max(steps - WARM_UP_STEPS, 1))
                return highest * (rising if step < WARM_UP_STEPS else falling)
            step -= steps
        return 0.0


RECIPES = {
    "edsr-lite-x3": Recipe(blocks=16, features=32, cycles=((26_000, 8e-4),)),
    "edsr-lite-x3-photo": Recipe(16, 32, cycles=((4_000, 4e-4),), begins_with="edsr-lite-x3", degraded=True),
    "edsr-x3": Recipe(blocks=16, features=64, cycles=((9_000, 6e-4), (4_000, 3e-4))),
    "edsr-x3-photo": Recipe(16, 64, cycles=((1_200, 3e-4),), begins_with="edsr-x3", degraded=True),
}
