"""Metadata put into files that are encoded already, for the kinds in which OpenCV cannot be trusted with it.

Into JPEG it writes neither profiles of more than one segment nor XMP; into PNG it writes XMP as text of a kind that
no reader expects, and bytes of foreign memory behind it; into JPEG 2000 nothing. Into AVIF it writes no colour codes
but sRGB's.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from sr_engine.formats.boxes import inner_boxes
from sr_engine.formats.jpeg2000 import EXIF_UUID, XMP_UUID
from sr_engine.formats.metadata import exif_within, xmp_within
from sr_engine.formats.tiff import Buffer
from sr_engine.pictures import Metadata, Plane

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_SEGMENT = 65_519
_SEGMENT = 65_533
_PNG = b"\x89PNG\r\n\x1a\n"
_NCLX = b"colrnclx"
_FRONT = 4096  # bytes before the pixels of an AVIF, its metadata lies among them
_BAND = 256


def jpeg(data: Buffer, metadata: Metadata) -> bytes:
    """The JPEG with metadata; EXIF and XMP lose their largest parts where they do not fit in one segment each."""
    exif = exif_within(metadata.exif, _SEGMENT - len(_EXIF))
    xmp = xmp_within(metadata.xmp, _SEGMENT - len(_XMP))
    segments = [_segment(0xE1, _EXIF + exif)] if exif else []
    if xmp:
        segments.append(_segment(0xE1, _XMP + xmp))
    icc = metadata.icc
    profile = [icc[at : at + _ICC_SEGMENT] for at in range(0, len(icc), _ICC_SEGMENT)]
    if len(profile) <= 255:
        segments += [
            _segment(0xE2, struct.pack("12sBB", b"ICC_PROFILE\0", number, len(profile)) + part)
            for number, part in enumerate(profile, 1)
        ]
    # JFIF demands its own segment first.
    first = 4 + int.from_bytes(data[4:6]) if data[2:4] == b"\xff\xe0" else 2
    view = memoryview(data)
    return b"".join([view[:first], *segments, view[first:]])


def png(data: Buffer, metadata: Metadata) -> bytes:
    """The PNG with metadata."""
    chunks = []
    if metadata.cicp:
        chunks.append(_chunk(b"cICP", bytes([*metadata.cicp, 0, 1])))
    if metadata.icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.exif:
        chunks.append(_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    view = memoryview(data)
    first = len(_PNG) + 25  # IHDR
    return b"".join([view[:first], *chunks, view[first:]])


def avif(data: Buffer, metadata: Metadata) -> bytes:
    """The AVIF with colour codes in place of its own, if it has any and no profile; all else OpenCV does well."""
    packed = bytearray(data)
    at = packed.find(_NCLX, 0, _FRONT)
    if metadata.cicp and not metadata.icc and at >= 0:
        struct.pack_into(">HH", packed, at + len(_NCLX), *metadata.cicp)
    return bytes(packed)


def grey_png(grey: Plane, alpha: Plane, level: int) -> bytes:
    """A PNG of grey with alpha, which OpenCV can write as a colour picture only.

    Args:
        grey: HxW, uint8 or uint16.
        alpha: of the same shape and type.
        level: of zlib, 0 .. 9.
    """
    height, width = grey.shape
    bits = grey.dtype.itemsize * 8
    chunks = [_PNG, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 4, 0, 0, 0))]
    chunks += [_chunk(b"IDAT", part) for part in _deflated(grey, alpha, level) if part]
    return b"".join([*chunks, _chunk(b"IEND", b"")])


def jpeg2000(data: Buffer, metadata: Metadata) -> bytes:
    """The JP2 with metadata: the profile in place of its colour space, EXIF and XMP in boxes before the pixels."""
    boxes = []
    view = memoryview(data)
    for name, start, end in inner_boxes(view, 0, len(view)):
        if name == b"jp2c":
            if metadata.exif:
                boxes.append(_box(b"uuid", EXIF_UUID + metadata.exif))
            if metadata.xmp:
                boxes.append(_box(b"uuid", XMP_UUID + metadata.xmp))
        if name == b"jp2h" and metadata.icc:
            profile = b"\2\0\0" + metadata.icc
            parts = [
                _box(part, profile if part == b"colr" else view[own_start:own_end])
                for part, own_start, own_end in inner_boxes(view, start, end)
            ]
            boxes.append(_box(name, b"".join(parts)))
        else:
            boxes.append(_box(name, view[start:end]))
    return b"".join(boxes)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _deflated(grey: Plane, alpha: Plane, level: int) -> Iterator[bytes]:
    """The pixels in bands of rows, each row as its difference to the one above."""
    height, width = grey.shape
    size = 2 * grey.dtype.itemsize
    packer = zlib.compressobj(level)
    above = np.zeros((1, width * size), np.uint8)
    for top in range(0, height, _BAND):
        band = np.stack([grey[top : top + _BAND], alpha[top : top + _BAND]], axis=-1)
        band = band.astype(band.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(len(band), width * size)
        rows = np.full((len(band), 1 + width * size), 2, np.uint8)
        np.subtract(band, np.vstack([above, band[:-1]]), out=rows[:, 1:])
        above = band[-1:]
        yield packer.compress(rows.data)
    yield packer.flush()


def _box(name: bytes, body: Buffer) -> bytes:
    if len(body) + 8 < 1 << 32:
        return struct.pack(">I4s", len(body) + 8, name) + body
    return struct.pack(">I4sQ", 1, name, len(body) + 16) + body
