"""Decoding: what comes out is what a viewer shows, of the depth and with the metadata that the file has."""

import io
import struct
import subprocess
import sys

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
    jpeg2000_of_12_bits,
    jpeg_segment,
    jpeg_with,
    pages,
    png,
    ramp,
    saved,
    tiff,
    with_metadata,
    written,
)
from metadata_files import cmyk_profile, exif
from PIL import Image, ImageCms

from sr_engine.formats.decoding import decode
from sr_engine.headers import Kind
from sr_engine.protocol import Code

COLOUR = draw(40, 48)
GREY = COLOUR[:, :, 1].copy()
ALPHA = ramp(40, 48)
WITH_ALPHA = np.dstack([COLOUR, ALPHA])
RGB = COLOUR[:, :, ::-1].copy()
RGBA = np.dstack([RGB, ALPHA])
DEEP, DEEP_GREY, DEEP_ALPHA = deepened(COLOUR), deepened(GREY), deepened(ALPHA)
DEEP_RGB = DEEP[:, :, ::-1].copy()
DEEP_RGBA = np.dstack([DEEP_RGB, DEEP_ALPHA])
DEEP_WITH_ALPHA = np.dstack([DEEP, DEEP_ALPHA])
MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>a title</x:xmpmeta>"
LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def one(data):
    (picture,) = decode(data)
    return picture


def spread(samples, bits):
    """The nearest of 0 .. 65535 to what samples of fewer bits mean."""
    return np.rint(samples / ((1 << bits) - 1) * 65535).astype(np.uint16)


AVIF = (cv2.IMWRITE_AVIF_QUALITY, 100)

