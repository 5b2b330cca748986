"""Tiles: nobody can tell that there were any, and transparency comes out as clean as colour."""

import itertools
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from engine_files import draw
from networks import enlarge

from sr_engine import tiles
from sr_engine.formats.decoding import decode
from sr_engine.headers import Kind
from sr_engine.network import Network
from sr_engine.pictures import Metadata, Picture
from sr_engine.tiles import Cutting, Enlargement, smallest_tile, split

SET5 = Path(__file__).resolve().parents[3] / "shared" / "pictures" / "Set5"
SMALL = 200 * 200


def whole(plane, network):
    """The plane through the network in one piece."""
    planes = np.repeat(plane[:, :, None], 3, axis=2) if plane.ndim == 2 else plane
    result = network([planes])[0]
    return result.mean(axis=2).round() if plane.ndim == 2 else result


def area(parts):
    rows, columns = parts[0]
    return (rows.stop - rows.start) * (columns.stop - columns.start)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("halo", [0, 1, 7, 35])
@pytest.mark.parametrize("at_least", [1, 4])
@pytest.mark.parametrize("even", [False, True])
def test_every_pixel_is_kept_once_and_has_its_halo(halo, fixed, at_least, even):
    for cutting in (Cutting(halo, smallest_tile(halo) + beyond, fixed, at_least, even) for beyond in (0, 1, 5000)):
        for height, width in itertools.product((1, 2, 50, 171, 333, 1000, 2873), (1, 3, 70, 71, 172, 400, 886, 1501)):
            parts = split(height, width, cutting)
            kept = np.zeros((height, width), np.uint8)
            for part in parts:
                kept[part.rows.keep_from : part.rows.keep_to, part.columns.keep_from : part.columns.keep_to] += 1
                for span, length in zip(part, (height, width), strict=True):
                    assert 0 <= span.start < span.stop <= length
                    assert span.start == 0 or span.keep_from - span.start >= halo
                    assert span.stop == length or span.stop - span.keep_to >= halo
            assert kept.min() == kept.max() == 1
            assert len({(r.stop - r.start, c.stop - c.start) for r, c in parts}) == 1
            assert area(parts) <= cutting.pixels


def test_a_tile_that_is_mostly_halo_is_refused():
    with pytest.raises(ValueError, match="mostly halo"):
        split(100, 100, Cutting(35, smallest_tile(35) - 1))


@pytest.mark.parametrize(
    ("height", "width", "most"), [(700, 900, 1.0), (1224, 1632, 1.1), (4000, 6000, 1.15), (1, 60_000, 1.0)]
)
def test_little_is_computed_twice(height, width, most):
    """Of the halo's cost: a picture that fits is not cut, others into tiles as large as they may be."""
    parts = split(height, width, Cutting(35, 768 * 1024))
    assert len(parts) * area(parts) / (height * width) <= most


def test_a_picture_is_cut_for_idle_streams_where_that_costs_little():
    assert len(split(700, 900, Cutting(35, 768 * 1024, at_least=2))) == 2
    assert len(split(100, 100, Cutting(35, 768 * 1024, at_least=2))) == 1


def test_fixed_tiles_have_one_shape_for_all_large_pictures():
    shapes = set()
    for height, width in ((600, 700), (1224, 1632), (4000, 999)):
        ((rows, columns), *_) = split(height, width, Cutting(35, 512 * 512, fixed=True))
        shapes.add((rows.stop, columns.stop))
    assert shapes == {(512, 512)}


