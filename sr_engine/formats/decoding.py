"""A file's bytes become upright planes of samples. Whatever cannot be kept is refused, never dropped in silence.

OpenCV decodes most kinds; Pillow those that OpenCV would get wrong (CMYK, grey in some kinds, sYCC, GIF), and
libheif, by the extra `heif`, HEIC. Both are imported when a picture needs them.

Colours are those of the file's profile, which is carried along. Only CMYK is converted, through its profile to sRGB
(relative colorimetric, black point compensated), or by the plain formula where there is none. Colour codes
(CICP) are carried along as profiles are. PNG's gAMA and cHRM are not looked at.
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from sr_engine.errors import PictureError
from sr_engine.formats import jpeg2000, tags
from sr_engine.formats.structure import Structure, examine
from sr_engine.headers import NAMES, Header, Kind, read_header
from sr_engine.pictures import Metadata, Picture, Plane
from sr_engine.protocol import Code

_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_SYCC = 18
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MIN_IS_WHITE, _CMYK = 0, 5
_BAND_ROWS = 256  # at a time, where NumPy needs several times the memory of what it works on

Planes = tuple[Plane, Plane | None]


def decode(data: bytes) -> list[Picture]:
    """Decode a whole file: its pages, one in most kinds.

    What is too large has to be refused before, see `sr_engine.limits`.

    Raises:
        PictureError: UNDECODABLE or UNSUPPORTED; the message says what to do.
        MemoryError: the pixels do not fit in memory.
    """
    header = read_header(io.BytesIO(data))
    if header.obstacle:
        raise PictureError(Code.UNSUPPORTED, header.obstacle)
    structures = examine(data, header)
    if header.kind is Kind.TIFF:
        return [
            _picture(header, structure, planes, sides, inks=inks)
            for structure, (planes, sides, inks) in zip(structures, _tiff_pages(data, structures), strict=True)
        ]
    (structure,) = structures
    planes = _planes(data, header, structure)
    if (planes[0].dtype != np.uint8) != header.deep:
        raise _other_pixels(header.kind)
    return [_picture(header, structure, planes, (header.width, header.height), inks=header.inks)]


def _picture(header: Header, structure: Structure, planes: Planes, sides: tuple[int, int], *, inks: bool) -> Picture:
    colour, alpha = planes
    if sorted(colour.shape[:2]) != sorted(sides):
        raise _other_pixels(header.kind)
    if header.grey and colour.ndim == 3:  # grey with alpha decodes to four channels
        colour = np.ascontiguousarray(colour[:, :, 0])
    return Picture(
        header.kind,
        _upright(colour, structure.orientation),
        None if alpha is None else _upright(alpha, structure.orientation),
        Metadata(b"" if inks else structure.icc, structure.exif, structure.xmp, structure.codes),
        bits=8 if colour.dtype == np.uint8 else header.bits,
    )


def _planes(data: bytes, header: Header, structure: Structure) -> Planes:
    if header.kind is Kind.HEIC:
        return _heic_planes(data, header)
    if header.inks:
        return _inks_to_rgb(_pillow_image(data, header.kind, (header.width, header.height)), structure.icc), None
    if (found := _pillow_planes(data, header)) is not None:
        return found
    flags = cv2.IMREAD_UNCHANGED
    if header.kind is Kind.BMP:
        size = int.from_bytes(data[14:18], "little")
        if size == 12:  # IMREAD_UNCHANGED mistakes BMPs with the oldest header for grey ones
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _imdecode(_bare_png(data) if header.kind is Kind.PNG else data, flags, header.kind)
    if header.kind is Kind.AVIF and header.grey and structure.limited:
        pixels = _full_range(pixels, header.bits)
    if header.kind in (Kind.AVIF, Kind.JPEG2000) and pixels.dtype == np.uint16:
        pixels = _spread(pixels, header.bits)
    colour, alpha = _split(pixels)
    if header.kind is Kind.BMP and alpha is not None and not (header.alpha and alpha.any()):
        alpha = None  # the fourth byte is padding that was never set, not a wholly invisible picture
    if structure.transparent_grey is not None and alpha is None:
        # OpenCV expands tRNS for palettes and colours, and drops it for greys.
        opaque = np.iinfo(colour.dtype).max
        alpha = np.where(colour == structure.transparent_grey, colour.dtype.type(0), colour.dtype.type(opaque))
    return colour, alpha


def _tiff_pages(data: bytes, structures: list[Structure]) -> Iterator[tuple[Planes, tuple[int, int], bool]]:
    """Of each page the planes as stored, width and height, and whether they were inks."""
    reader = tags.TagReader(io.BytesIO(data))
    buffer: bytes | bytearray = data
    for page, structure in zip(reader.pages(), structures, strict=True):
        sides = (reader.integer(page, tags.WIDTH, 0), reader.integer(page, tags.HEIGHT, 0))
        meaning = reader.integer(page, tags.EXTRA_SAMPLES, 0)
        colours = reader.integer(page, tags.PHOTOMETRIC, 1)
        two = reader.integer(page, tags.SAMPLES_PER_PIXEL, 1) == 2
        # Decoders take the file's first page and turn it, some of them only at some depths, so the file is made to
        # say that this page is the first and upright. libtiff multiplies the colours with an alpha that is declared
        # as unassociated, and precision is gone; with the meaning "unspecified" they arrive as they are. Pillow
        # knows only unassociated alpha beside grey.
        changes = {tags.ORIENTATION: 1} if structure.orientation != 1 else {}
        if tags.EXTRA_SAMPLES in page.entries:
            changes[tags.EXTRA_SAMPLES] = _UNASSOCIATED if two else 0
        if changes or page.position != reader.first:
            buffer = bytearray(buffer) if isinstance(buffer, bytes) else buffer
            struct.pack_into(reader.order + ("Q" if reader.big else "I"), buffer, 8 if reader.big else 4, page.position)
            for tag, value in changes.items():
                if page.entries[tag].type == 3:
                    struct.pack_into(reader.order + "H", buffer, page.entries[tag].position, value)
        if colours == _CMYK:
            yield (_inks_to_rgb(_pillow_image(buffer, Kind.TIFF, sides), structure.icc), None), sides, True
            continue
        if two:
            colour, alpha = _split(_pixels(_pillow_image(buffer, Kind.TIFF, sides), Kind.TIFF, "LA"))
        else:
            colour, alpha = _split(_imdecode(buffer, cv2.IMREAD_UNCHANGED, Kind.TIFF))
            if colours == _MIN_IS_WHITE and colour.dtype == np.uint16:  # what libtiff does for 8 bits only
                colour = ~colour
        if alpha is not None and meaning == _UNSPECIFIED and not alpha.any():
            alpha = None  # as in BMPs
        if alpha is not None and meaning == _ASSOCIATED:
            _straighten(colour, alpha)
        yield (colour, alpha), sides, False


def _imdecode(data: bytes | bytearray, flags: int, kind: Kind) -> Plane:
    """HxW, HxWx3 or HxWx4, orientation not applied except for TIFF."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise _damaged(f"the {NAMES[kind]} is damaged: copy the picture again") from error
    if pixels is None or pixels.size == 0:
        raise _damaged(f"the {NAMES[kind]} is damaged or cut off: copy the picture again")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(Code.UNSUPPORTED, f"{pixels.dtype} pixels are not handled: convert the picture to 16 bits")
    found: Plane = pixels
    return found


