"""Tiles: nobody can tell that there were any, and transparency comes out as clean as colour."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from engine_files import draw

from sr_engine import tiles
from sr_engine.decoding import decode
from sr_engine.errors import PictureError
from sr_engine.headers import Kind
from sr_engine.pictures import Picture
from sr_engine.protocol import Code
from sr_engine.tiles import Enlargement, Network, enlarge, split

SET5 = Path(__file__).resolve().parents[3] / "shared" / "pictures" / "Set5"


def whole(plane, network):
    """The plane through the network in one piece."""
    planes = np.repeat(plane[:, :, None], 3, axis=2) if plane.ndim == 2 else plane
    result = network([planes])[0]
    if plane.ndim == 2:
        result = result.mean(axis=2)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("halo", [0, 1, 7, 35])
def test_every_pixel_is_kept_once_and_has_its_halo(halo, fixed):
    for length, beyond in itertools.product(range(1, 400), (1, 2, 30)):
        size = 2 * halo + beyond
        parts = split(length, 1, halo, size=size, fixed=fixed)
        kept = [pixel for rows, _ in parts for pixel in range(rows.keep_from, rows.keep_to)]
        assert kept == list(range(length))
        assert len({rows.stop - rows.start for rows, _ in parts}) == 1
        if length > size and fixed:
            assert parts[0].rows.stop == size
        for rows, columns in parts:
            assert 0 <= rows.start < rows.stop <= length
            assert rows.stop - rows.start <= max(size, 1)
            assert rows.start == 0 or rows.keep_from - rows.start >= halo
            assert rows.stop == length or rows.stop - rows.keep_to >= halo
            assert columns == (0, 1, 0, 1)


def test_a_tile_that_is_all_halo_is_refused():
    with pytest.raises(ValueError, match="leave nothing"):
        split(100, 100, 35, size=70)


SIZES = [(1, 1), (1, 300), (300, 1), (40, 50), (128, 128), (129, 128), (129, 129), (300, 200), (60, 259)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiled_equals_whole(network, height, width):
    picture = Picture(Kind.PNG, draw(height, width))
    expected = whole(picture.colour, network).astype(int)
    result = enlarge(picture, network, size=128)
    assert result.colour.shape == (3 * height, 3 * width, 3)
    assert np.abs(result.colour - expected).max() <= 1


@pytest.mark.parametrize("fixed", [False, True])
def test_tiled_equals_whole_at_the_size_of_tiles_in_use(network, model, fixed):
    picture = Picture(Kind.PNG, draw(tiles.TILE + 1, 90))
    work = Enlargement(picture, model, fixed=fixed)
    assert len(work.jobs) == 2
    assert list(tiles.run(work.jobs, network)) == [1, 2]
    assert np.abs(work.finish().colour - whole(picture.colour, network).astype(int)).max() <= 1


def test_a_halo_that_is_too_small_would_show(network, model):
    """The comparison above can fail: with half of the halo it does."""
    import msgspec

    careless = Network(network.runtime, msgspec.structs.replace(model, halo=6))
    picture = Picture(Kind.PNG, draw(200, 200))
    difference = enlarge(picture, careless, size=64).colour - whole(picture.colour, network).astype(int)
    assert np.abs(difference).max() > 1


def test_jobs_of_several_pictures_share_batches(network, model):
    pictures = [Picture(Kind.PNG, draw(60, 70, seed)) for seed in (1, 2, 3)] + [Picture(Kind.PNG, draw(30, 70))]
    works = [Enlargement(picture, model) for picture in pictures]
    jobs = [job for work in works for job in work.jobs]
    assert list(tiles.run(jobs, network, batch=2)) == [2, 3, 4]
    for picture, work in zip(pictures, works, strict=True):
        assert np.abs(work.finish().colour - whole(picture.colour, network).astype(int)).max() <= 1


def test_progress_counts_to_the_number_of_tiles(network):
    heard = []
    enlarge(Picture(Kind.PNG, draw(130, 100)), network, size=128, report=lambda *counts: heard.append(counts))
    assert heard == [(1, 2), (2, 2)]


def test_the_result_looks_like_the_source_only_larger(network):
    source = cv2.GaussianBlur(draw(80, 100), (0, 0), 2)
    result = enlarge(Picture(Kind.JPEG, source), network)
    back = cv2.resize(result.colour, (100, 80), interpolation=cv2.INTER_AREA)
    assert np.abs(back.astype(int) - source).mean() < 1.5
    assert result.kind is Kind.JPEG


def test_grey_stays_grey_and_near_the_colour_result(network):
    grey = draw(60, 50)[:, :, 1].copy()
    result = enlarge(Picture(Kind.PNG, grey, None, b"profile"), network)
    assert result.colour.shape == (180, 150)
    assert result.icc == b"profile"
    colour = enlarge(Picture(Kind.PNG, np.dstack([grey] * 3)), network).colour
    assert np.abs(result.colour - colour.mean(axis=2)).max() <= 1


def disc(height=90, width=100):
    """A white disc, on black that is invisible."""
    alpha = np.zeros((height, width), np.uint8)
    cv2.circle(alpha, (50, 45), 30, 255, -1, cv2.LINE_AA)
    colour = np.where(alpha[:, :, None] > 0, np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    return colour, alpha


@pytest.mark.parametrize("grey", [False, True])
def test_no_dark_fringe_around_what_is_visible(network, grey):
    colour, alpha = disc()
    naive = whole(colour, network)
    if grey:
        colour = colour[:, :, 0].copy()
    result = enlarge(Picture(Kind.PNG, colour, alpha), network, size=80)
    assert result.colour.shape[:2] == result.alpha.shape == (270, 300)
    visible = result.alpha > 0
    assert result.colour[visible].min() >= 250
    assert naive[visible].min() < 100  # what the network makes of it otherwise


def test_alpha_has_crisp_edges_and_no_ringing(network):
    colour, alpha = disc()
    result = enlarge(Picture(Kind.PNG, colour, alpha), network, size=80).alpha
    inside = cv2.erode(alpha, np.ones((5, 5), np.uint8)).repeat(3, 0).repeat(3, 1) == 255
    outside = cv2.dilate(alpha, np.ones((5, 5), np.uint8)).repeat(3, 0).repeat(3, 1) == 0
    assert set(result[inside]) == {255}
    assert set(result[outside]) == {0}
    bicubic = cv2.resize(alpha, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    soft = [np.count_nonzero((plane > 20) & (plane < 235)) for plane in (result, bicubic)]
    assert soft[0] < soft[1]


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_alpha_is_filled_not_computed(model, value):
    picture = Picture(Kind.PNG, draw(50, 60), np.full((50, 60), value, np.uint8))
    work = Enlargement(picture, model)
    assert len(work.jobs) == 1
    assert set(np.unique(work.finish().alpha)) == {value}


def test_bleeding_takes_the_nearest_visible_colour():
    colour = np.zeros((1, 9, 3), np.uint8)
    colour[0, 1], colour[0, 8] = (10, 20, 30), (200, 210, 220)
    alpha = np.zeros((1, 9), np.uint8)
    alpha[0, 1], alpha[0, 8] = 1, 255
    filled = tiles.bleed(colour, alpha)
    assert filled[0, :, 0].tolist() == [10] * 5 + [200] * 4
    assert np.array_equal(colour[0, 2], (0, 0, 0))
    for constant in (0, 255):
        assert tiles.bleed(colour, np.full((1, 9), constant, np.uint8)) is colour


class Broken:
    """A runtime whose arithmetic overflows, as half precision does on some devices."""

    name, device, precision, fixed_shapes = "broken", "cpu", "fp16", False

    def run(self, batch):
        result = np.zeros((batch.shape[0], 3, batch.shape[2] * 3, batch.shape[3] * 3), np.float32)
        result[0, 0, 0, 0] = np.nan
        return result


def test_infinities_are_an_error_not_a_black_picture(model):
    with pytest.raises(PictureError) as caught:
        enlarge(Picture(Kind.PNG, draw()), Network(Broken(), model))
    assert caught.value.code is Code.UPSCALE_FAILED


def luma(picture):
    """Y of BT.601 in studio range, as the papers measure it."""
    blue, green, red = (picture[:, :, channel].astype(np.float64) / 255 for channel in range(3))
    return 16 + 65.481 * red + 128.553 * green + 24.966 * blue


def psnr(result, truth):
    error = (luma(result) - luma(truth))[3:-3, 3:-3]
    return 10 * np.log10(255**2 / (error**2).mean())


@pytest.mark.skipif(not SET5.is_dir(), reason="the Set5 pictures are not here, and may not be in the project")
def test_quality_on_set5(network):
    ours, bicubic = [], []
    for path in sorted((SET5 / "HR").glob("*.png")):
        truth = decode(path.read_bytes()).colour
        source = decode((SET5 / "LRx3" / path.name).read_bytes())
        ours.append(psnr(enlarge(source, network, size=110).colour, truth))
        larger = cv2.resize(source.colour, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        bicubic.append(psnr(larger, truth))
    assert len(ours) == 5
    assert np.mean(ours) == pytest.approx(33.68, abs=0.01)
    assert np.mean(ours) > np.mean(bicubic) + 2.5
