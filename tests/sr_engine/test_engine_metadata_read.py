"""Reading metadata: what each kind of file says beside its pixels is found, and damage to it costs nothing else."""

import io
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
from engine_files import (
    deepened,
    draw,
    heic,
    jpeg_segment,
    jpeg_with,
    png_chunk,
    ramp,
    relabelled,
    saved,
    tiff,
    with_jp2_box,
    written,
)
from metadata_files import exif, icc_profile, photograph_exif, photograph_xmp
from PIL import Image

from sr_engine.formats.decoding import decode
from sr_engine.formats.encoding import encode
from sr_engine.headers import Kind, read_header
from sr_engine.pictures import Metadata, Picture
from sr_engine.protocol import Output

COLOUR = draw(40, 48)
ALPHA = ramp(40, 48)
RGB = COLOUR[:, :, ::-1].copy()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>a title</x:xmpmeta>"
LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def one(data):
    (picture,) = decode(data)
    return picture


@pytest.mark.parametrize("block", [b"", b"II*\0", exif(6)[:20], exif(0), exif(9), b"II*\0\xff\xff\xff\xff" + bytes(9)])
def test_damaged_exif_is_no_reason_to_refuse(block):
    jpeg = written(".jpg", COLOUR)
    picture = one(jpeg_with(jpeg, jpeg_segment(0xE1, b"Exif\0\0" + block)))
    assert np.array_equal(picture.colour, one(jpeg).colour)


def rich_exif():
    made = Image.Exif()
    made[0x10F] = "A maker"
    made[0x112] = 1
    made[0x8769] = {0x829A: (1, 250), 0x9003: "2026:01:02 03:04:05"}
    made[0x8825] = {1: "N", 2: (52.0, 31.0, 12.5)}
    return made.tobytes().removeprefix(b"Exif\0\0")


def read_exif(block, xmp=None):
    read = Image.Exif()
    read.load(b"Exif\0\0" + block)
    if xmp:
        read[700] = xmp
    return read


BLOCK = rich_exif()


def png_with(*chunks):
    data = written(".png", COLOUR)
    return data[:33] + b"".join(png_chunk(name, body) for name, body in chunks) + data[33:]


def hexadecimal(name, block):
    return (
        b"Raw profile type "
        + name
        + b"\0\0"
        + zlib.compress(b"\n%s\n%8d\n%s\n" % (name, len(block), block.hex().encode()))
    )


