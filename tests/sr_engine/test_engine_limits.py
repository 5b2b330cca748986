"""Limits: what is refused from the header alone, and what kind a result becomes."""

import io

import numpy as np
import pytest
from engine_files import draw, pages, ramp, saved, tiff, two_frames, written

from sr_engine import machine
from sr_engine.errors import PictureError
from sr_engine.headers import Header, Kind, read_header
from sr_engine.limits import check, encoder_bytes, expected_memory_bytes, result_kind
from sr_engine.protocol import Code, Limits, Output

SMALL = Header(kind=Kind.PNG, width=48, height=10)


# What a limit is called in the config, whose units are larger ones.
KEYS = {"pixels": "megapixels", "side": "side", "file_bytes": "file_megabytes", "memory_bytes": "memory_megabytes"}


def refusal(header, **limits):
    with pytest.raises(PictureError) as caught:
        check(header, 1000, Limits(**limits), Output(), scale=3)
    return caught.value


def test_each_limit_is_exact_and_named():
    needed = expected_memory_bytes(SMALL, 1000, scale=3)
    at_most = {"pixels": 480, "side": 48, "file_bytes": 1000, "memory_bytes": needed}
    check(SMALL, 1000, Limits(**at_most), Output(), scale=3)
    for name, value in at_most.items():
        error = refusal(SMALL, **{name: value - 1})
        assert error.code is Code.TOO_LARGE
        assert error.message.endswith(f"raise limits.{KEYS[name]}")


def test_an_obstacle_comes_first():
    animation = read_header(io.BytesIO(two_frames("GIF")))
    assert refusal(animation, pixels=1).code is Code.UNSUPPORTED


def test_all_pages_count():
    three = draw(20, 24)
    header = read_header(io.BytesIO(pages(tiff(three), tiff(three), tiff(draw(9, 100)))))
    assert (header.pages, header.pixels, header.side) == (3, 480 + 480 + 900, 100)
    check(header, 1000, Limits(pixels=1860, side=100), Output(), scale=3)
    assert "limits.megapixels" in refusal(header, pixels=1859).message
    assert "limits.side" in refusal(header, side=99).message


def test_without_a_figure_memory_is_that_of_the_machine():
    sides = int((machine.total_bytes() / 20) ** 0.5)
    header = Header(kind=Kind.PNG, width=sides, height=sides)
    assert "limits.memory_megabytes" in refusal(header, pixels=10**15, side=10**9).message


def test_memory_is_that_of_the_kind_that_is_written():
    def needed(output="same", **header):
        return expected_memory_bytes(Header(**header), 0, scale=3, output=Output(output))

    phone = {"kind": Kind.HEIC, "width": 5712, "height": 4284}
    assert needed(**phone) == needed("png", **phone)
    small = {"kind": Kind.HEIC, "width": 4032, "height": 3024}
    assert needed(**small) > needed("png", **small)
    several = small | {"further": ((4032, 3024),)}
    assert needed(**several) == needed("tiff", **several)
    few = {"kind": Kind.GIF, "width": 4000, "height": 3000}
    assert needed(**few) == max(needed("gif", **few), needed("png", **few))


def test_jpeg_is_offered_where_it_needs_less():
    header = Header(kind=Kind.HEIC, width=4032, height=3024)
    offer = "or set output.format to jpeg, or raise limits.memory_megabytes"
    assert offer in refusal(header, memory_bytes=3 << 29).message
    assert "jpeg" not in refusal(header, memory_bytes=1 << 28).message, "it would be refused as well"
    transparent = Header(kind=Kind.HEIC, width=4032, height=3024, alpha=True)
    assert "jpeg" not in refusal(transparent, memory_bytes=3 << 29).message
    wide = Header(kind=Kind.PNG, width=30_000, height=100)
    needed = expected_memory_bytes(wide, 1000, scale=3)
    assert "jpeg" not in refusal(wide, memory_bytes=needed - 1, side=10**6).message


def test_what_an_encoder_makes_of_grey_counts():
    def needed(kind, channels, alpha=False, deep=False):
        return encoder_bytes(kind, 1000, channels, alpha=alpha, deep=deep)

    for kind in Kind:
        same = kind in (Kind.WEBP, Kind.AVIF, Kind.HEIC)
        assert (needed(kind, 1) == needed(kind, 3)) == same
        stays = kind in (Kind.PNG, Kind.GIF, Kind.JPEG)
        assert (needed(kind, 1, alpha=True, deep=True) < needed(kind, 3, alpha=True, deep=True)) == stays
    assert needed(Kind.TIFF, 1, alpha=True) < needed(Kind.TIFF, 3, alpha=True)
    assert needed(Kind.WEBP, 3, alpha=True) == 46_000
    grey, colour = (Header(kind=Kind.HEIC, width=4000, height=3000, grey=grey) for grey in (True, False))
    assert expected_memory_bytes(grey, 0, scale=3) > expected_memory_bytes(colour, 0, scale=3) * 0.8


def test_the_header_tells_what_memory_depends_on():
    plain = expected_memory_bytes(SMALL, 0, scale=3)
    base = expected_memory_bytes(SMALL, 0, scale=0) - plain
    assert base < 0
    for change in ({"alpha": True}, {"bits": 16}, {"inks": True}, {"further": ((48, 10),)}):
        header = Header(kind=Kind.PNG, **({"width": 4800, "height": 1000} | change))
        simple = Header(kind=Kind.PNG, width=4800, height=1000)
        assert expected_memory_bytes(header, 0, scale=3) > expected_memory_bytes(simple, 0, scale=3)
    colour = draw(20, 24)
    with_alpha = np.dstack([colour, ramp(20, 24)])
    for data in (
        written(".png", with_alpha),
        saved(with_alpha, "PNG"),
        written(".webp", with_alpha),
        saved(with_alpha, "WEBP", lossless=True),
        written(".avif", with_alpha),
        saved(with_alpha, "JPEG2000"),
        tiff(with_alpha, t338=2),
    ):
        assert read_header(io.BytesIO(data)).alpha
    for extension in (".png", ".webp", ".avif", ".tiff", ".jpg"):
        assert not read_header(io.BytesIO(written(extension, colour))).alpha


def test_a_kind_that_cannot_hold_the_result_becomes_png():
    assert result_kind(Kind.JPEG, 65_500, 10, Output()) is Kind.JPEG
    assert result_kind(Kind.JPEG, 65_501, 10, Output()) is Kind.PNG
    assert result_kind(Kind.WEBP, 10, 16_384, Output()) is Kind.PNG
    assert result_kind(Kind.GIF, 10, 65_536, Output()) is Kind.PNG
    assert result_kind(Kind.AVIF, 10, 32_768, Output()) is Kind.AVIF
    assert result_kind(Kind.AVIF, 10, 32_769, Output()) is Kind.PNG
    assert result_kind(Kind.AVIF, 20_000, 20_000, Output()) is Kind.PNG
    assert result_kind(Kind.BMP, 30_000, 30_000, Output()) is Kind.PNG
    assert result_kind(Kind.TIFF, 20_000, 20_000, Output()) is Kind.TIFF
    assert result_kind(Kind.TIFF, 20_000, 20_000, Output(), sample_bytes=2) is Kind.PNG
    with pytest.raises(PictureError, match=r"set output\.format to png") as caught:
        result_kind(Kind.PNG, 10, 16_384, Output(format="webp"))
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(PictureError, match="no output format is called 'psd'"):
        result_kind(Kind.PNG, 10, 10, Output(format="psd"))
