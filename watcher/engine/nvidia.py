"""NVIDIA's GPUs around one engine process: what it took of them, and whether it gave it back.

As long as the watch is on, the library is open and the driver keeps the GPUs awake: what waking takes (1 to 3 s without
persistence mode) is paid once, by the watcher before it starts the engine, or else by the engine.
"""

import contextlib
import os
import sys
import time
from typing import Any, NamedTuple

from sr_engine import models, nvml
from sr_engine.nvml import Gpu, Holder, Nvml, NvmlUnavailable, Reading
from watcher.accounting import engine_runs
from watcher.engine.process import EngineProcess
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.sections import Engine

ALARM_NOTE = "gpu_alarm"
_KINDS = ("cuda", "tensorrt")
_RELEASE_SECONDS = 1.0
_POLL_SECONDS = 0.05
# Less than any context takes (300 MB and more), more than the driver keeps for itself.
_SLACK_BYTES = 64 << 20

_told = set[str]()  # why nothing is known of a GPU: each reason once


def may_use_nvidia(settings: Engine) -> bool:
    """Whether an engine of these settings may run on an NVIDIA GPU, judged by files."""
    kind = settings.device.partition(":")[0]
    if kind in _KINDS:
        return True
    expected = kind in ("auto", "gpu") and models.expects_gpu(settings.runtime, settings.device)
    return expected and sys.platform != "darwin"


class _Left(NamedTuple):
    """What is left on a GPU after an engine's end: bytes, 0 if nothing, and who has them."""

    used_bytes: int
    whose: str


_NOTHING = _Left(0, "")


