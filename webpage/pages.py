"""The pages that people see, and the pictures on them."""

import os
import time
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from sr_engine.headers import NAMES
from watcher.accounting.bill import month
from watcher.files.names import display
from webpage import billing, files
from webpage.gallery import PAGE, SHOWN_STATES, Card
from webpage.security import headers_of, is_over_tls
from webpage.site import Site
from webpage.thumbnails import Busy, Unrenderable

LATEST = 6  # on the first page
_MOST_CUBIC_PIXELS = 60_000_000  # of a result; beyond it, comparing with the original has to do
_LONGEST_SEARCH = 200


def blueprint(site: Site) -> Blueprint:  # noqa: PLR0915 - a list of routes
    """The routes."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def home() -> str:
        leaf = site.gallery.leaf("done", count=LATEST)
        uploads = site.uploads
        facts = {"most_bytes": uploads.most_bytes, "has_heic": not uploads.heic_lack, "scale": site.scale}
        return render_template("home.html", cards=leaf.cards, here="home", **facts)

    @pages.get("/latest")
    def latest() -> str:
        return render_template("cards.html", cards=site.gallery.leaf("done", count=LATEST).cards)

    @pages.get("/gallery")
    def gallery() -> str:
        state = request.args.get("state", "done")
        if state not in SHOWN_STATES:
            abort(404)
        search = request.args.get("search", "")[:_LONGEST_SEARCH]
        leaf = site.gallery.leaf(state, search, request.args.get("cursor", ""), PAGE)
        return render_template("gallery.html", leaf=leaf, state=state, search=search, here="gallery")

    @pages.get("/pictures/<int:picture>")
    def picture(picture: int) -> str:
        card = _card(site, picture)
        return render_template("picture.html", card=card, here="gallery", **_facts(site, card))

    @pages.get("/pictures/<int:picture>/after")
    def after(picture: int) -> AnyResponse:
        card = _card(site, picture)
        return _shown(site, card, site.gallery.result_path(card), "result")

    @pages.get("/pictures/<int:picture>/before")
    def before(picture: int) -> AnyResponse:
        card = _card(site, picture)
        return _shown(site, card, site.gallery.original_path(card), "original")

    @pages.get("/pictures/<int:picture>/cubic")
    def cubic(picture: int) -> AnyResponse:
        card = _card(site, picture)
        original, result = site.gallery.original_path(card), site.gallery.result_path(card)
        header = files.header_of(result) if result else None
        if original is None or header is None or header.width * header.height > _MOST_CUBIC_PIXELS:
            abort(404)
        return files.send_kept(site.thumbnails.cubic(card.sha256, original, (header.width, header.height)))

    @pages.get("/thumbnails/<int:picture>")
    def thumbnail(picture: int) -> AnyResponse:
        card = _card(site, picture)
        # the original is a ninth of the work
        source = site.gallery.original_path(card) or site.gallery.result_path(card)
        try:
            if source is not None:
                shown = site.thumbnails.thumbnail(card.sha256, source)
                return files.send_kept(shown, for_ever=request.args.get("of") == card.mark)
        except (Unrenderable, FileNotFoundError):
            pass
        return redirect(url_for("static", filename="none.svg"))

    @pages.get("/bill")
    def bill() -> str:
        wanted = request.args.get("month", "")
        try:
            month(wanted, time.time())
        except (ValueError, OverflowError, OSError):
            abort(404)
        told = billing.statement(site.reading, site.config, wanted)
        return render_template("bill.html", told=told, here="bill", **billing.figures(told))

    @pages.get("/events")
    def events() -> Response:
        if request.method == "HEAD":
            return Response(mimetype="text/event-stream")
        # what waitress knows of its client; another server would not say
        stream = site.now.stream(request.environ.get("waitress.client_disconnected", lambda: False))
        if stream is None:
            abort(503)
        return Response(stream, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @pages.get("/login")
    def login() -> AnyResponse | str:
        if not site.wall.has_token or site.wall.admits(headers_of(request.environ), request.remote_addr or ""):
            return redirect(url_for("pages.home"))
        return render_template("login.html", wrong=False, here="login")

    @pages.post("/login")
    def let_in() -> AnyResponse | tuple[str, int]:
        if site.login_allowance.take(request.remote_addr or "", time.monotonic()):
            return render_template("login.html", wrong=True, too_many=True, here="login"), 429
        if not site.wall.is_token(request.form.get("token", "")):
            return render_template("login.html", wrong=True, here="login"), 401
        response = redirect(url_for("pages.home"), 303)
        response.set_cookie(
            site.wall.session_cookie,
            site.wall.session(),
            max_age=30 * 86_400,
            httponly=True,
            samesite="Strict",
            secure=is_over_tls(headers_of(request.environ)),
        )
        return response

    @pages.post("/logout")
    def let_out() -> AnyResponse:
        response = redirect(url_for("pages.login"), 303)
        response.delete_cookie(site.wall.session_cookie)
        return response

    return pages


def _card(site: Site, picture: int) -> Card:
    card = site.gallery.card(picture)
    if card is None:
        abort(404)
    return card


def _facts(site: Site, card: Card) -> dict[str, Any]:
    """What the page of one picture shows."""
    original, result = site.gallery.original_path(card), site.gallery.result_path(card)
    before = files.header_of(original) if original else None
    after = files.header_of(result) if result else None
    return {
        "before": before,
        "after": after,
        "has_cubic": after is not None and after.width * after.height <= _MOST_CUBIC_PIXELS,
        "kind": NAMES[after.kind] if after else "",
        "is_shown_as_it_is": after is not None and after.kind in files.SHOWN,
        "result_name": display(os.path.basename(card.result)) if card.result else "",
    }


def _shown(site: Site, card: Card, path: str | None, what: str) -> AnyResponse:
    """A picture that a browser can show: the file itself, or a rendition."""
    header = files.header_of(path) if path else None
    if path is None or header is None:
        abort(404)
    if header.kind in files.SHOWN:
        return files.send(path, display(os.path.basename(path)), download=False)
    try:
        return files.send_kept(site.thumbnails.preview(f"{card.sha256}-{what}", path))
    except (Busy, Unrenderable):
        abort(503)
