"""SIGTERM and SIGINT stop the watcher, SIGHUP lets it read its config again."""

import os
import signal

from watcher.service import Service


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

    def attach(self, service: Service) -> None:
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
