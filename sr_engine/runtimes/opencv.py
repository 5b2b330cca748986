"""OpenCV's own inference: always installed, no preparation, any shape at full speed.

The wheels on PyPI run on CPUs only. Where OpenCV was built with CUDA, its older engine runs on NVIDIA's GPUs.
"""

import threading
from typing import TYPE_CHECKING, Any

from sr_engine import admission
from sr_engine.errors import UnusableEngine
from sr_engine.models import Model
from sr_engine.runtimes import Options, OutOfDeviceMemory

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_GPU_TILE_PIXELS = 512 * 512


def missing() -> str:
    """Why OpenCV cannot be used here and what to do, in one sentence; empty if it can."""
    try:
        import cv2  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install opencv-contrib-python-headless"
    except ImportError as error:
        # The wheel opencv-contrib-python contains windows and buttons, and needs a desktop's libraries for them.
        return (
            f"OpenCV does not load ({error}); either replace it by the build that needs no desktop: "
            "pip uninstall -y opencv-contrib-python && pip install opencv-contrib-python-headless; or install "
            "what it misses, on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
        )
    return ""


def load(weights: str, model: Model, options: Options) -> "OpenCvRuntime":
    """Load the ONNX file `weights`; see `sr_engine.runtimes.load`.

    Raises:
        UnusableEngine: OpenCV has not the device or the precision, or refuses the file.
        DeviceBusy: others hold the device.
    """
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    device, number = _device(options.device)
    precision = _precision(device, options.precision)
    if options.threads:
        cv2.setNumThreads(options.threads)
    try:
        # From memory: a path that is not UTF-8 would not survive the way into C++.
        data = np.fromfile(weights, np.uint8)
        if device == "cpu":
            return OpenCvRuntime(cv2.dnn.readNetFromONNX(data), device, precision)
        # The new engine of OpenCV 5 stays on the CPU whatever it is told, with a warning at most.
        net = cv2.dnn.readNetFromONNX(data, engine=cv2.dnn.ENGINE_CLASSIC)
        name = f"cuda:{number}"
        with admission.entered(name, admission.Work(model, _GPU_TILE_PIXELS, OpenCvRuntime.batch), options.admission):
            cv2.cuda.setDevice(number)
            net.setPreferableBackend(cv2.dnn.DNN_BACKEND_CUDA)
            net.setPreferableTarget(cv2.dnn.DNN_TARGET_CUDA_FP16 if precision == "fp16" else cv2.dnn.DNN_TARGET_CUDA)
            return OpenCvRuntime(net, name, precision)
    except OSError as error:
        raise UnusableEngine(f"cannot read the model {weights}: {error.strerror}") from error
    except cv2.error as error:
        raise UnusableEngine(f"OpenCV cannot load the model {model.file} on {device}: {error.err}") from error


def _device(wanted: str) -> tuple[str, int]:
    """The kind of device, cpu or cuda, and which one of several."""
    name, colon, number = wanted.partition(":")
    if colon and (not number.isdecimal() or name not in ("cuda", "gpu")):
        raise UnusableEngine(f"no device is called {wanted!r}: numbers go with cuda and gpu, as in cuda:1")
    if name == "cpu":
        return "cpu", 0
    count = _cuda_devices()
    if name == "auto":
        return ("cuda" if count else "cpu"), 0
    if name not in ("cuda", "gpu"):
        raise UnusableEngine(
            f"OpenCV has no device {name}: set engine.device to cpu or cuda, or engine.runtime to onnx or openvino"
        )
    if not count:
        raise UnusableEngine(
            "this OpenCV has no CUDA, or finds no GPU: build it with CUDA and cuDNN, or use ONNX Runtime: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' onnx and set engine.runtime to onnx"
        )
    if int(number or 0) >= count:
        raise UnusableEngine(f"there is no GPU {number}: OpenCV counts {count}, beginning with cuda:0")
    return "cuda", int(number or 0)


def _cuda_devices() -> int:
    """How many GPUs OpenCV's inference can use."""
    import cv2  # noqa: PLC0415

    # Two questions, as CUDA can be built into the one and not into the other. -1: the driver is too old.
    if cv2.dnn.DNN_TARGET_CUDA not in cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_CUDA):
        return 0
    return max(0, int(cv2.cuda.getCudaEnabledDeviceCount()))


def _precision(device: str, wanted: str) -> str:
    import cv2  # noqa: PLC0415

    half = device == "cuda" and cv2.dnn.DNN_TARGET_CUDA_FP16 in cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_CUDA)
    if wanted == "auto":
        return "fp16" if half else "fp32"
    if wanted == "fp32" or (wanted == "fp16" and half):
        return wanted
    raise UnusableEngine(
        f"OpenCV has no {wanted} on {device}: set engine.precision to auto or fp32, "
        "or engine.runtime to openvino or onnx"
    )


class OpenCvRuntime:
    """A network in `cv2.dnn`."""

    name = "opencv"
    # A net takes one call at a time. Several nets of one thread each took from a busy encoder what they gained, and
    # each holds 0.3 GB of its own.
    streams = 1
    batch = 1
    even_widths = False

    def __init__(self, net: Any, device: str, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.fixed_shapes = device != "cpu"
        self.tile_pixels = 768 * 1024 if device == "cpu" else _GPU_TILE_PIXELS
        self._net = net
        self._lock = threading.Lock()  # `sr_engine.upscale` may be called by several threads

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """See `sr_engine.runtimes.Runtime.run`."""
        import cv2  # noqa: PLC0415

        try:
            with self._lock:
                self._net.setInput(batch)
                result: npt.NDArray[np.float32] = self._net.forward()
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem or (
                error.code == cv2.Error.GpuApiCallError and "out of memory" in error.err
            ):
                raise OutOfDeviceMemory(error.err) from error
            raise
        return result

    def run_bytes(self, batch: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8] | None":
        """See `sr_engine.runtimes.Runtime.run_bytes`."""
        return None

    def close(self) -> None:
        """See `sr_engine.runtimes.Runtime.close`."""
        self._net = None
