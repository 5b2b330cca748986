"""A frozen TensorFlow graph (`.pb`), read: its nodes, what feeds what, and the weights.

Only protobuf is parsed; nothing in the file is ever run, and TensorFlow is not needed.
"""

import functools
import graphlib
import importlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Constant = npt.NDArray[Any]

_MOST_VALUES = 1 << 28  # of a constant: all weights of the largest network here are a sixth of that


class BrokenFile(Exception):
    """Not a frozen graph, or damaged; says why."""


class UnknownNetwork(Exception):
    """A frozen graph, but of another network; says which part."""


# The message GraphDef, as far as it matters: fields with their numbers (tensorflow/core/framework/*.proto). Maps are
# lists of entries, and a plus stands for "repeated".
_MESSAGES = {
    "Graph": {"node": (1, "+Node")},
    "Node": {"name": (1, "string"), "op": (2, "string"), "input": (3, "+string"), "attr": (5, "+Entry")},
    "Entry": {"key": (1, "string"), "value": (2, "Value")},
    "Value": {"list": (1, "List"), "s": (2, "bytes"), "i": (3, "int64"), "f": (4, "float"), "tensor": (8, "Tensor")},
    "List": {"i": (3, "+int64")},
    "Tensor": {
        "dtype": (1, "int64"),
        "shape": (2, "Shape"),
        "content": (4, "bytes"),
        "floats": (5, "+float"),
        "ints": (7, "+int64"),
    },
    "Shape": {"dim": (2, "+Size")},
    "Size": {"size": (1, "int64")},
}
# DT_FLOAT, DT_INT32 and DT_QUINT8.
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 3: np.dtype("<i4"), 12: np.dtype("u1")}


@functools.cache
def _graph_message() -> Any:
    """The class that reads a GraphDef. Google's protobuf comes with ONNX."""
    descriptor, pools, factory = (
        importlib.import_module(f"google.protobuf.{name}")
        for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
    )
    kinds = descriptor.FieldDescriptorProto
    file = descriptor.FileDescriptorProto(name="frozen_graph.proto", package="frozen", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, (number, kind) in fields.items():
            added = message.field.add(name=label, number=number)
            added.label = kinds.LABEL_REPEATED if kind.startswith("+") else kinds.LABEL_OPTIONAL
            plain = kind.removeprefix("+")
            if plain in _MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".frozen.{plain}"
            else:
                added.type = getattr(kinds, f"TYPE_{plain.upper()}")
    pool = pools.DescriptorPool()
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName("frozen.Graph"))


class Node(NamedTuple):
    """One operation.

    Attributes:
        name: of the node.
        operator: what it does, as TensorFlow calls it.
        inputs: names of the nodes whose results it takes.
        attributes: messages Value by name.
    """

    name: str
    operator: str
    inputs: list[str]
    attributes: dict[str, Any]

    def input(self, number: int) -> str:
        """The name of the node that gives the input of that number."""
        if number >= len(self.inputs):
            raise BrokenFile(f"its node {self.name} has {len(self.inputs)} inputs")
        return self.inputs[number]

    def text(self, attribute: str, default: str = "") -> str:
        """A value that is a word."""
        return self.attributes[attribute].s.decode(errors="replace") if attribute in self.attributes else default

    def integers(self, attribute: str) -> list[int]:
        """A value that is a list of whole numbers."""
        return list(self.attributes[attribute].list.i) if attribute in self.attributes else []


def nodes_of(data: bytes) -> dict[str, Node]:
    """All nodes by name, in the order of the file."""
    graph = _graph_message()()
    try:
        graph.ParseFromString(data)
    except Exception as error:  # protobuf's own, and protobuf is not imported at the top
        raise BrokenFile("it is cut off, or of another kind") from error
    nodes = {}
    for node in graph.node:
        # A caret: to be run before, not a value. The number: which of several results; all nodes here have one.
        inputs = [name.removesuffix(":0") for name in node.input if not name.startswith("^")]
        nodes[node.name] = Node(node.name, node.op, inputs, {entry.key: entry.value for entry in node.attr})
    if not nodes:
        raise BrokenFile("it has no nodes")
    missing = [name for node in nodes.values() for name in node.inputs if name not in nodes]
    if missing:
        raise BrokenFile(f"its node {missing[0]} is missing")
    return nodes


def in_order(nodes: dict[str, Node]) -> list[Node]:
    """Each node after those that it needs."""
    try:
        order = graphlib.TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order()
        return [nodes[name] for name in order]
    except graphlib.CycleError as error:
        raise UnknownNetwork("it has a loop") from error


def constant(node: Node) -> Constant:
    """What a node of kind Const holds."""
    if "value" not in node.attributes:
        raise BrokenFile(f"its node {node.name} is empty")
    tensor = node.attributes["value"].tensor
    dtype = _TYPES.get(tensor.dtype)
    if dtype is None:
        raise UnknownNetwork(f"{node.name} holds values of TensorFlow's type {tensor.dtype}")
    shape = [dim.size for dim in tensor.shape.dim]
    size = math.prod(shape)
    if len(tensor.content) % dtype.itemsize or min(shape, default=0) < 0 or size > _MOST_VALUES:
        raise BrokenFile(f"its node {node.name} holds {len(tensor.content)} bytes for {size} values")
    content = np.frombuffer(tensor.content, dtype)
    values: Constant = content if content.size else np.array(tensor.floats or tensor.ints, dtype)
    if values.size == 1:  # many equal values are written as one
        return np.broadcast_to(values.reshape(()), shape)
    if values.size != size:
        raise BrokenFile(f"its node {node.name} holds {values.size} of {size} values")
    return values.reshape(shape)


def dequantised(levels: Constant, least: Constant, most: Constant) -> Floats:
    """The weights of 0 .. 255, as OpenCV computes them: one level is exactly zero (tf_importer.cpp, addConstNodes)."""
    if levels.dtype != np.uint8 or least.size != 1 or most.size != 1:
        raise UnknownNetwork("weights are quantised in another way than to 8 bits")
    lowest, highest = (np.float32(value.item()) for value in (least, most))
    step = (highest - lowest) / np.float32(255)
    if not 0 < step < np.inf:
        raise UnknownNetwork(f"weights are quantised from {lowest} to {highest}")
    offset = step * np.rint(lowest / step)
    # in 53 bits, where products of 8 by 24 are exact: rounded once, as a fused multiply-add does
    return (levels.astype(np.float64) * float(step) + float(offset)).astype(np.float32)
