"""From requests to results: read, decode, enlarge, encode, store; one picture after the other.

Every step takes what the one before it made and touches nothing else, so that steps of neighbouring pictures can
overlap. Whatever a picture does, it becomes that picture's `failed` event and never stops the batch.
"""

import errno
import hashlib
import io
import os
import stat
import sys
import time
import traceback
from collections.abc import Callable

import cv2

from sr_engine.decoding import decode
from sr_engine.encoding import encode
from sr_engine.errors import EngineError, EnvironmentFault, PictureError
from sr_engine.headers import read_header
from sr_engine.limits import check
from sr_engine.protocol import (
    Code,
    Done,
    Event,
    Failed,
    Fault,
    Limits,
    Progress,
    Started,
    Upscale,
    decode_path,
    encode_path,
)
from sr_engine.tiles import Network, enlarge

# OpenCV takes buffers of less than 2^31 bytes; 200 megapixels of 8-bit RGBA are 0.8 GB.
MAX_SOURCE_BYTES = (1 << 31) - 1
_INSUFFICIENT_MEMORY = -4
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


class Pipeline:
    """Answers `upscale` requests with events.

    Attributes:
        pictures: requests answered so far.
        failed: those answered by `failed`.
    """

    def __init__(self, network: Network, emit: Callable[[Event], None], limits: Limits) -> None:
        self.pictures = 0
        self.failed = 0
        self._network = network
        self._emit = emit
        self._limits = limits
        if "OPENCV_LOG_LEVEL" not in os.environ:
            # Its complaints about a damaged picture reach the user in our own words.
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def answer(self, request: Upscale) -> None:
        """Upscale one picture: `started`, then `progress`, and at last `done` or `failed`."""
        self.pictures += 1
        source_sha256 = ""
        # before the reading, which may take long: the watcher has to know whom it is waiting for
        self._emit(Started(id=request.id, width=0, height=0))
        try:
            begun = time.perf_counter()
            data = read_source(decode_path(request.source))
            source_sha256 = hashlib.sha256(data).hexdigest()
            self._emit(self._upscale(request, data, source_sha256, begun))
        except Exception as error:
            self.failed += 1
            self._emit(_failure(request.id, error, source_sha256))

    def _upscale(self, request: Upscale, data: bytes, source_sha256: str, begun: float) -> Done:
        header = read_header(io.BytesIO(data))
        self._emit(Started(id=request.id, width=header.width, height=header.height))
        check(header, self._limits, request.output, scale=self._network.model.scale)
        (picture,) = decode(data)
        del data
        decoded = time.perf_counter()
        result = enlarge(
            picture,
            self._network,
            report=lambda done, total: self._emit(Progress(id=request.id, done=done, total=total)),
        )
        upscaled = time.perf_counter()
        packed, extension, note = encode([result], request.output)
        target = decode_path(request.target) + extension
        store(packed, target)
        return Done(
            id=request.id,
            target=encode_path(target),
            source_sha256=source_sha256,
            result_sha256=hashlib.sha256(packed).hexdigest(),
            result_bytes=len(packed),
            width=result.width,
            height=result.height,
            decode_seconds=decoded - begun,
            upscale_seconds=upscaled - decoded,
            encode_seconds=time.perf_counter() - upscaled,
            peak_memory_bytes=peak_memory_bytes(),
            note=note,
        )


def read_source(path: str) -> bytes:
    """All bytes of a regular file, read once.

    Raises:
        EnvironmentFault: UNREADABLE; vanished, forbidden, a link, a folder, a device, a read error.
        PictureError: TOO_LARGE.
    """
    try:
        descriptor = os.open(path, _READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise EnvironmentFault(Code.UNREADABLE, "it is not a regular file")
            if status.st_size > MAX_SOURCE_BYTES:
                raise PictureError(
                    Code.TOO_LARGE, f"a file of {status.st_size / 1e9:.1f} GB is too large: cut it in parts"
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except OSError as error:
        # O_NOFOLLOW answers ELOOP, or EMLINK on FreeBSD.
        linked = error.errno in (errno.ELOOP, errno.EMLINK)
        reason = "it is a symbolic link" if linked else error.strerror
        raise EnvironmentFault(Code.UNREADABLE, f"it cannot be read: {reason}") from error


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


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far; 0 where the system does not tell."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _unwritable(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(Code.UNWRITABLE, f"the result cannot be staged: {error.strerror}")


def _failure(number: int, error: Exception, source_sha256: str) -> Failed:
    code, message, fault = Code.UPSCALE_FAILED, "", Fault.PICTURE
    if isinstance(error, EngineError):
        code, message = error.code, error.message
        fault = Fault.PICTURE if isinstance(error, PictureError) else Fault.ENVIRONMENT
    elif isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == _INSUFFICIENT_MEMORY):
        code, fault = Code.OUT_OF_MEMORY, Fault.ENVIRONMENT
        message = "the memory does not suffice for this picture now: free some, or cut the picture in parts"
    else:
        traceback.print_exception(error, file=sys.stderr)
        message = f"upscaling broke off ({type(error).__name__}: {error}); the engine's log has the details"
    return Failed(
        id=number,
        code=code,
        message=message,
        fault=fault,
        retryable=fault is Fault.ENVIRONMENT,
        source_sha256=source_sha256,
    )
