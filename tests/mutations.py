"""Damages pictures as disks, networks and malice do: small originals of every kind, and endless variants of them."""

import itertools
import os
import random
import struct
import zlib

import cv2
import numpy as np
from engine_files import (
    bmp,
    bmp_rows,
    deepened,
    heic,
    jpeg2000_of_12_bits,
    pages,
    png_chunk,
    ramp,
    saved,
    tiff,
    two_frames,
    written,
)
from metadata_files import icc_profile, photograph_exif, photograph_xmp
from PIL import Image

_BEE = os.path.join(os.path.dirname(__file__), "..", "docs", "bee.jpg")
_EXTREMES = (0, 1, 2, 3, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_HEAD = 700  # bytes in which the fields lie that decoders trust


def originals():
    """By name, the bytes of small pictures of every kind that is read."""
    bee = cv2.imread(_BEE)
    height, width = bee.shape[:2]
    bee = np.ascontiguousarray(bee[height // 2 - 35 : height // 2 + 35, width // 2 - 45 : width // 2 + 45])
    rgb = bee[:, :, ::-1].copy()
    grey, alpha = bee[:, :, 1].copy(), ramp(70, 90)
    rgba = np.dstack([rgb, alpha])
    deep = deepened(bee)
    image = Image.fromarray(rgb)
    inks = image.convert("CMYK")
    said = {"exif": b"Exif\0\0" + photograph_exif(), "icc_profile": icc_profile(), "xmp": photograph_xmp()}
    described = {name: said[name].removeprefix(b"Exif\0\0") for name in said}
    few = image.quantize(16)
    lossy = {"quality_mode": "rates", "quality_layers": [8]}
    return {
        "jpeg": saved(rgb, "JPEG", quality=85),
        "jpeg progressive": saved(rgb, "JPEG", quality=85, progressive=True, subsampling="4:2:0"),
        "jpeg restarts": written(".jpg", bee, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "jpeg cmyk": saved(inks, "JPEG", quality=80),
        "jpeg described": saved(rgb, "JPEG", **said),
        "png": written(".png", bee),
        "png 16": written(".png", deep[:20], cv2.IMWRITE_PNG_FILTER, 248),
        "png palette": saved(few, "PNG", transparency=b"\0\x80\xff"),
        "png grey transparent": saved(grey, "PNG", transparency=7),
        "png interlaced": interlaced(grey),
        "png described": saved(rgba[:20], "PNG", exif=photograph_exif(), icc_profile=icc_profile()),
        "webp lossy": saved(rgb, "WEBP", quality=70),
        "webp lossless": saved(rgb, "WEBP", lossless=True),
        "webp alpha": saved(rgba, "WEBP", quality=70, **described),
        "tiff strips": written(".tiff", bee, cv2.IMWRITE_TIFF_COMPRESSION, 1, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 16),
        "tiff lzw": written(".tiff", bee, cv2.IMWRITE_TIFF_COMPRESSION, 5),
        "tiff deflate": written(".tiff", bee, cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_PREDICTOR, 2),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff tiles": tiled(rgb),
        "tiff 16": tiff(deep[:30], order=">"),
        "tiff alpha": tiff(rgba[:30], t338=2, t274=6),
        "tiff cmyk": saved(inks, "TIFF", compression="tiff_lzw"),
        "tiff pages": pages(tiff(grey[:20]), tiff(deep[:10]), tiff(rgb[:15])),
        "tiff bilevel": saved(image.convert("1", dither=Image.Dither.NONE), "TIFF", compression="group4"),
        "bmp": written(".bmp", bee),
        "bmp top-down": bmp(90, -20, 24, bmp_rows(bee[:20][::-1])),
        "bmp packed": packed_bmp(),
        "bmp palette": saved(few, "BMP"),
        "avif": written(".avif", bee, cv2.IMWRITE_AVIF_SPEED, 9),
        "avif alpha": saved(rgba, "AVIF", speed=9, **described),
        "avif 10": written(".avif", deep >> 6, cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_SPEED, 9),
        "jpeg 2000": saved(rgb, "JPEG2000", **lossy),
        "jpeg 2000 tiles": saved(rgba, "JPEG2000", tile_size=(32, 32)),
        "jpeg 2000 12": jpeg2000_of_12_bits(deep[:, :, 0] >> 4),
        "jpeg 2000 grey alpha": saved(np.dstack([grey, alpha]), "JPEG2000"),
        "gif": saved(few, "GIF"),
        "gif transparent": saved(few, "GIF", transparency=3, interlace=1),
        "heic": heic(rgb, quality=50, exif=photograph_exif(), xmp=photograph_xmp()),
        "heic alpha": heic(rgba, "RGBA", quality=50, icc=icc_profile()),
        "heic 10": heic(deep[:, :, ::-1].copy(), "RGB;16", quality=50),
    }


def refused():
    """By name, sound files that are refused: animations, and bombs, of few bytes and millions of pixels."""
    flat = np.zeros((1500, 2000), np.uint8)
    small = saved(flat[:20, :20], "GIF")
    return {
        **{f"animated {kind.lower()}": two_frames(kind) for kind in ("GIF", "WEBP", "PNG", "AVIF")},
        "bomb jpeg": saved(flat, "JPEG", progressive=True),
        "bomb png": written(".png", flat, cv2.IMWRITE_PNG_COMPRESSION, 9),
        "bomb webp": written(".webp", flat, cv2.IMWRITE_WEBP_QUALITY, 101),
        "bomb tiff": written(".tiff", flat, cv2.IMWRITE_TIFF_COMPRESSION, 8),
        "bomb bmp": bmp(2000, 1500, 8, b"\0\1", packing=1, palette=bytes(1024)),
        "bomb gif": small[:6] + struct.pack("<HH", 2000, 1500) + small[10:],
        "bomb jpeg 2000": saved(flat, "JPEG2000"),
        "bomb avif": written(".avif", flat, cv2.IMWRITE_AVIF_SPEED, 9),
        "bomb heic": heic(np.dstack([flat] * 3), quality=10),
    }


def interlaced(grey):
    """A PNG in Adam7's seven passes, which neither OpenCV nor Pillow writes."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, across in passes for row in grey[top::down, left::across]
    )
    height, width = grey.shape
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(name, body)
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )


def tiled(rgb):
    """A TIFF in tiles of 32 x 32, without compression."""
    height, width = rgb.shape[:2]
    across, down = -(-width // 32), -(-height // 32)
    padded = np.zeros((down * 32, across * 32, 3), np.uint8)
    padded[:height, :width] = rgb
    tiles = padded.reshape(down, 32, across, 32, 3).swapaxes(1, 2).reshape(-1).tobytes()
    size, count = 32 * 32 * 3, across * down
    table = 8 + len(tiles)
    behind = table + 2 + 12 * 11 + 4
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, behind),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 1),
        (322, 3, 1, 32),
        (323, 3, 1, 32),
        (324, 4, count, behind + 6),
        (325, 4, count, behind + 6 + 4 * count),
    ]
    return b"".join(
        (
            b"II*\0",
            struct.pack("<I", table),
            tiles,
            struct.pack("<H", len(entries)),
            *(struct.pack("<HHII", *entry) for entry in entries),
            bytes(4),
            struct.pack("<HHH", 8, 8, 8),
            *(struct.pack("<I", 8 + size * number) for number in range(count)),
            struct.pack("<I", size) * count,
        )
    )


def packed_bmp():
    """A BMP whose rows are told as runs."""
    rows = b"".join(bytes([40, row, 24, 255 - row, 26, 7, 0, 0]) for row in range(70)) + b"\0\1"
    palette = b"".join(bytes([level, 255 - level, level // 2, 0]) for level in range(256))
    return bmp(90, 70, 8, rows, packing=1, palette=palette)


def variants(files, count, seed):
    """Endlessly different, always the same for a seed: (what was done to which, bytes).

    Args:
        files: what `originals` gave, or some of it.
        count: how many, taking turns among the files.
        seed: of the dice.
    """
    dice = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        change = dice.choice(_CHANGES)
        data = change(dice, bytearray(files[name]), files[dice.choice(names)])
        if data.startswith(b"\x89PNG") and dice.random() < 0.7:
            data = _with_checksums(data)
        yield f"{name}, {change.__name__}, {number} of seed {seed}", bytes(data)


def _fields(data):
    """Where the fields lie: in front, but a TIFF says where."""
    start = 0
    if data[:2] in (b"II", b"MM"):
        start = int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
    return range(start, min(len(data), start + _HEAD))


def _flip(dice, data, _other):
    reach = range(len(data)) if dice.random() < 0.5 else _fields(data)
    for _ in range(dice.choice((1, 1, 2, 4, 9))):
        data[dice.choice(reach)] ^= 1 << dice.randrange(8)
    return data


def _overwrite(dice, data, _other):
    start, size = dice.randrange(len(data)), dice.choice((1, 2, 4, 8, 30, 200))
    size = min(size, len(data) - start)
    data[start : start + size] = dice.choice((bytes(size), b"\xff" * size, dice.randbytes(size)))
    return data


def _truncate(dice, data, _other):
    return data[: dice.randrange(len(data))] + dice.choice((b"", b"", bytes(90), b"\xff\xd9"))


def _cut_out(dice, data, _other):
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 3, 12, 100))]
    return data


def _put_in(dice, data, other):
    start, at = dice.randrange(len(other)), dice.randrange(len(data))
    data[at:at] = dice.choice((dice.randbytes(dice.randrange(1, 40)), other[start : start + dice.randrange(1, 300)]))
    return data


def _extreme(dice, data, _other):
    """A length, a count, an offset: any number of the head."""
    size = dice.choice((1, 2, 4, 4, 8))
    value = dice.choice(_EXTREMES) & (1 << 8 * size) - 1
    at = dice.choice(_fields(data)[:-size])
    data[at : at + size] = value.to_bytes(size, dice.choice(("big", "little")))
    return data


def _lengths(dice, data, _other):
    """How long a segment, chunk or box says that it is."""
    parts = _parts(data)
    at = sum(map(len, parts[: dice.randrange(len(parts))]))
    offset, size = (2, 2) if data[:2] == b"\xff\xd8" else (4, 4) if data[:4] == b"RIFF" else (0, 4)
    at = min(at + offset, len(data) - size)
    told = int.from_bytes(data[at : at + size])
    value = dice.choice((*_EXTREMES, told - 1, told + 1, told + 8)) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, "little" if data[:4] == b"RIFF" else "big")
    return data


def _garbage_in_metadata(dice, data, _other):
    """EXIF, a profile, XMP: what decoders of pixels leave alone and others read."""
    starts = [data.find(mark) for mark in (b"Exif", b"MM\0*", b"II*\0", b"acsp", b"<x:xmpmeta", b"ICC_PROFILE")]
    start = dice.choice([start for start in starts if start > 0] or [dice.randrange(len(data))])
    for _ in range(dice.choice((1, 3, 12))):
        at = min(start + dice.randrange(200), len(data) - 4)
        data[at : at + 4] = dice.choice((dice.randbytes(4), b"\xff" * 4, bytes(4), dice.choice(_EXTREMES).to_bytes(4)))
    return data


def _sides(dice, data, _other):
    """The sides, wherever they are told, become extreme; or only a little larger or smaller."""
    for side in dice.choice(((90,), (70,), (90, 70))):
        value = dice.choice((*_EXTREMES, side - 1, side + 1, side * 2, 300))
        places = [
            (at, layout)
            for layout in (">I", "<I", ">H", "<H")
            for at in _fields(data)
            if data.startswith(struct.pack(layout, side), at)
        ]
        for at, layout in places if dice.random() < 0.5 else places[: dice.randrange(3)]:
            struct.pack_into(layout, data, at, value & (0xFFFFFFFF if layout[1] == "I" else 0xFFFF))
    return data


def _parts_deleted(dice, data, _other):
    parts = _parts(data)
    del parts[dice.randrange(len(parts))]
    return b"".join(parts)


def _parts_repeated(dice, data, _other):
    parts = _parts(data)
    at = dice.randrange(len(parts))
    parts[at:at] = [parts[dice.randrange(len(parts))]] * dice.choice((1, 2, 40))
    return b"".join(parts)


def _parts_exchanged(dice, data, _other):
    parts = _parts(data)
    one, another = dice.randrange(len(parts)), dice.randrange(len(parts))
    parts[one], parts[another] = parts[another], parts[one]
    return b"".join(parts)


def _parts_of_another(dice, data, other):
    parts = _parts(data)
    parts.insert(dice.randrange(len(parts) + 1), dice.choice(_parts(other)))
    return b"".join(parts)


def _splice(dice, data, other):
    return data[: dice.randrange(1, len(data))] + other[dice.randrange(len(other)) :]


_CHANGES = (
    _flip,
    _overwrite,
    _truncate,
    _cut_out,
    _put_in,
    _extreme,
    _extreme,
    _lengths,
    _garbage_in_metadata,
    _sides,
    _parts_deleted,
    _parts_repeated,
    _parts_exchanged,
    _parts_of_another,
    _splice,
)


def _parts(data):
    """The file as its kind divides it: segments, chunks, boxes; pieces of 60 bytes where it does not."""
    data = bytes(data)
    if data.startswith(b"\xff\xd8"):
        found = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] >= 0xC0]
    elif data.startswith(b"\x89PNG"):
        found = _steps(data, 8, ">I", 12)
    elif data.startswith(b"RIFF"):
        found = _steps(data, 12, "<4xI", 8)
    elif data[4:8] in (b"ftyp", b"jP  "):
        found = _steps(data, 0, ">I", 0)
        for at in list(found):  # boxes in boxes, which begin behind a version or do not
            if data[at + 4 : at + 8] in (b"meta", b"iprp", b"jp2h"):
                found += _steps(data, at + (12 if data[at + 4 : at + 8] == b"meta" else 8), ">I", 0)
    else:
        found = list(range(0, len(data), 60))
    cuts = sorted({0, *found, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def _steps(data, at, layout, more):
    found = []
    while at + struct.calcsize(layout) <= len(data):
        found.append(at)
        (size,) = struct.unpack_from(layout, data, at)
        at += max(size + more + size % 2 * (layout[0] == "<"), 8)
    return found


def _with_checksums(data):
    data = bytearray(data)
    for at in _steps(data, 8, ">I", 12):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
    return data
