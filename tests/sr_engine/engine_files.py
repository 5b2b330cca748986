"""Makes the pictures that the engine's tests need: drawn, then written by OpenCV or, where it cannot, by hand."""

import importlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest


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


def photograph_exif(order="<", *, orientation=6, maker_note=40, comment=0, thumbnail=b"\xff\xd8thumbnail\xff\xd9"):
    """EXIF as cameras write it: text, numbers of all types, GPS, Interop, a maker's note, a thumbnail at the end."""
    text = "Grüße © Jörg".encode() + b"\0"

    def fractions(letter, *numbers):
        return struct.pack(f"{order}{len(numbers)}{letter}", *numbers)

    def shorts(*numbers):
        return struct.pack(f"{order}{len(numbers)}H", *numbers)

    def longs(*numbers):
        return struct.pack(f"{order}{len(numbers)}I", *numbers)

    interop = {1: (2, b"R98\0"), 2: (7, b"0100"), 0x1001: (4, longs(24))}
    inner = {
        0x829A: (5, fractions("I", 1, 250)),
        0x9000: (7, b"0232"),
        0x9003: (2, b"2024:05:06 07:08:09\0"),
        0x9204: (10, fractions("i", -1, 3)),
        0x927C: (7, b"MakerABC" + bytes(number % 251 for number in range(maker_note))),
        0xA002: (3, shorts(24)),
        0xA003: (4, longs(20)),
        0xA005: interop,
        0xA432: (5, fractions("I", 24, 1, 70, 1, 28, 10, 28, 10)),
        0xC123: (7, b"unknown tag"),
    }
    if comment:
        inner[0x9286] = (7, b"ASCII\0\0\0" + b"c" * (comment - 8))
    gps = {0: (1, b"\2\3\0\0"), 1: (2, b"N\0"), 2: (5, fractions("I", 47, 1, 22, 1, 61, 2))}
    main = {
        256: (4, longs(24)),
        257: (3, shorts(20)),
        271: (2, b"Maker\0"),
        274: (3, shorts(orientation)),
        282: (5, fractions("I", 300, 1)),
        306: (2, b"2024:05:06 07:08:09\0"),
        0x8298: (2, text),
        0x8769: inner,
        0x8825: gps,
    }

    def directory(tags, at, following=None):
        end = at + 2 + 12 * len(tags) + 4
        table, blob = shorts(len(tags)), b""
        for tag, value in sorted(tags.items()):
            if isinstance(value, dict):
                table += shorts(tag, 4) + longs(1, end + len(blob))
                blob += directory(value, end + len(blob))
                continue
            size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}[value[0]]
            table += shorts(tag, value[0]) + longs(len(value[1]) // size)
            table += value[1].ljust(4, b"\0") if len(value[1]) <= 4 else longs(end + len(blob))
            if len(value[1]) > 4:
                blob += value[1] + bytes(len(value[1]) % 2)
        if following is None:
            return table + longs(0) + blob
        behind = end + len(blob)
        return table + longs(behind) + blob + following(behind)

    def small(at):
        tags = {259: (3, shorts(6)), 282: (5, fractions("I", 72, 1)), 513: (4, longs(0)), 514: (4, longs(0))}
        tags[513] = (4, longs(at + len(directory(tags, at))))
        tags[514] = (4, longs(len(thumbnail)))
        return directory(tags, at) + thumbnail

    start = {"<": b"II", ">": b"MM"}[order] + shorts(42) + longs(8)
    return start + directory(main, 8, small if thumbnail else None)


def photograph_xmp(*more):
    """XMP as phones and editors write it, about a picture of 24 x 20 pixels. more: further properties, as elements."""
    return (
        """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"
    xmlns:Container="http://ns.google.com/photos/1.0/container/"
    xmlns:Item="http://ns.google.com/photos/1.0/container/item/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"
    tiff:Orientation="6" tiff:ImageWidth="24" exif:PixelXDimension="24" xmp:Rating="4" GCamera:MotionPhoto="1"
    hdrgm:Version="1.0" xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"
    crs:Note="two&#xA;lines &quot;q&quot;">
   <tiff:ImageLength>20</tiff:ImageLength>
   <exif:PixelYDimension>20</exif:PixelYDimension>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Grüße &amp; &lt;mehr&gt;</rdf:li></rdf:Alt></dc:title>
   <xmp:Thumbnails><rdf:Alt><rdf:li xmpGImg:image="/9j/thumb"/></rdf:Alt></xmp:Thumbnails>
   <Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource">
    <Container:Item Item:Semantic="GainMap" Item:Length="999"/></rdf:li></rdf:Seq></Container:Directory>
   """
        + "".join(more)
        + """
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
    ).encode()


def cmyk_profile():
    """A sound profile after which inks look grey, whatever their colour."""
    identity = bytes(range(256))
    nodes = b""
    for number in range(16):
        inks = [number >> 3 & 1, number >> 2 & 1, number >> 1 & 1, number & 1]
        nodes += bytes([0 if inks[3] else 255 - 60 * sum(inks), 128, 128])
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9))) + identity * 4 + nodes + identity * 3
    parts = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)),
        (b"cprt", b"text\0\0\0\0CC0\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)),
        (b"A2B0", lut),
    ]
    table, body, start = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for name, value in parts:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4xI4s4s4s6H4s28x", start + len(body), 0x02400000, b"prtr", b"CMYK", b"Lab ", 2020, 1, 1, 0, 0, 0, b"acsp"
    )
    return (head + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + table + body


def relabelled(avif, primaries, transfer):
    """The AVIF with other colour codes in its container."""
    at = avif.index(b"colrnclx") + 8
    return avif[:at] + struct.pack(">HH", primaries, transfer) + avif[at + 4 :]


def enlarge(picture, network, pixels=768 * 1024, *, fixed=False):
    """The picture, enlarged in tiles of at most so many pixels."""
    from sr_engine.tiles import Cutting, Enlargement

    work = Enlargement(picture, network.model.scale, Cutting(network.model.halo, pixels, fixed))
    for job in work.jobs:
        job.finish(network([job.piece()])[0])
    return work.finish()


def load_network(name, precision="auto"):
    """A network in the runtime called `name`; skips where that is not installed."""
    from sr_engine import models, runtimes
    from sr_engine.loading import Choice, load

    options = runtimes.Options(precision=precision)
    if reason := importlib.import_module(f"sr_engine.runtimes.{name}").missing():
        pytest.skip(reason)
    return load(Choice("edsr-lite-x3", models.default_folder(), name, options)).network
