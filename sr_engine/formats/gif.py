"""The blocks of a GIF: how large it is, what its palette is like, and how many pictures it holds.

Light (no numpy, no cv2) and safe with hostile input.
"""

import struct
from typing import BinaryIO

import msgspec


class Gif(msgspec.Struct, kw_only=True):
    """What a walk over the blocks found.

    Attributes:
        width, height: of the whole screen, in pixels.
        grey: whether the palette of the first picture holds greys only.
        alpha: whether it may be transparent.
        pictures: counted up to two.
        complete: whether the end of the file was met.
    """

    width: int
    height: int
    grey: bool = True
    alpha: bool = False
    pictures: int = 0
    complete: bool = False


def read_gif(file: BinaryIO, most_blocks: int) -> Gif:
    """Walk over the blocks, to the second picture at most.

    Args:
        file: seekable.
        most_blocks: where to give up; each is of 255 bytes at most.

    Raises:
        struct.error: it is cut off in its header.
    """
    file.seek(6)
    width, height, flags = struct.unpack("<HHBxx", file.read(7))
    found = Gif(width=width, height=height)
    palette = _palette(file, flags)
    while most_blocks > 0 and found.pictures < 2:
        kind = file.read(1)
        found.complete = kind == b"\x3b"
        if kind == b"\x21":
            found.alpha |= file.read(1) == b"\xf9" and _is_transparent(file)
        elif kind == b"\x2c":
            found.pictures += 1
            (own,) = struct.unpack("<8xB", file.read(9))
            palette = _palette(file, own) or palette
            file.read(1)  # how the samples are coded
        else:
            break
        while most_blocks > 0:
            most_blocks -= 1
            size = file.read(1)
            if size in (b"", b"\0"):
                break
            file.seek(size[0], 1)
    found.grey = palette[::3] == palette[1::3] == palette[2::3]
    return found


def _palette(file: BinaryIO, flags: int) -> bytes:
    return file.read(3 << (flags & 7) + 1) if flags & 0x80 else b""


def _is_transparent(file: BinaryIO) -> bool:
    block = file.read(2)
    file.seek(-len(block), 1)
    return len(block) == 2 and bool(block[1] & 1)
