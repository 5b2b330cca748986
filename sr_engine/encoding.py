"""Planes of samples become a file's bytes, with the metadata that the original had."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from sr_engine import tags
from sr_engine.errors import PictureError
from sr_engine.headers import Kind
from sr_engine.limits import result_kind
from sr_engine.pictures import Picture, Plane
from sr_engine.protocol import Code, Output

EXTENSIONS = {Kind.JPEG: ".jpg", Kind.PNG: ".png", Kind.WEBP: ".webp", Kind.TIFF: ".tiff", Kind.BMP: ".bmp"}
_ICC_SEGMENT = 65_519
_UNASSOCIATED = 2
_INSUFFICIENT_MEMORY = -4


class Encoded(NamedTuple):
    """A file that is ready to be written.

    Attributes:
        data: its bytes.
        extension: of its kind, with the dot.
        note: what the user should know of it, a sentence without its full stop; mostly empty.
    """

    data: bytes
    extension: str
    note: str = ""


def encode(pages: Sequence[Picture], output: Output) -> Encoded:
    """The file for a picture, or for the pages of one.

    JPEG cannot hold transparency: it is laid on white.

    Raises:
        PictureError: TOO_LARGE as `result_kind`, UPSCALE_FAILED where the encoder refuses.
        MemoryError: the file does not fit in memory.
    """
    (picture,) = pages
    kind = result_kind(picture.kind, picture.width, picture.height, output)
    pixels = _merged(picture, on_white=kind is Kind.JPEG)
    space = b"GRAY" if pixels.ndim == 2 else b"RGB "
    # A profile for other channels than those written (grey, CMYK) would make viewers misread the colours.
    icc = picture.metadata.icc if picture.metadata.icc[16:20] == space else b""
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
    return Encoded(data, EXTENSIONS[kind])


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
