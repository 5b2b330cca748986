"""What this process may use of the machine: all of it, or less where a container or a service is limited.

Light: no numpy, no cv2.
"""

import os
import sys
from collections.abc import Iterator

_CGROUPS = "/sys/fs/cgroup"
_UNKNOWN_BYTES = 4 << 30  # assumed where the system does not tell


def processors() -> int:
    """How many this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_bytes() -> int:
    """What the machine has, or what the control group allows."""
    return min([_physical_bytes(), *(limit for limit, _ in _group_limits())])


def available_bytes() -> int:
    """What could be allocated now without swapping."""
    free = _kilobytes("/proc/meminfo", "MemAvailable") or _physical_bytes()
    return max(0, min([free, *(limit - used for limit, used in _group_limits())]))


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far; 0 where the system does not tell."""
    # Not ru_maxrss: on Linux it survives exec, and counts what a large parent had when it forked.
    if found := _kilobytes("/proc/self/status", "VmHWM"):
        return found
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # Windows lacks sysconf
        return _UNKNOWN_BYTES


def _kilobytes(path: str, name: str) -> int:
    """A line such as `VmHWM:  1234 kB`, in bytes; 0 where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _group_limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group that this process is in."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, ValueError):
        return
    for number, controllers, path in groups:
        if number == "0":  # version 2: one tree for all controllers
            root, names = _CGROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = os.path.join(_CGROUPS, "memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # Inside a container the path is the host's, and the group itself is mounted at the root.
        parts = path.strip("/").split("/")
        for depth in range(len(parts), -1, -1):
            folder = os.path.join(root, *parts[:depth])
            limit, used = (_number(os.path.join(folder, name)) for name in names)
            if limit is not None and used is not None:
                # what is kept of files that were read counts as used, and is given up when needed
                yield limit, max(0, used - _cached(os.path.join(folder, "memory.stat")))


def _cached(path: str) -> int:
    found = {"inactive_file": 0, "total_inactive_file": 0}
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name in found:
                    found[name] = int(value)
    except (OSError, ValueError):
        pass
    return max(found.values())


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):  # also "max": no limit
        return None
