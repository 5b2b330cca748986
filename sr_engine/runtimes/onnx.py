"""ONNX Runtime: NVIDIA's GPUs by CUDA or TensorRT, any GPU of Windows by DirectML, Apple's by CoreML, and CPUs.

By itself ONNX Runtime turns to the CPU when a device's libraries don't load, when it has no kernel for a part of the
network, and when the device fails in the middle of a run. All three are switched off here, and it is checked.
"""

import importlib.util
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sr_engine import admission
from sr_engine.errors import DeviceBusy, EnvironmentFault, UnusableEngine
from sr_engine.machine import processors
from sr_engine.models import Model
from sr_engine.protocol import Code
from sr_engine.runtimes import Options, OutOfDeviceMemory, half, providers
from sr_engine.runtimes.providers import NAMES, NUMBERED, REMEDIES, Target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ERRORS_ONLY = 3
# CoreML: each has a session, and a folder of pictures has few shapes of tiles.
_MOST_SHAPES = 8
_MOST_STREAMS = 4
_MEMORY_TROUBLE = re.compile(
    r"failed to allocate memory|out of memory|OutOfMemory|ALLOC(ATION)?_FAILED|bad_alloc|bad allocation"
    r"|8007000E|not enough memory resources",
    re.IGNORECASE,
)


