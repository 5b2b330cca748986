"""Pictures: what is decoded is what a viewer shows, what is encoded holds all of it, and half a file is refused."""

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
    draw,
    exif,
    icc_profile,
    jpeg_segment,
    jpeg_with,
    png,
    ramp,
    tiff,
    with_metadata,
    written,
)

from sr_engine.decoding import decode
from sr_engine.encoding import encode
from sr_engine.errors import PictureError
from sr_engine.headers import Kind, read_header
from sr_engine.limits import result_kind
from sr_engine.pictures import Picture
from sr_engine.protocol import Code, Output
from sr_engine.structure import examine

COLOUR = draw(20, 24)
GREY = COLOUR[:, :, 1].copy()
ALPHA = ramp(20, 24)
WITH_ALPHA = np.dstack([COLOUR, ALPHA])
RGB = COLOUR[:, :, ::-1].copy()
RGBA = np.dstack([RGB, ALPHA])
MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
LOSSLESS = Output(webp_quality=101)

EXACT = {
    "png": (written(".png", COLOUR), Kind.PNG),
    "webp": (written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 101), Kind.WEBP),
    "tiff lzw": (written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 5), Kind.TIFF),
    "tiff deflate": (written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 8), Kind.TIFF),
    "tiff big-endian": (tiff(RGB, order=">"), Kind.TIFF),
    "bigtiff": (tiff(RGB, big=True), Kind.TIFF),
    "bmp": (written(".bmp", COLOUR), Kind.BMP),
    "bmp top-down": (bmp(24, -20, 24, bmp_rows(COLOUR[::-1])), Kind.BMP),
    "bmp core": (bmp(24, 20, 24, bmp_rows(COLOUR), size=12), Kind.BMP),
    "bmp 32 without alpha": (
        bmp(
            24,
            20,
            32,
            bmp_rows(np.dstack([COLOUR, ALPHA * 0])),
            packing=3,
            tail=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF),
        ),
        Kind.BMP,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_lossless_kinds_decode_exactly(name):
    data, kind = EXACT[name]
    picture = decode(data)
    assert picture.kind is kind
    assert picture.alpha is None
    assert np.array_equal(picture.colour, COLOUR)


@pytest.mark.parametrize("extension", [".png", ".tiff", ".bmp", ".webp"])
def test_alpha_is_kept_exactly(extension):
    options = (cv2.IMWRITE_WEBP_QUALITY, 101) if extension == ".webp" else ()
    picture = decode(written(extension, WITH_ALPHA, *options))
    visible = ALPHA > 0  # lossless WebP is free to change what nobody sees
    assert np.array_equal(picture.alpha, ALPHA)
    assert np.array_equal(picture.colour[visible], COLOUR[visible])
    again = decode(encode(picture, LOSSLESS)[0])
    assert np.array_equal(again.alpha, ALPHA)
    assert np.array_equal(again.colour[visible], COLOUR[visible])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_colours_are_not_multiplied_with_alpha(order, big):
    for meaning in (0, 2):
        picture = decode(tiff(RGBA, order=order, big=big, t338=meaning))
        assert np.array_equal(picture.colour, COLOUR)
        assert np.array_equal(picture.alpha, ALPHA)
    premultiplied = np.dstack([np.rint(RGB * (ALPHA[:, :, None] / 255)).astype(np.uint8), ALPHA])
    picture = decode(tiff(premultiplied, order=order, big=big, t338=1))
    solid = ALPHA > 127
    assert np.abs(picture.colour.astype(int) - COLOUR)[solid].max() <= 1


def test_written_tiffs_declare_their_alpha():
    data, _ = encode(Picture(Kind.TIFF, COLOUR, ALPHA), Output())
    assert struct.pack("<HHIHH", 338, 3, 1, 2, 0) in data


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tiff", ".bmp"])
def test_grey_stays_grey(extension):
    picture = decode(written(extension, GREY))
    assert picture.colour.shape == (20, 24)
    data, written_as = encode(picture, Output())
    assert written_as == extension
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape == (20, 24)


