"""A stand-in for onnxruntime-gpu on a machine without a GPU: the real ONNX Runtime, which says that it has CUDA.

It is copied as `onnxruntime/__init__.py` into a folder of PYTHONPATH. A session "on CUDA" works on the CPU, and takes
500 MiB of the device that tests/gpu/nvml_stub.c pretends, until its process ends. NO_CUDA names a number on
which it does not work; with NO_MEMORY it has its context and cannot get more.
"""

import importlib.machinery
import os
import sys

_OWN = os.path.dirname(os.path.abspath(__file__))
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"

_real = importlib.machinery.PathFinder.find_spec(
    "onnxruntime", [folder for folder in sys.path if os.path.abspath(folder) != os.path.dirname(_OWN)]
)
assert _real is not None and _real.origin is not None
__path__ = [_OWN, *(_real.submodule_search_locations or ())]
with open(_real.origin, encoding="utf-8") as _file:
    exec(compile(_file.read(), _real.origin, "exec"))

_Session = InferenceSession  # noqa: F821 - the real one's


class InferenceSession(_Session):
    def __init__(self, model, settings, providers, enable_fallback):
        self._on_cuda = any(_CUDA in provider for provider in providers)
        if self._on_cuda:
            if providers[0][1]["device_id"] == os.environ.get("NO_CUDA"):
                raise RuntimeError("CUDA failure 101: invalid device ordinal")
            with open(os.environ["NVML_STUB"], "a", encoding="ascii") as state:
                state.write(f"living {os.getpid()} 500 1500\n")
            if "NO_MEMORY" in os.environ:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 4718592")
            settings, providers = SessionOptions(), [_CPU]  # noqa: F821
        super().__init__(model, settings, providers=providers)

    def get_providers(self):
        return [_CUDA] if self._on_cuda else super().get_providers()


def get_available_providers():
    return [_CUDA, _CPU]


def preload_dlls():
    pass
