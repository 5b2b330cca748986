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
    "before the first that is none": ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-two,-1,GPU-one"}, "GPU-two"),
}
NOT_FOUND = {
    "not shown": ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"}, "shows no cuda:1"),
    "not there": ("cuda:2", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "knows no cuda:2"),
    "in another order": ("cuda:0", {}, "by their speed"),
    "nonsense": ("cuda:0", {"CUDA_VISIBLE_DEVICES": "all"}, "CUDA_VISIBLE_DEVICES='all' shows no cuda:0"),
    "no number": ("cuda:first", {}, "cuda:first"),  # an engine of somebody else's may say that
    "hidden": ("cuda:0", {"CUDA_VISIBLE_DEVICES": ""}, "shows no cuda:0"),
    "behind one that is none": ("cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-one,-1,GPU-two"}, "shows no cuda:1"),
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


def test_cuda_sees_as_many_as_come_before_the_first_that_is_none(gpus: Gpus) -> None:
    gpus.write(*TWO)
    with Nvml() as nvml:
        found = [nvml.count({"CUDA_VISIBLE_DEVICES": value}) for value in ("0,1", "1,-1,0", "-1", "", "NoDevFiles")]
        assert [*found, nvml.count({})] == [2, 1, 0, 0, 0, 2]


BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_gpu_that_is_closed_to_us_hides_no_other(gpus: Gpus) -> None:
    """As under systemd's DeviceAllow: the driver counts it, CUDA does not."""
    gpus.write("device GPU-closed", "refused 4", *TWO)
    with Nvml() as nvml:
        assert [(gpu.number, gpu.uuid) for gpu in nvml.gpus()] == [(1, "GPU-one"), (2, "GPU-two")]
        assert nvml.find("cuda:1", BUS).uuid == "GPU-two"
        assert nvml.count({}) == 2


def test_a_gpu_that_broke_down_hides_no_other(gpus: Gpus) -> None:
    """Whether CUDA counts it is not certain, so those behind it are not told by their numbers."""
    gpus.write("device GPU-one", "device GPU-broken", "refused 15", "device GPU-two", "nameless")
    with Nvml() as nvml:
        assert [gpu.uuid for gpu in nvml.gpus()] == ["GPU-one", ""]
        assert nvml.find("cuda:0", BUS).uuid == "GPU-one"
        for device in ("cuda:1", "cuda:2"):
            with pytest.raises(NvmlUnavailable, match="one of the GPUs does not answer: GPU is lost"):
                nvml.find(device, BUS)


def test_of_a_divided_gpu_the_part_is_looked_at_that_cuda_uses(gpus: Gpus) -> None:
    whole = ("device GPU-whole", "total 80000", "hidden 60000")
    gpus.write(*whole, "part MIG-a", "total 10000", "hidden 100")
    with Nvml() as nvml:
        for environ in (BUS, {"CUDA_VISIBLE_DEVICES": "GPU-wh"}, {"CUDA_VISIBLE_DEVICES": "MIG-a"}):
            gpu = nvml.find("cuda", environ)
            assert gpu.uuid == "MIG-a"
            memory = nvml.read(gpu).memory
            assert memory is not None and memory.total == 10000 * MIB
        gpus.write(*whole, "part MIG-a", "total 10000", "part MIG-b", "total 20000")
        assert nvml.find("cuda", {"CUDA_VISIBLE_DEVICES": "MIG-b"}).uuid == "MIG-b"
        with pytest.raises(NvmlUnavailable, match=re.escape("divided into 2 (MIG): name one of them")):
            nvml.find("cuda", BUS)


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
    assert second == "the driver was asked before and has not answered yet"


SLOW = """
import time
from sr_engine.nvml import Nvml, NvmlUnavailable
try:
    Nvml(0.2)
except NvmlUnavailable as error:
    print(error.reason)
open(__import__("os").environ["NVML_STUB"], "w").write("device GPU-late\\n")
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    try:
        with Nvml(10) as nvml:
            print(nvml.gpus()[0].uuid)
        break
    except NvmlUnavailable:
        time.sleep(0.05)
import pynvml
print(pynvml._nvmlLib_refcount)
"""


def test_a_driver_that_answers_late_is_asked_again(gpus: Gpus) -> None:
    """Eight GPUs that have to be woken take that long; a watcher lives for months after it."""
    gpus.write("init hang")
    first, second, still_open = python(SLOW, gpus.environment).splitlines()
    assert first == "the driver did not answer within 0.2 s"
    assert second == "GPU-late"
    assert still_open == "0", "an open library keeps the GPUs awake"