ICC = icc_profile(padding=150_000)
INTERNATIONAL = b"XML:com.adobe.xmp\0"
DESCRIBED = {
    "jpeg": saved(RGB, "JPEG", exif=b"Exif\0\0" + BLOCK, icc_profile=ICC, xmp=XMP),
    "png": png_with(
        (b"iCCP", b"a\0\0" + zlib.compress(ICC)), (b"eXIf", BLOCK), (b"iTXt", INTERNATIONAL + b"\0\0en\0t\0" + XMP)
    ),
    "png packed": png_with(
        (b"iCCP", b"a\0\0" + zlib.compress(ICC)),
        (b"eXIf", b"Exif\0\0" + BLOCK),
        (b"iTXt", INTERNATIONAL + b"\1\0\0\0" + zlib.compress(XMP)),
    ),
    "png by imagemagick": png_with(
        (b"iCCP", b"a\0\0" + zlib.compress(ICC)),
        (b"zTXt", hexadecimal(b"exif", b"Exif\0\0" + BLOCK)),
        (b"zTXt", hexadecimal(b"xmp", XMP)),
    ),
    "webp": saved(RGB, "WEBP", exif=BLOCK, icc_profile=ICC, xmp=XMP),
    "tiff": saved(RGB, "TIFF", exif=read_exif(BLOCK, XMP), icc_profile=ICC),
    "bigtiff": saved(RGB, "TIFF", exif=read_exif(BLOCK, XMP), icc_profile=ICC, big_tiff=True),
    "avif": saved(RGB, "AVIF", exif=BLOCK, icc_profile=ICC, xmp=XMP),
    "heic": heic(RGB, exif=BLOCK, icc=ICC, xmp=XMP),
    "jpeg 2000": with_jp2_box(
        with_jp2_box(
            with_jp2_box(saved(RGB, "JPEG2000"), b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP),
            b"uuid",
            b"JpgTiffExif->JP2" + BLOCK,
        ),
        b"colr",
        b"\2\0\0" + ICC,
        inside=b"jp2h",
    ),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_metadata_is_found(name):
    metadata = one(DESCRIBED[name]).metadata
    assert metadata.icc == ICC
    assert metadata.xmp == XMP
    read, wanted = read_exif(metadata.exif), read_exif(BLOCK)
    assert read[0x10F] == "A maker"
    for part in (0x8769, 0x8825):
        assert read.get_ifd(part)
        assert read.get_ifd(part) == wanted.get_ifd(part)
    # TIFF has no such block, and Pillow writes AVIF's anew.
    assert name in ("tiff", "bigtiff", "avif") or metadata.exif == BLOCK


@pytest.mark.parametrize("name", DESCRIBED)
def test_damaged_metadata_is_no_reason_to_refuse(name):
    data = DESCRIBED[name]
    for part in (BLOCK, XMP, ICC):
        start = data.find(part[:16])
        for length in (4, 12, min(80, len(part) // 2)):
            broken = bytearray(data)
            if start < 0:  # packed, or in pieces
                continue
            broken[start : start + length] = b"\xff" * length
            assert one(bytes(broken)).colour.shape == COLOUR.shape


def test_multi_picture_segments_are_no_profile():
    jpeg = jpeg_with(
        written(".jpg", COLOUR),
        jpeg_segment(0xE2, b"MPF\0" + exif(1)),
        jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + icc_profile()),
    )
    assert one(jpeg).metadata.icc == icc_profile()


def test_huge_metadata_is_left_out():
    data = png_with((b"iTXt", INTERNATIONAL + b"\1\0\0\0" + zlib.compress(bytes(50_000_000))))
    assert one(data).metadata.xmp == b""


def test_text_in_pngs_is_not_unpacked_for_nothing():
    """libpng would unpack every chunk of text, and keep it."""
    bomb = zlib.compress(bytes(4_000_000), 9)
    chunks = [(b"iTXt", b"Comment\0\1\0\0\0" + bomb), (b"zTXt", b"Raw profile type xmp\0\0" + bomb)] * 400
    begun = time.monotonic()
    assert np.array_equal(one(png_with(*chunks, (b"iCCP", b"a\0\0" + bomb))).colour, COLOUR)
    assert time.monotonic() - begun < 2


def test_many_tags_that_claim_the_same_bytes_take_no_memory():
    size = 3_000_000
    rows = b"".join(struct.pack("<HHII", 1000 + tag, 7, size, 8) for tag in range(2000))
    sub = struct.pack("<H", 2000) + rows + bytes(4)
    page = bytearray(tiff(RGB, t34665=0))
    at = page.index(struct.pack("<HH", 34665, 3))
    page[at : at + 12] = struct.pack("<HHII", 34665, 4, 1, len(page))
    begun = time.monotonic()
    assert len(one(bytes(page) + sub + bytes(size)).metadata.exif) < 2 * size
    assert time.monotonic() - begun < 2


def test_decoding_common_kinds_needs_neither_pillow_nor_libheif():
    code = (
        "import sys; from sr_engine.formats.decoding import decode; decode(sys.stdin.buffer.read())\n"
        "sys.exit(', '.join({'PIL', 'pillow_heif'} & set(sys.modules)) or None)"
    )
    for name in ("jpeg", "png", "webp", "tiff", "avif"):
        data = DESCRIBED[name]
        subprocess.run([sys.executable, "-P", "-c", code], input=data, check=True, capture_output=True, timeout=60)


def png_of_codes(*codes):
    return png_with((b"cICP", bytes(codes)))


P3, BT2020 = (12, 13), (9, 14)
CODED = {
    "png": (png_of_codes(*P3, 0, 1), P3),
    "avif": (relabelled(written(".avif", COLOUR), *P3), P3),
    "avif alpha": (relabelled(saved(np.dstack([RGB, ALPHA]), "AVIF", exif=exif(6)), *P3), P3),
    "avif 10": (relabelled(written(".avif", deepened(COLOUR) >> 6, cv2.IMWRITE_AVIF_DEPTH, 10), *BT2020), BT2020),
    "avif grey": (relabelled(written(".avif", COLOUR[:, :, 1].copy()), *P3), P3),
    "heic": (heic(RGB, color_primaries=12, transfer_characteristics=13, **LOSSLESS), P3),
    "heic 10": (heic(deepened(RGB), "RGB;16", color_primaries=9, transfer_characteristics=14), BT2020),
}


@pytest.mark.parametrize("name", CODED)
def test_colour_codes_are_carried_to_the_kinds_that_hold_them(name):
    data, codes = CODED[name]
    picture = one(data)
    assert picture.metadata.cicp == codes
    if name in ("png", "heic"):
        assert np.array_equal(picture.colour, COLOUR), "the numbers stay what they are"
    for wanted in ("same", "png", "avif", "heic"):
        encoded = encode([picture], Output(wanted))
        assert one(encoded.data).metadata.cicp == codes
        assert "colours" not in encoded.note
        if encoded.extension == ".png":
            assert b"cICP" + bytes([*codes, 0, 1]) in encoded.data
        else:
            assert encoded.data.count(b"colrnclx" + struct.pack(">HH", *codes)) == 1


def test_colour_codes_that_are_lost_are_told():
    for wanted, name in (("jpeg", "JPEG"), ("tiff", "TIFF"), ("webp", "WebP"), ("bmp", "BMP")):
        encoded = encode([one(CODED["png"][0])], Output(wanted))
        assert encoded.note == f"{name} cannot say that the colours are Display P3: they will pass for sRGB"
    assert "BT.2020" in encode([one(CODED["heic 10"][0])], Output("jpeg")).note
    described = Picture(Kind.PNG, COLOUR, metadata=Metadata(icc_profile(), cicp=P3))
    assert encode([described], Output("jpeg")).note == "", "the profile says it"


@pytest.mark.parametrize("codes", [(1, 13), (2, 2), (1, 1), (250, 13), (12, 77), (0, 0), (3, 3)])
def test_colour_codes_that_say_nothing_are_dropped(codes):
    for data in (png_of_codes(*codes, 0, 1), relabelled(written(".avif", COLOUR), *codes)):
        assert one(data).metadata.cicp is None


def test_damaged_colour_codes_are_no_reason_to_refuse():
    for body in (b"", b"\x0c", b"\x0c\x0d", bytes(9)):
        assert one(png_with((b"cICP", body))).metadata.cicp is None


def test_greys_of_a_limited_range_are_spread():
    grey = COLOUR[:, :, 1].copy()
    for full in (False, True):
        kept = one(saved(grey, "AVIF", quality=100, range="full" if full else "limited"))
        assert kept.colour.ndim == 2
        assert np.abs(kept.colour.astype(int) - grey).max() <= 1
    data = written(".avif", grey.astype(np.uint16) * 4, cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, 10)
    at = data.index(b"colrnclx") + 14
    assert data[at] == 0x80
    levels = np.clip((grey.astype(int) * 4 - 64) / 876, 0, 1)
    assert np.array_equal(
        one(data[:at] + b"\0" + data[at + 1 :]).colour, np.rint(np.rint(levels * 1023) / 1023 * 65535)
    )


def test_grey_avifs_with_alpha_keep_both():
    grey = COLOUR[:, :, 1].copy()
    picture = one(saved(np.dstack([grey, ALPHA]), "AVIF", quality=100, subsampling="4:0:0"))
    assert picture.colour.ndim == 2
    assert np.abs(picture.colour.astype(int) - grey).max() <= 1
    assert np.array_equal(picture.alpha, ALPHA)


def test_jpeg_2000_of_luma_and_chroma_shows_its_colours():
    stored = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    data = saved(stored, "JPEG2000", mct=0).replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x12")
    assert np.abs(one(data).colour.astype(int) - COLOUR).max() <= 4


HDR = {
    "png": png_of_codes(9, 16, 0, 1),
    "avif pq": relabelled(written(".avif", COLOUR), 9, 16),
    "avif hlg": relabelled(written(".avif", COLOUR), 9, 18),
    "heic": heic(deepened(RGB), "RGB;16", color_primaries=9, transfer_characteristics=16),
}


@pytest.mark.parametrize("name", HDR)
def test_hdr_is_refused_from_the_header(name):
    assert read_header(io.BytesIO(HDR[name])).obstacle.startswith("HDR pictures are not handled: ")


def test_orientation_is_not_written_again():
    described = {"exif": b"Exif\0\0" + photograph_exif(), "xmp": photograph_xmp()}
    for turned in (saved(RGB, "JPEG", **described), saved(RGB, "WEBP", **described), heic(RGB, **described)):
        again = one(encode([one(turned)], Output()).data)
        assert (again.width, again.height) == (40, 48)
        assert read_exif(again.metadata.exif)[0x112] == 1