def test_grey_with_alpha():
    rows = [np.dstack([grey, alpha]).tobytes() for grey, alpha in zip(GREY, ALPHA, strict=True)]
    picture = decode(png(24, 20, 8, 4, rows))
    assert np.array_equal(picture.colour, GREY)
    assert np.array_equal(picture.alpha, ALPHA)
    again = decode(encode(picture, Output())[0])
    assert np.array_equal(again.colour[:, :, 0], GREY)
    assert np.array_equal(again.alpha, ALPHA)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_is_transparent(bits):
    levels = (1 << bits) - 1
    samples = (np.arange(24) % (levels + 1)).astype(np.uint8)
    packed = np.packbits(np.unpackbits(samples[:, None], axis=1)[:, 8 - bits :]).tobytes()
    picture = decode(png(24, 2, bits, 0, [packed] * 2, (b"tRNS", struct.pack(">H", 1))))
    assert np.array_equal(picture.colour[0], samples * (255 // levels))
    assert np.array_equal(picture.alpha[1] == 0, samples == 1)
    assert set(np.unique(picture.alpha)) == {0, 255}


def test_palettes_become_what_they_show():
    rng = np.random.default_rng(3)
    palette = rng.integers(0, 256, (16, 3), np.uint8)
    index = rng.integers(0, 16, (20, 24), np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", bytes([0, 128]))]
    rows = [row.tobytes() for row in index]
    opaque = decode(png(24, 20, 8, 3, rows, chunks[0]))
    assert opaque.alpha is None
    assert np.array_equal(opaque.colour, palette[index][:, :, ::-1])
    picture = decode(png(24, 20, 8, 3, rows, *chunks))
    assert np.array_equal(picture.colour, palette[index][:, :, ::-1])
    assert np.array_equal(picture.alpha, np.choose(np.minimum(index, 2), [0, 128, 255]))


@pytest.mark.parametrize("ink", [(255, 255, 255, 255), (255, 60, 200, 255), (30, 180, 90, 128), (9, 9, 9, 0)])
def test_cmyk_jpegs_become_what_they_show(ink):
    cyan, magenta, yellow, black = ink
    picture = decode(cmyk_jpeg(*ink))
    expected = [channel * black / 255 for channel in (yellow, magenta, cyan)]
    assert picture.colour.shape == (8, 8, 3)
    assert picture.alpha is None
    assert np.abs(picture.colour - expected).max() <= 2


def upright(stored, orientation):
    """What EXIF's orientation means, from its definition, with operations that the engine does not use."""
    return {
        1: lambda: stored,
        2: lambda: cv2.flip(stored, 1),
        3: lambda: cv2.rotate(stored, cv2.ROTATE_180),
        4: lambda: cv2.flip(stored, 0),
        5: lambda: cv2.transpose(stored),
        6: lambda: cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE),
        7: lambda: cv2.rotate(cv2.transpose(stored), cv2.ROTATE_180),
        8: lambda: cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }[orientation]()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation, order):
    block = exif(orientation, order)
    jpeg = written(".jpg", COLOUR)
    stored = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    picture = decode(jpeg_with(jpeg, jpeg_segment(0xE1, b"Exif\0\0" + block)))
    assert np.array_equal(picture.colour, upright(stored, orientation))
    for extension in (".png", ".webp"):
        picture = decode(with_metadata(extension, WITH_ALPHA, cv2.IMAGE_METADATA_EXIF, block))
        assert np.array_equal(picture.alpha, upright(ALPHA, orientation))
        assert picture.colour.shape[:2] == picture.alpha.shape
    picture = decode(with_metadata(".png", WITH_ALPHA, cv2.IMAGE_METADATA_EXIF, block))
    assert np.array_equal(picture.colour, upright(COLOUR, orientation))
    picture = decode(tiff(RGBA, order=order, t274=orientation, t338=2))
    assert np.array_equal(picture.colour, upright(COLOUR, orientation))
    assert np.array_equal(picture.alpha, upright(ALPHA, orientation))


@pytest.mark.parametrize("block", [b"", b"II*\0", exif(6)[:20], exif(0), exif(9), b"II*\0\xff\xff\xff\xff" + bytes(9)])
def test_damaged_exif_is_no_reason_to_refuse(block):
    jpeg = written(".jpg", COLOUR)
    picture = decode(jpeg_with(jpeg, jpeg_segment(0xE1, b"Exif\0\0" + block)))
    assert np.array_equal(picture.colour, decode(jpeg).colour)


def test_orientation_is_not_written_again():
    jpeg = jpeg_with(written(".jpg", COLOUR), jpeg_segment(0xE1, b"Exif\0\0" + exif(6)))
    again = decode(encode(decode(jpeg), Output())[0])
    assert again.colour.shape == (24, 20, 3)


@pytest.mark.parametrize("padding", [0, 150_000])
@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff"])
def test_colour_profiles_are_carried(extension, padding):
    profile = icc_profile(padding=padding)
    kind = {".jpg": Kind.JPEG, ".png": Kind.PNG, ".webp": Kind.WEBP, ".tiff": Kind.TIFF}[extension]
    data, _ = encode(Picture(kind, COLOUR, None, profile), Output())
    assert decode(data).icc == profile
    assert np.abs(decode(data).colour.astype(int) - COLOUR).mean() < 12
    with_it = Picture(kind, COLOUR, ALPHA, profile)
    assert decode(encode(with_it, Output())[0]).icc == profile


def test_a_profile_of_other_channels_is_left_out():
    data, _ = encode(Picture(Kind.JPEG, COLOUR, None, icc_profile(b"GRAY")), Output())
    assert decode(data).icc == b""
    profile = icc_profile(b"GRAY")
    data, _ = encode(Picture(Kind.PNG, GREY, None, profile), Output())
    assert decode(data).icc == profile


def test_multi_picture_segments_are_no_profile():
    jpeg = jpeg_with(
        written(".jpg", COLOUR),
        jpeg_segment(0xE2, b"MPF\0" + exif(1)),
        jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + icc_profile()),
    )
    assert decode(jpeg).icc == icc_profile()


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".tiff"])
def test_a_damaged_profile_costs_nothing_but_itself(extension):
    kind = {".jpg": Kind.JPEG, ".png": Kind.PNG, ".webp": Kind.WEBP, ".tiff": Kind.TIFF}[extension]
    broken = bytearray(icc_profile())
    broken[128:132] = b"\xff\xff\xff\xff"  # plausible outside, nonsense inside
    data, _ = encode(Picture(kind, COLOUR, None, bytes(broken)), Output())
    assert decode(data).colour.shape == COLOUR.shape


