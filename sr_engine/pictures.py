"""What a picture is between decoding and encoding: upright planes of samples, and what its file said beside them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sr_engine.formats.cicp import Codes
from sr_engine.headers import Kind

Plane = npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16


@dataclass(frozen=True)
class Metadata:
    """What is carried from the original to the result beside the samples; each part may be empty.

    Attributes:
        icc: colour profile.
        exif: a TIFF structure, without the "Exif" that some kinds put in front; its orientation is already applied.
        xmp: an XMP packet, XML in UTF-8.
        cicp: colour code points where they are not those of sRGB, see `sr_engine.formats.cicp`. A profile counts for
            more, except to PNG's readers.
    """

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    cicp: Codes | None = None


@dataclass(frozen=True)
class Picture:
    """Decoded samples of one picture, or of one page.

    All planes are of one type, uint8 or uint16, and use its whole range whatever the file's depth was.
    Transparency is straight, never premultiplied.

    Attributes:
        kind: of the file it came from.
        colour: HxWx3 in the order blue, green, red, or HxW where the picture is grey.
        alpha: HxW, the largest value is opaque; None where everything is.
        metadata: see there.
        bits: per sample in the file, 8 .. 16; more than 8 means uint16 planes.
    """

    kind: Kind
    colour: Plane
    alpha: Plane | None = None
    metadata: Metadata = field(default_factory=Metadata)
    bits: int = 8

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.colour.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.colour.shape[1])
