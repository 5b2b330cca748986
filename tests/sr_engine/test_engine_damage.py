"""Half a file, a damaged one, a bomb: each is refused with a reason, and nothing breaks."""

import io
import struct
import time

import cv2
import numpy as np
import pytest
from engine_files import (
    bmp,
    bmp_rows,
    cmyk_jpeg,
    deepened,
    draw,
    heic,
    jpeg_segment,
    jpeg_with,
    pages,
    png,
    ramp,
    saved,
    tiff,
    two_frames,
    written,
)
from metadata_files import exif

from sr_engine.errors import PictureError
from sr_engine.formats.decoding import decode
from sr_engine.formats.structure import examine
from sr_engine.headers import HeaderError, read_header
from sr_engine.limits import check
from sr_engine.protocol import Code, Limits, Output

COLOUR = draw(20, 24)
LARGER = draw(40, 48)
GREY = COLOUR[:, :, 1].copy()
WITH_ALPHA = np.dstack([COLOUR, ramp(20, 24)])
RGB, LARGER_RGB = COLOUR[:, :, ::-1].copy(), LARGER[:, :, ::-1].copy()

WHOLE = {
    "jpeg": written(".jpg", COLOUR),
    "jpeg progressive": written(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg restarts": written(".jpg", COLOUR, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "jpeg grey": written(".jpg", GREY),
    "jpeg cmyk": cmyk_jpeg(30, 180, 90, 128),
    "jpeg thumbnail": jpeg_with(
        written(".jpg", COLOUR), jpeg_segment(0xE1, b"Exif\0\0" + exif(6) + written(".jpg", draw(8, 8)))
    ),
    "png": written(".png", COLOUR),
    "png alpha": written(".png", WITH_ALPHA),
    "png 16": written(".png", deepened(COLOUR)),
    "webp lossy": written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 80),
    "webp lossless": written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp alpha": written(".webp", WITH_ALPHA, cv2.IMWRITE_WEBP_QUALITY, 80),
    "tiff lzw": written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "tiff strips": written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 3),
    "tiff": tiff(RGB),
    "tiff pages": pages(tiff(GREY), tiff(deepened(GREY)[:9]), tiff(RGB[:5])),
    "bmp": written(".bmp", COLOUR),
    "bmp alpha": written(".bmp", WITH_ALPHA),
    "bmp core": bmp(24, 20, 24, bmp_rows(COLOUR), size=12),
    "gif": saved(GREY, "GIF"),
    "avif": written(".avif", COLOUR),
    "avif alpha": saved(np.dstack([RGB, ramp(20, 24)]), "AVIF", exif=exif(6)),
    "heic": heic(LARGER_RGB, quality=30, exif=exif(1), xmp=b"<x/>"),
    "jpeg 2000": saved(LARGER_RGB, "JPEG2000", quality_mode="rates", quality_layers=[10]),
    "jpeg 2000 bare": saved(LARGER_RGB, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=[10]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_is_refused(name):
    data = WHOLE[name]
    assert decode(data)
    for length in range(0, len(data), 1 + len(data) // 1500):
        with pytest.raises(PictureError, match=r": copy (it|the picture) again") as caught:
            decode(data[:length])
        assert caught.value.code is Code.UNDECODABLE
        # Decoders refuse these as well when they read from memory; the walk must not lean on that.
        with pytest.raises(PictureError):
            examine(data[:length], read_header(io.BytesIO(data[:length])))


def test_a_tiff_whose_directory_comes_first_is_refused_when_cut():
    first = bytearray(tiff(GREY))
    start = int.from_bytes(first[4:8], "little")
    directory, pixels = first[start:], first[8 : 8 + GREY.size]
    moved = bytearray(b"II*\0\x08\0\0\0" + directory + pixels)
    where = moved.index(struct.pack("<HHI", 273, 4, 1)) + 8
    struct.pack_into("<I", moved, where, 8 + len(directory))
    (picture,) = decode(bytes(moved))
    assert np.array_equal(picture.colour, GREY)
    for length in range(len(moved)):
        with pytest.raises(PictureError):
            decode(bytes(moved[:length]))


def test_a_lossy_webp_with_a_large_flat_part_is_sound():
    """Its data ends in many zeros, which look like those of a file whose end was never written."""
    picture = np.full((1600, 1600, 3), 255, np.uint8)
    picture[:400] = np.random.default_rng(5).integers(0, 256, (400, 1600, 3), np.uint8)
    data = written(".webp", picture, cv2.IMWRITE_WEBP_QUALITY, 80)
    assert data.endswith(bytes(64)), "not the file that this test is about"
    assert decode(data)[0].colour.shape == picture.shape


BIG = draw(90, 120)
UNWRITTEN = {
    "jpeg": written(".jpg", BIG),
    "jpeg progressive": written(".jpg", BIG, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg thumbnail": jpeg_with(written(".jpg", BIG), jpeg_segment(0xE1, written(".jpg", COLOUR))),
    "png": written(".png", BIG),
    "gif": saved(BIG[:, :, ::-1].copy(), "GIF"),
    "avif": written(".avif", BIG, cv2.IMWRITE_AVIF_QUALITY, 95),
    "heic": heic(BIG[:, :, ::-1].copy(), quality=90),
    "jpeg 2000": saved(BIG[:, :, ::-1].copy(), "JPEG2000"),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_a_file_whose_end_was_never_written_is_refused(name):
    data = UNWRITTEN[name]
    for length in range(64, len(data) - 70, 97 + len(data) // 200):
        with pytest.raises(PictureError) as caught:
            decode(data[:length] + bytes(len(data) - length))
        assert caught.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("trailer", [b"\0" * 40, b"\xff\xd8\xff\xe0 a second picture", b"SEFH Samsung \xff\xd9"])
def test_trailing_bytes_are_tolerated(trailer):
    for name in ("jpeg", "jpeg progressive", "png", "webp lossy", "bmp", "gif", "jpeg 2000 bare"):
        assert np.array_equal(decode(WHOLE[name] + trailer)[0].colour, decode(WHOLE[name])[0].colour)


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_never_anything_but_a_picture_error(name):
    rng = np.random.default_rng(5)
    data = WHOLE[name]
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = rng.integers(0, 256)
        try:
            check(read_header(io.BytesIO(damaged)), len(damaged), Limits(pixels=1_000_000), Output(), scale=3)
            (picture, *_) = decode(bytes(damaged))
        except PictureError:
            continue
        assert picture.colour.size > 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_are_refused(kind):
    with pytest.raises(PictureError, match=r"animated .* save the frame you want") as caught:
        decode(two_frames(kind))
    assert caught.value.code is Code.UNSUPPORTED


def test_a_second_picture_far_behind_is_found():
    noise = np.random.default_rng(1).integers(0, 256, (900, 900), np.uint8)
    still, moved = saved(noise, "GIF"), two_frames("GIF")
    assert read_header(io.BytesIO(still)).obstacle == ""
    second = moved[moved.index(b"\x2c") :]
    with pytest.raises(PictureError, match="animated GIF"):
        decode(still[:-1] + second)


def test_a_container_that_lies_about_its_picture_is_refused():
    lying = bytearray(WHOLE["webp alpha"])
    lying[24:27] = (25 - 1).to_bytes(3, "little")
    with pytest.raises(PictureError, match="other pixels than its header claims"):
        decode(bytes(lying))
    jp2 = WHOLE["jpeg 2000"]
    at = jp2.index(b"ihdr") + 4
    with pytest.raises(PictureError, match="different sides"):
        decode(jp2[:at] + struct.pack(">II", 40, 49) + jp2[at + 8 :])
    at = WHOLE["heic"].index(b"ispe") + 8
    with pytest.raises(PictureError) as caught:
        decode(WHOLE["heic"][:at] + struct.pack(">II", 900, 901) + WHOLE["heic"][at + 8 :])
    assert caught.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("pixels", [np.zeros((300, 400), np.uint8), np.zeros((300, 400, 4), np.uint8)])
def test_an_avif_whose_coded_data_is_larger_than_its_boxes_say_is_refused(pixels):
    """The decoder would allocate what the data claims, and scale it down without a word."""
    data = bytearray(written(".avif", pixels))
    while (at := data.find(b"ispe" + struct.pack(">III", 0, 400, 300))) >= 0:
        data[at + 8 : at + 16] = struct.pack(">II", 24, 20)
    assert read_header(io.BytesIO(data)).pixels == 24 * 20
    with pytest.raises(PictureError, match="other pixels than its header claims"):
        decode(bytes(data))


def test_a_jpeg_of_endless_scans_is_refused():
    data = WHOLE["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    with pytest.raises(PictureError, match="more scans than any sound program writes"):
        decode(data[:last] + data[last:-2] * 600 + data[-2:])


def test_a_jpeg_whose_middle_was_never_written_is_refused():
    data = WHOLE["jpeg"][:-200] + bytes(120) + WHOLE["jpeg"][-80:]
    with pytest.raises(PictureError, match="never written"):
        decode(data)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("shape", [(900, 900), (900, 900, 3)])
def test_flat_jpegs_are_sound(shape, options):
    """With tables made for them they may be coded in zeros."""
    data = saved(np.full(shape, 128, np.uint8), "JPEG", **options)
    assert (bytes(64) in data) == bool(options)
    assert np.ptp(decode(data)[0].colour) == 0


def test_scans_are_counted_against_the_size():
    jpeg = written(".jpg", np.zeros((4000, 4000), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = jpeg.rindex(b"\xff\xda")
    with pytest.raises(PictureError, match="more scans than any sound program writes"):
        decode(jpeg[:last] + jpeg[last:-2] * 300 + jpeg[-2:])


@pytest.mark.parametrize("tag", [320, 34675, 258])
def test_tiffs_whose_tags_lie_behind_the_end_are_cut_off(tag):
    data = tiff(RGB, t320=bytes(1536), t34675=bytes(200))
    at = data.index(struct.pack("<H", tag), int.from_bytes(data[4:8], "little")) + 8
    moved = data[:at] + struct.pack("<I", len(data) - 4) + data[at + 4 :]
    with pytest.raises(PictureError, match="cut off"):
        decode(moved)


@pytest.mark.parametrize(
    "entry", [(3, 0x10000000, 0), (0, 1, 0), (3, 1000, 0x7FFFFFFF), (2, 1, 0), (16, 1, 0xFFFFFFFF)]
)
@pytest.mark.parametrize("tag", [256, 258, 262, 273, 274, 277, 278, 279, 338])
def test_tiffs_of_damaged_tags_are_refused_or_read(tag, entry):
    data = bytearray(tiff(np.dstack([RGB, ramp(20, 24)]), t338=2, t274=6))
    at = next(
        at
        for at in range(int.from_bytes(data[4:8], "little") + 2, len(data), 12)
        if data[at : at + 2] == struct.pack("<H", tag)
    )
    struct.pack_into("<HII", data, at + 2, *entry)
    try:
        assert len(decode(bytes(data))) == 1
    except PictureError as error:
        assert error.code in (Code.UNDECODABLE, Code.UNSUPPORTED)


@pytest.mark.parametrize("sides", [(60_000, 60_000), (2_000_000_000, 1), (20_000, 10_001)])
def test_bombs_are_refused_before_decoding(sides):
    bomb = png(*sides, 8, 2, [bytes(40_000)])
    begun = time.monotonic()
    with pytest.raises(PictureError) as caught:
        check(read_header(io.BytesIO(bomb)), len(bomb), Limits(), Output(), scale=3)
    assert caught.value.code is Code.TOO_LARGE
    assert str(sides[0]) in caught.value.message
    assert "limits." in caught.value.message
    assert time.monotonic() - begun < 1


def test_an_alpha_far_larger_than_its_picture_is_refused():
    """Decoders decode it whole before they find that the two do not fit."""
    data = bytearray(WHOLE["avif alpha"])
    size = struct.pack(">I", 20) + b"ispe" + struct.pack(">III", 0, 9000, 9000)
    end = data.index(b"ipma") - 4
    data[end:end] = size
    for name in (b"meta", b"iprp", b"ipco"):
        at = data.index(name) - 4
        data[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4]) + 20)
    at = data.index(b"\0\2\5\1\6") + 3  # the alpha's properties, its sides first
    data[at] = 9
    with pytest.raises(HeaderError, match="parts are far larger than its picture"):
        read_header(io.BytesIO(data))
