"""Which runtime is taken, what it is asked for, and what is said when it cannot."""

import os

import msgspec
import numpy as np
import pytest
from engine_files import draw

from sr_engine import models, runtimes
from sr_engine.errors import UnusableEngine
from sr_engine.protocol import Failed, Ready
from sr_engine.runtimes import Options

openvino = pytest.importorskip("sr_engine.runtimes.openvino")
needs_openvino = pytest.mark.skipif(bool(openvino.missing()), reason=openvino.missing() or "it is there")


@pytest.fixture
def weights(model):
    return models.verify(models.find("edsr-lite-x3"))


def test_no_runtime_of_that_name(model, weights):
    with pytest.raises(UnusableEngine, match="auto, opencv, openvino, onnx"):
        runtimes.load("tensorflow", weights, model, Options())


@pytest.mark.parametrize("name", [name for name in runtimes.NAMES if name != "auto"])
def test_a_device_that_is_not_there_is_an_error_never_the_cpu(model, weights, name):
    with pytest.raises(UnusableEngine) as caught:
        runtimes.load(name, weights, model, Options(device="npu:7"))
    assert "npu:7" in caught.value.message or "is not installed" in caught.value.message


def test_a_device_that_no_runtime_has_is_an_error_under_auto_too(model, weights):
    with pytest.raises(UnusableEngine):
        runtimes.load("auto", weights, model, Options(device="directml"))
    with pytest.raises(UnusableEngine, match="abacus"):
        runtimes.load("auto", weights, model, Options(device="abacus"))


@needs_openvino
def test_auto_takes_openvino_on_a_machine_without_a_gpu_and_says_so(converse):
    ready = converse("--device", "cpu").hear_until(Ready)[-1]
    assert (ready.runtime, ready.device) == ("openvino", "cpu")
    assert ready.reason == "the fastest here"


