"""What watcher and engine say to each other: one JSON object a line, requests on stdin, events on stdout.

Light on purpose: the watcher imports this module, so nothing here may import numpy or cv2.

A conversation::

    engine  -> ready
    watcher -> upscale, upscale, ..., end          (at once; the engine reads at its own pace)
    engine  -> started, progress..., done | failed (for each picture)
    engine  -> bye

A watcher that keeps its engine for the next pictures leaves the `end` for later; meanwhile the engine waits in silence.
No answer may wait for a further request.

stdin stays open until `bye`. When it closes earlier the watcher is gone, and the engine exits at once.
A `failed` whose `id` is None speaks of the engine itself, which exits: if `retryable`, a fresh one will do better (it
starts with smaller tiles, say); else no picture can be upscaled. With DEVICE_BUSY it never had the device, and one that
starts later may get it.
"""

import os
from enum import StrEnum
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

VERSION = 2

# Characters that stay readable in an encoded path; "%" never does, which makes the encoding reversible.
_SAFE = "/\\:+,;=@()[]{}'!~&# "


def encode_path(path: str) -> str:
    """Percent-encode a path for the wire: file names are bytes, JSON is Unicode, and not all bytes are UTF-8."""
    return quote_from_bytes(os.fsencode(path), safe=_SAFE)


def decode_path(text: str) -> str:
    """Undo `encode_path`."""
    return os.fsdecode(unquote_to_bytes(text))


class ProtocolError(Exception):
    """A line that is not a message of this protocol and version."""


class Fault(StrEnum):
    """Who is to blame when something fails: only the picture's own faults count against the picture."""

    PICTURE = "picture"
    ENVIRONMENT = "environment"


class Code(StrEnum):
    """Why a picture, or the engine, failed."""

    UNDECODABLE = "undecodable"  # damaged, truncated or not a picture; an unfinished upload looks the same
    UNSUPPORTED = "unsupported"  # a sound picture of a kind that is not handled
    TOO_LARGE = "too_large"  # beyond the limits, judged from the header alone
    UNREADABLE = "unreadable"  # the source could not be opened or read
    UNWRITABLE = "unwritable"  # the staged result could not be written (disk full, share gone)
    OUT_OF_MEMORY = "out_of_memory"
    UPSCALE_FAILED = "upscale_failed"  # the network refused this picture
    ENGINE_UNUSABLE = "engine_unusable"  # missing library, model or device
    DEVICE_BUSY = "device_busy"  # others hold the device, so that the model does not fit now


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How results are written. It is part of what makes two results the same, see `watcher.ledger`.

    Attributes:
        format: "same" keeps the kind of the original, else one of `sr_engine.headers.Kind`.
        jpeg_quality: 1 .. 100; of HEIC too.
        webp_quality: 1 .. 100; above 100 means lossless, as in OpenCV.
        avif_quality: 1 .. 100.
        png_compression: zlib level 0 .. 9.
    """

    format: str = "same"
    jpeg_quality: int = 95
    webp_quality: int = 95
    avif_quality: int = 90
    png_compression: int = 1


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Beyond these a picture is refused from its header alone.

    Attributes:
        pixels: of the original, all pages together.
        side: longest, in pixels of the original.
        file_bytes: of the original.
        memory_bytes: that decoding, enlarging and encoding it are expected to need; 0 means three quarters of what
            the machine has.
        engine_bytes: that the engine's process may hold at all; 0 means what `sr_engine.machine` thinks is safe.
    """

    pixels: int = 200_000_000
    side: int = 60_000
    file_bytes: int = (1 << 31) - 1
    memory_bytes: int = 0
    engine_bytes: int = 0


