"""Primitives over files that make no decisions: identity, hash, durable copies, renames that cannot overwrite.

File names are bytes on POSIX; here they travel as `str` with surrogate escapes (os.fsdecode), which loses nothing.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable
from typing import NamedTuple

from watcher.files.names import candidate_names, longest_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_CHUNK_BYTES = 1 << 20
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# A folder cannot be opened (Windows), or the file system has no fsync for folders (some FUSE and SMB servers).
_NO_FOLDER_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR}
_NO_SUCH_RENAME = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Identity(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """From the result of a stat call."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def same_state(self, other: "Identity") -> bool:
        """Whether nothing happened to a file between two looks.

        Size and times decide, not device and inode: some FUSE and SMB servers invent inode numbers as they go, and
        a file that took another's place came by a rename, which sets ctime.
        """
        return self[2:] == other[2:]

    def same_after_rename(self, other: "Identity") -> bool:
        """Whether both are one untouched file, of which one was renamed: that alone changes ctime."""
        return self[:4] == other[:4]


class Digest(NamedTuple):
    """A file's content and the identity that it had while it was read."""

    sha256: str
    identity: Identity


def look_at(path: str) -> Identity | None:
    """Identity of the regular file `path`; None when there is none (absent, a folder, a link, a pipe).

    Raises:
        OSError: the file system does not answer.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Identity.of(status) if stat.S_ISREG(status.st_mode) else None


def is_taken(path: str) -> bool:
    """Whether something has that name, also a link that leads nowhere.

    Raises:
        OSError: the file system does not answer. `os.path.lexists` would say that the name is free.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path)
        return True
    return False


def open_regular(path: str) -> io.FileIO:
    """Open a regular file for reading, following no link and waiting for no pipe.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, _READ_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def digest(path: str) -> Digest:
    """SHA-256 of a regular file.

    Raises:
        OSError: it cannot be read; errno EAGAIN when it changed meanwhile.
    """
    with open_regular(path) as file:
        before = Identity.of(os.fstat(file.fileno()))
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = Identity.of(os.fstat(file.fileno()))
    if before != after:
        raise OSError(errno.EAGAIN, "changed while it was read", path)
    return Digest(sha256, after)


def holds(path: str, sha256: str) -> bool:
    """Whether `path` is a regular file with exactly this content.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        return digest(path).sha256 == sha256
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.EAGAIN}:
            return False
        raise


def writer_present(path: str) -> bool | None:
    """Whether some process has the file open for writing; None where the system cannot tell.

    Linux grants a read lease only on a file that no one has open for writing; network file systems and files of
    other owners do not support it. The caller must ignore SIGIO: it is what the kernel sends when somebody opens
    the file during the microseconds that the lease is held, and its default is to end the process.
    """
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        with open_regular(path) as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable, where the system can.

    Raises:
        OSError: the disk failed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_FOLDER_FSYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(descriptor)


