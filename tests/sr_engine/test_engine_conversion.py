"""Models of dnn_superres: the converted network gives what OpenCV gives, and what is no such model is refused."""

import hashlib
import importlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import frozen_graphs
import numpy as np
import onnx
import pytest
import yaml
from networks import enlarge

from sr_engine import conversion, frozen_graph, graphs, models, runtimes
from sr_engine.conversion import convert
from sr_engine.errors import ModelError
from sr_engine.headers import Kind
from sr_engine.loading import Choice, load
from sr_engine.pictures import Picture
from sr_engine.tiles import smallest_tile
from sr_engine.translation import Translation

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = ROOT.parent / "shared" / "models"

# The file, and what is in it: color, range of values, and the halo, the sum of what the kernels reach to one side. In
# LapSRN the later layers see enlarged pixels, and kernels of 4 x 4 reach one pixel to one side and two to the other.
BUILT = {
    "EDSR_x2.pb": (partial(frozen_graphs.edsr, 2, blocks=2), "edsr", "bgr", 255, 7),
    "EDSR_x3.pb": (frozen_graphs.edsr, "edsr", "bgr", 255, 9),
    "EDSR-plain_x4.pb": (partial(frozen_graphs.edsr, 4, blocks=1, quantised=False), "edsr", "bgr", 255, 5),
    "FSRCNN_x3.pb": (frozen_graphs.fsrcnn, "fsrcnn", "y", 1, 4),
    "FSRCNN-small_x2.pb": (partial(frozen_graphs.fsrcnn, 2, layers=0), "fsrcnn", "y", 1, 3),
    "ESPCN_x4.pb": (partial(frozen_graphs.espcn, 4), "espcn", "y", 1, 4),
    "LapSRN_x2.pb": (partial(frozen_graphs.lapsrn, 2), "lapsrn", "y", 1, 5),
}
PYRAMIDS = {
    "LapSRN_x4.pb": (partial(frozen_graphs.lapsrn, 4), "lapsrn", "y", 1, 8),
    "LapSRN_x8.pb": (partial(frozen_graphs.lapsrn, 8), "lapsrn", "y", 1, 9),
}
UPSTREAM_HALOS = {"FSRCNN_x3.pb": 6, "ESPCN_x3.pb": 4}
KNOWN = "those are EDSR, ESPCN, FSRCNN and LapSRN as OpenCV's dnn_superres takes them; add others as ONNX files"


class Case(NamedTuple):
    """A frozen graph, what became of it, and what OpenCV makes of pictures with the original."""

    path: str
    converted: conversion.Converted
    pictures: list[np.ndarray]
    theirs: list[np.ndarray]


@pytest.fixture(scope="module", params=[*BUILT, *(f"upstream {name}" for name in UPSTREAM_HALOS)])
def case(request, tmp_path_factory):
    name, folder = request.param, tmp_path_factory.mktemp("graph")
    if name.startswith("upstream "):
        path = upstream(name.removeprefix("upstream "))
    else:
        path = written(folder, name, BUILT[name][0]())
    converted, pictures = convert(path), [photograph(43, 60), noise(31, 38)]
    return Case(path, converted, pictures, by_opencv(folder, path, converted, pictures))


def upstream(name):
    if not (UPSTREAM / name).is_file():
        pytest.skip("the models of dnn_superres are not here, and are not part of the project")
    return str(UPSTREAM / name)


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return str(path)


def photograph(height, width):
    return cv2.resize(cv2.imread(str(ROOT / "docs" / "bee.jpg")), (width, height), interpolation=cv2.INTER_AREA)


