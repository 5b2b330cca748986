"""Kind and size of a picture from its first bytes, judged by content and never by the file's extension.

Light on purpose: the watcher imports this module, so nothing here may import numpy or cv2. Safe with hostile
input: reads and loops are bounded, and whatever the bytes are, the only error of our own is `HeaderError`.
"""

import os
import struct
from enum import StrEnum
from typing import BinaryIO

import msgspec

from sr_engine import tags
from sr_engine.errors import PictureError
from sr_engine.protocol import Code

# Segments or chunks before the pixels; a photograph with a depth map in extended XMP has a few hundred.
_MAX_PARTS = 2000


class Kind(StrEnum):
    """The kinds of pictures that are read and written; the values are those of `Output.format`."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    TIFF = "tiff"
    BMP = "bmp"
    AVIF = "avif"
    HEIC = "heic"
    JPEG2000 = "jpeg2000"
    GIF = "gif"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture says of itself before its pixels.

    Attributes:
        kind: by content.
        width, height: pixels as stored, before any EXIF orientation; at least 1.
        bits: per sample, or per pixel where there is a palette.
        grey: one channel of brightness, besides any alpha.
        pages: how many pictures of about this size the file holds, all of which become part of the result.
        obstacle: why this sound picture is not handled, one sentence; empty if it is.
    """

    kind: Kind
    width: int
    height: int
    bits: int = 8
    grey: bool = False
    pages: int = 1
    obstacle: str = ""


class HeaderError(PictureError):
    """No header of a picture that is handled; `code` tells damaged from of another kind."""


# Signatures of what people drop and is not handled: offset, bytes, name.
_FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftyphev", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypmsf1", "a HEIF picture"),
    (4, b"ftypcrx", "a raw photograph (CR3)"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL picture"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?R", "a Radiance HDR picture"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"FUJIFILM", "a raw photograph (RAF)"),
    (0, b"IIU\0", "a raw photograph (RW2)"),
    (0, b"IIRO", "a raw photograph (ORF)"),
    (0, b"IIRS", "a raw photograph (ORF)"),
    (8, b"CR\x02", "a raw photograph (CR2)"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"<svg", "an SVG drawing"),
)


def read_header(file: BinaryIO) -> Header:
    """Kind, size and depth of the picture in `file`, from at most a few hundred small reads.

    Args:
        file: seekable and open for reading bytes; its position afterwards is anywhere.

    Raises:
        HeaderError: no picture of a kind that is handled, or its header is damaged or cut off.
        OSError: the file itself cannot be read.
    """
    start = _read(file, 0, 32)
    if not start:
        raise _damaged("the file is empty: copy the picture again")
    for offset, signature, name in _FOREIGN:
        if start.startswith(signature, offset):
            raise HeaderError(Code.UNSUPPORTED, f"this is {name}, a kind that is not handled: convert it to PNG")
    if start.startswith(b"\xff\xd8"):
        header = _read_jpeg(file)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _read_png(file)
    elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        header = _read_webp(start)
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        header = _read_tiff(file)
    elif start.startswith(b"BM"):
        header = _read_bmp(file)
    elif not start.strip(b"\0"):
        raise _damaged("the file holds only zeros, as an unfinished copy does: copy the picture again")
    else:
        raise _damaged("this is not a picture, or its beginning is damaged: copy it again, or remove it")
    if header.width < 1 or header.height < 1:
        raise _damaged(f"the header claims {header.width} x {header.height} pixels: copy the picture again")
    return header


def _read_jpeg(file: BinaryIO) -> Header:
    position = 2
    for _ in range(_MAX_PARTS):
        part = _exactly(file, position, 10)
        if part[0] != 0xFF:
            raise _damaged("the JPEG's header is damaged: copy the picture again")
        marker = part[1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack(">BHH", part[4:9])
            return Header(
                kind=Kind.JPEG,
                width=width,
                height=height,
                bits=bits,
                grey=part[9] == 1,
                obstacle=_too_deep(bits) if bits != 8 else _channels("JPEG", part[9], (1, 3, 4)),
            )
        if marker in (0xD9, 0xDA):
            break
        position += 2 + (0 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else max(2, int.from_bytes(part[2:4])))
    raise _damaged("the JPEG has no frame header: copy the picture again")


def _read_png(file: BinaryIO) -> Header:
    length, name, width, height, bits, color = struct.unpack(">I4sIIBB", _exactly(file, 8, 18))
    if name != b"IHDR" or length != 13 or bits not in (1, 2, 4, 8, 16) or color not in (0, 2, 3, 4, 6):
        raise _damaged("the PNG's header is damaged: copy the picture again")
    obstacle = _too_deep(bits) if bits > 8 else ""
    position = 33
    for _ in range(_MAX_PARTS):
        # A file cut off behind IHDR still has a size; whether it is whole is for the decoder to say.
        part = _read(file, position, 12)
        if len(part) < 12 or part[4:8] in (b"IDAT", b"IEND"):
            break
        if part[4:8] == b"acTL" and int.from_bytes(part[8:12]) != 1:
            obstacle = _animated("PNG")
        position += 12 + int.from_bytes(part[:4])
    return Header(kind=Kind.PNG, width=width, height=height, bits=bits, grey=color in (0, 4), obstacle=obstacle)


def _read_webp(start: bytes) -> Header:
    name, flags = start[12:16], start[20:21]
    if len(start) >= 30 and name == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 26)
        return Header(kind=Kind.WEBP, width=width & 0x3FFF, height=height & 0x3FFF)
    if len(start) >= 25 and name == b"VP8L" and flags == b"\x2f":
        sides = int.from_bytes(start[21:25], "little")
        return Header(kind=Kind.WEBP, width=(sides & 0x3FFF) + 1, height=(sides >> 14 & 0x3FFF) + 1)
    if len(start) >= 30 and name == b"VP8X":
        return Header(
            kind=Kind.WEBP,
            width=int.from_bytes(start[24:27], "little") + 1,
            height=int.from_bytes(start[27:30], "little") + 1,
            obstacle=_animated("WebP") if flags[0] & 2 else "",
        )
    raise _damaged("the WebP's header is damaged or cut off: copy the picture again")


