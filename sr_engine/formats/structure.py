"""Whether a picture's file is whole, and what lies in it beside the pixels: EXIF, ICC, XMP, a transparent grey.

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

from sr_engine.errors import PictureError
from sr_engine.formats import av1, boxes, cicp, gif, jpeg2000, tags
from sr_engine.headers import NAMES, Header, Kind, animated, read_header
from sr_engine.protocol import Code

# In JPEG's scan data 0xFF is followed by 0 (stuffing), a restart marker or more fill; anything else ends the scan.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_METADATA_BYTES = 4 << 20  # of each part; more is left out
# Compressed pixels never end in this many zeros; a file that a copier preallocated and did not finish does.
_UNWRITTEN = bytes(64)
_CODED_MARGIN = 64  # pixels; some encoders round sides up
_MOST_SCANS = 500  # each takes as long as the whole picture; usual are 1 .. 15
_MOST_SCANNED = 4_000_000_000  # pixels of all scans together
_PNG_TEXTS = {b"XML:com.adobe.xmp", *(b"Raw profile type " + name for name in (b"xmp", b"exif", b"APP1"))}
_UNCOMPRESSED_TIFF = (1, 32773)  # none, PackBits: zeros are pixels there


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a whole file beside the pixels.

    Attributes:
        orientation: as EXIF's, 1 .. 8, still to be applied.
        icc: the colour profile as it was embedded, or empty.
        exif: a TIFF structure as it was embedded, or empty.
        xmp: as it was embedded, or empty.
        transparent_grey: the level, of 8 or 16 bits, that a PNG declares to be transparent, or None.
        codes: of the colours, where they are known and not those of sRGB, or None.
        limited: whether an AVIF says that its samples use the range of video, 16 .. 235 of 255.
    """

    orientation: int = 1
    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    transparent_grey: int | None = None
    codes: cicp.Codes | None = None
    limited: bool = False


def examine(data: bytes, header: Header) -> list[Structure]:
    """Walk a picture's structure to its end; what was found is told for each page.

    Args:
        data: the whole file.
        header: what `read_header` said of it.

    Raises:
        PictureError: UNDECODABLE, the file is cut off or damaged; UNSUPPORTED, it moves.
    """
    if header.kind is Kind.TIFF:
        return _walk_tiff(data)
    walk = {
        Kind.JPEG: _walk_jpeg,
        Kind.PNG: _walk_png,
        Kind.WEBP: _walk_webp,
        Kind.BMP: _walk_bmp,
        Kind.AVIF: _walk_heif,
        Kind.HEIC: _walk_heif,
        Kind.JPEG2000: _walk_jpeg2000,
        Kind.GIF: _walk_gif,
    }
    try:
        return [walk[header.kind](data, header)]
    except (struct.error, IndexError, boxes.BoxError) as error:
        raise _cut_off(header.kind) from error


def _walk_jpeg(data: bytes, header: Header) -> Structure:
    exif = xmp = b""
    profile: dict[int, bytes] = {}
    position, scans, sequential, zeros_tell = 2, 0, False, False
    tables: dict[int, bool] = {}
    while True:
        # Within the header markers follow each other; after a scan its entropy-coded bytes come first. Thumbnails
        # inside APP segments are skipped with their segment, and what follows EOI (other pictures of a
        # multi-picture file, makers' trailers) is not looked at.
        found = _MARKER.search(data, position)
        if found is None:
            raise _cut_off(header.kind)
        if zeros_tell and data.find(_UNWRITTEN, position, found.start()) >= 0:
            raise _damaged("a part of the JPEG was never written (zeros): copy the picture again")
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
        elif marker == 0xE1 and body.startswith(_XMP) and not xmp:
            xmp = body[len(_XMP) :]
        elif marker == 0xE2 and body.startswith(_ICC):
            profile[body[len(_ICC)]] = body[len(_ICC) + 2 :]
        elif marker == 0xDA:
            scans += 1
            zeros_tell = sequential and any(tables.get(body[at] & 15) for at in range(2, 2 * body[0] + 1, 2))
        tables |= _refuting_zeros(body) if marker == 0xC4 else {}
        sequential |= marker in (0xC0, 0xC1)
        position += length
    if scans > _MOST_SCANS or scans * header.pixels > _MOST_SCANNED:
        raise _damaged("the JPEG has more scans than any sound program writes: save it as PNG")
    if not scans:
        raise _damaged("the JPEG ends before its pixels begin: copy the picture again")
    return _found(exif, b"".join(profile[key] for key in sorted(profile)), xmp)


def _refuting_zeros(body: bytes) -> dict[int, bool]:
    """Of each Huffman table of a sequential JPEG's details, by number, whether zeros cannot be a flat area's."""
    found, at = {}, 0
    while at < len(body):
        if body[at] >> 4:  # the code of zeros only means the first symbol; 0 ends a block
            found[body[at] & 15] = body[at + 17 : at + 18] not in (b"", b"\0")
        at += 17 + sum(body[at + 1 : at + 17])
    return found


