"""What is refused from the header alone, before memory is spent on it.

Light: no numpy, no cv2.
"""

from sr_engine import machine
from sr_engine.errors import PictureError
from sr_engine.headers import NAMES, Header, Kind
from sr_engine.protocol import Code, Limits, Output

# AVIF allows more, but libavif, which nearly all programs read it with, refuses more unless it is told otherwise.
_LONGEST_SIDE = {Kind.JPEG: 65_500, Kind.WEBP: 16_383, Kind.GIF: 65_535, Kind.AVIF: 32_768, Kind.HEIC: 16_384}
_MOST_PIXELS = {Kind.AVIF: 1 << 28, Kind.HEIC: 1 << 28}
# Classic TIFF and BMP count bytes with 32 bits, and OpenCV computes some of those sums with a sign.
_MOST_BYTES = {Kind.TIFF: 1 << 31, Kind.BMP: 1 << 31}

# Bytes a sample of 8 and of 16 bits that decoders and encoders take at most, their results included, as measured with
# noise of 4 and 6 megapixels (it compresses worst), OpenCV 5.0, Pillow 13 and libheif 1.23.
_BASE_BYTES = 24 << 20
_DECODING = {
    Kind.TIFF: (4.2, 6.2),
    Kind.GIF: (4.0, 4.0),
    Kind.AVIF: (6.0, 11.0),
    Kind.HEIC: (2.6, 7.0),
    Kind.JPEG2000: (6.5, 7.0),
}
_DECODING_INKS = 4.0
_DECODING_OTHERS = (2.2, 4.2)
_ENCODING = {
    Kind.JPEG: (2.2, 2.8),  # at the default quality
    Kind.PNG: (2.2, 4.2),
    Kind.WEBP: (9.6, 9.6),
    Kind.TIFF: (2.9, 5.8),
    Kind.BMP: (3.1, 3.2),
    Kind.AVIF: (7.3, 12.8),
    Kind.HEIC: (14.6, 20.4),
    Kind.JPEG2000: (9.6, 12.8),
    Kind.GIF: (16.1, 17.2),
}
_WEBP_WITH_ALPHA = 11.5
_SAME = Output()


def check(
    header: Header, file_bytes: int, limits: Limits, output: Output, *, scale: int, room_bytes: int | None = None
) -> None:
    """Refuse what cannot be handled or is beyond the limits.

    Args:
        header: of the picture.
        file_bytes: how large its file is.
        limits: what to refuse.
        output: how the result is to be written.
        scale: how many times larger it is to become.
        room_bytes: what this process can hold beside what it holds already, if there is a limit.

    Raises:
        PictureError: UNSUPPORTED, or TOO_LARGE; the message names the limit.
    """
    if header.obstacle:
        raise PictureError(Code.UNSUPPORTED, header.obstacle)
    if file_bytes > limits.file_bytes:
        raise _too_large(f"a file of {_amount(file_bytes)} is more than {_amount(limits.file_bytes)}", "file_megabytes")
    sides = f"{header.width} x {header.height} pixels"
    if header.pages > 1:
        sides = f"{header.pages} pages of {header.pixels / 1e6:g} megapixels together"
    if header.pixels > limits.pixels:
        raise _too_large(f"{sides} are more than {limits.pixels / 1e6:g} megapixels", "megapixels")
    if header.side > limits.side:
        raise _too_large(f"a side of {header.side} pixels is longer than {limits.side}", "side")
    for width, height in ((header.width, header.height), *header.further):
        result_kind(header.kind, width * scale, height * scale, output, sample_bytes=2 if header.deep else 1)
    needed = expected_memory_bytes(header, file_bytes, scale=scale, output=output)
    allowed, key = limits.memory_bytes or machine.total_bytes() // 4 * 3, "memory_megabytes"
    if room_bytes is not None and room_bytes < allowed:
        allowed, key = room_bytes, "engine_megabytes"
    if needed > allowed:
        remedy = ""
        if header.pages == 1 and not header.alpha and scale * header.side <= _LONGEST_SIDE[Kind.JPEG]:
            as_jpeg = expected_memory_bytes(header, file_bytes, scale=scale, output=Output(format=Kind.JPEG))
            remedy = "or set output.format to jpeg, " if as_jpeg <= allowed else ""
        raise _too_large(
            f"{sides} need about {_amount(needed)} of memory and may use {_amount(allowed)}",
            key,
            remedy,
        )


