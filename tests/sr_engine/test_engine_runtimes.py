"""Which runtime is taken, what it is asked for, and what is said when it cannot."""

import os

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
    return models.verify(model, models.default_folder())


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
def test_openvino_says_which_devices_there_are(model, weights):
    with pytest.raises(UnusableEngine, match="only cpu"):
        openvino.load(weights, model, Options(device="gpu:3"))


@needs_openvino
def test_openvino_refuses_what_is_no_model(model, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(UnusableEngine, match="cannot load the model"):
        openvino.load(os.fspath(tmp_path / "m.onnx"), model, Options())
    with pytest.raises(UnusableEngine, match="cannot read the model"):
        openvino.load(os.fspath(tmp_path / "gone.onnx"), model, Options())
