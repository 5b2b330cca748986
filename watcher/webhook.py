"""One call of a webhook: an HTTP request with the event as its body. Loaded only where there is one: 8 MB."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

from watcher.hook_calls import MOST_REASON, CallFailed, place_of


def post(url: str, headers: Mapping[str, str], payload: bytes, timeout_seconds: float) -> None:
    """Send JSON to an address. Certificates are verified, proxies are those of the environment (HTTPS_PROXY, NO_PROXY).

    A redirect is not followed: it would take the headers, and who knows what else, to another place.

    Args:
        url: http or https.
        headers: beside Content-Type.
        payload: JSON.
        timeout_seconds: for connecting, sending, and each part of the answer.

    Raises:
        CallFailed: no answer, or one other than 2xx.
    """
    own = {"Content-Type": "application/json", "User-Agent": "dropscale"}
    request = urllib.request.Request(url, payload, {**own, **headers}, method="POST")  # noqa: S310 - see sections.Hook
    # an opener of its own: the one of the module keeps the proxies that the environment had at its first use
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=timeout_seconds):
            pass
    except urllib.error.HTTPError as error:
        with error:
            raise CallFailed(f"the server answers {error.code} {error.reason}"[:MOST_REASON]) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise CallFailed(str(reason)[:MOST_REASON]) from None
    except TimeoutError:
        raise CallFailed("no answer in time") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CallFailed(str(getattr(error, "strerror", None) or type(error).__name__)) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        text = f"redirects to {place_of(newurl)}, which is not followed: write the final address into url"
        raise urllib.error.HTTPError(req.full_url, code, text, headers, fp)
