"""Planes of samples become a file's bytes, with the metadata that the original had.

Where metadata goes: JPEG, PNG, WebP, TIFF, AVIF, HEIC and JPEG 2000 (in boxes that ExifTool and Adobe's programs know)
hold EXIF, XMP and a profile; BMP and GIF none of them. Grey with alpha stays grey in PNG, in TIFF of 8 bits and in
GIF; other kinds have no such thing and hold three equal channels instead.
"""

import io
import struct
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from sr_engine.errors import PictureError
from sr_engine.formats import cicp, containers, palettes, tags, tiff
from sr_engine.formats.metadata import corrected
from sr_engine.headers import NAMES, Kind
from sr_engine.limits import encoder_bytes, result_kind, stays_grey
from sr_engine.pictures import Metadata, Picture, Plane
from sr_engine.protocol import Code, Output

EXTENSIONS = {
    Kind.JPEG: ".jpg",
    Kind.PNG: ".png",
    Kind.WEBP: ".webp",
    Kind.TIFF: ".tiff",
    Kind.BMP: ".bmp",
    Kind.AVIF: ".avif",
    Kind.HEIC: ".heic",
    Kind.JPEG2000: ".jp2",
    Kind.GIF: ".gif",
}
# The most bits of a sample; 8 for all others.
_DEPTHS = {Kind.PNG: 16, Kind.TIFF: 16, Kind.JPEG2000: 16, Kind.AVIF: 12, Kind.HEIC: 12}
_WITH_CODES = (Kind.PNG, Kind.AVIF, Kind.HEIC)
_UNASSOCIATED = 2
_BAND = 16  # rows; what is computed of so many stays in the processor's cache
# OpenJPEG halves the sides five times as OpenCV calls it, and fails on sides that cannot be.
_SHORTEST_JPEG2000 = 32
# On 2 cores a photograph takes 28 MP/s at 9 (its size 17 % above that at 6, which takes 4 MP/s).
_AVIF_SPEED = 9
# x265's fastest: 4 MP/s instead of 1.8 by default; at quality 95 the file is 3 % larger and the error the same.
_HEIC_PRESET = "ultrafast"
_ANOTHER = "set output.format to png"
# Their depth is told to the library as a whole, while another thread may encode another.
_deep_heic = threading.Lock()
_NO_HEIC = "HEIC needs another library"


class Encoded(NamedTuple):
    """A file that is ready to be written.

    Attributes:
        data: its bytes.
        extension: of its kind, with the dot.
        note: what the user should know of it, a sentence without its full stop; mostly empty.
    """

    data: bytes
    extension: str
    note: str = ""


def encode(pages: Sequence[Picture], output: Output) -> Encoded:
    """The file for a picture, or for the pages of one.

    With `output.format` "same", a kind that cannot hold the result becomes PNG, and TIFF where there are several
    pages; the note says so, as it does of what the kind cannot hold of samples and profile. Metadata is corrected,
    and what of it a kind or its encoder does not take is left out.

    Raises:
        PictureError: TOO_LARGE as `result_kind`; UNSUPPORTED, the kind that was asked for cannot hold the pages, or
            its library is missing; UPSCALE_FAILED where the encoder refuses.
        MemoryError: the file does not fit in memory.
    """
    if len(pages) > 1:
        return _encode_pages(pages, output)
    (picture,) = pages
    kind = _kind(picture, picture.kind, output)
    notes = []
    if output.format == "same" and kind is not picture.kind:
        size = f"{picture.width} x {picture.height} pixels"
        notes.append(f"{_a(picture.kind)} cannot hold {size}: written as {NAMES[kind]}")
    hindrance = _hindrance(kind, picture, exact=output.format == "same")
    if hindrance and output.format == "same":
        notes.append(f"{hindrance}: written as PNG")
        kind = Kind.PNG
    elif hindrance:
        remedy = "run pip install pillow-heif, or " if hindrance == _NO_HEIC else ""
        raise PictureError(Code.UNSUPPORTED, f"{hindrance}: {remedy}{_ANOTHER}")
    _require_memory(kind, pages)
    data = _WRITERS[kind](picture, output)
    return Encoded(data, EXTENSIONS[kind], "; ".join(notes + _losses(kind, picture)))