def expected_memory_bytes(header: Header, file_bytes: int, *, scale: int, output: Output = _SAME) -> int:
    """The most that decoding, enlarging and encoding is expected to need at a time, from the header alone.

    The network's own memory is not in it.

    Args:
        header: of the picture.
        file_bytes: how large its file is.
        scale: how many times larger it is to become.
        output: how the result is to be written.

    Raises:
        PictureError: as `result_kind`.
    """
    sample_bytes = 2 if header.deep else 1
    colours = 4 if header.inks else 1 if header.grey else 3
    samples = header.pixels * (colours + header.alpha)
    decoder = _DECODING_INKS if header.inks else _DECODING.get(header.kind, _DECODING_OTHERS)[header.deep]
    # To decode a page of a TIFF, a copy of the file is changed.
    decoding = file_bytes * (2 if header.kind is Kind.TIFF else 1) + samples * decoder
    encoder = max(
        encoder_bytes(kind, header.pixels * scale * scale, colours, alpha=header.alpha, deep=header.deep)
        for kind in _possible_kinds(header, scale, output)
    )
    encoding = samples * sample_bytes * (1 + scale * scale) + encoder
    return _BASE_BYTES + round(max(decoding, encoding))


def _possible_kinds(header: Header, scale: int, output: Output) -> tuple[Kind, ...]:
    """What the result may be written as, as far as the header tells."""
    if header.pages > 1:
        return (Kind.TIFF,)
    width, height = header.width * scale, header.height * scale
    kind = result_kind(header.kind, width, height, output, sample_bytes=2 if header.deep else 1)
    # Only the enlarged picture shows whether a GIF can hold its colours.
    return (Kind.GIF, Kind.PNG) if kind is Kind.GIF and output.format == "same" else (kind,)


def encoder_bytes(kind: Kind, pixels: int, colours: int, *, alpha: bool, deep: bool) -> int:
    """What an encoder takes at most for a result, its result included.

    Args:
        kind: of the result.
        pixels: how many it has.
        colours: how many channels, 1 where it is grey.
        alpha: whether one more says how transparent it is.
        deep: whether samples have more than 8 bits.
    """
    channels = colours + alpha
    if colours == 1 and alpha and not stays_grey(kind, alpha=True, deep=deep):
        channels = 4
    elif colours == 1 and kind in (Kind.WEBP, Kind.AVIF, Kind.HEIC):
        channels = 3
    factor = _ENCODING[kind][deep]
    if alpha and kind is Kind.WEBP:
        factor = _WEBP_WITH_ALPHA
    if alpha and kind in (Kind.PNG, Kind.TIFF):
        factor += 2 if deep else 1  # they are written from what was merged, the others from less
    return round(pixels * channels * factor)


def stays_grey(kind: Kind, *, alpha: bool, deep: bool) -> bool:
    """Whether a grey picture is written with one channel of brightness, besides any alpha."""
    if kind is Kind.WEBP:
        return False
    return not alpha or kind in (Kind.JPEG, Kind.PNG, Kind.GIF) or (kind is Kind.TIFF and not deep)


def result_kind(kind: Kind, width: int, height: int, output: Output, *, sample_bytes: int = 1) -> Kind:
    """The kind of a result of `width` x `height` pixels for a picture of `kind`.

    Raises:
        PictureError: TOO_LARGE, the kind that was asked for cannot hold it; UNSUPPORTED, no such kind.
    """
    same = output.format == "same"
    if not same and output.format not in set(Kind):
        raise PictureError(Code.UNSUPPORTED, f"no output format is called {output.format!r}: same, {', '.join(Kind)}")
    wanted = kind if same else Kind(output.format)
    fits = (
        max(width, height) <= _LONGEST_SIDE.get(wanted, max(width, height))
        and width * height <= _MOST_PIXELS.get(wanted, width * height)
        and (wanted not in _MOST_BYTES or width * height * 4 * sample_bytes < _MOST_BYTES[wanted])
    )
    if fits:
        return wanted
    if same:
        return Kind.PNG
    raise PictureError(
        Code.TOO_LARGE, f"one {NAMES[wanted]} file cannot hold {width} x {height} pixels: set output.format to png"
    )


def _too_large(what: str, limit: str, remedy: str = "") -> PictureError:
    return PictureError(Code.TOO_LARGE, f"{what}: cut the picture in parts, {remedy}or raise limits.{limit}")


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
