"""Read an original, store a result: whole files, with errors that say whose fault it is."""

import errno
import hashlib
import os
import stat
import sys

from sr_engine.errors import EnvironmentFault
from sr_engine.headers import Header, read_header
from sr_engine.protocol import Code

# Windows translates line ends unless told not to; the other flags exist on POSIX only. Without O_NONBLOCK the
# opening of a named pipe waits for its writer, for ever if need be.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
_CREATE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)


class Source:
    """An original that is open for reading; a context manager.

    Attributes:
        size: in bytes, when it was opened.
    """

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            EnvironmentFault: UNREADABLE; vanished, forbidden, a link, a folder, a device.
        """
        try:
            descriptor = os.open(path, _READ)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    what = "a folder: name the files in it" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                    raise EnvironmentFault(Code.UNREADABLE, f"it is {what}")
                self._file = open(descriptor, "rb")  # noqa: SIM115 - closed by __exit__
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise _unreadable(error) from error
        self.size = status.st_size

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def header(self) -> Header:
        """What it says of itself, from a few small reads.

        Raises:
            EnvironmentFault: UNREADABLE.
            HeaderError: as `read_header`.
        """
        try:
            return read_header(self._file)
        except OSError as error:
            raise _unreadable(error) from error

    def sha256(self) -> str:
        """Digest of the whole file, without keeping it in memory.

        Raises:
            EnvironmentFault: UNREADABLE.
        """
        try:
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(error) from error

    def read(self) -> bytes:
        """The whole file.

        Raises:
            EnvironmentFault: UNREADABLE.
        """
        try:
            self._file.seek(0)
            return self._file.read()
        except OSError as error:
            raise _unreadable(error) from error


def store(data: bytes, path: str) -> None:
    """Write a new file and sync it to disk; on failure nothing of it stays.

    Raises:
        EnvironmentFault: UNWRITABLE; the disk is full, the folder gone, the name taken, a write error.
    """
    try:
        descriptor = os.open(path, _CREATE, 0o666)
    except OSError as error:
        raise _unwritable(error) from error
    try:
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
    except BaseException as error:
        try:
            os.unlink(path)
        except OSError as leftover:
            sys.stderr.write(f"cannot remove the unfinished result: {leftover.strerror}\n")
        if isinstance(error, OSError):
            raise _unwritable(error) from error
        raise


def _unreadable(error: OSError) -> EnvironmentFault:
    # O_NOFOLLOW answers ELOOP, or EMLINK on FreeBSD.
    linked = error.errno in (errno.ELOOP, errno.EMLINK)
    reason = "it is a symbolic link" if linked else error.strerror or error
    return EnvironmentFault(Code.UNREADABLE, f"it cannot be read: {reason}")


def _unwritable(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(Code.UNWRITABLE, f"the result cannot be staged: {error.strerror}")
