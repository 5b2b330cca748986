"""Whether there is room on a GPU for this process, asked before it makes a context there.

Other programs may hold the memory, and another dropscale the GPU. Somebody has to wait then, or to be content with
less; what is right depends on how long was waited already, which only the watcher knows. So it says which of `MODES` it
wants.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from sr_engine import device_lock
from sr_engine.errors import DeviceBusy
from sr_engine.models import Model
from sr_engine.nvml import Gpu, Memory, Nvml, NvmlUnavailable, described

# "full": the usual tiles or nothing. "any": smaller tiles, too, or another device, if it was not asked for by number.
# "": no questions, for processes that are no batch.
FULL, ANY, NONE = "full", "any", ""
MODES = (FULL, ANY)

_NVIDIA = ("cuda", "tensorrt")
# A context with the libraries' own kernels: 345 MB with ONNX Runtime (onnxruntime#9138), 300 to 400 MB with PyTorch.
_CONTEXT_BYTES = 512 << 20
# Tiles of half the area cost a few hundredths more time; that is not worth a wait.
_GOOD_ENOUGH = 2


class Work(NamedTuple):
    """What is going to run: `tile_pixels` is the area of the usual tile, `tiles` how many of them at the same time."""

    model: Model
    tile_pixels: int
    tiles: int


@contextlib.contextmanager
def entered(device: str, work: Work, mode: str) -> Iterator[None]:
    """See that there is room, and let the block make its context.

    The lock is this process's until it ends, or until the block fails. Without NVML there is a lock only.

    Args:
        device: "cuda:0", ...
        work: what for.
        mode: one of MODES, or NONE.

    Raises:
        DeviceBusy: there is none; the message says who holds it.
    """
    if mode == NONE:
        yield
        return
    with contextlib.ExitStack() as stack:
        nvml, gpu = _gpu(device, stack)
        name = gpu.uuid if gpu is not None and gpu.uuid else device.replace("tensorrt", "cuda")
        is_new = device_lock.take(name, device)
        try:
            if is_new and nvml is not None and gpu is not None:  # else what is held is our own
                _check_room(nvml, gpu, device, work, mode)
            yield  # with NVML open: the driver need not wake the GPU twice
        except BaseException:
            if is_new:
                device_lock.release(name)
            raise


def others(device: str, mode: str) -> list[int]:
    """The numbers of this kind of device to try after the first, if it is busy."""
    if mode != ANY or device not in _NVIDIA:
        return []
    with contextlib.suppress(NvmlUnavailable), Nvml() as nvml:
        return list(range(1, nvml.count(os.environ)))
    return []


def _gpu(device: str, stack: contextlib.ExitStack) -> tuple[Nvml | None, Gpu | None]:
    if device.partition(":")[0] not in _NVIDIA:
        return None, None
    try:
        nvml = stack.enter_context(Nvml())
        return nvml, nvml.find(device, os.environ)
    except NvmlUnavailable as error:
        sys.stderr.write(f"not known whether there is room on {device}: {error.reason}\n")
        return None, None


def _check_room(nvml: Nvml, gpu: Gpu, device: str, work: Work, mode: str) -> None:
    # Not at the top: they need numpy, which may not load.
    from sr_engine.tile_budget import largest_tile  # noqa: PLC0415
    from sr_engine.tiles import smallest_tile  # noqa: PLC0415

    reading = nvml.read(gpu)
    if reading.memory is None:
        sys.stderr.write(f"not known whether there is room on {device}: {reading.unknown['memory']}\n")
        return
    memory = reading.memory
    usual, now = (largest_tile(size - _CONTEXT_BYTES, *work) for size in (memory.total, memory.free))
    least = smallest_tile(work.model.halo)
    if now >= (max(usual // _GOOD_ENOUGH, least) if mode == FULL else least):
        return
    if usual < least:
        return  # it is not the others: a GPU as small as that shows by itself what it can do
    raise DeviceBusy(f"{device} has {_megabytes(memory)} free, which is too little; held: {described(reading.holders)}")


def _megabytes(memory: Memory) -> str:
    return f"{memory.free >> 20} of {memory.total >> 20} MiB"
