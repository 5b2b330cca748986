"""Processes that die with their parent: a GPU must not stay held by an orphan.

The kernel sends the signal when the *thread* ends that started the process, so that has to be a main one.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent: int) -> None:
    """From now on the kernel kills this process when its parent ends; nothing happens elsewhere than on Linux.

    Args:
        parent: its process id; if that is not the parent any more, this process ends here.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before
        os.kill(os.getpid(), signal.SIGKILL)


def dies_with_this_process() -> Mapping[str, Any]:
    """Arguments of Popen for a child that does, and stays in this process's group."""
    parent = os.getpid()
    # in the child, between fork and exec: only what needs no lock, all of it loaded before
    return {"preexec_fn": lambda: die_with(parent)}