# By name: the file, its kind, its bits, the colours and the alpha that it was made of.
EXACT = {
    "png": (written(".png", COLOUR), Kind.PNG, 8, COLOUR, None),
    "png grey": (written(".png", GREY), Kind.PNG, 8, GREY, None),
    "png alpha": (written(".png", WITH_ALPHA), Kind.PNG, 8, COLOUR, ALPHA),
    "png 16": (written(".png", DEEP), Kind.PNG, 16, DEEP, None),
    "png 16 grey": (written(".png", DEEP_GREY), Kind.PNG, 16, DEEP_GREY, None),
    "png 16 alpha": (written(".png", DEEP_WITH_ALPHA), Kind.PNG, 16, DEEP, DEEP_ALPHA),
    "webp": (written(".webp", COLOUR, cv2.IMWRITE_WEBP_QUALITY, 101), Kind.WEBP, 8, COLOUR, None),
    "webp alpha": (saved(RGBA, "WEBP", lossless=True, exact=True), Kind.WEBP, 8, COLOUR, ALPHA),
    "tiff lzw": (written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 5), Kind.TIFF, 8, COLOUR, None),
    "tiff deflate": (written(".tiff", COLOUR, cv2.IMWRITE_TIFF_COMPRESSION, 8), Kind.TIFF, 8, COLOUR, None),
    "tiff 16 lzw": (written(".tiff", DEEP, cv2.IMWRITE_TIFF_COMPRESSION, 5), Kind.TIFF, 16, DEEP, None),
    "tiff big-endian": (tiff(RGB, order=">"), Kind.TIFF, 8, COLOUR, None),
    "tiff 16 big-endian": (tiff(DEEP_RGB, order=">"), Kind.TIFF, 16, DEEP, None),
    "bigtiff": (tiff(RGB, big=True), Kind.TIFF, 8, COLOUR, None),
    "bigtiff 16 alpha": (tiff(DEEP_RGBA, big=True, t338=2), Kind.TIFF, 16, DEEP, DEEP_ALPHA),
    "tiff 16 grey": (tiff(DEEP_GREY), Kind.TIFF, 16, DEEP_GREY, None),
    "tiff 16 white is zero": (tiff(65535 - DEEP_GREY, photometric=0), Kind.TIFF, 16, DEEP_GREY, None),
    "tiff white is zero": (tiff(255 - GREY, photometric=0), Kind.TIFF, 8, GREY, None),
    "tiff grey alpha": (tiff(np.dstack([GREY, ALPHA]), photometric=1, t338=2), Kind.TIFF, 8, GREY, ALPHA),
    "bmp": (written(".bmp", COLOUR), Kind.BMP, 8, COLOUR, None),
    "bmp alpha": (written(".bmp", WITH_ALPHA), Kind.BMP, 8, COLOUR, ALPHA),
    "bmp grey": (written(".bmp", GREY), Kind.BMP, 8, GREY, None),
    "bmp top-down": (bmp(48, -40, 24, bmp_rows(COLOUR[::-1])), Kind.BMP, 8, COLOUR, None),
    "bmp core": (bmp(48, 40, 24, bmp_rows(COLOUR), size=12), Kind.BMP, 8, COLOUR, None),
    "tiff padding": (tiff(np.dstack([RGB, ALPHA * 0]), t338=0), Kind.TIFF, 8, COLOUR, None),
    "bmp padding": (bmp(48, 40, 32, bmp_rows(WITH_ALPHA), packing=3, tail=MASKS), Kind.BMP, 8, COLOUR, None),
    "bmp of masks": (
        bmp(48, 40, 32, bmp_rows(RGBA), size=56, packing=3, tail=MASKS[8:] + MASKS[4:8] + MASKS[:4] + b"\0\0\0\xff"),
        *(Kind.BMP, 8, COLOUR, ALPHA),
    ),
    "bmp 32 without alpha": (
        bmp(48, 40, 32, bmp_rows(np.dstack([COLOUR, ALPHA * 0])), packing=3, tail=MASKS),
        Kind.BMP,
        8,
        COLOUR,
        None,
    ),
    "avif": (written(".avif", COLOUR, *AVIF), Kind.AVIF, 8, COLOUR, None),
    "avif grey": (written(".avif", GREY, *AVIF), Kind.AVIF, 8, GREY, None),
    "avif alpha": (written(".avif", WITH_ALPHA, *AVIF), Kind.AVIF, 8, COLOUR, ALPHA),
    "avif 10": (
        written(".avif", DEEP >> 6, *AVIF, cv2.IMWRITE_AVIF_DEPTH, 10),
        Kind.AVIF,
        10,
        spread(DEEP >> 6, 10),
        None,
    ),
    "avif 12 alpha": (
        written(".avif", DEEP_WITH_ALPHA >> 4, *AVIF, cv2.IMWRITE_AVIF_DEPTH, 12),
        Kind.AVIF,
        12,
        spread(DEEP >> 4, 12),
        spread(DEEP_ALPHA >> 4, 12),
    ),
    "heic": (heic(RGB, **LOSSLESS), Kind.HEIC, 8, COLOUR, None),
    "heic grey": (heic(GREY, "L", quality=-1), Kind.HEIC, 8, GREY, None),
    "heic alpha": (heic(RGBA, "RGBA", **LOSSLESS), Kind.HEIC, 8, COLOUR, ALPHA),
    "heic 10": (heic(DEEP_RGB, "RGB;16", **LOSSLESS), Kind.HEIC, 10, spread(DEEP >> 6, 10), None),
    "heic 10 grey": (heic(DEEP_GREY, "L;16", quality=-1), Kind.HEIC, 10, spread(DEEP_GREY >> 6, 10), None),
    "heic 10 alpha": (
        heic(DEEP_RGBA, "RGBA;16", **LOSSLESS),
        Kind.HEIC,
        10,
        spread(DEEP >> 6, 10),
        spread(DEEP_ALPHA >> 6, 10),
    ),
    "jpeg 2000": (saved(RGB, "JPEG2000"), Kind.JPEG2000, 8, COLOUR, None),
    "jpeg 2000 bare": (saved(RGB, "JPEG2000", no_jp2=True), Kind.JPEG2000, 8, COLOUR, None),
    "jpeg 2000 tiles": (saved(RGB, "JPEG2000", tile_size=(32, 32)), Kind.JPEG2000, 8, COLOUR, None),
    "jpeg 2000 grey": (saved(GREY, "JPEG2000"), Kind.JPEG2000, 8, GREY, None),
    "jpeg 2000 alpha": (saved(RGBA, "JPEG2000"), Kind.JPEG2000, 8, COLOUR, ALPHA),
    "jpeg 2000 grey alpha": (saved(np.dstack([GREY, ALPHA]), "JPEG2000"), Kind.JPEG2000, 8, GREY, ALPHA),
    "jpeg 2000 16": (
        written(".jp2", DEEP, cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000),
        Kind.JPEG2000,
        16,
        DEEP,
        None,
    ),
    "jpeg 2000 16 grey": (saved(DEEP_GREY, "JPEG2000"), Kind.JPEG2000, 16, DEEP_GREY, None),
    "jpeg 2000 12 grey": (
        jpeg2000_of_12_bits(DEEP_GREY >> 4),
        Kind.JPEG2000,
        12,
        spread(DEEP_GREY >> 4, 12),
        None,
    ),
    "gif grey": (saved(GREY, "GIF"), Kind.GIF, 8, GREY, None),
}


