"""How large tiles may be: what the runtime likes, what fits in the device's memory, what has failed before.

When a device runs out of memory its allocator is in no state to go on, and what it holds returns only when the process
ends. So the next smaller size is written down, the process ends, and a fresh one starts from there.
"""

import contextlib
import os
import time

import msgspec

from sr_engine.machine import available_bytes
from sr_engine.models import Model
from sr_engine.nvml import Nvml, NvmlUnavailable
from sr_engine.runtimes import Runtime
from sr_engine.tiles import smallest_tile

_FILE = "tiles.json"
# The memory may have been somebody else's: after this long the full size is tried again.
_REMEMBERED_SECONDS = 24 * 3600.0
# Tensors of a network's features that are alive at a time: the long skip, a block's input, its result, a spare one.
_LIVE_TENSORS = 4
_FLOAT_BYTES = 4


class _Remembered(msgspec.Struct):
    pixels: int
    at: float  # Unix time


class TileBudget:
    """The largest area of a tile, in pixels.

    Attributes:
        pixels: see above.
    """

    def __init__(self, runtime: Runtime, model: Model, cache_folder: str) -> None:
        self._path = os.path.join(cache_folder, _FILE) if cache_folder else ""
        self._key = f"{runtime.name} {runtime.device} {model.sha256[:16]}"
        self._least = smallest_tile(model.halo)
        free = free_device_bytes(runtime.device)
        pixels = runtime.tile_pixels
        if free is not None:
            pixels = largest_tile(free, model, pixels, runtime.streams * runtime.batch)
        remembered = self._read().get(self._key)
        if remembered is not None and 0 <= time.time() - remembered.at < _REMEMBERED_SECONDS:
            pixels = min(pixels, remembered.pixels)
        self.pixels = max(pixels, self._least)

    def shrink(self) -> str:
        """Remember half the size for the next process; why that cannot be, or nothing."""
        smaller = max(self.pixels // 2, self._least)
        if smaller >= self.pixels:
            return "there are none smaller: end other programs that use it, or set engine.device to another one"
        if not self._path:
            return "there is no cache folder to remember smaller ones in"
        remembered = self._read() | {self._key: _Remembered(smaller, time.time())}
        return self._write(remembered)

    def forget(self) -> None:
        """Let the next process begin with the full size: it was not the tiles that took the memory."""
        remembered = self._read()
        if remembered.pop(self._key, None) is not None:
            self._write(remembered)

    def _write(self, remembered: dict[str, _Remembered]) -> str:
        """Replace the file; why that cannot be, or nothing."""
        # Its own name for each process, and the rights that the umask gives: another user may run the watcher.
        temporary = f"{self._path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(msgspec.json.encode(remembered))
                os.replace(temporary, self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            return f"smaller ones cannot be remembered in {self._path}: {error.strerror}"
        return ""

    def _read(self) -> dict[str, _Remembered]:
        with contextlib.suppress(OSError, msgspec.DecodeError), open(self._path, "rb") as file:
            return msgspec.json.decode(file.read(), type=dict[str, _Remembered])
        return {}


def largest_tile(free_bytes: int, model: Model, tile_pixels: int, tiles: int) -> int:
    """The area of tiles, at most `tile_pixels`, of which `tiles` at the same time fit."""
    # Half of it: the estimate is coarse, and pictures need memory beside it.
    return min(tile_pixels, max(free_bytes, 0) // 2 // (bytes_per_pixel(model) * tiles))


def bytes_per_pixel(model: Model) -> int:
    """Device memory that a pixel of a tile takes while the network runs, roughly, in fp32."""
    return _FLOAT_BYTES * (_LIVE_TENSORS * model.features + 3 * 3 * model.scale**2)


def free_device_bytes(device: str) -> int | None:
    """Memory that is free on a device now; None where the system does not tell."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return available_bytes()
    if kind in ("cuda", "tensorrt"):
        with contextlib.suppress(NvmlUnavailable), Nvml() as nvml:
            memory = nvml.read(nvml.find(device, os.environ)).memory
            return None if memory is None else memory.free
    return None
