"""What the driver tells of GPUs, and what is made of it when it does not."""

import os
import re
from pathlib import Path

import pytest
from gpus import GIB, Gpus, python

from sr_engine.nvml import Account, Holder, Nvml, NvmlUnavailable, described, sees_all_processes

MIB = 1 << 20


def test_a_gpu_is_read(gpus: Gpus) -> None:
    gpus.describe(f"process {os.getpid()} 1000", "graphics 99999999 50", "watts 50", "persistence on", "accounting off")
    with Nvml() as nvml:
        (gpu,) = nvml.gpus()
        assert (gpu.number, gpu.uuid, gpu.name) == (0, gpus.uuid, "Stub GPU")
        reading = nvml.read(gpu)
        again = nvml.read(gpu)
        assert nvml.modes(gpu) == {"persistence": True, "accounting": False}
        assert nvml.driver() == "580.00-stub"
    assert reading.memory == (16 * GIB, 1250 * MIB, 16 * GIB - 1250 * MIB)
    assert reading.holders is not None
    mine, other = reading.holders
    assert (mine.pid, mine.used_bytes) == (os.getpid(), 1000 * MIB)
    assert bool(mine.name) == sees_all_processes(), "in a container the number is another process's"
    assert other == Holder(99999999, 50 * MIB, "")
    assert reading.energy_joules is not None and again.energy_joules is not None
    assert 0 <= again.energy_joules - reading.energy_joules < 50 * 60
    assert not reading.unknown


def test_what_is_not_told_is_unknown_with_its_reason(gpus: Gpus) -> None:
    gpus.describe("process 7 -", "accounting denied")
    with Nvml() as nvml:
        (gpu,) = nvml.gpus()
        reading = nvml.read(gpu)
        assert reading.holders is not None and reading.holders[0].used_bytes is None
        assert "an unknown part" in described(reading.holders)
        assert (reading.energy_joules, reading.unknown) == (None, {"energy": "Not Supported"})
        assert nvml.account(gpu, 7) == Account(None, None, "Insufficient Permissions")
        gpus.describe("unlisted")
        assert (reading := nvml.read(gpu)).holders is None and reading.unknown["holders"] == "Insufficient Permissions"
        gpus.describe("lost")
        assert nvml.read(gpu)[:3] == (None, None, None)
        assert nvml.modes(gpu) == {"persistence": "GPU is lost", "accounting": "GPU is lost"}


def test_accounts_are_of_processes_that_have_ended(gpus: Gpus) -> None:
    gpus.describe("accounting on", f"living {os.getpid()} 700 1500", "living 99999999 700 1500")
    with Nvml() as nvml:
        (gpu,) = nvml.gpus()
        assert nvml.account(gpu, 99999999) == (1.5, 700 * MIB, "")
        assert nvml.account(gpu, os.getpid())[:2] == (None, None)
        assert nvml.account(gpu, 5).reason == "Not Found"
        gpus.describe("accounting off", "living 99999999 700 1500")
        assert nvml.account(gpu, 99999999).reason == "the driver's accounting mode is off"


TWO = ("device GPU-one", "total 1000", "device GPU-two", "total 2000")
FOUND = {
    "by place": ("cuda:1", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "GPU-two"),
    "the first": ("tensorrt", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "GPU-one"),
    "by what is shown": ("cuda:0", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}, "GPU-two"),
    "by the start of a name": ("cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-o, GPU-tw"}, "GPU-two"),
}
NOT_FOUND = {
    "not shown": ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"}, "shows no cuda:1"),
    "not there": ("cuda:2", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "knows no cuda:2"),
    "in another order": ("cuda:0", {}, "by their speed"),
    "nonsense": ("cuda:0", {"CUDA_VISIBLE_DEVICES": "all"}, "'all', which is no GPU"),
    "of two": ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-"}, "knows no GPU-"),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_gpu_that_cuda_means(gpus: Gpus, case: str) -> None:
    device, environ, uuid = FOUND[case]
    gpus.write(*TWO)
    with Nvml() as nvml:
        assert nvml.find(device, environ).uuid == uuid


@pytest.mark.parametrize("case", NOT_FOUND)
def test_no_gpu_is_guessed(gpus: Gpus, case: str) -> None:
    device, environ, reason = NOT_FOUND[case]
    gpus.write(*TWO)
    with Nvml() as nvml, pytest.raises(NvmlUnavailable, match=re.escape(reason)):
        nvml.find(device, environ)


ASK = """
from sr_engine.nvml import Nvml, NvmlUnavailable
for _ in range(2):
    try:
        Nvml(0.5)
    except NvmlUnavailable as error:
        print(error.reason)
"""


def test_without_a_library_there_is_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("pynvml")
    (tmp_path / "libnvidia-ml.so.1").touch()  # as if there were none, on machines that have one, too
    told = python(ASK, {"LD_LIBRARY_PATH": str(tmp_path)}).splitlines()
    assert told == ["NVML Shared Library Not Found"] * 2


def test_without_its_python_module_there_is_a_remedy() -> None:
    told = python("import sys; sys.modules['pynvml'] = None\n" + ASK, {}).splitlines()
    assert told == ["nvidia-ml-py is not installed: pip install nvidia-ml-py"] * 2


def test_a_library_without_a_driver(gpus: Gpus) -> None:
    gpus.write("init 9")
    with pytest.raises(NvmlUnavailable, match="Driver Not Loaded"):
        Nvml()


def test_a_driver_that_never_answers_is_asked_once(gpus: Gpus) -> None:
    gpus.write("init hang")
    first, second = python(ASK, gpus.environment).splitlines()
    assert first == "the driver did not answer within 0.5 s"
    assert second == "the driver did not answer once, and is not asked again"
