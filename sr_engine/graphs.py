"""Networks as ONNX files: written layer by layer, and measured.

Light: `onnx` is imported when a network is finished or measured.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sr_engine.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

INPUT = "input"
OUTPUT = "output"

Pads = tuple[int, int, int, int]
SAME = None  # as many zeros as keep height and width; of an odd number the larger half below and at the right

_OPSET = 13
_IR_VERSION = 8
_WEIGHTED = ("Conv", "ConvTranspose", "PRelu")
_PROBE_PIXELS = 64  # along each side


class Facts(NamedTuple):
    """What a network costs.

    Attributes:
        flop_per_pixel: floating point operations of all convolutions per input pixel; a multiply-add is two.
        features: values per input pixel in the largest tensor: the channels of the widest layer, where layers work at
            the input's resolution.
        weights: how many numbers the layers hold.
    """

    flop_per_pixel: float
    features: int
    weights: int


class _Node(NamedTuple):
    operator: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class GraphWriter:
    """Writes a network from its input to its output; tensors are NxCxHxW, in fp32.

    Each method adds a layer and returns the name of its result, which other layers take as `x`. The network's own
    input is called `INPUT`.
    """

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._constants: dict[str, Floats] = {}

    def convolution(self, x: str, weights: "Floats", bias: "Floats | None" = None, pads: Pads | None = SAME) -> str:
        """A convolution with steps of one.

        Args:
            x: the name of a tensor.
            weights: outputs x inputs x height x width.
            bias: one for each output.
            pads: zeros at the top, left, bottom and right.
        """
        height, width = weights.shape[2:]
        if pads is None:
            pads = ((height - 1) // 2, (width - 1) // 2, height // 2, width // 2)
        return self._weighted("Conv", x, weights, bias, pads=pads)

    def relu(self, x: str) -> str:
        """Nothing below zero."""
        return self._add("Relu", [x])

    def prelu(self, x: str, slopes: "Floats") -> str:
        """Values below zero times `slopes`, one for each channel."""
        return self._add("PRelu", [x, self._constant("slopes", slopes.reshape(-1, 1, 1))])

    def tanh(self, x: str) -> str:
        """The hyperbolic tangent."""
        return self._add("Tanh", [x])

    def add(self, a: str, b: str) -> str:
        """The sum of two tensors of one shape."""
        return self._add("Add", [a, b])

    def add_constant(self, x: str, values: "Floats") -> str:
        """Add one value for each channel."""
        return self._add("Add", [x, self._constant("values", values.reshape(1, -1, 1, 1))])

    def subtract_constant(self, x: str, values: "Floats") -> str:
        """Subtract one value for each channel."""
        return self._add("Sub", [x, self._constant("values", values.reshape(1, -1, 1, 1))])

    def multiply_constant(self, x: str, values: "Floats") -> str:
        """Multiply by one value for each channel."""
        return self._add("Mul", [x, self._constant("values", values.reshape(1, -1, 1, 1))])

    def shuffle(self, x: str, scale: int, mode: str = "DCR") -> str:
        """Put channels side by side, as pixels of an image `scale` times as large along each side.

        Args:
            x: the name of a tensor with channels * scale * scale channels.
            scale: along each side.
            mode: "DCR", channels of one position follow each other, as in TensorFlow; "CRD", positions of one channel
                do, as in PyTorch.
        """
        return self._add("DepthToSpace", [x], blocksize=scale, mode=mode)

    def nearest(self, x: str, scale: int) -> str:
        """Repeat every pixel `scale` times along each side."""
        import numpy as np  # noqa: PLC0415

        scales = self._constant("scales", np.array([1, 1, scale, scale], np.float32))
        kind = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._add("Resize", [x, "", scales], **kind)

    def finish(self, output: str, channels: int, scale: int) -> bytes:
        """The ONNX file.

        Args:
            output: the name of the tensor that is the network's result; no other layer takes it.
            channels: of input and output.
            scale: output pixels per input pixel, along each side.
        """
        import onnx  # noqa: PLC0415
        from onnx import helper, numpy_helper  # noqa: PLC0415

        nodes = [
            helper.make_node(
                node.operator, node.inputs, [OUTPUT if node.output == output else node.output], **node.attributes
            )
            for node in self._nodes
        ]
        sides = [(INPUT, "h", "w"), (OUTPUT, f"{scale}h", f"{scale}w")]
        ends = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, height, width])
            for name, height, width in sides
        ]
        constants = [numpy_helper.from_array(values, name) for name, values in self._constants.items()]
        graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
        model = helper.make_model(graph, producer_name="dropscale", opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    def _weighted(self, operator: str, x: str, weights: "Floats", bias: "Floats | None", **attributes: Any) -> str:
        inputs = [x, self._constant("weights", weights)]
        if bias is not None:
            inputs.append(self._constant("bias", bias))
        return self._add(operator, inputs, kernel_shape=weights.shape[2:], **attributes)

    def _add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(_Node(operator, inputs, name, attributes))
        return name

    def _constant(self, kind: str, values: "Floats") -> str:
        """Keep values for the next layer."""
        import numpy as np  # noqa: PLC0415

        name = f"{kind}{len(self._nodes)}"
        self._constants[name] = np.ascontiguousarray(values, np.float32)
        return name


def described(data: bytes, name: str = "the network") -> Facts:
    """What a network costs, for any of one input NxCxHxW that takes all sizes.

    Args:
        data: an ONNX file.
        name: how a message calls it.

    Raises:
        ModelError: it is not ONNX, or its shapes are not to be told.
    """
    import onnx  # noqa: PLC0415

    try:
        model = onnx.load_from_string(data)
        shapes = _shapes(model)
        macs = sum(_multiply_adds(node, shapes) for node in model.graph.node)
        names = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:] if name}
        weights = sum(_size(shapes[name]) for name in names)
        largest = max(_size(shapes[name]) for node in model.graph.node for name in node.output if name in shapes)
    except Exception as error:  # protobuf, ONNX and its shape inference each have exceptions of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{name} is not an ONNX network whose shapes can be told ({reason}): "
            "export it with one input N x C x H x W that takes all sizes"
        ) from error
    pixels = _PROBE_PIXELS**2
    return Facts(2 * macs / pixels, -(-largest // pixels), weights)


def _shapes(model: Any) -> dict[str, list[int]]:
    """Of all tensors by name, for one input of 64x64 pixels."""
    import onnx  # noqa: PLC0415

    constants = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in constants)
    for axis, size in ((0, 1), (2, _PROBE_PIXELS), (3, _PROBE_PIXELS)):
        given.type.tensor_type.shape.dim[axis].dim_value = size
    # what the file says of other sizes would contradict
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return constants | dict(_known([*inferred.input, *inferred.value_info, *inferred.output]))


def _known(values: Any) -> Iterator[tuple[str, list[int]]]:
    for value in values:
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            yield value.name, [dim.dim_value for dim in dims]


def _multiply_adds(node: Any, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 0
    # each pixel that slides over the kernel costs a multiply-add for each of the weights
    sliding = node.output[0] if node.op_type == "Conv" else node.input[0]
    return _size(shapes[sliding][2:]) * _size(shapes[node.input[1]])


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
