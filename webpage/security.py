"""The wall around the page: who may come in, what may be asked from where, how often, and what browsers may do with it.

- A token is asked for wherever one is set, and has to be set on any address that others can reach.
- Without a token only names of this machine are answered to: a site whose name was bent to 127.0.0.1 is none of them.
- What changes something has to come from a page of ours (same origin, and a secret that only our pages hold), or from a
  program that is no browser: those send neither cookie nor Origin.
"""

import contextlib
import hashlib
import hmac
import ipaddress
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from flask import Response

KEY_NAME = "page-key"
_KEY_BYTES = 32
_SESSION_SECONDS = 30 * 86_400
# Of tokens in headers. More than a program with an old token asks, and so few that even a poor token lasts for years.
_GUESSES_PER_MINUTE = 600
_MOST_ADDRESSES = 4096

HEADERS = {
    # no inline script, no inline style, nothing from elsewhere; blob: pictures that were chosen and not yet sent
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=()",
}


def protect(response: Response) -> Response:
    """Add the headers; what was not said to be kept is not kept."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def read_key(state_folder: str) -> bytes:
    """The page's own secret, made once, readable for its user only.

    Raises:
        OSError: it cannot be read or made.
    """
    path = os.path.join(state_folder, KEY_NAME)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    with open(path, "rb") as file:
        key = file.read()
    # a second page may just be writing it, a full disk may have cut it off: a key of our own lasts until the next start
    return key if len(key) == _KEY_BYTES else secrets.token_bytes(_KEY_BYTES)


class Wall:
    """Judges requests by their headers; names of headers are those of WSGI without HTTP_."""

    def __init__(self, key: bytes, token: str) -> None:
        """An empty token: there is no wall, only this machine comes here."""
        self._token = token.encode()
        self._guesses = Allowance(_GUESSES_PER_MINUTE)
        self._key = hashlib.sha256(key + self._token).digest()
        # two pages on one machine share their cookies: ports do not keep them apart
        self.session_cookie = f"dropscale_session_{key.hex()[:8]}"
        self.visit_cookie = f"dropscale_visit_{key.hex()[:8]}"

    @property
    def has_token(self) -> bool:
        """Whether visitors have to know one."""
        return bool(self._token)

    def is_token(self, told: str) -> bool:
        """Whether that is the token, in the same time for any that is not."""
        return self.has_token and hmac.compare_digest(self._digest(told.encode()), self._digest(self._token))

    def session(self) -> str:
        """What the cookie of a visitor who knew the token holds."""
        until = str(int(time.time()) + _SESSION_SECONDS)
        return f"{until}.{self._sign('session', until)}"

    def admits(self, headers: Mapping[str, str], address: str) -> bool:
        """Whether a request comes from one who knows the token, or none is needed.

        Args:
            headers: of the request.
            address: that it comes from; who guesses too much from there is not even listened to.
        """
        if not self.has_token:
            return is_local_name(headers.get("HOST", ""))
        scheme, _, told = headers.get("AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer":
            if self.wait_seconds(address):
                return False
            is_right = self.is_token(told.strip())
            if not is_right:
                self._guesses.take(address, time.monotonic())
            return is_right
        until, _, signature = _cookie(headers, self.session_cookie).partition(".")
        signed = hmac.compare_digest(signature.encode(), self._sign("session", until).encode())
        return signed and until.isascii() and until.isdigit() and int(until) > time.time()

    def wait_seconds(self, address: str) -> float:
        """After how many seconds a token in a header is looked at again; 0: now."""
        return self._guesses.look(address, time.monotonic())

    def visit(self, headers: Mapping[str, str]) -> str:
        """What tells this browser from others; a new one if it has none."""
        return _cookie(headers, self.visit_cookie)[:64] or secrets.token_urlsafe(24)

    def secret_of(self, visit: str) -> str:
        """What pages for this browser hold, and no page of another site can read."""
        return self._sign("visit", visit)

    def may_change(self, headers: Mapping[str, str], secret: str) -> bool:
        """Whether a request that changes something was made by our own page, or by no browser at all.

        Args:
            headers: of the request.
            secret: that it brought.
        """
        origin, site = headers.get("ORIGIN"), headers.get("SEC_FETCH_SITE", "same-origin")
        if site not in ("same-origin", "none") or (origin is not None and not _same_host(origin, headers)):
            return False
        visit = _cookie(headers, self.visit_cookie)
        if origin is None and "SEC_FETCH_SITE" not in headers and "COOKIE" not in headers:
            return True
        return bool(visit) and hmac.compare_digest(secret.encode(), self.secret_of(visit[:64]).encode())

    def _sign(self, what: str, value: str) -> str:
        return hmac.new(self._key, f"{what}:{value}".encode(), hashlib.sha256).hexdigest()

    def _digest(self, value: bytes) -> bytes:
        return hmac.new(self._key, value, hashlib.sha256).digest()


class Allowance:
    """So many a minute for each address, saved up for one minute at most. For several threads."""

    def __init__(self, per_minute: float) -> None:
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, address: str, now: float) -> float:
        """As `take`, without taking one."""
        with self._lock:
            left, since = self._left.get(_neighbourhood(address), (self._most, now))
            return self._wait(self._grown(left, now - since))

    def take(self, address: str, now: float) -> float:
        """Take one; returns 0, or the seconds after which there is one again.

        Args:
            address: whose.
            now: monotonic seconds.
        """
        with self._lock:
            whose = _neighbourhood(address)
            left, since = self._left.pop(whose, (self._most, now))
            left = self._grown(left, now - since)
            wait = self._wait(left)
            self._left[whose] = (left if wait else left - 1, now)
            while len(self._left) > _MOST_ADDRESSES:
                self._left.popitem(last=False)
            return wait

    def _grown(self, left: float, seconds: float) -> float:
        return min(left + seconds * self._per_second, self._most)

    def _wait(self, left: float) -> float:
        return 0.0 if left >= 1 else (1 - left) / self._per_second


def _neighbourhood(address: str) -> str:
    """One who has an IPv6 address has 2^64 of them."""
    try:
        there = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.IPv6Network((there.packed[:8] + bytes(8), 64))) if there.ipv4_mapped is None else address


def headers_of(environ: Mapping[str, object]) -> dict[str, str]:
    """A request's headers, by the names that `Wall` knows them by."""
    return {name.removeprefix("HTTP_"): str(value) for name, value in environ.items() if name.startswith("HTTP_")}


def is_over_tls(headers: Mapping[str, str]) -> bool:
    """Whether a browser came over TLS, by its own word: here a proxy in front speaks plain HTTP."""
    return headers.get("ORIGIN", "").lower().startswith("https://")


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:  # it is no address
        return False


def _same_host(origin: str, headers: Mapping[str, str]) -> bool:
    # without the scheme: a proxy in front may speak TLS
    try:
        return urlsplit(origin).netloc.lower() == headers.get("HOST", "").lower() != ""
    except ValueError:
        return False


def _cookie(headers: Mapping[str, str], name: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    with contextlib.suppress(CookieError):
        jar.load(headers.get("COOKIE", ""))
    return jar[name].value if name in jar else ""