def _walk_png(data: bytes, header: Header) -> Structure:
    exif = icc = xmp = b""
    transparent = codes = None
    seen: set[bytes] = set()  # only the first of each is unpacked, so many cannot take long
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
            exif = body.removeprefix(_EXIF)
        elif name == b"iCCP" and name not in seen:
            seen.add(name)
            icc = _inflate(body.partition(b"\0")[2][1:])
        elif name == b"cICP" and length == 4:
            codes = (body[0], body[1])
        elif name in (b"iTXt", b"zTXt"):
            keyword, text = _png_text(name, body, seen)
            if keyword == b"XML:com.adobe.xmp":
                xmp = text or xmp
            elif keyword == b"Raw profile type xmp":
                xmp = xmp or _unhex(text)
            elif keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
                exif = exif or _unhex(text).removeprefix(_EXIF)
        elif name == b"tRNS" and header.grey and length == 2:
            # Shallow greys are spread over 0 .. 255 when decoded; 255 is divisible by 1, 3 and 15.
            levels = (1 << header.bits) - 1
            transparent = (int.from_bytes(body) & levels) * max(1, 255 // levels)
    if not pixels:
        raise _damaged("the PNG has no pixels: copy the picture again")
    return msgspec.structs.replace(_found(exif, icc, xmp, transparent), codes=cicp.telling(codes))


def _png_text(name: bytes, body: bytes, seen: set[bytes]) -> tuple[bytes, bytes]:
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _PNG_TEXTS or keyword in seen:
        return keyword, b""
    seen.add(keyword)
    if name == b"zTXt":
        return keyword, _inflate(rest[1:])
    text = rest[2:].split(b"\0", 2)[-1]
    return keyword, _inflate(text) if rest[:1] == b"\1" else text


def _unhex(text: bytes) -> bytes:
    """Undo ImageMagick's way of keeping binary metadata in a text: a name, a length, hexadecimal digits."""
    try:
        found = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return b""
    return found.removeprefix(_XMP)


def _walk_webp(data: bytes, header: Header) -> Structure:
    exif = icc = xmp = b""
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
            inner = read_header(io.BytesIO(b"RIFF\0\0\0\0WEBP" + data[position : position + 32]))
            if (inner.width, inner.height) != (header.width, header.height):
                raise _damaged("the WebP holds other pixels than its header claims: copy the picture again")
        elif name == b"ICCP":
            icc = body
        elif name == b"EXIF":
            exif = body.removeprefix(_EXIF)
        elif name == b"XMP ":
            xmp = body
        position += 8 + length + length % 2
    if not pixels:
        raise _damaged("the WebP has no pixels: copy the picture again")
    return _found(exif, icc, xmp)


def _walk_tiff(data: bytes) -> list[Structure]:
    try:
        reader = tags.TagReader(io.BytesIO(data))
        return [_walk_page(data, reader, page) for page in reader.pages()]
    except tags.TagError as error:
        raise _damaged(f"the TIFF is damaged or cut off ({error}): copy the picture again") from error


def _walk_page(data: bytes, reader: tags.TagReader, page: tags.Directory) -> Structure:
    if not all(map(reader.holds, page.entries.values())):
        raise _cut_off(Kind.TIFF)
    tiled = tags.TILE_OFFSETS in page.entries
    offsets, counts = (
        reader.integers(page, tag, limit=len(data))
        for tag in (
            (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS) if tiled else (tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS)
        )
    )
    if not offsets:
        raise _damaged("the TIFF has no pixels: copy the picture again")
    # One strip may lack its count; the decoder then reads to the end of the file.
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False)] or [max(offsets) + 1]
    if max(ends) > len(data):
        raise _cut_off(Kind.TIFF)
    if counts and reader.integer(page, tags.COMPRESSION, 1) not in _UNCOMPRESSED_TIFF:
        last = max(range(len(ends)), key=ends.__getitem__)
        _refuse_unwritten(data[offsets[last] : ends[last]], Kind.TIFF)
    parts = {}
    for tag in (tags.ICC_PROFILE, tags.XMP):
        try:
            parts[tag] = bytes(reader.integers(page, tag, limit=_MAX_METADATA_BYTES))
        except (tags.TagError, ValueError):
            parts[tag] = b""
    found = _found(tags.exif_of(reader, page, _MAX_METADATA_BYTES), parts[tags.ICC_PROFILE], parts[tags.XMP])
    try:
        orientation = tags.orientation_of(reader, page) or 1
    except tags.TagError:
        orientation = 1
    return msgspec.structs.replace(found, orientation=orientation)


def _walk_bmp(data: bytes, header: Header) -> Structure:
    start, size = struct.unpack_from("<II", data, 10)
    packing, stored = struct.unpack_from("<II", data, 30) if size > 16 else (0, 0)
    rows = (header.width * header.bits + 31) // 32 * 4 * header.height
    if start + (stored if packing in (1, 2) else rows) > len(data):
        raise _cut_off(header.kind)
    return Structure()


