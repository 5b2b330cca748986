"""How far a network looks, read off its graph: the exact halo, where all its layers are of known kinds."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

# What works on each pixel by itself, or on the channels of one.
_POINTWISE = frozenset(
    {"Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant", "DepthToSpace", "Div", "Dropout"}
    | {"Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean"}
    | {"Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"}
    | {"Softplus", "Softsign", "Split", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu"}
)
# Pixels on each side that an interpolation takes beyond the nearest one.
_INTERPOLATIONS = {b"nearest": 1, b"linear": 1, b"cubic": 2}


class _Seen(NamedTuple):
    """What a tensor knows of the input.

    Attributes:
        step: input pixels from one of its elements to the next.
        radius: input pixels on which an element depends beyond its own place.
    """

    step: float
    radius: float


def halo_of(network: bytes) -> int | None:
    """The receptive field of an ONNX network beyond a pixel, in input pixels.

    Returns:
        None where a layer is not of a known kind: normalisation over the picture, attention, and the like.
    """
    import onnx  # noqa: PLC0415 - for the one command that needs it

    graph = onnx.load_model_from_string(network).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    seen = {value.name: _Seen(1, 0) for value in graph.input if value.name not in weights}
    for node in graph.node:
        inputs = [seen[name] for name in node.input if name in seen]
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return None  # a branch or a loop sees tensors that are none of its inputs
        if not inputs:
            continue  # computed from weights alone, or sizes
        found = _after(node, _joined(inputs), weights)
        if found is None:
            return None
        seen |= dict.fromkeys(node.output, found)
    found = seen.get(graph.output[0].name)
    return None if found is None else math.ceil(found.radius)


def _joined(inputs: list[_Seen]) -> _Seen:
    return _Seen(min(one.step for one in inputs), max(one.radius for one in inputs))


def _after(node: Any, before: _Seen, weights: Mapping[str, Any]) -> _Seen | None:
    if node.domain not in ("", "ai.onnx") or _attribute(node, "training_mode", 0):
        return None
    if node.op_type in ("Concat", "Split") and _attribute(node, "axis", 0) not in (1, -3):
        return None
    if node.op_type in _POINTWISE:
        # Blocks of channels become pixels: each lies within the pixel that it comes from.
        step = before.step / _attribute(node, "blocksize", 1) if node.op_type == "DepthToSpace" else before.step
        return before._replace(step=step)
    if node.op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        return _window(node, before, weights)
    if node.op_type == "Resize":
        return _resized(node, before, weights)
    return None


def _window(node: Any, before: _Seen, weights: Mapping[str, Any]) -> _Seen | None:
    kernel = _attribute(node, "kernel_shape", None) or (
        list(weights[node.input[1]].dims[2:]) if len(node.input) > 1 and node.input[1] in weights else None
    )
    if kernel is None:
        return None
    strides = _attribute(node, "strides", [1] * len(kernel))
    dilations = _attribute(node, "dilations", [1] * len(kernel))
    pads = _attribute(node, "pads", [0] * 2 * len(kernel))
    if node.op_type == "ConvTranspose":
        if _attribute(node, "output_shape", None) or _attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            return None
        # Several elements of the finer grid around the one that an element is spread over.
        extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        if max(pads) >= min(extents):
            return None
        spread = max(math.ceil(extent / stride) for extent, stride in zip(extents, strides, strict=True))
        return _Seen(before.step / min(strides), before.radius + before.step * spread)
    sides = []
    for axis, (size, dilation) in enumerate(zip(kernel, dilations, strict=True)):
        extent = (size - 1) * dilation
        automatic = _attribute(node, "auto_pad", b"NOTSET")
        before_it = (extent + 1) // 2 if automatic.startswith(b"SAME") else 0 if automatic == b"VALID" else pads[axis]
        sides += [before_it, extent - before_it]
    return _Seen(before.step * max(strides), before.radius + before.step * max(sides))


def _resized(node: Any, before: _Seen, weights: Mapping[str, Any]) -> _Seen | None:
    import onnx  # noqa: PLC0415

    scales = node.input[2] if len(node.input) > 2 else ""
    if scales not in weights:
        return None
    factor = float(onnx.numpy_helper.to_array(weights[scales])[-1])
    mode = _attribute(node, "mode", b"nearest")
    if _attribute(node, "antialias", 0):
        return None
    places = _attribute(node, "coordinate_transformation_mode", b"half_pixel"), _attribute(node, "nearest_mode", b"")
    exact = mode == b"nearest" and places == (b"asymmetric", b"floor")
    reach = 0 if exact and factor.is_integer() else _INTERPOLATIONS[mode]
    return _Seen(before.step / factor, before.radius + before.step * reach)


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx  # noqa: PLC0415

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default
