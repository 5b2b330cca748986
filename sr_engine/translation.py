"""The nodes of a frozen graph become layers of an ONNX network.

Each is translated by its meaning. A convolution takes the bias and the factor that follow it into its weights, and the
ways to write a PReLU without having one (`relu(x) - 0.2 * relu(-x)`, `relu(x) + a * (x - |x|) * 0.5`) come out as one
layer.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from sr_engine import frozen_graph
from sr_engine.frozen_graph import Constant, Floats, Node, UnknownNetwork
from sr_engine.graphs import INPUT, GraphWriter

# Blue, green and red of DIV2K: dnn_superres subtracts it before an EDSR network and adds it afterwards
# (opencv_contrib, modules/dnn_superres/src/dnn_superres.cpp).
MEAN = np.array([103.1545782, 111.561547, 114.35629928], np.float32)

_SCALES = (2, 3, 4, 8)


class _Reach(NamedTuple):
    """How many input pixels beyond its own a value depends on, for each position within an enlarged pixel.

    Attributes:
        before: at the left and above.
        after: at the right and below.
    """

    before: tuple[int, ...] = (0,)
    after: tuple[int, ...] = (0,)

    @property
    def scale(self) -> int:
        """Positions in an input pixel, along each side."""
        return len(self.before)

    def convolved(self, kernel: int) -> "_Reach":
        """After a convolution that pads as TensorFlow's SAME does."""
        looks = range(-((kernel - 1) // 2), kernel // 2 + 1)
        # What lies `look` positions on is so many pixels on, and there at a position of its own.
        found = [[divmod(at + look, self.scale) for look in looks] for at in range(self.scale)]
        before = tuple(max(self.before[at] - pixels for pixels, at in seen) for seen in found)
        after = tuple(max(self.after[at] + pixels for pixels, at in seen) for seen in found)
        return _Reach(before, after)

    def shuffled(self, scale: int) -> "_Reach":
        """After each position became `scale` positions."""
        return _Reach(*(tuple(length for length in side for _ in range(scale)) for side in self))

    def joined(self, other: "_Reach") -> "_Reach":
        """Of what depends on both."""
        if self.scale != other.scale:
            raise UnknownNetwork("tensors of two sizes meet")
        return _Reach(*(tuple(map(max, mine, theirs)) for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class _Source:
    """A tensor that is written already, or a convolution that is not, as it takes up what follows.

    Attributes:
        x: the tensor's name, or what the convolution works on.
        channels: of the result.
        reach: what the result depends on.
        weights: of the convolution, outputs x inputs x height x width; None if `x` is the tensor.
        bias: of the convolution.
        scale: how much the convolution's result is enlarged by a pixel shuffle.
    """

    x: str
    channels: int
    reach: _Reach
    weights: Floats | None = None
    bias: Floats | None = None
    scale: int = 1

    def each(self, values: Constant) -> Floats:
        """One value for each of the channels."""
        if values.size not in (1, self.channels):
            raise UnknownNetwork(f"{values.size} values meet {self.channels} channels")
        return np.broadcast_to(values.reshape(-1), self.channels).astype(np.float32)

    def spread(self, values: Constant) -> Floats:
        """One value for each of the channels that there are before the shuffle."""
        return np.tile(self.each(values), self.scale**2)


@dataclass(frozen=True, eq=False)
class _Tensor:
    """What a node computes: a source, times one factor where it is positive, and another where it is negative.

    Attributes:
        source: see there.
        above: factor of positive values; one for all channels, or for each.
        below: factor of negative values; likewise.
    """

    source: _Source
    above: Floats = field(default_factory=lambda: np.ones(1, np.float32))
    below: Floats = field(default_factory=lambda: np.ones(1, np.float32))

    @property
    def linear(self) -> bool:
        """Whether it is the source times something."""
        return bool(np.all(self.above == self.below))

    def times(self, factor: Constant | float) -> "_Tensor":
        """Multiplied by one number, or by one for each channel."""
        values = np.asarray(factor, np.float32).reshape(-1)
        return replace(self, above=self.above * values, below=self.below * values)

    def bent(self, slope: float) -> "_Tensor":
        """With what is negative times `slope`."""
        factor = np.float32(slope)
        above = np.where(self.above < 0, self.above * factor, self.above)
        below = np.where(self.below > 0, self.below * factor, self.below)
        return replace(self, above=above, below=below)


class _Writer:
    """Writes tensors into a graph: each once, as late as possible.

    Attributes:
        graph: what is written so far.
        parametric: whether there are PReLUs in it.
    """

    def __init__(self) -> None:
        self.graph = GraphWriter()
        self.parametric = False
        self._names: dict[_Source | _Tensor, str] = {}

    def name(self, tensor: _Tensor) -> str:
        """Of the tensor in the graph."""
        if tensor not in self._names:
            self._names[tensor] = self._place(self._scaled(tensor)) if tensor.linear else self._activated(tensor)
        return self._names[tensor]

    def convolved(self, tensor: _Tensor, weights: Floats) -> _Tensor:
        """Through a convolution; `weights` as `GraphWriter.convolution` has them."""
        outputs, inputs, *kernel = weights.shape
        if inputs != tensor.source.channels:
            raise UnknownNetwork(f"a convolution of {inputs} channels gets {tensor.source.channels}")
        return _Tensor(_Source(self.name(tensor), outputs, tensor.source.reach.convolved(max(kernel)), weights))

    def shuffled(self, tensor: _Tensor, scale: int) -> _Tensor:
        """With channels turned into pixels."""
        source = self._scaled(tensor) if tensor.linear else self._placed(tensor)
        channels, rest = divmod(source.channels, max(1, scale) ** 2)
        if rest or not channels:
            raise UnknownNetwork(f"{source.channels} channels become pixels of {scale} x {scale}")
        reach = source.reach.shuffled(scale)
        if source.weights is not None and source.scale == 1:
            return _Tensor(replace(source, channels=channels, reach=reach, scale=scale))
        return _Tensor(_Source(self.graph.shuffle(self._place(source), scale), channels, reach))

    def plus(self, tensor: _Tensor, values: Constant) -> _Tensor:
        """With one number added to all channels, or to each its own."""
        source = self._scaled(tensor) if tensor.linear else self._placed(tensor)
        added = source.spread(values)
        if source.weights is None:
            return _Tensor(replace(source, x=self.graph.add_constant(source.x, added)))
        return _Tensor(replace(source, bias=added if source.bias is None else source.bias + added))

    def sum(self, one: _Tensor, other: _Tensor) -> _Tensor:
        """Of two tensors, which may be parts of one activation."""
        if one.source is other.source:
            return replace(one, above=one.above + other.above, below=one.below + other.below)
        channels = {one.source.channels, other.source.channels}
        if len(channels - {1}) > 1:
            raise UnknownNetwork(f"tensors of {' and '.join(map(str, sorted(channels)))} channels are added")
        reach = one.source.reach.joined(other.source.reach)
        return _Tensor(_Source(self.graph.add(self.name(one), self.name(other)), max(channels), reach))

    def tanh(self, tensor: _Tensor) -> _Tensor:
        """The hyperbolic tangent."""
        source = self._placed(tensor)
        return _Tensor(replace(source, x=self.graph.tanh(source.x)))

    def _activated(self, tensor: _Tensor) -> str:
        if (tensor.above <= 0).any():
            raise UnknownNetwork("an activation turns positive values around")
        x = self._place(self._scaled(replace(tensor, below=tensor.above)))
        if not tensor.below.any():
            return self.graph.relu(x)
        self.parametric = True
        return self.graph.prelu(x, tensor.source.each(tensor.below / tensor.above))

    def _placed(self, tensor: _Tensor) -> _Source:
        return _Source(self.name(tensor), tensor.source.channels, tensor.source.reach)

    def _place(self, source: _Source) -> str:
        if source.weights is None:
            return source.x
        if source not in self._names:
            name = self.graph.convolution(source.x, source.weights, source.bias)
            self._names[source] = name if source.scale == 1 else self.graph.shuffle(name, source.scale)
        return self._names[source]

    def _scaled(self, tensor: _Tensor) -> _Source:
        """The source of a linear tensor, with the factor in it."""
        source = tensor.source
        if (tensor.above == 1).all():
            return source
        factor = source.spread(tensor.above)
        if source.weights is None:
            return replace(source, x=self.graph.multiply_constant(source.x, factor))
        bias = None if source.bias is None else source.bias * factor
        return replace(source, weights=source.weights * factor[:, None, None, None], bias=bias)


class Network(NamedTuple):
    """A graph that was translated.

    Attributes:
        writer: holds it.
        result: what it gives.
        node: the name of the graph's node for that.
        channels: of the input.
        shuffles: how many pixel shuffles there are.
    """

    writer: _Writer
    result: _Tensor
    node: str
    channels: int
    shuffles: int

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, along each side."""
        return self.result.source.reach.scale

    @property
    def algorithm(self) -> str:
        """Which of `ALGORITHMS` it is, by its layers."""
        if self.channels == 3:
            return "edsr"
        if self.shuffles > 1:  # it enlarges by two several times, and picture and detail apart
            return "lapsrn"
        return "fsrcnn" if self.writer.parametric else "espcn"

    @property
    def value_range(self) -> float:
        """It works on 0 .. value_range."""
        return 255.0 if self.channels == 3 else 1.0


class Translation:
    """Turns nodes into tensors."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self._nodes = nodes
        self._writer = _Writer()
        self._constants: dict[str, Constant] = {}
        self._tensors: dict[str, _Tensor] = {}
        self._input: _Tensor | None = None
        self._shuffles = 0

    def network(self) -> Network:
        """All of it."""
        for node in frozen_graph.in_order(self._nodes):
            if node.operator == "Const":
                self._constants[node.name] = frozen_graph.constant(node)
            elif node.operator == "Dequantize":
                self._constants[node.name] = self._dequantised(node)
            elif node.operator == "Identity" and node.input(0) in self._constants:
                self._constants[node.name] = self._constants[node.input(0)]
            elif node.operator not in ("Placeholder", "NoOp"):
                self._tensors[node.name] = self._translated(node)
        name, result = self._result()
        given, made = 0 if self._input is None else self._input.source.channels, result.source.channels
        network = Network(self._writer, result, name, given, self._shuffles)
        if given not in (1, 3) or made != given or network.scale not in _SCALES:
            raise UnknownNetwork(f"it makes {made} channels of {given}, and enlarges {network.scale} times")
        if given == 3:
            network = network._replace(result=self._writer.plus(result, MEAN))
        self._writer.name(network.result)
        return network

    def _result(self) -> tuple[str, _Tensor]:
        """What no other node takes. LapSRN gives every enlargement on its way: the largest counts."""
        taken = {name for node in self._nodes.values() for name in node.inputs}
        ends = [name for name in self._nodes if name in self._tensors and name not in taken]
        if not ends:
            raise UnknownNetwork("nothing is computed")
        name = max(reversed(ends), key=lambda name: self._tensors[name].source.reach.scale)
        return name, self._tensors[name]

    def _translated(self, node: Node) -> _Tensor:
        if node.text("data_format", "NHWC") != "NHWC":
            raise UnknownNetwork(f"{node.name} has the channels before the pixels")
        match node.operator:
            case "Conv2D":
                return self._convolved(node)
            case "DepthToSpace":
                return self._shuffled(node)
            case "Add" | "AddV2" | "BiasAdd":
                return self._sum(node)
            case "Sub":
                return self._difference(node)
            case "Mul":
                return self._product(node)
        return self._changed(node, self._tensor(node, 0))

    def _changed(self, node: Node, tensor: _Tensor) -> _Tensor:
        """Each value by itself."""
        match node.operator:
            case "Neg":
                return tensor.times(-1)
            case "Abs":
                return replace(tensor, above=np.abs(tensor.above), below=-np.abs(tensor.below))
            case "Relu":
                return tensor.bent(0)
            case "LeakyRelu":
                return tensor.bent(node.attributes["alpha"].f if "alpha" in node.attributes else 0.2)
            case "Tanh":
                return self._writer.tanh(tensor)
            case "Identity" | "Transpose":  # to NxCxHxW, which it is here all along
                return tensor
        raise UnknownNetwork(f"{node.name} is a {node.operator}")

    def _convolved(self, node: Node) -> _Tensor:
        weights = self._constant(node, 1)
        steps = {
            step
            for name in ("strides", "dilations")
            if name in node.attributes
            for step in node.attributes[name].list.i
        }
        if weights.ndim != 4 or not weights.size or not steps <= {1} or node.text("padding") != "SAME":
            raise UnknownNetwork(f"{node.name} is not a plain convolution")
        kernel = np.ascontiguousarray(weights.transpose(3, 2, 0, 1), np.float32)
        if self._input is None and self._nodes[node.input(0)].operator == "Placeholder":
            self._input = self._first(kernel.shape[1])
        return self._writer.convolved(self._tensor(node, 0), kernel)

    def _shuffled(self, node: Node) -> _Tensor:
        self._shuffles += 1
        scale = node.attributes["block_size"].i if "block_size" in node.attributes else 0
        return self._writer.shuffled(self._tensor(node, 0), scale)

    def _first(self, channels: int) -> _Tensor:
        """The input; not its own node but the first convolution tells the number of channels."""
        # Subtracted in the network, since the zeros that pad it mean this colour.
        x = self._writer.graph.subtract_constant(INPUT, MEAN) if channels == 3 else INPUT
        return _Tensor(_Source(x, channels, _Reach()))

    def _sum(self, node: Node) -> _Tensor:
        one, other = node.input(0), node.input(1)
        if other in self._constants:
            return self._writer.plus(self._tensor(node, 0), self._constants[other])
        if one in self._constants:
            return self._writer.plus(self._tensor(node, 1), self._constants[one])
        return self._writer.sum(self._tensor(node, 0), self._tensor(node, 1))

    def _difference(self, node: Node) -> _Tensor:
        one, other = node.input(0), node.input(1)
        if other in self._constants:
            return self._writer.plus(self._tensor(node, 0), -self._constants[other])
        if one in self._constants:
            return self._writer.plus(self._tensor(node, 1).times(-1), self._constants[one])
        return self._writer.sum(self._tensor(node, 0), self._tensor(node, 1).times(-1))

    def _product(self, node: Node) -> _Tensor:
        constant = 0 if node.input(0) in self._constants else 1
        tensor = self._tensor(node, 1 - constant)
        return tensor.times(tensor.source.each(self._constant(node, constant)))

    def _dequantised(self, node: Node) -> Floats:
        if node.text("mode", "MIN_COMBINED") != "MIN_FIRST":
            raise UnknownNetwork(f"{node.name} is quantised in another way than MIN_FIRST")
        return frozen_graph.dequantised(*(self._constant(node, number) for number in range(3)))

    def _tensor(self, node: Node, number: int) -> _Tensor:
        """What comes in as input of that number."""
        name = node.input(number)
        found = self._input if self._nodes[name].operator == "Placeholder" else self._tensors.get(name)
        if found is None:
            raise UnknownNetwork(f"{node.name} works on {name}")
        return found

    def _constant(self, node: Node, number: int) -> Constant:
        name = node.input(number)
        if name not in self._constants:
            raise UnknownNetwork(f"{node.name} works on {name}, which is not constant")
        return self._constants[name]
