"""Between pixels and what a network works on: red, green and blue in its order, or brightness alone."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine.models import Model
from sr_engine.pictures import Plane

Values = npt.NDArray[np.float32]


class Colours(Protocol):
    """The two ways."""

    def values(self, tiles: Sequence[Plane]) -> Values:
        """NxCxHxW on the model's range, from tiles HxWx3 of blue, green, red; all uint8 or all uint16."""
        ...

    def pixels(self, values: Values, tile: Plane) -> Plane:
        """(scale * H)x(scale * W)x3 of the type of `tile`, rounded and clipped.

        Args:
            values: Cx(scale * H)x(scale * W), what the network made of `tile`. Overwritten.
            tile: HxWx3.
        """
        ...


def colours_of(model: Model) -> Colours:
    """How a model sees colours."""
    return Luma(model) if model.color == "y" else Channels(model)


class Channels:
    """All three channels go through the network."""

    def __init__(self, model: Model) -> None:
        self._range = model.value_range
        self._step = -1 if model.color == "rgb" else 1

    def values(self, tiles: Sequence[Plane]) -> Values:
        """See `Colours.values`."""
        batch = np.stack(tiles).transpose(0, 3, 1, 2)[:, :: self._step]
        return np.multiply(batch, np.float32(self._range / _largest(tiles[0])), dtype=np.float32, order="C")

    def pixels(self, values: Values, tile: Plane) -> Plane:
        """See `Colours.pixels`."""
        planes = _levels(values[:: self._step], self._range, tile)
        merged: Plane = cv2.merge(list(planes))
        return merged


class Luma:
    """Brightness (Y of YCrCb, full range) goes through the network; Cr and Cb, to which eyes are dull, do not.

    Step by step as OpenCV's dnn_superres does it, for the same pixels: 8-bit YCrCb there and back, and colours
    enlarged bilinearly (opencv_contrib, modules/dnn_superres/src/dnn_superres.cpp).
    """

    def __init__(self, model: Model) -> None:
        self._range = model.value_range
        self._scale = model.scale

    def values(self, tiles: Sequence[Plane]) -> Values:
        """See `Colours.values`."""
        luma = [cv2.cvtColor(tile, cv2.COLOR_BGR2YCrCb)[None, :, :, 0] for tile in tiles]
        scaled: Values = np.stack(luma).astype(np.float32)
        return np.multiply(scaled, np.float32(self._range / _largest(tiles[0])), out=scaled)

    def pixels(self, values: Values, tile: Plane) -> Plane:
        """See `Colours.pixels`."""
        height, width = tile.shape[:2]
        size, largest = (width * self._scale, height * self._scale), np.float32(_largest(tile))
        chroma = []
        for plane in cv2.split(cv2.cvtColor(tile, cv2.COLOR_BGR2YCrCb))[1:]:
            # On 0 .. 1 and each by itself, as in dnn_superres: halves are then rounded to the same side.
            enlarged = cv2.resize(plane.astype(np.float32) * (1 / largest), size, interpolation=cv2.INTER_LINEAR)
            chroma.append(np.rint(enlarged * largest).astype(tile.dtype))
        merged = cv2.merge([_levels(values, self._range, tile)[0], *chroma])
        result: Plane = cv2.cvtColor(merged, cv2.COLOR_YCrCb2BGR)
        return result


def _largest(tile: Plane) -> int:
    return int(np.iinfo(tile.dtype).max)


def _levels(values: Values, value_range: float, tile: Plane) -> Plane:
    """Rounded to the nearest level and clipped."""
    values = values * np.float32(_largest(tile) / value_range)
    np.clip(np.rint(values, out=values), 0, _largest(tile), out=values)
    return values.astype(tile.dtype)
