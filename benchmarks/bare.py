"""What the engine is compared with: inference alone, on arrays that are in memory already."""

from collections.abc import Callable

import numpy as np

# Takes 1x3xHxW float32 and gives 1x3x3Hx3W float32.
Inference = Callable[[np.ndarray], np.ndarray]


def runtime(name: str, precision: str, weights: str, shape: tuple[int, int]) -> Inference:
    """The runtime with its own defaults, prepared for one shape."""
    return {"openvino": _openvino, "opencv": _opencv, "onnx": _onnx}[name](precision, weights, (1, 3, *shape))


def _openvino(precision: str, weights: str, shape: tuple[int, ...]) -> Inference:
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    network = core.read_model(weights)
    network.reshape(list(shape))
    hint = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
    request = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    # Shared: nothing is copied, neither in nor out.
    return lambda tile: request.infer({0: tile}, share_inputs=True, share_outputs=True)[0]


def _opencv(precision: str, weights: str, _shape: tuple[int, ...]) -> Inference:
    import cv2  # noqa: PLC0415

    assert precision == "fp32"
    network = cv2.dnn.readNetFromONNX(weights)

    def infer(tile: np.ndarray) -> np.ndarray:
        network.setInput(tile)
        return network.forward()

    return infer


def _onnx(precision: str, weights: str, shape: tuple[int, ...]) -> Inference:
    import onnxruntime  # noqa: PLC0415

    assert precision == "fp32"
    options = onnxruntime.SessionOptions()
    for name, length in zip("nhw", (shape[0], *shape[2:]), strict=True):
        options.add_free_dimension_override_by_name(name, length)
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    return lambda tile: session.run(None, {"input": tile})[0]


def torch_missing() -> str:
    """Why PyTorch cannot be compared with here; empty if it can."""
    try:
        import onnx  # noqa: F401, PLC0415
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        return f"{error.name} is not installed: pip install torch==2.13.0 onnx"
    return ""


def torch_eager(precision: str, weights: str) -> Inference:
    """EDSR written in PyTorch, with the weights of the ONNX file, for tiles of any shape.

    With channels last in memory, which PyTorch doesn't do by itself and which is much faster on CPUs with AMX.
    """
    import onnx  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from torch.nn import functional  # noqa: PLC0415

    graph = onnx.load(weights).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each).copy() for each in graph.initializer}
    last = torch.channels_last
    layers = [
        (
            torch.from_numpy(arrays[node.input[1]]).contiguous(memory_format=last),
            torch.from_numpy(arrays[node.input[2]]),
        )
        for node in graph.node
        if node.op_type == "Conv"
    ]

    def convolve(layer: int, values: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(values, *layers[layer], padding=1)

    def enlarge(values: torch.Tensor) -> torch.Tensor:
        head = features = convolve(0, values)
        for first in range(1, len(layers) - 2, 2):
            features = features + convolve(first + 1, functional.relu_(convolve(first, features)))
        features = convolve(-2, features) + head
        detail = functional.pixel_shuffle(convolve(-1, features), 3)
        return detail + functional.interpolate(values, scale_factor=3, mode="nearest")

    def infer(tile: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return enlarge(torch.from_numpy(tile).contiguous(memory_format=last)).numpy()

    return infer
