"""Encoding: what was given is what other programs read, exactly or nearly, and what a kind cannot hold is said."""

import io
import struct

import cv2
import numpy as np
import pillow_heif
import pytest
from engine_files import draw, ramp
from metadata_files import icc_profile, photograph_exif, photograph_xmp
from PIL import Image

from sr_engine.errors import PictureError
from sr_engine.formats.encoding import encode
from sr_engine.headers import Kind
from sr_engine.pictures import Metadata, Picture
from sr_engine.protocol import Code, Output

pillow_heif.register_heif_opener()

COLOUR = draw(60, 72)
GREY = COLOUR[:, :, 1].copy()
ALPHA = ramp(60, 72)
LOSSLESS = {Kind.PNG: ".png", Kind.TIFF: ".tiff", Kind.JPEG2000: ".jp2", Kind.BMP: ".bmp", Kind.WEBP: ".webp"}
WITH_METADATA = [Kind.JPEG, Kind.PNG, Kind.WEBP, Kind.TIFF, Kind.AVIF, Kind.HEIC]


def deep(plane, seed=7):
    """16 bits, with low bytes that are not copies of the high ones."""
    return plane.astype(np.uint16) * 256 + np.random.default_rng(seed).integers(0, 256, plane.shape, np.uint16)


def pillow(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def as_rgb(colour, alpha=None):
    planes = [colour] * 3 if colour.ndim == 2 else [colour[:, :, ::-1]]
    return np.dstack(planes if alpha is None else [*planes, alpha])


@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
@pytest.mark.parametrize("colour", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_what_needs_no_loss_has_none(kind, colour, alpha):
    data, extension, note = encode([Picture(kind, colour, alpha)], Output(webp_quality=101))
    assert (extension, note) == (LOSSLESS[kind], "")
    image = pillow(data)
    expected = {(2, False): "L", (3, False): "RGB", (2, True): "LA", (3, True): "RGBA"}[colour.ndim, alpha is not None]
    if kind is Kind.WEBP:
        expected = expected.replace("L", "RGB")
    elif alpha is not None and kind not in (Kind.PNG, Kind.TIFF):
        expected = "RGBA"
    assert image.mode == expected
    found = np.asarray(image.convert("RGB" if alpha is None else "RGBA"))
    visible = np.ones(GREY.shape, bool) if alpha is None else alpha > 0  # WebP changes what nobody sees
    assert np.array_equal(found[visible], as_rgb(colour, alpha)[visible])


@pytest.mark.parametrize("alpha", [None, deep(ALPHA)], ids=["opaque", "alpha"])
@pytest.mark.parametrize("colour", [deep(COLOUR), deep(GREY)], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", [Kind.PNG, Kind.TIFF, Kind.JPEG2000])
def test_sixteen_bits_are_kept(kind, colour, alpha):
    data, extension, note = encode([Picture(kind, colour, alpha, bits=16)], Output())
    assert (extension, note) == (LOSSLESS[kind], "")
    found = opencv(data)
    assert found.dtype == np.uint16
    if alpha is None:
        assert np.array_equal(found, colour)
    else:
        assert np.array_equal(found[:, :, [2, 1, 0, 3]], as_rgb(colour, alpha))
        if kind is Kind.PNG:
            assert data[25] == (4 if colour.ndim == 2 else 6)


@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
@pytest.mark.parametrize("colour", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", [Kind.JPEG, Kind.WEBP, Kind.AVIF, Kind.HEIC])
def test_what_has_loss_has_little(kind, colour, alpha):
    if kind is Kind.JPEG and alpha is not None:
        pytest.skip("has no alpha")
    data, _, note = encode([Picture(kind, colour, alpha)], Output())
    assert note == ""
    image = pillow(data)
    assert image.format.lower() in (kind, "heif")
    if colour.ndim == 2 and alpha is None and kind is not Kind.WEBP:
        assert image.mode == "L"
    found = np.asarray(image.convert("RGB" if alpha is None else "RGBA")).astype(int)
    visible = np.ones(GREY.shape, bool) if alpha is None else alpha > 0
    error = np.abs(found - as_rgb(colour, alpha))[visible]
    assert error.mean() < (8 if colour.ndim == 3 else 4)
    if alpha is not None:
        assert error[:, 3].mean() < 1


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("shape", ["colour", "grey", "alpha"])
@pytest.mark.parametrize("kind", [Kind.AVIF, Kind.HEIC])
def test_deep_pictures_stay_deep(kind, shape, bits):
    rows, columns = np.mgrid[0:64, 0:96]
    grey = (rows * 300 + columns * 500).astype(np.uint16)
    colour = grey if shape == "grey" else np.dstack([grey] * 3)
    alpha = grey[::-1].copy() if shape == "alpha" else None
    data, _, note = encode([Picture(kind, colour, alpha, bits=bits)], Output())
    held = 10 if bits == 10 else 12
    assert note == ("" if bits < 16 else f"{kind.upper()} holds 12 bits a sample: 16 were reduced")
    if kind is Kind.AVIF:
        found = opencv(data)
        largest = (1 << held) - 1
    else:
        read = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, bgr_mode=True)
        assert read.info["bit_depth"] == held
        found, largest = np.asarray(read), 0xFFFF
    assert found.dtype == np.uint16
    expected = colour if alpha is None else np.dstack([colour, alpha])
    assert found.shape == expected.shape
    if kind is Kind.AVIF:
        assert found.max() <= largest
    assert np.abs(found / largest - expected / 0xFFFF).mean() < 0.01
    steps = np.unique(found[0] if shape == "grey" else found[0, :, 0]).size
    assert steps > 80, "a ramp of 8 bits would have fewer"


@pytest.mark.parametrize("kind", [Kind.JPEG, Kind.WEBP, Kind.BMP])
def test_bits_that_a_kind_lacks_are_rounded_off_and_said(kind):
    flat = np.repeat(np.arange(0, 65536, 257 / 2)[:510].astype(np.uint16)[None], 16, axis=0)
    data, _, note = encode([Picture(Kind.PNG, flat, bits=16)], Output(kind, jpeg_quality=100, webp_quality=101))
    name = {"jpeg": "JPEG", "webp": "WebP", "bmp": "BMP"}[kind]
    assert note == f"{name} holds 8 bits a sample: 16 were reduced"
    found = np.asarray(pillow(data).convert("L")).astype(int)
    assert np.abs(found - np.rint(flat / 257)).max() <= (2 if kind is Kind.JPEG else 0)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [COLOUR, GREY], ids=["colour", "grey"])
def test_jpeg_lays_transparency_on_white(colour, depth):
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[:, 36:] = 255
    alpha[:, 68:] = 128
    planes = (colour, alpha) if depth == 8 else (colour * np.uint16(257), alpha * np.uint16(257))
    data, _, note = encode([Picture(Kind.PNG, *planes, bits=depth)], Output("jpeg", jpeg_quality=100))
    assert note.endswith("JPEG has no transparency: laid on white")
    assert note.startswith("JPEG holds 8 bits") == (depth == 16)
    flat = opencv(data).astype(int)
    assert flat.shape == colour.shape
    assert flat[:, :32].min() >= 250
    assert np.abs(flat[:, 40:64] - colour[:, 40:64]).mean() < 12
    assert np.abs(flat[:, 70:] - (colour[:, 70:] / 2 + 127)).mean() < 12


def test_a_gif_of_few_colours_stays_exact():
    rng = np.random.default_rng(1)
    palette = rng.integers(0, 256, (255, 3), np.uint8)
    colour = palette[rng.integers(0, 255, (300, 70))]
    alpha = np.where(rng.random((300, 70)) < 0.2, np.uint8(0), np.uint8(255))
    for mask in (None, alpha):
        data, extension, note = encode([Picture(Kind.GIF, colour, mask)], Output())
        assert (extension, note) == (".gif", "")
        found = np.asarray(pillow(data).convert("RGBA"))
        visible = alpha > 0 if mask is not None else np.ones(alpha.shape, bool)
        assert np.array_equal(found[:, :, 3] > 0, visible)
        assert np.array_equal(found[visible][:, 2::-1], colour[visible])
    data, extension, _ = encode([Picture(Kind.GIF, GREY)], Output())
    assert extension == ".gif"
    assert np.array_equal(np.asarray(pillow(data).convert("L")), GREY)


@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
def test_a_gif_of_many_colours_becomes_png_unless_gif_is_asked_for(alpha):
    data, extension, note = encode([Picture(Kind.GIF, COLOUR, alpha)], Output())
    assert extension == ".png"
    assert note == "a GIF holds 256 colours and no half transparency: written as PNG"
    assert np.array_equal(opencv(data)[:, :, :3], COLOUR)
    data, extension, note = encode([Picture(Kind.GIF, COLOUR, alpha)], Output("gif"))
    assert extension == ".gif"
    reduced, hard = "GIF holds 256 colours: the others were replaced", "GIF has no half transparency: it was made hard"
    assert note == (reduced if alpha is None else f"{reduced}; {hard}")
    found = np.asarray(pillow(data).convert("RGBA")).astype(int)
    visible = np.ones(GREY.shape, bool) if alpha is None else alpha >= 128
    assert np.array_equal(found[:, :, 3] > 0, visible)
    assert np.abs(found[visible][:, 2::-1] - COLOUR[visible]).mean() < 12


def test_a_gif_of_few_colours_keeps_them_whatever_the_transparency():
    data, _, note = encode([Picture(Kind.PNG, GREY // 2, ALPHA)], Output("gif"))
    assert note == "GIF has no half transparency: it was made hard"
    found = np.asarray(pillow(data).convert("RGBA"))
    assert np.array_equal(found[:, :, 3], np.where(ALPHA < 128, 0, 255))
    assert np.array_equal(found[ALPHA >= 128][:, 0], (GREY // 2)[ALPHA >= 128])
    assert encode([Picture(Kind.PNG, GREY)], Output("gif")).note == ""


def test_heic_without_its_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    picture = Picture(Kind.HEIC, COLOUR)
    _, extension, note = encode([picture], Output())
    assert extension == ".png"
    assert note == "HEIC needs another library: written as PNG"
    with pytest.raises(PictureError, match=r"pip install pillow-heif") as caught:
        encode([picture], Output("heic"))
    assert caught.value.code is Code.UNSUPPORTED


def test_small_jpeg_2000():
    small = Picture(Kind.JPEG2000, draw(31, 40))
    assert encode([small], Output())[1:] == (
        ".png",
        "a JPEG 2000 is not written with sides below 32 pixels: written as PNG",
    )
    with pytest.raises(PictureError, match=r"set output\.format to png"):
        encode([small], Output("jpeg2000"))
    data, extension, _ = encode([Picture(Kind.JPEG2000, draw(32, 32))], Output())
    assert extension == ".jp2"
    assert np.array_equal(opencv(data), draw(32, 32))


def test_a_kind_that_cannot_hold_the_result_becomes_png():
    long = np.zeros((1, 65_501, 3), np.uint8)
    data, extension, note = encode([Picture(Kind.JPEG, long)], Output())
    assert (extension, note) == (".png", "a JPEG cannot hold 65501 x 1 pixels: written as PNG")
    assert opencv(data).shape == long.shape
    with pytest.raises(PictureError) as caught:
        encode([Picture(Kind.PNG, long)], Output("webp"))
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize("kind", Kind)
def test_the_output_format_is_obeyed(kind):
    data, extension, _ = encode([Picture(Kind.PNG, COLOUR)], Output(kind))
    assert extension == {"jpeg": ".jpg", "jpeg2000": ".jp2"}.get(kind, f".{kind}")
    assert pillow(data).size == (72, 60)


def test_an_unknown_output_format_is_refused():
    with pytest.raises(PictureError, match="no output format is called 'xcf'"):
        encode([Picture(Kind.PNG, COLOUR)], Output("xcf"))


def test_quality_and_compression_are_obeyed():
    noisy = [Picture(Kind.JPEG, draw(100, 100))]
    for kind, name in (("jpeg", "jpeg"), ("webp", "webp"), ("avif", "avif"), ("heic", "jpeg")):
        sizes = [len(encode(noisy, Output(kind, **{f"{name}_quality": quality})).data) for quality in (30, 95)]
        assert sizes[0] < sizes[1]
    flat = [Picture(Kind.PNG, np.zeros((100, 100, 3), np.uint8))]
    for alpha in (None, np.zeros((100, 100), np.uint8)):
        flat = [Picture(Kind.PNG, np.zeros((100, 100), np.uint8), alpha)]
        sizes = [len(encode(flat, Output(png_compression=level)).data) for level in (0, 9)]
        assert sizes[1] < sizes[0]


PAGES = [
    Picture(Kind.TIFF, COLOUR, metadata=Metadata(icc_profile(), photograph_exif(), photograph_xmp())),
    Picture(Kind.TIFF, deep(GREY[:33, :55].copy()), metadata=Metadata(icc_profile(b"GRAY")), bits=16),
    Picture(Kind.TIFF, COLOUR, ALPHA),
    Picture(Kind.TIFF, GREY, ALPHA),
]


def test_pages_become_one_file_each_as_it_is():
    data, extension, note = encode(PAGES, Output())
    assert (extension, note) == (".tiff", "")
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 4
    modes, profiles = [], []
    for number, page in enumerate(PAGES):
        image.seek(number)
        image.load()
        modes.append(image.mode)
        profiles.append(image.tag_v2.get(34675, b""))
        pixels = np.asarray(image)
        if image.mode in ("RGB", "RGBA"):
            assert np.array_equal(pixels, as_rgb(page.colour, page.alpha))
        elif image.mode == "LA":
            assert np.array_equal(pixels, np.dstack([page.colour, page.alpha]))
        else:
            assert np.array_equal(pixels, page.colour)
    assert modes == ["RGB", "I;16", "RGBA", "LA"]
    assert profiles == [page.metadata.icc for page in PAGES]
    image.seek(0)
    assert image.tag_v2[271] == "Maker"
    assert encode(PAGES[1:3], Output("tiff"))[1:] == (".tiff", "")


def test_pages_of_other_kinds():
    pages = [Picture(Kind.HEIC, COLOUR), Picture(Kind.HEIC, GREY)]
    data, extension, note = encode(pages, Output())
    assert (extension, note) == (".tiff", "a HEIC of 2 pictures: written as TIFF")
    assert Image.open(io.BytesIO(data)).n_frames == 2
    for wanted, name in (("png", "PNG"), ("gif", "GIF"), ("avif", "AVIF")):
        with pytest.raises(PictureError, match=f"{name} holds one picture, this one has 2 pages") as caught:
            encode(pages, Output(wanted))
        assert caught.value.code is Code.UNSUPPORTED


def test_tiffs_declare_their_alpha():
    data = encode([Picture(Kind.TIFF, COLOUR, ALPHA)], Output()).data
    assert struct.pack("<HHIHH", 338, 3, 1, 2, 0) in data


@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
@pytest.mark.parametrize("padding", [0, 150_000])
@pytest.mark.parametrize("kind", [*WITH_METADATA, Kind.JPEG2000])
def test_profiles_are_carried(kind, padding, alpha):
    profile = icc_profile(padding=padding)
    data = encode([Picture(kind, COLOUR, alpha, Metadata(icc=profile))], Output()).data
    if kind is Kind.JPEG2000:
        assert profile in data
        assert np.array_equal(opencv(data)[:, :, :3], COLOUR)
        assert np.array_equal(np.asarray(pillow(data))[:, :, 2::-1], COLOUR)
    else:
        assert pillow(data).info["icc_profile"] == profile


@pytest.mark.parametrize("kind", [*WITH_METADATA, Kind.JPEG2000])
def test_a_profile_of_other_channels_is_left_out(kind):
    grey = icc_profile(b"GRAY")
    assert grey not in encode([Picture(kind, COLOUR, None, Metadata(icc=grey))], Output()).data
    data = encode([Picture(kind, GREY, None, Metadata(icc=grey))], Output()).data
    if kind not in (Kind.WEBP, Kind.JPEG2000):
        assert pillow(data).info["icc_profile"] == grey
    for kept in (Kind.PNG, Kind.TIFF):
        data = encode([Picture(kept, GREY, ALPHA, Metadata(icc=grey))], Output()).data
        assert pillow(data).info["icc_profile"] == grey


def test_what_pages_lose_is_said_once():
    page = Picture(Kind.TIFF, deep(GREY), deep(ALPHA), Metadata(icc=icc_profile(b"GRAY")), bits=16)
    assert encode([page, page], Output()).note == "TIFF cannot hold the colour profile: colours may shift"


def test_colours_keep_their_sharpness_unless_a_jpeg_never_had_it():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 2] = 255
    error = {
        kind: np.abs(opencv(encode([Picture(kind, stripes)], Output("jpeg")).data).astype(int) - stripes).mean()
        for kind in (Kind.PNG, Kind.JPEG)
    }
    assert error[Kind.PNG] < 3 < error[Kind.JPEG]


@pytest.mark.parametrize("kind", Kind)
def test_a_damaged_profile_costs_nothing_but_itself(kind):
    broken = bytearray(icc_profile())
    broken[128:132] = b"\xff\xff\xff\xff"  # plausible outside, nonsense inside
    data = encode([Picture(kind, COLOUR, None, Metadata(bytes(broken), b"II*\0junk", b"<junk"))], Output(kind)).data
    assert pillow(data).size == (72, 60)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
@pytest.mark.parametrize("kind", WITH_METADATA)
def test_exif_xmp_and_profile_together(kind, alpha, order):
    metadata = Metadata(icc_profile(padding=100_000), photograph_exif(order), photograph_xmp())
    image = pillow(encode([Picture(kind, COLOUR, alpha, metadata)], Output()).data)
    exif = image.getexif()
    assert exif[271] == "Maker"
    assert exif[274] == 1
    inner = exif.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == (72, 60)
    assert inner[0x927C][:8] == b"MakerABC"
    assert inner[0x9204] == -1 / 3
    assert exif.get_ifd(0x8825)[2] == (47.0, 22.0, 30.5)
    assert exif.get_ifd(1) in ({}, None) or 513 not in exif.get_ifd(1)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or image.tag_v2[700]
    if isinstance(xmp, str):
        xmp = xmp.encode()
    assert b"Gr\xc3\xbc\xc3\x9fe &amp; &lt;mehr&gt;" in xmp
    assert b'tiff:Orientation="1"' in xmp
    assert image.info["icc_profile"] == metadata.icc


def test_metadata_in_jpeg_2000():
    metadata = Metadata(b"", photograph_exif(), photograph_xmp())
    data = encode([Picture(Kind.JPEG2000, COLOUR, None, metadata)], Output()).data
    assert np.array_equal(opencv(data), COLOUR)
    assert data.index(b"uuidJpgTiffExif->JP2II*\0") < data.index(b"jp2c")
    assert data.index(b"uuid\xbe\x7a\xcf\xcb\x97\xa9\x42\xe8\x9c\x71\x99\x94\x91\xe3\xaf\xac<?xpacket")


def test_jpeg_sheds_what_does_not_fit():
    exif = photograph_exif(maker_note=60_000, comment=9_000)
    xmp = photograph_xmp(f"<crs:Mask>{'m' * 70_000}</crs:Mask>")
    image = pillow(encode([Picture(Kind.JPEG, COLOUR, None, Metadata(b"", exif, xmp))], Output()).data)
    found = image.getexif()
    assert found[271] == "Maker"
    assert 0x927C not in found.get_ifd(0x8769)
    assert len(found.get_ifd(0x8769)[0x9286]) == 9_000
    assert b"dc:title" in image.info["xmp"]
    assert b"mmmm" not in image.info["xmp"]
    kept = pillow(encode([Picture(Kind.PNG, COLOUR, None, Metadata(b"", exif, xmp))], Output()).data)
    assert len(kept.getexif().get_ifd(0x8769)[0x927C]) == 60_008