def missing() -> str:
    """Why ONNX Runtime cannot be used here and what to do, in one sentence; empty if it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return (
            "onnxruntime is not installed: pip install onnxruntime for CPUs and Macs, "
            "'onnxruntime-gpu[cuda,cudnn]' onnx for NVIDIA's GPUs, or onnxruntime-directml for other GPUs on Windows"
        )
    return ""


def devices() -> list[str]:
    """What this build of ONNX Runtime is made for, best first; whether it works here shows when a model is loaded.

    Raises:
        UnusableEngine: ONNX Runtime does not load.
    """
    offered = _onnxruntime().get_available_providers()
    return [device for device, provider in NAMES.items() if provider in offered]


def load(weights: str, model: Model, options: Options) -> "OnnxRuntime":
    """Load the ONNX file `weights`; see `sr_engine.runtimes.load`.

    Raises:
        UnusableEngine: ONNX Runtime does not load, has not the device or the precision, or refuses the file.
        DeviceBusy: others hold the device.
    """
    if options.precision == "bf16":
        raise UnusableEngine(
            "ONNX Runtime runs no model in bf16: set engine.precision to auto, fp16 or fp32, "
            "or engine.runtime to openvino"
        )
    try:
        with open(weights, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UnusableEngine(f"cannot read the model {weights}: {error.strerror}") from error
    refusals: list[UnusableEngine | DeviceBusy] = []
    for device, number in _with_others(_candidates(options.device), options):
        try:
            return _load_on(device, number, data, model, options)
        except UnusableEngine as error:
            refusals.append(error)
        except DeviceBusy as error:
            if options.admission != admission.ANY:
                raise
            refusals.append(error)
        name = f"{device}:{number}" if device in NUMBERED else device
        sys.stderr.write(f"NOT USING {name}, which this build of ONNX Runtime offers: {refusals[-1].message}\n")
    # that a device is busy passes by, and is what to wait for
    raise next((error for error in refusals if isinstance(error, DeviceBusy)), refusals[-1])


def means_out_of_memory(message: str) -> bool:
    """Whether ONNX Runtime says that memory ran out; it has no exception of its own for that (onnxruntime#16307)."""
    return _MEMORY_TROUBLE.search(message) is not None


def _onnxruntime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise UnusableEngine(f"onnxruntime does not load ({error}): {REMEDIES['cpu']}") from error
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    return onnxruntime


def _candidates(wanted: str) -> list[tuple[str, int]]:
    """The devices to try, best first, each with its number."""
    name, colon, number = wanted.partition(":")
    if colon and (not number.isdecimal() or name not in (*NUMBERED, "gpu")):
        numbered = ", ".join(("gpu", *NUMBERED))
        raise UnusableEngine(f"no device is called {wanted!r}: numbers go with {numbered}, as in cuda:1")
    offered = devices()
    if name in ("auto", "gpu"):
        found = [device for device in offered if device != "tensorrt" or providers.has_tensorrt()]
        if name == "gpu":
            found = [device for device in found if device != "cpu" and (device in NUMBERED or not number)]
        if not found:
            raise UnusableEngine(f"this build of ONNX Runtime is for CPUs only; for NVIDIA's GPUs: {REMEDIES['cuda']}")
        return [(device, int(number or 0)) for device in found]
    if name not in offered:
        remedy = REMEDIES.get(name, "set engine.device to one of these, or engine.runtime to openvino")
        raise UnusableEngine(f"this build of ONNX Runtime has no {name}, only {', '.join(offered)}: {remedy}")
    return [(name, int(number or 0))]


def _with_others(candidates: list[tuple[str, int]], options: Options) -> list[tuple[str, int]]:
    """The devices to try, with the further ones of each kind if none was asked for by its number."""
    if ":" in options.device:
        return candidates
    found = []
    for device, number in candidates:
        found += [(device, number), *((device, other) for other in admission.others(device, options.admission))]
    return found


def _load_on(device: str, number: int, data: bytes, model: Model, options: Options) -> "OnnxRuntime":
    precision = options.precision
    if precision == "auto":
        # On the others neither its speed nor its error was ever measured.
        precision = "fp16" if device in ("cuda", "tensorrt") else "fp32"
    if precision == "fp16" and device != "tensorrt":  # which converts by itself
        try:
            data = half.convert(data, model, options.cache_folder)
        except UnusableEngine as error:
            if options.precision != "auto":
                raise
            sys.stderr.write(f"NOT USING fp16 on {device}: {error.message}\n")
            precision = "fp32"
    target = Target(device, number, precision, options.threads or processors(), options.cache_folder)
    asked = options.admission if device in NUMBERED else admission.NONE
    work = admission.Work(model, providers.TILE**2, _streams(target) * providers.BATCH)
    with admission.entered(f"{device}:{number}", work, asked):
        providers.load_libraries(target, _onnxruntime())
        return OnnxRuntime(target, model.channels, lambda shape: _open(data, model, target, shape))


def _open(data: bytes, model: Model, target: Target, shape: tuple[int, ...]) -> Any:
    """A session on that device and no other, for tiles of that shape (CoreML) or of any."""
    onnxruntime = _onnxruntime()
    settings = _settings(onnxruntime, target)
    try:
        probe: Any = _probe(onnxruntime, data) if target.device in ("tensorrt", "coreml") else None
        if target.device == "coreml":
            for name, length in zip(probe.shape, shape, strict=True):
                if isinstance(name, str):
                    settings.add_free_dimension_override_by_name(name, length)
        # enable_fallback would repeat a failed start, and later a failed run, on the CPU.
        session = onnxruntime.InferenceSession(
            data, settings, providers=providers.options(target, model, probe, shape), enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's have no other base in common
        if target.device != "cpu" and means_out_of_memory(str(error)):
            reason = _last_line(error)
            text = f"the memory of {target.device} does not suffice now, free some: {reason}"
            raise DeviceBusy(text, was_on_it=True) from error
        raise UnusableEngine(_refusal(error, model, target)) from error
    if session.get_providers()[0] != NAMES[target.device]:
        raise UnusableEngine(f"ONNX Runtime would use the CPU in place of {target.device}: {REMEDIES[target.device]}")
    return session


def _settings(onnxruntime: Any, target: Target) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    # Never the default, which ties each thread to one core: encoders want to run there too.
    settings.intra_op_num_threads = target.threads // _streams(target) if target.device == "cpu" else 1
    # Threads that wait for work would burn the cores that encode.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if target.device != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if target.device == "directml":  # it can do neither
        settings.enable_mem_pattern = False
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return settings


def _probe(onnxruntime: Any, data: bytes) -> Any:
    """The model's input: its name, and its shape with names for free lengths."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, settings, providers=[NAMES["cpu"]], enable_fallback=0)
    return session.get_inputs()[0]


def _refusal(error: Exception, model: Model, target: Target) -> str:
    reason = _last_line(error)
    if target.device == "cpu" or "INVALID_PROTOBUF" in reason:
        return f"ONNX Runtime cannot load the model {model.file}: {reason}"
    if "fallback to CPU EP has been explicitly disabled" in reason:
        # So it ends for both: the libraries didn't load, whose names are on stderr, or the network is too unusual.
        reason = "its libraries do not load, or it cannot run the whole network; see above"
    return f"ONNX Runtime cannot run {model.file} on {target.device} ({reason}): {REMEDIES[target.device]}"


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]


def _streams(target: Target) -> int:
    """How many runs at a time.

    On a GPU two, so that copies overlap with computing; DirectML's sessions take one call at a time, and CoreML's
    share one device. On a CPU streams of few threads instead of one of all are a third faster beside an encoder: no
    layer waits for the slowest thread. But each holds 0.3 GB.
    """
    if target.device == "cpu":
        return next(streams for streams in range(_MOST_STREAMS, 0, -1) if target.threads % streams == 0)
    return 2 if target.device in ("cuda", "tensorrt") else 1


class OnnxRuntime:
    """A network in ONNX Runtime."""

    name = "onnx"
    even_widths = False

    def __init__(self, target: Target, channels: int, open_session: Callable[[tuple[int, ...]], Any]) -> None:
        """Open a session right away, to see that it works.

        Raises:
            UnusableEngine: it does not.
        """
        on_cpu = target.device == "cpu"
        self.device = f"{target.device}:{target.number}" if target.device in NUMBERED else target.device
        self.precision = target.precision
        self.fixed_shapes = not on_cpu
        self.streams = _streams(target)
        self.batch = 1 if on_cpu or target.device == "coreml" else providers.BATCH
        # A CPU's caches like small tiles, but then too much of them is halo: 640 x 640 gives most in the end.
        self.tile_pixels = 640 * 640 if on_cpu else providers.TILE**2
        self._open_session = open_session
        # CoreML has a pixel shuffle for fixed shapes only, hence a session for each.
        self._by_shape = target.device == "coreml"
        self._sessions: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self._session((1, channels, providers.TILE, providers.TILE))

    def run(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """See `sr_engine.runtimes.Runtime.run`.

        Raises:
            EnvironmentFault: UPSCALE_FAILED, the device broke down.
        """
        session = self._session(batch.shape)
        try:
            result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch})[0]
        except Exception as error:
            if isinstance(error, MemoryError) or means_out_of_memory(str(error)):
                raise OutOfDeviceMemory(str(error).strip().rpartition("\n")[2]) from error
            if self.device == "cpu":
                raise
            raise EnvironmentFault(Code.UPSCALE_FAILED, f"{self.device} broke down: {error}") from error
        return result

    def run_bytes(self, batch: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint8] | None":
        """See `sr_engine.runtimes.Runtime.run_bytes`."""
        return None

    def close(self) -> None:
        """See `sr_engine.runtimes.Runtime.close`."""
        self._sessions.clear()

    def _session(self, shape: tuple[int, ...]) -> Any:
        key = shape if self._by_shape else ()
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= _MOST_SHAPES:
                    del self._sessions[next(iter(self._sessions))]
                self._sessions[key] = self._open_session(shape)
            return self._sessions[key]
