"""The nested boxes of AVIF, HEIC and JPEG 2000 files, and what those of the first two say of their picture.

Light (no numpy, no cv2) and safe with hostile input: every read and every loop is bounded.
"""

import os
import struct
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

import msgspec

from sr_engine.formats.cicp import Codes

_MAX_BOXES = 2000  # of the first level
_MAX_INNER_BOXES = 10_000  # in one box; the largest photographs are put together from hundreds of tiles
MAX_BODY_BYTES = 4 << 20  # of a box that is read as a whole; colour profiles lie in them
_MAX_EXTENTS = 100_000  # of all items, and links between them
# What the tiles of a grid, and its alpha, may have beyond the picture's own pixels: they are decoded whole.
_MOST_SURPLUS = 8
_SPARE_PIXELS = 1 << 22
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")


class BoxError(Exception):
    """Boxes that are cut off or nonsense; the text says which."""


class Box(NamedTuple):
    """One box of a file.

    Attributes:
        name: four bytes.
        start, end: of its body, in bytes from the start of the file; the end may lie beyond the file's.
    """

    name: bytes
    start: int
    end: int


class Item(msgspec.Struct):
    """One item (a picture, a tile, metadata) of an AVIF or HEIC file.

    Attributes:
        type: four bytes, b"av01", b"hvc1", b"grid", b"Exif", b"mime" ...
        content_type: of a b"mime" item.
        extents: where its bytes are: offset and length; a length of 0 runs to the end of the file.
        properties: name and body, in the order in which they apply.
    """

    type: bytes = b""
    content_type: bytes = b""
    extents: list[tuple[int, int]] = []
    properties: list[tuple[bytes, bytes]] = []

    def find(self, name: bytes) -> bytes | None:
        """The body of its first property of that name."""
        return next((body for found, body in self.properties if found == name), None)


class Still(msgspec.Struct, kw_only=True):
    """The primary picture of an AVIF or HEIC file.

    Attributes:
        codec: b"av01", b"hvc1", or another that is not handled.
        width, height: before rotation.
        orientation: 1 .. 8 as in EXIF, from the properties that rotate and mirror.
        codes: of its colours, see `sr_engine.formats.cicp`; None where it has none.
        limited: whether its samples are said to use the range of video, 16 .. 235 of 255.
        items: all of the file, by id.
        about: ids of the items that describe the primary picture.
        moving: whether the file holds a film besides.
    """

    codec: bytes
    width: int
    height: int
    bits: int
    grey: bool
    alpha: bool
    orientation: int
    icc: bytes
    codes: Codes | None
    limited: bool
    items: dict[int, Item]
    about: list[int]
    moving: bool


def outer_boxes(file: BinaryIO) -> Iterator[Box]:
    """The boxes of the file's first level.

    Raises:
        BoxError: one claims a size that no box has, or there are too many.
    """
    size = file.seek(0, os.SEEK_END)
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > size:
            return
        file.seek(position)
        box = _box(file.read(16), 0, position, size)
        yield box
        position = box.end
    raise BoxError("it has too many boxes")


def inner_boxes(data: bytes | memoryview, start: int, end: int) -> Iterator[Box]:
    """The boxes in a part of `data`; their positions count from its start.

    Raises:
        BoxError: one claims a size that no box has, or is larger than what is around it, or there are too many.
    """
    for _ in range(_MAX_INNER_BOXES):
        if start + 8 > end:
            return
        box = _box(data, start, start, end)
        if box.end > end:
            raise BoxError("a box is larger than the one around it")
        yield box
        start = box.end
    raise BoxError("it has too many boxes")


def body_of(file: BinaryIO, box: Box) -> bytes:
    """The whole body of a box.

    Raises:
        BoxError: it is cut off, or larger than any that is needed.
    """
    size = box.end - box.start
    if size > MAX_BODY_BYTES:
        raise BoxError(f"its {box.name.decode('latin-1')} box claims {size} bytes")
    file.seek(box.start)
    body = file.read(size)
    if len(body) != size:
        raise BoxError("it is cut off")
    return body


def read_brands(file: BinaryIO) -> list[bytes]:
    """What the file says that it is, the most important first; empty where it says nothing."""
    file.seek(0)
    start = file.read(256)
    if start[4:8] != b"ftyp":
        return []
    body = start[8 : int.from_bytes(start[:4])]
    return [body[at : at + 4] for at in (0, *range(8, len(body) - 3, 4))]


