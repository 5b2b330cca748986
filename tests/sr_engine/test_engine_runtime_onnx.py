"""ONNX Runtime as a runtime: it runs where it says and as exactly as it says, or says why not and what to install."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from test_engine_runtime_opencv import STARVED, noise

from sr_engine import models
from sr_engine.errors import UnusableEngine
from sr_engine.runtimes import Options, onnx, opencv

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

OFFERED = onnx.devices()
ACCELERATORS = ["tensorrt", "cuda", "directml", "coreml"]


@pytest.fixture(scope="session")
def weights(model):
    return models.verify(models.find("edsr-lite-x3"))


@pytest.fixture(scope="session")
def runtime(weights, model):
    return onnx.load(weights, model, Options(device="cpu", precision="fp32"))


@pytest.fixture(scope="session")
def reference(weights, model):
    return opencv.load(weights, model, Options(device="cpu"))


def levels(one, other):
    """Differences in levels of 8 bits."""
    return np.abs(one - other) * 255


def test_it_is_there_and_has_a_cpu():
    assert onnx.missing() == ""
    assert OFFERED[-1] == "cpu"


def test_the_cpu_is_taken_as_asked(runtime):
    assert (runtime.name, runtime.device, runtime.precision, runtime.fixed_shapes) == ("onnx", "cpu", "fp32", False)
    assert runtime.run_bytes(np.zeros((1, 8, 8, 3), np.uint8)) is None


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 20, 31), (2, 3, 64, 48), (1, 3, 3, 200)])
def test_it_computes_what_opencv_computes(runtime, reference, shape):
    batch = noise(*shape)
    result = runtime.run(batch)
    assert result.dtype == np.float32
    assert levels(result, reference.run(batch)).max() < 0.01


def test_streams_do_not_disturb_each_other(runtime, reference):
    batches = [noise(1, 3, 40 + index, 50, seed=index) for index in range(6)]
    results = {}

    def work(mine):
        for index in mine:
            results[index] = runtime.run(batches[index])

    threads = [threading.Thread(target=work, args=(range(start, 6, 2),)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for index, batch in enumerate(batches):
        assert levels(results[index], reference.run(batch)).max() < 0.01


@pytest.mark.parametrize("device", ACCELERATORS)
def test_a_device_is_used_or_an_error_never_replaced(weights, model, device, reference):
    try:
        runtime = onnx.load(weights, model, Options(device=device, precision="fp32"))
    except UnusableEngine as error:
        assert "pip " in error.message
        assert device in error.message
    else:
        assert runtime.device.startswith(device)
        batch = noise(1, 3, 64, 80)
        assert levels(runtime.run(batch), reference.run(batch)).max() < 0.05


@pytest.mark.skipif(OFFERED != ["cpu"], reason="this build of ONNX Runtime is made for more than CPUs")
def test_a_build_for_cpus_says_what_to_install(weights, model):
    for device, remedy in {
        "gpu": r"onnxruntime-gpu",
        "cuda": r"onnxruntime-gpu",
        "cuda:1": r"onnxruntime-gpu",
        "tensorrt": "tensorrt-cu13-libs",
        "directml": "onnxruntime-directml",
        "coreml": "on a Mac",
        "npu": "openvino",
    }.items():
        with pytest.raises(UnusableEngine, match=remedy):
            onnx.load(weights, model, Options(device=device))
    assert onnx.load(weights, model, Options()).device == "cpu"


@pytest.mark.parametrize("device", ["cpu:0", "auto:1", "cuda:", "cuda:first", "coreml:0"])
def test_numbers_that_mean_nothing_are_refused(weights, model, device):
    with pytest.raises(UnusableEngine, match="as in cuda:1"):
        onnx.load(weights, model, Options(device=device))


def test_bf16_is_refused(weights, model):
    with pytest.raises(UnusableEngine, match="runs no model in bf16"):
        onnx.load(weights, model, Options(device="cpu", precision="bf16"))


def test_half_precision_is_close_and_converted_once(weights, model, reference, tmp_path):
    pytest.importorskip("onnx", reason="the package onnx, which converts models, is not installed")
    options = Options(device="cpu", precision="fp16", cache_folder=str(tmp_path / "cache"))
    runtime = onnx.load(weights, model, options)
    assert runtime.precision == "fp16"
    batch = noise(1, 3, 60, 80)
    expected = reference.run(batch)
    difference = levels(runtime.run(batch), expected)
    assert 0 < difference.mean() < 0.25

    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert model.sha256 in kept.name
    before = kept.stat().st_ino, kept.stat().st_mtime_ns
    again = onnx.load(weights, model, options).run(batch)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == before
    assert np.array_equal(levels(again, expected), difference)


def test_half_precision_without_a_place_for_it(weights, model, tmp_path, capfd):
    pytest.importorskip("onnx", reason="the package onnx, which converts models, is not installed")
    (tmp_path / "file").write_bytes(b"")
    for folder, complaint in {"": "", str(tmp_path / "file"): "not kept"}.items():
        options = Options(device="cpu", precision="fp16", cache_folder=folder)
        assert onnx.load(weights, model, options).precision == "fp16"
        assert complaint in capfd.readouterr().err


def test_half_precision_of_a_file_that_is_no_model(tmp_path, model):
    pytest.importorskip("onnx", reason="the package onnx, which converts models, is not installed")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all" * 99)
    with pytest.raises(UnusableEngine, match="cannot be converted"):
        onnx.load(str(broken), model, Options(device="cpu", precision="fp16"))


def test_a_file_that_is_no_model_is_refused(tmp_path, model, weights):
    broken = tmp_path / "broken.onnx"
    with open(weights, "rb") as file:
        whole = file.read()
    for content in (b"", b"no model at all" * 99, whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(UnusableEngine, match=f"cannot load the model {model.file}"):
            onnx.load(str(broken), model, Options(device="cpu"))
    with pytest.raises(UnusableEngine, match="cannot read"):
        onnx.load(str(tmp_path / "missing.onnx"), model, Options(device="cpu"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space, and /proc")
def test_too_little_memory_is_told_from_other_failures():
    child = subprocess.run(
        [sys.executable, "-c", STARVED.format(runtime="onnx")], check=False, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.startswith("out of memory: "), child.stderr


# As users reported them: onnxruntime#22702, hacksider/Deep-Live-Cam#584 and #645, huggingface/diffusers#791.
NO_MEMORY = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'/Conv' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate "
    "memory for requested buffer of size 4585490524328388608",
    "[ONNXRuntimeError] : 1 : FAIL : cuda_call.cc:114 onnxruntime::CudaCall CUDA failure 2: out of memory ; GPU=0 ; "
    "hostname=DESKTOP ; file=cuda_stream_handle.cc ; line=175 ; expr=cudaStreamCreateWithFlags(&stream, 1);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=TOBI ; line=168 ; expr=cublasCreate(&handle);",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=box",
    "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0 ; hostname=box",
    "Exception during initialization: BucketizedBufferAllocator.cpp(122)\\onnxruntime_pybind11_state.pyd!00007FFA82D1: "
    "Exception(1) tid(4790) 8007000E Not enough memory resources are available to complete this operation.",
    "std::bad_alloc",
]
OTHERWISE = [
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=box ; expr=cudaStreamSynchronize",
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1",
    "CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: input for the following indices",
    "887A0005 The GPU device instance has been suspended. Use GetDeviceRemovedReason to determine the action.",
]


@pytest.mark.parametrize("message", NO_MEMORY)
def test_lack_of_memory_is_recognised(message):
    assert onnx.means_out_of_memory(message)


@pytest.mark.parametrize("message", OTHERWISE)
def test_other_failures_are_not_taken_for_it(message):
    assert not onnx.means_out_of_memory(message)
