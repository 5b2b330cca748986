"""The page as a WSGI application."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import Flask, Response, g, redirect, render_template, request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from watcher import __version__
from watcher.errors import DropscaleError
from watcher.files.names import told
from webpage import api, pages, words
from webpage.api import ApiError
from webpage.gallery import BadCursor
from webpage.security import headers_of, is_over_tls, protect
from webpage.site import Site
from webpage.thumbnails import Busy, Unrenderable

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_OPEN_TO_ALL = {"static", "pages.login", "pages.let_in"}  # also those who do not know the token
_SIGNS = {"CNY": "¥", "JPY": "¥", "EUR": "€", "USD": "$", "GBP": "£"}
_VISIT_SECONDS = 365 * 86_400
SECRET_HEADER = "X-Dropscale-Secret"  # noqa: S105 - a name
SECRET_FIELD = "secret"  # noqa: S105


def create_app(site: Site) -> Flask:
    """The application over a site; it is ready for several threads."""
    app = Flask("webpage", static_folder="static", template_folder="templates")
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(api.blueprint(site))
    app.register_blueprint(pages.blueprint(site))
    app.before_request(_guard(site))
    app.after_request(_finish(site))
    app.context_processor(_context(site))
    for name, function in _FILTERS.items():
        app.add_template_filter(function, name)
    _register_errors(app, site)
    return app


def _guard(site: Site) -> Callable[[], AnyResponse | None]:
    def guard() -> AnyResponse | None:
        g.language = words.choose(request.accept_languages)
        headers = headers_of(request.environ)
        address = request.remote_addr or ""
        if not site.wall.admits(headers, address) and (request.endpoint not in _OPEN_TO_ALL or not site.wall.has_token):
            if not site.wall.has_token:
                raise ApiError(403, "host", "without web.token, this page answers to names of this machine only")
            if "AUTHORIZATION" in headers and (wait := site.wall.wait_seconds(address)):
                raise ApiError(429, "too_many", "too many wrong tokens in a minute", wait)
            if _is_api():
                raise ApiError(401, "token", "send the token: Authorization: Bearer TOKEN")
            return redirect("/login")
        if request.method not in _SAFE_METHODS:
            brought = request.headers.get(SECRET_HEADER)
            if brought is None and request.mimetype == "application/x-www-form-urlencoded" and not _is_api():
                brought = request.form.get(SECRET_FIELD)
            if not site.wall.may_change(headers, brought or ""):
                raise ApiError(
                    403, "origin", "this came from another site, or from a page that is out of date: load it again"
                )
        return None

    return guard


def _finish(site: Site) -> Callable[[Response], Response]:
    def finish(response: Response) -> Response:
        if "visit" in g:
            response.set_cookie(
                site.wall.visit_cookie,
                g.visit,
                max_age=_VISIT_SECONDS,
                httponly=True,
                samesite="Strict",
                secure=is_over_tls(headers_of(request.environ)),
            )
        if request.endpoint == "static":
            response.headers["Cache-Control"] = "no-cache"
        if response.status_code == 401 and _is_api():
            response.headers["WWW-Authenticate"] = "Bearer"
        if response.mimetype == "text/html":
            response.vary.add("Accept-Language")
        return protect(response)

    return finish


def _context(site: Site) -> Callable[[], dict[str, Any]]:
    """What every template has."""

    def context() -> dict[str, Any]:
        language = g.get("language", words.ENGLISH)
        g.visit = site.wall.visit(headers_of(request.environ))
        return {
            "_": words.translator(language),
            "reason": words.reasons(language),
            "lang": words.TAGS[language],
            "script_words": Markup(words.of_scripts(language)),  # noqa: S704 - it was made safe there
            "secret": site.wall.secret_of(g.visit),
            "has_token": site.wall.has_token,
            "version": __version__,
        }

    return context


def _register_errors(app: Flask, site: Site) -> None:
    @app.errorhandler(ApiError)
    def refused(error: ApiError) -> AnyResponse:
        return error.response() if _is_api() else _page(error.status, error.message)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> AnyResponse:
        if error.code and error.code < 400:
            return error.get_response()
        code, text = error.code or 500, error.description or error.name
        response = _answer(code, error.name.lower().replace(" ", "_"), text)
        if allowed := getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(allowed)
        return response

    @app.errorhandler(BadCursor)
    def lost(_: BadCursor) -> AnyResponse:
        return _answer(400, "cursor", "this is no cursor: take `next` of the page before")

    @app.errorhandler(DropscaleError)
    def troubled(error: DropscaleError) -> AnyResponse:
        return _answer(503, "environment", f"{error.message}; {error.remedy}")

    @app.errorhandler(OSError)
    def unanswered(error: OSError) -> AnyResponse:
        return _answer(503, "environment", told(error))

    @app.errorhandler(Busy)
    def busy(_: Busy) -> AnyResponse:
        response = _answer(503, "busy", "too many pictures are being made at a time")
        response.headers["Retry-After"] = "1"
        return response

    @app.errorhandler(Unrenderable)
    def unrenderable(error: Unrenderable) -> AnyResponse:
        return _answer(404, "unrenderable", str(error))

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> AnyResponse:
        damage = site.reading.damage()
        if damage is None:
            raise error  # ours: told as 500, and the log has it
        return _answer(503, "environment", f"{damage.message}; {damage.remedy}")


def _answer(status: int, code: str, message: str) -> AnyResponse:
    return ApiError(status, code, message).response() if _is_api() else _page(status, message)


def _page(status: int, message: str) -> AnyResponse:
    return Response(render_template("error.html", status=status, message=message, here=""), status)


def _is_api() -> bool:
    return request.path.startswith(f"{api.PREFIX}/")


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _machine_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _money(amount: float, currency: str) -> str:
    return f"{_SIGNS[currency]}{amount:,.2f}" if currency in _SIGNS else f"{amount:,.2f} {currency}"


_FILTERS: dict[str, Callable[..., str]] = {
    "bytes": _bytes,
    "when": _when,
    "machine_time": _machine_time,
    "money": _money,
}
