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
PLANAR_CONFIGURATION = 284
STRIP_BYTE_COUNTS = 279
TILE_OFFSETS = 324
TILE_BYTE_COUNTS = 325
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339
XMP = 700
ICC_PROFILE = 34675
DNG_VERSION = 50706

# What a TIFF's page says of the picture rather than of its samples: the tags that EXIF has in its main part.
DESCRIPTIVE = frozenset((270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, *range(40091, 40096), 33432))
_SUB_DIRECTORIES = {34665: "EXIF", 34853: "GPS", 40965: "interoperability"}

_MAX_ENTRIES = 4096
_MAX_DIRECTORIES = 500
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes a value, by type
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
        position: its own.
        entries: by tag.
        next: position of the next directory; 0 ends the chain.
    """

    position: int
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
            width = _SIZES.get(kind, 8)
            here = start + (index + 1) * size - inline
            entries.setdefault(tag, Entry(kind, values, here if width * values <= inline else offset))
        (following,) = self._unpack(link, start + count * size)
        return Directory(position, entries, following)

    def directories(self) -> Iterator[Directory]:
        """The chain of directories.

        Raises:
            TagError: one of them is cut off or nonsense, the chain bites its own tail, or it is longer than 500.
        """
        seen: set[int] = set()
        position = self.first
        while position:
            if position in seen or len(seen) == _MAX_DIRECTORIES:
                raise TagError("its pages go round in a circle, or are more than 500")
            seen.add(position)
            found = self.directory(position)
            yield found
            position = found.next

    def pages(self) -> list[Directory]:
        """The directories that are pictures of their own: the first, and all others but smaller copies.

        Raises:
            TagError: there is none, or as `directories`.
        """
        found = list(self.directories())
        if not found:
            raise TagError("it has no page")
        return found[:1] + [page for page in found[1:] if not self.integer(page, NEW_SUBFILE_TYPE, 0) & 1]

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

    def holds(self, entry: Entry) -> bool:
        """Whether the values lie inside the file, as far as their type is known."""
        return entry.position + _SIZES.get(entry.type, 0) * entry.count <= self._size

    def raw(self, entry: Entry, limit: int) -> bytes:
        """The values of any type, in the file's own byte order.

        Raises:
            TagError: more bytes than `limit`, or cut off.
        """
        size = _SIZES.get(entry.type, 8) * entry.count
        if size > limit:
            raise TagError(f"a tag holds {size} bytes")
        return self._read(entry.position, size)

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


def orientation_of(reader: TagReader, page: Directory) -> int | None:
    """EXIF's orientation, 1 .. 8, nonsense as 1; None where it is not told.

    Raises:
        TagError: as `TagReader.integers`.
    """
    told = reader.integers(page, ORIENTATION)
    return (told[0] if 1 <= told[0] <= 8 else 1) if told else None


def exif_of(reader: TagReader, page: Directory, limit: int) -> bytes:
    """What describes the picture of a TIFF's page, as an EXIF block of the same byte order; empty if nothing does.

    Offsets inside makers' notes lead nowhere afterwards, as with all programs that move EXIF. Tags that are damaged
    are left out.

    Args:
        reader: of the TIFF.
        page: which.
        limit: the most bytes to accept.
    """
    start = {"<": b"II*\0\x08\0\0\0", ">": b"MM\0*\0\0\0\x08"}[reader.order]
    wanted = {tag: entry for tag, entry in page.entries.items() if tag in DESCRIPTIVE or tag in _SUB_DIRECTORIES}
    table = _table(reader, wanted, len(start), limit)
    return start + table if table and len(table) < limit else b""


def _table(reader: TagReader, entries: dict[int, Entry], position: int, limit: int, depth: int = 0) -> bytes:
    """A directory that will lie at `position`, and behind it what its entries refer to; empty without any entry."""
    values: dict[int, tuple[int, int, bytes]] = {}
    inner: dict[int, Directory] = {}
    left = limit  # all together: many tags may claim the same bytes
    for tag, entry in sorted(entries.items()):
        try:
            if tag in _SUB_DIRECTORIES:
                if depth < 2:
                    inner[tag] = reader.directory(reader.integers(Directory(0, entries, 0), tag, limit=1)[0])
                    values[tag] = (4, 1, b"")
            elif entry.type in _SIZES:
                values[tag] = (entry.type, entry.count, reader.raw(entry, left))
                left -= len(values[tag][2])
        except (TagError, IndexError):
            continue
    if not values:
        return b""
    rows, behind = b"", b""
    start = position + 2 + 12 * len(values) + 4
    for tag, (kind, count, value) in values.items():
        stored, part = value, b""
        if tag in inner:
            part = _table(reader, inner[tag].entries, start + len(behind), limit, depth + 1)
            stored = struct.pack(reader.order + "I", start + len(behind))
            if not part:  # nothing in it was sound: an empty directory is none
                part = struct.pack(reader.order + "HI", 0, 0)
        elif len(value) > 4:
            stored, part = struct.pack(reader.order + "I", start + len(behind)), value
        rows += struct.pack(reader.order + "HHI", tag, kind, count) + stored.ljust(4, b"\0")
        behind += part + bytes(len(part) % 2)
        if len(behind) > limit:
            return b""
    return struct.pack(reader.order + "H", len(values)) + rows + bytes(4) + behind
