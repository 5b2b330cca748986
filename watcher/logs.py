"""Where the log goes: plain lines, JSON lines, or lines above a progress bar on a terminal."""

import contextlib
import logging
import sys
from collections.abc import Callable

from watcher.journal import JsonFormatter, PlainFormatter, logger
from watcher.progress import BarProgress, NoProgress, Progress


def begin_log(log_format: str, *, verbose: bool) -> Progress:
    """Send the log to stderr, as "plain" or "json" lines; returns how batches show how far they are."""
    progress: Progress = NoProgress()
    handler: logging.Handler = logging.StreamHandler()
    if log_format == "plain" and sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - 3 MB that only a terminal needs

        console = Console(stderr=True)
        progress = BarProgress(console)
        handler = _ConsoleHandler(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    watchdog = logging.getLogger("watchdog")  # what matters of it the observer passes on
    watchdog.propagate = False
    watchdog.addHandler(logging.NullHandler())  # without any, logging would print its warnings as they are
    return progress


def begin_rq_log() -> None:
    """Let what RQ warns of go where our own log goes; the rest of its words we say ourselves."""
    for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry"):
        theirs = logging.getLogger(name)
        theirs.handlers = logger.handlers
        theirs.setLevel(logging.WARNING)
        theirs.propagate = False


class _ConsoleHandler(logging.Handler):
    """Log lines above a progress bar."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed: the work goes on
            self._show(self.format(record))
