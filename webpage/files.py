"""Pictures on their way to a browser: under a type that was read off their content, never as a document."""

import os

from flask import Response, send_file

from sr_engine.headers import Header, Kind
from webpage.gallery import look_into

# What browsers show; the others get a rendition where they have to be looked at.
SHOWN = {Kind.JPEG: "image/jpeg", Kind.PNG: "image/png", Kind.WEBP: "image/webp", Kind.GIF: "image/gif"}
SHOWN |= {Kind.AVIF: "image/avif"}
TYPES = SHOWN | {
    Kind.TIFF: "image/tiff",
    Kind.BMP: "image/bmp",
    Kind.HEIC: "image/heic",
    Kind.JPEG2000: "image/jp2",
}
_OTHER = "application/octet-stream"
_KEPT_SECONDS = 31_536_000  # of what is known by its content


def send(path: str, name: str, *, download: bool) -> Response:
    """A picture's file.

    Args:
        path: absolute, from the ledger.
        name: what it is called where it is saved.
        download: to be saved; else to be looked at, if it is a picture.

    Raises:
        OSError: it cannot be read, or is a link.
    """
    file, header = look_into(path)
    kind = _OTHER if header is None else TYPES[header.kind]
    status = os.fstat(file.fileno())
    return send_file(
        file,
        mimetype=kind,
        as_attachment=download or header is None,
        download_name=name,
        etag=f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}",
        conditional=True,
        max_age=None,
    )


def send_kept(path: str, *, for_ever: bool = False) -> Response:
    """A thumbnail or rendition of ours.

    Args:
        path: absolute.
        for_ever: its address says what it shows. An id alone does not: a new ledger gives them anew.
    """
    response = send_file(path, mimetype="image/webp", conditional=True)
    response.headers["Cache-Control"] = f"private, max-age={_KEPT_SECONDS}, immutable" if for_ever else "no-cache"
    return response


def header_of(path: str) -> Header | None:
    """What a picture's header says; None: it is none, or cannot be read."""
    try:
        file, header = look_into(path)
    except OSError:
        return None
    file.close()
    return header
