"""OpenVINO: the fastest on CPUs, in bf16 where they have it; also Intel's GPUs and NPUs.

On a CPU one compiled model takes tiles of any shape: a new shape costs milliseconds there, and a picture that needs
no cutting needs no halo. GPUs and NPUs prepare anew for every shape, so they get few of them and keep what they
compiled in the cache folder.
"""

import importlib.util
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from sr_engine.errors import UnusableEngine
from sr_engine.machine import processors
from sr_engine.models import Model
from sr_engine.runtimes import Options, OutOfDeviceMemory, openvino_graph

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
# A stream holds the tile's intermediate results in memory of its own, and beyond four the gain is small.
_MOST_STREAMS = 4
_MEMORY_TROUBLE = (
    "bad_alloc",
    "out of memory",
    "out_of_memory",
    "out_of_resources",
    "can't alloc",
    "could not allocate",
    "failed to allocate",
    "std::future_error",  # a kernel that could not be built for want of memory
    "exceeds max size",
)
# Shapes that a device prepared for; each keeps a compiled model in its memory.
_MOST_SHAPES = 8


def missing() -> str:
    """Why OpenVINO cannot be used here and what to do, in one sentence; empty if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed: pip install openvino"
    return ""


def load(weights: str, model: Model, options: Options) -> "OpenVinoRuntime":
    """Load the ONNX file `weights`; see `sr_engine.runtimes.load`.

    Raises:
        UnusableEngine: OpenVINO does not load, has not the device or the precision, or refuses the file.
    """
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise UnusableEngine(f"openvino does not load ({error}): pip install --force-reinstall openvino") from error
    core = openvino.Core()
    device = _device(core, options.device)
    precision = _precision(core, device, options.precision)
    if options.cache_folder and _is_utf8(options.cache_folder):
        # Written anew where it is cut off or of another version.
        core.set_property({"CACHE_DIR": os.path.join(options.cache_folder, "openvino")})
    try:
        with open(weights, "rb") as file:
            network = core.read_model(file.read(), b"")  # a path that is not UTF-8 would not survive the way into C++
        return OpenVinoRuntime(core, network, model, device, precision, options.threads)
    except OSError as error:
        raise UnusableEngine(f"cannot read the model {weights}: {error.strerror}") from error
    except OutOfDeviceMemory as error:
        raise UnusableEngine(f"the memory of {device.lower()} does not suffice now, free some: {error}") from error
    except RuntimeError as error:
        raise UnusableEngine(f"OpenVINO cannot load the model {model.file} on {device}: {_last_line(error)}") from error


def _device(core: Any, wanted: str) -> str:
    """OpenVINO's name of the device, "CPU" or "GPU.1"."""
    found: list[str] = core.available_devices
    if wanted == "auto":
        # An integrated GPU shares the memory's bandwidth with the CPU, and is slower than one that has bf16.
        return "CPU"
    kind, _, number = wanted.partition(":")
    if kind in _DEVICES:
        name = _DEVICES[kind]
        matching = [device for device in found if device.partition(".")[0] == name]
        if ":" in wanted:  # a single GPU has no number in its name
            matching = [
                device
                for device in matching
                if name != "CPU" and (device == f"{name}.{number}" or (device == name and number == "0"))
            ]
        if matching:
            return matching[0]
    raise UnusableEngine(
        f"OpenVINO finds no device {wanted!r} on this machine, only {', '.join(found).lower()}: "
        "set engine.device to one of these, or install the device's driver"
    )


def _precision(core: Any, device: str, wanted: str) -> str:
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        # fp16 on a CPU is slower than fp32 even where the processor has it (docs/benchmarks.md).
        order = ("bf16", "fp32") if device == "CPU" else ("fp16", "fp32")
        return next((precision for precision in order if _CAPABILITIES[precision] in able), "fp32")
    if wanted != "fp32" and _CAPABILITIES[wanted] not in able:
        raise UnusableEngine(f"the device {device.lower()} has no {wanted}: set engine.precision to auto or fp32")
    return wanted


