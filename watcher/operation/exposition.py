"""How figures get to Prometheus: a small HTTP server, or a file that is replaced now and then.

Neither may hold up the watcher, whoever asks and wherever the file lies.
"""

import contextlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import MetricsHandler, write_to_textfile

from watcher.errors import EnvironmentFault
from watcher.files.names import display
from watcher.journal import tell, warn

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SILENCE_SECONDS = 10.0  # a client that asks for nothing is sent away
_LONGEST_SECONDS = 30.0  # and so is one that asks, or reads, byte by byte: Prometheus itself gives up after 10
_MOST_CLIENTS = 32  # at a time; each has a thread
_LOOK_SECONDS = 1.0
_LAST_SECONDS = 5.0  # for the last file, at a stop


def check_port(address: str, port: int) -> None:
    """See that a port is free.

    Raises:
        EnvironmentFault: it is not.
    """
    with _told(address, port), socket.socket(_family(address)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


@contextlib.contextmanager
def served(address: str, port: int, registry: "CollectorRegistry") -> Iterator[None]:
    """Answer at this port.

    Raises:
        EnvironmentFault: the port cannot be had.
    """
    handler = type("_Handler", (MetricsHandler.factory(registry),), {"timeout": _SILENCE_SECONDS})
    kind = type("_Server", (_Server,), {"address_family": _family(address)})
    with _told(address, port):
        server = kind((address, port), handler)
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_SECONDS,), name="metrics", daemon=True)
    thread.start()
    shown = f"[{address}]" if ":" in address else address
    tell("metrics", "metrics at http://{address}:{port}/metrics", address=shown, port=port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def written(path: str, seconds: float, registry: "CollectorRegistry") -> Iterator[None]:
    """Write the file now, every so many seconds, and at the end."""
    over = threading.Event()
    told = ""

    def write() -> None:
        nonlocal told
        try:
            write_to_textfile(path, registry)
            told = ""
        except OSError as error:
            why = error.strerror or str(error)
            if told != why:
                told = why
                text = "metrics.textfile: cannot write {path}: {why}: {remedy}; trying again every {seconds:g} s"
                remedy = _remedy(path)
                warn("metrics", text, path=display(path), why=why, remedy=remedy, seconds=seconds)

    def work() -> None:
        while not over.is_set():
            write()
            over.wait(seconds)
        write()

    thread = threading.Thread(target=work, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_SECONDS)  # no longer: a share that died would keep the stop waiting


def textfile_fault(path: str) -> str:
    """Why the file cannot be written, and what to do; empty if it seems that it can."""
    folder = os.path.dirname(path)
    if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK) and not os.path.isdir(path):
        return ""
    return f"{display(path)} cannot be written: {_remedy(path)}"


def _remedy(path: str) -> str:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"create the folder {display(folder)}, or correct metrics.textfile"
    if os.path.isdir(path):
        return "it is a folder: metrics.textfile is to name a file in it, such as dropscale.prom"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"let this user write into {display(folder)}, or correct metrics.textfile"
    return "see to its disk, or correct metrics.textfile"


class _Server(socketserver.ThreadingTCPServer):
    """As http.server's, which asks the name service for its own name first, and prints tracebacks of clients."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._until: dict[socket.socket, float] = {}  # when each of the connections has to be over
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Send away whoever is too many."""
        with self._lock:
            if len(self._until) >= _MOST_CLIENTS:
                return False
            self._until[request] = time.monotonic() + _LONGEST_SECONDS
            return True

    def service_actions(self) -> None:
        """Between two connections, and every _LOOK_SECONDS: end those that take too long."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, until in self._until.items() if until <= now]
        for request in late:
            with contextlib.suppress(OSError):  # it has just ended
                request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """The connection is over."""
        with self._lock:
            self._until.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def _told(address: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise EnvironmentFault(
            f"metrics.port: cannot listen on port {port} of {address}: {why}", "choose another port or address"
        ) from error
