"""A loaded model: pixels in, pixels out, whatever the runtime's precision does to them."""

from collections.abc import Callable, Sequence
from threading import Lock

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine.colours import colours_of
from sr_engine.errors import PictureError
from sr_engine.models import Model
from sr_engine.pictures import Plane
from sr_engine.protocol import Code
from sr_engine.runtimes import Runtime

# A network that enlarges keeps the average of a tile, to a fraction of a level. Where half precision overflows, the
# tile comes out black, white or as noise.
_MOST_DRIFT = 1 / 16  # of the range of values

_POSITIONS = 8
_SIDES = (2, 3)  # axes of NxCxHxW


class Network:
    """Runs tiles through a runtime.

    Samples of 8 bits are enlarged in the runtime's precision; deeper ones in fp32, as a bfloat16 has 8 bits itself.
    A tile that half precision spoilt is done again in fp32, too. The runtime for that is loaded when first needed.

    Attributes:
        runtime: what runs the network.
        model: the facts that the manifest knows.
        ensemble: whether each tile is enlarged in all eight positions that turning and mirroring give, and the average
            taken (Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016).
    """

    def __init__(
        self, runtime: Runtime, model: Model, load_exact: Callable[[], Runtime], *, ensemble: bool = False
    ) -> None:
        self.runtime = runtime
        self.model = model
        self.ensemble = ensemble
        self._colours = colours_of(model)
        self._load_exact = load_exact
        self._exact = runtime if runtime.precision == "fp32" else None
        self._lock = Lock()

    def __call__(self, tiles: Sequence[Plane]) -> list[Plane]:
        """Enlarge a batch.

        Args:
            tiles: each HxWx3, blue, green, red; all of one shape and type, uint8 or uint16.

        Returns:
            For each tile (scale * H)x(scale * W)x3 of the same type, rounded to the nearest level and clipped.

        Raises:
            PictureError: UPSCALE_FAILED, the network gave infinities or another size than it must.
            OutOfDeviceMemory: the tiles are too large for the device.
        """
        if tiles[0].dtype != np.uint8:
            return self._enlarge(self._exact_runtime(), tiles)
        on_device = self._run_bytes(tiles)
        results = self._enlarge(self.runtime, tiles) if on_device is None else list(on_device)
        if on_device is None and self.runtime.precision == "fp32":
            return results
        return [
            result if _plausible(tile, result) else self._enlarge(self._exact_runtime(), [tile])[0]
            for tile, result in zip(tiles, results, strict=True)
        ]

    @property
    def mflop_per_pixel(self) -> float:
        """Work that each input pixel means."""
        return self.model.mflop * (_POSITIONS if self.ensemble else 1)

    def close(self) -> None:
        """Let the device go."""
        self.runtime.close()
        if self._exact not in (None, self.runtime):
            self._exact.close()

    def _exact_runtime(self) -> Runtime:
        with self._lock:
            if self._exact is None:
                self._exact = self._load_exact()
            return self._exact

    def _run_bytes(self, tiles: Sequence[Plane]) -> npt.NDArray[np.uint8] | None:
        """All of it on the device, where the runtime can."""
        if self.model.channels != 3 or self.ensemble:
            return None
        results = self.runtime.run_bytes(np.stack(tiles).astype(np.uint8, copy=False))
        if results is not None:
            self._check_size(tiles, results.shape[1:3])
        return results

    def _run(self, runtime: Runtime, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not self.ensemble:
            return runtime.run(values)
        total: npt.NDArray[np.float32] | None = None
        for turns in range(4):
            turned = np.rot90(values, turns, _SIDES)
            for step in (1, -1):
                result = runtime.run(np.ascontiguousarray(turned[..., ::step]))
                result = np.rot90(result[..., ::step], -turns, _SIDES)
                total = result.copy() if total is None else np.add(total, result, out=total)
        assert total is not None
        return np.multiply(total, np.float32(1 / _POSITIONS), out=total)

    def _enlarge(self, runtime: Runtime, tiles: Sequence[Plane]) -> list[Plane]:
        values = self._run(runtime, self._colours.values(tiles))
        self._check_size(tiles, values.shape[2:])
        if not np.isfinite(values).all():
            if runtime.precision != "fp32":
                return self._enlarge(self._exact_runtime(), tiles)
            raise PictureError(Code.UPSCALE_FAILED, "the network gave no sensible pixels for this picture")
        return [self._colours.pixels(value, tile) for value, tile in zip(values, tiles, strict=True)]

    def _check_size(self, tiles: Sequence[Plane], found: tuple[int, ...]) -> None:
        height, width = tiles[0].shape[:2]
        if tuple(found) != (height * self.model.scale, width * self.model.scale):
            raise PictureError(Code.UPSCALE_FAILED, "the network gave another size than its manifest says")


def _plausible(tile: Plane, result: Plane) -> bool:
    most = np.iinfo(tile.dtype).max * _MOST_DRIFT
    return max(abs(a - b) for a, b in zip(cv2.mean(tile), cv2.mean(result), strict=True)) <= most
