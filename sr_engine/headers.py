"""Kind and size of a picture from its first bytes, judged by content and never by the file's extension.

Light on purpose: the watcher imports this module, so nothing here may import numpy or cv2. Safe with hostile
input: reads and loops are bounded, and whatever the bytes are, the only error of our own is `HeaderError`.
"""

import os
import struct
from enum import StrEnum
from typing import BinaryIO

import msgspec

from sr_engine.errors import PictureError
from sr_engine.formats import boxes, cicp, foreign, gif, jpeg2000, tags
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


NAMES = {kind: kind.upper() for kind in Kind} | {Kind.WEBP: "WebP", Kind.JPEG2000: "JPEG 2000"}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture says of itself before its pixels.

    Attributes:
        kind: by content.
        width, height: pixels as stored, before any orientation; at least 1. Of the first page.
        bits: per sample, or per pixel where there is a palette.
        grey: one channel of brightness, besides any alpha.
        alpha: whether it may be transparent.
        inks: whether it is CMYK; of at least one page.
        further: width and height of the pages behind the first, all of which become part of the result.
        obstacle: why this sound picture is not handled, one sentence; empty if it is.
    """

    kind: Kind
    width: int
    height: int
    bits: int = 8
    grey: bool = False
    alpha: bool = False
    inks: bool = False
    further: tuple[tuple[int, int], ...] = ()
    obstacle: str = ""

    @property
    def deep(self) -> bool:
        """Whether the samples have more than 8 bits. BMP's bits are those of a whole pixel."""
        return self.bits > 8 and self.kind is not Kind.BMP

    @property
    def pages(self) -> int:
        """How many pictures the file holds."""
        return 1 + len(self.further)

    @property
    def pixels(self) -> int:
        """Of all pages together."""
        return self.width * self.height + sum(width * height for width, height in self.further)

    @property
    def side(self) -> int:
        """The longest of all pages, in pixels."""
        return max(self.width, self.height, *(side for page in self.further for side in page))


class HeaderError(PictureError):
    """No header of a picture that is handled; `code` tells damaged from of another kind."""


# Frames that libjpeg, and with it every common program, does not decode; and an arithmetic lossless one.
_HIERARCHICAL = (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
# None, those of fax, LZW, JPEG (two), Deflate (two), runs of words, PackBits. OpenCV's libtiff knows no others.
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946}
_STILLS = {b"mif1", b"msf1", b"miaf", b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # red, green, blue, alpha in the usual order
_FILMS = {b"msf1", b"avis", b"hevc", b"hevx"}


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
    header = _read_known(file, start)
    if header is None:
        if name := foreign.description_of(start):
            raise HeaderError(Code.UNSUPPORTED, f"this is {name}")
        if not start.strip(b"\0"):
            raise _damaged("the file holds only zeros, as an unfinished copy does: copy the picture again")
        raise _damaged("this is not a picture, or its beginning is damaged: copy it again, or remove it")
    for width, height in ((header.width, header.height), *header.further):
        if width < 1 or height < 1:
            raise _damaged(f"the header claims {width} x {height} pixels: copy the picture again")
    return header


def _read_known(file: BinaryIO, start: bytes) -> Header | None:  # noqa: PLR0911 - a table in disguise
    if start.startswith(b"\xff\xd8"):
        return _read_jpeg(file)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _read_webp(start)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        # Raw photographs in a TIFF's structure; CR2 alone says so at once.
        return None if start[8:11] == b"CR\x02" else _read_tiff(file)
    if start.startswith(b"BM"):
        return _read_bmp(file)
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _read_gif(file)
    if start.startswith(b"\xff\x4f\xff\x51") or start[4:12] == b"jP  \r\n\x87\n":
        return _read_jpeg2000(file)
    if start[4:8] == b"ftyp" and len(start) < 12:
        raise _damaged("the file ends inside its first box: copy the picture again")
    if start[4:8] == b"ftyp" and _STILLS.intersection(brands := boxes.read_brands(file)):
        return _read_heif(file, brands)
    return None


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
            obstacle = _odd_depth("JPEG", bits) if bits != 8 else _channels("JPEG", part[9], (1, 3, 4))
            if marker in _HIERARCHICAL:
                obstacle = "JPEGs of hierarchical coding are not handled: convert it to a baseline JPEG, or to PNG"
            return Header(
                kind=Kind.JPEG,
                width=width,
                height=height,
                bits=bits,
                grey=part[9] == 1,
                inks=part[9] == 4,
                obstacle=obstacle,
            )
        if marker in (0xD9, 0xDA):
            break
        position += 2 + (0 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else max(2, int.from_bytes(part[2:4])))
    raise _damaged("the JPEG has no frame header: copy the picture again")


def _read_png(file: BinaryIO) -> Header:
    length, name, width, height, bits, color = struct.unpack(">I4sIIBB", _exactly(file, 8, 18))
    if name != b"IHDR" or length != 13 or bits not in (1, 2, 4, 8, 16) or color not in (0, 2, 3, 4, 6):
        raise _damaged("the PNG's header is damaged: copy the picture again")
    alpha, obstacle = color in (4, 6), ""
    position = 33
    for _ in range(_MAX_PARTS):
        # A file cut off behind IHDR still has a size; whether it is whole is for the decoder to say.
        part = _read(file, position, 12)
        if len(part) < 12 or part[4:8] in (b"IDAT", b"IEND"):
            break
        if part[4:8] == b"acTL" and int.from_bytes(part[8:12]) != 1:
            obstacle = animated("PNG")
        elif part[4:8] == b"cICP":
            obstacle = obstacle or cicp.obstacle((part[8], part[9]))
        alpha = alpha or part[4:8] == b"tRNS"
        position += 12 + int.from_bytes(part[:4])
    return Header(
        kind=Kind.PNG, width=width, height=height, bits=bits, grey=color in (0, 4), alpha=alpha, obstacle=obstacle
    )


def _read_webp(start: bytes) -> Header:
    name, flags = start[12:16], start[20:21]
    if len(start) >= 30 and name == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 26)
        return Header(kind=Kind.WEBP, width=width & 0x3FFF, height=height & 0x3FFF)
    if len(start) >= 25 and name == b"VP8L" and flags == b"\x2f":
        sides = int.from_bytes(start[21:25], "little")
        return Header(
            kind=Kind.WEBP,
            width=(sides & 0x3FFF) + 1,
            height=(sides >> 14 & 0x3FFF) + 1,
            alpha=bool(sides >> 28 & 1),
        )
    if len(start) >= 30 and name == b"VP8X":
        return Header(
            kind=Kind.WEBP,
            width=int.from_bytes(start[24:27], "little") + 1,
            height=int.from_bytes(start[27:30], "little") + 1,
            alpha=bool(flags[0] & 0x10),
            obstacle=animated("WebP") if flags[0] & 2 else "",
        )
    raise _damaged("the WebP's header is damaged or cut off: copy the picture again")


