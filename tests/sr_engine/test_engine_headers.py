"""Headers: kind and size by content, whatever the bytes are."""

import contextlib
import io
import random
import re
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from engine_files import (
    bmp,
    bmp_rows,
    deepened,
    draw,
    heic,
    jpeg2000_of_12_bits,
    jpeg_segment,
    jpeg_with,
    pages,
    png,
    ramp,
    relabelled,
    saved,
    tiff,
    two_frames,
    written,
)
from metadata_files import exif

from sr_engine.headers import HeaderError, Kind, read_header
from sr_engine.protocol import Code

COLOUR = draw(20, 24)
GREY = COLOUR[:, :, 1].copy()
WITH_ALPHA = np.dstack([COLOUR, ramp(20, 24)])
RGB = COLOUR[:, :, ::-1].copy()

DEEP = deepened(COLOUR)

FILES = {
    "jpeg": (Kind.JPEG, written(".jpg", COLOUR)),
    "jpeg progressive": (Kind.JPEG, written(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "jpeg grey": (Kind.JPEG, written(".jpg", GREY)),
    "png": (Kind.PNG, written(".png", COLOUR)),
    "png alpha": (Kind.PNG, written(".png", WITH_ALPHA)),
    "webp lossy": (Kind.WEBP, written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 80)),
    "webp lossless": (Kind.WEBP, written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 101)),
    "webp extended": (Kind.WEBP, written(".webp", WITH_ALPHA, cv2.IMWRITE_WEBP_QUALITY, 80)),
    "tiff": (Kind.TIFF, written(".tiff", COLOUR)),
    "tiff big-endian": (Kind.TIFF, tiff(RGB, order=">")),
    "bigtiff": (Kind.TIFF, tiff(RGB, big=True)),
    "bigtiff big-endian": (Kind.TIFF, tiff(RGB, big=True, order=">")),
    "bmp": (Kind.BMP, written(".bmp", COLOUR)),
    "bmp alpha": (Kind.BMP, written(".bmp", WITH_ALPHA)),
    "bmp top-down": (Kind.BMP, bmp(24, -20, 24, bmp_rows(COLOUR[::-1]))),
    "bmp core": (Kind.BMP, bmp(24, 20, 24, bmp_rows(COLOUR), size=12)),
    "bmp os/2": (Kind.BMP, bmp(24, 20, 24, bmp_rows(COLOUR), size=64, tail=bytes(24))),
    "gif": (Kind.GIF, saved(RGB, "GIF")),
    "avif": (Kind.AVIF, written(".avif", COLOUR)),
    "avif alpha": (Kind.AVIF, written(".avif", WITH_ALPHA)),
    "heic": (Kind.HEIC, heic(RGB)),
    "jpeg 2000": (Kind.JPEG2000, saved(RGB, "JPEG2000", num_resolutions=1)),
    "jpeg 2000 bare": (Kind.JPEG2000, saved(RGB, "JPEG2000", no_jp2=True, num_resolutions=1)),
}


def header_of(data):
    return read_header(io.BytesIO(data))


@pytest.mark.parametrize("name", FILES)
def test_kind_and_size(name):
    kind, data = FILES[name]
    header = header_of(data)
    assert (header.kind, header.width, header.height, header.obstacle) == (kind, 24, 20, "")
    assert header.bits in (8, 24, 32)


def test_a_segment_with_a_thumbnail_is_skipped():
    inner = written(".jpg", draw(8, 8))
    data = jpeg_with(FILES["jpeg"][1], jpeg_segment(0xE1, b"Exif\0\0" + exif(6) + inner))
    assert (header_of(data).width, header_of(data).height) == (24, 20)


@pytest.mark.parametrize("name", FILES)
def test_cut_off_anywhere_is_an_error_or_the_same_size(name):
    _, data = FILES[name]
    refused = 0
    for length in range(len(data)):
        try:
            header = header_of(data[:length])
        except HeaderError as error:
            refused += 1
            assert error.code is Code.UNDECODABLE
        else:
            assert (header.width, header.height) == (24, 20)
    assert refused >= 20


@pytest.mark.parametrize("name", FILES)
def test_damaged_anywhere_is_an_error_or_a_header(name):
    _, data = FILES[name]
    chance = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(data[: chance.randrange(20, len(data) + 1)])
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
        try:
            header = header_of(bytes(damaged))
        except HeaderError:
            continue
        assert header.width >= 1
        assert header.height >= 1