def _walk_gif(data: bytes, header: Header) -> Structure:
    found = gif.read_gif(io.BytesIO(data), len(data))
    if found.pictures > 1:
        raise PictureError(Code.UNSUPPORTED, animated("GIF"))
    if not found.complete or not found.pictures:
        raise _cut_off(header.kind)
    return Structure()


def _walk_heif(data: bytes, header: Header) -> Structure:
    file = io.BytesIO(data)
    for box in boxes.outer_boxes(file):
        if box.end > len(data):
            raise _cut_off(header.kind)
    still = boxes.read_still(file)
    coded = [extent for item in still.items.values() for extent in item.extents]
    if any(start + size > len(data) for start, size in coded):
        raise _cut_off(header.kind)
    for item in still.items.values():
        if item.type == b"av01":
            _compare_av1(data, item, header)
        for start, size in item.extents[-1:] if item.type in (b"av01", b"hvc1") else ():
            _refuse_unwritten(data[start : start + size or len(data)], header.kind)
    exif = xmp = b""
    for item in (still.items[number] for number in still.about if number in still.items):
        if sum(size for _, size in item.extents) > _MAX_METADATA_BYTES:
            continue
        body = b"".join(data[start : start + size] for start, size in item.extents)
        if item.type == b"Exif" and not exif:
            exif = body[4 + int.from_bytes(body[:4]) :]
        elif item.type == b"mime" and item.content_type == b"application/rdf+xml" and not xmp:
            xmp = body
    # The format forbids to apply EXIF's orientation. libheif turns HEIC pictures while it decodes them.
    return msgspec.structs.replace(
        _found(exif, still.icc, xmp),
        orientation=1 if header.kind is Kind.HEIC else still.orientation,
        codes=cicp.telling(still.codes),
        limited=still.limited,
    )


def _compare_av1(data: bytes, item: boxes.Item, header: Header) -> None:
    """The decoder allocates what the coded data claims, then scales it to what the boxes claim."""
    coded = b"".join(data[start : start + size if size else None] for start, size in item.extents)
    ispe = item.find(b"ispe")
    told = struct.unpack_from(">II", ispe, 4) if ispe else (header.width, header.height)
    for own in av1.sides(coded):
        if any(abs(one - other) > _CODED_MARGIN for one, other in zip(own, told, strict=True)):
            raise _damaged("the AVIF holds other pixels than its header claims: copy the picture again")


def _walk_jpeg2000(data: bytes, header: Header) -> Structure:
    found = jpeg2000.read_codestream(io.BytesIO(data))
    if found.end > len(data):
        raise _cut_off(header.kind)
    position, parts = found.start + 2, 0
    while (marker := data[position : position + 2]) != b"\xff\xd9":
        if position + 4 > found.end:
            raise _cut_off(header.kind)
        size = int.from_bytes(data[position + 2 : position + 4]) + 2
        if marker == b"\xff\x90":
            parts += 1
            # A tile of unknown size runs to the end.
            size = int.from_bytes(data[position + 6 : position + 10]) or found.end - 2 - position
        if size < 4:
            raise _damaged("the JPEG 2000 picture is damaged: copy the picture again")
        position += size
    if not parts:
        raise _damaged("the JPEG 2000 picture has no pixels: copy the picture again")
    return _found(found.exif, found.icc, found.xmp)


def _found(exif: bytes, icc: bytes, xmp: bytes, transparent_grey: int | None = None) -> Structure:
    """What is sound of it. Damaged or oversized metadata is left out: it is no reason to refuse the pixels."""
    orientation = 1
    try:
        reader = tags.TagReader(io.BytesIO(exif))
        orientation = tags.orientation_of(reader, reader.directory(reader.first)) or 1
    except tags.TagError:
        exif = b""
    return Structure(
        orientation=orientation,
        icc=_checked_icc(icc),
        exif=exif if len(exif) <= _MAX_METADATA_BYTES else b"",
        xmp=xmp if len(xmp) <= _MAX_METADATA_BYTES else b"",
        transparent_grey=transparent_grey,
    )


def _checked_icc(profile: bytes) -> bytes:
    """The profile if it is plausible, else nothing: writers refuse a damaged one, and the pixels matter more."""
    size = int.from_bytes(profile[:4])
    plausible = profile[36:40] == b"acsp" and 128 < size <= min(len(profile), _MAX_METADATA_BYTES)
    return profile[:size] if plausible else b""


def _inflate(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(packed, _MAX_METADATA_BYTES)
    except zlib.error:
        return b""
    return found if unpacker.eof else b""


def _refuse_unwritten(packed: bytes, kind: Kind) -> None:
    if packed.endswith(_UNWRITTEN):
        raise _damaged(f"the end of the {NAMES[kind]} was never written (zeros): copy the picture again")


def _cut_off(kind: Kind) -> PictureError:
    return _damaged(f"the {NAMES[kind]} is cut off before its end: copy the picture again")


def _damaged(message: str) -> PictureError:
    return PictureError(Code.UNDECODABLE, message)
