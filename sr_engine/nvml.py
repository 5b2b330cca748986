"""What NVIDIA's driver tells of its GPUs: memory, who holds it, energy, accounts of processes that ended.

A thin layer over nvidia-ml-py (pynvml), which loads libnvidia-ml by ctypes. It is imported when somebody asks, so this
module costs nothing where there is no such GPU; the watcher imports it, too. What the driver does not tell is unknown,
with the reason, and never an error: drivers differ, containers hide processes, rights are missing.
"""

import contextlib
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

# Without persistence mode the driver wakes the GPU for the first who asks: 1 to 3 s each (docs.nvidia.com, "Driver
# Persistence"). What takes longer than this may never come.
_PATIENCE_SECONDS = 15.0
# The number of the kernel's first namespace of processes (PROC_PID_INIT_INO in include/linux/proc_ns.h).
_FIRST_PID_NAMESPACE = "pid:[4026531836]"

T = TypeVar("T")

_stuck: threading.Thread | None = None  # waits for an answer: before it came the driver is not asked again


class NvmlUnavailable(Exception):
    """There is nothing to be learnt; `reason` is a short one for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Memory(NamedTuple):
    """Of a GPU, in bytes."""

    total: int
    used: int
    free: int


class Holder(NamedTuple):
    """A process that has a context on a GPU.

    Attributes:
        pid: as the driver counts: inside a container it is the host's number.
        used_bytes: None: not told (always so under Windows' own driver model).
        name: of the program, where it can be read and is certain; else empty.
    """

    pid: int
    used_bytes: int | None
    name: str

    def __str__(self) -> str:
        used = "an unknown part" if self.used_bytes is None else f"{self.used_bytes >> 20} MiB"
        return f"process {self.pid}{f' ({self.name})' if self.name else ''} {used}"


class Reading(NamedTuple):
    """A GPU at a moment; None is what the driver does not tell.

    Attributes:
        memory: all of it.
        holders: who has some.
        energy_joules: that it took since the driver was loaded.
        unknown: why something is None, by its name.
    """

    memory: Memory | None
    holders: tuple[Holder, ...] | None
    energy_joules: float | None
    unknown: Mapping[str, str]


class Account(NamedTuple):
    """What the driver wrote down of a process that ended.

    Attributes:
        seconds: that its context was there; None: unknown.
        peak_bytes: the most device memory that it had; None: unknown.
        reason: why something is None.
    """

    seconds: float | None
    peak_bytes: int | None
    reason: str


class Gpu(NamedTuple):
    """One of them.

    Attributes:
        number: as the driver counts, by the place on the bus.
        uuid: stays the same whatever is plugged in beside it; empty: not told.
        name: the product.
        handle: for the library.
    """

    number: int
    uuid: str
    name: str
    handle: Any


class Nvml:
    """The library, opened. As long as it is open the driver keeps the GPUs awake."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Open it.

        Args:
            patience_seconds: how long an answer may take.

        Raises:
            NvmlUnavailable: nvidia-ml-py, the library or the driver is not there, or does not answer.
        """
        try:
            import pynvml  # noqa: PLC0415 - part of the extra `gpu`
        except ImportError:
            raise NvmlUnavailable("nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
        self._library: Any = pynvml
        self._patience_seconds = patience_seconds
        # one that comes late would keep the GPUs awake for nobody
        self._within(pynvml.nvmlInit, if_late=pynvml.nvmlShutdown)

    def close(self) -> None:
        """Let it go."""
        with contextlib.suppress(NvmlUnavailable):
            self._within(self._library.nvmlShutdown)

    def __enter__(self) -> "Nvml":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def driver(self) -> str:
        """Its version.

        Raises:
            NvmlUnavailable: it does not tell.
        """
        return str(self._within(self._library.nvmlSystemGetDriverVersion))

    def gpus(self) -> list[Gpu]:
        """All that answer, as the driver counts.

        Raises:
            NvmlUnavailable: they are not told.
        """
        return [gpu for gpu in self._within(self._all) if isinstance(gpu, Gpu)]

    def find(self, device: str, environ: Mapping[str, str]) -> Gpu:
        """The GPU that CUDA means by a name such as "cuda:1", or the part of it where it is divided (MIG).

        Args:
            device: "cuda" or "tensorrt", perhaps with a number.
            environ: of the process that uses CUDA: it can hide GPUs, and count them in another order.

        Raises:
            NvmlUnavailable: there is none, or it cannot be told which.
        """
        text = device.partition(":")[2] or "0"
        if not text.isdecimal():
            raise NvmlUnavailable(f"the driver knows no {device}")
        number = int(text)
        gpus = self._within(self._all)
        if (entries := _visible(environ)) is not None:
            if number >= len(entries):
                raise NvmlUnavailable(f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']!r} shows no {device}")
            entry = entries[number]
            if entry.startswith("MIG-"):
                return self._within(lambda: self._part(entry))
            if entry.startswith("GPU-"):
                found = [gpu for gpu in gpus if isinstance(gpu, Gpu) and gpu.uuid.startswith(entry)]
                return self._undivided(_the_one(found, entry))
            number = int(entry)
        if len(gpus) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise NvmlUnavailable("CUDA counts the GPUs by their speed, the driver by their place")
        for gpu in gpus[: number + 1]:
            if not isinstance(gpu, Gpu):
                raise NvmlUnavailable(f"one of the GPUs does not answer: {gpu}")
        return self._undivided(_the_one([gpu for gpu in gpus[number : number + 1] if isinstance(gpu, Gpu)], device))

    def count(self, environ: Mapping[str, str]) -> int:
        """How many GPUs CUDA sees.

        Raises:
            NvmlUnavailable: it cannot be told.
        """
        entries = _visible(environ)
        return len(self.gpus()) if entries is None else len(entries)

    def read(self, gpu: Gpu) -> Reading:
        """How it stands now; whatever is not told is None."""
        unknown: dict[str, str] = {}
        library = self._library

        def holders() -> tuple[Holder, ...]:
            processes = list(library.nvmlDeviceGetComputeRunningProcesses(gpu.handle))
            with contextlib.suppress(library.NVMLError):  # GPUs that cannot draw need not answer
                processes += library.nvmlDeviceGetGraphicsRunningProcesses(gpu.handle)
            found: dict[int, int | None] = {}
            for process in processes:  # one that computes and draws is on both lists, with all it has
                used, known = process.usedGpuMemory, found.get(process.pid)
                found[process.pid] = used if known is None else max(known, used or 0)
            return tuple(Holder(pid, used, process_name(pid)) for pid, used in sorted(found.items()))

        def memory() -> Memory:
            told = library.nvmlDeviceGetMemoryInfo(gpu.handle)
            return Memory(int(told.total), int(told.used), int(told.free))

        def energy() -> float:
            return float(library.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)) / 1000

        def ask(name: str, question: Callable[[], T]) -> T | None:
            try:
                return self._within(question)
            except NvmlUnavailable as error:
                unknown[name] = error.reason
                return None

        return Reading(ask("memory", memory), ask("holders", holders), ask("energy", energy), unknown)

    def account(self, gpu: Gpu, pid: int) -> Account:
        """What a process that ended had of the GPU; the driver's accounting mode has to be on for that."""
        library = self._library

        def question() -> Account:
            if library.nvmlDeviceGetAccountingMode(gpu.handle) != library.NVML_FEATURE_ENABLED:
                return Account(None, None, "the driver's accounting mode is off")
            told = library.nvmlDeviceGetAccountingStats(gpu.handle, pid)
            if told.isRunning or not told.time:  # 0 until the process has ended
                return Account(None, None, "the driver counts it as running still")
            return Account(told.time / 1000, told.maxMemoryUsage, "")

        try:
            return self._within(question)
        except NvmlUnavailable as error:
            return Account(None, None, error.reason)

    def modes(self, gpu: Gpu) -> dict[str, bool | str]:
        """Whether "persistence" and "accounting" are on; a text: why that is not told."""
        library = self._library
        questions = {
            "persistence": library.nvmlDeviceGetPersistenceMode,
            "accounting": library.nvmlDeviceGetAccountingMode,
        }
        found: dict[str, bool | str] = {}
        for name, question in questions.items():
            try:
                answer = self._within(functools.partial(question, gpu.handle))
                found[name] = bool(answer == library.NVML_FEATURE_ENABLED)
            except NvmlUnavailable as error:
                found[name] = error.reason
        return found

    def _all(self) -> list[Gpu | str]:
        """Those that CUDA counts, in the driver's order; in the place of one that does not answer the reason.

        The driver counts also those that this process may not open (nvmlDeviceGetCount_v2); CUDA does not.
        """
        library, found = self._library, list[Gpu | str]()
        for number in range(library.nvmlDeviceGetCount()):
            try:
                found.append(self._gpu(number, library.nvmlDeviceGetHandleByIndex(number)))
            except library.NVMLError_NoPermission:
                continue
            except library.NVMLError as error:
                found.append(str(error))
        return found

    def _gpu(self, number: int, handle: Any) -> Gpu:
        uuid, name = "", "a GPU without a name"
        with contextlib.suppress(self._library.NVMLError):
            uuid = _text(self._library.nvmlDeviceGetUUID(handle))
        with contextlib.suppress(self._library.NVMLError):
            name = _text(self._library.nvmlDeviceGetName(handle))
        return Gpu(number, uuid, name, handle)

    def _part(self, uuid: str) -> Gpu:
        handle = self._library.nvmlDeviceGetHandleByUUID(uuid.encode())
        return self._gpu(0, handle)._replace(uuid=uuid)

    def _undivided(self, gpu: Gpu) -> Gpu:
        """The GPU, or the one part into which it is divided: CUDA uses only one of them."""
        parts = self._within(lambda: self._parts(gpu))
        if parts is None:
            return gpu
        if len(parts) != 1:
            text = f"{gpu.name} is divided into {len(parts)} (MIG): name one of them in CUDA_VISIBLE_DEVICES"
            raise NvmlUnavailable(text)
        return parts[0]

    def _parts(self, gpu: Gpu) -> list[Gpu] | None:
        """The instances of a GPU in MIG mode; None: it is in none."""
        library, found = self._library, list[Gpu]()
        try:
            if library.nvmlDeviceGetMigMode(gpu.handle)[0] != library.NVML_DEVICE_MIG_ENABLE:
                return None
        except library.NVMLError:  # older ones cannot be divided
            return None
        for place in range(library.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
            with contextlib.suppress(library.NVMLError):  # a place may be free
                found.append(self._gpu(gpu.number, library.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, place)))
        return found

    def _within(self, question: Callable[[], T], if_late: Callable[[], object] = lambda: None) -> T:
        """The answer, if it comes in time: a driver in trouble may never return, and nobody must hang with it."""
        global _stuck  # noqa: PLW0603 - as the library is one for the process, so is its silence
        if _stuck is not None and _stuck.is_alive():
            raise NvmlUnavailable("the driver was asked before and has not answered yet")
        answers: list[T] = []
        errors: list[Exception] = []
        over = threading.Lock()  # whoever gets it first, the answer or the end of the patience
        late = threading.Event()

        def ask() -> None:
            try:
                answer = question()
                with over:
                    if not late.is_set():
                        answers.append(answer)
                        return
                if_late()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=ask, name="nvml", daemon=True)
        thread.start()
        thread.join(self._patience_seconds)
        with over:
            if thread.is_alive() and not answers:
                late.set()
                _stuck = thread
                raise NvmlUnavailable(f"the driver did not answer within {self._patience_seconds:g} s")
        if errors:
            # NVMLError, and what ctypes raises over a library that is another one than pynvml thinks
            raise NvmlUnavailable(f"{errors[0]}" or type(errors[0]).__name__) from errors[0]
        return answers[0]


def process_name(pid: int) -> str:
    """The name of a process that the driver told of; empty where that is not certain."""
    if not sees_all_processes():
        return ""  # the same number is another process here
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return "".join(letter for letter in file.read().strip() if letter.isprintable())
    except OSError:
        return ""


def sees_all_processes() -> bool:
    """Whether the driver's process numbers mean the same here; in a container they are the host's."""
    if sys.platform == "win32":
        return True
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def described(holders: tuple[Holder, ...] | None) -> str:
    """Who holds a GPU, in words."""
    if holders is None:
        return "the driver does not tell by whom"
    return ", ".join(map(str, holders)) or "by processes that cannot be seen from here"


def _visible(environ: Mapping[str, str]) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists; None: it hides nothing. CUDA reads it up to the first entry that is no GPU."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    entries = [entry.strip() for entry in value.split(",")]
    return list(itertools.takewhile(lambda entry: entry.isdecimal() or entry.startswith(("GPU-", "MIG-")), entries))


def _the_one(found: list[Gpu], wanted: str) -> Gpu:
    if len(found) != 1:
        raise NvmlUnavailable(f"the driver knows no {wanted}")
    return found[0]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