def test_random_bytes_are_refused():
    chance = random.Random(11)
    starts = [data[:size] for _, data in FILES.values() for size in (2, 4, 8, 12)]
    for _ in range(3000):
        with pytest.raises(HeaderError):
            header_of(chance.randbytes(chance.randrange(0, 64)))
        data = chance.choice(starts) + chance.randbytes(chance.randrange(0, 200))
        try:
            header = header_of(data)
        except HeaderError:
            continue
        assert header.width >= 1


class Counting(io.BytesIO):
    """Counts what is read of it."""

    total = 0

    def read(self, size=-1, /):
        found = super().read(size)
        self.total += len(found)
        return found


def test_reading_is_bounded():
    loop = bytearray(tiff(RGB, pages=2))
    first = int.from_bytes(loop[4:8], "little")
    count = int.from_bytes(loop[first : first + 2], "little")
    loop[first + 2 + 12 * count : first + 6 + 12 * count] = loop[4:8]  # the first page follows itself
    hostile = [
        bytes(loop),
        b"\xff\xd8" + jpeg_segment(0xE1, b"") * 300_000,
        b"\xff\xd8" + b"\xff" * 1_000_000,
        FILES["png"][1][:33] + (b"\0\0\0\0tEXt" + bytes(4)) * 100_000,
    ]
    for data in hostile:
        file = Counting(data)
        with contextlib.suppress(HeaderError):
            assert read_header(file).width == 24
        assert file.total < 200_000


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_is_the_stored_one_whatever_the_orientation(orientation):
    header = header_of(tiff(RGB, t274=orientation))
    assert (header.width, header.height) == (24, 20)


