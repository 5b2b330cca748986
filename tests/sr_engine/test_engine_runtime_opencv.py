"""OpenCV as a runtime: it runs where it says, or says why not."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from sr_engine import models
from sr_engine.errors import UnusableEngine
from sr_engine.runtimes import Options, opencv

HAS_CUDA = cv2.cuda.getCudaEnabledDeviceCount() > 0


@pytest.fixture(scope="session")
def weights(model):
    return models.verify(models.find("edsr-lite-x3"))


def noise(*shape, seed=1):
    return np.random.default_rng(seed).random(shape, np.float32)


def test_it_runs_on_the_cpu_in_fp32(weights, model):
    runtime = opencv.load(weights, model, Options(device="cpu"))
    assert (runtime.name, runtime.device, runtime.precision, runtime.fixed_shapes) == ("opencv", "cpu", "fp32", False)
    for shape in ((1, 3, 20, 31), (2, 3, 17, 16), (1, 3, 1, 1)):
        result = runtime.run(noise(*shape))
        assert result.dtype == np.float32
        assert result.shape == (shape[0], 3, shape[2] * 3, shape[3] * 3)
        assert np.isfinite(result).all()
    assert runtime.run_bytes(np.zeros((1, 8, 8, 3), np.uint8)) is None
    runtime.close()


@pytest.mark.skipif(HAS_CUDA, reason="this OpenCV has CUDA")
def test_auto_is_the_cpu_without_cuda(weights, model):
    assert opencv.load(weights, model, Options()).device == "cpu"


@pytest.mark.skipif(HAS_CUDA, reason="this OpenCV has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu"])
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(weights, model, device):
    with pytest.raises(UnusableEngine, match=r"onnxruntime-gpu"):
        opencv.load(weights, model, Options(device=device))


@pytest.mark.skipif(not HAS_CUDA, reason="this OpenCV has no CUDA")
@pytest.mark.parametrize(("precision", "close"), [("fp32", 0.01), ("fp16", 0.25)])
def test_cuda_equals_the_cpu(weights, model, precision, close):
    runtime = opencv.load(weights, model, Options(device="cuda", precision=precision))
    assert runtime.device == "cuda:0"
    batch = noise(1, 3, 48, 64)
    expected = opencv.load(weights, model, Options(device="cpu")).run(batch)
    assert np.abs(runtime.run(batch) - expected).mean() * 255 < close


@pytest.mark.parametrize("device", ["npu", "directml", "tensorrt", "coreml"])
def test_devices_it_never_has_are_refused(weights, model, device):
    with pytest.raises(UnusableEngine, match=f"no device {device}: .*engine.runtime"):
        opencv.load(weights, model, Options(device=device))


@pytest.mark.parametrize("device", ["cpu:0", "cuda:first", "auto:1"])
def test_numbers_that_mean_nothing_are_refused(weights, model, device):
    with pytest.raises(UnusableEngine, match="as in cuda:1"):
        opencv.load(weights, model, Options(device=device))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_cpu_has_fp32_only(weights, model, precision):
    with pytest.raises(UnusableEngine, match=f"no {precision} on cpu: set engine.precision"):
        opencv.load(weights, model, Options(device="cpu", precision=precision))


def test_a_file_that_is_no_model_is_refused(tmp_path, model):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all" * 99)
    with pytest.raises(UnusableEngine, match=model.file):
        opencv.load(str(broken), model, Options(device="cpu"))
    with pytest.raises(UnusableEngine, match="cannot read"):
        opencv.load(str(tmp_path / "missing.onnx"), model, Options(device="cpu"))


STARVED = """
import re, resource, sys
import numpy as np
from sr_engine import models
from sr_engine.runtimes import Options, OutOfDeviceMemory, {runtime}
model = models.find("edsr-lite-x3").model
runtime = {runtime}.load(models.verify(models.find("edsr-lite-x3")), model, Options(device="cpu", threads=1))
runtime.run(np.zeros((1, 3, 16, 16), np.float32))
batch = np.zeros((1, 3, 1500, 1500), np.float32)
used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)
try:
    runtime.run(batch)
except OutOfDeviceMemory as error:
    print("out of memory:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space, and /proc")
def test_too_little_memory_is_told_from_other_failures():
    child = subprocess.run(
        [sys.executable, "-c", STARVED.format(runtime="opencv")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stdout.startswith("out of memory: "), child.stderr