@pytest.mark.parametrize("name", EXACT)
def test_lossless_files_decode_exactly(name):
    data, kind, bits, colour, alpha = EXACT[name]
    picture = one(data)
    assert (picture.kind, picture.bits) == (kind, bits)
    assert picture.colour.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.array_equal(picture.colour, colour)
    assert (picture.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(picture.alpha, alpha)
    assert alpha is None or picture.alpha.dtype == picture.colour.dtype


@pytest.mark.parametrize("name", [name for name, (_, kind, bits, *_) in EXACT.items() if bits == 8 and kind != "heic"])
def test_pillow_sees_the_same(name):
    picture = one(EXACT[name][0])
    seen = Image.open(io.BytesIO(EXACT[name][0]))
    mode = ("L" if picture.colour.ndim == 2 else "RGB") + ("" if picture.alpha is None else "A")
    ours = picture.colour if picture.colour.ndim == 2 else picture.colour[:, :, ::-1]
    planes = [ours] if picture.alpha is None else [ours, picture.alpha]
    theirs = np.asarray(seen.convert(mode)).astype(int)
    assert np.abs(np.squeeze(np.dstack(planes)) - theirs).max() <= (2 if picture.kind is Kind.AVIF else 0)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}, {"subsampling": "4:1:1"}])
