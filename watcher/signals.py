"""SIGTERM and SIGINT stop the watcher, SIGHUP lets it read its config again; other commands end and clean up."""

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watcher.service import Service


def exit_on_signals() -> None:
    """Let a signal end a command as Ctrl-C does: cleaning up on its way out."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _leave)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)  # as shells count


# Those that `Signals` handles, as far as the system has them.
BLOCKED = {getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)}


class Signals:
    """Hands signals to the service at work; what comes between two services, while the config is read, to the next."""

    def __init__(self) -> None:
        """Take the signals from now on; belongs to the main thread."""
        self.reload = False
        self.stop = False
        self._service: Service | None = None
        self._had_terminal = os.isatty(2)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_reload)
        if hasattr(signal, "SIGIO"):
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # see filesystem.writer_present
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)  # see rebuild.begin_anew

    def attach(self, service: "Service") -> None:
        """From now on the signals are for this one."""
        self._service = service
        if self.stop:
            service.request_stop()
        if self.reload:
            service.request_reload()

    def _on_stop(self, *_: object) -> None:
        self.stop = True
        if self._service is not None:
            self._service.request_stop()

    def _on_reload(self, *_: object) -> None:
        if self._had_terminal and not os.isatty(2):  # the window was closed: the same signal means another thing
            self._on_stop()
            return
        self.reload = True
        if self._service is not None:
            self._service.request_reload()
