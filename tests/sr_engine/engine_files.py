"""Makes the pictures that the engine's tests need: drawn, then written by OpenCV or, where it cannot, by hand."""

import struct
import zlib

import cv2
import numpy as np


def draw(height=20, width=24, seed=1):
    """A colour picture with gradients, an edge, lettering and noise; different in every corner."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.dstack(
        [columns * 255 / max(width - 1, 1), rows * 255 / max(height - 1, 1), (rows + columns) % 97 * 2]
    ).astype(np.uint8)
    cv2.circle(picture, (width // 3, height // 2), max(1, min(height, width) // 4), (40, 220, 250), -1)
    cv2.putText(picture, "Ag", (width // 2, height - 3), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))
    noise = rng.integers(-8, 9, picture.shape)
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


def ramp(height=20, width=24):
    """An alpha plane that goes from invisible to opaque."""
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def written(extension, pixels, *options):
    """The bytes of a file as OpenCV writes it."""
    done, packed = cv2.imencode(extension, pixels, list(options))
    assert done
    return packed.tobytes()


def with_metadata(extension, pixels, kind, metadata):
    """The bytes of a file with EXIF or ICC in it, as OpenCV writes it."""
    done, packed = cv2.imencodeWithMetadata(extension, pixels, [kind], [np.frombuffer(metadata, np.uint8)])
    assert done
    return packed.tobytes()


def exif(orientation, order="<"):
    """An EXIF block (a TIFF structure) that holds an orientation only."""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return start + struct.pack(order + "HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def jpeg_segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(jpeg, *segments):
    """The JPEG with more segments at its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, bits, color, rows, *chunks):
    """A PNG by hand. rows: packed rows without their filter byte; chunks: (name, body) before the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)), *chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(name, part) for name, part in [*body, (b"IDAT", pixels), (b"IEND", b"")]
    )


def tiff(pixels, *, order="<", big=False, photometric=None, pages=1, **more):
    """An uncompressed TIFF by hand, HxW or HxWxC in the file's own order of channels.

    more: further tags, "t274=6" style keyword: value (SHORTs) or bytes.
    """
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    bits = pixels.dtype.itemsize * 8
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    out = {"<": b"II", ">": b"MM"}[order]
    first = (16 if big else 8) + len(data) + len(data) % 2
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), first)
    strip = len(out)
    out += data + bytes(len(data) % 2)
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * samples),
        259: ("H", [1]),
        262: ("H", [photometric if photometric is not None else 1 if samples == 1 else 2]),
        273: ("I", [strip]),
        277: ("H", [samples]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
    }
    for name, value in more.items():
        entries[int(name[1:])] = ("B", list(value)) if isinstance(value, bytes) else ("H", [value])
    code, inline, link = {"B": 7, "H": 3, "I": 4}, 8 if big else 4, "Q" if big else "I"
    size = (8 if big else 2) + len(entries) * (20 if big else 12) + (8 if big else 4)
    for page in range(pages):
        here, table, blob = len(out), b"", b""
        for tag, (letter, values) in sorted(entries.items()):
            raw = struct.pack(f"{order}{len(values)}{letter}", *values)
            if len(raw) > inline:
                raw, blob = struct.pack(order + link, here + size + len(blob)), blob + raw + bytes(len(raw) % 2)
            table += struct.pack(order + "HH" + link, tag, code[letter], len(values)) + raw.ljust(inline, b"\0")
        following = 0 if page == pages - 1 else here + size + len(blob)
        count = struct.pack(order + ("Q" if big else "H"), len(entries))
        out += count + table + struct.pack(order + link, following) + blob
    return out


def bmp(width, height, bits, rows, *, size=40, packing=0, palette=b"", tail=b""):
    """A BMP by hand. rows: as stored; tail: what the header has beyond 40 bytes, or masks behind it."""
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        colours = len(palette) // 4
        header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, packing, len(rows), 0, 0, colours, 0)
        header += tail
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def bmp_rows(pixels):
    """Rows as BMPs store them, the last one first, padded to four bytes."""
    return b"".join(row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in pixels[::-1])


def cmyk_jpeg(cyan, magenta, yellow, black):
    """An 8x8 JPEG of four channels, of one colour; 255 is no ink, as Adobe's programs write it."""
    bits = ""
    for value in (cyan, magenta, yellow, black):
        level = value - 128  # with a divisor of 8 the quantised mean of a block is the level itself
        length = abs(level).bit_length()
        bits += f"{length:04b}" + (f"{level if level > 0 else level + (1 << length) - 1:0{length}b}" if length else "")
        bits += "0"  # end of block
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3, 4))
    return b"".join(
        (
            b"\xff\xd8",
            jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
            jpeg_segment(0xDB, b"\0" + bytes([8] * 64)),
            jpeg_segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + components),
            jpeg_segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))),
            jpeg_segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),
            jpeg_segment(0xDA, b"\4" + b"".join(bytes([number, 0]) for number in (1, 2, 3, 4)) + b"\0\x3f\0"),
            scan,
            b"\xff\xd9",
        )
    )


def icc_profile(space=b"RGB ", padding=0):
    """A small sound profile with Display P3's primaries (or for grey), made larger by `padding` bytes."""

    def fixed(*numbers):
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def xyz(*numbers):
        return b"XYZ \0\0\0\0" + fixed(*numbers)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 0x0233) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = [
        (b"desc", description + bytes(-len(description) % 4)),
        (b"cprt", b"text\0\0\0\0CC0\0"),
        (b"wtpt", xyz(0.9642, 1, 0.8249)),
    ]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        primaries = {b"r": (0.5151, 0.2412, -0.0011), b"g": (0.292, 0.6922, 0.0419), b"b": (0.1571, 0.0666, 0.7841)}
        tags += [(name + b"XYZ", xyz(*numbers)) for name, numbers in primaries.items()]
        tags += [(name + b"TRC", curve) for name in primaries]
    start = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    size = start + len(body) + padding
    head = struct.pack(">I4xI4s4s4s6H4s28x", size, 0x02400000, b"mntr", space, b"XYZ ", 2020, 1, 1, 0, 0, 0, b"acsp")
    head += fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body + bytes(padding)
