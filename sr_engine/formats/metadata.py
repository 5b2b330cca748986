"""What an original said of itself, made true of a result that is upright, larger and has no companions.

EXIF is corrected in place. Pillow and other libraries write it anew, which turns "©" and "ö" in texts into "?",
changes the types of values and moves makers' notes, whose inner positions count from the start of the block.
"""

import io
import itertools
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from sr_engine.formats import tags, tiff
from sr_engine.pictures import Metadata

MAKER_NOTE = 0x927C
# Of a JPEG, and of one without compression: where it is and its bytes.
_THUMBNAILS_AT = {513, 514, 273, 279}
# Tags that say where pixels are, or what is carried by other means: nothing of it holds in another file.
_NOT_CARRIED = {273, 279, 288, 289, 324, 325, 330, 513, 514, 519, 520, 521, 700, 34377, 34675}
# The subject's place and the sensor's pixels per length, told in pixels of the original, upright or not.
_NOT_CARRIED |= {0x9214, 0xA20E, 0xA20F, 0xA210, 0xA214}
_WIDTHS = {256, 0xA002, 0x1001}
_HEIGHTS = {257, 0xA003, 0x1002}

_MOST_XMP_BYTES = 4 << 20
_MOST_XMP_DEPTH = 100
_MOST_PROPERTIES = 4096
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_REGIONS = ("http://www.metadataworkinggroup.com/schemas/regions/", "Regions")
# Motion photos, depth and gain maps lie behind the picture or in its companions, none of which the result has.
_LOST = (
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/dd/",
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.adobe.com/xmp/note/",
    "http://ns.adobe.com/xap/1.0/g/img/",
)
_IN_PIXELS = ("SubjectArea", "SubjectLocation", "FocalPlane")
_THUMBNAILS = ("http://ns.adobe.com/xap/1.0/", "Thumbnails")


def corrected(metadata: Metadata, width: int, height: int) -> Metadata:
    """The metadata for an upright picture of `width` x `height` pixels.

    Orientation and sizes are corrected where they are told; thumbnails, and what speaks of further pictures in the
    original file, are left out. Of damaged EXIF the sound part stays, damaged XMP is dropped; neither is an error.
    """
    applied = _orientation(metadata.exif)
    return Metadata(
        icc=metadata.icc,
        exif=_corrected_exif(metadata.exif, width, height),
        xmp=_corrected_xmp(metadata.xmp, width, height, applied),
        cicp=metadata.cicp,
    )


def exif_within(exif: bytes, most: int) -> bytes:
    """EXIF of at most `most` bytes: where it is larger the maker's note goes first, then the largest values."""
    if len(exif) <= most:
        return exif
    order = tiff.order_of(exif)
    found = tiff.read(exif, order, struct.unpack_from(order + "I", exif, 4)[0], nested=tiff.DIRECTORIES)
    sizes: list[tuple[int, tiff.Tags, int]] = []
    directories = [found]
    for directory in directories:
        for tag, value in directory.items():
            if isinstance(value, dict):
                directories.append(value)
            else:
                sizes.append((most if tag == MAKER_NOTE else len(value.data), directory, tag))
    sizes.sort(key=lambda size: -size[0])
    excess = len(tiff.block_of(found)) - most
    for _, directory, tag in sizes:
        if excess <= 0:
            break
        gone = directory.pop(tag)
        excess -= 12 + (len(gone.data) if isinstance(gone, tiff.Value) and len(gone.data) > 4 else 0)
    return tiff.block_of(found)


def xmp_within(xmp: bytes, most: int) -> bytes:
    """XMP of at most `most` bytes: where it is larger its largest properties go first."""
    if len(xmp) <= most:
        return xmp
    root = _parsed(xmp)
    assert root is not None
    excess = len(xmp) - most
    for item in sorted(_properties(root), key=lambda item: -_length(item)):
        if excess <= 0:
            break
        excess -= _length(item)
        _remove(item)
    packed = _packet(root)
    return packed if len(packed) <= most else b""


def _orientation(exif: bytes) -> int | None:
    """As EXIF tells it, which decoding follows; None where it does not."""
    try:
        reader = tags.TagReader(io.BytesIO(exif))
        return tags.orientation_of(reader, reader.directory(reader.first))
    except tags.TagError:
        return None


class _Directory(NamedTuple):
    """One directory of an EXIF block: where it begins, its next one, and what of the block it needs."""

    at: int
    following: int
    used: list[tuple[int, int]]


