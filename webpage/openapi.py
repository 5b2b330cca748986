"""The API's own description, OpenAPI 3.1, served at /api/v1/openapi.json; a test asks the server whether it is true."""

from typing import Any

from watcher import __version__

_ID = {"name": "picture", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
_TEXT = {"type": "string"}
_CURSOR = {"type": "string", "pattern": r"^([0-9]{1,10}(\.[0-9]{1,9})?_[01]_[0-9]{1,15})?$"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}


def document(*, has_token: bool) -> dict[str, Any]:
    """The description.

    Args:
        has_token: whether visitors have to know one.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dropscale",
            "version": __version__,
            "description": "Put pictures into the inbox, see what becomes of them, fetch the results, read the bill.",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}] if has_token else [{}],
        "paths": {
            "/pictures": {"get": _LIST, "post": _UPLOAD},
            "/pictures/{picture}": {"get": _PICTURE},
            "/pictures/{picture}/result": {"get": _RESULT},
            "/pictures/{picture}/retry": {"post": _RETRY},
            "/uploads/{upload}": {"get": _FATE},
            "/status": {"get": _STATUS},
            "/report": {"get": _REPORT},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "web.token"}},
            "schemas": _SCHEMAS,
        },
    }


def _answer(text: str, schema: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _errors(*codes: int) -> dict[str, Any]:
    texts = {
        400: "The request makes no sense.",
        401: "The token is missing or wrong.",
        403: "The request came from another site, or names another host.",
        404: "There is no such thing.",
        409: "It is not there any more.",
        413: "It is larger than web.upload_megabytes or limits.file_megabytes.",
        415: "The picture has to be the body of the request, as it is.",
        422: "It is no picture that can be enlarged; the message says why.",
        429: "Too many in a minute; Retry-After says when again.",
        503: "The ledger or a folder does not answer now.",
        507: "The inbox's disk is full.",
    }
    return {str(code): _answer(texts[code], "Error") for code in (*codes, 401, 403, 503)}


_LIST: dict[str, Any] = {
    "operationId": "list_pictures",
    "summary": "Pictures that came to their end, the newest first.",
    "parameters": [
        {
            "name": "state",
            "in": "query",
            "schema": {"type": "string", "enum": ["done", "failed"], "default": "done"},
        },
        {"name": "search", "in": "query", "description": "Part of a name.", "schema": {**_TEXT, "maxLength": 200}},
        {"name": "cursor", "in": "query", "description": "`next` of the page before.", "schema": _CURSOR},
        {
            "name": "count",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 48},
        },
    ],
    "responses": {"200": _answer("A page of them.", "Pictures"), **_errors(400)},
}
_UPLOAD: dict[str, Any] = {
    "operationId": "upload",
    "summary": "Put a picture into the inbox.",
    "parameters": [
        {
            "name": "name",
            "in": "query",
            "required": True,
            "description": "Its file name; only a plain one is left of it, and a taken one gets a mark.",
            "schema": {**_TEXT, "minLength": 1, "maxLength": 1000},
        },
    ],
    "requestBody": {
        "required": True,
        "description": "The file as it is.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {
        "201": _answer("It is in the inbox.", "Upload"),
        **_errors(400, 413, 415, 422, 429, 507),
    },
}
_PICTURE: dict[str, Any] = {
    "operationId": "picture",
    "summary": "One picture that came to its end.",
    "parameters": [_ID],
    "responses": {"200": _answer("It.", "Picture"), **_errors(400, 404)},
}
_RESULT: dict[str, Any] = {
    "operationId": "result",
    "summary": "The enlarged picture.",
    "parameters": [_ID],
    "responses": {
        "200": {"description": "The file.", "content": {"image/*": {}, "application/octet-stream": {}}},
        **_errors(400, 404, 409),
    },
}
_RETRY: dict[str, Any] = {
    "operationId": "retry",
    "summary": "Put a failed picture back into the inbox.",
    "parameters": [_ID],
    "responses": {"200": _answer("It is back.", "Retried"), **_errors(400, 404, 409, 429)},
}
_FATE: dict[str, Any] = {
    "operationId": "upload_state",
    "summary": "What became of an upload.",
    "parameters": [{"name": "upload", "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}],
    "responses": {"200": _answer("Its state.", "UploadState"), **_errors(400, 404)},
}
_STATUS: dict[str, Any] = {
    "operationId": "status",
    "summary": "What waits and why, what runs, how far it is.",
    "responses": {"200": _answer("Now.", "Status"), **_errors()},
}
_REPORT: dict[str, Any] = {
    "operationId": "report",
    "summary": "GPU time and money of a month against always-on; as `dropscale report --json`.",
    "parameters": [
        {
            "name": "month",
            "in": "query",
            "description": "Which; by default this one.",
            "schema": {**_TEXT, "pattern": "^(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])$"},
        },
    ],
    "responses": {"200": _answer("The report.", "Report"), **_errors(400)},
}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


_FILES = _object(
    {"count": _COUNT, "files": {"type": "array", "items": _object({"path": _TEXT, "why": _TEXT})}},
)
_CODE = {
    **_TEXT,
    "description": "The kind of the reason, such as undecodable or too_large; empty if that is not known.",
}
_PICTURE_FIELDS: dict[str, Any] = {
    "id": _COUNT,
    "path": {**_TEXT, "description": "Below the inbox, where it was dropped."},
    "state": {"type": "string", "enum": ["done", "failed"]},
    "reason": {**_TEXT, "description": "Why it failed."},
    "code": _CODE,
    "bytes": _COUNT,
    "result_bytes": {"type": ["integer", "null"]},
    "reused": {"type": "boolean", "description": "Delivered from an earlier result."},
    "ended_at": {"type": "string", "format": "date-time"},
    "result": {"type": ["string", "null"], "description": "Where to fetch it."},
}
_SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT})}),
    "Picture": _object(_PICTURE_FIELDS),
    "Pictures": _object(
        {
            "pictures": {"type": "array", "items": {"$ref": "#/components/schemas/Picture"}},
            "next": {**_TEXT, "description": "Cursor of the next page; empty: this was the last one."},
        }
    ),
    "Upload": _object({"upload": _TEXT, "name": _TEXT, "bytes": _COUNT, "sha256": _TEXT, "state": _TEXT}),
    "UploadState": _object(
        {
            "name": _TEXT,
            "state": {"type": "string", "enum": ["waiting", "working", "done", "failed", "gone"]},
            "why": _TEXT,
            "code": _CODE,
            "picture": {"type": ["integer", "null"]},
            "result": {"type": ["string", "null"]},
        }
    ),
    "Retried": _object({"name": _TEXT}),
    "Status": _object(
        {
            "running": {"type": "boolean"},
            "watching": _TEXT,
            "backend": _TEXT,
            "problems": {"type": "array", "items": _TEXT},
            "held": {"oneOf": [{"type": "null"}, _object({"why": _TEXT, "until": _TEXT, "passing": _TEXT})]},
            "gpu_waiting": {**_TEXT, "description": "Who holds the GPU that a batch waits for."},
            "engine": _object(
                {
                    "state": {"type": "string", "enum": ["off", "starting", "working", "warm"]},
                    "since": {"type": ["string", "null"]},
                    "until": {"type": ["string", "null"], "description": "How long a warm one is kept."},
                }
            ),
            "batch": {
                "oneOf": [
                    {"type": "null"},
                    _object(
                        {
                            "pictures": _COUNT,
                            "ended": _COUNT,
                            "working": {
                                "type": "array",
                                "items": _object({"path": _TEXT, "done": _COUNT, "total": _COUNT}),
                            },
                        }
                    ),
                ]
            },
            "waiting": _FILES,
            "working": _FILES,
            "ignored": _FILES,
            "totals": _object({"done": _COUNT, "reused": _COUNT, "failed": _COUNT}),
        }
    ),
    "Report": _object(
        {
            "since": _TEXT,
            "until": _TEXT,
            "complete": {"type": "boolean"},
            "counted_since": _TEXT,
            "currency": _TEXT,
            "gpu_seconds": _NUMBER,
            "cpu_seconds": _NUMBER,
            "cost": _NUMBER,
            "always_on_cost": _NUMBER,
            "saving": {"type": ["number", "null"]},
            "forecast": _NUMBER,
            "days": {
                "type": "array",
                "items": _object({"date": _TEXT, "gpu_seconds": _NUMBER, "cpu_seconds": _NUMBER}),
            },
        }
    ),
}
