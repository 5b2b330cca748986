"""Networks as others export them, written by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(
    path: Path, *, scale: int = 2, channels: int = 3, side: int = 3, features: int = 0, tail: str = "", **fields: Any
) -> Path:
    """A network that blurs with a box of `side` and repeats each pixel: written by hand, as others' exporters do.

    With `features` it holds so many numbers for each pixel on the way, most of them for nothing.
    """
    box = np.zeros((channels * scale**2, features or channels, side, side), np.float32)
    for output in range(channels * scale**2):
        box[output, output // scale**2] = 1 / side**2
    nodes = [
        helper.make_node("Conv", ["in", "box"], ["wide"], pads=[side // 2] * 4),
        helper.make_node("DepthToSpace", ["wide"], ["out"], blocksize=scale, mode="CRD"),
    ]
    weights = [numpy_helper.from_array(box, "box")]
    if features:
        nodes[0].input[0] = "many"
        nodes.insert(0, helper.make_node("Conv", ["in", "spread"], ["many"]))
        spread = np.eye(features, channels, dtype=np.float32)[:, :, None, None]
        weights.append(numpy_helper.from_array(spread, "spread"))
    if tail == "contrast":  # times the deviation over the whole picture, as IMDN's attention is
        nodes[1].output[0] = "large"
        nodes += [
            helper.make_node("ReduceMean", ["large"], ["mean"], axes=[2, 3]),
            helper.make_node("Sub", ["large", "mean"], ["rest"]),
            helper.make_node("Mul", ["rest", "rest"], ["squares"]),
            helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[2, 3]),
            helper.make_node("Exp", ["variance"], ["factor"]),
            helper.make_node("Mul", ["rest", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "mean"], ["out"]),
        ]
    if tail == "right":  # looks to the right only, through a layer of a kind that is not known
        nodes[0].input[0] = "padded"
        del nodes[0].attribute[:]
        nodes[0].attribute.append(helper.make_attribute("pads", [0] * 4))
        pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, side - 1, side - 1], np.int64), "pads")
        nodes = [
            helper.make_node("Constant", [], ["beyond"], value=pads),
            helper.make_node("Pad", ["in", "beyond"], ["padded"]),
            *nodes,
        ]
    if tail == "average":
        nodes[1].output[0] = "large"
        nodes += [
            helper.make_node("GlobalAveragePool", ["large"], ["mean"]),
            helper.make_node("Add", ["large", "mean"], ["out"]),
        ]
    size = fields.get("size", ["h", "w"])
    graph = helper.make_graph(
        nodes,
        "others",
        [helper.make_tensor_value_info("in", fields.get("kind", TensorProto.FLOAT), [1, channels, *size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, "oh", "ow"])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
