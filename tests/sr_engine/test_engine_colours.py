"""Networks of another kind than the embedded one: brightness alone, several positions averaged, unknown reach."""

import hashlib

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import yaml
from networks import enlarge, load_network
from onnx import TensorProto, helper

from sr_engine import graphs, models, reach, runtimes
from sr_engine.headers import Kind
from sr_engine.loading import Choice, load
from sr_engine.network import Network
from sr_engine.pictures import Picture

RUNTIMES = [name for name in runtimes.NAMES if name != "auto"]


def noise(seed, height, width, kind=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, (height, width, 3), dtype=kind, endpoint=True)


@pytest.fixture
def load_graph(tmp_path):
    """Put a network of our own writer into a collection, and load it in a runtime."""

    def loaded(data, runtime, **facts):
        model = models.Model(
            file="own.onnx", sha256=hashlib.sha256(data).hexdigest(), algorithm="test", licence="none", **facts
        )
        (tmp_path / "own.onnx").write_bytes(data)
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": {"own": msgspec.to_builtins(model)}}))
        options = runtimes.Options(device="cpu", precision="fp32")
        return load(Choice("own", str(tmp_path), runtime, options)).network

    return loaded


def repeating(channels, scale):
    """Each pixel repeated, by convolution and shuffle."""
    weights = np.zeros((channels * scale**2, channels, 1, 1), np.float32)
    weights[np.arange(channels * scale**2), np.arange(channels * scale**2) // scale**2] = 1
    writer = graphs.GraphWriter()
    return writer.finish(
        writer.shuffle(writer.convolution(graphs.INPUT, weights), scale, mode="CRD"), channels=channels, scale=scale
    )


# Brightness alone


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_brightness_goes_through_the_network_and_colours_are_enlarged_bilinearly(load_graph, runtime, kind):
    facts = {"scale": 2, "color": "y", "value_range": 1.0, "halo": 1, "features": 4}
    network = load_graph(repeating(1, 2), runtime, **facts)
    tile = noise(1, 20, 31, kind)
    result = network([tile, tile[::-1].copy()])[0]

    converted = cv2.cvtColor(tile, cv2.COLOR_BGR2YCrCb)
    colours = cv2.resize(converted[:, :, 1:].astype(np.float64), (62, 40), interpolation=cv2.INTER_LINEAR)
    luma = converted[:, :, :1].repeat(2, 0).repeat(2, 1)
    expected = cv2.cvtColor(np.dstack([luma, np.rint(colours)]).astype(kind), cv2.COLOR_YCrCb2BGR)
    assert result.dtype == kind
    # One level of colour, where a half is rounded to the other side, is up to two of blue.
    assert np.abs(result.astype(int) - expected).max() <= 2
    assert np.abs(result.astype(int) - expected).mean() < 0.3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_grey_picture_stays_exactly_grey(load_graph, kind):
    network = load_graph(repeating(1, 3), "opencv", scale=3, color="y", value_range=255.0, halo=1, features=9)
    grey = noise(2, 12, 17, kind)[:, :, 0]
    result = enlarge(Picture(Kind.PNG, grey, bits=8 * grey.itemsize), network)
    assert np.array_equal(result.colour, grey.repeat(3, 0).repeat(3, 1))


def test_tiles_of_brightness_have_no_seams(load_graph):
    network = load_graph(repeating(1, 2), "opencv", scale=2, color="y", value_range=1.0, halo=1, features=4)
    picture = Picture(Kind.PNG, noise(3, 150, 130))
    assert np.array_equal(enlarge(picture, network, 40 * 40).colour, enlarge(picture, network).colour)


# Eight positions


def tilted():
    """A network that looks to the upper left only, so that every position of a picture gives something else."""
    weights = np.zeros((12, 3, 3, 3), np.float32)
    for output in range(12):
        weights[output, output // 4, :2, :2] = np.array([[0.1, 0.2], [0.3, 0.4]]) * (1 - output % 4 / 16)
    writer = graphs.GraphWriter()
    return writer.finish(writer.shuffle(writer.convolution(graphs.INPUT, weights), 2, mode="CRD"), channels=3, scale=2)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_ensemble_is_the_average_of_all_eight_positions(load_graph, runtime):
    plain = load_graph(tilted(), runtime, scale=2, color="rgb", value_range=1.0, halo=1, features=12)
    network = Network(plain.runtime, plain.model, lambda: plain.runtime, ensemble=True)
    tile = noise(4, 20, 28)
    average = np.zeros((40, 56, 3))
    for turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(tile[:, ::-1] if mirrored else tile, turns)
            result = np.rot90(plain([np.ascontiguousarray(turned)])[0], -turns)
            average += (result[:, ::-1] if mirrored else result) / 8
    (found,) = network([tile])
    assert np.abs(found - average).max() <= 1  # each of the eight was rounded
    assert np.abs(found.astype(int) - plain([tile])[0]).max() > 10
    turned = network([np.rot90(tile).copy()])[0]
    assert np.abs(turned.astype(int) - np.rot90(found)).max() <= 1  # sums in another order
    assert network.mflop_per_pixel == 8 * plain.model.mflop


def test_the_ensemble_of_the_embedded_model_is_close_to_it(model):
    plain = load_network("opencv", "fp32")
    network = Network(plain.runtime, model, lambda: plain.runtime, ensemble=True)
    tile = cv2.GaussianBlur(noise(5, 40, 50), (0, 0), 2)
    difference = np.abs(network([tile])[0].astype(int) - plain([tile])[0])
    assert 0 < difference.mean() < 2


# Reach


def graph_of(*nodes, weights=(), output="out"):
    model = helper.make_model(
        helper.make_graph(
            list(nodes),
            "test",
            [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, "h", "w"])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 3, "oh", "ow"])],
            [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights],
        )
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("network", "halo"),
    [
        (graph_of(helper.make_node("Relu", ["in"], ["out"])), 0),
        (graph_of(helper.make_node("Conv", ["in", "w"], ["out"], pads=[2] * 4), weights=[("w", (3, 3, 5, 5))]), 2),
        (
            graph_of(
                helper.make_node("Conv", ["in", "w"], ["out"], pads=[4] * 4, dilations=[4, 4]),
                weights=[("w", (3, 3, 3, 3))],
            ),
            4,
        ),
        (  # after halving, a pixel is two of the input's
            graph_of(
                helper.make_node("Conv", ["in", "w"], ["half"], pads=[1] * 4, strides=[2, 2]),
                helper.make_node("Conv", ["half", "w"], ["out"], pads=[1] * 4),
                weights=[("w", (3, 3, 3, 3))],
            ),
            3,
        ),
        (  # after doubling, half a one: a layer there reaches half a pixel, which is one
            graph_of(
                helper.make_node("Conv", ["in", "w12"], ["wide"], pads=[1] * 4),
                helper.make_node("DepthToSpace", ["wide"], ["large"], blocksize=2),
                helper.make_node("Conv", ["large", "w"], ["out"], pads=[1] * 4),
                weights=[("w", (3, 3, 3, 3)), ("w12", (12, 3, 3, 3))],
            ),
            2,
        ),
        (
            graph_of(
                helper.make_node("ReduceMean", ["in"], ["mean"]), helper.make_node("Add", ["in", "mean"], ["out"])
            ),
            None,
        ),
        (graph_of(helper.make_node("InstanceNormalization", ["in", "s", "s"], ["out"]), weights=[("s", (3,))]), None),
    ],
)
def test_how_far_a_network_looks_is_read_off_its_layers(network, halo):
    assert reach.halo_of(network) == halo


def test_the_reach_of_the_models_that_came_along_is_their_halo():
    for found in models.installed().values():
        if found.folder == models.bundled_folder():
            with open(found.path, "rb") as file:
                assert reach.halo_of(file.read()) == found.model.halo, found.name
