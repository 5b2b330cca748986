"""OpenCV's models for dnn_superres, which are frozen TensorFlow graphs (`.pb`), become ONNX files.

OpenCV is about to drop its TensorFlow importer, so a graph is converted once, when it is added. OpenCV would hand out
the weights of a graph that it imported, but neither which layer feeds which nor the factor of a multiplication, so the
file is read here (`frozen_graph`) and its nodes are translated (`translation`). In the end OpenCV runs both networks,
and the new one stands only if it does what the original does.
"""

import os
import subprocess
import sys
import tempfile
from typing import NamedTuple

import cv2
import numpy as np

from sr_engine import frozen_graph
from sr_engine.errors import ModelError
from sr_engine.frozen_graph import BrokenFile, Floats, UnknownNetwork
from sr_engine.models import Color
from sr_engine.translation import MEAN, Network, Translation

ALGORITHMS = ("edsr", "espcn", "fsrcnn", "lapsrn")

_MOST_DIFFERENCE = 1 / 16  # levels of 255; sums in another order differ by less than a hundredth
_PICTURE_SHAPE = (20, 24)  # of the picture that both networks have to enlarge alike


class Converted(NamedTuple):
    """A network, and what a manifest has to say of it.

    Attributes:
        onnx: the file.
        algorithm: one of `ALGORITHMS`.
        scale: output pixels per input pixel, along each side.
        color: "bgr" for EDSR; "y" for the others, which enlarge brightness alone.
        value_range: the network works on 0 .. value_range.
        halo: receptive field beyond a pixel, in input pixels.
    """

    onnx: bytes
    algorithm: str
    scale: int
    color: Color
    value_range: float
    halo: int


def convert(path: str, algorithm: str | None = None, scale: int | None = None) -> Converted:
    """Convert a frozen graph.

    Args:
        path: the `.pb` file.
        algorithm: what the user says it is, one of `ALGORITHMS`; else its layers tell.
        scale: what the user says it enlarges; its layers tell anyway.

    Raises:
        ModelError: it cannot be read, is no frozen graph, is another network than those that dnn_superres knows or
            than the user says, or this OpenCV cannot run it for comparison.
    """
    data = _read(path)
    try:
        network = Translation(frozen_graph.nodes_of(data)).network()
        _check_told(path, network, algorithm, scale)
        converted = _finished(network, algorithm or network.algorithm)
        _check_result(path, network, converted)
    except BrokenFile as error:
        raise ModelError(
            f"{path} is not a whole frozen TensorFlow graph ({error}): download it again, "
            "and if it is an ONNX file give it the ending .onnx"
        ) from error
    except UnknownNetwork as error:
        raise ModelError(
            f"{path} is none of the networks that can be converted ({error}): those are EDSR, ESPCN, FSRCNN and LapSRN "
            "as OpenCV's dnn_superres takes them; add others as ONNX files"
        ) from error
    return converted


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; check its name and rights") from error


def _check_told(path: str, network: Network, algorithm: str | None, scale: int | None) -> None:
    """Refuse what the user says where the layers say otherwise."""
    if algorithm is not None and (
        algorithm not in ALGORITHMS or (algorithm == "edsr") != (network.algorithm == "edsr")
    ):
        raise ModelError(
            f"{path} holds a network like {network.algorithm}, not {algorithm}: name that algorithm, or none"
        )
    if scale not in (None, network.scale):
        raise ModelError(f"{path} enlarges {network.scale} times, not {scale}: name that scale, or none")


def _finished(network: Network, algorithm: str) -> Converted:
    output = network.writer.name(network.result)
    onnx = network.writer.graph.finish(output, network.channels, network.scale)
    color: Color = "bgr" if network.channels == 3 else "y"
    halo = max(max(side) for side in network.result.source.reach)
    return Converted(onnx, algorithm, network.scale, color, network.value_range, halo)


def _check_result(path: str, network: Network, converted: Converted) -> None:
    """Refuse a network that is not what OpenCV takes the graph for."""
    picture = _picture(network)
    ours = _by_us(converted.onnx, picture)
    theirs = _by_opencv(path, network, picture)
    if ours.shape != theirs.shape:
        raise UnknownNetwork("OpenCV gives a picture of another size")
    difference = np.abs(ours - theirs).max() * 255 / network.value_range
    if not difference <= _MOST_DIFFERENCE:
        raise UnknownNetwork(f"OpenCV gives a picture that differs by {difference:.3g} levels")


def _picture(network: Network) -> Floats:
    """1xCxHxW with waves and noise, on the network's range."""
    shape = (network.channels, *_PICTURE_SHAPE)
    channel, row, column = np.indices(shape)
    values = 0.5 + 0.25 * np.sin(row / 3 + channel) * np.cos(column / 4)
    values += np.random.default_rng(1).uniform(-0.2, 0.2, shape)
    return np.asarray(values[None] * network.value_range, np.float32)


def _by_us(onnx: bytes, picture: Floats) -> Floats:
    net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx, np.uint8))
    net.setInput(picture)
    result: Floats = net.forward()
    return result


def _by_opencv(path: str, network: Network, picture: Floats) -> Floats:
    """What OpenCV makes of a picture with the graph itself."""
    if not hasattr(cv2.dnn, "readNetFromTensorflow") or not hasattr(cv2, "dnn_superres"):
        raise ModelError(
            f"this OpenCV ({cv2.__version__}) cannot run {path}, so that no conversion could be checked: "
            "add an ONNX file instead, or convert with opencv-contrib-python<6"
        )
    mean = MEAN[:, None, None] if network.channels == 3 else np.float32(0)
    with tempfile.TemporaryDirectory(prefix="dropscale-") as folder:
        given, made = os.path.join(folder, "picture.npy"), os.path.join(folder, "result.npy")
        np.save(given, picture - mean)
        command = [sys.executable, "-P", "-c", _RUN, path, given, made, network.node]
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UnknownNetwork(f"OpenCV cannot run it: {reason}")
        result: Floats = np.load(made) + mean
    return result


# In a process of its own: dnn_superres teaches OpenCV its own DepthToSpace for as long as the process lives, and from
# then on ONNX networks with the other order of channels come out as noise (OpenCV 5.0).
_RUN = """
import sys
import cv2
import numpy as np
graph, given, made, node = sys.argv[1:]
cv2.dnn_superres.DnnSuperResImpl.create()
net = cv2.dnn.readNetFromTensorflow(np.fromfile(graph, np.uint8), engine=cv2.dnn.ENGINE_CLASSIC)
net.enableWinograd(False)
net.setInput(np.load(given))
np.save(made, net.forward(node))
"""