def _require_memory(kind: Kind, pages: Sequence[Picture]) -> None:
    """Short of memory, OpenCV's encoders say that they failed, and not why; those of TIFF and AVIF abort the process.

    Raises:
        MemoryError: what the encoder may need cannot be had now.
    """
    for page in pages:
        pixels, colours = page.width * page.height, 1 if page.colour.ndim == 2 else 3
        needed = encoder_bytes(kind, pixels, colours, alpha=page.alpha is not None, deep=page.bits > 8)
        np.empty(needed, np.uint8)


def _encode_pages(pages: Sequence[Picture], output: Output) -> Encoded:
    first = pages[0]
    notes = []
    if output.format == "same":
        if first.kind is not Kind.TIFF:
            notes.append(f"{_a(first.kind)} of {len(pages)} pictures: written as TIFF")
    elif _kind(first, first.kind, output) is not Kind.TIFF:
        raise PictureError(
            Code.UNSUPPORTED,
            f"{_a(Kind(output.format))} holds one picture, this one has {len(pages)} pages: "
            "set output.format to same or tiff",
        )
    for page in pages:
        _kind(page, Kind.TIFF, Output(format=Kind.TIFF))
    _require_memory(Kind.TIFF, pages)
    data = _joined([_tiff_page(page) for page in pages])
    notes += dict.fromkeys(loss for page in pages for loss in _losses(Kind.TIFF, page))
    return Encoded(data, EXTENSIONS[Kind.TIFF], "; ".join(notes))


def _kind(picture: Picture, kind: Kind, output: Output) -> Kind:
    return result_kind(kind, picture.width, picture.height, output, sample_bytes=picture.colour.dtype.itemsize)


def _hindrance(kind: Kind, picture: Picture, *, exact: bool) -> str:
    """Why this picture cannot be of that kind, whatever its size; empty if it can."""
    if kind is Kind.GIF and exact and palettes.indexed(*_of_eight_bits(picture)) is None:
        return "a GIF holds 256 colours and no half transparency"
    if kind is Kind.HEIC and not _has_heic():
        return _NO_HEIC
    if kind is Kind.JPEG2000 and min(picture.width, picture.height) < _SHORTEST_JPEG2000:
        return f"a JPEG 2000 is not written with sides below {_SHORTEST_JPEG2000} pixels"
    return ""


def _losses(kind: Kind, picture: Picture) -> list[str]:
    found = []
    most = _DEPTHS.get(kind, 8)
    if picture.bits > most:
        found.append(f"{NAMES[kind]} holds {most} bits a sample: {picture.bits} were reduced")
    if picture.alpha is not None and kind is Kind.JPEG:
        found.append("JPEG has no transparency: laid on white")
    if kind is Kind.GIF:
        found += palettes.losses(*_of_eight_bits(picture))
    held = picture.metadata.icc[16:20] == (b"GRAY" if picture.colour.ndim == 2 else b"RGB ")
    if held and not _profile(kind, picture):
        found.append(f"{NAMES[kind]} cannot hold the colour profile: colours may shift")
    codes = picture.metadata.cicp
    if codes and not picture.metadata.icc and kind not in _WITH_CODES:
        found.append(f"{NAMES[kind]} cannot say that the colours are {cicp.name_of(codes)}: they will pass for sRGB")
    return found


def _a(kind: Kind) -> str:
    return f"{'an' if kind is Kind.AVIF else 'a'} {NAMES[kind]}"


def _jpeg(picture: Picture, output: Output) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, output.jpeg_quality]
    if picture.kind is not Kind.JPEG:  # a JPEG's colours are mostly of half the size already
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    packed = _imencode(Kind.JPEG, _on_white(picture), options)
    return containers.jpeg(packed, _fitting(Kind.JPEG, picture))


def _png(picture: Picture, output: Output) -> bytes:
    colour, alpha = picture.colour, picture.alpha
    packed: tiff.Buffer
    if colour.ndim == 2 and alpha is not None:
        packed = containers.grey_png(colour, alpha, output.png_compression)
    else:
        options = [cv2.IMWRITE_PNG_COMPRESSION, output.png_compression]
        packed = _imencode(Kind.PNG, _merged(colour, alpha), options)
    return containers.png(packed, _fitting(Kind.PNG, picture))


def _webp(picture: Picture, output: Output) -> bytes:
    pixels = _merged(*_of_eight_bits(picture))
    options = [cv2.IMWRITE_WEBP_QUALITY, output.webp_quality]
    return bytes(_imencode(Kind.WEBP, pixels, options, _fitting(Kind.WEBP, picture)))