def _read_tiff(file: BinaryIO) -> Header:
    try:
        reader = tags.TagReader(file)
        pages = reader.pages()
        obstacles = (_tiff_obstacle(reader, page) for page in pages)
        meanings = {reader.integer(page, tags.PHOTOMETRIC, 1) for page in pages}
        sides = [(reader.integer(page, tags.WIDTH, 0), reader.integer(page, tags.HEIGHT, 0)) for page in pages]
        return Header(
            kind=Kind.TIFF,
            width=sides[0][0],
            height=sides[0][1],
            bits=max(max(reader.integers(page, tags.BITS_PER_SAMPLE), default=1) for page in pages),
            grey=meanings <= {0, 1},
            inks=5 in meanings,
            alpha=any(tags.EXTRA_SAMPLES in page.entries for page in pages),
            further=tuple(sides[1:]),
            obstacle=next(filter(None, obstacles), ""),
        )
    except tags.TagError as error:
        raise _damaged(f"the TIFF is damaged or cut off ({error}): copy the picture again") from error


def _tiff_obstacle(reader: tags.TagReader, page: tags.Directory) -> str:  # noqa: PLR0911 - another
    bits = reader.integers(page, tags.BITS_PER_SAMPLE) or (1,)
    samples = reader.integer(page, tags.SAMPLES_PER_PIXEL, 1)
    meaning = reader.integer(page, tags.PHOTOMETRIC, 1)
    preview = reader.integer(page, tags.NEW_SUBFILE_TYPE, 0) & 1
    if preview or tags.DNG_VERSION in page.entries:
        return "this is a raw photograph, which is not handled: develop it to TIFF, PNG or JPEG"
    if set(reader.integers(page, tags.SAMPLE_FORMAT)) - {1, 4}:
        return "TIFFs of floating-point or signed numbers are not handled: convert it to 16 bits"
    if (packing := reader.integer(page, tags.COMPRESSION, 1)) not in _TIFF_COMPRESSIONS:
        return f"TIFFs of compression {packing} are not handled: save it with LZW, with Deflate, or without any"
    # By photometric interpretation: grey (two ways), RGB, palette, CMYK, YCbCr.
    second = (1, 2) if reader.integers(page, tags.EXTRA_SAMPLES) else (1,)
    allowed = {0: (1,), 1: second, 2: (3, 4), 3: (1,), 5: (4,), 6: (3,)}
    if meaning not in allowed:
        return f"TIFFs of photometric interpretation {meaning} are not handled: convert it to RGB"
    depths = {0: {1, 8, 16}, 1: {1, 8, 16}, 2: {8, 16}, 3: {1, 4, 8}}.get(meaning, {8})
    if samples == 2:
        depths = {8}
    if len(set(bits)) > 1 or bits[0] not in depths:
        return f"TIFFs with {max(bits)} bits per sample of this kind are not handled: convert it to 8 bits"
    if bits[0] == 16 and samples > 1 and reader.integer(page, tags.PLANAR_CONFIGURATION, 1) != 1:
        return "16-bit TIFFs whose channels are stored apart are not handled: save it with interleaved channels"
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
    if size == 16 or bits not in (1, 4, 8, 24, 32) or packing not in (0, 1, 2, 3):
        obstacle = f"BMPs with {bits} bits per pixel (packing {packing}) are not handled: convert it to PNG"
    alpha = bits == 32 and size > 16
    if alpha and packing == 3:
        *colours, own = struct.unpack("<4I", _exactly(file, 54, 16))
        alpha = size >= 56 and own > 0
        # OpenCV keeps to masks of whole bytes, and in smaller headers assumes the usual ones.
        if not {*colours, own if alpha else 0} <= {*_BMP_MASKS, 0} or (size < 56 and (*colours,) != _BMP_MASKS[:3]):
            obstacle = "BMPs of unusual channel masks are not handled: convert it to PNG"
    # A negative height means that the rows run from top to bottom.
    return Header(kind=Kind.BMP, width=width, height=abs(height), bits=bits, alpha=alpha, obstacle=obstacle)


