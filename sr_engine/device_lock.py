"""One batch on a GPU of this machine: a lock of the kernel, which the engine's process holds until it is gone.

The lock is on a file that every user of the machine may lock, in a folder that all find by the same rule. Nothing is
ever written into it, so a link that somebody put there leads nowhere: it is not followed, and said.
"""

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator

from filelock import FileLock, Timeout

from sr_engine.errors import DeviceBusy

_EVERYBODY = 0o666
# /run/lock is everybody's on Debian and its kin, root's on others. /tmp is last: systemd's PrivateTmp makes it private.
_FOLDERS = ("/run/lock", "/dev/shm", "/tmp")  # noqa: S108 - shared on purpose
_UNUSABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC}

_held: dict[str, FileLock | None] = {}  # by name; None: without a lock. The kernel lets go when the process ends


def take(name: str, shown: str) -> bool:
    """Take the lock, once; it is not waited for.

    Args:
        name: of the device: its UUID, or what it is called where that is not known.
        shown: what the user calls it.

    Returns:
        Whether it was not this process's own before.

    Raises:
        DeviceBusy: another process has it.
    """
    if name in _held:
        return False
    refused = "no folder for locks is writable"
    for path in _places(name):
        lock = FileLock(path, mode=_EVERYBODY, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            holder = _holder(path)
            who = f"process {holder}" if holder else "a process that cannot be told from here"
            raise DeviceBusy(f"another dropscale ({who}) uses {shown}") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DeviceBusy(f"the lock of {shown}, {path}, is a symbolic link: remove it") from error
            refused = f"{path}: {error.strerror}"
            if error.errno not in _UNUSABLE:
                break
        else:
            _held[name] = lock
            return True
    # without it two engines may share the memory, which has its own answers; to work is better than not to
    sys.stderr.write(f"NOT LOCKING {shown}: {refused}\n")
    _held[name] = None
    return True


def release(name: str) -> None:
    """Let it go before the process ends: the device is not going to be used."""
    if (lock := _held.pop(name, None)) is not None:
        lock.release()


def _places(name: str) -> Iterator[str]:
    """The file in each folder to try, best first.

    By the folders' modes, not by this user's rights: all users have to come to the same one. Not $TMPDIR first, which
    is each user's own.
    """
    file = "dropscale-" + "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in name) + ".lock"
    for folder in (*_FOLDERS, tempfile.gettempdir()):
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            continue
        if sys.platform == "win32" or (mode & stat.S_IWOTH and mode & stat.S_ISVTX):
            yield os.path.join(folder, file)
    yield os.path.join(tempfile.gettempdir(), file)


def _holder(path: str) -> int:
    """The process that has the lock; 0: not told."""
    try:
        inode = os.stat(path, follow_symlinks=False).st_ino
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                fields = line.split()  # 1: FLOCK ADVISORY WRITE 4242 00:19:77 0 EOF
                if "FLOCK" in fields and fields[5].rpartition(":")[2] == str(inode):
                    return max(int(fields[4]), 0)
    except (OSError, ValueError, IndexError):
        pass
    return 0