def read_still(file: BinaryIO) -> Still:
    """Find an AVIF's or HEIC's primary picture.

    Raises:
        BoxError: there is none, or the boxes are cut off or nonsense.
    """
    names = set()
    meta = None
    for box in outer_boxes(file):
        names.add(box.name)
        if box.name == b"meta" and meta is None:
            meta = box
    if meta is None:
        raise BoxError("it has no meta box")
    try:
        return _still(body_of(file, meta), meta.start, moving=b"moov" in names)
    except (struct.error, IndexError, ValueError) as error:
        raise BoxError("its meta box is nonsense") from error


def _still(meta: bytes, offset: int, *, moving: bool) -> Still:
    parts = {box.name: box for box in reversed(list(inner_boxes(meta, 4, len(meta))))}
    for name in (b"pitm", b"iinf", b"iloc", b"iprp"):
        if name not in parts:
            raise BoxError(f"its {name.decode()} box is missing")
    primary = _number(meta, parts[b"pitm"].start + 4, 4 if meta[parts[b"pitm"].start] else 2)
    items = _items(meta, parts[b"iinf"])
    idat = offset + parts[b"idat"].start if b"idat" in parts else 0
    _locate(meta, parts[b"iloc"], items, idat)
    _describe(meta, parts[b"iprp"], items)
    links = _links(meta, parts[b"iref"]) if b"iref" in parts else []
    if primary not in items:
        raise BoxError("its primary picture is missing")
    picture = items[primary]
    tiles = [items[to] for name, of, to in links if name == b"dimg" and of == primary and to in items]
    coded = picture if picture.type in (b"av01", b"hvc1") or not tiles else tiles[0]
    sides = picture.find(b"ispe")
    if sides is None:
        raise BoxError("its primary picture has no sides")
    width, height = struct.unpack_from(">II", sides, 4)
    alphas = [
        of
        for name, of, to in links
        if name == b"auxl" and to == primary and (items.get(of, Item()).find(b"auxC") or b"")[4:].startswith(_ALPHA)
    ]
    decoded = {to for name, of, to in links if name == b"dimg" and of in (primary, *alphas)}
    if _area(items, {*decoded, *alphas}) > _MOST_SURPLUS * width * height + _SPARE_PIXELS:
        raise BoxError("its parts are far larger than its picture")
    cut = picture.find(b"clap")
    if cut is not None and coded.type == b"hvc1":  # libheif cuts, libavif does not
        across, across_parts, down, down_parts = struct.unpack_from(">4I", cut)
        width, height = across // max(1, across_parts), down // max(1, down_parts)
    profiles = [body[4:] for name, body in picture.properties if name == b"colr" and body[:4] in (b"prof", b"rICC")]
    bits, grey = _depth(picture, coded)
    return Still(
        codec=coded.type,
        width=width,
        height=height,
        bits=bits,
        grey=grey,
        alpha=bool(alphas),
        orientation=_orientation(picture),
        icc=profiles[0] if profiles else b"",
        codes=_codes(picture) or _codes(coded),
        limited=(_nclx(picture) or _nclx(coded) or b"\x80")[-1] & 0x80 == 0,
        items=items,
        about=[of for name, of, to in links if name == b"cdsc" and to == primary],
        moving=moving,
    )


def _items(meta: bytes, box: Box) -> dict[int, Item]:
    items = {}
    for entry in inner_boxes(meta, box.start + (8 if meta[box.start] else 6), box.end):
        version = meta[entry.start]
        if entry.name == b"infe" and version in (2, 3):
            wide = 4 if version == 3 else 2
            at = entry.start + 4 + wide + 2
            text = meta[at + 4 : entry.end].split(b"\0")
            items[_number(meta, entry.start + 4, wide)] = Item(meta[at : at + 4], text[1] if len(text) > 1 else b"")
    return items


