"""TIFF's tag directories, which TIFF files and the EXIF blocks of all other kinds share.

Light (no numpy, no cv2) and safe with hostile input: every read and every loop is bounded.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

WIDTH = 256
HEIGHT = 257
NEW_SUBFILE_TYPE = 254
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
ORIENTATION = 274
SAMPLES_PER_PIXEL = 277
STRIP_BYTE_COUNTS = 279
TILE_OFFSETS = 324
TILE_BYTE_COUNTS = 325
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339
ICC_PROFILE = 34675
DNG_VERSION = 50706

_MAX_ENTRIES = 4096
_MAX_DIRECTORIES = 64
# Integer types of TIFF: code -> struct letter. Others (text, rationals, floats) are not needed here.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}


class TagError(Exception):
    """Not a TIFF structure, cut off, or nonsense; the text says which."""


class Entry(msgspec.Struct, frozen=True):
    """One tag of a directory.

    Attributes:
        type: TIFF's code of the type of a value.
        count: number of values.
        position: where the values are, in bytes from the start of the file.
    """

    type: int
    count: int
    position: int


class Directory(msgspec.Struct, frozen=True):
    """One directory: a page of a TIFF file, or an EXIF block's main part.

    Attributes:
        entries: by tag.
        next: position of the next directory; 0 ends the chain.
    """

    entries: dict[int, Entry]
    next: int


class TagReader:
    """Reads directories from a file, or from `io.BytesIO` around an EXIF block.

    Attributes:
        order: "<" or ">", as in `struct`.
        big: whether it is a BigTIFF.
        first: position of the first directory.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the 8 or 16 bytes in front.

        Raises:
            TagError: it is no TIFF structure.
        """
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        start = self._read(0, 4)
        orders = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
        if start not in orders:
            raise TagError("it does not begin as a TIFF does")
        self.order, self.big = orders[start]
        if self.big:
            width, zero, self.first = self._unpack("HHQ", 4)
            if (width, zero) != (8, 0):
                raise TagError("its BigTIFF header is nonsense")
        else:
            (self.first,) = self._unpack("I", 4)

    def directory(self, position: int) -> Directory:
        """The directory at `position`.

        Raises:
            TagError: it is cut off or nonsense.
        """
        counter, entry, link = ("Q", "HHQQ", "Q") if self.big else ("H", "HHII", "I")
        (count,) = self._unpack(counter, position)
        if not 0 < count <= _MAX_ENTRIES:
            raise TagError(f"a directory claims {count} entries")
        start = position + struct.calcsize("=" + counter)
        size = struct.calcsize("=" + entry)
        inline = 8 if self.big else 4
        table = self._read(start, count * size)
        entries: dict[int, Entry] = {}
        for index, (tag, kind, values, offset) in enumerate(struct.iter_unpack(self.order + entry, table)):
            width = struct.calcsize("=" + _INTEGERS[kind]) if kind in _INTEGERS else 0
            here = start + (index + 1) * size - inline
            entries.setdefault(tag, Entry(kind, values, here if width * values <= inline else offset))
        (following,) = self._unpack(link, start + count * size)
        return Directory(entries, following)

    def directories(self) -> Iterator[Directory]:
        """The chain of directories, cut after 64 because a chain may bite its own tail.

        Raises:
            TagError: one of them is cut off or nonsense.
        """
        position = self.first
        for _ in range(_MAX_DIRECTORIES):
            if not position:
                return
            found = self.directory(position)
            yield found
            position = found.next

    def integers(self, directory: Directory, tag: int, *, limit: int = 64) -> tuple[int, ...]:
        """The values of a tag; empty where the directory lacks it.

        Args:
            directory: where to look.
            tag: which.
            limit: the most values to accept.

        Raises:
            TagError: more values than that, values cut off, or values that are no integers.
        """
        entry = directory.entries.get(tag)
        if entry is None:
            return ()
        if entry.type not in _INTEGERS or entry.count > limit:
            raise TagError(f"tag {tag} holds {entry.count} values of type {entry.type}")
        return self._unpack(f"{entry.count}{_INTEGERS[entry.type]}", entry.position)

    def integer(self, directory: Directory, tag: int, default: int) -> int:
        """The first value of a tag, or `default` where the directory lacks it.

        Raises:
            TagError: as `integers`.
        """
        values = self.integers(directory, tag)
        return values[0] if values else default

    def _unpack(self, layout: str, position: int) -> tuple[int, ...]:
        layout = self.order + layout
        return struct.unpack(layout, self._read(position, struct.calcsize(layout)))

    def _read(self, position: int, size: int) -> bytes:
        # Asked beforehand: seeking to a nonsensical position is an OSError on some filesystems.
        if position + size > self._size:
            raise TagError("it is cut off")
        self._file.seek(position)
        found = self._file.read(size)
        if len(found) != size:
            raise TagError("it shrank while it was read")
        return found


def with_tags(data: bytes, added: dict[int, tuple[int, bytes]]) -> bytes:
    """A copy of a one-page, little-endian classic TIFF with more tags: a new directory at its end replaces the old.

    Args:
        data: the file, as OpenCV writes it.
        added: by tag, the type (one of one byte a value, or SHORT) and the values as bytes.

    Raises:
        struct.error: the result is beyond the 4 GiB that a classic TIFF can address.
    """
    (old,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, old)
    entries = {
        struct.unpack_from("<H", data, at)[0]: data[at : at + 12] for at in range(old + 2, old + 2 + 12 * count, 12)
    }
    body = bytearray(data)
    for tag, (kind, value) in added.items():
        stored = value.ljust(4, b"\0")
        if len(value) > 4:
            body += bytes(len(body) % 2)
            stored = struct.pack("<I", len(body))
            body += value
        entries[tag] = struct.pack("<HHI", tag, kind, len(value) // (2 if kind == 3 else 1)) + stored
    body += bytes(len(body) % 2)
    struct.pack_into("<I", body, 4, len(body))
    # The format demands ascending tags; some readers stop searching where that order breaks.
    table = b"".join(entries[tag] for tag in sorted(entries))
    return bytes(body + struct.pack("<H", len(entries)) + table + bytes(4))