def noise(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


# In a process of its own, since it changes what OpenCV does with other networks.
DNN_SUPERRES = """
import sys
import cv2
import numpy as np
path, algorithm, scale, *pictures = sys.argv[1:]
upscaler = cv2.dnn_superres.DnnSuperResImpl.create()
upscaler.readModel(path)
upscaler.setModel(algorithm, int(scale))
for picture in pictures:
    np.save(picture, upscaler.upsample(np.load(picture)))
"""


def by_opencv(folder, path, converted, pictures):
    files = [str(folder / f"{number}.npy") for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        np.save(file, picture)
    facts = [converted.algorithm, str(converted.scale)]
    subprocess.run([sys.executable, "-c", DNN_SUPERRES, path, *facts, *files], check=True)
    return [np.load(file) for file in files]


def in_engine(folder, converted, runtime):
    """The converted network, as the engine loads it."""
    if reason := importlib.import_module(f"sr_engine.runtimes.{runtime}").missing():
        pytest.skip(reason)
    written(folder, "converted.onnx", converted.onnx)
    facts = {key: value for key, value in converted._asdict().items() if key != "onnx"}
    digest = hashlib.sha256(converted.onnx).hexdigest()
    entry = {"file": "converted.onnx", "sha256": digest, "licence": "Apache-2.0", **facts}
    (folder / models.MANIFEST).write_text(yaml.safe_dump({"models": {"converted": entry}}))
    options = runtimes.Options(device="cpu", precision="fp32")
    return load(Choice("converted", str(folder), runtime, options)).network


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(int) - theirs).max()


def run(network, values):
    """An ONNX network on NxCxHxW."""
    net = cv2.dnn.readNetFromONNX(np.frombuffer(network, np.uint8))
    net.setInput(values)
    return net.forward()


@pytest.mark.parametrize("runtime", ["opencv", "openvino", "onnx"])
def test_every_pixel_is_that_of_dnn_superres(case, tmp_path, runtime):
    network = in_engine(tmp_path, case.converted, runtime)
    for picture, theirs in zip(case.pictures, case.theirs, strict=True):
        assert difference(network([picture])[0], theirs) <= 1


def test_tiles_are_what_the_whole_is(case, tmp_path):
    network = in_engine(tmp_path, case.converted, "opencv")
    picture = Picture(Kind.PNG, photograph(97, 110))
    whole = enlarge(picture, network).colour
    assert difference(enlarge(picture, network, smallest_tile(network.model.halo)).colour, whole) <= 1


def test_a_conversion_leaves_opencv_as_it_was(tmp_path):
    """dnn_superres does not: its layer DepthToSpace takes the place of ONNX's."""
    network, values = small_edsr(), np.random.default_rng(9).random((1, 3, 8, 9)).astype(np.float32)
    before = run(network, values)
    convert(written(tmp_path, "model.pb", frozen_graphs.edsr(blocks=1)))
    assert np.array_equal(run(network, values), before)


@pytest.mark.parametrize(("name", "facts"), [*BUILT.items(), *PYRAMIDS.items()], ids=[*BUILT, *PYRAMIDS])
def test_what_the_manifest_says_is_read_off_the_layers(tmp_path, name, facts):
    build, algorithm, color, value_range, halo = facts
    # whatever the file is called
    converted = convert(written(tmp_path, "model.pb", build()))
    scale = int(name[-4])
    assert converted[1:] == (algorithm, scale, color, value_range, halo)
    assert convert(str(tmp_path / "model.pb"), algorithm, scale) == converted


@pytest.mark.parametrize(("name", "halo"), UPSTREAM_HALOS.items())
def test_the_halo_of_the_real_models(name, halo):
    converted = convert(upstream(name))
    assert (converted.scale, converted.halo) == (3, halo)
    assert name.lower().startswith(converted.algorithm)


@pytest.mark.parametrize("facts", [*BUILT.values(), *PYRAMIDS.values()], ids=[*BUILT, *PYRAMIDS])
def test_a_pixel_is_seen_as_far_as_the_halo_and_no_farther(tmp_path, facts):
    converted = convert(written(tmp_path, "model.pb", facts[0](kind=frozen_graphs.EvenGraph)))
    channels, place, scale = (3 if converted.color == "bgr" else 1), 20, converted.scale
    plain = np.random.default_rng(4).uniform(0.4, 0.6, (1, channels, 12, 41)).astype(np.float32)
    plain *= converted.value_range
    changed = plain.copy()
    changed[..., place] += converted.value_range / 2
    apart = np.flatnonzero((run(converted.onnx, plain) != run(converted.onnx, changed)).any(axis=(0, 1, 2))) // scale
    assert max(place - apart.min(), apart.max() - place) == converted.halo


@pytest.mark.parametrize("build", [facts[0] for facts in PYRAMIDS.values()], ids=PYRAMIDS)
def test_of_several_enlargements_the_last_is_taken(tmp_path, build):
    """That it is right was checked against OpenCV's by `convert`."""
    converted = convert(written(tmp_path, "model.pb", build()))
    result = run(converted.onnx, np.zeros((1, 1, 5, 6), np.float32))
    assert result.shape == (1, 1, 5 * converted.scale, 6 * converted.scale)


def test_quantised_weights_are_those_that_opencv_computes(tmp_path):
    path = written(tmp_path, "model.pb", frozen_graphs.edsr(blocks=1))
    original = cv2.dnn.readNetFromTensorflow(path, engine=cv2.dnn.ENGINE_CLASSIC)
    network = onnx.load_from_string(convert(path).onnx)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    kernels = [values[node.input[1]] for node in network.graph.node if node.op_type == "Conv"]
    names = ["head", "conv0_1", "conv0_2", "end", "tail"]
    factors = np.float32([1, 1, 0.1, 1, 1])  # what scales a block's result is in its second kernel
    for kernel, name, factor in zip(kernels, names, factors, strict=True):
        theirs = original.getLayer(original.getLayerId(name)).blobs[0]
        assert np.array_equal(kernel, theirs * factor), name


def test_quantised_weights_by_the_formula():
    weights = np.random.default_rng(5).normal(0.1, 1, 999).astype(np.float32)
    least, step = weights.min(), (weights.max() - weights.min()) / np.float32(255)
    levels = np.rint((weights - least) / step).astype(np.uint8)
    found = frozen_graph.dequantised(levels, np.float32(least), np.float32(weights.max()))
    expected = levels.astype(np.float64) * float(step) + float(step * np.rint(least / step))
    assert np.array_equal(found, expected.astype(np.float32))
    assert np.abs(found - weights).max() < 1.01 * step


def valid_padding():
    graph = frozen_graphs.Graph()
    x = graph.convolution("conv", "IteratorGetNext", graph.random(3, 3, 1, 4), padding=b"VALID")
    graph.output("NCHW_output", graph.shuffle("DepthToSpace", x, 2))
    return graph.written()


def ambiguous_shuffle():
    """OpenCV tells the scale of a shuffle by the number of channels, and takes this one for 4."""
    graph = frozen_graphs.Graph()
    x = graph.shuffle("shuffle", graph.convolution("conv", "IteratorGetNext", graph.random(3, 3, 1, 16)), 2)
    graph.output("NCHW_output", graph.convolution("last", x, graph.random(3, 3, 4, 1)))
    return graph.written()


def without_a_node():
    graph = frozen_graphs.Graph()
    graph.add("Relu", "Relu", "conv7")
    return graph.written()


BROKEN = {
    "cut off": (frozen_graphs.edsr()[:-50], "it is cut off, or of another kind"),
    "noise": (np.random.default_rng(6).bytes(5000), "it is cut off, or of another kind"),
    "empty": (b"", "it has no nodes"),
    "ONNX": ((ROOT / "models" / "edsr-lite-x3.onnx").read_bytes(), "it has no nodes"),
    "a missing node": (without_a_node(), "its node conv7 is missing"),
}


@pytest.mark.parametrize(("data", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_frozen_graph_is_refused(tmp_path, data, reason):
    path = written(tmp_path, "EDSR_x3.pb", data)
    with pytest.raises(ModelError) as caught:
        convert(path)
    assert caught.value.message == (
        f"{path} is not a whole frozen TensorFlow graph ({reason}): download it again, "
        "and if it is an ONNX file give it the ending .onnx"
    )


OTHERS = {
    "one that enlarges nothing": (frozen_graphs.style_transfer, "it makes 3 channels of 3, and enlarges 1 times"),
    "one of other layers": (frozen_graphs.classifier, "Softmax is a Softmax"),
    "one that loses its border": (valid_padding, "conv is not a plain convolution"),
}


@pytest.mark.parametrize(("build", "reason"), OTHERS.values(), ids=OTHERS)
def test_other_networks_are_refused(tmp_path, build, reason):
    path = written(tmp_path, "EDSR_x3.pb", build())
    with pytest.raises(ModelError) as caught:
        convert(path)
    assert caught.value.message == f"{path} is none of the networks that can be converted ({reason}): {KNOWN}"


def test_a_graph_that_opencv_understands_otherwise_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"can be converted \(OpenCV .*\): those are EDSR"):
        convert(written(tmp_path, "model.pb", ambiguous_shuffle()))


def test_damage_never_goes_unsaid():
    """Whatever bytes are changed: either it is still a network, or one of the two refusals."""
    rng, refused = np.random.default_rng(10), 0
    for _ in range(400):
        data = bytearray(frozen_graphs.fsrcnn(2, features=2, shrunk=2, layers=0))
        place = int(rng.integers(len(data)))
        data[place : place + int(rng.integers(4))] = rng.bytes(int(rng.integers(4)))
        try:
            Translation(frozen_graph.nodes_of(bytes(data))).network()
        except (frozen_graph.BrokenFile, frozen_graph.UnknownNetwork):
            refused += 1
    assert 100 < refused < 400


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "missing.pb")
    with pytest.raises(ModelError) as caught:
        convert(path)
    assert caught.value.message == f"cannot read the model {path}: No such file or directory; check its name and rights"


@pytest.mark.parametrize(
    ("algorithm", "scale", "sentence"),
    [
        ("fsrcnn", None, "holds a network like edsr, not fsrcnn: name that algorithm, or none"),
        ("srgan", None, "holds a network like edsr, not srgan: name that algorithm, or none"),
        ("edsr", 4, "enlarges 3 times, not 4: name that scale, or none"),
    ],
)
def test_what_the_layers_contradict_is_refused(tmp_path, algorithm, scale, sentence):
    path = written(tmp_path, "EDSR_x4.pb", frozen_graphs.edsr(blocks=1))
    with pytest.raises(ModelError) as caught:
        convert(path, algorithm, scale)
    assert caught.value.message == f"{path} {sentence}"


def test_an_opencv_without_its_importer_is_told(tmp_path, monkeypatch):
    path = written(tmp_path, "EDSR_x3.pb", frozen_graphs.edsr(blocks=1))
    monkeypatch.delattr(cv2.dnn, "readNetFromTensorflow")
    with pytest.raises(ModelError) as caught:
        convert(path)
    assert caught.value.message == (
        f"this OpenCV ({cv2.__version__}) cannot run {path}, so that no conversion could be checked: "
        "add an ONNX file instead, or convert with opencv-contrib-python<6"
    )


def test_the_facts_of_the_embedded_model():
    facts = graphs.described((ROOT / "models" / "edsr-lite-x3.onnx").read_bytes())
    # 3 -> 32, 33 times 32 -> 32 and 32 -> 27 channels, 3 x 3 each
    assert facts == (2 * 9 * (3 * 32 + 33 * 32 * 32 + 32 * 27), 32, 313_883)


def test_layers_that_work_on_enlarged_pixels_count_as_often(tmp_path):
    converted = convert(written(tmp_path, "model.pb", frozen_graphs.lapsrn(4, features=6, layers=2)))
    kernels = 9 * (6 + 6 * 6) + 16 * (4 * 6 + 4)
    biases, slopes = 2 * 6, 2 * 6 + 2
    assert graphs.described(converted.onnx) == (2 * kernels * (1 + 4), 4 * 6, 2 * (kernels + biases + slopes))


@pytest.mark.parametrize("data", [b"", b"no network at all", b"\x08\x08"])
def test_facts_of_what_is_no_network(data):
    with pytest.raises(ModelError, match=r"^thing.onnx is not an ONNX network .*: export it"):
        graphs.described(data, "thing.onnx")


def small_edsr():
    """As a trained one is exported: the tail's result is added to the enlarged input."""
    rng, writer = np.random.default_rng(7), graphs.GraphWriter()

    def convolution(x, inputs, outputs):
        return writer.convolution(x, np.float32(rng.normal(0, 0.1, (outputs, inputs, 3, 3))), np.zeros(outputs, "f4"))

    x = head = convolution(graphs.INPUT, 3, 8)
    x = writer.add(convolution(writer.relu(convolution(x, 8, 8)), 8, 8), x)
    x = writer.add(convolution(x, 8, 8), head)
    x = writer.shuffle(convolution(x, 8, 27), 3, "CRD")
    return writer.finish(writer.add(x, writer.nearest(graphs.INPUT, 3)), 3, 3)


def test_openvino_recognises_the_end_of_a_written_network(tmp_path):
    openvino = pytest.importorskip("openvino")
    from sr_engine.runtimes import openvino_graph

    network = small_edsr()
    converted = conversion.Converted(network, "edsr", 3, "rgb", 1.0, 5)
    model = in_engine(tmp_path, converted, "opencv").model
    _, cut = openvino_graph.on_bytes(openvino.Core().read_model(str(tmp_path / "converted.onnx")), model)
    assert cut
    picture = photograph(30, 33)
    theirs = in_engine(tmp_path, converted, "openvino")([picture])[0]
    assert difference(in_engine(tmp_path, converted, "opencv")([picture])[0], theirs) <= 1


def test_a_written_network_says_what_it_is():
    model = onnx.load_from_string(small_edsr())
    assert (model.ir_version, model.opset_import[0].version, model.producer_name) == (8, 13, "dropscale")
    sides = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert sides == [["n", 3, "h", "w"], ["n", 3, "3h", "3w"]]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "output"]
