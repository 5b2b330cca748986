"""`python -m webpage.rendering`: makes thumbnails and renditions, in a short-lived process of its own.

Decoders take memory that a process does not give back, and a hostile file can take one down: both end with this
process. One request a line on stdin, as JSON: source, target, kind, width, height; one answer a line on stdout. Paths
are percent-encoded. It ends when stdin closes.
"""

import contextlib
import json
import os
import sys
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps

from sr_engine import protocol
from sr_engine.headers import Header, Kind, read_header

THUMBNAIL_SIDE = 256
PREVIEW_SIDE = 4096
MOST_PIXELS = 120_000_000  # of what is decoded as a whole: under half a gigabyte as RGB
_MEMORY_BYTES = 3 << 30
_CPU_SECONDS = 120
_QUALITY = {"thumbnail": 72, "preview": 90, "cubic": 90}


def main() -> None:
    """Answer requests until there are no more."""
    _build_walls()
    with contextlib.suppress(ImportError):
        import pillow_heif  # noqa: PLC0415 - an extra

        pillow_heif.register_heif_opener()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a chatty decoder is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            render(request)
            problem = ""
        except MemoryError:
            problem = "it needs too much memory"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        print(json.dumps({"problem": problem}), file=answers, flush=True)


def render(request: dict[str, Any]) -> None:
    """Make one picture; it is at its target whole, or not at all.

    Raises:
        ValueError: it is larger than is sensible.
        OSError: it cannot be read, or written.
    """
    source, target = (protocol.decode_path(request[key]) for key in ("source", "target"))
    kind = request["kind"]
    with open(source, "rb") as file:
        header = read_header(file)
        file.seek(0)
        # what Pillow would call a bomb may be a result of ours; the header was judged here
        Image.MAX_IMAGE_PIXELS = None
        if header.kind is not Kind.JPEG and header.width * header.height > MOST_PIXELS:
            raise ValueError(f"{header.width} x {header.height} pixels are too many to look at")
        picture = _made(Image.open(file), header, request)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        part = f"{target}.{os.getpid()}"
        try:
            picture.save(part, "WEBP", quality=_QUALITY[kind], method=4, exif=b"", xmp=b"", icc_profile=None)
            os.replace(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)


def _made(opened: Image.Image, header: Header, request: dict[str, Any]) -> Image.Image:
    kind = request["kind"]
    if kind != "cubic":
        side = THUMBNAIL_SIDE if kind == "thumbnail" else PREVIEW_SIDE
        opened.draft("RGB", (side, side))  # a JPEG is decoded at an eighth of its size, where that is enough
    if opened.width * opened.height > MOST_PIXELS:
        raise ValueError(f"{header.width} x {header.height} pixels are too many to look at")
    picture = ImageOps.exif_transpose(_eight_bits(_in_srgb(opened)))
    if kind == "cubic":
        return picture.resize((request["width"], request["height"]), Image.Resampling.BICUBIC)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Colours as they are meant, so that no profile has to go along: it may be larger than a thumbnail."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "CMYK", "L"):
        return picture
    from PIL import ImageCms  # noqa: PLC0415 - for the few that have one

    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile says nothing
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        exif = picture.info.get("exif")
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
        if converted is not None:
            converted.info["exif"] = exif or b""
            return converted
    return picture


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I;16", "I")):
        # Pillow's own conversion cuts off at 255
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    has_alpha = picture.has_transparency_data
    return picture.convert("RGBA" if has_alpha else "RGB") if picture.mode not in ("RGB", "RGBA") else picture


def _build_walls() -> None:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS * 10, _CPU_SECONDS * 10))


if __name__ == "__main__":
    main()
