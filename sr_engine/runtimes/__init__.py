"""What runs a network: one small module each, all with the same two functions and one class.

`missing()` says whether the runtime is there at all, without loading a model; `load()` loads one.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sr_engine import admission
from sr_engine.errors import DeviceBusy, EngineError, UnusableEngine
from sr_engine.models import Model, onnxruntime_is_for_gpus

# Not at run time: a numpy that does not load has to become a sentence, not a traceback.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAMES = ("auto", "opencv", "openvino", "onnx")
# What users call devices; "gpu" is whatever the runtime has of that sort. A number after a colon picks one of several.
DEVICES = ("auto", "cpu", "gpu", "npu", "cuda", "tensorrt", "directml", "coreml")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


# The order in which "auto" tries them is that of their speed as measured (docs/benchmarks.md).
_DEVICES_OF = {
    "opencv": {"cpu", "gpu", "cuda"},
    "openvino": {"cpu", "gpu", "npu"},
    "onnx": {"cpu", "gpu", "cuda", "tensorrt", "directml", "coreml"},
}


class Options(NamedTuple):
    """How to run a network.

    Attributes:
        device: one of DEVICES, perhaps with a number: "cuda:1". "auto": the best that this runtime finds, of its own.
        precision: one of PRECISIONS. "auto": what is fastest on the device within the bounds of docs/benchmarks.md.
        threads: of the CPU; 0 lets the runtime decide.
        cache_folder: where compiled models are kept between processes; empty: nowhere.
        admission: what to do where others hold the device, see `sr_engine.admission`.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    cache_folder: str = ""
    admission: str = admission.NONE


class OutOfDeviceMemory(Exception):
    """The device cannot hold this batch: smaller tiles may fit, in a fresh process."""


class Runtime(Protocol):
    """A loaded network. `run` may be called by `streams` threads at a time.

    Attributes:
        name: of the runtime, as in NAMES.
        device: "cpu", "cuda:0", ...
        precision: "fp32", "fp16" or "bf16".
        fixed_shapes: whether a shape that was not seen before costs seconds of preparation.
        streams: how many runs at a time keep the device busy.
        batch: how many tiles of one shape are worth sending together.
        tile_pixels: the largest area of a tile that is worth sending, before any shortage of memory.
        even_widths: whether widths that are no multiple of 4 run slowly.
    """

    name: str
    device: str
    precision: str
    fixed_shapes: bool
    streams: int
    batch: int
    tile_pixels: int
    even_widths: bool

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """Enlarge.

        Args:
            batch: NxCxHxW, contiguous, on the model's range of values and in its order of channels.

        Returns:
            NxCx(scale * H)x(scale * W), likewise.

        Raises:
            OutOfDeviceMemory: the device cannot hold it.
        """
        ...

    def run_bytes(self, batch: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8] | None":
        """Enlarge 8-bit pixels, with all conversions on the device; None where the runtime cannot.

        Args:
            batch: NxHxWx3, contiguous; blue, green, red.

        Returns:
            Nx(scale * H)x(scale * W)x3, rounded to the nearest level and clipped.

        Raises:
            OutOfDeviceMemory: the device cannot hold it.
        """
        ...

    def close(self) -> None:
        """Let the device go. Afterwards nothing may be run."""
        ...


def load(name: str, weights: str, model: Model, options: Options) -> tuple[Runtime, str]:
    """Load a model into the runtime called `name`; "auto" takes the fastest that is installed and works.

    Args:
        name: one of NAMES.
        weights: path of the verified ONNX file.
        model: its facts.
        options: see there.

    Returns:
        The runtime, and why it was chosen (empty where it was asked for).

    Raises:
        UnusableEngine: the runtime is not there, has not the device or refuses the model; the message says what to do.
        DeviceBusy: others hold the device.
    """
    if name not in NAMES:
        raise UnusableEngine(f"no runtime is called {name!r}: there are {', '.join(NAMES)}")
    if name != "auto":
        return _load(name, weights, model, options), ""
    passed = []
    busy: DeviceBusy | None = None
    for candidate, device in _candidates(options.device):
        try:
            runtime = _load(candidate, weights, model, options._replace(device=device))
        except UnusableEngine as error:
            passed.append(f"{candidate}: {error.message}")
            if not _module(candidate).missing():
                # Installed and not working: somebody expects it to work.
                sys.stderr.write(f"NOT USING {candidate}: {error.message}\n")
        except DeviceBusy as error:
            if options.admission != admission.ANY:
                raise
            passed.append(error.message)
            sys.stderr.write(f"NOT USING {candidate}: {error.message}\n")
            busy = error
        else:
            return runtime, "; ".join(["the fastest here", *passed])
    if busy is not None:
        raise busy
    raise UnusableEngine("; ".join(passed) or f"no runtime knows a device called {options.device!r}")


def _candidates(device: str) -> list[tuple[str, str]]:
    """Runtimes to try, each with the device to ask it for."""
    if device == "auto":
        return [("onnx", "gpu")] * onnxruntime_is_for_gpus() + [
            ("openvino", "auto"),
            ("onnx", "cpu"),
            ("opencv", "auto"),
        ]
    order = ("openvino", "onnx", "opencv") if device == "cpu" else ("onnx", "openvino", "opencv")
    return [(name, device) for name in order if device.partition(":")[0] in _DEVICES_OF[name]]


def _load(name: str, weights: str, model: Model, options: Options) -> Runtime:
    module = _module(name)
    reason = module.missing()
    if reason:
        raise UnusableEngine(reason)
    try:
        runtime: Runtime = module.load(weights, model, options)
    except EngineError:
        raise
    except Exception as error:
        # A package that is half installed, or of another platform, raises anything.
        raise UnusableEngine(
            f"{name} does not load ({type(error).__name__}: {error}): "
            "install it again, or set engine.runtime to another one"
        ) from error
    return runtime


def _module(name: str) -> Any:
    # Imported by name, as each of them is seconds of cold start that the others must not pay.
    return importlib.import_module(f"sr_engine.runtimes.{name}")