def _corrected_exif(exif: bytes, width: int, height: int) -> bytes:
    block = bytearray(exif)
    try:
        order = tiff.order_of(block)
        (first,) = struct.unpack_from(order + "I", block, 4)
        main = _correct_directory(block, order, first, width, height, nested=tiff.DIRECTORIES)
    except (ValueError, struct.error):
        return b""
    if not main.used:
        return b""
    _wipe_thumbnail(block, order, main)
    used = max(end for _, end in main.used)
    return bytes(block[: max(used, len(block.rstrip(b"\0")))])


def _correct_directory(
    block: bytearray, order: str, at: int, width: int, height: int, *, nested: tuple[int, ...]
) -> _Directory:
    """Correct sizes and orientation in place, and close the gaps of what is damaged or not carried."""
    found, following = tiff.entries(block, order, at)
    (before,) = struct.unpack_from(order + "H", block, at)
    kept, used = [], []
    for entry in found:
        if entry.tag in _NOT_CARRIED:
            continue
        packed = bytes(block[entry.at : entry.at + 12])
        if entry.tag in nested:
            try:
                (inner,) = struct.unpack_from(order + "I", packed, 8)
                further = tuple(tag for tag in nested if tag != entry.tag)
                below = _correct_directory(block, order, inner, width, height, nested=further)
            except struct.error:
                continue
            if not below.used:
                continue
            used += below.used
        elif entry.tag in _WIDTHS | _HEIGHTS or entry.tag == tags.ORIENTATION:
            number = 1 if entry.tag == tags.ORIENTATION else width if entry.tag in _WIDTHS else height
            short = entry.type == 3 and number <= 0xFFFF
            packed = struct.pack(
                order + "HHIHH" if short else order + "HHII",
                entry.tag,
                3 if short else 4,
                1,
                number,
                *([0] if short else []),
            )
        else:
            used.append((entry.start, entry.end))
        kept.append(packed)
    if kept:
        used.append((at, at + 2 + 12 * len(kept) + 4))
    table = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    block[at : at + 2 + 12 * before + 4] = table.ljust(2 + 12 * before + 4, b"\0")
    return _Directory(at, following, used)


def _wipe_thumbnail(block: bytearray, order: str, main: _Directory) -> None:
    """Overwrite the directory behind the main one, and the thumbnail it points to, with zeros."""
    try:
        found, _ = tiff.entries(block, order, main.following)
    except struct.error:
        return
    if not main.following:
        return
    waste = [(main.following, main.following + 2 + 12 * len(found) + 4)]
    places = {}
    for entry in found:
        if entry.tag in _THUMBNAILS_AT and entry.type in (3, 4):
            layout = order + ("H" if entry.type == 3 else "I")
            (places[entry.tag],) = struct.unpack_from(layout, block, entry.start)
    for place, size in ((513, 514), (273, 279)):
        if place in places and size in places:
            waste.append((places[place], min(places[place] + places[size], len(block))))
    for start, end in waste:
        if start < end and not any(start < until and since < end for since, until in [(0, 8), *main.used]):
            block[start:end] = bytes(end - start)


class _Property(NamedTuple):
    """A property of the picture in an XMP packet.

    Attributes:
        name: namespace and local name.
        holder: the rdf:Description that has it.
        key: the attribute's name; or empty.
        element: the child element; or None.
    """

    name: tuple[str, str]
    holder: ET.Element
    key: str
    element: ET.Element | None


def _corrected_xmp(xmp: bytes, width: int, height: int, applied: int | None) -> bytes:
    root = _parsed(xmp)
    if root is None:
        return b""
    found = list(itertools.islice(_properties(root), _MOST_PROPERTIES + 1))
    if len(found) > _MOST_PROPERTIES:
        return b""
    told = {item.name: _text(item) for item in found}
    turned = applied in range(2, 9)
    values = {
        # Where only XMP tells an orientation it was not applied, and still holds.
        **({} if applied is None else {(_TIFF, "Orientation"): 1}),
        (_TIFF, "ImageWidth"): width,
        (_TIFF, "ImageLength"): height,
        (_EXIF, "PixelXDimension"): width,
        (_EXIF, "PixelYDimension"): height,
        **({} if turned else _panorama(told, width, height)),
    }
    for item in found:
        lost = item.name[0].startswith(_LOST) or item.name == _THUMBNAILS
        lost = lost or (item.name[0] == _EXIF and item.name[1].startswith(_IN_PIXELS))
        # Regions count from the corner that was the first before the picture was turned upright.
        if lost or (turned and (item.name == _REGIONS or item.name[0] == _PANORAMA)):
            _remove(item)
        elif item.name in values:
            _set_text(item, str(values[item.name]))
        elif item.name == _REGIONS and item.element is not None:
            _correct_regions(item.element, width, height)
    return _packet(root)


