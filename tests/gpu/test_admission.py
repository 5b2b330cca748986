"""The real engine on a GPU that others hold: what it says before it makes a context there.

ONNX Runtime's session works on the CPU here and says that it has CUDA (onnxruntime_stub.py).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpus import Gpus

from sr_engine import device_lock, protocol
from sr_engine.protocol import Code, Failed, Fault, Ready

pytest.importorskip("onnxruntime")

MUCH = 15_000  # MiB of 16,384 that others hold: what is left is too little for the usual tiles
FEW = 16_150  # what is left is too little for any


@pytest.fixture
def start(gpus: Gpus, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start an engine; returns its first event."""
    environment = {**os.environ, "PYTHONPATH": gpus.gpu_build_of_onnxruntime(tmp_path / "path")}
    processes: list[subprocess.Popen[bytes]] = []

    def engine(*arguments: str, device: str = "cuda", runtime: str = "onnx", **extra: str) -> Ready | Failed:
        command = [sys.executable, "-P", "-m", "sr_engine", "--model", "edsr-lite-x3", "--precision", "fp32"]
        command += ["--runtime", runtime, "--device", device, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environment, **extra})
        processes.append(process)
        assert process.stdout is not None
        event = protocol.decode_event(process.stdout.readline())
        assert isinstance(event, Ready | Failed)
        return event

    yield engine
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def test_a_free_gpu_is_taken_and_nobody_else_gets_it(gpus: Gpus, start: Callable[..., Any]) -> None:
    first = start("--admission", "full")
    assert (first.runtime, first.device) == ("onnx", "cuda:0")
    second = start("--admission", "any")
    assert (second.id, second.code, second.fault, second.retryable) == (
        None,
        Code.DEVICE_BUSY,
        Fault.ENVIRONMENT,
        False,
    )
    assert "another dropscale (process " in second.message


def test_who_holds_it_is_told_and_smaller_tiles_do(gpus: Gpus, start: Callable[..., Any]) -> None:
    gpus.describe(f"process {os.getpid()} {MUCH}")
    refused = start("--admission", "full")
    assert refused.code is Code.DEVICE_BUSY
    assert refused.message.startswith("cuda:0 has 1184 of 16384 MiB free, which is too little; held: process ")
    assert f"process {os.getpid()} " in refused.message and f"{MUCH} MiB" in refused.message
    assert start("--admission", "any").device == "cuda:0"


def test_without_room_for_any_tile_it_is_another_device_or_none(gpus: Gpus, start: Callable[..., Any]) -> None:
    full = [f"device {gpus.uuid}", "total 16384", f"hidden {FEW}"]
    gpus.write(*full)
    refused = start("--admission", "any")
    assert refused.code is Code.DEVICE_BUSY and "by processes that cannot be seen" in refused.message
    gpus.write(*full, f"device {gpus.uuid}-b", "total 16384")
    assert start("--admission", "full").code is Code.DEVICE_BUSY
    assert start("--admission", "any", device="cuda:0").code is Code.DEVICE_BUSY, "it was asked for by its number"
    assert start("--admission", "any").device == "cuda:1"


def test_that_another_device_does_not_work_hides_not_that_the_first_is_busy(
    gpus: Gpus, start: Callable[..., Any]
) -> None:
    gpus.write(f"device {gpus.uuid}", "total 16384", f"hidden {FEW}", f"device {gpus.uuid}-b", "total 16384")
    refused = start("--admission", "any", NO_CUDA="1")
    assert refused.code is Code.DEVICE_BUSY and "cuda:0 has" in refused.message
    gpus.write(f"device {gpus.uuid}", "total 16384", f"device {gpus.uuid}-b", "total 16384", f"hidden {FEW}")
    assert start("--admission", "any", NO_CUDA="0").code is Code.DEVICE_BUSY


def test_what_a_process_holds_itself_is_not_in_its_way(gpus: Gpus) -> None:
    """The exact network, which is loaded later and beside the first one."""
    from sr_engine import admission, models
    from sr_engine.errors import DeviceBusy

    work = admission.Work(models.find("edsr-lite-x3").model, 512 * 512, 8)
    with pytest.raises(ZeroDivisionError), admission.entered("cuda:0", work, admission.FULL):
        raise ZeroDivisionError  # it failed to load: the device is free again
    gpus.describe(f"process {os.getpid()} {FEW}")
    with pytest.raises(DeviceBusy), admission.entered("cuda:0", work, admission.FULL):
        pass
    gpus.describe()
    with admission.entered("cuda:0", work, admission.FULL):
        gpus.describe(f"process {os.getpid()} {FEW}")
    with admission.entered("cuda:0", work, admission.FULL):
        pass
    device_lock.release(gpus.uuid)


def test_a_cpu_takes_its_place_only_where_any_device_does(gpus: Gpus, start: Callable[..., Any]) -> None:
    gpus.describe(f"process 99999999 {FEW}")
    refused = start("--admission", "full", device="auto", runtime="auto")
    assert refused.code is Code.DEVICE_BUSY
    ready = start("--admission", "any", device="auto", runtime="auto")
    assert ready.device == "cpu" and "process 99999999" in ready.reason
    assert start("--admission", "any", device="cuda", runtime="auto").code is Code.DEVICE_BUSY


@pytest.mark.parametrize("trouble", ["init 9", "lost"])
def test_where_nothing_is_known_it_is_tried(gpus: Gpus, start: Callable[..., Any], trouble: str) -> None:
    gpus.describe(trouble)
    assert start("--admission", "full").device == "cuda:0"


def test_a_gpu_that_is_small_by_itself_is_not_busy(gpus: Gpus, start: Callable[..., Any]) -> None:
    gpus.write(f"device {gpus.uuid}", "total 600", "hidden 10")
    assert start("--admission", "full").device == "cuda:0"


def test_tiles_are_cut_to_what_is_free(gpus: Gpus) -> None:
    from sr_engine import models
    from sr_engine.tile_budget import free_device_bytes, largest_tile

    gpus.describe(f"process 99999999 {MUCH}")
    free = free_device_bytes("cuda:0")
    assert free == 1184 << 20
    assert free_device_bytes("cuda:1") is None
    model = models.find("edsr-lite-x3").model
    assert 0 < largest_tile(free, model, 512 * 512, 8) < 512 * 512
    assert largest_tile(0, model, 512 * 512, 8) == 0
