"""What is refused from the header alone, before memory is spent on it.

Light: no numpy, no cv2.
"""

from sr_engine.errors import PictureError
from sr_engine.headers import Header, Kind
from sr_engine.protocol import Code, Limits, Output

_LONGEST_SIDE = {Kind.JPEG: 65_500, Kind.WEBP: 16_383}
# Classic TIFF and BMP count bytes with 32 bits, and OpenCV computes some of those sums with a sign.
_MOST_BYTES = {Kind.TIFF: 1 << 31, Kind.BMP: 1 << 31}


def check(header: Header, limits: Limits, output: Output, *, scale: int) -> None:
    """Refuse what cannot be handled or is beyond the limits.

    Raises:
        PictureError: UNSUPPORTED, or TOO_LARGE; the message names the limit.
    """
    if header.obstacle:
        raise PictureError(Code.UNSUPPORTED, header.obstacle)
    if header.width * header.height > limits.pixels:
        raise PictureError(
            Code.TOO_LARGE,
            f"{header.width} x {header.height} pixels are more than {limits.pixels / 1e6:g} megapixels: "
            "cut the picture in parts, or raise limits.pixels",
        )
    result_kind(header.kind, header.width * scale, header.height * scale, output)


def result_kind(kind: Kind, width: int, height: int, output: Output) -> Kind:
    """The kind of a result of `width` x `height` pixels for a picture of `kind`.

    Raises:
        PictureError: TOO_LARGE, the kind that was asked for cannot hold it; UNSUPPORTED, no such kind.
    """
    same = output.format == "same"
    if not same and output.format not in set(Kind):
        raise PictureError(Code.UNSUPPORTED, f"no output format is called {output.format!r}: same, {', '.join(Kind)}")
    wanted = kind if same else Kind(output.format)
    side = _LONGEST_SIDE.get(wanted)
    fits = (side is None or max(width, height) <= side) and (
        wanted not in _MOST_BYTES or width * height * 4 < _MOST_BYTES[wanted]
    )
    if fits:
        return wanted
    if same:
        return Kind.PNG
    raise PictureError(
        Code.TOO_LARGE, f"a {wanted} file cannot hold {width} x {height} pixels: set output.format to png"
    )
