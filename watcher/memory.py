"""Keep the idle watcher small: glibc holds on to freed memory, and gives each thread a heap of its own."""

import ctypes
import gc
import sys

_M_ARENA_MAX = -8  # malloc.h


def limit_arenas() -> None:
    """One heap for all threads (glibc only): ours wait more than they allocate. Call before threads are started."""
    library = _glibc()
    if library is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def return_freed() -> None:
    """Give freed memory back to the system (glibc only), with what only cycles hold: threads and errors leave some."""
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
