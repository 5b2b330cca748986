"""Decode and encode: a file's bytes become planes of pixels, planes become a file's bytes.

A picture is upright (EXIF orientation applied), 8 bits per sample, colour or grey, with or without alpha.
Transparency is straight, never premultiplied. Whatever cannot be kept is refused, never dropped in silence.
"""

import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine import tags
from sr_engine.errors import PictureError
from sr_engine.headers import Header, Kind, read_header
from sr_engine.protocol import Code, Output
from sr_engine.structure import Structure, examine

Plane = npt.NDArray[np.uint8]

# Three bytes a pixel of source and twenty-seven of result: beyond this a picture does not fit in ordinary memory.
MAX_PIXELS = 200_000_000

EXTENSIONS = {Kind.JPEG: ".jpg", Kind.PNG: ".png", Kind.WEBP: ".webp", Kind.TIFF: ".tiff", Kind.BMP: ".bmp"}
_LONGEST_SIDE = {Kind.JPEG: 65_500, Kind.WEBP: 16_383}
# Classic TIFF and BMP count bytes with 32 bits, and OpenCV computes some of those sums with a sign.
_MOST_BYTES = {Kind.TIFF: 1 << 31, Kind.BMP: 1 << 31}
_ICC_SEGMENT = 65_519
_ASSOCIATED, _UNASSOCIATED = 1, 2
_CMYK = 5
_INSUFFICIENT_MEMORY = -4


@dataclass(frozen=True)
class Picture:
    """Decoded pixels.

    Attributes:
        kind: of the file it came from.
        colour: HxWx3 in the order blue, green, red, or HxW where the picture is grey.
        alpha: HxW, 255 is opaque; None where everything is.
        icc: embedded colour profile, or empty.
    """

    kind: Kind
    colour: Plane
    alpha: Plane | None = None
    icc: bytes = b""

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.colour.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.colour.shape[1])