DEPTHS = {
    "png": (written(".png", DEEP), 16, False),
    "png grey": (written(".png", DEEP[:, :, 0].copy()), 16, True),
    "tiff": (tiff(DEEP), 16, False),
    "tiff grey": (tiff(DEEP[:, :, 0].copy()), 16, True),
    "avif 10": (written(".avif", DEEP >> 6, cv2.IMWRITE_AVIF_DEPTH, 10), 10, False),
    "avif 12": (written(".avif", DEEP >> 4, cv2.IMWRITE_AVIF_DEPTH, 12), 12, False),
    "avif grey": (written(".avif", GREY), 8, True),
    "heic 10": (heic(DEEP, "RGB;16"), 10, False),
    "heic grey": (heic(GREY, "L"), 8, True),
    "jpeg 2000 12": (jpeg2000_of_12_bits(DEEP[:, :, 0] >> 4), 12, True),
    "jpeg 2000 16": (saved(DEEP[:, :, 0].copy(), "JPEG2000"), 16, True),
    "gif grey": (saved(GREY, "GIF"), 8, True),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_and_grey(name):
    data, bits, grey = DEPTHS[name]
    header = header_of(data)
    assert (header.width, header.height, header.obstacle) == (24, 20, "")
    assert (header.bits, header.grey, header.deep) == (bits, grey, bits > 8)


def test_pages_are_told_with_their_sides():
    header = header_of(pages(tiff(RGB), tiff(GREY[:7]), tiff(DEEP)))
    assert (header.pages, header.further, header.bits, header.grey) == (3, ((24, 7), (24, 20)), 16, False)
    assert header.obstacle == ""
    assert header_of(pages(tiff(GREY), tiff(GREY))).grey
    assert "floating" in header_of(pages(tiff(RGB), tiff(GREY.astype(np.float32), t339=3))).obstacle


UNSUPPORTED = {
    "jpeg xl": (b"\xff\x0a" + bytes(20), "JPEG XL"),
    "another heif": (heic(RGB).replace(b"hvc1", b"vvc1"), "'vvc1'"),
    "video": (b"\0\0\0\x20ftypisom" + bytes(20), "a video, .*: save the frame you want"),
    "pdf": (b"%PDF-1.7\n", "PDF .*: convert it"),
    "zip": (b"PK\3\4" + bytes(20), "a ZIP archive, .*: unpack it"),
    "raw": (b"FUJIFILM" + bytes(20), "a raw photograph .*: develop it"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_kinds_are_named(name):
    data, named = UNSUPPORTED[name]
    with pytest.raises(HeaderError, match=named) as caught:
        header_of(data)
    assert caught.value.code is Code.UNSUPPORTED


OBSTACLES = {
    "float tiff": (tiff(GREY.astype(np.float32), t339=3), "floating-point"),
    "signed tiff": (tiff(GREY.astype(np.int8), t339=2), "signed"),
    "apng": (two_frames("PNG"), "animated PNG"),
    "animated webp": (two_frames("WEBP"), "animated WebP"),
    "animated gif": (two_frames("GIF"), "animated GIF"),
    "animated avif": (two_frames("AVIF"), "animated AVIF"),
    "12-bit jpeg": (written(".jpg", COLOUR).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12-bit JPEG"),
    "16-bit cmyk": (tiff(np.dstack([DEEP, DEEP[:, :, 0]]), photometric=5), "16 bits per sample"),
    "16-bit grey with alpha": (tiff(DEEP[:, :, :2].copy(), photometric=1, t338=2), "16 bits per sample"),
    "16-bit planes": (tiff(DEEP, t284=2), "stored apart"),
    "grey and something": (tiff(np.dstack([GREY, GREY]), photometric=1), "2 channels"),
    "five samples": (tiff(np.dstack([WITH_ALPHA, GREY]), photometric=2), "5 channels"),
    "raw photograph": (tiff(RGB, t254=1), "raw photograph"),
    "zstandard tiff": (saved(RGB, "TIFF", compression="zstd"), "compression 50000"),
    "hierarchical jpeg": (FILES["jpeg"][1].replace(b"\xff\xc0", b"\xff\xc5"), "hierarchical"),
    "hdr avif": (relabelled(FILES["avif"][1], 9, 16), "HDR"),
    "bmp of other masks": (
        bmp(24, 20, 32, bytes(4 * 480), packing=3, tail=bytes.fromhex("ff00000000ff00000000ff00")),
        "masks",
    ),
    "bmp of 10 bits a channel": (
        bmp(24, 20, 32, bytes(4 * 480), size=56, packing=3, tail=struct.pack("<4I", 0x3FF00000, 0xFFC00, 0x3FF, 0)),
        "masks",
    ),
    "bmp of packing 6": (bmp(24, 20, 32, bytes(4 * 480), packing=6, tail=bytes(16)), "packing 6"),
    "10-bit grey with alpha": (
        saved(np.dstack([GREY, GREY]), "AVIF", subsampling="4:0:0").replace(b"av1C\x81\x00\x1c", b"av1C\x81\x00\x5c"),
        "10-bit AVIF",
    ),
    "sycc of one channel": (
        saved(GREY, "JPEG2000", num_resolutions=1).replace(b"colr\1\0\0\0\0\0\x11", b"colr\1\0\0\0\0\0\x12"),
        "JPEG 2000",
    ),
    "16-bit bmp": (bmp(24, 20, 16, bytes(48 * 20)), "16 bits per pixel"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_sound_pictures_that_are_not_handled_say_so(name):
    data, named = OBSTACLES[name]
    header = header_of(data)
    assert (header.width, header.height) == (24, 20)
    assert named in header.obstacle
    assert re.search(r"(: |, )(convert it to|save it|save the frame|develop it to) ", header.obstacle), "what to do"


def test_a_thumbnail_page_is_no_second_page():
    data = bytearray(tiff(RGB, pages=2, t254=1))
    first = int.from_bytes(data[4:8], "little")
    assert data[first + 2 : first + 4] == (254).to_bytes(2, "little")
    data[first + 10] = 0  # the first page is a full one, the second stays a reduced copy
    assert header_of(bytes(data)).obstacle == ""


@pytest.mark.parametrize(
    ("data", "named"),
    [(b"", "empty"), (bytes(5000), "only zeros"), (b"hello, this is text", "not a picture")],
)
def test_what_is_no_picture_is_told_in_a_sentence(data, named):
    with pytest.raises(HeaderError, match=named) as caught:
        header_of(data)
    assert caught.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("sides", [(0, 5), (5, 0)])
def test_no_pixels_is_damage(sides):
    with pytest.raises(HeaderError, match="claims"):
        header_of(png(*sides, 8, 2, [b""]))


LIGHT = ("protocol", "errors", "models", "headers", "limits", "runtimes")
LIGHT_FORMATS = (
    "formats",
    "formats.tags",
    "formats.boxes",
    "formats.gif",
    "formats.jpeg2000",
    "formats.cicp",
    "formats.foreign",
    "formats.structure",
)


@pytest.mark.parametrize("module", [*LIGHT, *LIGHT_FORMATS])
def test_light_modules_stay_light(module):
    code = (
        f"import sys, sr_engine.{module}; "
        "sys.exit(', '.join({'numpy', 'cv2', 'PIL', 'onnxruntime', 'watcher'} & set(sys.modules)) or None)"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
