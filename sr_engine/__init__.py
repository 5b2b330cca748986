"""The GPU side of dropscale: one process that upscales a batch of pictures and exits.

For notebooks and scripts there is `upscale`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt


def upscale(
    image: "npt.NDArray[np.unsignedinteger] | str | os.PathLike[str]",
    *,
    model: str = "auto",
    models_folder: str = "",
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    ensemble: bool = False,
) -> "npt.NDArray[np.unsignedinteger]":
    """Enlarge one picture, in this process.

    The model is loaded at the first call and kept for the next ones: restart the kernel to give its memory back.

    Args:
        image: an array HxW (grey), HxWx3 (red, green, blue) or HxWx4 (with straight alpha), uint8 on 0 .. 255 or
            uint16 on 0 .. 65535; or the path of a picture of any kind that dropscale reads.
        model: a name that `dropscale models list` shows as installed; "auto": the light one, or on a GPU the large one.
        models_folder: where your own models are; empty: the platform's folder for a user's data.
        runtime: "auto", "opencv", "openvino" or "onnx".
        device: "auto", "cpu", "gpu", "cuda", ...
        precision: "auto", "fp32", "fp16" or "bf16".
        ensemble: whether to average what eight turned and mirrored copies give: a little better, eight times the work.

    Returns:
        (scale * H)x(scale * W), x3 or x4 as the picture has it, of the same type and range. Of a path: upright, grey
        stays HxW; of several pages the first.

    Raises:
        ValueError: the array has another shape or type, or is empty.
        sr_engine.errors.EngineError: the file cannot be read, the model or the runtime is not there, the memory does
            not suffice; `message` says what to do.

    Example:
        >>> import numpy as np
        >>> from sr_engine import upscale
        >>> upscale(np.zeros((40, 50, 3), np.uint8)).shape
        (120, 150, 3)
    """
    # Not at the top: the watcher imports this package, and must not load numpy.
    from sr_engine import arrays, loading, runtimes  # noqa: PLC0415

    options = runtimes.Options(device, precision)
    return arrays.upscale(image, loading.Choice(model, models_folder, runtime, options, ensemble))