def test_auto_falls_loudly_where_an_installed_runtime_does_not_load(converse, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12 is missing')")
    engine = converse("--device", "cpu", environment={"PYTHONPATH": os.fspath(tmp_path)})
    ready = engine.hear_until(Ready)[-1]
    assert ready.runtime != "openvino"
    assert "libtbb.so.12 is missing" in ready.reason
    assert "NOT USING openvino" in engine.log()


@pytest.mark.parametrize("broken", ["raise OSError('libtbb.so.12')", "", "def Core(): raise RuntimeError('no plugin')"])
def test_auto_survives_a_package_that_is_broken_in_any_way(converse, tmp_path, broken):
    (tmp_path / "openvino.py").write_text(broken)
    engine = converse("--device", "cpu", environment={"PYTHONPATH": os.fspath(tmp_path)})
    assert engine.hear_until(Ready)[-1].runtime != "openvino"
    assert "NOT USING openvino" in engine.log()


def test_a_runtime_that_was_asked_for_does_not_fall(converse, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12 is missing')")
    engine = converse("--runtime", "openvino", environment={"PYTHONPATH": os.fspath(tmp_path)})
    failed = engine.hear_until(Failed)[-1]
    assert failed.id is None
    assert "libtbb.so.12 is missing" in failed.message
    assert engine.process.wait(30) == 3


@needs_openvino
def test_openvino_takes_any_shape_and_float_or_bytes(model, weights, network):
    runtime = openvino.load(weights, model, Options(precision="fp32", threads=1))
    assert runtime.streams == 1
    for height, width in ((1, 1), (30, 50), (7, 200)):
        tile = draw(height, width)
        assert np.abs(runtime.run_bytes(tile[None])[0].astype(int) - network([tile])[0]).max() <= 1
    batch = runtime.run_bytes(np.stack([draw(9, 8, 1), draw(9, 8, 2)]))
    assert np.abs(batch[1].astype(int) - network([draw(9, 8, 2)])[0]).max() <= 1
    runtime.close()


@needs_openvino
def test_openvino_for_devices_that_want_one_shape(model, weights, network):
    """The way that GPUs and NPUs go, on the CPU: a network compiled for each shape."""
    runtime = openvino.load(weights, model, Options(precision="fp32"))
    runtime.fixed_shapes = True
    for height, width in ((20, 30), (30, 20), (20, 30)):
        tile = draw(height, width)
        assert np.abs(runtime.run_bytes(tile[None])[0].astype(int) - network([tile])[0]).max() <= 1
        values = np.ascontiguousarray(tile[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / 255
        assert runtime.run(values).shape == (1, 3, height * 3, width * 3)


@needs_openvino
def test_openvino_keeps_what_it_compiled_and_survives_its_damage(model, weights, network, tmp_path):
    tile = draw(20, 30)
    for kept_bytes in (None, 0, 1000, None):
        for blob in (tmp_path / "openvino").glob("*.blob"):
            if kept_bytes is not None:
                blob.chmod(0o600)
                os.truncate(blob, kept_bytes)
        runtime = openvino.load(weights, model, Options(precision="fp32", cache_folder=os.fspath(tmp_path)))
        assert np.abs(runtime.run_bytes(tile[None])[0].astype(int) - network([tile])[0]).max() <= 1
        assert list((tmp_path / "openvino").glob("*.blob"))


@needs_openvino
def test_openvino_takes_a_cache_folder_that_is_not_text(model, weights, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    runtime = openvino.load(weights, model, Options(cache_folder=folder))
    assert runtime.run_bytes(draw(5, 5)[None]).shape == (1, 15, 15, 3)


@needs_openvino
def test_openvino_says_which_devices_there_are(model, weights):
    for device in ("gpu:3", "cpu:3", "cpu:", "npu"):
        with pytest.raises(UnusableEngine, match="only cpu"):
            openvino.load(weights, model, Options(device=device))


@needs_openvino
def test_openvino_refuses_what_is_no_model(model, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(UnusableEngine, match="cannot load the model"):
        openvino.load(os.fspath(tmp_path / "m.onnx"), model, Options())
    with pytest.raises(UnusableEngine, match="cannot read the model"):
        openvino.load(os.fspath(tmp_path / "gone.onnx"), model, Options())


@needs_openvino
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("ending", ["shuffle", "shuffle plus input", "input plus shuffle", "clipped", "bilinear base"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_openvino_takes_networks_of_any_ending(model, tmp_path, mode, ending, color):
    """With bytes the same as with floats, though most of these are cut before their pixel shuffle."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(5)
    weights = [
        numpy_helper.from_array((rng.normal(size=(27, 3, 3, 3)) / 20).astype(np.float32), "w"),
        numpy_helper.from_array(np.full(27, 0.2, np.float32), "b"),
        numpy_helper.from_array(np.array([1, 1, 3, 3], np.float32), "scales"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["features"], ["enlarged"], blocksize=3, mode=mode),
    ]
    if ending == "shuffle":
        nodes[-1].output[0] = "y"
    elif ending == "clipped":
        nodes.append(helper.make_node("Clip", ["enlarged"], ["y"]))
    else:
        plain = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        base = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} if "bilinear" in ending else plain
        nodes.append(helper.make_node("Resize", ["x", "", "scales"], ["base"], **base))
        summands = ["base", "enlarged"] if ending.startswith("input") else ["enlarged", "base"]
        nodes.append(helper.make_node("Add", summands, ["y"]))
    ends = [helper.make_tensor_value_info(name, 1, ["n", 3, f"{name}h", f"{name}w"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)

    small = msgspec.structs.replace(model, color=color)
    runtime = openvino.load(os.fspath(path), small, Options(precision="fp32", threads=1))
    tile = draw(14, 11)
    ordered = tile[:, :, ::-1] if color == "rgb" else tile
    floats = runtime.run(np.ascontiguousarray(ordered.transpose(2, 0, 1)[None], np.float32) / 255)[0].transpose(1, 2, 0)
    expected = np.clip(np.rint((floats[:, :, ::-1] if color == "rgb" else floats) * 255), 0, 255)
    assert np.abs(runtime.run_bytes(tile[None])[0] - expected).max() <= 1
