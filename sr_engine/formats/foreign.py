"""Names for what people drop and is not handled.

Light: no numpy, no cv2.
"""

# Offset, bytes, name.
_SIGNATURES = (
    (4, b"ftypcrx", "a raw photograph (CR3)"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?R", "a Radiance HDR picture"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"FUJIFILM", "a raw photograph (RAF)"),
    (0, b"IIU\0", "a raw photograph (RW2)"),
    (0, b"IIRO", "a raw photograph (ORF)"),
    (0, b"IIRS", "a raw photograph (ORF)"),
    (8, b"CR\x02", "a raw photograph (CR2)"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"<svg", "an SVG drawing"),
)


_REMEDIES = {
    "a video": "save the frame you want as a picture",
    "a ZIP archive": "unpack it, and drop the pictures that are in it",
}


def description_of(start: bytes) -> str:
    """What a file is that begins with these bytes, and what to do; empty where that is not known."""
    for offset, signature, name in _SIGNATURES:
        if start.startswith(signature, offset):
            develop = "develop it to TIFF, PNG or JPEG" if "raw" in name else "convert it to PNG"
            return f"{name}, a kind that is not handled: {_REMEDIES.get(name, develop)}"
    return ""
