"""Makes the pictures that the engine's tests need: drawn, then written by OpenCV or, where it cannot, by hand."""

import io
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


def saved(pixels, kind, **options):
    """The bytes of a file as Pillow writes it; pixels in the order red, green, blue."""
    from PIL import Image

    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def heic(pixels, mode="RGB", icc=b"", **options):
    """The bytes of a HEIC file; pixels in the order red, green, blue, of all 16 bits where mode ends in ";16"."""
    import pillow_heif

    height, width = pixels.shape[:2]
    file = io.BytesIO()
    picture = pillow_heif.from_bytes(mode=mode, size=(width, height), data=pixels.tobytes())
    if icc:
        picture.info["icc_profile"] = icc
    picture.save(file, **options)
    return file.getvalue()


def deepened(pixels):
    """8-bit samples as 16-bit ones that 8 bits could not hold."""
    count = np.arange(pixels.size).reshape(pixels.shape) % 251
    return np.minimum(pixels.astype(np.uint32) * 256 + count, 65535).astype(np.uint16)


def jpeg2000_of_12_bits(grey):
    """A bare codestream, lossless, of grey samples of 0 .. 4095: written as 16 bits, then relabelled."""
    data = bytearray(saved((grey + (32768 - 2048)).astype(np.uint16), "JPEG2000", no_jp2=True))
    assert data[42] == 15
    data[42] = 11
    return bytes(data)


def with_jp2_box(jp2, name, body, *, inside=b""):
    """The JP2 with one more box: before its codestream, or in the place of one of that name inside its header."""
    box = struct.pack(">I4s", 8 + len(body), name) + body
    if not inside:
        at = jp2.index(b"jp2c") - 4
        return jp2[:at] + box + jp2[at:]
    header, old = jp2.index(inside) - 4, jp2.index(name) - 4
    size, old_size = (int.from_bytes(jp2[at : at + 4]) for at in (header, old))
    jp2 = jp2[:old] + box + jp2[old + old_size :]
    return jp2[:header] + struct.pack(">I", size - old_size + len(box)) + jp2[header + 4 :]


def two_frames(kind):
    """An animation of two frames as Pillow writes it."""
    from PIL import Image

    frames = [Image.fromarray(draw(20, 24, seed)) for seed in (1, 2)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def pages(*each, order="<"):
    """A TIFF of several pages, each as `tiff` writes it, of sizes and depths of their own."""
    out = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + bytes(4))
    link = 4
    for page in each:
        moved = len(out)
        (first,) = struct.unpack_from(order + "I", page, 4)
        (count,) = struct.unpack_from(order + "H", page, first)
        part = bytearray(page)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHII", part, at)
            if tag == 273 or {3: 2, 4: 4, 7: 1, 1: 1}[kind] * values > 4:
                struct.pack_into(order + "I", part, at + 8, value + moved)
        out += part + bytes(len(part) % 2)
        struct.pack_into(order + "I", out, link, moved + first)
        link = moved + first + 2 + 12 * count
    return bytes(out)


def relabelled(avif, primaries, transfer):
    """The AVIF with other colour codes in its container."""
    at = avif.index(b"colrnclx") + 8
    return avif[:at] + struct.pack(">HH", primaries, transfer) + avif[at + 4 :]
