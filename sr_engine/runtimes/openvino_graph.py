"""A network for OpenVINO with all conversions inside: bytes in, bytes out.

What comes after the last convolution has nine times the pixels and is done without matrix units, so on a fast CPU it
costs up to a quarter of the time. Networks that end with a pixel shuffle, and perhaps add the input to it, are
therefore cut before the shuffle: all that remains is done on the small picture, and the shuffle is one copy of bytes.
"""

from typing import TYPE_CHECKING, Any

from sr_engine.models import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CHANNELS = 1  # their axis in NxCxHxW
_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def on_bytes(network: Any, model: Model) -> tuple[Any, bool]:
    """A copy of `network` that takes NxHxWx3 bytes: blue, green, red.

    Returns:
        The network, and whether it ends before the shuffle. If so it gives NxHxWx(3 * scale * scale) bytes for
        `shuffled`, else Nx3x(scale * H)x(scale * W); the order of colours is that of the input.
    """
    import numpy as np  # noqa: PLC0415
    import openvino.opset13 as ops  # noqa: PLC0415
    from openvino import Model as Graph  # noqa: PLC0415

    graph = network.clone()
    outer = ops.parameter([-1, -1, -1, 3], np.uint8)
    flipped = np.array([2, 1, 0] if model.color == "rgb" else [0, 1, 2], np.int32)
    values = ops.convert(ops.transpose(outer, np.array([0, 3, 1, 2], np.int32)), "f32")
    values = ops.gather(ops.multiply(values, np.float32(model.value_range / 255)), flipped, np.int32(_CHANNELS))
    for target in list(graph.get_parameters()[0].output(0).get_target_inputs()):
        target.replace_source_output(values.output(0))
    end = graph.get_results()[0].input_value(0).get_node()

    shuffle, with_input = _shuffle(end, values, model.scale)
    features = end if shuffle is None else shuffle.input_value(0).get_node()
    # of channel c and position k within the enlarged pixel: c * scale^2 + k, or k * 3 + c
    positions = model.scale**2
    depth_first = shuffle is not None and shuffle.get_attributes()["mode"] == "depth_first"
    order = np.arange(3 * positions, dtype=np.int32)
    place = order.reshape(3, positions) if depth_first else order.reshape(positions, 3).T
    if with_input:
        repeat = np.zeros((3 * positions, 3, 1, 1), np.float32)
        for channel in range(3):
            repeat[place[channel], channel] = 1
        features = ops.add(features, ops.convolution(values, repeat, [1, 1], [0, 0], [0, 0], [1, 1]))
    levels = ops.multiply(features, np.float32(255 / model.value_range))
    levels = ops.convert(ops.round(ops.clamp(levels, 0, 255), "half_to_even"), "u8")
    if shuffle is None:
        levels = ops.gather(levels, flipped, np.int32(_CHANNELS))
    else:
        levels = ops.transpose(levels, np.array([0, 2, 3, 1], np.int32))
        levels = ops.gather(levels, place[flipped].T.reshape(-1), np.int32(3))
    return Graph([ops.result(levels)], [outer], model.file), shuffle is not None


def shuffled(result: "npt.NDArray[np.uint8]", scale: int) -> "npt.NDArray[np.uint8]":
    """Nx(scale * H)x(scale * W)x3 from what a network cut before its shuffle gives."""
    import numpy as np  # noqa: PLC0415

    number, height, width, _ = result.shape
    enlarged = np.empty((number, height * scale, width * scale, 3), np.uint8)
    # Three bytes for each of the new pixels side by side: they move as one item.
    item = f"V{3 * scale}"
    source = result.reshape(number, height, width, 3 * scale**2).view(item)
    enlarged.reshape(number, height, scale, width * 3 * scale).view(item)[:] = source.transpose(0, 1, 3, 2)
    return enlarged


def interleaved(planar: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8]":
    """NxHxWx3 from Nx3xHxW: slow inside OpenVINO, fast in OpenCV."""
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    number, channels, height, width = planar.shape
    result = np.empty((number, height, width, channels), np.uint8)
    for planes, target in zip(planar, result, strict=True):
        cv2.merge(list(planes), target)
    return result


def _shuffle(end: Any, values: Any, scale: int) -> tuple[Any, bool]:
    """The pixel shuffle at the end of a network, if there is one, and whether the enlarged input is added to it."""
    if end.get_type_name() == "Add":
        parts = {node.get_type_name(): node for node in (end.input_value(0).get_node(), end.input_value(1).get_node())}
        enlarged, shuffle = parts.get("Interpolate"), parts.get("DepthToSpace")
        if enlarged is None or shuffle is None:
            return None, False
        attributes = enlarged.get_attributes()
        plain = all(attributes[name] == value for name, value in _NEAREST.items())
        if not plain or enlarged.input_value(0).get_node().get_friendly_name() != values.get_friendly_name():
            return None, False
    elif end.get_type_name() == "DepthToSpace":
        shuffle = end
    else:
        return None, False
    fits = shuffle.get_attributes()["block_size"] == scale
    return (shuffle, end is not shuffle) if fits else (None, False)
