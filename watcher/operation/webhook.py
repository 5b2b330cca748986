"""One call of a webhook: an HTTP request with the event as its body. Loaded only where there is one: 8 MB."""

import contextlib
import email.utils
import functools
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

from watcher.operation.hook_calls import CallFailed, place_of

_MOST_SECONDS_ASKED = 3600.0  # that a server may ask for; the hook has its own limit


def post(url: str, headers: Mapping[str, str], payload: bytes, timeout_seconds: float) -> None:
    """Send JSON to an address. Certificates are verified, proxies are those of the environment (HTTPS_PROXY, NO_PROXY).

    A redirect is not followed: it would take the headers, and who knows what else, to another place.

    Args:
        url: http or https.
        headers: beside Content-Type.
        payload: JSON.
        timeout_seconds: for all of it from the connection on; finding the name's address has the system's own limit.

    Raises:
        CallFailed: no answer, or one other than 2xx.
    """
    own = {"Content-Type": "application/json", "User-Agent": "dropscale"}
    limit = _Limit(timeout_seconds)
    try:
        with contextlib.closing(limit):
            request = urllib.request.Request(url, payload, {**own, **headers}, method="POST")  # noqa: S310 - see sections.Hook
            # an opener of its own: the one of the module keeps the proxies that the environment had at its first use
            opener = urllib.request.build_opener(_NoRedirect, _Http(limit), _Https(limit))
            with opener.open(request, timeout=timeout_seconds):
                if limit.is_over:  # what was broken off looks like an answer whose headers have ended
                    raise CallFailed("no answer in time")
    except urllib.error.HTTPError as error:
        with error:
            asked = _seconds_asked(error.headers.get("Retry-After")) if error.code in (429, 503) else 0.0
            raise CallFailed(f"the server answers {error.code} {error.reason}", asked) from None
    except TimeoutError:
        raise CallFailed("no answer in time") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CallFailed("no answer in time" if limit.is_over else _reason(error)) from None


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, http.client.RemoteDisconnected):
        return "the connection was closed before an answer"
    # the text of others may hold the address
    return str(getattr(inner, "strerror", None) or (inner if inner is not error else type(error).__name__))


def _seconds_asked(header: str | None) -> float:
    """What `Retry-After` asks for, as seconds or as a date; 0 if that is nothing."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if header and header.strip().isdecimal():
            return min(float(header), _MOST_SECONDS_ASKED)
        if header:
            return min(max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0), _MOST_SECONDS_ASKED)
    return 0.0


class _Limit:
    """Breaks a connection off when its time is over: the timeout of a socket begins anew with each byte."""

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.is_over = False
        self._timer = threading.Timer(seconds, self._break_off)
        self._timer.daemon = True
        self._timer.start()

    def connect(self, *arguments: Any) -> socket.socket:
        """As `socket.create_connection`."""
        found = socket.create_connection(*arguments)
        with self._lock:
            self._sockets.append(found.dup())  # TLS takes the socket itself over
        if self.is_over:
            self._break_off()
        return found

    def close(self) -> None:
        """It came to its end."""
        self._timer.cancel()
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()

    def _break_off(self) -> None:
        self.is_over = True
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _connection(kind: type[http.client.HTTPConnection], limit: _Limit, host: str, **options: Any) -> Any:
    made = kind(host, **options)
    # nothing else has the socket before TLS has
    made._create_connection = limit.connect  # type: ignore[attr-defined]
    return made


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: _Limit) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        made: Any = functools.partial(_connection, http.client.HTTPConnection, self._limit)
        return self.do_open(made, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limit: _Limit) -> None:
        super().__init__()
        self._limit = limit

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        made: Any = functools.partial(_connection, http.client.HTTPSConnection, self._limit)
        return self.do_open(made, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        text = f"redirects to {place_of(newurl)}, which is not followed: write the final address into url"
        raise urllib.error.HTTPError(req.full_url, code, text, headers, fp)
