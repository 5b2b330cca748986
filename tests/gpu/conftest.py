"""Fixtures: pretended GPUs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpus import LIBRARY, Gpus, build


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pynvml")
    folder = tmp_path_factory.mktemp("nvml")
    if os.name != "posix" or not build(folder):
        pytest.skip("there is no C compiler to build a stand-in for NVIDIA's library with")
    return folder / LIBRARY


@pytest.fixture
def gpus(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    """One free GPU of 16 GiB, which this process sees, too."""
    found = Gpus(tmp_path, nvml_library, f"{os.getpid()}-{time.monotonic_ns()}")
    found.load()
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    for lock in Path("/run/lock"), Path("/dev/shm"), Path("/tmp"):
        for path in lock.glob(f"dropscale-{found.uuid}*.lock"):
            path.unlink()