WHOLE = {
    "jpeg": written(".jpg", COLOUR),
    "jpeg progressive": written(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg restarts": written(".jpg", COLOUR, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "jpeg grey": written(".jpg", GREY),
    "jpeg thumbnail": jpeg_with(
        written(".jpg", COLOUR), jpeg_segment(0xE1, b"Exif\0\0" + exif(6) + written(".jpg", draw(8, 8)))
    ),
    "png": written(".png", COLOUR),
    "png alpha": written(".png", WITH_ALPHA),
    "webp lossy": written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 80),
    "webp lossless": written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp alpha": written(".webp", WITH_ALPHA, cv2.IMWRITE_WEBP_QUALITY, 80),
    "tiff lzw": written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "tiff strips": written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 3),
    "tiff": tiff(RGB),
    "bmp": written(".bmp", COLOUR),
    "bmp alpha": written(".bmp", WITH_ALPHA),
    "bmp core": bmp(24, 20, 24, bmp_rows(COLOUR), size=12),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_is_refused(name):
    data = WHOLE[name]
    assert decode(data).colour.shape[:2] in ((20, 24), (24, 20))
    for length in range(len(data)):
        with pytest.raises(PictureError, match=r": copy (it|the picture) again") as caught:
            decode(data[:length])
        assert caught.value.code is Code.UNDECODABLE
        # OpenCV refuses these as well when it reads from memory; the walk must not lean on that.
        with pytest.raises(PictureError):
            examine(data[:length], read_header(io.BytesIO(data[:length])))


def test_a_tiff_whose_directory_comes_first_is_refused_when_cut():
    first = bytearray(tiff(GREY))
    start = int.from_bytes(first[4:8], "little")
    directory, pixels = first[start:], first[8 : 8 + GREY.size]
    moved = bytearray(b"II*\0\x08\0\0\0" + directory + pixels)
    where = moved.index(struct.pack("<HHI", 273, 4, 1)) + 8
    struct.pack_into("<I", moved, where, 8 + len(directory))
    assert np.array_equal(decode(bytes(moved)).colour, GREY)
    for length in range(len(moved)):
        with pytest.raises(PictureError):
            decode(bytes(moved[:length]))


