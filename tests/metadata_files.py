"""Makes the metadata that the engine's tests need, by hand: EXIF, XMP and colour profiles."""

import struct


def exif(orientation, order="<"):
    """An EXIF block (a TIFF structure) that holds an orientation only."""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return start + struct.pack(order + "HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


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