class Request(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """What the watcher asks for."""

    v: int = VERSION


class Upscale(Request, frozen=True, tag="upscale"):
    """Upscale one picture.

    Attributes:
        id: names the picture in every event about it.
        source: the picture (an encoded path).
        target: where to stage the result, without its extension (an encoded path): the engine adds the one of
            the kind that it wrote. Nothing of that name exists.
        output: how to write it.
    """

    id: int
    source: str
    target: str
    output: Output = Output()


class End(Request, frozen=True, tag="end"):
    """No more requests will come: say `bye` when all are answered, then exit."""


class Event(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """What the engine tells."""

    v: int = VERSION


class Ready(Event, frozen=True, tag="ready"):
    """The model is loaded.

    Attributes:
        runtime: "opencv", ...
        device: "cpu", "cuda:0", ...
        precision: "fp32", ...
        load_seconds: from the start of the process to this event.
        reason: why this runtime, where that was left to the engine.
        started_at: Unix time of the first line of the engine's own code.
        phases: seconds of each part of `load_seconds`, in their order.
        mflop_per_pixel: work that each pixel of a picture means; 0 where the manifest does not say.
    """

    runtime: str
    device: str
    precision: str
    load_seconds: float
    reason: str = ""
    started_at: float = 0.0
    phases: dict[str, float] = {}
    mflop_per_pixel: float = 0.0


class Started(Event, frozen=True, tag="started"):
    """Work on a picture began.

    Told twice: before the source is read, with sides of 0, and once its header is known, with its sides in pixels.
    """

    id: int
    width: int
    height: int


class Progress(Event, frozen=True, tag="progress"):
    """`done` tiles of `total` are through the network."""

    id: int
    done: int
    total: int


class Done(Event, frozen=True, tag="done"):
    """A result is staged, whole and synced to disk.

    Attributes:
        target: the file written (an encoded path): the requested target plus an extension.
        source_sha256: of the very bytes that were decoded.
        result_sha256: of the file written.
        result_bytes: its size.
        width, height: of the result, in pixels.
        decode_seconds, upscale_seconds, encode_seconds: where the time went.
        peak_memory_bytes: largest resident set of the process so far.
        note: what the user should know of this result, a sentence without its full stop; mostly empty.
    """

    id: int
    target: str
    source_sha256: str
    result_sha256: str
    result_bytes: int
    width: int
    height: int
    decode_seconds: float
    upscale_seconds: float
    encode_seconds: float
    peak_memory_bytes: int
    note: str = ""


class Failed(Event, frozen=True, tag="failed"):
    """A picture could not be upscaled, or (id None) the engine cannot work at all.

    Attributes:
        code: why.
        message: one sentence for a person: what happened and what to do.
        fault: whose it is.
        retryable: whether the same bytes may succeed at another time.
        source_sha256: of the very bytes that the judgement is about; empty where they could not be read.
        was_on_device: with DEVICE_BUSY: whether it held the device for a while before it noticed.
    """

    id: int | None
    code: Code
    message: str
    fault: Fault
    retryable: bool
    source_sha256: str = ""
    was_on_device: bool = False


class Bye(Event, frozen=True, tag="bye"):
    """All requests are answered; the process is about to exit."""

    pictures: int
    failed: int
    seconds: float


AnyRequest = Upscale | End
AnyEvent = Ready | Started | Progress | Done | Failed | Bye

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_events: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(message: Request | Event) -> bytes:
    """One message as one line."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """Parse a line from the watcher.

    Raises:
        ProtocolError: it is no request of this version.
    """
    message: AnyRequest = _decode(_requests, line)
    return message


def decode_event(line: bytes) -> AnyEvent:
    """Parse a line from the engine.

    Raises:
        ProtocolError: it is no event of this version.
    """
    message: AnyEvent = _decode(_events, line)
    return message


def _decode(decoder: "msgspec.json.Decoder[Any]", line: bytes) -> Any:
    try:
        message = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message: {line[:80]!r} ({error})") from error
    if message.v != VERSION:
        raise ProtocolError(f"protocol version {message.v}, expected {VERSION}: {line[:80]!r}")
    return message