class OpenVinoRuntime:
    """A network in OpenVINO."""

    name = "openvino"

    def __init__(self, core: Any, network: Any, model: Model, device: str, precision: str, threads: int) -> None:
        """Compile for any shape, where the device can.

        Raises:
            RuntimeError: as OpenVINO's `compile_model`.
            OutOfDeviceMemory: the device is full.
        """
        import numpy as np  # noqa: PLC0415

        self.device = device.lower().replace(".", ":")
        self.precision = precision
        self.fixed_shapes = device != "CPU"
        self.batch = 1 if device == "CPU" else 4
        self.tile_pixels = 768 * 1024 if device == "CPU" else 512 * 512
        self.even_widths = device == "CPU" and precision == "bf16"  # fp32 runs alike at all widths
        self.streams = 2
        self._core, self._device, self._model = core, device, model
        self._properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        if device == "CPU":
            available = threads or processors()
            # Streams of few threads, not one of all: tiles then don't wait for each other's slowest thread while
            # encoders take turns on the same cores.
            self.streams = min(available, _MOST_STREAMS)
            self._properties |= {"INFERENCE_NUM_THREADS": available, "NUM_STREAMS": self.streams}
        self._lock = threading.Lock()
        self._networks = {"float": network}
        self._cut_before_shuffle = False
        if model.channels == 3:
            self._networks["bytes"], self._cut_before_shuffle = openvino_graph.on_bytes(network, model)
        side = 1 if device == "CPU" else 256
        self._requests: dict[tuple[str, tuple[int, ...]], queue.SimpleQueue[Any]] = {}
        # Its first use, on one thread: two threads that begin at the same time can lock each other out for ever
        # (OpenVINO 2026.4, where its Python part dispatches on the type of the input).
        if model.channels == 3:
            self.run_bytes(np.zeros((1, side, side, 3), np.uint8))
        else:
            self.run(np.zeros((1, model.channels, side, side), np.float32))

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """See `sr_engine.runtimes.Runtime.run`."""
        result: npt.NDArray[np.float32] = self._infer("float", batch)
        return result

    def run_bytes(self, batch: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8] | None":
        """See `sr_engine.runtimes.Runtime.run_bytes`."""
        result: npt.NDArray[np.uint8] = self._infer("bytes", batch)
        return result

    def close(self) -> None:
        """See `sr_engine.runtimes.Runtime.close`."""
        self._requests.clear()
        self._networks.clear()

    def _infer(self, kind: str, batch: Any) -> Any:
        try:
            pool = self._pool(kind, () if not self.fixed_shapes else batch.shape)
            request = pool.get()
            try:
                # Shared: the network reads our array. The result has to be copied, the request reuses its memory.
                result = request.infer({0: batch}, share_inputs=True, share_outputs=True)[0]
                if kind == "float":
                    return result.copy()
                if self._cut_before_shuffle:
                    return openvino_graph.shuffled(result, self._model.scale)
                return openvino_graph.interleaved(result)
            finally:
                pool.put(request)
        except MemoryError as error:
            raise OutOfDeviceMemory(str(error)) from error
        except RuntimeError as error:
            if any(sign in str(error).lower() for sign in _MEMORY_TROUBLE):
                raise OutOfDeviceMemory(_last_line(error)) from error
            raise

    def _pool(self, kind: str, shape: tuple[int, ...]) -> "queue.SimpleQueue[Any]":
        """As many requests as there are streams, for tiles of one shape, or of any (the empty one)."""
        with self._lock:
            if (kind, shape) not in self._requests:
                if len(self._requests) >= _MOST_SHAPES:
                    del self._requests[next(iter(self._requests))]
                network = self._networks[kind]
                network.reshape({0: list(shape) if shape else self._any_shape(kind)})
                compiled = self._core.compile_model(network, self._device, self._properties)
                pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
                for _ in range(self.streams):
                    pool.put(compiled.create_infer_request())
                self._requests[kind, shape] = pool
            return self._requests[kind, shape]

    def _any_shape(self, kind: str) -> list[int]:
        return [-1, self._model.channels, -1, -1] if kind == "float" else [-1, -1, -1, 3]


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # the surrogates that stand for other bytes
        return False
    return True


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