SIZES = [(1, 1), (1, 300), (300, 1), (40, 50), (128, 128), (129, 128), (129, 129), (300, 200), (60, 259)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("fixed", [False, True])
def test_tiled_equals_whole(exact_network, height, width, fixed):
    """For every runtime that is installed, in fp32."""
    picture = Picture(Kind.PNG, draw(height, width))
    expected = whole(picture.colour, exact_network).astype(int)
    result = enlarge(picture, exact_network, SMALL, fixed=fixed)
    assert result.colour.shape == (3 * height, 3 * width, 3)
    assert np.abs(result.colour - expected).max() <= 1


def test_deep_samples_are_tiled_just_as_well(exact_network):
    samples = draw(260, 220).astype(np.uint16) * 257 + 40
    result = enlarge(Picture(Kind.PNG, samples, bits=16), exact_network, SMALL).colour
    assert result.dtype == np.uint16
    assert np.abs(result - whole(samples, exact_network).astype(int)).max() <= 4


def test_a_halo_that_is_too_small_would_show(network):
    """The comparison above can fail: with a tenth of the halo it does."""
    careless = Network(network.runtime, msgspec.structs.replace(network.model, halo=3), lambda: network.runtime)
    picture = Picture(Kind.PNG, draw(200, 200))
    difference = enlarge(picture, careless, 64 * 64).colour - whole(picture.colour, network).astype(int)
    assert np.abs(difference).max() > 1


def test_jobs_of_several_pictures_share_batches(network):
    pictures = [Picture(Kind.PNG, draw(60, 70, seed)) for seed in (1, 2, 3)]
    works = [Enlargement(picture, 3, Cutting(35, SMALL)) for picture in pictures]
    jobs = [job for work in works for job in work.jobs]
    assert len({job.kind for job in jobs}) == 1
    for job, result in zip(jobs, network([job.piece() for job in jobs]), strict=True):
        job.finish(result)
    for picture, work in zip(pictures, works, strict=True):
        assert np.abs(work.finish().colour - whole(picture.colour, network).astype(int)).max() <= 1


def test_the_result_looks_like_the_source_only_larger(network):
    source = cv2.GaussianBlur(draw(80, 100), (0, 0), 2)
    result = enlarge(Picture(Kind.JPEG, source), network)
    back = cv2.resize(result.colour, (100, 80), interpolation=cv2.INTER_AREA)
    assert np.abs(back.astype(int) - source).mean() < 1.5
    assert result.kind is Kind.JPEG


def test_grey_stays_grey_and_near_the_colour_result(network):
    grey = draw(60, 50)[:, :, 1].copy()
    result = enlarge(Picture(Kind.PNG, grey, None, Metadata(icc=b"profile")), network)
    assert result.colour.shape == (180, 150)
    assert result.metadata.icc == b"profile"
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
    result = enlarge(Picture(Kind.PNG, colour, alpha), network, SMALL)
    assert result.colour.shape[:2] == result.alpha.shape == (270, 300)
    visible = result.alpha > 0
    assert result.colour[visible].min() >= 250
    assert naive[visible].min() < 100  # what the network makes of it otherwise


def test_alpha_has_crisp_edges_and_no_ringing(network):
    colour, alpha = disc()
    result = enlarge(Picture(Kind.PNG, colour, alpha), network, SMALL).alpha
    inside = cv2.erode(alpha, np.ones((5, 5), np.uint8)).repeat(3, 0).repeat(3, 1) == 255
    outside = cv2.dilate(alpha, np.ones((5, 5), np.uint8)).repeat(3, 0).repeat(3, 1) == 0
    assert set(result[inside]) == {255}
    assert set(result[outside]) == {0}
    bicubic = cv2.resize(alpha, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    soft = [np.count_nonzero((plane > 20) & (plane < 235)) for plane in (result, bicubic)]
    assert soft[0] < soft[1]


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_alpha_is_filled_not_computed(value):
    picture = Picture(Kind.PNG, draw(50, 60), np.full((50, 60), value, np.uint8))
    work = Enlargement(picture, 3, Cutting(35, SMALL))
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
        truth = decode(path.read_bytes())[0].colour
        source = decode((SET5 / "LRx3" / path.name).read_bytes())[0]
        ours.append(psnr(enlarge(source, network, smallest_tile(35)).colour, truth))
        larger = cv2.resize(source.colour, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        bicubic.append(psnr(larger, truth))
    assert len(ours) == 5
    assert np.mean(ours) == pytest.approx(network.model.set5_psnr, abs=0.01)
    assert np.mean(ours) > np.mean(bicubic) + 2.5
