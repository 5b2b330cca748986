"""`dropscale doctor`: what this machine has, what is missing, and what to do about it."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from sr_engine import models, nvml
from sr_engine.errors import ModelError
from watcher import __version__, instance
from watcher.engine.coldstart import measure
from watcher.engine.nvidia import may_use_nvidia
from watcher.errors import DropscaleError
from watcher.files.mounts import how_to_watch, mounts_below, read_mounts, sync_client_hint, sync_warning
from watcher.files.names import display
from watcher.operation import heic, page
from watcher.operation.hooks import faults, headers_of, shown
from watcher.queue import needs as queue_needs
from watcher.sections import Config

_PACKAGES = ("watchdog", "numpy", "PyYAML", "msgspec", "click", "rich", "filelock")
# By the name in `engine.runtime`: what is imported, what may be installed, how to get it.
_RUNTIMES = {
    "opencv": (
        "cv2",
        ("opencv-contrib-python-headless", "opencv-contrib-python", "opencv-python-headless", "opencv-python"),
        "opencv-contrib-python-headless",
    ),
    "openvino": ("openvino", ("openvino",), "openvino"),
    "onnx": (
        "onnxruntime",
        ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime"),
        "onnxruntime, or for NVIDIA's GPUs 'onnxruntime-gpu[cuda,cudnn]' nvidia-ml-py",
    ),
}
_INOTIFY = "/proc/sys/fs/inotify"


class Check(NamedTuple):
    """One line of the doctor's report.

    Attributes:
        milliseconds: what was timed, by name; for programs.
    """

    name: str
    verdict: Literal["ok", "note", "bad"]
    text: str
    milliseconds: dict[str, float] | None = None


def examine(config: Config, models_folder: str, *, chose_model: bool) -> Iterator[Check]:
    """Look at everything that a watcher needs; the slow ones come last.

    Args:
        config: of the watcher.
        models_folder: with the user's own models.
        chose_model: whether the config leaves the model to this machine.
    """
    yield Check("dropscale", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    yield _packages()
    for name in _RUNTIMES:
        yield _runtime(config, name)
    if lack := heic.lack(config):
        yield Check("heic", "note", lack)
    yield Check("sqlite", "ok", sqlite3.sqlite_version)
    for key in ("inbox", "outbox", "archive", "failed"):
        yield from _folder(key, getattr(config.folders, key))
    yield from _watching(config)
    yield from _inotify()
    yield _state(config)
    yield _model(config, models_folder, chose_model=chose_model)
    yield from _queue(config)
    yield from _hooks(config)
    yield from _metrics(config)
    yield from _page(config)
    yield from _gpus(config)
    yield from _engine(config, models_folder)


def _queue(config: Config) -> Iterator[Check]:
    if config.executor != "rq":
        return
    try:
        queue_needs.check(config)
        from watcher.queue.flights import listening  # noqa: PLC0415 - needs RQ

        workers = listening(config.queue)
    except DropscaleError as error:
        yield Check("queue", "bad", f"{error.message}: {error.remedy}")
        return
    share = f"share {display(queue_needs.share_of(config))}"
    none = "" if workers else "; start `dropscale worker` on a machine that has the share"
    yield Check("queue", "ok" if workers else "note", f"{share}, workers that listen: {workers}{none}")


def _hooks(config: Config) -> Iterator[Check]:
    for (key, fault), hook in zip(faults(config.on_event), config.on_event, strict=True):
        try:
            headers_of(hook, os.environ)
        except DropscaleError as error:
            yield Check(key, "bad", f"{error.message}: {error.remedy}")
            continue
        text = f"{', '.join(hook.events)}: {shown(hook)}" if fault is None else ": ".join(fault)
        yield Check(key, "ok" if fault is None else "note", text)


def _metrics(config: Config) -> Iterator[Check]:
    if not config.metrics.port and not config.metrics.textfile:
        return
    from watcher.operation.metrics import require  # noqa: PLC0415 - for who asks for it

    try:
        require()
    except DropscaleError as error:
        yield Check("metrics", "bad", f"{error.message}: {error.remedy}")
        return
    from watcher.operation.exposition import textfile_fault  # noqa: PLC0415 - needs the library

    if config.metrics.textfile:
        fault = textfile_fault(config.metrics.textfile)
        yield Check("metrics.textfile", "note" if fault else "ok", fault or display(config.metrics.textfile))


def _page(config: Config) -> Iterator[Check]:
    if not config.web.enabled:
        return
    try:
        page.check(config.web)
    except DropscaleError as error:
        yield Check("web", "bad", f"{error.message}: {error.remedy}")
        return
    yield Check("web", "ok", f"{config.web.host}, port {config.web.port or 'any'}")


def _packages() -> Check:
    return Check("packages", "ok", ", ".join(_versions(_PACKAGES)))


def _versions(distributions: Iterable[str]) -> list[str]:
    versions = []
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return versions


def _runtime(config: Config, name: str) -> Check:
    """Only looked for: to import it takes seconds and hundreds of megabytes, and is the engine's business."""
    module, distributions, wanted = _RUNTIMES[name]
    if importlib.util.find_spec(module) is not None:
        found = _versions(distributions)
        if len(found) > 1:  # pip knows of no conflict between them, and what is left is a mixture
            advice = f"write to the same files: pip uninstall all of them, then install the one you want ({wanted})"
            return Check(f"runtime.{name}", "note", f"{' and '.join(found)} {advice}")
        return Check(f"runtime.{name}", "ok", ", ".join(found) or "installed")
    needed = config.engine.runtime == name and not config.engine.command
    advice = f"not installed: pip install {wanted}" + (", or set engine.runtime to auto" if needed else "")
    return Check(f"runtime.{name}", "bad" if needed else "note", advice)


