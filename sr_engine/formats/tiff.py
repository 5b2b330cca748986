"""TIFF's directories as bytes: taken apart, carried to another place or byte order, put together again.

`sr_engine.formats.tags` reads single values of whole files; here everything in a directory is moved, whatever it means.
"""

import array
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, Union

from sr_engine.pictures import Metadata

Buffer: TypeAlias = bytes | bytearray | memoryview

EXIF_DIRECTORY = 0x8769
GPS_DIRECTORY = 0x8825
INTEROP_DIRECTORY = 0xA005
DIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)

_MOST_ENTRIES = 4096
_STRIP_OFFSETS = 273
_XMP, _ICC = 700, 34675
# What tells readers how to understand samples, and would be wrong of those of another file.
_OF_SAMPLES = {
    *range(254, 267),
    273,
    *range(277, 282),
    284,
    *range(288, 294),
    301,
    *range(317, 348),
    *range(512, 522),
    *range(529, 533),
    559,
    33421,
    33422,
    34377,
    37724,
}
_USER_COMMENT, _SIXTEEN_BITS = 0x9286, b"UNICODE\0"
_RAW = 50706  # the first of the tags of raw photographs
# Bytes of a value by TIFF's code of its type, and the letter of what has to be turned round with the byte order.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_UNITS = {3: "H", 8: "H", 4: "I", 5: "I", 9: "I", 10: "I", 11: "I", 13: "I", 12: "Q"}


class Entry(NamedTuple):
    """One tag in a block.

    Attributes:
        tag, type: TIFF's codes.
        at: position of the entry's twelve bytes.
        start, end: where the values are.
    """

    tag: int
    type: int
    at: int
    start: int
    end: int


class Value(NamedTuple):
    """The values of one tag, little-endian.

    Attributes:
        type: TIFF's code.
        data: all values.
    """

    type: int
    data: bytes


Tags: TypeAlias = dict[int, Union[Value, "Tags"]]


def order_of(block: Buffer) -> str:
    """`struct`'s letter for the byte order of a TIFF structure.

    Raises:
        ValueError: it is none, or a BigTIFF.
    """
    found = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if found is None:
        raise ValueError("no TIFF structure")
    return found


def entries(block: Buffer, order: str, at: int) -> tuple[list[Entry], int]:
    """What is sound in the directory at `at`, and the position of the directory that follows.

    Entries of unknown types, those whose values are not within the block, and second ones of one tag are left out.

    Raises:
        struct.error: the directory is not within the block, or absurdly long.
    """
    (count,) = struct.unpack_from(order + "H", block, at)
    (following,) = struct.unpack_from(order + "I", block, at + 2 + 12 * count)
    if count > _MOST_ENTRIES:
        raise struct.error("an absurd directory")
    found: dict[int, Entry] = {}
    room = len(block)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", block, place)
        size = _SIZES.get(kind, 0) * values
        start = place + 8 if size <= 4 else struct.unpack_from(order + "I", block, place + 8)[0]
        # Values that share their bytes, as in no sound file, could make a small block enormous once they are parted.
        if size and start + size <= len(block) and size <= room and tag not in found:
            room -= size
            found[tag] = Entry(tag, kind, place, start, start + size)
    return list(found.values()), following


def read(block: Buffer, order: str, at: int, *, nested: Sequence[int] = ()) -> Tags:
    """The tags of the directory at `at`.

    Args:
        block: a TIFF structure.
        order: its byte order, as in `struct`.
        at: position of the directory.
        nested: tags whose value is the position of a further directory, to be read as well.

    Raises:
        struct.error: the directory is not within the block; nested ones that are not are left out.
    """
    found: Tags = {}
    for entry in entries(block, order, at)[0]:
        data = bytes(block[entry.start : entry.end])
        if entry.tag in nested and len(data) == 4:
            try:
                (inner,) = struct.unpack(order + "I", data)
                # A directory is nested in itself in no sound file, and endlessly in a hostile one.
                found[entry.tag] = read(block, order, inner, nested=[tag for tag in nested if tag != entry.tag])
            except struct.error:
                continue
        else:
            found.setdefault(entry.tag, Value(entry.type, data if order == "<" else _turned(entry, data)))
    return found