def test_a_lossy_webp_with_a_large_flat_part_is_sound():
    """Its data ends in many zeros, which look like those of a file whose end was never written."""
    picture = np.full((1600, 1600, 3), 255, np.uint8)
    picture[:400] = np.random.default_rng(5).integers(0, 256, (400, 1600, 3), np.uint8)
    data = written(".webp", picture, cv2.IMWRITE_WEBP_QUALITY, 80)
    assert data.endswith(bytes(64)), "not the file that this test is about"
    assert decode(data).colour.shape == picture.shape


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg thumbnail", "png"])
def test_a_file_whose_end_was_never_written_is_refused(name):
    big = draw(90, 120)
    data = {
        "jpeg": written(".jpg", big),
        "jpeg progressive": written(".jpg", big, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "jpeg thumbnail": jpeg_with(written(".jpg", big), jpeg_segment(0xE1, written(".jpg", COLOUR))),
        "png": written(".png", big),
    }[name]
    for length in range(64, len(data) - 70, 97):
        with pytest.raises(PictureError) as caught:
            decode(data[:length] + bytes(len(data) - length))
        assert caught.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("trailer", [b"\0" * 40, b"\xff\xd8\xff\xe0 a second picture", b"SEFH Samsung \xff\xd9"])
def test_trailing_bytes_are_tolerated(trailer):
    for name in ("jpeg", "jpeg progressive", "png", "webp lossy", "bmp"):
        assert np.array_equal(decode(WHOLE[name] + trailer).colour, decode(WHOLE[name]).colour)


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_never_anything_but_a_picture_error(name):
    rng = np.random.default_rng(5)
    data = WHOLE[name]
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = rng.integers(0, 256)
        try:
            picture = decode(bytes(damaged), max_pixels=1_000_000)
        except PictureError:
            continue
        assert picture.colour.size > 0


@pytest.mark.parametrize("sides", [(60_000, 60_000), (2_000_000_000, 1), (20_000, 10_001)])
def test_bombs_are_refused_before_decoding(sides):
    bomb = png(*sides, 8, 2, [bytes(1000)])
    begun = time.monotonic()
    with pytest.raises(PictureError) as caught:
        decode(bomb)
    assert caught.value.code is Code.TOO_LARGE
    assert str(sides[0]) in caught.value.message
    assert time.monotonic() - begun < 1


def test_the_limit_of_pixels_is_exact():
    data = written(".png", COLOUR)
    assert decode(data, max_pixels=480).width == 24
    with pytest.raises(PictureError):
        decode(data, max_pixels=479)


def test_a_kind_that_cannot_hold_the_result_becomes_png():
    assert result_kind(Kind.JPEG, 65_500, 10, Output()) is Kind.JPEG
    assert result_kind(Kind.JPEG, 65_501, 10, Output()) is Kind.PNG
    assert result_kind(Kind.WEBP, 10, 16_384, Output()) is Kind.PNG
    assert result_kind(Kind.BMP, 30_000, 30_000, Output()) is Kind.PNG
    with pytest.raises(PictureError, match="set the output format") as caught:
        result_kind(Kind.PNG, 10, 16_384, Output(format="webp"))
    assert caught.value.code is Code.TOO_LARGE
    long = np.zeros((1, 65_501, 3), np.uint8)
    data, extension = encode(Picture(Kind.JPEG, long), Output())
    assert extension == ".png"
    assert decode(data).width == 65_501


@pytest.mark.parametrize("kind", Kind)
def test_the_output_format_is_obeyed(kind):
    data, extension = encode(Picture(Kind.PNG, COLOUR), Output(format=kind))
    assert decode(data).kind is kind
    assert extension == {"jpeg": ".jpg"}.get(kind, f".{kind}")


def test_an_unknown_output_format_is_refused():
    with pytest.raises(PictureError, match="no output format is called 'gif'"):
        encode(Picture(Kind.PNG, COLOUR), Output(format="gif"))


@pytest.mark.parametrize("colour", [COLOUR, GREY], ids=["colour", "grey"])
def test_jpeg_lays_transparency_on_white(colour):
    alpha = np.zeros((20, 24), np.uint8)
    alpha[:, 12:] = 255
    data, _ = encode(Picture(Kind.PNG, colour, alpha), Output(format="jpeg", jpeg_quality=100))
    flat = decode(data).colour
    assert flat.shape == colour.shape
    assert flat[:, :8].min() >= 250
    assert np.abs(flat[:, 16:].astype(int) - colour[:, 16:]).mean() < 12


def test_quality_and_compression_are_obeyed():
    noisy = Picture(Kind.JPEG, draw(100, 100))
    sizes = [len(encode(noisy, Output(jpeg_quality=quality))[0]) for quality in (30, 95)]
    assert sizes[0] < sizes[1]
    sizes = [len(encode(noisy, Output("webp", webp_quality=quality))[0]) for quality in (30, 95, 101)]
    assert sizes == sorted(sizes)
    flat = Picture(Kind.PNG, np.zeros((100, 100, 3), np.uint8))
    sizes = [len(encode(flat, Output(png_compression=level))[0]) for level in (0, 9)]
    assert sizes[1] < sizes[0]


def test_deep_pictures_are_refused_with_a_reason():
    deep = written(".png", GREY.astype(np.uint16) * 257)
    with pytest.raises(PictureError, match="16-bit pictures are not handled yet") as caught:
        decode(deep)
    assert caught.value.code is Code.UNSUPPORTED


def test_several_pages_are_never_reduced_to_the_first():
    with pytest.raises(PictureError, match="several pages") as caught:
        decode(tiff(RGB, pages=3))
    assert caught.value.code is Code.UNSUPPORTED