def _folder(key: str, folder: str) -> Iterator[Check]:
    name = f"folders.{key}"
    if not os.path.isdir(folder):
        yield Check(name, "bad", f"{display(folder)} is not there: mount its share, or run `dropscale init`")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Check(name, "bad", f"{display(folder)} cannot be written by this user: change its owner or its mode")
        return
    usage = shutil.disk_usage(folder)
    free = usage.free / 1e9
    scarce = free < 1 or usage.free < usage.total * 0.01
    yield Check(name, "note" if scarce else "ok", f"{display(folder)}, {free:.1f} GB free")


def _watching(config: Config) -> Iterator[Check]:
    inbox = config.folders.inbox
    if not os.path.isdir(inbox):
        return
    mounts = read_mounts()
    folders = [inbox] + ([mount.point for mount in mounts_below(inbox, mounts)] if config.watch.recursive else [])
    for folder in folders:
        text = f"{display(folder)}: {how_to_watch(folder, mounts).why}"
        if config.watch.backend != "auto":
            text += f" (overridden: watch.backend is {config.watch.backend})"
        yield Check("watching", "ok", text)
    if client := sync_client_hint(inbox):
        yield Check("sync", "note", sync_warning(client))


def _inotify() -> Iterator[Check]:
    limits = {}
    for name in ("max_user_watches", "max_user_instances", "max_queued_events"):
        try:
            with open(os.path.join(_INOTIFY, name), encoding="ascii") as file:
                limits[name] = int(file.read())
        except (OSError, ValueError):
            return
    low = limits["max_user_watches"] < 8192
    text = ", ".join(f"{name} {value}" for name, value in limits.items())
    advice = "; each subfolder of the inbox takes a watch: raise fs.inotify.max_user_watches" if low else ""
    yield Check("inotify", "note" if low else "ok", text + advice)


def _state(config: Config) -> Check:
    folder = config.folders.state
    watching = how_to_watch(folder, read_mounts())
    if watching.polling:
        return Check(
            "state", "bad", f"{display(folder)} is on a network file system ({watching.why}): use a local disk"
        )
    try:
        running = instance.is_running(folder)
    except DropscaleError as error:
        return Check("state", "bad", f"{error.message}: {error.remedy}")
    if running:
        return Check("state", "ok", f"{display(folder)}, held by {instance.describe_holder(folder)}")
    return Check("state", "ok", f"{display(folder)}, no watcher is running")


