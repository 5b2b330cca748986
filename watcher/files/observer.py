"""Native file system events, as hints: watchdog tells where something happened, a look decides what it means.

Polling is not watchdog's: its poller keeps a snapshot of the tree and ends for ever on the first error of a share.
Where events do not work the reconcile scan runs every `poll_seconds` instead; see docs/design.md.
"""

import ctypes
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer as WatchdogObserver

# No modified, opened or attribute events: a slow upload would send thousands, and what they tell, a look tells too.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]

_IN_DELETE_SELF = 0x400  # sys/inotify.h; some event has to be asked for


class Observer(FileSystemEventHandler):
    """Watches one folder and its subfolders with the operating system's own events."""

    def __init__(
        self, folder: str, *, recursive: bool, hint: Callable[[str], None], lost: Callable[[str], None]
    ) -> None:
        """Prepare to watch.

        Args:
            folder: what to watch.
            recursive: its subfolders, too.
            hint: called from another thread with the path of a file or folder that appeared.
            lost: called from another thread, with the reason, when events may have been lost.
        """
        self._folder = folder
        self._recursive = recursive
        self._hint = hint
        self._alarm = _Alarm(lost)
        self._observer = WatchdogObserver()

    def start(self) -> None:
        """Begin to watch.

        Raises:
            OSError: the folder is gone, or the system has no watches left (ENOSPC, EMFILE).
        """
        # It watches some of a tree that is just being created twice, which does no harm, and warns of it on stderr;
        # where warnings are errors that would end its reader.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
        self._observer.schedule(self, self._folder, recursive=self._recursive, event_filter=_EVENTS)
        logging.getLogger("watchdog").addHandler(self._alarm)
        try:
            self._observer.start()
        except BaseException:
            logging.getLogger("watchdog").removeHandler(self._alarm)
            raise

    def stop(self) -> None:
        """Stop watching, and wait until no hint can come any more."""
        logging.getLogger("watchdog").removeHandler(self._alarm)
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()

    def is_out_of_watches(self) -> bool:
        """Whether the system grants this user no further watch: watchdog passes over folders that it cannot watch."""
        if not sys.platform.startswith("linux"):
            return False
        library = ctypes.CDLL(None, use_errno=True)
        descriptor = library.inotify_init1(os.O_CLOEXEC)
        if descriptor < 0:
            return False  # no further reader, which says nothing of watches
        try:
            refused = library.inotify_add_watch(descriptor, os.fsencode(self._folder), _IN_DELETE_SELF) < 0
            return refused and ctypes.get_errno() == errno.ENOSPC
        finally:
            os.close(descriptor)

    def is_alive(self) -> bool:
        """Whether every thread that should deliver events still runs."""
        return self._observer.is_alive() and all(emitter.is_alive() for emitter in self._observer.emitters) and _reads()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on where something appeared (called by watchdog)."""
        self._hint(os.fsdecode(event.dest_path or event.src_path))


def _reads() -> bool:
    """Whether the thread that reads inotify for all of watchdog's observers runs; its death is seen nowhere else."""
    inotify = sys.modules.get("watchdog.observers.inotify_c")  # loaded by watchdog, on Linux alone
    reader = getattr(getattr(inotify, "InotifyFD", None), "_instance", None)
    return reader is None or bool(reader.is_alive())


class _Alarm(logging.Handler):
    """watchdog reports lost events (the kernel's queue overflowed, a watch could not be renewed) in its log only."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._lost = lost

    def emit(self, record: logging.LogRecord) -> None:
        """A warning of watchdog."""
        self._lost(record.getMessage())
