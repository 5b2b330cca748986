"""What clients send into the inbox of a running watcher, and what has to be true when they are done."""

import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import QUICK, ROOT, Running, Site, below, wait_until
from promise import Promise, sha256
from servers import Program

JUDGING_ENGINE = [sys.executable, "-P", str(ROOT / "tests" / "clients" / "engines" / "judging.py")]
MEGABYTE = 1_000_000

# Short settle times, so that a throttled upload lasts many of them; but what cannot be decoded is given the default
# time, because a client that was killed comes back when its user notices.
SETTINGS: dict[str, dict[str, Any]] = {
    "watch": {**QUICK["watch"], "incomplete_seconds": 30},
    "engine": {**QUICK["engine"], "command": JUDGING_ENGINE},
}
PAUSE_SECONDS = 0.5  # of a slow writer: longer than settle_seconds and quiet_seconds together


class Album:
    """Photographs of a size in megabytes: the bee, enlarged, with noise as a sensor has it; each call another one."""

    def __init__(self) -> None:
        self._bee = cv2.imread(str(ROOT / "docs" / "bee.jpg"))
        self._rng = np.random.default_rng(1)
        self._bases: dict[tuple[float, str], bytes] = {}
        self._made = 0

    def jpeg(self, megabytes: float) -> bytes:
        """A JPEG file; its comment makes it unlike any other."""
        base = self._base(megabytes, ".jpg")
        comment = self._comment()
        return base[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + base[2:]

    def png(self, megabytes: float) -> bytes:
        """A PNG file; its text makes it unlike any other."""
        base = self._base(megabytes, ".png")
        body = b"tEXtComment\0" + self._comment()
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        after_header = 33
        return base[:after_header] + chunk + base[after_header:]

    def _comment(self) -> bytes:
        self._made += 1
        return b"number %d" % self._made

    def _base(self, megabytes: float, extension: str) -> bytes:
        if (megabytes, extension) not in self._bases:
            wanted = megabytes * MEGABYTE
            sample = self._photograph(1000, extension)
            width = 1000 * (wanted / len(sample)) ** 0.5
            found = self._photograph(round(width), extension)
            assert 0.6 * wanted < len(found) < 1.6 * wanted, f"{len(found)} bytes instead of {wanted:.0f}"
            self._bases[megabytes, extension] = found
        return self._bases[megabytes, extension]

    def _photograph(self, width: int, extension: str) -> bytes:
        height = width * self._bee.shape[0] // self._bee.shape[1]
        large = cv2.resize(self._bee, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = self._rng.integers(0, 16, large.shape, dtype=np.uint8)
        return bytes(cv2.imencode(extension, cv2.add(large, noise))[1])


class Uploads(Promise):
    """A running watcher, and the pictures that clients of all kinds put into its inbox.

    The inbox may be written to by others all the time, so nothing is checked before `finish`, but that no other files
    than results come into the outbox.
    """

    def __init__(self, site: Site, *, start: bool = True) -> None:
        super().__init__(site)
        self.preallocated: set[str] = set()  # pictures that have their full size from the first moment
        self._belongings: set[str] = set()
        self.running: Running | None = site.start() if start else None

    def start(self) -> Running:
        self.running = self.site.start()
        return self.running

    def log(self) -> str:
        assert self.running is not None
        return self.running.log()

    def expect(self, name: str, data: bytes) -> bytes:
        """A client is going to bring this picture, once."""
        assert name not in self.originals, "one picture a name: the checks count"
        self.originals[name] = data
        return data

    def leave_alone(self, name: str) -> None:
        """From now on this file of the inbox, or all below this folder, has to stay as it is."""
        path = self.site.inbox / name
        self._belongings.add(name)
        if path.is_dir():
            self._foreign.update({below: below.read_bytes() for below in path.rglob("*") if below.is_file()})
        else:
            self._foreign[path] = path.read_bytes()

    def size_so_far(self, name: str) -> int:
        """Of the largest file in the inbox that goes by this name, or by a temporary one made of it."""
        stem = Path(name).name
        sizes = [0]
        for path in below(self.site.inbox):
            try:
                if stem in path.name:
                    sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        return max(sizes)

    def wait_for_part(self, name: str, client: Program | None = None) -> None:
        """Until a good part of a picture has come, and not all of it; one that takes its room at once has come."""
        whole = len(self.originals[name])
        failed = client.failed if client is not None else lambda: False
        size = wait_until(lambda: self._at_least(name, whole // 4) or failed(), f"a part of {name}")
        assert client is None or not failed(), client.log()
        assert size < whole or name in self.preallocated, f"{name} came at once: this says nothing"

    def wait_for_doubts(self, name: str) -> None:
        """Until the watcher has tried the part that a killed client left, and decided to wait for more."""
        wait_until(lambda: f"{name} cannot be decoded" in self.log(), f"the part of {name} to be tried")

    def wait_archived(self, *names: str) -> None:
        wait_until(lambda: set(names) <= self.site.names(self.site.archive), f"{names} to be archived")

    def expect_sentinel(self, data: bytes, name: str = "sentinel.png") -> None:
        """Drop a picture and wait for its delivery: all that was there before it has been looked at by then."""
        self.drop(name, data)
        self.wait_archived(name)

    def stall(self, clients: dict[str, Program], data: bytes) -> None:
        """Stop the clients when a part of each one's picture has come, until the watcher has delivered another one.

        That is many times settle_seconds, however quick or slow this machine is. Then let them go on to their end.
        """
        for name, client in clients.items():
            self.wait_for_part(name, client)
            client.pause()
        self.expect_sentinel(data)
        assert self.site.names(self.site.archive) == {"sentinel.png"}, "a part of a picture was taken"
        for client in clients.values():
            client.resume()
        for client in clients.values():
            client.wait()

    def finish(self, *, interrupted: frozenset[str] | set[str] = frozenset()) -> None:
        """Every picture has come whole, exactly once, under its own name, and nothing else was ever in work.

        Args:
            interrupted: pictures of which a part lay under the final name while its client was dead. Only these may
                have been tried with other content, and none of that was delivered.
        """
        self.wait_archived(*self.originals)
        assert self.running is not None
        assert self.running.stop() == 0
        self.check_end()
        site = self.site
        assert site.files(site.archive) == self.originals, "archived under their own names, byte for byte"
        assert site.names(site.outbox) == set(self.originals)
        wanted = {name: sha256(data) for name, data in self.originals.items()}
        tried: dict[str, list[tuple[str, str]]] = {}
        for path, content, state in site.query("SELECT path, sha256, state FROM pictures"):
            tried.setdefault(os.fsdecode(path), []).append((content, state))
        assert tried.keys() == wanted.keys(), "something else was taken for a picture"
        for name, rows in tried.items():
            states = [state for content, state in rows if content == wanted[name]]
            assert states.count("done") == 1
            others = [state for content, state in rows if content != wanted[name]]
            assert not others or name in interrupted, f"{name} was in work with other content: {rows}"
            assert set(others) <= {"withdrawn"}, f"a part of {name} was delivered or failed: {rows}"
        if not interrupted:
            assert "cannot be decoded" not in self.log(), "a part of a picture came to the engine"
        assert " failed: " not in self.log()

    def _at_least(self, name: str, size: int) -> int:
        found = self.size_so_far(name)
        return found if found >= size else 0

    def _hidden(self) -> list[str]:
        """Beyond what belongs to a client, such as Syncthing's marker."""
        own = [self.site.inbox / name for name in self._belongings]
        return [path for path in super()._hidden() if not any(Path(path).is_relative_to(name) for name in own)]


def write_slowly(path: Path, data: bytes, seconds: float, pause: float = PAUSE_SECONDS) -> None:
    """Write in pieces, with pauses that are longer than settle_seconds, and one open file all the time."""
    pieces = max(2, round(seconds / pause) + 1)
    step = -(-len(data) // pieces)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                time.sleep(pause)
            view = memoryview(data)[start : start + step]
            while view:
                view = view[file.write(view) :]


@contextmanager
def slow_source(path: Path, data: bytes, seconds: float) -> Iterator[Path]:
    """A FIFO that a picture comes out of slowly, for programs that copy from anywhere.

    The reader may go away half-way, as a killed client does.
    """
    os.mkfifo(path)

    def write() -> None:
        with suppress(BrokenPipeError):
            write_slowly(path, data, seconds)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    yield path
    writer.join(seconds + 30)
    assert not writer.is_alive()
    path.unlink()
