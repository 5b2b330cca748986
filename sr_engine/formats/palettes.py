"""Pictures of at most 256 colours: GIF."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sr_engine.pictures import Plane

_BAND = 256
_MOST_COLOURS = 256
_INVISIBLE = 1 << 24


def indexed(colour: Plane, alpha: Plane | None) -> list[int] | None:
    """All colours of a picture, ascending; None where a GIF cannot hold it as it is.

    Args:
        colour: uint8, HxW or HxWx3.
        alpha: uint8, HxW; half transparency is what a GIF cannot hold.

    Returns:
        Numbers 0xBBGGRR, and 0x1000000 for all that is invisible.
    """
    found: set[int] = set()
    for top, numbers in _bands(colour, alpha):
        if alpha is not None and not np.isin(alpha[top : top + _BAND], (0, 255)).all():
            return None
        found.update(np.unique(numbers).tolist())
        if len(found) > _MOST_COLOURS:
            return None
    return sorted(found)


def losses(colour: Plane, alpha: Plane | None) -> list[str]:
    """What `gif` loses of a picture: sentences without their full stops."""
    hard = _hardened(alpha)
    found = []
    if indexed(colour, hard) is None:
        found.append("GIF holds 256 colours: the others were replaced")
    if alpha is not None and hard is not None and not np.array_equal(alpha, hard):
        found.append("GIF has no half transparency: it was made hard")
    return found


def gif(colour: Plane, alpha: Plane | None) -> bytes:
    """A GIF, opaque from alpha 128 on: of all visible colours, or of the 256 that fit best where there are more."""
    from PIL import Image  # noqa: PLC0415 - slow to load

    height, width = colour.shape[:2]
    alpha = _hardened(alpha)
    colours = indexed(colour, alpha)
    if colours is None:
        rgb = np.dstack([colour] * 3) if colour.ndim == 2 else np.ascontiguousarray(colour[:, :, ::-1])
        free = 0 if alpha is None else 1
        reduced = Image.fromarray(rgb).quantize(_MOST_COLOURS - free)
        table = bytes(reduced.getpalette() or b"")[: 3 * (_MOST_COLOURS - free)]
        numbers = np.array(reduced)
        transparent = None
        if alpha is not None:
            transparent = len(table) // 3
            numbers[alpha < 128] = transparent
            table += bytes(3)
    else:
        known = np.array(colours, np.uint32)
        numbers = np.empty((height, width), np.uint8)
        for top, band in _bands(colour, alpha):
            numbers[top : top + _BAND] = np.searchsorted(known, band)
        table = b"".join((number & 0xFFFFFF).to_bytes(3, "little") for number in colours)
        transparent = len(colours) - 1 if colours[-1] == _INVISIBLE else None
    image = Image.frombuffer("P", (width, height), numbers, "raw", "P", 0, 1)
    image.putpalette(table)
    file = io.BytesIO()
    # "optimize" would count the colours once more.
    image.save(file, "GIF", optimize=False, **({} if transparent is None else {"transparency": transparent}))
    return file.getvalue()


def _hardened(alpha: Plane | None) -> Plane | None:
    return None if alpha is None else np.where(alpha < 128, np.uint8(0), np.uint8(255))


def _bands(colour: Plane, alpha: Plane | None) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Each band of rows: its first row, and the colours in it as numbers."""
    for top in range(0, len(colour), _BAND):
        band = colour[top : top + _BAND].astype(np.uint32)
        blue, green, red = (band, band, band) if band.ndim == 2 else np.moveaxis(band, -1, 0)
        numbers = red | green << np.uint32(8) | blue << np.uint32(16)
        if alpha is not None:
            numbers[alpha[top : top + _BAND] == 0] = _INVISIBLE
        yield top, numbers
