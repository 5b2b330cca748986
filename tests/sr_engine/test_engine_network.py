"""The network: what reduced precision costs, and what happens to a tile that it spoilt."""

from pathlib import Path

import numpy as np
import pytest
from engine_files import draw
from networks import enlarge, load_network

from sr_engine.errors import PictureError, UnusableEngine
from sr_engine.formats.decoding import decode
from sr_engine.headers import Kind
from sr_engine.network import Network
from sr_engine.pictures import Picture
from sr_engine.protocol import Code

SET5 = Path(__file__).resolve().parents[3] / "shared" / "pictures" / "Set5"


class Spoiling:
    """A runtime whose arithmetic overflows, as half precision does on some devices."""

    name, device, precision, fixed_shapes = "spoiling", "cpu", "fp16", False
    streams = batch = 1

    def __init__(self, value, *, takes_bytes):
        self.value, self.takes_bytes, self.closed = value, takes_bytes, 0

    def run(self, batch):
        number, _, height, width = batch.shape
        result = np.zeros((number, 3, height * 3, width * 3), np.float32)
        result[:, :, 5, 5] = self.value
        return result

    def run_bytes(self, batch):
        number, height, width, _ = batch.shape
        return np.full((number, height * 3, width * 3, 3), self.value, np.uint8) if self.takes_bytes else None

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(("value", "takes_bytes"), [(np.nan, False), (np.inf, False), (0, True), (255, True)], ids=str)
def test_what_half_precision_spoils_is_done_again_in_fp32(network, value, takes_bytes):
    tile = draw(40, 50)
    loaded = []
    spoiling = Spoiling(value, takes_bytes=takes_bytes)
    careful = Network(spoiling, network.model, lambda: loaded.append(1) or network.runtime)
    for _ in range(2):
        assert np.array_equal(careful([tile])[0], network([tile])[0])
    assert loaded == [1]  # once, and kept


def test_a_black_tile_that_is_black_is_left_alone(network):
    def refuse():
        raise AssertionError("fp32 was not needed")

    black = np.zeros((20, 20, 3), np.uint8)
    assert not Network(Spoiling(0, takes_bytes=True), network.model, refuse)([black])[0].any()


def test_infinities_in_fp32_are_an_error_not_a_black_picture(network):
    broken = Spoiling(np.nan, takes_bytes=False)
    broken.precision = "fp32"
    with pytest.raises(PictureError) as caught:
        Network(broken, network.model, lambda: network.runtime)([draw()])
    assert caught.value.code is Code.UPSCALE_FAILED


def test_bytes_that_are_not_plausible_in_fp32_are_checked_as_floats(network):
    broken = Spoiling(0, takes_bytes=True)
    broken.precision = "fp32"
    broken.run = lambda batch: np.full((1, 3, 3 * batch.shape[2], 3 * batch.shape[3]), np.nan, np.float32)
    with pytest.raises(PictureError):
        Network(broken, network.model, lambda: network.runtime)([draw()])


def test_deep_samples_take_fp32_whatever_the_precision(network):
    tile = draw(30, 30).astype(np.uint16) * 257
    results = Network(Spoiling(0, takes_bytes=True), network.model, lambda: network.runtime)([tile])
    assert results[0].dtype == np.uint16
    assert np.abs(results[0] / 257 - network([draw(30, 30)])[0]).max() <= 0.51


def test_the_runtimes_agree_in_fp32(network, exact_network):
    tile = draw(90, 70)
    assert np.abs(exact_network([tile])[0].astype(int) - network([tile])[0]).max() <= 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.skipif(not SET5.is_dir(), reason="the Set5 pictures are not here, and may not be in the project")
def test_reduced_precision_costs_next_to_nothing(network, runtime, precision):
    try:
        reduced = load_network(runtime, precision)
    except UnusableEngine as error:
        pytest.skip(f"not on this machine: {error}")
    ours, exact, differences = [], [], []
    for path in sorted((SET5 / "HR").glob("*.png")):
        truth = decode(path.read_bytes())[0].colour
        source = decode((SET5 / "LRx3" / path.name).read_bytes())[0]
        results = [enlarge(source, each).colour for each in (reduced, network)]
        differences.append(np.abs(results[0].astype(int) - results[1]).mean())
        for result, kept in zip(results, (ours, exact), strict=True):
            kept.append(10 * np.log10(255**2 / ((result.astype(float) - truth) ** 2).mean()))
    assert np.mean(exact) - np.mean(ours) <= 0.02
    assert np.mean(differences) <= 0.25


def test_the_average_of_a_drawing_survives(network):
    """The bound of the plausibility check is far from what the network does to the average."""
    result = enlarge(Picture(Kind.PNG, draw(64, 64)), network).colour
    assert abs(result.mean() - draw(64, 64).mean()) < 2
