"""Thumbnails and renditions: made once, by a child process, and kept in the state folder by their original's hash."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time

from sr_engine import protocol

FOLDER = "page"
_PATIENCE_SECONDS = 60.0  # for one picture
_IDLE_SECONDS = 5.0  # then the child ends, and its memory is free
_MOST_WAITING = 7  # threads of the server that wait for pictures; the others have pages to serve
_MOST_RENDITION_BYTES = 256 << 20
_REFUSED_SECONDS = 3600.0  # the machine may have been busy, or a decoder missing: then it is tried again


class Busy(Exception):
    """Too many are asked for at a time: ask again."""


class Unrenderable(Exception):
    """There is no picture to be had of it; the message says why."""


class Thumbnails:
    """The child process, when there is one, and what it has made."""

    def __init__(self, state_folder: str) -> None:
        self._root = os.path.join(state_folder, FOLDER)
        self._lock = threading.Lock()  # one picture at a time: two cores are for the engine
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._child: subprocess.Popen[bytes] | None = None
        self._idle: threading.Timer | None = None

    def thumbnail(self, sha256: str, source: str) -> str:
        """A file with a small picture of `source`.

        Args:
            sha256: of the content that stands for it.
            source: where that lies, or its result.

        Raises:
            Busy: see there.
            Unrenderable: see there.
            OSError: `source` is gone.
        """
        return self._kept("thumbnails", "thumbnail", sha256, source, (0, 0))

    def preview(self, sha256: str, source: str) -> str:
        """The same, large, for kinds that browsers do not show."""
        return self._kept("renditions", "preview", sha256, source, (0, 0))

    def cubic(self, sha256: str, source: str, size: tuple[int, int]) -> str:
        """An original enlarged to a size by bicubic interpolation, to compare with."""
        return self._kept("renditions", "cubic", sha256, source, size)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _kept(self, folder: str, kind: str, sha256: str, source: str, size: tuple[int, int]) -> str:
        there = os.stat(source)
        state = f"{there.st_size:x}-{there.st_mtime_ns:x}"  # somebody may put another file in its place
        name = sha256 if kind == "thumbnail" else f"{sha256}-{kind}-{size[0]}x{size[1]}-{state}"
        target = os.path.join(self._root, folder, sha256[:2], f"{name}.webp")
        refused = f"{target}.no"
        if os.path.exists(target):
            return target
        if _stands(refused, state):
            raise Unrenderable("it could not be made before")
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            with self._lock:
                if os.path.exists(target):  # somebody else asked for the same
                    return target
                if folder == "renditions":
                    self._make_room()
                problem = self._ask({"kind": kind, "width": size[0], "height": size[1]}, source, target)
        except OSError as error:  # of the process, not of the picture
            raise Unrenderable(str(error.strerror)) from error
        finally:
            self._waiting.release()
        if problem:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(refused), exist_ok=True)
                with open(refused, "w", encoding="ascii") as file:
                    file.write(state)
            raise Unrenderable(problem)
        return target

    def _ask(self, request: dict[str, object], source: str, target: str) -> str:
        """Let the child make it; returns what stood in the way.

        Raises:
            OSError: there is no child to be had.
        """
        if self._idle is not None:
            self._idle.cancel()
        paths = {"source": protocol.encode_path(source), "target": protocol.encode_path(target)}
        try:
            child = self._started()
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps({**request, **paths}).encode() + b"\n")
            child.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(child.stdout, selectors.EVENT_READ)
                answer = child.stdout.readline() if selector.select(_PATIENCE_SECONDS) else b""
            if answer:
                return str(json.loads(answer)["problem"])
            self._end(kill=True)
            return "it took too long, or too much memory"
        except OSError:
            self._end(kill=True)
            raise
        finally:
            self._idle = threading.Timer(_IDLE_SECONDS, self.close)
            self._idle.daemon = True
            self._idle.start()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "webpage.rendering"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._child

    def _end(self, *, kill: bool = False) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if kill:
            child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            child.wait(_IDLE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _make_room(self) -> None:
        """Renditions are large and quickly made again: keep the latest."""
        found = []
        for folder, _, names in os.walk(os.path.join(self._root, "renditions")):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= _MOST_RENDITION_BYTES:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size


def _stands(refused: str, state: str) -> bool:
    """Whether a picture could not be made of this very file a while ago."""
    try:
        with open(refused, encoding="ascii", errors="replace") as file:
            return file.read(100) == state and 0 <= time.time() - os.stat(refused).st_mtime < _REFUSED_SECONDS
    except OSError:
        return False
