"""What this process may use of the machine: all of it, or less where a container or a service is limited.

Light: no numpy, no cv2.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

if sys.platform != "win32":
    import resource

_CGROUPS = "/sys/fs/cgroup"
_UNKNOWN_BYTES = 4 << 30  # assumed where the system does not tell
# On a small machine a picture that may be tried by `limits` needs this with the network; its swap has to bear it.
_LEAST_LIMIT_BYTES = 2 << 30


def processors() -> int:
    """How many this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_bytes() -> int:
    """What the machine has, or what the control group allows."""
    return min([_physical_bytes(), *(limit for limit, _ in _group_limits())])


_untouched_bytes = 0  # how much higher the system's limit is than ours, see below


def limit_own_memory(wanted_bytes: int = 0, *, unmapped_bytes: int = 0) -> int:
    """See that this process cannot take the machine, whatever a picture does to a library.

    What libraries and drivers have mapped by now and not touched does not count: stacks and buffers are some 40 MB for
    each core, and no memory. So this is called when all is loaded, and nothing foreign was read yet.

    Args:
        wanted_bytes: the limit; 0: seven eighths of the machine, and at least _LEAST_LIMIT_BYTES.
        unmapped_bytes: what libraries that are not loaded yet are going to map and not touch.

    Returns:
        The limit that holds from now on, or 0 where the system has none.
    """
    global _untouched_bytes  # noqa: PLW0603 - as the limit itself, it is one for the process
    if sys.platform != "linux":
        return 0  # macOS accepts such limits and does nothing
    limit = wanted_bytes or max(total_bytes() // 8 * 7, _LEAST_LIMIT_BYTES)
    status = "/proc/self/status"
    untouched = max(_kilobytes(status, "VmData") - _kilobytes(status, "RssAnon"), 0) + unmapped_bytes
    # Not RLIMIT_AS: CUDA and OpenVINO reserve far more addresses than they ever use. This one counts private memory
    # that can be written (since Linux 4.7), which is what a picture's pixels are. What CUDA pins or manages is mapped
    # from its driver, so it is shared and not counted.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit + untouched
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
        _untouched_bytes = untouched
        return max(allowed - untouched, 1)
    return 0


def own_limit_bytes() -> int:
    """What `limit_own_memory` set, or somebody outside; 0: nothing."""
    if sys.platform != "linux":
        return 0
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return 0 if limit == resource.RLIM_INFINITY else max(limit - _untouched_bytes, 1)


def own_room_bytes() -> int:
    """What of the limit is left now; without a limit, what the machine has."""
    limit = own_limit_bytes()
    return max(limit + _untouched_bytes - _kilobytes("/proc/self/status", "VmData"), 0) if limit else total_bytes()


def own_limit_is_to_blame() -> bool:
    """Whether memory that was refused was refused for `own_limit_bytes`: not for want of it, nor for another limit."""
    if sys.platform != "linux" or not own_limit_bytes():
        return False
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    return addresses == resource.RLIM_INFINITY and _free_bytes() > total_bytes() // 8


def beyond_own_limit() -> str:
    """What a picture fails with that needs more than `own_limit_bytes`."""
    return (
        f"it needs more memory than the engine may hold ({own_limit_bytes() / 1e9:.3g} GB): "
        "cut the picture in parts, or raise limits.engine_megabytes"
    )


def available_bytes() -> int:
    """What this process could allocate now without swapping."""
    return min(_free_bytes(), own_room_bytes())


def _free_bytes() -> int:
    """What any process could allocate now without swapping."""
    free = _kilobytes("/proc/meminfo", "MemAvailable") or _physical_bytes()
    return max(0, min([free, *(limit - used for limit, used in _group_limits())]))


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far; 0 where the system does not tell."""
    # Not ru_maxrss: on Linux it survives exec, and counts what a large parent had when it forked.
    if found := _kilobytes("/proc/self/status", "VmHWM"):
        return found
    if sys.platform == "win32":
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
