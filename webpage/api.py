"""The API for programs, /api/v1: JSON in and out, described by `openapi`. The page's own scripts use it, too."""

import os
import re
import time
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from watcher import failed
from watcher.accounting import report
from watcher.accounting.accounts import seen_from_outside
from watcher.accounting.bill import Price, month
from watcher.engine.gate import governor_of
from watcher.files.names import display
from webpage import files, openapi
from webpage.gallery import PAGE, SHOWN_STATES, Card
from webpage.reasons import code_of
from webpage.site import Site
from webpage.uploads import Refused

PREFIX = "/api/v1"
_MOST_CARDS = 200
_MONTH = re.compile(r"(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])\Z", re.ASCII)
_LONGEST_NAME = 1000
_LONGEST_SEARCH = 200


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def response(self) -> Response:
        """As JSON."""
        response = jsonify(error={"code": self.code, "message": self.message})
        response.status_code = self.status
        if self.retry_after:
            response.headers["Retry-After"] = str(int(self.retry_after) + 1)
        return response


def blueprint(site: Site) -> Blueprint:  # noqa: PLR0915 - a list of routes
    """The routes."""
    api = Blueprint("api", __name__, url_prefix=PREFIX)

    @api.get("/openapi.json")
    def description() -> Response:
        return jsonify(openapi.document(has_token=site.wall.has_token))

    @api.get("/status")
    def status() -> Response:
        return jsonify(site.now.look())

    @api.post("/pictures")
    def upload() -> tuple[Response, int]:
        wait = site.upload_allowance.take(request.remote_addr or "", time.monotonic())
        if wait:
            raise ApiError(429, "too_many", "too many uploads in a minute, see web.uploads_per_minute", wait)
        name = request.args.get("name", "")
        if not 0 < len(name) <= _LONGEST_NAME:
            raise ApiError(400, "name", "say ?name= and what the picture is called")
        if request.mimetype.startswith(("multipart/", "application/x-www-form-urlencoded")):
            raise ApiError(415, "form", "send the picture as the body of the request, as `curl --data-binary @FILE -H "
                           "'Content-Type: application/octet-stream'` does")  # fmt: skip
        try:
            received = site.uploads.receive(cast(BinaryIO, request.stream), request.content_length, name)
        except Refused as refused:
            raise ApiError(refused.status, refused.code, refused.message) from refused
        ticket = site.uploads.ticket(received)
        answer = jsonify(
            upload=ticket, name=received.name, bytes=received.bytes, sha256=received.sha256, state="waiting"
        )
        answer.headers["Location"] = f"{PREFIX}/uploads/{quote(ticket)}"
        return answer, 201

    @api.get("/uploads/<ticket>")
    def fate(ticket: str) -> Response:
        found = site.uploads.fate(ticket)
        if found is None:
            raise ApiError(404, "no_upload", "there was no such upload")
        received, became = found
        result = f"{PREFIX}/pictures/{became.picture}/result" if became.state == "done" else None
        code = code_of(became.why) if became.state == "failed" else ""
        return jsonify(
            name=received.name,
            state=became.state,
            why=became.why,
            code=code,
            picture=became.picture,
            result=result,
        )

    @api.get("/pictures")
    def pictures() -> Response:
        state, search = request.args.get("state", "done"), request.args.get("search", "")
        count = request.args.get("count", str(PAGE))
        if state not in SHOWN_STATES:
            raise ApiError(400, "state", f"state is one of {', '.join(SHOWN_STATES)}")
        if not (count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= _MOST_CARDS):
            raise ApiError(400, "count", f"count is a whole number from 1 to {_MOST_CARDS}")
        if len(search) > _LONGEST_SEARCH:
            raise ApiError(400, "search", f"search is {_LONGEST_SEARCH} characters at most")
        leaf = site.gallery.leaf(state, search, request.args.get("cursor", ""), int(count))
        return jsonify(pictures=[_told(card) for card in leaf.cards], next=leaf.following)

    @api.get("/pictures/<int:picture>")
    def one(picture: int) -> Response:
        return jsonify(_told(_card(site, picture)))

    @api.get("/pictures/<int:picture>/result")
    def result(picture: int) -> Response:
        card = _card(site, picture)
        if card.state != "done" or card.result is None:
            raise ApiError(404, "no_result", f"{card.name} failed: {card.reason}")
        path = site.gallery.result_path(card)
        if path is None:
            raise ApiError(409, "gone", f"{display(card.result)} was taken out of the outbox")
        return files.send(path, display(os.path.basename(card.result)), download="view" not in request.args)

    @api.post("/pictures/<int:picture>/retry")
    def retry(picture: int) -> Response:
        if wait := site.retry_allowance.take(request.remote_addr or "", time.monotonic()):
            raise ApiError(429, "too_many", "too many retries in a minute", wait)
        card = _card(site, picture)
        if card.state != "failed" or card.moved is None:
            raise ApiError(409, "not_failed", f"{card.name} has not failed")
        for _, back in failed.put_back(site.config, [card.moved]):
            if back is not None:
                return jsonify(name=display(back))
        raise ApiError(409, "gone", f"{display(card.moved)} was taken out of the failed folder")

    @api.get("/report")
    def account() -> Response:
        wanted = request.args.get("month")
        if wanted is not None and not _MONTH.match(wanted):
            raise ApiError(400, "month", "write the month as 2026-11")
        period = month(wanted or "", time.time())
        if not site.reading.is_there:
            raise ApiError(503, "no_ledger", "there is no ledger yet: it comes with the first `dropscale run`")
        cost, window = site.config.cost, site.config.window
        accounts = seen_from_outside(site.reading, site.config.folders.state)
        settings = report.Settings(
            price=Price(cost.per_hour, cost.currency),
            max_seconds=window.max_seconds,
            max_files=window.max_files,
            wait_seconds=cost.wait_seconds,
            governor=governor_of(site.config, accounts),
        )
        return jsonify(report.as_json(report.collect(accounts, period, settings)))

    return api


def _card(site: Site, picture: int) -> Card:
    card = site.gallery.card(picture)
    if card is None:
        raise ApiError(404, "no_picture", f"there is no picture {picture} that came to its end")
    return card


def _told(card: Card) -> dict[str, Any]:
    done = card.state == "done"
    return {
        "id": card.id,
        "path": card.name,
        "state": card.state,
        "reason": "" if done else card.reason,
        "code": "" if done else code_of(card.reason),
        "bytes": card.bytes,
        "result_bytes": card.result_bytes,
        "reused": card.reused,
        "ended_at": datetime.fromtimestamp(card.at, UTC).isoformat(timespec="milliseconds"),
        "result": f"{PREFIX}/pictures/{card.id}/result" if done else None,
    }