def check(header: Header, output: Output, *, scale: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse from the header alone what cannot be handled, before memory is spent on it.

    Raises:
        PictureError: UNSUPPORTED, or TOO_LARGE.
    """
    if header.obstacle:
        raise PictureError(Code.UNSUPPORTED, header.obstacle)
    if header.width * header.height > max_pixels:
        raise PictureError(
            Code.TOO_LARGE,
            f"{header.width} x {header.height} pixels are more than {max_pixels / 1e6:g} megapixels: "
            "cut the picture in parts",
        )
    result_kind(header.kind, header.width * scale, header.height * scale, output)


def result_kind(kind: Kind, width: int, height: int, output: Output) -> Kind:
    """The kind of a result of `width` x `height` pixels for a picture of `kind`.

    Raises:
        PictureError: TOO_LARGE, the kind that was asked for cannot hold it; UNSUPPORTED, no such kind.
    """
    same = output.format == "same"
    if not same and output.format not in set(Kind):
        raise PictureError(Code.UNSUPPORTED, f"no output format is called {output.format!r}: same, {', '.join(Kind)}")
    wanted = kind if same else Kind(output.format)
    side = _LONGEST_SIDE.get(wanted)
    fits = (side is None or max(width, height) <= side) and (
        wanted not in _MOST_BYTES or width * height * 4 < _MOST_BYTES[wanted]
    )
    if fits:
        return wanted
    if same:
        return Kind.PNG
    raise PictureError(
        Code.TOO_LARGE, f"a {wanted} file cannot hold {width} x {height} pixels: set the output format to png"
    )


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a whole file.

    Raises:
        PictureError: UNDECODABLE, UNSUPPORTED or TOO_LARGE; the message says what to do.
        MemoryError: the pixels do not fit in memory.
    """
    header = read_header(io.BytesIO(data))
    check(header, Output(format="png"), scale=1, max_pixels=max_pixels)
    structure = examine(data, header)
    colour, alpha = _tiff_planes(data) if header.kind is Kind.TIFF else _planes(data, header, structure)
    if sorted(colour.shape[:2]) != sorted((header.height, header.width)):
        raise _damaged(f"the {header.kind} holds other pixels than its header claims: copy the picture again")
    if header.grey and colour.ndim == 3:  # grey with alpha decodes to four channels
        colour = colour[:, :, 0]
    return Picture(
        header.kind,
        _upright(colour, structure.orientation),
        None if alpha is None else _upright(alpha, structure.orientation),
        structure.icc,
    )


def encode(picture: Picture, output: Output) -> tuple[bytes, str]:
    """The file's bytes and the extension of its kind.

    JPEG cannot hold transparency: it is laid on white.

    Raises:
        PictureError: TOO_LARGE as `result_kind`, UPSCALE_FAILED where the encoder refuses.
        MemoryError: the file does not fit in memory.
    """
    kind = result_kind(picture.kind, picture.width, picture.height, output)
    pixels = _merged(picture, on_white=kind is Kind.JPEG)
    space = b"GRAY" if pixels.ndim == 2 else b"RGB "
    # A profile for other channels than those written (grey, CMYK) would make viewers misread the colours.
    icc = picture.icc if picture.icc[16:20] == space else b""
    embed = icc if kind in (Kind.PNG, Kind.WEBP) else b""
    data = _imencode(kind, pixels, output, embed)
    if data is None and embed:  # libpng refuses profiles with inner errors
        data = _imencode(kind, pixels, output, b"")
    if data is None:
        raise PictureError(Code.UPSCALE_FAILED, f"the result could not be encoded as {kind}")
    if kind is Kind.JPEG and icc:
        data = _jpeg_with_icc(data, icc)
    elif kind is Kind.TIFF:
        added: dict[int, tuple[int, bytes]] = {tags.ICC_PROFILE: (7, icc)} if icc else {}
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            # OpenCV leaves the fourth channel's meaning out, which readers take for anything but alpha.
            added[tags.EXTRA_SAMPLES] = (3, struct.pack("<H", _UNASSOCIATED))
        data = tags.with_tags(data, added) if added else data
    return data, EXTENSIONS[kind]


def _planes(data: bytes, header: Header, structure: Structure) -> tuple[Plane, Plane | None]:
    flags = cv2.IMREAD_UNCHANGED
    if header.kind is Kind.BMP:
        size = int.from_bytes(data[14:18], "little")
        if size == 12:  # IMREAD_UNCHANGED mistakes BMPs with the oldest header for grey ones
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    colour, alpha = _split(_imdecode(np.frombuffer(data, np.uint8), flags, header.kind))
    if header.kind is Kind.BMP and alpha is not None and not alpha.any():
        alpha = None  # the fourth byte is padding that was never set, not a wholly invisible picture
    if structure.transparent_grey is not None and alpha is None:
        # OpenCV expands tRNS for palettes and colours, and drops it for greys.
        alpha = np.where(colour == structure.transparent_grey, np.uint8(0), np.uint8(255))
    return colour, alpha


def _tiff_planes(data: bytes) -> tuple[Plane, Plane | None]:
    reader = tags.TagReader(io.BytesIO(data))
    page = reader.directory(reader.first)
    meaning = reader.integer(page, tags.EXTRA_SAMPLES, 0)
    buffer = np.frombuffer(data, np.uint8)
    if meaning == _UNASSOCIATED:
        # libtiff multiplies the colours with an alpha that is declared as unassociated, and precision is gone.
        # With the meaning "unspecified" in its place the samples arrive as they are.
        position = page.entries[tags.EXTRA_SAMPLES].position
        buffer = buffer.copy()
        buffer[position : position + 2] = 0
    colour, alpha = _split(_imdecode(buffer, cv2.IMREAD_UNCHANGED, Kind.TIFF))
    if reader.integer(page, tags.PHOTOMETRIC, 1) == _CMYK:
        alpha = None  # decoding made RGB of it and added an opaque channel
    if alpha is not None and meaning == _ASSOCIATED:
        straight = colour.astype(np.float32) * (255 / np.maximum(alpha, 1).astype(np.float32))[:, :, None]
        colour = np.clip(np.rint(straight), 0, 255).astype(np.uint8)
    return colour, alpha


def _imdecode(buffer: Plane, flags: int, kind: Kind) -> Plane:
    """HxW, HxWx3 or HxWx4, orientation not applied except for TIFF."""
    try:
        pixels = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        if error.code == _INSUFFICIENT_MEMORY:
            raise MemoryError(str(error)) from error
        raise _damaged(f"the {kind} is damaged: copy the picture again") from error
    if pixels is None or pixels.size == 0:
        raise _damaged(f"the {kind} is damaged or cut off: copy the picture again")
    if pixels.dtype != np.uint8:
        raise PictureError(
            Code.UNSUPPORTED, f"{pixels.dtype} pixels are not handled yet: convert the picture to 8 bits"
        )
    found: Plane = pixels
    return found


def _split(pixels: Plane) -> tuple[Plane, Plane | None]:
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels[:, :, :3]), np.ascontiguousarray(pixels[:, :, 3])
    return pixels, None