def make_folders(root: str, relative: str) -> str:
    """Create `root/relative`, each new level durable; `root` itself must exist, it may be a missing share.

    Returns:
        The folder below `root`: another than `relative` where a file has the name of one of its levels.

    Raises:
        OSError: `root` is missing, or a level cannot be created.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(errno.ENOENT, "the folder is not there: mount its share, or run `dropscale init`", root)
    made = ""
    for part in [part for part in relative.split(os.sep) if part]:
        made = os.path.join(made, _make_level(os.path.join(root, made), part))
    return made


def _make_level(parent: str, name: str) -> str:
    for candidate in candidate_names(name, "folder", longest_name(parent)):
        folder = os.path.join(parent, candidate)
        try:
            os.mkdir(folder)
            fsync_folder(parent)
        except FileExistsError:
            if not _is_folder(folder):
                continue
        return candidate
    raise AssertionError("candidate_names never ends")


def _is_folder(path: str) -> bool:
    """Like `os.path.isdir`, which takes a share that stumbles for a file that is in the way."""
    with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere
        return stat.S_ISDIR(os.stat(path).st_mode)
    return False


def rename_noreplace(source: str, target: str) -> None:
    """Rename in one step, failing if `target` exists.

    Raises:
        FileExistsError: `target` exists.
        OSError: errno EXDEV when the two are on different file systems; ENOTSUP where this file system cannot
            rename without the danger of overwriting.
    """
    if os.name == "nt":
        os.rename(source, target)  # Windows never overwrites here
        return
    rename = _exclusive_rename()
    if rename is None:
        raise OSError(errno.ENOTSUP, "no exclusive rename", target)
    if rename(os.fsencode(source), os.fsencode(target)) != 0:
        code = ctypes.get_errno()
        if code in _NO_SUCH_RENAME:
            code = errno.ENOTSUP
        raise OSError(code, os.strerror(code), source, None, target)


def publish(hidden: str, target: str) -> None:
    """Give `hidden`, a file of ours, its final name on the same file system, never overwriting.

    Raises:
        FileExistsError: `target` exists.
        OSError: errno EXDEV, or the file system failed.
    """
    _give_name(hidden, target)
    fsync_folder(os.path.dirname(target))


def publish_across(path: str, target: str, hidden: str) -> None:
    """`publish`, also from another file system: by a copy that is read back, under the name `hidden` beside the target.

    Raises:
        FileExistsError: `target` exists.
        OSError: a file system failed.
    """
    try:
        _give_name(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if not holds(hidden, copy_file(path, hidden)):
            os.unlink(hidden)
            raise OSError(errno.EIO, "the copy is not what was written", target) from None
        try:
            publish(hidden, target)
        except FileExistsError:
            os.unlink(hidden)
            raise
        os.unlink(path)
    else:
        fsync_folder(os.path.dirname(target))


def copy_file(source: str, target: str) -> str:
    """Copy content, mode and times to `target`, replacing an unfinished copy of ours, and sync it to the disk.

    Returns:
        SHA-256 of what was copied.

    Raises:
        OSError: reading or writing failed; nothing is left at `target`.
    """
    hasher = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    with open_regular(source) as reader:
        status = os.fstat(reader.fileno())
        try:
            with open(target, "xb", buffering=0) as writer:
                while chunk := reader.read(_CHUNK_BYTES):
                    hasher.update(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[writer.write(view) :]
                with contextlib.suppress(OSError):  # a share may not let us set times or modes
                    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
                    os.chmod(target, stat.S_IMODE(status.st_mode))
                os.fsync(writer.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(target)
            raise
    return hasher.hexdigest()


def write_file(path: str, text: str) -> None:
    """Write a small text file and sync it, replacing an unfinished one of ours.

    Raises:
        OSError: writing failed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: str, data: bytes) -> None:
    """Put a small file of ours in the place of the one before, in one step; not synced, for what may be lost.

    Raises:
        OSError: writing failed; the one before is still there.
    """
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.replace(f"{path}.new", path)


def _give_name(hidden: str, target: str) -> None:
    try:
        rename_noreplace(hidden, target)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        _publish_by_link(hidden, target)


def _publish_by_link(hidden: str, target: str) -> None:
    try:
        os.link(hidden, target)
        finish = functools.partial(os.unlink, hidden)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}:
            raise
        # No links either (FAT, some FUSE and SMB servers): reserve the name, then rename over our own placeholder.
        # A crash between the two leaves an empty file, which recovery replaces: see delivery.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        finish = functools.partial(os.replace, hidden, target)
    try:
        finish()
    except OSError as error:  # EXDEV or EEXIST would say that the name was not taken: it was, and by us
        raise OSError(errno.EIO, f"{error.strerror}, half-way to its name", target) from error


def _exclusive_rename() -> Callable[[bytes, bytes], int] | None:
    """renameat2(RENAME_NOREPLACE) on Linux, renamex_np(RENAME_EXCL) on macOS: os has no binding for either."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        at_cwd, noreplace = -100, 1  # AT_FDCWD in fcntl.h, RENAME_NOREPLACE in linux/fs.h
        return lambda source, target: library.renameat2(at_cwd, source, at_cwd, target, noreplace)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        exclusive = 4  # RENAME_EXCL in sys/stdio.h
        return lambda source, target: library.renamex_np(source, target, exclusive)
    return None