def _read_tiff(file: BinaryIO) -> Header:
    try:
        reader = tags.TagReader(file)
        pages = reader.directories()
        page = next(pages, None)
        if page is None:
            raise tags.TagError("it has no page")
        more = sum(1 for other in pages if not reader.integer(other, tags.NEW_SUBFILE_TYPE, 0) & 1)
        bits = reader.integers(page, tags.BITS_PER_SAMPLE) or (1,)
        return Header(
            kind=Kind.TIFF,
            width=reader.integer(page, tags.WIDTH, 0),
            height=reader.integer(page, tags.HEIGHT, 0),
            bits=max(bits),
            grey=reader.integer(page, tags.PHOTOMETRIC, 1) in (0, 1),
            obstacle=_multi_page(more + 1) if more else _tiff_obstacle(reader, page, bits),
        )
    except tags.TagError as error:
        raise _damaged(f"the TIFF is damaged or cut off ({error}): copy the picture again") from error


def _tiff_obstacle(reader: tags.TagReader, page: tags.Directory, bits: tuple[int, ...]) -> str:
    samples = reader.integer(page, tags.SAMPLES_PER_PIXEL, 1)
    meaning = reader.integer(page, tags.PHOTOMETRIC, 1)
    preview = reader.integer(page, tags.NEW_SUBFILE_TYPE, 0) & 1
    if preview or tags.DNG_VERSION in page.entries:
        return "this is a raw photograph, which is not handled: develop it to TIFF, PNG or JPEG"
    if set(reader.integers(page, tags.SAMPLE_FORMAT)) - {1, 4}:
        return "TIFFs of floating-point or signed numbers are not handled yet: convert it to 8 bits"
    if max(bits) > 8:
        return _too_deep(max(bits))
    # By photometric interpretation: grey (two ways), RGB, palette, CMYK, YCbCr.
    allowed = {0: (1,), 1: (1,), 2: (3, 4), 3: (1,), 5: (4,), 6: (3,)}
    if meaning not in allowed:
        return f"TIFFs of photometric interpretation {meaning} are not handled: convert it to RGB"
    depths = {0: {1, 8}, 1: {1, 8}, 3: {1, 4, 8}}.get(meaning, {8})
    if not set(bits) <= depths:
        return f"TIFFs with {max(bits)} bits per sample of this kind are not handled: convert it to 8 bits"
    return _channels("TIFF", samples, allowed[meaning])


def _read_bmp(file: BinaryIO) -> Header:
    (size,) = struct.unpack("<I", _exactly(file, 14, 4))
    packing = 0
    if size == 12:
        width, height, bits = struct.unpack("<HHxxH", _exactly(file, 18, 8))
    elif size in (16, 40, 52, 56, 64, 108, 124):
        width, height, bits = struct.unpack("<iixxH", _exactly(file, 18, 12))
        packing = int.from_bytes(_exactly(file, 30, 4), "little") if size > 16 else 0
    else:
        raise _damaged("the BMP's header is damaged: copy the picture again")
    obstacle = ""
    if size == 16 or bits not in (1, 4, 8, 24, 32) or packing not in (0, 1, 2, 3, 6):
        obstacle = f"BMPs with {bits} bits per pixel (packing {packing}) are not handled: convert it to PNG"
    # A negative height means that the rows run from top to bottom.
    return Header(kind=Kind.BMP, width=width, height=abs(height), bits=bits, obstacle=obstacle)


def _too_deep(bits: int) -> str:
    return f"{bits}-bit pictures are not handled yet: convert it to 8 bits per channel"


def _animated(kind: str) -> str:
    return f"animated {kind} pictures are not handled: save the frame you want as a still picture"


def _multi_page(pages: int) -> str:
    return f"TIFFs of several pages ({pages} here) are not handled: save each page as a file of its own"


def _channels(kind: str, found: int, allowed: tuple[int, ...]) -> str:
    if found in allowed:
        return ""
    return f"{kind} pictures with {found} channels of this kind are not handled: convert it to RGB"


def _damaged(message: str) -> HeaderError:
    return HeaderError(Code.UNDECODABLE, message)


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    # Asked beforehand: seeking to a nonsensical position is an OSError on some filesystems.
    if position >= file.seek(0, os.SEEK_END):
        return b""
    file.seek(position)
    return file.read(size)


def _exactly(file: BinaryIO, position: int, size: int) -> bytes:
    found = _read(file, position, size)
    if len(found) != size:
        raise _damaged("the file ends inside the picture's header: copy the picture again")
    return found