def _upright(plane: Plane, orientation: int) -> Plane:
    """Apply EXIF's orientation, 1 .. 8: a transposition for 5 .. 8, then mirrorings."""
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return np.ascontiguousarray(plane)


def _merged(picture: Picture, *, on_white: bool) -> Plane:
    """What the encoder takes: HxW, HxWx3 or HxWx4."""
    colour, alpha = picture.colour, picture.alpha
    if alpha is None:
        return colour
    if on_white:
        weight = alpha.astype(np.float32) / 255
        if colour.ndim == 3:
            weight = weight[:, :, None]
        flat: Plane = np.rint(colour * weight + 255 * (1 - weight)).astype(np.uint8)
        return flat
    planes = [colour] * 3 if colour.ndim == 2 else [colour]
    return np.dstack([*planes, alpha])


def _imencode(kind: Kind, pixels: Plane, output: Output, icc: bytes) -> bytes | None:
    options = {
        Kind.JPEG: [cv2.IMWRITE_JPEG_QUALITY, output.jpeg_quality],
        Kind.PNG: [cv2.IMWRITE_PNG_COMPRESSION, output.png_compression],
        Kind.WEBP: [cv2.IMWRITE_WEBP_QUALITY, output.webp_quality],
        Kind.TIFF: [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW],
        Kind.BMP: [],
    }[kind]
    try:
        if icc:
            profile = np.frombuffer(icc, np.uint8)
            done, packed = cv2.imencodeWithMetadata(
                EXTENSIONS[kind], pixels, [cv2.IMAGE_METADATA_ICCP], [profile], options
            )
        else:
            done, packed = cv2.imencode(EXTENSIONS[kind], pixels, options)
    except cv2.error as error:
        if error.code == _INSUFFICIENT_MEMORY:
            raise MemoryError(str(error)) from error
        return None
    return packed.tobytes() if done else None


def _jpeg_with_icc(data: bytes, icc: bytes) -> bytes:
    """Embed a profile by hand: OpenCV fails on those that need more than one segment."""
    parts = [icc[at : at + _ICC_SEGMENT] for at in range(0, len(icc), _ICC_SEGMENT)]
    segments = b"".join(
        struct.pack(">BBH12sBB", 0xFF, 0xE2, len(part) + 16, b"ICC_PROFILE\0", number, len(parts)) + part
        for number, part in enumerate(parts, 1)
    )
    # JFIF demands its own segment first, so the profile goes behind it.
    first = 4 + int.from_bytes(data[4:6]) if data[2:4] == b"\xff\xe0" else 2
    return data[:first] + segments + data[first:]


def _damaged(message: str) -> PictureError:
    return PictureError(Code.UNDECODABLE, message)
