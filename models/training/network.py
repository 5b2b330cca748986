"""EDSR as it is trained: each convolution has more weights than it shows, folded into one plain 3x3 kernel.

The network is that of Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (CVPRW 2017),
with two changes for speed: the tail is one convolution and a pixel shuffle, and the input, repeated, is added to the
output, so that the layers only learn what is missing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class FoldedConvolution(nn.Module):
    """A 3x3 convolution whose kernel is a plain one plus a product of two: a wide 3x3 kernel and a 1x1 one.

    The sum is taken over weights, not over activations, so that training costs what the plain convolution costs
    (Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys 2022, section 3.3).
    `kernel` is all that is left after training.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int) -> None:
        super().__init__()
        self.plain = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.wide = nn.Parameter(torch.empty(expansion, inputs, 3, 3))
        self.narrow = nn.Parameter(torch.empty(outputs, expansion))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.plain, a=0.1)
        with torch.no_grad():
            # A tenth: residual blocks have to begin near the identity, or sixteen of them diverge.
            self.plain.mul_(0.1)
        nn.init.normal_(self.wide, std=(9 * inputs) ** -0.5)
        nn.init.normal_(self.narrow, std=0.1 * expansion**-0.5)

    def kernel(self) -> Tensor:
        """Shape (outputs, inputs, 3, 3)."""
        return self.plain + (self.narrow @ self.wide.flatten(1)).view_as(self.plain)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (N, inputs, H, W) to (N, outputs, H, W), borders padded with zeros."""
        return functional.conv2d(features, self.kernel(), self.bias, padding=1)


class Edsr(nn.Module):
    """EDSR without batch normalisation: RGB 0..1 of shape (N, 3, H, W) to (N, 3, scale H, scale W).

    Args:
        blocks: residual blocks of two convolutions.
        features: channels between them.
        scale: output pixels per input pixel along each side.
        expansion: width of the folded product, as a multiple of `features`.
    """

    def __init__(self, blocks: int, features: int, scale: int = 3, expansion: int = 2) -> None:
        super().__init__()
        self.scale = scale
        wide = expansion * features
        self.head = FoldedConvolution(3, features, wide)
        self.body = nn.ModuleList(
            nn.ModuleList(FoldedConvolution(features, features, wide) for _ in range(2)) for _ in range(blocks)
        )
        self.last = FoldedConvolution(features, features, wide)
        self.tail = FoldedConvolution(features, 3 * scale**2, wide)

    @property
    def halo(self) -> int:
        """Receptive field beyond a pixel, in input pixels: one for each 3x3 convolution in a row."""
        return 3 + 2 * len(self.body)

    def forward(self, picture: Tensor) -> Tensor:
        """The enlarged picture, not clipped."""
        shallow = deep = self.head(picture)
        for first, second in self.body:
            deep = deep + second(functional.relu(first(deep)))
        detail = functional.pixel_shuffle(self.tail(self.last(deep) + shallow), self.scale)
        return detail + functional.interpolate(picture, scale_factor=self.scale, mode="nearest")

    def convolutions(self) -> Iterator[tuple[str, FoldedConvolution]]:
        """Every convolution with its name, from the input to the output."""
        yield "head", self.head
        for number, (first, second) in enumerate(self.body):
            yield f"body.{number}.first", first
            yield f"body.{number}.second", second
        yield "last", self.last
        yield "tail", self.tail
