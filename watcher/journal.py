"""What dropscale says while it works: one event, one line, plain or JSON, through `logging`."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

logger = logging.getLogger("dropscale")

# Called with the event's name, its text as a format string, and its fields, on the thread that tells it.
Listener = Callable[[str, str, Mapping[str, Any]], None]
_listeners: tuple[Listener, ...] = ()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let somebody hear every event, those below the log's level, too. It must not take long, nor tell anything."""
    global _listeners  # noqa: PLW0603 - as the logger, one for the process
    _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        _listeners = tuple(other for other in _listeners if other is not listener)


def tell(event: str, text: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event.

    Args:
        event: its name, for machines ("delivered").
        text: for people, a format string over `fields`.
        level: as in `logging`.
        fields: its facts; paths as `names.display` gives them.
    """
    if logger.isEnabledFor(level):
        logger.log(level, text.format(**fields), extra={"event": event, "fields": fields})
    for listener in _listeners:
        try:
            listener(event, text, fields)
        except Exception as error:  # who listens must not disturb the work
            logger.warning("a listener failed on %s: %s: %s", event, type(error).__name__, error)


def warn(event: str, text: str, **fields: Any) -> None:
    """Log something that a person may have to look at."""
    tell(event, text, level=logging.WARNING, **fields)


def as_json(entry: Mapping[str, Any]) -> bytes:
    """An event as a JSON object on one line, without its end; a text with bytes that are none has them escaped."""
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in entry.items()}
    try:
        return msgspec.json.encode(rounded, enc_hook=str)
    except UnicodeEncodeError:  # a path in somebody's message
        texts = {key: value for key, value in rounded.items() if isinstance(value, str)}
        escaped = {key: value.encode("utf-8", "backslashreplace").decode() for key, value in texts.items()}
        return msgspec.json.encode({**rounded, **escaped}, enc_hook=str)


class PlainFormatter(logging.Formatter):
    """`14:20:01 delivered a.jpg -> a.jpg (768 x 768)`; warnings say so."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {mark}{_one_line(record.getMessage())}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, event, message, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return as_json(entry).decode()


def _one_line(text: str) -> str:
    return text.replace("\n", " | ")
