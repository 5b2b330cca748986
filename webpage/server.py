"""Serves the page with waitress until it is told to stop, or until the watcher that started it is gone."""

import gc
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import waitress
from waitress.server import BaseWSGIServer, MultiSocketServer

from watcher import config as configuration
from watcher import instance, memory
from watcher.errors import EXIT_DONE, EnvironmentFault
from watcher.journal import logger, tell
from watcher.sections import Config
from webpage.app import create_app
from webpage.connections import channel_class
from webpage.site import Site
from webpage.thumbnails import FOLDER

_THREADS = 14  # streams and renderings wait in theirs, pages need the rest; one that waits costs some kilobytes
_CONNECTIONS = 100
_SILENT_SECONDS = 60
_REST_SECONDS = 5.0


def serve(config: Config, *, until_stdin_closes: bool) -> int:
    """Show the page until SIGTERM or SIGINT.

    Args:
        config: with the address to use.
        until_stdin_closes: also end when stdin does: its other end is the watcher's.

    Raises:
        EnvironmentFault: the address cannot be used, or a folder is missing.
        LedgerError: the ledger is from a newer version.
    """
    memory.limit_arenas()
    configuration.check_folders(config.folders)
    instance.prepare_state_folder(config.folders.state)
    incoming = os.path.join(config.folders.state, FOLDER, "incoming")
    _keep_bodies_in(incoming)
    site = Site.of(config)
    listener = _listen(config.web.host, config.web.port)
    site.uploads.sweep()
    server = _server(site, listener, incoming)
    _end_on_signals(site)
    host, port = listener.getsockname()[:2]
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    tell("page", "the page is at {address}", address=f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    try:
        server.run()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        site.close()
        server.close()
    return EXIT_DONE


def _listen(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise EnvironmentFault(
            f"the page cannot listen at {host}, port {port}: {error.strerror}",
            "set web.host and web.port to what is free",
        ) from error
    return listener


def _server(site: Site, listener: socket.socket, incoming: str, silent_seconds: int = _SILENT_SECONDS) -> Any:
    server: BaseWSGIServer | MultiSocketServer = waitress.create_server(
        _logged(create_app(site).wsgi_app, _Rest()),
        sockets=[listener],
        threads=_THREADS,
        ident=None,
        connection_limit=_CONNECTIONS,
        channel_timeout=silent_seconds,
        cleanup_interval=max(silent_seconds // 2, 1),
        # waitress refuses what is as large as this
        max_request_body_size=site.uploads.most_bytes + 1,
        max_request_header_size=32_768,
        clear_untrusted_proxy_headers=True,
        channel_request_lookahead=1,  # else nobody learns that a listener went away
    )
    server.channel_class = channel_class(site.wall, incoming)
    return server


def _logged(application: Callable[..., Any], rest: "_Rest") -> Callable[..., Any]:
    """Each request as a line of the verbose log; never its query, in which there may be names."""

    def call(environ: MutableMapping[str, Any], start_response: Callable[..., Any]) -> Any:
        logger.debug("%s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
        rest.disturb()
        return application(environ, start_response)

    return call


class _Rest:
    """Gives freed memory back once nobody has asked for anything for a while. At rest its thread sleeps without end."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        threading.Thread(target=self._watch, name="rest", daemon=True).start()

    def disturb(self) -> None:
        """Somebody asks."""
        self._asked.set()

    def _watch(self) -> None:
        while True:
            self._asked.wait()
            while self._asked.is_set():
                self._asked.clear()
                time.sleep(_REST_SECONDS)
            gc.collect()
            memory.return_freed()


def _keep_bodies_in(folder: str) -> None:
    """Large uploads are laid down here on their way: on a disk, where /tmp may be memory."""
    os.makedirs(folder, exist_ok=True)
    tempfile.tempdir = folder


def _end_with_stdin(server: Any) -> None:
    while os.read(sys.stdin.fileno(), 1 << 10):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end_on_signals(site: Site) -> None:
    def leave(*_: object) -> None:
        site.now.close()  # first: streams hold threads that the server waits for
        raise SystemExit

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, leave)