def _pillow_image(data: bytes | bytearray, kind: Kind, sides: tuple[int, int]) -> Any:
    """A `PIL.Image.Image`, read to its end."""
    from PIL import Image  # noqa: PLC0415 - few pictures need it

    Image.MAX_IMAGE_PIXELS = None  # our own limits were asked before
    try:
        image = Image.open(io.BytesIO(data), formats=(kind.upper(),))
        if image.size == sides:
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow meets damage with nearly every exception there is
        raise _damaged(f"the {NAMES[kind]} is damaged or cut off: copy the picture again") from error
    if image.size != sides:
        raise _other_pixels(kind)
    return image


def _pixels(image: Any, kind: Kind, mode: str) -> Plane:
    if image.mode != mode:
        raise _other_pixels(kind)
    return np.asarray(image)


def _inks_to_rgb(image: Any, icc: bytes) -> Plane:
    from PIL import ImageCms  # noqa: PLC0415 - few pictures need it

    if image.mode != "CMYK":
        raise _damaged("the picture claims to be CMYK and is not: copy the picture again")
    shown = None
    if icc[16:20] == b"CMYK":
        try:
            shown = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError):
            shown = None  # a damaged profile is no reason to refuse the pixels
    rgb = np.asarray(image.convert("RGB") if shown is None else shown)
    bgr: Plane = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return bgr


