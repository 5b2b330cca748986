"""Metadata: true of the result, whole where it was whole, and nothing in it can stop a picture."""

import struct
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from engine_files import draw, ramp
from metadata_files import exif, icc_profile, photograph_exif, photograph_xmp
from PIL import Image

from sr_engine.formats import tiff
from sr_engine.formats.encoding import encode
from sr_engine.formats.metadata import corrected, exif_within, xmp_within
from sr_engine.headers import Kind
from sr_engine.pictures import Metadata, Picture
from sr_engine.protocol import Output

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
SIZES = {256, 257, 274, 0xA002, 0xA003, 0x1001}


def fixed_exif(block, width=60, height=72):
    return corrected(Metadata(exif=block), width, height).exif


def fixed_xmp(packet, width=60, height=72, block=b""):
    return corrected(Metadata(exif=block, xmp=packet), width, height).xmp


def everything(block):
    order = tiff.order_of(block)
    return tiff.read(block, order, struct.unpack_from(order + "I", block, 4)[0], nested=tiff.DIRECTORIES)


def flat(tags):
    found = {}
    for tag, value in tags.items():
        found |= (
            {(tag, *inner): what for inner, what in flat(value).items()} if isinstance(value, dict) else {(tag,): value}
        )
    return found


@pytest.mark.parametrize("order", "<>")
def test_sizes_and_orientation_are_corrected_and_all_else_is_kept(order):
    before, block = photograph_exif(order), fixed_exif(photograph_exif(order))
    image = Image.Exif()
    image.load(block)
    assert (image[274], image[256], image[257]) == (1, 60, 72)
    assert (image.get_ifd(0x8769)[0xA002], image.get_ifd(0x8769)[0xA003]) == (60, 72)
    assert block[:2] == before[:2]
    old, new = flat(everything(before)), flat(everything(block))
    assert new.keys() == old.keys()
    assert {place for place in old if new[place] != old[place]} == {place for place in old if place[-1] in SIZES}


@pytest.mark.parametrize("order", "<>")
def test_makers_notes_stay_where_they_are(order):
    """Many count positions from the start of the block."""
    before = photograph_exif(order, maker_note=500)
    assert fixed_exif(before).index(b"MakerABC") == before.index(b"MakerABC")


@pytest.mark.parametrize("order", "<>")
def test_the_thumbnail_is_dropped(order):
    thumbnail = b"\xff\xd8" + b"thumb" * 2000 + b"\xff\xd9"
    before = photograph_exif(order, thumbnail=thumbnail)
    block = fixed_exif(before)
    assert b"thumb" not in block
    assert len(block) < len(photograph_exif(order, thumbnail=b"")) + 100
    image = Image.Exif()
    image.load(block)
    assert image.get_ifd(1) == {}


def test_what_is_not_told_is_not_added():
    block = exif(3)
    assert fixed_exif(block) == exif(1)
    nothing_of_it = b"II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 271, 2, 2, b"M\0\0\0", 0)
    assert fixed_exif(nothing_of_it) == nothing_of_it
    assert fixed_exif(b"") == b""
    assert fixed_xmp(b"") == b""


@pytest.mark.parametrize("order", "<>")
def test_sides_beyond_a_short(order):
    tags = flat(everything(fixed_exif(photograph_exif(order), 70_000, 80_000)))
    assert tags[257,] == tiff.Value(4, struct.pack("<I", 80_000))
    assert tags[0x8769, 0xA002] == tiff.Value(4, struct.pack("<I", 70_000))
    assert tags[0x8769, 0xA003] == tiff.Value(4, struct.pack("<I", 80_000))


