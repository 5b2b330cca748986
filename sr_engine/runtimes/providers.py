"""What ONNX Runtime's execution providers need: their names, libraries and options, and what to do without them.

Names and meaning of the options: onnxruntime.ai/docs/execution-providers.
"""

import contextlib
import ctypes.util
import importlib
import importlib.util
import os
from typing import Any, NamedTuple

from sr_engine.models import Model

# Best first.
NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# Two builds of ONNX Runtime in one environment overwrite each other's files, so the other has to go first.
REMEDIES = {
    # onnxruntime-gpu is linked to CUDA 13 since 1.27, to cuDNN 9, and in 1.31 still to TensorRT 10.
    "tensorrt": "pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]' onnx 'tensorrt-cu13-libs<11'; "
    "nvidia-smi must show the GPU and CUDA 13",
    "cuda": "pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]' onnx; "
    "nvidia-smi must show the GPU and CUDA 13",
    "directml": "on Windows: pip uninstall -y onnxruntime; pip install onnxruntime-directml",
    "coreml": "on a Mac: pip install onnxruntime",
    "cpu": "pip install --force-reinstall onnxruntime",
}
NUMBERED = ("tensorrt", "cuda", "directml")
TILE = 512
BATCH = 4


class Target(NamedTuple):
    """Where and how the network is to run.

    Attributes:
        device: a key of NAMES.
        number: which of several devices.
        precision: "fp32" or "fp16".
        threads: of the CPU, all streams together.
        cache_folder: as in `Options`.
    """

    device: str
    number: int
    precision: str
    threads: int
    cache_folder: str


def has_tensorrt() -> bool:
    """Whether TensorRT's own libraries are on this machine; every build for CUDA offers it, with them or without."""
    names = ("nvinfer", "nvinfer_10")  # the second on Windows
    return importlib.util.find_spec("tensorrt_libs") is not None or any(map(ctypes.util.find_library, names))


def load_libraries(target: Target, onnxruntime: Any) -> None:
    """Load NVIDIA's libraries that came with pip: by itself ONNX Runtime searches the system's folders only."""
    if target.device not in ("cuda", "tensorrt"):
        return
    if target.precision == "fp32":
        # TensorRT has no option against rounding to TF32.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        onnxruntime.preload_dlls()
    if target.device == "tensorrt":
        # The import loads them. Where it is missing they can still be the system's.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt_libs")


def options(target: Target, model: Model, probe: Any, shape: tuple[int, ...]) -> list[tuple[str, dict[str, str]]]:
    """The providers that a session may use, each with its options.

    Args:
        target: where to run.
        model: what to run.
        probe: the model's input, as ONNX Runtime describes it.
        shape: of the tiles, where each gets a session of its own (CoreML).
    """
    if target.device == "tensorrt":
        # CUDA takes the parts of a network that TensorRT leaves over.
        return [(NAMES["tensorrt"], _tensorrt(target, model, probe)), (NAMES["cuda"], _cuda(target))]
    found: dict[str, str] = {}
    if target.device == "cuda":
        found = _cuda(target)
    elif target.device == "directml":
        found = {"device_id": str(target.number)}
    elif target.device == "coreml":
        found = _coreml(target, model, shape)
    return [(NAMES[target.device], found)]


def _cuda(target: Target) -> dict[str, str]:
    return {
        "device_id": str(target.number),
        # The default tries all algorithms for every new shape: 634 ms instead of 2 each time (PaddleX#5057).
        "cudnn_conv_algo_search": "HEURISTIC",
        # The default takes the next power of two, memory that nobody else can use then.
        "arena_extend_strategy": "kSameAsRequested",
        # Ten bits of mantissa are not what fp32 promises.
        "use_tf32": "0",
    }


def _tensorrt(target: Target, model: Model, probe: Any) -> dict[str, str]:
    around = f"{probe.name}:{{}}x{probe.shape[1]}x{{}}x{{}}"
    largest = around.format(BATCH, TILE, TILE)
    found = {
        "device_id": str(target.number),
        "trt_fp16_enable": str(int(target.precision == "fp16")),
        # One engine for pictures of every size, as building one takes minutes.
        "trt_profile_min_shapes": around.format(1, 1, 1),
        "trt_profile_opt_shapes": largest,
        "trt_profile_max_shapes": largest,
    }
    cache = _cache(target, model)
    if cache:
        found |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": cache}
        found |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": cache}
    return found


def _coreml(target: Target, model: Model, shape: tuple[int, ...]) -> dict[str, str]:
    # The default format, NeuralNetwork, has no pixel shuffle of the order that PyTorch uses.
    found = {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}
    cache = _cache(target, model, "x".join(map(str, shape)))
    return found | {"ModelCacheDirectory": cache} if cache else found


def _cache(target: Target, model: Model, *parts: str) -> str:
    """A folder of this model's own, as the caches tell models apart by little more than their inputs' names."""
    if not target.cache_folder:
        return ""
    path = os.path.join(target.cache_folder, target.device, f"{model.sha256}-{target.precision}", *parts)
    os.makedirs(path, exist_ok=True)
    return path