def _locate(meta: bytes, box: Box, items: dict[int, Item], idat: int) -> None:
    version = meta[box.start]
    sizes = _number(meta, box.start + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    at = box.start + 6
    left, at = _MAX_EXTENTS, at + wide
    for _ in range(_number(meta, at - wide, wide)):
        item = items.get(_number(meta, at, wide), Item())
        method = _number(meta, at + wide, 2) & 15 if version else 0
        at += wide + (4 if version else 2)
        base = _number(meta, at, base_size) + (idat if method == 1 else 0)
        count = _number(meta, at + base_size, 2)
        at += base_size + 2
        left -= count
        if left < 0:
            raise BoxError("its items are in too many pieces")
        for _ in range(count):
            at += index_size
            found = base + _number(meta, at, offset_size), _number(meta, at + offset_size, length_size)
            at += offset_size + length_size
            if method in (0, 1):
                item.extents.append(found)


def _describe(meta: bytes, box: Box, items: dict[int, Item]) -> None:
    inner = list(inner_boxes(meta, box.start, box.end))
    stored = [
        (entry.name, meta[entry.start : entry.end])
        for part in inner
        if part.name == b"ipco"
        for entry in inner_boxes(meta, part.start, part.end)
    ]
    for part in inner:
        if part.name != b"ipma":
            continue
        wide, broad = 4 if meta[part.start] else 2, 2 if meta[part.start + 3] & 1 else 1
        at = part.start + 8
        for _ in range(_number(meta, part.start + 4, 4)):
            item, count = items.get(_number(meta, at, wide), Item()), _number(meta, at + wide, 1)
            at += wide + 1
            for _ in range(count):
                index = _number(meta, at, broad) & (0x7FFF if broad == 2 else 0x7F)
                at += broad
                if 0 < index <= len(stored):
                    item.properties.append(stored[index - 1])


def _links(meta: bytes, box: Box) -> list[tuple[bytes, int, int]]:
    wide = 4 if meta[box.start] else 2
    links = (
        (entry.name, _number(meta, entry.start, wide), _number(meta, at, wide))
        for entry in inner_boxes(meta, box.start + 4, box.end)
        for at in range(entry.start + wide + 2, entry.end - wide + 1, wide)
    )
    return list(islice(links, _MAX_EXTENTS))


def _depth(picture: Item, coded: Item) -> tuple[int, bool]:
    """Bits per sample, and whether there is brightness only."""
    av1, hevc = coded.find(b"av1C"), coded.find(b"hvcC")
    if av1 is not None:
        return 8 + 2 * (av1[2] >> 6 & 1) + 2 * (av1[2] >> 5 & 1), bool(av1[2] & 0x10)
    if hevc is not None:
        return 8 + (hevc[17] & 7), not hevc[16] & 3
    each = picture.find(b"pixi")
    return (max(each[5:], default=8), each[4] == 1) if each else (8, False)


def _area(items: dict[int, Item], numbers: set[int]) -> int:
    """Pixels of these items together."""
    found = (items[number].find(b"ispe") for number in numbers if number in items)
    return sum(int.from_bytes(sides[4:8]) * int.from_bytes(sides[8:12]) for sides in found if sides)


def _codes(item: Item) -> Codes | None:
    if not (body := _nclx(item)):
        return None
    primaries, transfer = struct.unpack_from(">HH", body, 4)
    return primaries, transfer


def _nclx(item: Item) -> bytes:
    """The property that says what its numbers mean, the range in the last of its 11 bytes; empty without any."""
    return next((body[:11] for name, body in item.properties if name == b"colr" and body[:4] == b"nclx"), b"")


def _orientation(picture: Item) -> int:
    """The properties that turn and mirror, in their order, as EXIF's number: a transposition, then mirrorings."""
    swapped = across = down = False
    for name, body in picture.properties:
        if name == b"irot":
            for _ in range(body[0] & 3):  # a quarter anticlockwise: transposed, then upside down
                swapped, across, down = not swapped, down, not across
        elif name == b"imir":
            across, down = (not across, down) if body[0] & 1 else (across, not down)
    upright = {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}
    lying = {(False, False): 5, (True, False): 6, (True, True): 7, (False, True): 8}
    return (lying if swapped else upright)[across, down]


def _box(data: bytes | memoryview, at: int, position: int, end: int) -> Box:
    """The box whose 8 or 16 bytes in front are at `data[at:]`, and at `position` of the file."""
    size, name = _number(data, at, 4), bytes(data[at + 4 : at + 8])
    front = 8
    if size == 1:
        size, front = _number(data, at + 8, 8), 16
    elif size == 0:
        size = end - position
    if size < front:
        raise BoxError("a box claims to be smaller than its own name")
    return Box(name, position + front, position + size)


def _number(data: bytes | memoryview, at: int, size: int) -> int:
    found = data[at : at + size]
    if len(found) != size:
        raise BoxError("it is cut off")
    return int.from_bytes(found)
