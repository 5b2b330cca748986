"""A file's bytes become upright planes of samples. Whatever cannot be kept is refused, never dropped in silence."""

import io

import cv2
import numpy as np

from sr_engine import tags
from sr_engine.errors import PictureError
from sr_engine.headers import Header, Kind, read_header
from sr_engine.pictures import Metadata, Picture, Plane
from sr_engine.protocol import Code
from sr_engine.structure import Structure, examine

_ASSOCIATED, _UNASSOCIATED = 1, 2
_CMYK = 5
_INSUFFICIENT_MEMORY = -4


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
    structure = examine(data, header)
    colour, alpha = _tiff_planes(data) if header.kind is Kind.TIFF else _planes(data, header, structure)
    if sorted(colour.shape[:2]) != sorted((header.height, header.width)):
        raise _damaged(f"the {header.kind} holds other pixels than its header claims: copy the picture again")
    if header.grey and colour.ndim == 3:  # grey with alpha decodes to four channels
        colour = colour[:, :, 0]
    picture = Picture(
        header.kind,
        _upright(colour, structure.orientation),
        None if alpha is None else _upright(alpha, structure.orientation),
        Metadata(icc=structure.icc),
    )
    return [picture]


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


def _damaged(message: str) -> PictureError:
    return PictureError(Code.UNDECODABLE, message)