def write(tags: Mapping[int, "Value | Tags"], at: int) -> bytearray:
    """A little-endian directory for position `at`, its values and nested directories behind it; none follows.

    Raises:
        struct.error: it reaches beyond the 4 GiB that a classic TIFF can address.
    """
    table = bytearray(struct.pack("<H", len(tags)))
    behind = at + 2 + 12 * len(tags) + 4
    blob = bytearray()
    # The format demands ascending tags; some readers stop searching where that order breaks.
    for tag, value in sorted(tags.items()):
        if isinstance(value, dict):
            table += struct.pack("<HHII", tag, 4, 1, behind + len(blob))
            blob += write(value, behind + len(blob))
            continue
        table += struct.pack("<HHI", tag, value.type, len(value.data) // _SIZES[value.type])
        if len(value.data) <= 4:
            table += value.data.ljust(4, b"\0")
        else:
            table += struct.pack("<I", behind + len(blob))
            blob += value.data + bytes(len(value.data) % 2)
    return table + bytes(4) + blob


def block_of(tags: Mapping[int, "Value | Tags"]) -> bytes:
    """An EXIF block of one directory and those nested in it."""
    return b"II*\0" + struct.pack("<I", 8) + write(tags, 8)


def described(metadata: Metadata) -> Tags:
    """The tags that carry metadata in a page of a TIFF file."""
    found: Tags = {}
    if metadata.exif:
        order = order_of(metadata.exif)
        (first,) = struct.unpack_from(order + "I", metadata.exif, 4)
        tags = read(metadata.exif, order, first, nested=DIRECTORIES)
        found = {tag: value for tag, value in tags.items() if tag not in _OF_SAMPLES and tag < _RAW}
    if metadata.xmp:
        found[_XMP] = Value(1, metadata.xmp)
    if metadata.icc:
        found[_ICC] = Value(7, metadata.icc)
    return found


def joined(pages: Sequence[tuple[Buffer, Tags]]) -> bytes:
    """One file of several, with more tags.

    Args:
        pages: little-endian classic TIFFs of one page in strips, as OpenCV writes them, and the tags to set in each.

    Raises:
        struct.error: the result is beyond the 4 GiB that a classic TIFF can address.
    """
    parts: list[Buffer] = [b""]
    directories = []
    at = 8
    for data, added in pages:
        view = memoryview(data)
        page = read(view, "<", struct.unpack_from("<I", view, 4)[0])
        strips = page[_STRIP_OFFSETS]
        assert isinstance(strips, Value)
        layout = f"<{len(strips.data) // _SIZES[strips.type]}{_UNITS[strips.type]}"
        moved = struct.pack(layout, *(offset + at - 8 for offset in struct.unpack(layout, strips.data)))
        directories.append(page | {_STRIP_OFFSETS: Value(strips.type, moved)} | added)
        parts += [view[8:], bytes(len(view) % 2)]
        at += len(view) - 8 + len(view) % 2
    parts[0] = b"II*\0" + struct.pack("<I", at)
    for number, page in enumerate(directories, 1):
        packed = write(page, at)
        at += len(packed)
        if number < len(directories):
            struct.pack_into("<I", packed, 2 + 12 * len(page), at)
        parts.append(packed)
    return b"".join(parts)


def _turned(entry: Entry, data: bytes) -> bytes:
    if entry.tag == _USER_COMMENT and data.startswith(_SIXTEEN_BITS):
        # Its type says bytes, but the text has the byte order of the block.
        start, unit = len(_SIXTEEN_BITS), "H"
    elif entry.type in _UNITS:
        start, unit = 0, _UNITS[entry.type]
    else:
        return data
    end = len(data) - (len(data) - start) % struct.calcsize(unit)
    numbers = array.array(unit, data[start:end])
    numbers.byteswap()
    return data[:start] + numbers.tobytes() + data[end:]
