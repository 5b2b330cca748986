"""Why Redis does not do what it should, where its own words say little, and what to do about it."""

import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, NoPermissionError

from watcher.errors import EnvironmentFault

_EXPIRED, _NOT_YET = 10, 9  # OpenSSL's X509_V_ERR_
_ANOTHER_NAME = (62, 64)
_UNKNOWN_ISSUER = (18, 19, 20, 21)


def fault(error: Exception, url: str, place: str) -> EnvironmentFault | None:
    """What to say of an error that no waiting heals; None: it may pass by itself.

    Args:
        error: of redis-py.
        url: that was asked.
        place: the same as it may be shown.
    """
    if isinstance(error, AuthenticationError):
        return EnvironmentFault(f"Redis at {place} wants another user or password", "correct queue.url or --url")
    if isinstance(error, NoPermissionError):
        remedy = "see `What is needed` in docs/scaling.md for what it has to be allowed"
        return EnvironmentFault(f"Redis at {place} does not let this user do its work ({error})", remedy)
    if urlsplit(url).scheme != "rediss":
        return None
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause, place)
        if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError) or (
            isinstance(cause, ssl.SSLError) and getattr(cause, "library", "") in ("X509", "PEM")
        ):
            why = getattr(cause, "reason", None) or cause.strerror
            text = f"a file for TLS that the address of Redis at {place} names cannot be read ({why})"
            return EnvironmentFault(text, "correct ssl_ca_certs, ssl_certfile or ssl_keyfile in queue.url or --url")
    return None


def hint(error: Exception, url: str) -> str:
    """What it may be that a server does not answer to; empty: nothing to add."""
    scheme = urlsplit(url).scheme
    if scheme == "redis" and any(isinstance(cause, ConnectionResetError) for cause in _causes(error)):
        return "; if it speaks TLS, the address has to begin with rediss://"
    if scheme == "rediss" and (
        is_of_handshake(error) or any(isinstance(cause, ssl.SSLError) for cause in _causes(error))
    ):
        return "; if it does not speak TLS, the address has to begin with redis://"
    return ""


def is_of_handshake(error: Exception) -> bool:
    """Whether it is that of TLS which did not come to its end."""
    return any("handshake" in str(cause) for cause in _causes(error))


def _of_certificate(error: ssl.SSLCertVerificationError, place: str) -> EnvironmentFault:
    whose = f"the certificate of Redis at {place}"
    if error.verify_code == _EXPIRED:
        return EnvironmentFault(f"{whose} has expired", "renew it, and let Redis load it")
    if error.verify_code == _NOT_YET:
        return EnvironmentFault(f"{whose} is not valid yet", "set the clocks of both machines")
    if error.verify_code in _ANOTHER_NAME:
        remedy = "write a name that it is for into queue.url, or give Redis one for this name"
        return EnvironmentFault(f"{whose} is for another name", remedy)
    if error.verify_code in _UNKNOWN_ISSUER:
        remedy = "name the file of that authority in queue.url: rediss://...?ssl_ca_certs=/path/of/ca.pem"
        return EnvironmentFault(f"{whose} is by an authority that is not known here", remedy)
    return EnvironmentFault(f"{whose} is refused: {error.verify_message}", "correct it, or queue.url")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