def _panorama(told: dict[tuple[str, str], str], width: int, height: int) -> dict[tuple[str, str], int]:
    """The place of the picture in its panorama, in pixels of the enlarged one."""
    values: dict[tuple[str, str], int] = {}
    for side, now, start in (("Width", width, "Left"), ("Height", height, "Top")):
        names = (f"CroppedAreaImage{side}Pixels", f"FullPano{side}Pixels", f"CroppedArea{start}Pixels")
        numbers = [told.get((_PANORAMA, name), "") for name in names]
        if numbers[0].isdecimal() and int(numbers[0][:9]) > 0:
            values |= {
                (_PANORAMA, name): int(number[:9]) * now // int(numbers[0][:9])
                for name, number in zip(names, numbers, strict=True)
                if number.isdecimal()
            }
    return values


def _correct_regions(regions: ET.Element, width: int, height: int) -> None:
    """Regions (faces) are told relative to the picture's sides, and hold only if those are told rightly."""
    for element in regions.iter():
        if element.tag.rpartition(":")[2] == "AppliedToDimensions":
            for inner in element.iter():
                for side, number in (("w", width), ("h", height)):
                    if inner.tag.rpartition(":")[2] == side:
                        inner.text = str(number)
                    for key in inner.attrib:
                        if key.rpartition(":")[2] == side:
                            inner.attrib[key] = str(number)


class _Unsafe(Exception):
    """XMP that no sound program writes."""


def _parsed(xmp: bytes) -> ET.Element | None:
    """The packet's root, its names as they are written; None where it is empty, damaged or unsafe.

    The names keep their prefixes, unlike with ElementTree's own parser: many readers of XMP expect the usual ones.
    """
    xmp = xmp.strip(b"\0 \t\r\n")
    if not xmp or len(xmp) > _MOST_XMP_BYTES:
        return None
    builder = ET.TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_XMP_DEPTH:
            raise _Unsafe
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        # Entities are declared in a DOCTYPE only, so without it none can be expanded.
        raise _Unsafe

    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xmp, True)
        return builder.close()
    except (expat.ExpatError, _Unsafe, AssertionError):
        return None


def _properties(root: ET.Element) -> Iterator[_Property]:
    """The properties of the picture itself, not those nested in them."""
    outer = _scope(root, {})
    for rdf in [root, *root]:
        scope = _scope(rdf, outer)
        if _name(rdf.tag, scope) != (_RDF, "RDF"):
            continue
        for description in rdf:
            inner = _scope(description, scope)
            for key in list(description.attrib):
                name = _name(key, inner) if ":" in key else ("", key)
                if name[0] not in ("", _RDF) and not key.startswith("xmlns:"):
                    yield _Property(name, description, key, None)
            for element in list(description):
                yield _Property(_name(element.tag, _scope(element, inner)), description, "", element)


def _scope(element: ET.Element, outer: dict[str, str]) -> dict[str, str]:
    own = {key[6:]: value for key, value in element.attrib.items() if key == "xmlns" or key.startswith("xmlns:")}
    return outer | own


def _name(written: str, scope: dict[str, str]) -> tuple[str, str]:
    prefix, _, local = written.rpartition(":")
    return scope.get(prefix, ""), local


def _text(item: _Property) -> str:
    if item.element is None:
        return item.holder.attrib[item.key].strip()
    return (item.element.text or "").strip()


def _set_text(item: _Property, text: str) -> None:
    if item.element is None:
        item.holder.attrib[item.key] = text
    else:
        del item.element[:]
        item.element.text = text


def _remove(item: _Property) -> None:
    if item.element is None:
        del item.holder.attrib[item.key]
    else:
        item.holder.remove(item.element)


def _length(item: _Property) -> int:
    text = _text(item) if item.element is None else ET.tostring(item.element, encoding="unicode")
    return len(text.encode())


def _packet(root: ET.Element) -> bytes:
    """The packet in its usual wrapping; nothing where no property is left."""
    if next(_properties(root), None) is None:
        return b""
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{begin}\n{ET.tostring(root, encoding="unicode")}\n<?xpacket end="w"?>'.encode()