def _pillow_planes(data: bytes, header: Header) -> Planes | None:
    """Of a picture without inks that OpenCV would get wrong; None for all others."""
    sides = (header.width, header.height)
    if header.kind is Kind.GIF:
        return _gif_planes(data, header)
    if header.kind is Kind.AVIF and header.grey and not header.deep:
        image = _pillow_image(data, header.kind, sides)
        return _split(np.asarray(image.convert("LA" if header.alpha else "L")))
    if header.kind is Kind.JPEG2000 and header.grey and header.alpha:
        return _split(_pixels(_pillow_image(data, header.kind, sides), header.kind, "LA"))
    if header.kind is Kind.JPEG2000 and jpeg2000.read_codestream(io.BytesIO(data)).space == _SYCC:
        rgb = _pixels(_pillow_image(data, header.kind, sides), header.kind, "RGB")
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), None
    return None


def _gif_planes(data: bytes, header: Header) -> Planes:
    image = _pillow_image(data, header.kind, (header.width, header.height))
    if not header.alpha:
        rgb = np.asarray(image.convert("RGB"))
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), None
    colour, alpha = _split(cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA))
    # Many declare a transparent colour that no pixel has.
    return colour, None if alpha is None or alpha.all() else alpha


def _heic_planes(data: bytes, header: Header) -> Planes:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PictureError(Code.UNSUPPORTED, "HEIC pictures need one more package: pip install pillow-heif") from error
    try:
        image = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, bgr_mode=True)
        if sorted(image.size) != sorted((header.width, header.height)):
            raise _other_pixels(header.kind)
        pixels: Plane = np.asarray(image)
    except (MemoryError, PictureError):
        raise
    except Exception as error:  # it passes libheif's errors on as several kinds
        raise _damaged("the HEIC is damaged or cut off: copy the picture again") from error
    if pixels.dtype == np.uint16:
        pixels = _spread(pixels, header.bits, shift=16 - header.bits)
    colour, alpha = _split(pixels)
    if alpha is not None and "a" in image.mode:  # as in "BGRa"
        _straighten(colour, alpha)
    return colour, alpha


def _split(pixels: Plane) -> Planes:
    """Colour or grey, and alpha, of HxW or HxWxC."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels[:, :, :3]), np.ascontiguousarray(pixels[:, :, 3])
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        return np.ascontiguousarray(pixels[:, :, 0]), np.ascontiguousarray(pixels[:, :, 1])
    return np.ascontiguousarray(pixels), None


def _bare_png(data: bytes) -> bytes:
    """The PNG without what libpng would unpack and keep beside the pixels: a thousand texts of 8 MB each."""
    parts: list[bytes | memoryview] = [data[:8]]
    at, bare = 8, True
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name in _PNG_PIXELS:
            parts.append(memoryview(data)[at : at + 12 + size])
        else:
            bare = False
        at += 12 + size
        if name == b"IEND":
            break
    return data if bare else b"".join(parts)


def _full_range(pixels: Plane, bits: int) -> Plane:
    """Levels of video, 16 .. 235 of 255, over all of `bits` bits. OpenCV does so for colours, not for greys."""
    levels, low = (1 << bits) - 1, 16 << bits - 8
    table = np.clip(np.rint((np.arange(levels + 1) - low) * levels / (219 << bits - 8)), 0, levels)
    full: Plane = table.astype(pixels.dtype)[np.minimum(pixels, levels)]
    return full


def _spread(pixels: Plane, bits: int, shift: int = 0) -> Plane:
    """Samples of `bits` bits, shifted to the left, over the whole range of 16."""
    if bits == 16:
        return pixels
    levels = (1 << bits) - 1
    table = ((np.minimum(np.arange(1 << 16) >> shift, levels) * 65535 * 2 + levels) // (2 * levels)).astype(np.uint16)
    spread = np.empty_like(pixels)
    for top in range(0, len(pixels), _BAND_ROWS):
        spread[top : top + _BAND_ROWS] = table[pixels[top : top + _BAND_ROWS]]
    return spread


def _straighten(colour: Plane, alpha: Plane) -> None:
    """Undo, in place, that the colours were multiplied with alpha."""
    most = np.iinfo(colour.dtype).max
    for top in range(0, len(colour), _BAND_ROWS):
        band = colour[top : top + _BAND_ROWS]
        factor = most / np.maximum(alpha[top : top + _BAND_ROWS], 1).astype(np.float32)
        straight = band * (factor[:, :, None] if band.ndim == 3 else factor)
        band[...] = np.minimum(np.rint(straight), most).astype(colour.dtype)


def _upright(plane: Plane, orientation: int) -> Plane:
    """Apply EXIF's orientation, 1 .. 8: a transposition for 5 .. 8, then mirrorings."""
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return np.ascontiguousarray(plane)


def _other_pixels(kind: Kind) -> PictureError:
    return _damaged(f"the {NAMES[kind]} holds other pixels than its header claims: copy the picture again")


def _damaged(message: str) -> PictureError:
    return PictureError(Code.UNDECODABLE, message)