def _avif(picture: Picture, output: Output) -> bytes:
    options = [cv2.IMWRITE_AVIF_QUALITY, output.avif_quality, cv2.IMWRITE_AVIF_SPEED, _AVIF_SPEED]
    pixels = _merged(picture.colour, picture.alpha)
    if pixels.dtype == np.uint16:
        depth = 10 if picture.bits <= 10 else 12
        options += [cv2.IMWRITE_AVIF_DEPTH, depth]
        pixels = _scaled(pixels, (1 << depth) - 1)
    metadata = _fitting(Kind.AVIF, picture)
    return containers.avif(_imencode(Kind.AVIF, pixels, options, metadata), metadata)


def _jpeg2000(picture: Picture, _output: Output) -> bytes:
    # Without loss: who chose this kind chose quality, and with loss it takes OpenJPEG as long.
    pixels = _merged(picture.colour, picture.alpha)
    packed = _imencode(Kind.JPEG2000, pixels, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    return containers.jpeg2000(packed, _fitting(Kind.JPEG2000, picture))


def _bmp(picture: Picture, _output: Output) -> bytes:
    return bytes(_imencode(Kind.BMP, _merged(*_of_eight_bits(picture)), []))


def _tiff(picture: Picture, _output: Output) -> bytes:
    return _joined([_tiff_page(picture)])


def _gif(picture: Picture, _output: Output) -> bytes:
    return palettes.gif(*_of_eight_bits(picture))


def _fitting(kind: Kind, picture: Picture) -> Metadata:
    """The picture's metadata, corrected, with what `kind` holds of its profile."""
    metadata = corrected(picture.metadata, picture.width, picture.height)
    return replace(metadata, icc=_profile(kind, picture))


def _profile(kind: Kind, picture: Picture) -> bytes:
    """The profile if it is for the channels that are written.

    Viewers would misread the colours with a grey profile on three channels, or with one for CMYK.
    """
    icc = picture.metadata.icc
    fits = icc[16:20] == (b"GRAY" if _stays_grey(kind, picture) else b"RGB ")
    return icc if fits and kind not in (Kind.BMP, Kind.GIF) else b""


def _stays_grey(kind: Kind, picture: Picture) -> bool:
    grey = picture.colour.ndim == 2
    return grey and stays_grey(kind, alpha=picture.alpha is not None, deep=picture.colour.dtype != np.uint8)


def _imencode(kind: Kind, pixels: Plane, options: list[int], metadata: Metadata | None = None) -> memoryview:
    """The file by OpenCV, without metadata if that is what it refuses."""
    parts = (
        {
            cv2.IMAGE_METADATA_EXIF: metadata.exif,
            cv2.IMAGE_METADATA_XMP: metadata.xmp,
            cv2.IMAGE_METADATA_ICCP: metadata.icc,
        }
        if metadata
        else {}
    )
    present = {name: np.frombuffer(part, np.uint8) for name, part in parts.items() if part}
    try:
        if present:
            done, packed = cv2.imencodeWithMetadata(
                EXTENSIONS[kind], pixels, list(present), list(present.values()), options
            )
        else:
            done, packed = cv2.imencode(EXTENSIONS[kind], pixels, options)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        done = False
    if done and len(packed):
        return packed.data
    if present:
        return _imencode(kind, pixels, options)
    raise PictureError(Code.UPSCALE_FAILED, f"the result could not be encoded as {NAMES[kind]}: {_ANOTHER}")


def _tiff_page(picture: Picture) -> tuple[memoryview, tiff.Tags]:
    """A file of this page, and the tags it lacks."""
    colour, alpha = picture.colour, picture.alpha
    options = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW]
    added: tiff.Tags = {}
    if alpha is not None and _stays_grey(Kind.TIFF, picture):
        # OpenCV writes no such thing, but a row of one channel and twice the width has the same bytes.
        pixels = np.dstack([colour, alpha]).reshape(picture.height, -1)
        options += [cv2.IMWRITE_TIFF_PREDICTOR, cv2.IMWRITE_TIFF_PREDICTOR_NONE]
        added[tags.WIDTH] = tiff.Value(4, struct.pack("<I", picture.width))
        added[tags.BITS_PER_SAMPLE] = tiff.Value(3, struct.pack("<HH", 8, 8))
        added[tags.SAMPLES_PER_PIXEL] = tiff.Value(3, struct.pack("<H", 2))
        added[tags.SAMPLE_FORMAT] = tiff.Value(3, struct.pack("<HH", 1, 1))
    else:
        pixels = _merged(colour, alpha)
    if alpha is not None:
        # OpenCV leaves the last channel's meaning out, which readers take for anything but alpha.
        added[tags.EXTRA_SAMPLES] = tiff.Value(3, struct.pack("<H", _UNASSOCIATED))
    return _imencode(Kind.TIFF, pixels, options), tiff.described(_fitting(Kind.TIFF, picture)) | added


