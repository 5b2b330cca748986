"""What a JPEG 2000 file says of its picture, bare or in boxes.

Light (no numpy, no cv2) and safe with hostile input: every read and every loop is bounded.
"""

import os
import struct
from typing import BinaryIO

import msgspec

from sr_engine.formats.boxes import MAX_BODY_BYTES, Box, BoxError, body_of, inner_boxes, outer_boxes

_STARTS_OF_CODESTREAM = b"\xff\x4f\xff\x51"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
EXIF_UUID = b"JpgTiffExif->JP2"


class Codestream(msgspec.Struct, kw_only=True):
    """A JPEG 2000 picture.

    Attributes:
        start, end: of its codestream.
        components: of each the bits, whether signed, and the horizontal and vertical subsampling.
        space: the enumerated colour space (16 sRGB, 17 grey, 18 sYCC, 12 CMYK); 0 where none is said.
        palette: whether the samples index a palette.
    """

    start: int
    end: int
    width: int
    height: int
    components: list[tuple[int, bool, int, int]]
    space: int = 0
    icc: bytes = b""
    palette: bool = False
    exif: bytes = b""
    xmp: bytes = b""


def read_codestream(file: BinaryIO) -> Codestream:
    """Find a JPEG 2000 picture, bare or in boxes.

    Raises:
        BoxError: there is none, or it is cut off or nonsense.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    found: dict[str, object] = {}
    stream = Box(b"jp2c", 0, size)
    try:
        if file.read(4) != _STARTS_OF_CODESTREAM:
            boxes = list(outer_boxes(file))
            stream = next((box for box in boxes if box.name == b"jp2c"), Box(b"", size, size))
            for box in boxes:
                if box.name == b"jp2h":
                    found |= _jp2_header(body_of(file, box))
                elif box.name == b"uuid" and box.end - box.start <= MAX_BODY_BYTES and box.end <= size:
                    body = body_of(file, box)
                    if body.startswith(XMP_UUID):
                        found["xmp"] = body[16:]
                    elif body.startswith(EXIF_UUID):
                        found["exif"] = body[16:]
        file.seek(stream.start)
        start = file.read(42)
        if not start.startswith(_STARTS_OF_CODESTREAM):
            raise BoxError("it has no codestream")
        right, bottom, left, top = struct.unpack_from(">4I", start, 8)
        (count,) = struct.unpack_from(">H", start, 40)
        components = [
            ((depth & 0x7F) + 1, depth >= 0x80, across, down)
            for depth, across, down in (struct.unpack(">BBB", file.read(3)) for _ in range(min(count, 64)))
        ]
    except (struct.error, IndexError) as error:
        raise BoxError("its header is cut off") from error
    width, height = max(0, right - left), max(0, bottom - top)
    if found.pop("sides", (width, height)) != (width, height):
        raise BoxError("its boxes and its codestream claim different sides")
    return msgspec.convert(
        {"start": stream.start, "end": stream.end, "width": width, "height": height, "components": components} | found,
        Codestream,
    )


def _jp2_header(body: bytes) -> dict[str, object]:
    found: dict[str, object] = {}
    for box in inner_boxes(body, 0, len(body)):
        if box.name == b"ihdr":
            height, width = struct.unpack_from(">II", body, box.start)
            found["sides"] = (width, height)
        elif box.name == b"colr" and not found.keys() & {"space", "icc"}:
            if body[box.start] == 1:
                (found["space"],) = struct.unpack_from(">I", body, box.start + 3)
            elif body[box.start] == 2:
                found["icc"] = body[box.start + 3 : box.end]
        elif box.name == b"pclr":
            found["palette"] = True
    return found