def _read_gif(file: BinaryIO) -> Header:
    try:
        # How far a second picture lies is unbounded; one beyond this is found when the whole file is examined.
        found = gif.read_gif(file, _MAX_PARTS)
    except struct.error as error:
        raise _damaged("the GIF's header is cut off: copy the picture again") from error
    return Header(
        kind=Kind.GIF,
        width=found.width,
        height=found.height,
        grey=found.grey,
        alpha=found.alpha,
        obstacle=animated("GIF") if found.pictures > 1 else "",
    )


def _read_jpeg2000(file: BinaryIO) -> Header:
    try:
        found = jpeg2000.read_codestream(file)
    except boxes.BoxError as error:
        raise _damaged(f"the JPEG 2000 picture is damaged or cut off ({error}): copy the picture again") from error
    channels = len(found.components)
    bits = max((depth for depth, *_ in found.components), default=0)
    obstacle = _channels("JPEG 2000", channels, (1, 2, 3, 4))
    known = (0, 16, 17, 18) if (channels, bits) == (3, 8) else (0, 16, 17)
    if found.palette or found.space not in known or found.icc[16:20] == b"CMYK":
        obstacle = (
            "JPEG 2000 pictures of palettes, or of colours other than grey and RGB, are not handled: convert it to PNG"
        )
    elif len(set(found.components)) > 1 or any(part[1:] != (False, 1, 1) for part in found.components):
        obstacle = "JPEG 2000 pictures of signed or unlike channels are not handled: convert it to PNG"
    elif not 8 <= bits <= (8 if channels == 2 else 16):
        obstacle = _odd_depth("JPEG 2000", bits)
    return Header(
        kind=Kind.JPEG2000,
        width=found.width,
        height=found.height,
        bits=bits,
        grey=channels < 3,
        alpha=channels in (2, 4),
        obstacle=obstacle,
    )


def _read_heif(file: BinaryIO, brands: list[bytes]) -> Header:
    try:
        found = boxes.read_still(file)
    except boxes.BoxError as error:
        if brands[0] in _FILMS:  # those need not have a still picture
            raise HeaderError(Code.UNSUPPORTED, animated("AVIF or HEIC")) from error
        raise _damaged(f"the AVIF or HEIC picture is damaged or cut off ({error}): copy the picture again") from error
    kinds = {b"av01": Kind.AVIF, b"hvc1": Kind.HEIC}
    if found.codec not in kinds:
        name = found.codec.decode("ascii", "replace")
        raise HeaderError(
            Code.UNSUPPORTED, f"this is a HEIF picture of the kind {name!r}, which is not handled: convert it to PNG"
        )
    kind = kinds[found.codec]
    obstacle = animated(kind.upper()) if brands[0] in _FILMS else cicp.obstacle(found.codes or (2, 2))
    if kind is Kind.AVIF and found.grey and found.alpha and found.bits > 8:
        obstacle = obstacle or _odd_depth("AVIF", found.bits)
    return Header(
        kind=kind,
        width=found.width,
        height=found.height,
        bits=found.bits,
        grey=found.grey,
        alpha=found.alpha,
        obstacle=obstacle,
    )


def _odd_depth(kind: str, bits: int) -> str:
    return f"{bits}-bit {kind} pictures of this kind are not handled: convert it to 8 bits per channel"


def animated(kind: str) -> str:
    """The obstacle of more than one frame."""
    return f"animated {kind} pictures are not handled: save the frame you want as a still picture"


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