def _joined(pages: Sequence[tuple[memoryview, tiff.Tags]]) -> bytes:
    try:
        return tiff.joined(pages)
    except (struct.error, OverflowError) as error:
        raise PictureError(Code.TOO_LARGE, "a TIFF file holds 4 GiB, all pages together: divide the pages") from error


def _has_heic() -> bool:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        return False
    return bool(pillow_heif.libheif_info()["HEIF"])


def _heic(picture: Picture, output: Output) -> bytes:
    import pillow_heif  # noqa: PLC0415 - an extra, and slow to load

    deep = picture.colour.dtype == np.uint16
    pixels = _merged(picture.colour, picture.alpha)
    mode = {1: "L", 3: "BGR", 4: "BGRA"}[1 if pixels.ndim == 2 else pixels.shape[2]] + (";16" if deep else "")
    metadata = _fitting(Kind.HEIC, picture)
    parts: dict[str, bytes | int] = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc}
    if metadata.cicp and not metadata.icc:
        parts["color_primaries"], parts["transfer_characteristics"] = metadata.cicp
    for present in ({name: part for name, part in parts.items() if part}, {}):
        try:
            heif = pillow_heif.from_bytes(mode, (picture.width, picture.height), pixels.data.cast("B"))
            file = io.BytesIO()
            with _deep_heic if deep else nullcontext():
                if deep:
                    pillow_heif.options.SAVE_HDR_TO_12_BIT = picture.bits > 10
                heif.save(file, quality=output.jpeg_quality, enc_params={"preset": _HEIC_PRESET}, **present)
            return file.getvalue()
        except (ValueError, OSError, RuntimeError) as error:
            refusal = error
    message = f"the result could not be encoded as HEIC ({refusal}): {_ANOTHER}"
    raise PictureError(Code.UPSCALE_FAILED, message) from refusal


def _of_eight_bits(picture: Picture) -> tuple[Plane, Plane | None]:
    return _scaled(picture.colour, 255), None if picture.alpha is None else _scaled(picture.alpha, 255)


def _scaled(plane: Plane, largest: int) -> Plane:
    """The plane with `largest` in place of its own largest value, rounded; as it is if it has no more than that."""
    if plane.dtype == np.uint8:
        return plane
    levels = np.rint(np.arange(1 << 16) * (largest / 0xFFFF))
    scaled: Plane = cv2.LUT(plane, levels.astype(np.uint8 if largest < 256 else np.uint16))
    return scaled


def _merged(colour: Plane, alpha: Plane | None) -> Plane:
    """What OpenCV takes: HxW, HxWx3 or HxWx4."""
    if alpha is None:
        return colour
    merged = np.empty((*alpha.shape, 4), alpha.dtype)
    merged[:, :, :3] = colour[:, :, None] if colour.ndim == 2 else colour
    merged[:, :, 3] = alpha
    return merged


def _on_white(picture: Picture) -> Plane:
    """Opaque colours of 8 bits."""
    colour, alpha = picture.colour, picture.alpha
    if alpha is None:
        return _scaled(colour, 255)
    largest = np.iinfo(colour.dtype).max
    flat = np.empty(colour.shape, np.uint8)
    for top in range(0, picture.height, _BAND):
        weight = alpha[top : top + _BAND].astype(np.float32) / largest
        if colour.ndim == 3:
            weight = cv2.merge([weight] * 3)
        band = colour[top : top + _BAND].astype(np.float32)
        band *= 255 / largest
        band -= 255
        band *= weight
        band += 255
        flat[top : top + _BAND] = np.rint(band, out=band)
    return flat


_WRITERS = {
    Kind.JPEG: _jpeg,
    Kind.PNG: _png,
    Kind.WEBP: _webp,
    Kind.TIFF: _tiff,
    Kind.BMP: _bmp,
    Kind.AVIF: _avif,
    Kind.HEIC: _heic,
    Kind.JPEG2000: _jpeg2000,
    Kind.GIF: _gif,
}