class DeviceWatch:
    """From before the start of an engine until after its end. Nothing here fails: what is not told is not known."""

    def __init__(self, settings: Engine) -> None:
        """Look at the GPUs, before the engine is started; nothing happens where none can be used."""
        self._settings = settings
        self._nvml: Nvml | None = None
        self._before: dict[str, Reading] = {}  # by UUID
        self._unknown = "engine.device does not name it"  # why nothing is known
        if not may_use_nvidia(settings):
            return
        try:
            self._nvml = Nvml()
            gpus = self._nvml.gpus()
            with contextlib.suppress(NvmlUnavailable):  # which may be a part of one
                gpus.append(self._meant(self._nvml, settings.device))
            self._before = {gpu.uuid: self._nvml.read(gpu) for gpu in gpus}
        except NvmlUnavailable as error:
            self._unknown = error.reason

    def end(self, engine: EngineProcess, run: int, ledger: Ledger) -> None:
        """The engine was reaped, and its run is in the ledger: enter what the driver says of it, raise the alarm.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        columns, left = self.measure(engine)
        if columns:
            engine_runs.amend(ledger, run, **columns)
        if "release_seconds" in columns:
            self._tell(ledger, engine, left)

    def measure(self, engine: EngineProcess) -> tuple[dict[str, Any], _Left | None]:
        """The engine was reaped: columns of `engine_runs`, as the driver says, and what was not given back."""
        if engine.refused:
            # It never had the device, so it ran on the CPU; and it says nothing of what a start costs.
            return {"device": "cpu", "exit_seconds": None}, None
        if engine.ready and engine.ready.device.partition(":")[0] not in _KINDS:
            return {}, None
        if self._nvml is not None:
            try:
                gpu = self._meant(self._nvml, engine.ready.device if engine.ready else self._settings.device)
                return self._measure(self._nvml, gpu, engine)
            except NvmlUnavailable as error:
                self._unknown = error.reason
        if engine.ready and self._unknown not in _told:
            _told.add(self._unknown)
            text = "the GPU is metered by the clock, and whether its memory comes back is not known: {reason}"
            tell("gpu_unknown", text, reason=self._unknown)
        return {}, None

    def alarm(self, engine: EngineProcess, left: _Left | None) -> str:
        """What to say of memory that is not back; empty: it is."""
        if left is None or not left.used_bytes:
            return ""
        device = engine.ready.device if engine.ready else self._settings.device
        return f"{device}: {max(left.used_bytes >> 20, 1)} MiB are not back after an engine's end: {left.whose}"

    def close(self) -> None:
        """Let the library go."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def _meant(self, library: Nvml, device: str) -> Gpu:
        # the engine counts so, see sr_engine.__main__
        environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}
        _, colon, number = device.partition(":")
        return library.find(f"cuda{colon}{number}", environ)  # "gpu:1" is cuda:1

    def _measure(self, library: Nvml, gpu: Gpu, engine: EngineProcess) -> tuple[dict[str, Any], _Left | None]:
        """Columns of `engine_runs`, and what was not given back."""
        meter = engine.meter
        columns: dict[str, Any] = {}
        left = self._await_release(library, gpu, engine)
        if left is not None:
            reaped = meter.started + meter.ended_at - meter.spawned_at
            columns["release_seconds"] = max(time.monotonic() - reaped, 0.0)
            columns["unreleased_bytes"] = left.used_bytes
        before, after = self._before.get(gpu.uuid), library.read(gpu)
        if before is not None and before.energy_joules is not None and after.energy_joules is not None:
            energy = after.energy_joules - before.energy_joules
            columns["energy_joules"] = energy if energy >= 0 else None  # the driver was loaded anew
        if nvml.sees_all_processes():  # else its number is somebody else's for the driver
            account = library.account(gpu, engine.pid)
            columns["device_peak_bytes"] = account.peak_bytes
            # one that is longer is of an earlier process with this number
            if account.seconds is not None and account.seconds <= meter.ended_at - meter.spawned_at + 1:
                columns["held_by"] = "nvml"
                columns["held_from"] = max(meter.ended_at - account.seconds, meter.spawned_at)
        return columns, left

    def _await_release(self, library: Nvml, gpu: Gpu, engine: EngineProcess) -> _Left | None:
        """Look until the memory is back, for a second at most; None: that cannot be known."""
        before = self._before.get(gpu.uuid)
        deadline = time.monotonic() + _RELEASE_SECONDS
        while True:
            left = _left(before, library.read(gpu), engine.pid)
            if left is None or not left.used_bytes or time.monotonic() >= deadline:
                return left
            time.sleep(_POLL_SECONDS)

    def _tell(self, ledger: Ledger, engine: EngineProcess, left: _Left | None) -> None:
        if text := self.alarm(engine, left):
            warn("not_released", "{alarm}", alarm=text, pid=engine.pid)
            ledger.note(**{ALARM_NOTE: f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"})
        elif ledger.notes().get(ALARM_NOTE):
            ledger.note(**{ALARM_NOTE: ""})


def _left(before: Reading | None, now: Reading, engine: int) -> _Left | None:
    """What an engine left on a GPU.

    Its processes are looked for first, for what other programs took meanwhile is not its leak. Where the driver's
    numbers of processes mean nothing here, and for what no process owns up to, totals are compared: how much is used,
    not how much we think that we took (ollama#11997).
    """
    trusted = now.holders is not None and nvml.sees_all_processes()
    if trusted and (ours := [holder for holder in now.holders or () if _is_of(holder, engine)]):
        return _Left(sum(holder.used_bytes or 1 for holder in ours), nvml.described(tuple(ours)))
    if before is None or before.memory is None or now.memory is None:
        return _NOTHING if trusted else None
    left = now.memory.used - before.memory.used
    whose = "perhaps other programs'"
    if now.holders is not None and not trusted:
        whose += ", as processes cannot be told apart in a container without --pid=host"
    if trusted:
        foreign = _foreign_growth(before, now)
        left -= left if foreign is None else foreign  # None: some program grew, it is not told how much; ours is gone
        whose = "no process owns up to them"
    return _Left(left, f"{whose}; held: {nvml.described(now.holders)}") if left > _SLACK_BYTES else _NOTHING


def _foreign_growth(before: Reading, now: Reading) -> int | None:
    """By how much the processes that are there have grown; None: not told of all."""
    if before.holders is None or now.holders is None:
        return None
    earlier = {holder.pid: holder.used_bytes for holder in before.holders}
    grown = 0
    for holder in now.holders:
        was = earlier.get(holder.pid, 0)
        if holder.used_bytes is None or was is None:
            return None
        grown += max(holder.used_bytes - was, 0)
    return grown


def _is_of(holder: Holder, engine: int) -> bool:
    """Whether it is the engine, or a process that it left in its group."""
    if holder.pid == engine:
        return True
    try:
        return os.getpgid(holder.pid) == engine
    except (OSError, AttributeError):
        return False
