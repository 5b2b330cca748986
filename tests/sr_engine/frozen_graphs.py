"""Frozen TensorFlow graphs as OpenCV's dnn_superres takes them, written by hand: no TensorFlow here.

The layers are those of the repositories that the models of dnn_superres come from: Saafke/EDSR_Tensorflow,
Saafke/FSRCNN_Tensorflow, fannymonori/TF-ESPCN and fannymonori/TF-LapSRN. The weights are random, but small beside a
way for the picture itself, so that the result resembles it.
"""

import struct

import numpy as np

_FLOAT, _INT32, _QUINT8 = 1, 3, 12
_TYPES = {np.dtype("f4"): _FLOAT, np.dtype("i4"): _INT32, np.dtype("u1"): _QUINT8}


def varint(number):
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def field(number, value):
    """A field of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


class Graph:
    """A graph that grows node by node; each method gives the new node's name."""

    def __init__(self, seed=1):
        self.nodes = []
        self.rng = np.random.default_rng(seed)
        self.add("IteratorGetNext", "Placeholder", dtype=field(6, _FLOAT))

    def add(self, name, operator, *inputs, **attributes):
        node = field(1, name.encode()) + field(2, operator.encode())
        node += b"".join(field(3, source.encode()) for source in inputs)
        for key, value in attributes.items():
            node += field(5, field(1, key.encode()) + field(2, value))
        self.nodes.append(node)
        return name

    def constant(self, name, values):
        values = np.asarray(values)
        kind = _TYPES[values.dtype]
        shape = b"".join(field(2, field(1, size)) for size in values.shape)
        # TensorFlow writes a single number in a field of its own
        content = b"\x2d" + struct.pack("<f", values) if values.ndim == 0 else field(4, values.tobytes())
        tensor = field(1, kind) + field(2, shape) + content
        return self.add(name, "Const", dtype=field(6, kind), value=field(8, tensor))

    def quantised(self, name, values):
        """As the transform quantize_weights writes a constant: 8 bits, and what the lowest and the highest mean."""
        least, most = np.float32(values.min()), np.float32(values.max())
        levels = np.rint((values - least) * (255 / (most - least))).astype(np.uint8)
        inputs = [
            self.constant(f"{name}_quantized_const", levels),
            self.constant(f"{name}_quantized_min", least),
            self.constant(f"{name}_quantized_max", most),
        ]
        return self.add(name, "Dequantize", *inputs, mode=field(2, b"MIN_FIRST"), T=field(6, _QUINT8))

    def convolution(self, name, x, weights, bias=None, *, quantised=False, padding=b"SAME"):
        """weights: height x width x inputs x outputs."""
        weights = np.asarray(weights, np.float32)
        kernel = (self.quantised if quantised else self.constant)(f"{name}/filter", weights)
        ones = field(1, field(3, bytes([1, 1, 1, 1])))
        kinds = {"strides": ones, "dilations": ones, "padding": field(2, padding), "data_format": field(2, b"NHWC")}
        x = self.add(name, "Conv2D", x, kernel, **kinds, T=field(6, _FLOAT))
        if bias is None:
            return x
        return self.add(f"{name}/add", "Add", x, self.constant(f"{name}/bias", np.asarray(bias, np.float32)))

    def scaled(self, name, x, factor):
        return self.add(name, "Mul", x, self.constant(f"{name}/y", np.float32(factor)))

    def shuffle(self, name, x, scale):
        return self.add(name, "DepthToSpace", x, block_size=field(3, scale), data_format=field(2, b"NHWC"))

    def output(self, name, x):
        order = self.constant(f"{name}/perm", np.array([0, 3, 1, 2], np.int32))
        return self.add(name, "Transpose", x, order)

    def random(self, *shape, size=0.02):
        return self.rng.normal(0, size, shape).astype(np.float32)

    def through(self, weights, pairs):
        """Let channels of the input through to channels of the result, unchanged, at the centre of the kernel."""
        height, width = weights.shape[:2]
        for source, target in pairs:
            weights[(height - 1) // 2, (width - 1) // 2, source, target] = 1
        return weights

    def written(self):
        return b"".join(field(1, node) for node in self.nodes)


class EvenGraph(Graph):
    """All weights are positive and alike, so that no activation hides anything: for looking how far a pixel is seen."""

    def random(self, *shape, size=0):
        return np.full(shape, 1 / np.prod(shape[:-1]), np.float32)

    def through(self, weights, _pairs):
        return weights

    def quantised(self, name, values):
        return self.constant(name, values)


def edsr(scale=3, blocks=3, features=12, quantised=True, kind=Graph):
    """EDSR with scaled blocks; the mean of colours is for dnn_superres to subtract and to add."""
    graph = kind()

    def convolution(name, x, inputs, outputs, pairs=()):
        weights = graph.through(graph.random(3, 3, inputs, outputs), pairs)
        return graph.convolution(name, x, weights, graph.random(outputs, size=1), quantised=quantised)

    x = head = convolution("head", "IteratorGetNext", 3, features, [(c, c) for c in range(3)])
    for number in range(blocks):
        inner = graph.add(f"relu{number}", "Relu", convolution(f"conv{number}_1", x, features, features))
        inner = graph.scaled(f"mul{number}", convolution(f"conv{number}_2", inner, features, features), 0.1)
        x = graph.add(f"sum{number}", "Add", x, inner)
    x = graph.add("body", "Add", convolution("end", x, features, features), head)
    positions = scale * scale
    x = convolution("tail", x, features, 3 * positions, [(c, 3 * at + c) for at in range(positions) for c in range(3)])
    graph.output("NCHW_output", graph.shuffle("NHWC_output", x, scale))
    return graph.written()


def fsrcnn(scale=3, features=8, shrunk=4, layers=1, kind=Graph):
    """FSRCNN; its PReLUs are made of other operators."""
    graph = kind()

    def layer(number, x, kernel, inputs, outputs):
        weights = graph.through(graph.random(kernel, kernel, inputs, outputs), [(0, 0)])
        x = graph.convolution(f"conv{number}", x, weights, graph.random(outputs))
        slopes = graph.constant(f"alpha{number}", graph.random(outputs, size=0.3))
        below = graph.add(f"sub{number}", "Sub", x, graph.add(f"Abs{number}", "Abs", x))
        below = graph.scaled(f"half{number}", graph.add(f"mul{number}", "Mul", slopes, below), 0.5)
        return graph.add(f"prelu{number}", "Add", graph.add(f"Relu{number}", "Relu", x), below)

    x = layer(1, "IteratorGetNext", 5, 1, features)
    x = layer(2, x, 1, features, shrunk)
    for number in range(layers):
        x = layer(3 + number, x, 3, shrunk, shrunk)
    x = layer(3 + layers, x, 1, shrunk, features)
    weights = graph.through(graph.random(3, 3, features, scale**2), [(0, at) for at in range(scale**2)])
    x = graph.shuffle("DepthToSpace", graph.convolution("last", x, weights), scale)
    x = graph.add("NHWC_output", "BiasAdd", x, graph.constant("bias", np.float32([0.01])))
    graph.output("NCHW_output", x)
    return graph.written()


def espcn(scale=2, kind=Graph):
    """ESPCN, which ends with a hyperbolic tangent."""
    graph = kind()
    x = "IteratorGetNext"
    for number, (kernel, inputs, outputs) in enumerate([(5, 1, 8), (3, 8, 6)]):
        weights = graph.through(graph.random(kernel, kernel, inputs, outputs), [(0, 0)])
        x = graph.add(f"Relu{number}", "Relu", graph.convolution(f"conv{number}", x, weights, graph.random(outputs)))
    weights = graph.through(graph.random(3, 3, 6, scale**2), [(0, at) for at in range(scale**2)])
    x = graph.convolution("last", x, weights, graph.random(scale**2))
    graph.output("NCHW_output", graph.add("NHWC_output", "Tanh", graph.shuffle("DepthToSpace", x, scale)))
    return graph.written()


def lapsrn(scale=4, features=6, layers=3, kind=Graph):
    """LapSRN: twice as large again and again, the picture and its details apart; each step is a result."""
    graph = kind()

    def activation(name, x):
        minus = graph.constant(f"{name}/minus", np.float32(-1))
        below = graph.add(f"{name}/below", "Relu", graph.add(f"{name}/negative", "Mul", minus, x))
        below = graph.add(f"{name}/mul", "Mul", graph.constant(f"{name}/slope", np.float32(0.2)), below)
        return graph.add(f"{name}/leaky", "Sub", graph.add(f"{name}/above", "Relu", x), below)

    def enlarged(name, x, channels, pairs):
        weights = graph.through(
            graph.random(4, 4, channels, 4), pairs
        )  # an even kernel: one more below and at the right
        return graph.shuffle(f"{name}/shuffle", graph.convolution(name, x, weights), 2)

    picture = detail = "IteratorGetNext"
    for step in range(scale.bit_length() - 1):
        inputs = 1
        for number in range(layers):
            name = f"{step}_{number}"
            bias = graph.random(1 if number == 0 else features)  # one for all channels, as in the original
            weights = graph.random(3, 3, inputs, features, size=0.1)
            detail = activation(name, graph.convolution(name, detail, weights, bias))
            inputs = features
        detail = activation(f"{step}_detail", enlarged(f"{step}_enlarged", detail, features, []))
        larger = enlarged(f"{step}_picture", picture, 1, [(0, at) for at in range(4)])
        picture = activation(f"{step}_result", graph.add(f"{step}_sum", "Add", larger, detail))
        graph.output(f"NCHW_output_{2 << step}x" if scale > 2 else "NCHW_output", picture)
    return graph.written()


def style_transfer():
    """Another kind of network: it enlarges nothing."""
    graph = Graph()
    x = graph.convolution("conv", "IteratorGetNext", graph.random(3, 3, 3, 4), graph.random(4))
    x = graph.convolution("back", graph.add("Relu", "Relu", x), graph.random(3, 3, 4, 3))
    graph.output("NCHW_output", x)
    return graph.written()


def classifier():
    """Another kind of network, with an operator that none of the known ones has."""
    graph = Graph()
    x = graph.convolution("conv", "IteratorGetNext", graph.random(3, 3, 3, 4), graph.random(4))
    graph.add("Softmax", "Softmax", x)
    return graph.written()
