"""One large file over HTTP: begun again where it broke off, and kept only if it is the file that was meant."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import NamedTuple

from watcher.errors import EnvironmentFault

_BLOCK_BYTES = 1 << 18
_SILENCE_SECONDS = 30.0
_MOST_BYTES = 1 << 26  # of a file whose size is not known
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


class Pin(NamedTuple):
    """What tells that a file is the one that was meant.

    Attributes:
        bytes: its size; None where it is not known.
        sha256: of its content; empty where only the other is known.
        git_blob: the SHA-1 by which git names it: of "blob <size>", a zero byte and the content.
    """

    bytes: int | None
    sha256: str = ""
    git_blob: str = ""

    def problem(self, path: str) -> str:
        """Why the file is another one, with what was expected; empty if it is the one."""
        size = os.path.getsize(path)
        if self.bytes is not None and size != self.bytes:
            return f"{size} bytes, expected {self.bytes}"
        digest, expected, name = (
            (hashlib.sha256(), self.sha256, "sha256")
            if self.sha256
            else (hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), self.git_blob, "git blob")
        )
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        found = digest.hexdigest()
        return "" if found == expected else f"{name} {found}, expected {expected}"


def download(urls: Sequence[str], path: str, pin: Pin, told: Callable[[int], None] = lambda _bytes: None) -> str:
    """Bring a file from the first address that has it. What arrived is kept in `path`.part until it is whole.

    Proxies are those of the environment (HTTPS_PROXY, NO_PROXY).

    Args:
        urls: addresses to try, in this order.
        path: where it goes, whole or not at all.
        pin: what it must be.
        told: how many bytes are there, again and again.

    Returns:
        The address that it came from.

    Raises:
        EnvironmentFault: no address has the file; the message says why of each.
    """
    problems = []
    for url in urls:
        try:
            problem = _fetch(url, path + ".part", pin, told)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = _reason(error)
        if not problem:
            os.replace(path + ".part", path)
            return url
        problems.append(f"{url}: {problem}")
    raise EnvironmentFault(
        "could not be fetched; " + "; ".join(problems),
        "try again, it goes on where it broke off; behind a firewall set HTTPS_PROXY or engine.model_mirrors, "
        "or bring the file and run `dropscale models add FILE`",
    )


def _fetch(url: str, part: str, pin: Pin, told: Callable[[int], None]) -> str:
    """Complete `part`; why that is not the file, or nothing."""
    if not url.startswith(("http://", "https://")):
        return "only http and https addresses are fetched"
    most = _MOST_BYTES if pin.bytes is None else pin.bytes
    have = os.path.getsize(part) if os.path.exists(part) else 0
    if have and not pin.problem(part):  # killed before it got its name
        return ""
    try:
        whole = _append(url, part, have if have < most else 0, most, told)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE:
            raise
        whole = 0
    problem = pin.problem(part)
    if problem and os.path.getsize(part) >= min(whole, most):
        os.unlink(part)  # going on from it would never give the right file
    return problem


def _append(url: str, part: str, have: int, most: int, told: Callable[[int], None]) -> int:
    """Fetch what is missing; how many bytes the whole has, as the server tells."""
    request = urllib.request.Request(url, headers={"User-Agent": "dropscale", "Accept-Encoding": "identity"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    # An opener of its own: the one of the module keeps the proxies that the environment had at its first use.
    with urllib.request.build_opener().open(request, timeout=_SILENCE_SECONDS) as answer:
        goes_on = answer.status == _PARTIAL_CONTENT
        have = have if goes_on else 0
        whole = have + int(answer.headers.get("Content-Length") or 0)
        with open(part, "ab" if goes_on else "wb") as file:
            # A byte more than expected is enough to see that it is another file.
            while have <= most and (block := answer.read(min(_BLOCK_BYTES, most + 1 - have))):
                file.write(block)
                have += len(block)
                told(have)
    return whole


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
