"""Whether a picture's file is whole, and what lies in it beside the pixels: EXIF, ICC, a transparent grey.

OpenCV's decoders refuse most files that were cut off, but not all of them in all ways of reading, and they take
a file whose end was never written (zeros, as preallocating copiers leave it) for a picture with a grey or black
bottom. So the structure of every kind is walked here before anything is decoded. In WebP, and in kinds without
compression, zeros may be pixels: there an end that was never written cannot be told.

Light: no numpy, no cv2.
"""

import io
import re
import struct
import zlib

import msgspec

from sr_engine import tags
from sr_engine.errors import PictureError
from sr_engine.headers import Header, Kind
from sr_engine.protocol import Code

# In JPEG's scan data 0xFF is followed by 0 (stuffing), a restart marker or more fill; anything else ends the scan.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_MAX_ICC_BYTES = 4 << 20
# Compressed pixels never end in this many zeros; a file that a copier preallocated and did not finish does.
_UNWRITTEN = bytes(64)
_UNCOMPRESSED_TIFF = (1, 32773)  # none, PackBits: zeros are pixels there


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a whole file beside the pixels.

    Attributes:
        orientation: EXIF's, 1 .. 8, still to be applied.
        icc: the colour profile as it was embedded, or empty.
        transparent_grey: the 8-bit grey that a PNG declares to be transparent, or None.
    """

    orientation: int = 1
    icc: bytes = b""
    transparent_grey: int | None = None


def examine(data: bytes, header: Header) -> Structure:
    """Walk a picture's structure to its end.

    Args:
        data: the whole file.
        header: what `read_header` said of it.

    Raises:
        PictureError: UNDECODABLE, the file is cut off or damaged.
    """
    walk = {
        Kind.JPEG: _walk_jpeg,
        Kind.PNG: _walk_png,
        Kind.WEBP: _walk_webp,
        Kind.TIFF: _walk_tiff,
        Kind.BMP: _walk_bmp,
    }
    try:
        return walk[header.kind](data, header)
    except (struct.error, IndexError) as error:
        raise _cut_off(header.kind) from error


def _walk_jpeg(data: bytes, header: Header) -> Structure:
    exif = b""
    profile: dict[int, bytes] = {}
    position, scans = 2, 0
    while True:
        # Within the header markers follow each other; after a scan its entropy-coded bytes come first. Thumbnails
        # inside APP segments are skipped with their segment, and what follows EOI (other pictures of a
        # multi-picture file, makers' trailers) is not looked at.
        found = _MARKER.search(data, position)
        if found is None:
            raise _cut_off(header.kind)
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if length < 2 or position + length > len(data):
            raise _cut_off(header.kind)
        if marker == 0xE1 and body.startswith(_EXIF) and not exif:
            exif = body[len(_EXIF) :]
        elif marker == 0xE2 and body.startswith(_ICC):
            profile[body[len(_ICC)]] = body[len(_ICC) + 2 :]
        scans += marker == 0xDA
        position += length
    if not scans:
        raise _damaged("the JPEG ends before its pixels begin: copy the picture again")
    return Structure(
        orientation=_orientation(exif), icc=_checked_icc(b"".join(profile[key] for key in sorted(profile)))
    )


def _walk_png(data: bytes, header: Header) -> Structure:
    exif = icc = b""
    transparent = None
    position, pixels = 8, 0
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length] if name != b"IDAT" else b""
        position += 12 + length
        if position > len(data):
            raise _cut_off(header.kind)
        pixels += name == b"IDAT"
        if name == b"IEND":
            break
        if name == b"eXIf":
            exif = body
        elif name == b"iCCP":
            icc = _inflate(body.partition(b"\0")[2][1:])
        elif name == b"tRNS" and header.grey and length == 2:
            # Shallow greys are spread over 0 .. 255 when decoded; 255 is divisible by 1, 3 and 15.
            levels = (1 << header.bits) - 1
            transparent = (int.from_bytes(body) & levels) * (255 // levels)
    if not pixels:
        raise _damaged("the PNG has no pixels: copy the picture again")
    return Structure(orientation=_orientation(exif), icc=_checked_icc(icc), transparent_grey=transparent)


def _walk_webp(data: bytes, header: Header) -> Structure:
    exif = icc = b""
    (size,) = struct.unpack_from("<I", data, 4)
    end = 8 + size
    if end > len(data):
        raise _cut_off(header.kind)
    position, pixels = 12, 0
    # A lone byte behind the last chunk is tolerated: some writers pad the file, not the chunk.
    while position + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        if len(body) != length:
            raise _cut_off(header.kind)
        if name in (b"VP8 ", b"VP8L"):
            pixels += 1
        elif name == b"ICCP":
            icc = body
        elif name == b"EXIF":
            exif = body.removeprefix(_EXIF)
        position += 8 + length + length % 2
    if not pixels:
        raise _damaged("the WebP has no pixels: copy the picture again")
    return Structure(orientation=_orientation(exif), icc=_checked_icc(icc))


def _walk_tiff(data: bytes, header: Header) -> Structure:
    try:
        reader = tags.TagReader(io.BytesIO(data))
        page = reader.directory(reader.first)
        tiled = tags.TILE_OFFSETS in page.entries
        offsets, counts = (
            reader.integers(page, tag, limit=len(data))
            for tag in (
                (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS) if tiled else (tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS)
            )
        )
        packing = reader.integer(page, tags.COMPRESSION, 1)
    except tags.TagError as error:
        raise _damaged(f"the TIFF is damaged or cut off ({error}): copy the picture again") from error
    if not offsets:
        raise _damaged("the TIFF has no pixels: copy the picture again")
    # One strip may lack its count; the decoder then reads to the end of the file.
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False)] or [max(offsets) + 1]
    if max(ends) > len(data):
        raise _cut_off(header.kind)
    if counts and packing not in _UNCOMPRESSED_TIFF:
        last = max(range(len(ends)), key=ends.__getitem__)
        _refuse_unwritten(data[offsets[last] : ends[last]], header.kind)
    # OpenCV applies a TIFF's own orientation while it decodes.
    return Structure(icc=_checked_icc(_tiff_icc(reader, page)))


def _tiff_icc(reader: tags.TagReader, page: tags.Directory) -> bytes:
    try:
        return bytes(reader.integers(page, tags.ICC_PROFILE, limit=_MAX_ICC_BYTES))
    except (tags.TagError, ValueError):
        return b""


def _walk_bmp(data: bytes, header: Header) -> Structure:
    start, size = struct.unpack_from("<II", data, 10)
    packing, stored = struct.unpack_from("<II", data, 30) if size > 16 else (0, 0)
    rows = (header.width * header.bits + 31) // 32 * 4 * header.height
    if start + (stored if packing in (1, 2) else rows) > len(data):
        raise _cut_off(header.kind)
    return Structure()


def _orientation(exif: bytes) -> int:
    """EXIF's orientation; damaged or missing EXIF means 1, upright: it is no reason to refuse the pixels."""
    try:
        reader = tags.TagReader(io.BytesIO(exif))
        found = reader.integer(reader.directory(reader.first), tags.ORIENTATION, 1)
    except tags.TagError:
        return 1
    return found if 1 <= found <= 8 else 1


def _checked_icc(profile: bytes) -> bytes:
    """The profile if it is plausible, else nothing: writers refuse a damaged one, and the pixels matter more."""
    size = int.from_bytes(profile[:4])
    return profile[:size] if profile[36:40] == b"acsp" and 128 < size <= len(profile) else b""


def _inflate(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_ICC_BYTES)
    except zlib.error:
        return b""


def _refuse_unwritten(packed: bytes, kind: Kind) -> None:
    if packed.endswith(_UNWRITTEN):
        raise _damaged(f"the end of the {_NAMES[kind]} was never written (zeros): copy the picture again")


_NAMES = {Kind.JPEG: "JPEG", Kind.PNG: "PNG", Kind.WEBP: "WebP", Kind.TIFF: "TIFF", Kind.BMP: "BMP"}


def _cut_off(kind: Kind) -> PictureError:
    return _damaged(f"the {_NAMES[kind]} is cut off before its end: copy the picture again")


def _damaged(message: str) -> PictureError:
    return PictureError(Code.UNDECODABLE, message)