@pytest.mark.parametrize("pixels", [RGB, GREY, RGB[:1, :1], RGB[:17, :9]])
def test_jpegs_are_as_pillow_sees_them(pixels, options):
    data = saved(pixels, "JPEG", **options)
    picture = one(data)
    ours = picture.colour if pixels.ndim == 2 else picture.colour[:, :, ::-1]
    assert np.abs(ours.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1


def test_a_gif_shows_its_palette_and_what_is_transparent():
    indexed = Image.fromarray(RGB).quantize(32)
    data = saved(indexed, "GIF", transparency=5)
    seen = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    picture = one(data)
    assert np.array_equal(picture.colour, seen[:, :, 2::-1])
    assert np.array_equal(picture.alpha, seen[:, :, 3])
    assert 0 < np.count_nonzero(picture.alpha == 0) < picture.alpha.size
    assert one(saved(indexed, "GIF", interlace=1)).alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("rgba", [RGBA, DEEP_RGBA], ids=["8", "16"])
def test_tiff_colours_are_not_multiplied_with_alpha(rgba, order, big):
    for meaning in (0, 2):
        picture = one(tiff(rgba, order=order, big=big, t338=meaning))
        assert np.array_equal(picture.colour, rgba[:, :, 2::-1])
        assert np.array_equal(picture.alpha, rgba[:, :, 3])
    most = np.iinfo(rgba.dtype).max
    premultiplied = np.dstack([np.rint(rgba[:, :, :3] * (rgba[:, :, 3:] / most)).astype(rgba.dtype), rgba[:, :, 3]])
    picture = one(tiff(premultiplied, order=order, big=big, t338=1))
    solid = ALPHA > 127
    assert np.abs(picture.colour.astype(int) - rgba[:, :, 2::-1])[solid].max() <= 1
    assert np.array_equal(picture.alpha, rgba[:, :, 3])


def test_premultiplied_heics_are_straightened():
    premultiplied = np.dstack([np.rint(RGB * (ALPHA[:, :, None] / 255)).astype(np.uint8), ALPHA])
    picture = one(heic(premultiplied, "RGBa", **LOSSLESS))
    assert np.abs(picture.colour.astype(int) - COLOUR)[ALPHA > 127].max() <= 1


@pytest.mark.parametrize(("grey", "alpha"), [(GREY, ALPHA), (DEEP_GREY, DEEP_ALPHA)], ids=["8", "16"])
def test_grey_png_with_alpha(grey, alpha):
    rows = [part.astype(part.dtype.newbyteorder(">")).tobytes() for part in np.dstack([grey, alpha])]
    picture = one(png(48, 40, grey.itemsize * 8, 4, rows))
    assert np.array_equal(picture.colour, grey)
    assert np.array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_transparent(bits):
    levels = (1 << bits) - 1
    samples = np.arange(24) * (77 if bits == 16 else 1) % (levels + 1)
    packed = samples.astype(">u2").tobytes()
    if bits < 16:
        packed = np.packbits(np.unpackbits(samples.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]).tobytes()
    picture = one(png(24, 2, bits, 0, [packed] * 2, (b"tRNS", struct.pack(">H", samples[1]))))
    assert np.array_equal(picture.colour[0], samples * max(1, 255 // levels))
    assert np.array_equal(picture.alpha[1] == 0, samples == samples[1])
    assert set(np.unique(picture.alpha)) == {0, np.iinfo(picture.colour.dtype).max}


def test_a_transparent_colour_of_16_bits_is_transparent():
    rows = [row.astype(">u2").tobytes() for row in DEEP_RGB]
    hole = DEEP_RGB[10, 10]
    picture = one(png(48, 40, 16, 2, rows, (b"tRNS", hole.astype(">u2").tobytes())))
    assert np.array_equal(picture.colour, DEEP)
    assert np.array_equal(picture.alpha == 0, np.all(hole == DEEP_RGB, axis=2))


def test_palettes_become_what_they_show():
    rng = np.random.default_rng(3)
    palette = rng.integers(0, 256, (16, 3), np.uint8)
    index = rng.integers(0, 16, (20, 24), np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", bytes([0, 128]))]
    rows = [row.tobytes() for row in index]
    opaque = one(png(24, 20, 8, 3, rows, chunks[0]))
    assert opaque.alpha is None
    assert np.array_equal(opaque.colour, palette[index][:, :, ::-1])
    picture = one(png(24, 20, 8, 3, rows, *chunks))
    assert np.array_equal(picture.colour, palette[index][:, :, ::-1])
    assert np.array_equal(picture.alpha, np.choose(np.minimum(index, 2), [0, 128, 255]))
    bitmap = saved(Image.fromarray(RGB).quantize(32), "BMP")
    shown = np.asarray(Image.open(io.BytesIO(bitmap)).convert("RGB"))
    assert np.array_equal(one(bitmap).colour, shown[:, :, ::-1])
    bitmap = saved(Image.fromarray(RGB).quantize(32), "TIFF")
    assert np.array_equal(one(bitmap).colour, shown[:, :, ::-1])


@pytest.mark.parametrize("ink", [(255, 255, 255, 255), (255, 60, 200, 255), (30, 180, 90, 128), (9, 9, 9, 0)])
def test_cmyk_jpegs_become_what_they_show(ink):
    cyan, magenta, yellow, black = ink
    picture = one(cmyk_jpeg(*ink))
    expected = [channel * black / 255 for channel in (yellow, magenta, cyan)]
    assert picture.colour.shape == (8, 8, 3)
    assert picture.alpha is None
    assert np.abs(picture.colour - expected).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_cmyk_tiffs_become_what_they_show(order):
    picture = one(tiff(RGBA, photometric=5, order=order))
    expected = (255 - RGB.astype(float)) * (255 - ALPHA[:, :, None]) / 255
    assert np.abs(picture.colour[:, :, ::-1] - expected).max() <= 1
    assert picture.alpha is None


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_shown_through_its_profile(kind):
    inks = Image.frombytes("CMYK", (48, 40), (np.dstack([RGB, RGB[:, :, :1]]) // 2).tobytes())
    picture = one(saved(inks, kind, icc_profile=cmyk_profile(), **({"quality": 100} if kind == "JPEG" else {})))
    through = ImageCms.profileToProfile(
        inks,
        ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile())),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert np.abs(picture.colour.astype(int) - np.asarray(through)[:, :, ::-1]).max() <= (4 if kind == "JPEG" else 0)
    assert np.ptp(picture.colour, axis=2).max() <= 3  # grey, which it is not without the profile
    assert picture.metadata.icc == b""
    broken = cmyk_profile()[:140] + bytes(len(cmyk_profile()) - 140)
    plain = one(saved(inks, kind, icc_profile=broken))
    assert np.ptp(plain.colour, axis=2).max() > 60


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
def test_orientation_is_applied_once(orientation, order):
    block = exif(orientation, order)
    jpeg = written(".jpg", COLOUR)
    stored = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    picture = one(jpeg_with(jpeg, jpeg_segment(0xE1, b"Exif\0\0" + block)))
    assert np.array_equal(picture.colour, upright(stored, orientation))
    for extension in (".png", ".webp"):
        picture = one(with_metadata(extension, WITH_ALPHA, cv2.IMAGE_METADATA_EXIF, block))
        assert np.array_equal(picture.alpha, upright(ALPHA, orientation))
        assert picture.colour.shape[:2] == picture.alpha.shape
    picture = one(with_metadata(".png", WITH_ALPHA, cv2.IMAGE_METADATA_EXIF, block))
    assert np.array_equal(picture.colour, upright(COLOUR, orientation))
    for rgba in (RGBA, DEEP_RGBA):
        picture = one(tiff(rgba, order=order, t274=orientation, t338=2))
        assert np.array_equal(picture.colour, upright(rgba[:, :, 2::-1], orientation))
        assert np.array_equal(picture.alpha, upright(rgba[:, :, 3], orientation))
    for pixels, kind in (
        (GREY, {"photometric": 1}),
        (RGBA, {"photometric": 5}),
        (RGBA[:, :, :2], {"photometric": 1, "t338": 2}),
    ):
        level = one(tiff(pixels, order=order, **kind)).colour
        assert np.array_equal(
            one(tiff(pixels, order=order, t274=orientation, **kind)).colour, upright(level, orientation)
        )
    # Pillow writes it as properties that turn and mirror.
    picture = one(saved(RGB, "AVIF", quality=100, subsampling="4:4:4", exif=block))
    assert np.abs(picture.colour.astype(int) - upright(COLOUR, orientation)).mean() < 4
    picture = one(heic(RGB, exif=block, **LOSSLESS))
    assert np.array_equal(picture.colour, upright(COLOUR, orientation))


def test_exif_does_not_turn_avifs():
    """The format says that only its own properties do."""
    data = bytearray(with_metadata(".avif", COLOUR, cv2.IMAGE_METADATA_EXIF, exif(6)))
    data[data.index(b"irot") + 4] = 0  # what the writer made of it
    picture = one(bytes(data))
    assert picture.colour.shape == COLOUR.shape
    assert picture.metadata.exif == exif(6)


def test_each_page_is_a_picture_of_its_own():
    first, second = tiff(RGB, t700=XMP), tiff(DEEP_GREY, t274=6)
    third, fourth = tiff(RGBA[:30], t338=2), tiff(RGBA, photometric=5)
    found = decode(pages(first, second, third, fourth, tiff(RGB[:9, :9], t254=1)))
    assert [picture.bits for picture in found] == [8, 16, 8, 8]
    assert np.array_equal(found[0].colour, COLOUR)
    assert np.array_equal(found[1].colour, upright(DEEP_GREY, 6))
    assert np.array_equal(found[2].colour, COLOUR[:30])
    assert np.array_equal(found[2].alpha, ALPHA[:30])
    assert np.array_equal(found[3].colour, one(fourth).colour)
    assert [picture.metadata.xmp for picture in found] == [XMP, b"", b"", b""]
    several = saved(
        Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)], compression="tiff_lzw"
    )
    assert [picture.colour.shape for picture in decode(several)] == [(40, 48, 3), (40, 48)]


def test_heic_without_its_package_says_what_to_install():
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from sr_engine.formats.decoding import decode\n"
        "from sr_engine.errors import PictureError\n"
        "try: decode(sys.stdin.buffer.read())\n"
        "except PictureError as error: print(error.code, error.message)"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], input=heic(RGB), check=True, capture_output=True, timeout=60
    )
    assert ran.stdout.startswith(Code.UNSUPPORTED.encode())
    assert b"pip install pillow-heif" in ran.stdout
