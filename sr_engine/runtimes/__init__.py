"""What runs a network: one small module each, all with the same two functions and one class.

`missing()` says whether the runtime is there at all, without loading a model; `load()` loads one.
"""

from typing import TYPE_CHECKING, Protocol

from sr_engine.errors import UnusableEngine
from sr_engine.models import Model

# Not at run time: a numpy that does not load has to become a sentence, not a traceback.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAMES = ("auto", "opencv")


class Runtime(Protocol):
    """A loaded network.

    Attributes:
        name: of the runtime, as in NAMES.
        device: "cpu", "cuda:0", ...
        precision: "fp32", ...
        fixed_shapes: whether a shape that was not seen before costs seconds of preparation.
    """

    name: str
    device: str
    precision: str
    fixed_shapes: bool

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """Enlarge.

        Args:
            batch: NxCxHxW, contiguous, on the model's range of values and in its order of channels.

        Returns:
            NxCx(scale * H)x(scale * W), likewise.
        """
        ...


def load(name: str, weights: str, model: Model, threads: int) -> Runtime:
    """Load a model into the runtime called `name`; "auto" takes the best that is there.

    Args:
        name: one of NAMES.
        weights: path of the verified ONNX file.
        model: its facts.
        threads: of the CPU; 0 lets the runtime decide.

    Raises:
        UnusableEngine: the runtime is not there or refuses the model; the message says what to do.
    """
    if name not in NAMES:
        raise UnusableEngine(f"no runtime is called {name!r}: there are {', '.join(NAMES)}")
    # Imported here, as each of them is seconds of cold start that the others must not pay.
    from sr_engine.runtimes import opencv  # noqa: PLC0415

    reason = opencv.missing()
    if reason:
        raise UnusableEngine(reason)
    return opencv.load(weights, model, threads)