def _model(config: Config, models_folder: str, *, chose_model: bool) -> Check:
    try:
        found = models.find(config.engine.model, models_folder)
        models.verify(found)
    except ModelError as error:
        return Check("model", "bad", error.message)
    if chose_model and config.executor == "rq":
        return Check("model", "note", queue_needs.chosen_model(found.name))
    return Check("model", "ok", f"{found.name}: x{found.model.scale}, {found.model.licence}, sha256 as in the manifest")


def _gpus(config: Config) -> Iterator[Check]:
    """Of NVIDIA, where there is a driver, or where the config says that there is."""
    if not may_use_nvidia(config.engine) and not os.path.exists("/dev/nvidiactl"):
        return
    try:
        with nvml.Nvml() as library:
            gpus = [(gpu, library.read(gpu), library.modes(gpu)) for gpu in library.gpus()]
            driver = library.driver()
    except nvml.NvmlUnavailable as error:
        yield Check("gpu", "note", f"nothing is known of NVIDIA's GPUs: {error.reason}")
        return
    for gpu, reading, modes in gpus:
        name = f"gpu.{gpu.number}"
        if reading.memory is None:
            yield Check(name, "bad", f"{gpu.name}: {reading.unknown['memory']}; see nvidia-smi")
            continue
        free = f"{reading.memory.free >> 20} of {reading.memory.total >> 20} MiB free"
        held = f"; held: {nvml.described(reading.holders)}" if reading.holders or reading.holders is None else ""
        yield Check(name, "ok", f"{gpu.name}, driver {driver}, {free}{held}")
        yield _mode(
            f"{name} persistence",
            modes["persistence"],
            "the first use after a pause wakes the GPU, 1 to 3 s: systemctl enable --now nvidia-persistenced",
        )
        accounts = "GPU time is taken by the clock"
        if modes["accounting"] is False:
            accounts += "; for the driver's own, as root after each start: nvidia-smi --accounting-mode=1"
        yield _mode(f"{name} accounting", modes["accounting"], accounts)
    if nvml.sees_all_processes():
        yield Check("gpu processes", "ok", "their numbers mean the same to the driver and here")
    else:
        text = "the driver's numbers of processes are the host's, so memory alone tells: docker --pid=host"
        yield Check("gpu processes", "note", text)


def _mode(name: str, state: bool | str, otherwise: str) -> Check:
    if state is True:
        return Check(name, "ok", "on")
    return Check(name, "note", f"{'off' if state is False else f'not told ({state})'}: {otherwise}")


def _engine(config: Config, models_folder: str) -> Iterator[Check]:
    """Start a real engine: an import that works here may still miss a library there."""
    cold = measure(config, models_folder)
    if cold.ready is None:
        yield Check("engine", "note" if cold.busy else "bad", cold.problem or "it was never ready")
        return
    ready = cold.ready
    text = f"{ready.runtime} on {ready.device}, {ready.precision}"
    yield Check("engine", "ok", text + (f" ({ready.reason})" if ready.reason else ""))
    if ready.device == "cpu" and (config.budget.per_day or config.budget.per_month):
        yield Check("budget", "note", "it counts GPUs: the engine here has a CPU, which is never held by it")
    told = {name: f"{value:.0f} ms" for name, value in cold.milliseconds.items()}
    parts = [f"{name} {value}" for name, value in told.items() if name not in ("ready", "first tile", "exit")]
    text = f"ready after {told['ready']}" + (f" ({', '.join(parts)})" if parts else "")
    text += "".join(f"; {name} {told[name]}" for name in ("first tile", "exit") if name in told)
    if cold.problem:
        yield Check("cold start", "bad", f"{text}; {cold.problem}", cold.milliseconds)
    else:
        yield Check("cold start", "ok", text, cold.milliseconds)
