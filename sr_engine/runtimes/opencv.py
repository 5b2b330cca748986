"""OpenCV's own inference: always installed, CPU only, no preparation, any shape at full speed."""

from typing import TYPE_CHECKING, Any

from sr_engine.errors import UnusableEngine
from sr_engine.models import Model
from sr_engine.runtimes import Options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
        UnusableEngine: OpenCV refuses the file.
    """
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    if options.threads:
        cv2.setNumThreads(options.threads)
    try:
        # From memory: a path that is not UTF-8 would not survive the way into C++.
        return OpenCvRuntime(cv2.dnn.readNetFromONNX(np.fromfile(weights, np.uint8)))
    except OSError as error:
        raise UnusableEngine(f"cannot read the model {weights}: {error.strerror}") from error
    except cv2.error as error:
        raise UnusableEngine(f"OpenCV cannot load the model {model.file}: {error.err}") from error


class OpenCvRuntime:
    """A network in `cv2.dnn`."""

    name = "opencv"
    device = "cpu"
    precision = "fp32"
    fixed_shapes = False
    streams = 1
    batch = 1
    tile_pixels = 768 * 1024

    def __init__(self, net: Any) -> None:
        self._net = net

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """See `sr_engine.runtimes.Runtime.run`."""
        self._net.setInput(batch)
        result: npt.NDArray[np.float32] = self._net.forward()
        return result

    def run_bytes(self, batch: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8] | None":
        """See `sr_engine.runtimes.Runtime.run_bytes`."""
        return None

    def close(self) -> None:
        """See `sr_engine.runtimes.Runtime.close`."""
        self._net = None