@pytest.mark.parametrize(
    "block", [b"II*\0", b"junk" * 9, b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\xff" + bytes(9), b"II+\0" * 8]
)
def test_exif_that_is_none_is_dropped(block):
    assert fixed_exif(block) == b""


@pytest.mark.parametrize("order", "<>")
def test_the_sound_part_of_damaged_exif_stays(order):
    whole = photograph_exif(order, thumbnail=b"")
    kept = set()
    for length in range(0, len(whole), 3):
        block = fixed_exif(whole[:length])
        if block:
            kept.add(len(flat(everything(block))))
            assert everything(block)[274] == tiff.Value(3, b"\1\0")
            Image.Exif().load(block)
    assert len(kept) > 5
    rng = np.random.default_rng(3)
    for _ in range(500):
        damaged = bytearray(photograph_exif(order))
        for place in rng.integers(4, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        block = fixed_exif(bytes(damaged))
        if block:
            Image.Exif().load(block)
            tiff.described(Metadata(exif=block))
            exif_within(block, len(block) // 2)


def test_hostile_metadata_takes_no_time():
    count = 65_535
    table = struct.pack("<H", count) + struct.pack("<HHII", 0x8769, 4, 1, 8) * count + struct.pack("<I", 8)
    begun = time.monotonic()
    fixed_exif(b"II*\0\x08\0\0\0" + table)
    fixed_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", count) + struct.pack("<HHII", 700, 7, 900, 8) * count + bytes(4))
    shared = struct.pack("<H", 4000) + b"".join(struct.pack("<HHII", tag, 7, 90_000, 8) for tag in range(800, 4800))
    block = fixed_exif(b"II*\0\x08\0\0\0" + shared + bytes(90_000))
    assert len(exif_within(block, 200_000)) <= 200_000
    assert len(tiff.block_of(tiff.described(Metadata(exif=block)))) < 300_000
    assert fixed_xmp(photograph_xmp("<crs:a/>" * 400_000)) == b""
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("order", "<>")
def test_shedding_begins_with_the_makers_note(order):
    block = photograph_exif(order, maker_note=3_000, comment=5_000)
    before = flat(everything(block))
    assert exif_within(block, len(block)) == block
    once = exif_within(block, 6_000)
    assert before.keys() - flat(everything(once)).keys() == {(0x8769, 0x927C)}
    assert all(before[place] == value for place, value in flat(everything(once)).items())
    twice = exif_within(block, 2_000)
    assert before.keys() - flat(everything(twice)).keys() == {(0x8769, 0x927C), (0x8769, 0x9286)}
    assert len(twice) <= 2_000


def description(packet):
    return ET.fromstring(packet.decode().lstrip("\ufeff")).find(f"{RDF}RDF/{RDF}Description")


def test_xmp_is_corrected_and_all_else_is_kept():
    packet = fixed_xmp(photograph_xmp(), block=exif(6))
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf"')
    assert packet.endswith(b'<?xpacket end="w"?>')
    found = description(packet)
    name = "{http://ns.adobe.com/tiff/1.0/}%s".__mod__
    assert found.get(name("Orientation")) == "1"
    assert found.get(name("ImageWidth")) == "60"
    assert found.find(name("ImageLength")).text == "72"
    assert found.get("{http://ns.adobe.com/exif/1.0/}PixelXDimension") == "60"
    assert found.find("{http://ns.adobe.com/exif/1.0/}PixelYDimension").text == "72"
    assert found.get("{http://ns.adobe.com/camera-raw-settings/1.0/}Note") == 'two\nlines "q"'
    assert found.find(f".//{RDF}li").text == "Grüße & <mehr>"
    assert b'xmp:Rating="4"' in packet, "readers look for the usual prefixes"
    for lost in (b"MotionPhoto", b"hdrgm:Version", b"HasExtended", b"thumb", b"GainMap", b"Directory"):
        assert lost not in packet
    assert fixed_xmp(packet) == packet


def test_names_count_and_not_prefixes():
    packet = photograph_xmp().replace(b"GCamera", b"a").replace(b"tiff:", b"T:").replace(b"xmlns:tiff", b"xmlns:T")
    packet = fixed_xmp(packet, block=exif(6))
    assert b"MotionPhoto" not in packet
    assert b'T:Orientation="1"' in packet


@pytest.mark.parametrize(
    "packet",
    [
        b"<junk",
        b"no markup",
        b"<a/>",
        photograph_xmp()[:-200],
        photograph_xmp().replace("ü".encode(), b"\xff"),
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + photograph_xmp("<crs:a>&b;</crs:a>"),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + photograph_xmp(),
        photograph_xmp("<crs:a>" * 5_000, "</crs:a>" * 5_000),
        photograph_xmp("<crs:a>&undeclared;</crs:a>"),
        photograph_xmp().decode().encode("utf-16"),
        photograph_xmp("<crs:a>" + "a" * 5_000_000 + "</crs:a>"),
    ],
)
def test_xmp_that_is_damaged_or_unsafe_is_dropped(packet):
    assert fixed_xmp(packet) == b""


def test_xmp_of_nothing_but_what_is_lost_is_dropped():
    packet = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
        xmlns:g="http://ns.google.com/photos/1.0/camera/" g:MicroVideo="1"/></rdf:RDF>"""
    assert fixed_xmp(packet) == b""


PANORAMA = "".join(
    f'<p:{name} xmlns:p="http://ns.google.com/photos/1.0/panorama/">{value}</p:{name}>'
    for name, value in {
        "FullPanoWidthPixels": 100,
        "CroppedAreaImageWidthPixels": 24,
        "CroppedAreaLeftPixels": 7,
        "CroppedAreaImageHeightPixels": 20,
        "ProjectionType": "equirectangular",
    }.items()
)
REGIONS = """<mwg-rs:Regions xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" rdf:parseType="Resource">
 <mwg-rs:AppliedToDimensions stDim:w="24" stDim:h="20" stDim:unit="pixel"/></mwg-rs:Regions>"""


def test_panoramas_and_faces_follow_the_size():
    packet = photograph_xmp(PANORAMA, REGIONS)
    upright = fixed_xmp(packet.replace(b'Orientation="6"', b'Orientation="1"'), 72, 60).decode()
    for text in ("PanoWidthPixels", ">300<", ">72<", ">21<", ">60<", "equirectangular"):
        assert text in upright
    assert 'stDim:w="72" stDim:h="60" stDim:unit="pixel"' in upright
    for turned in (
        fixed_xmp(packet, block=exif(6)),
        fixed_xmp(packet.replace(b'Orientation="6"', b'Orientation="1"'), block=exif(8)),
        fixed_xmp(packet, block=b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 274, 4, 1, 6, 0)),
    ):
        assert b"Dimensions" not in turned
        assert b"Pano" not in turned
        assert b"dc:title" in turned


def test_an_orientation_that_only_xmp_tells_was_not_applied():
    packet = photograph_xmp(PANORAMA, REGIONS)
    kept = fixed_xmp(packet, 72, 60)
    assert b'tiff:Orientation="6"' in kept
    assert b">300<" in kept
    assert b'stDim:w="72"' in kept
    told = fixed_xmp(packet, 72, 60, block=exif(1))
    assert b'tiff:Orientation="1"' in told
    assert b">300<" in told


def test_what_is_told_in_pixels_is_left_out():
    inner = {
        0x9214: tiff.Value(3, struct.pack("<4H", 12, 10, 4, 4)),
        0xA20E: tiff.Value(5, struct.pack("<II", 2000, 1)),
        0xA20F: tiff.Value(5, struct.pack("<II", 2000, 1)),
        0xA210: tiff.Value(3, struct.pack("<H", 3)),
        0xA214: tiff.Value(3, struct.pack("<2H", 12, 10)),
        0x920A: tiff.Value(5, struct.pack("<II", 50, 1)),
    }
    block = fixed_exif(tiff.block_of({0x8769: inner}))
    assert flat(everything(block)).keys() == {(0x8769, 0x920A)}
    names = ("SubjectArea", "SubjectLocation", "FocalPlaneXResolution", "FocalPlaneResolutionUnit", "FocalLength")
    packet = fixed_xmp(photograph_xmp(*(f"<exif:{name}>3/1</exif:{name}>" for name in names)))
    assert [name for name in names if name.encode() in packet] == ["FocalLength"]


@pytest.mark.parametrize("order", "<>")
def test_comments_of_sixteen_bits_follow_the_byte_order(order):
    text = "Grüße, 漢字"
    ascii_comment = b"ASCII\0\0\0" + b"c" * 2 * len(text)
    packed = b"UNICODE\0" + text.encode("utf-16-le" if order == "<" else "utf-16-be")
    block = photograph_exif(order, comment=len(packed)).replace(ascii_comment, packed)
    assert packed in block
    exif_tags = tiff.described(Metadata(exif=block))[0x8769]
    assert exif_tags[0x9286] == tiff.Value(7, b"UNICODE\0" + text.encode("utf-16-le"))


def test_xmp_sheds_its_largest_properties():
    packet = fixed_xmp(
        photograph_xmp("<crs:One>" + "o" * 9_000 + "</crs:One>", "<crs:Two>" + "t" * 5_000 + "</crs:Two>")
    )
    assert xmp_within(packet, len(packet)) == packet
    once = xmp_within(packet, 9_000)
    assert b"ooo" not in once
    assert b"ttt" in once
    twice = xmp_within(packet, 4_000)
    assert b"ttt" not in twice
    assert b'xmp:Rating="4"' in twice
    assert xmp_within(packet, 10) == b""


@pytest.mark.parametrize("kind", Kind)
def test_a_profile_that_is_lost_is_said(kind):
    colour, alpha = draw(40, 48), ramp(40, 48)
    grey = colour[:, :, 1].copy()

    def note(plane, alpha, space):
        return encode([Picture(Kind.PNG, plane, alpha, Metadata(icc=icc_profile(space)))], Output(kind)).note

    name = {"webp": "WebP", "jpeg2000": "JPEG 2000"}.get(kind, kind.upper())
    lost = f"{name} cannot hold the colour profile: colours may shift"
    assert (lost in note(colour, None, b"RGB ")) == (kind in (Kind.BMP, Kind.GIF))
    assert (lost in note(grey, None, b"GRAY")) == (kind in (Kind.BMP, Kind.GIF, Kind.WEBP))
    assert (lost in note(grey, alpha, b"GRAY")) == (kind not in (Kind.JPEG, Kind.PNG, Kind.TIFF))
    assert lost not in note(colour, None, b"CMYK")
    assert lost not in note(colour, None, b"GRAY"), "it was never of use"
