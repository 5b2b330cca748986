"""Enlarge pictures tile by tile, such that nobody can tell: a tile overlaps its neighbours by the network's halo.

A network of convolutions sees `halo` pixels beyond a pixel and pads with zeros beyond its input's edges. So a tile
gives exactly what the whole picture gives, wherever a pixel is `halo` or more away from those of the tile's edges that
are not edges of the picture. Only those pixels are kept, and no tile reaches beyond the picture: at its edges the
network then pads just as it does for the whole.

Work comes in jobs, one tile of one plane each, that know where their result belongs. All tiles of a plane have
the same shape, so jobs of several pictures can be put in one batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine.errors import PictureError
from sr_engine.models import Model
from sr_engine.pictures import Picture, Plane
from sr_engine.protocol import Code
from sr_engine.runtimes import Runtime

Pixels = npt.NDArray[np.float32]

# Longest side of a tile in pixels. The halo costs 1.3 times the work at 512 and 1.9 times at 256; the network's memory
# grows with the square, 0.3 GB at 512.
TILE = 512


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


def split(height: int, width: int, halo: int, *, size: int = TILE, fixed: bool = False) -> list[Tile]:
    """Tiles whose kept parts cover height x width pixels exactly once; all have the same shape.

    Args:
        height: of the picture.
        width: of the picture.
        halo: see `Model.halo`.
        size: longest side of a tile, more than 2 * halo; shorter sides of the picture are not split.
        fixed: whether tiles are exactly that long, for runtimes that prepare anew for every shape; else they are
            as short as the same number of tiles allows, which saves up to half of the work.

    Raises:
        ValueError: the size leaves nothing between the halos.
    """
    if size <= 2 * halo:
        raise ValueError(f"tiles of {size} pixels leave nothing between halos of {halo}")
    columns = _spans(width, halo, size, fixed)
    return [Tile(rows, column) for rows in _spans(height, halo, size, fixed) for column in columns]


def _spans(length: int, halo: int, size: int, fixed: bool) -> list[Span]:
    if length <= size:
        return [Span(0, length, 0, length)]
    inner = length - 2 * halo
    number = -(-inner // (size - 2 * halo))
    if not fixed:
        size = -(-inner // number) + 2 * halo
    spans: list[Span] = []
    kept = 0
    for index in range(number):
        # The last one is shifted inwards, to end with the picture.
        start = min(index * (size - 2 * halo), length - size)
        stop = start + size
        keep_to = length if stop == length else stop - halo
        spans.append(Span(start, stop, kept, keep_to))
        kept = keep_to
    return spans


class Network:
    """A loaded model: the runtime that runs it and the facts that the manifest knows."""

    def __init__(self, runtime: Runtime, model: Model) -> None:
        self.runtime = runtime
        self.model = model

    def __call__(self, tiles: Sequence[Plane]) -> list[Pixels]:
        """Enlarge a batch.

        Args:
            tiles: each HxWx3, blue, green, red; all of one shape.

        Returns:
            For each tile (scale * H)x(scale * W)x3, same order, on 0 .. 255, neither rounded nor clipped.

        Raises:
            PictureError: UPSCALE_FAILED, the network gave infinities or another size than it must.
        """
        batch = np.stack(tiles).transpose(0, 3, 1, 2)
        if self.model.color == "rgb":
            batch = batch[:, ::-1]
        scaled = np.multiply(batch, np.float32(self.model.value_range / 255), dtype=np.float32, order="C")
        result = self.runtime.run(scaled)
        number, _, height, width = batch.shape
        wanted = (number, 3, height * self.model.scale, width * self.model.scale)
        if result.shape != wanted or not np.isfinite(result).all():
            # Half precision overflows on some devices: black results, and nothing else would tell.
            raise PictureError(Code.UPSCALE_FAILED, "the network gave no sensible pixels for this picture")
        result = result * np.float32(255 / self.model.value_range)
        if self.model.color == "rgb":
            result = result[:, ::-1]
        return list(result.transpose(0, 2, 3, 1))


class Layer:
    """One plane that is being enlarged.

    Attributes:
        plane: HxWx3 or HxW.
        canvas: the result, scale times as high and wide; complete once every tile is put.
    """

    def __init__(self, plane: Plane, scale: int) -> None:
        self.plane = plane
        self.canvas: Plane = np.empty((plane.shape[0] * scale, plane.shape[1] * scale, *plane.shape[2:]), np.uint8)
        self._scale = scale

    def cut(self, tile: Tile) -> Plane:
        """The tile's pixels as the network takes them, HxWx3: a single channel is repeated."""
        rows, columns = tile
        piece = self.plane[rows.start : rows.stop, columns.start : columns.stop]
        return np.repeat(piece[:, :, None], 3, axis=2) if piece.ndim == 2 else piece

    def put(self, tile: Tile, result: Pixels) -> None:
        """Keep the inner part of what the network made of a tile, rounded to whole levels."""
        rows, columns = (
            slice((span.keep_from - span.start) * self._scale, (span.keep_to - span.start) * self._scale)
            for span in tile
        )
        kept = result[rows, columns]
        if self.canvas.ndim == 2:
            kept = kept.mean(axis=2)  # the three channels are the same grey, each with an error of its own
        self._target(tile)[:] = np.clip(np.rint(kept), 0, 255)

    def fill_if_constant(self, tile: Tile) -> bool:
        """Where a tile holds one value only, that is its result: say whether it was so."""
        piece = self.cut(tile)
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


