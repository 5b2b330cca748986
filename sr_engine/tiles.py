"""Enlarge pictures tile by tile, such that nobody can tell: a tile overlaps its neighbours by the network's halo.

A network of convolutions sees `halo` pixels beyond a pixel and pads with zeros beyond its input's edges. So a tile
gives exactly what the whole picture gives, wherever a pixel is `halo` or more away from those of the tile's edges that
are not edges of the picture. Only those pixels are kept, and no tile reaches beyond the picture: at its edges the
network then pads just as it does for the whole.

Work comes in jobs, one tile of one plane each, that know where their result belongs. All tiles of a plane have
the same shape, so jobs of several pictures can be put in one batch.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine.pictures import Picture, Plane

# oneDNN cuts rows into blocks, and finds good ones for multiples of 16, mostly for those of 4, and rarely for primes:
# 719 pixels wide took 2.6 times as long per pixel as 720, and other odd widths 1.25 times on average (EDSR 16 x 32,
# bf16 on AMX, OpenVINO 2026.4).
_EVEN = 16
_ODD_COST = 1.25


class Span(NamedTuple):
    """A tile along one axis, in pixels of the picture: it covers start .. stop and its keep_from .. keep_to counts."""

    start: int
    stop: int
    keep_from: int
    keep_to: int


class Tile(NamedTuple):
    """A tile: its rows and its columns."""

    rows: Span
    columns: Span


class Cutting(NamedTuple):
    """How pictures are cut.

    Attributes:
        halo: see `Model.halo`.
        pixels: largest area of a tile.
        fixed: whether tiles are squares of just that area, as far as the picture allows, for runtimes that prepare
            anew for every shape; else they have the shape that costs the picture least.
        at_least: so many tiles, if they cost little: for as many streams that have nothing else to do.
        even_widths: whether the runtime is slow with widths that are no multiple of 4.
    """

    halo: int
    pixels: int
    fixed: bool = False
    at_least: int = 1
    even_widths: bool = False


def smallest_tile(halo: int) -> int:
    """The smallest area that `Cutting.pixels` can have: less than half of a side is halo."""
    return (4 * halo + 32) ** 2


def split(height: int, width: int, cutting: Cutting) -> list[Tile]:
    """Tiles whose kept parts cover height x width pixels exactly once; all have the same shape.

    Raises:
        ValueError: the area is below `smallest_tile`.
    """
    halo = cutting.halo
    if cutting.pixels < smallest_tile(halo):
        raise ValueError(f"tiles of {cutting.pixels} pixels are mostly halo ({halo})")
    if cutting.fixed:
        side = math.isqrt(cutting.pixels)
        rows, columns = (_cut(length, halo, min(length, side)) for length in (height, width))
    else:
        tall, wide = _cheapest(height, width, cutting)
        rows, columns = _cut(height, halo, tall), _cut(width, halo, wide)
    return [Tile(row, column) for row in rows for column in columns]


def _cheapest(height: int, width: int, cutting: Cutting) -> tuple[int, int]:
    """Sides of the tiles that cover the picture with the least work altogether."""
    halo, best = cutting.halo, (math.inf, height, width)
    for down in range(1, height // (2 * halo + 32) + 2):
        tall = _side(height, down, halo)
        fewest = _fewest(width, cutting.pixels // tall, halo)
        for across in {fewest, fewest + cutting.even_widths, max(fewest, -(-cutting.at_least // down))}:
            exact = _side(width, across, halo)
            even = min(width, -(-exact // _EVEN) * _EVEN) if cutting.even_widths and across > 1 else exact
            for wide in {exact, even}:
                if tall * wide <= cutting.pixels:
                    # an idle stream, too, is worth a quarter of the work
                    idle = 1.25 if down * across < cutting.at_least else 1.0
                    odd = _ODD_COST if cutting.even_widths and wide % 4 else 1.0
                    best = min(best, (idle * odd * down * across * tall * wide, tall, wide))
    if best[0] == math.inf:
        raise AssertionError(f"no tiles of {cutting.pixels} pixels cover {height} x {width}")
    return best[1], best[2]


def _fewest(length: int, most: int, halo: int) -> int:
    """The fewest tiles over `length` pixels of which none is longer than `most`, if there are such."""
    inner = most - 2 * halo
    return 1 if length <= most or inner < 1 else -(-(length - 2 * halo) // inner)


def _side(length: int, number: int, halo: int) -> int:
    """Length of `number` equal tiles over `length` pixels."""
    return length if number == 1 or length <= 2 * halo else -(-(length - 2 * halo) // number) + 2 * halo


def _cut(length: int, halo: int, side: int) -> list[Span]:
    if side >= length:
        return [Span(0, length, 0, length)]
    spans: list[Span] = []
    kept = 0
    while kept < length:
        # The last one is shifted inwards, to end with the picture.
        start = min(len(spans) * (side - 2 * halo), length - side)
        keep_to = length if start + side == length else start + side - halo
        spans.append(Span(start, start + side, kept, keep_to))
        kept = keep_to
    return spans


class Layer:
    """One plane that is being enlarged.

    Attributes:
        plane: HxWx3 or HxW.
        canvas: the result, scale times as high and wide; complete once every tile is put.
    """

    def __init__(self, plane: Plane, scale: int) -> None:
        height, width = plane.shape[:2]
        self.plane = plane
        self.canvas: Plane = np.empty((height * scale, width * scale, *plane.shape[2:]), plane.dtype)
        self._scale = scale

    def cut(self, tile: Tile) -> Plane:
        """What the network gets for a tile: HxWx3; grey three times."""
        piece = self.plane[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]
        return np.repeat(piece[:, :, None], 3, axis=2) if piece.ndim == 2 else piece

    def put(self, tile: Tile, result: Plane) -> None:
        """Keep the inner part of what the network made of a tile."""
        rows, columns = (
            slice((span.keep_from - span.start) * self._scale, (span.keep_to - span.start) * self._scale)
            for span in tile
        )
        kept = result[rows, columns]
        if self.canvas.ndim == 2:
            # the three channels are the same grey, each with an error of its own
            kept = cv2.transform(kept, _AVERAGE)
        self._target(tile)[:] = kept

    def fill_if_constant(self, tile: Tile) -> bool:
        """Where a tile holds one value only, that is its result: say whether it was so."""
        piece = self.plane[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]
        value = piece.flat[0]
        if (piece != value).any():
            return False
        self._target(tile)[:] = value
        return True

    def _target(self, tile: Tile) -> Plane:
        rows, columns = (slice(span.keep_from * self._scale, span.keep_to * self._scale) for span in tile)
        return self.canvas[rows, columns]


class Job(NamedTuple):
    """One tile that has to go through the network."""

    layer: Layer
    tile: Tile

    @property
    def kind(self) -> tuple[int, int, np.dtype[np.unsignedinteger]]:
        """Jobs of equal kind can share a batch: height, width and type of their samples."""
        rows, columns = self.tile
        return rows.stop - rows.start, columns.stop - columns.start, self.layer.plane.dtype

    def piece(self) -> Plane:
        """What the network gets."""
        return self.layer.cut(self.tile)

    def finish(self, result: Plane) -> None:
        """Take what the network made of the piece."""
        self.layer.put(self.tile, result)


class Enlargement:
    """One picture that is being enlarged.

    Attributes:
        jobs: what has to go through the network, in any order, together with jobs of other pictures or not.
    """

    def __init__(self, picture: Picture, scale: int, cutting: Cutting) -> None:
        self._picture = picture
        tiles = split(picture.height, picture.width, cutting)
        colour = picture.colour
        if picture.alpha is not None:
            colour = bleed(colour, picture.alpha)
        self._colour = Layer(colour, scale)
        self.jobs = [Job(self._colour, tile) for tile in tiles]
        self._alpha = None
        if picture.alpha is not None:
            # Alpha goes through the network too. Bicubic would cost less, but then the outline of a logo or a cut-out
            # would be softer than what it outlines. Most of it is constant, and that part is free.
            alpha = self._alpha = Layer(picture.alpha, scale)
            self.jobs += [Job(alpha, tile) for tile in tiles if not alpha.fill_if_constant(tile)]

    def finish(self) -> Picture:
        """The enlarged picture, once all jobs are done."""
        alpha = self._alpha
        if alpha is not None:
            _keep_within_source(alpha)
        return replace(self._picture, colour=self._colour.canvas, alpha=None if alpha is None else alpha.canvas)


def bleed(colour: Plane, alpha: Plane) -> Plane:
    """Give invisible pixels the colour of the nearest visible one.

    What editors leave there is mostly black, and the network would draw it into the visible edge as a dark fringe.
    """
    hidden = alpha == 0
    if hidden.all() or not hidden.any():
        return colour
    _, labels = cv2.distanceTransformWithLabels(hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    by_label = np.zeros((int(labels.max()) + 1, *colour.shape[2:]), colour.dtype)
    by_label[labels[~hidden]] = colour[~hidden]
    filled = colour.copy()
    filled[hidden] = by_label[labels[hidden]]
    return filled


def _keep_within_source(alpha: Layer) -> None:
    """Clip to the range of the source's 3x3 neighbourhood: no ringing, and opaque or invisible areas stay just so."""
    height, width = alpha.canvas.shape[:2]
    around = np.ones((3, 3), np.uint8)
    for extreme, clip in ((cv2.erode, np.maximum), (cv2.dilate, np.minimum)):
        limit = cv2.resize(extreme(alpha.plane, around), (width, height), interpolation=cv2.INTER_NEAREST)
        clip(alpha.canvas, limit, out=alpha.canvas)


_AVERAGE: npt.NDArray[np.float32] = np.full((1, 3), 1 / 3, np.float32)
