"""A GPU that is not there: a library that answers as NVIDIA's does, and the file that describes the device."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = "libnvidia-ml.so.1"
GIB = 1 << 30
FREE = ("total 16384", "hidden 200")


def build(folder: Path) -> bool:
    """Compile the library into the folder; whether there is a compiler."""
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{LIBRARY}", str(HERE / "nvml_stub.c")]
    try:
        done = subprocess.run([*command, "-o", str(folder / LIBRARY)], check=False, capture_output=True, text=True)
    except OSError:
        return False
    assert done.returncode == 0, done.stderr
    return True


class Gpus:
    """The devices of one test."""

    def __init__(self, folder: Path, library: Path, name: str) -> None:
        self.uuid = f"GPU-{name}-0000"  # its own, as the locks are the machine's
        self._file = folder / "gpus.txt"
        self.environment = {"NVML_STUB": str(self._file), "LD_LIBRARY_PATH": str(library.parent)}
        self._library = library
        self.describe()

    def describe(self, *lines: str) -> None:
        """Set the first device, and whatever the lines describe after it; what engines entered is forgotten."""
        self.write(f"device {self.uuid}", *FREE, *lines)

    def write(self, *lines: str) -> None:
        """Replace the whole file."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self._file)

    def append(self, line: str) -> None:
        """As an engine does that makes a context."""
        with self._file.open("a") as file:
            file.write(line + "\n")

    def load(self) -> None:
        """Let this very process find the library: the loader knows it by its name from now on."""
        ctypes.CDLL(str(self._library))

    def gpu_build_of_onnxruntime(self, folder: Path) -> str:
        """Make a stand-in for onnxruntime-gpu; returns what PYTHONPATH has to be."""
        package = folder / "onnxruntime"
        (package / "capi").mkdir(parents=True)
        (package / "__init__.py").write_text((HERE / "onnxruntime_stub.py").read_text())
        (package / "capi" / "libonnxruntime_providers_cuda.so").touch()  # by which such a build is recognised
        return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


def python(code: str, environment: dict[str, str]) -> str:
    """What a fresh Python prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, check=False, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