class Enlargement:
    """One picture that is being enlarged.

    Attributes:
        jobs: what has to go through the network, in any order, together with jobs of other pictures or not.
    """

    def __init__(self, picture: Picture, model: Model, *, size: int = TILE, fixed: bool = False) -> None:
        self._picture = picture
        tiles = split(picture.height, picture.width, model.halo, size=size, fixed=fixed)
        colour = picture.colour
        if picture.alpha is not None:
            colour = bleed(colour, picture.alpha)
        self._colour = Layer(colour, model.scale)
        self.jobs = [Job(self._colour, tile) for tile in tiles]
        self._alpha = None
        if picture.alpha is not None:
            # Alpha goes through the network too. Bicubic would cost less, but then the outline of a logo or a cut-out
            # would be softer than what it outlines. Most of it is constant, and that part is free.
            alpha = self._alpha = Layer(picture.alpha, model.scale)
            self.jobs += [Job(alpha, tile) for tile in tiles if not alpha.fill_if_constant(tile)]

    def finish(self) -> Picture:
        """The enlarged picture, once all jobs are done."""
        alpha = self._alpha
        if alpha is not None:
            _keep_within_source(alpha)
        return replace(self._picture, colour=self._colour.canvas, alpha=None if alpha is None else alpha.canvas)


def run(jobs: Sequence[Job], network: Network, *, batch: int = 1) -> Iterator[int]:
    """Run jobs, consecutive ones of equal shape together; after each batch yield how many are done.

    Raises:
        PictureError: as `Network`.
    """
    done = 0
    while done < len(jobs):
        pieces = [jobs[done].layer.cut(jobs[done].tile)]
        for job in jobs[done + 1 : done + batch]:
            piece = job.layer.cut(job.tile)
            if piece.shape != pieces[0].shape:
                break
            pieces.append(piece)
        for job, result in zip(jobs[done:], network(pieces), strict=False):
            job.layer.put(job.tile, result)
        done += len(pieces)
        yield done


def enlarge(
    picture: Picture,
    network: Network,
    *,
    size: int = TILE,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picture:
    """A picture, `scale` times as high and wide.

    Args:
        picture: any size.
        network: what enlarges.
        size: longest side of a tile.
        report: told after every tile how many are done, and of how many.

    Raises:
        PictureError: as `Network`.
    """
    work = Enlargement(picture, network.model, size=size, fixed=network.runtime.fixed_shapes)
    for done in run(work.jobs, network):
        report(done, len(work.jobs))
    return work.finish()


def bleed(colour: Plane, alpha: Plane) -> Plane:
    """Give invisible pixels the colour of the nearest visible one.

    What editors leave there is mostly black, and the network would draw it into the visible edge as a dark fringe.
    """
    hidden = alpha == 0
    if hidden.all() or not hidden.any():
        return colour
    _, labels = cv2.distanceTransformWithLabels(hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    by_label = np.zeros((int(labels.max()) + 1, *colour.shape[2:]), np.uint8)
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
