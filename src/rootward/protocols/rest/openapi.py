"""The OpenAPI 3.1 document and the page that shows it, both made of the route table and of the types that the
handlers use.

The page holds everything it needs: no script, one style sheet that its content security policy names by hash. It is
also where the `type` of every problem points to.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

from rootward import __version__
from rootward.core.problems import CODES
from rootward.protocols import problems
from rootward.protocols.rest.operation import Operation
from rootward.protocols.rest.queries import MAX_PAGE, PAGE
from rootward.protocols.rest.routing import PARAMETERS

ALWAYS = (
    "RW-UNAUTHENTICATED",
    "RW-SECRET-IN-URL",
    "RW-QUERY",
    "RW-METHOD",
    "RW-RATE",
    "RW-STORE",
    "RW-UNAVAILABLE",
    "RW-INTERNAL",
)
WITH_BODY = ("RW-MALFORMED", "RW-FIELD", "RW-TOO-LARGE", "RW-MEDIA-TYPE")
_REF = "#/components/schemas/{name}"
_ABOUT = (
    "Every answer is JSON, every refusal `application/problem+json` (RFC 9457) with a stable `code` and all `reasons`. "
    "Times are RFC 3339 in UTC, durations `90d`, `24h`, `15m`. Lists go on with `cursor`."
)
_PAGING = [
    {
        "name": "limit",
        "in": "query",
        "description": "How many items a page has.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "`next_cursor` of the page before, under the same filters.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{20,512}$"},
    },
]
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Issuing keeps it for 24 hours: the same call again gives the same answer.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
}


def codes_of(operation: Operation) -> list[str]:
    """Every code that an operation may answer with, in the order of `CODES`."""
    found = {*ALWAYS, *operation.problems}
    if operation.body is not None:
        found.update(WITH_BODY)
    if operation.idempotent:
        found.add("RW-MALFORMED")
    if "{" in operation.path:
        found.add("RW-NOT-FOUND")
    return [code for code in CODES if code in found]


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1.0 document of these operations."""
    types: dict[Any, None] = {problems.ProblemBody: None}
    for operation in operations:
        results = [operation.result, *(operation.also or {}).values(), operation.body]
        types.update((kind, None) for kind in results if kind is not None)
    schemas, components = msgspec.json.schema_components(list(types), ref_template=_REF)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.url, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rootward", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of a principal."}
            },
        },
    }


def _operation(operation: Operation, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    good = {operation.status: operation.result, **(operation.also or {})}
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "parameters": _parameters(operation),
        "responses": {
            **{str(status): _good(operation, status, by_type.get(kind)) for status, kind in good.items()},
            **_refusals(operation, by_type[problems.ProblemBody]),
        },
    }
    if operation.body is not None:
        made["requestBody"] = {
            "required": not operation.lenient,
            "content": {"application/json": {"schema": by_type[operation.body]}},
        }
    return made


def _good(operation: Operation, status: int, schema: dict[str, Any] | None) -> dict[str, Any]:
    headers = (
        {"Location": {"description": "Where it is.", "schema": {"type": "string"}}} if status in (201, 202) else {}
    )
    says = {200: "Done.", 201: "Made.", 202: "A person must agree first."}[status]
    content = {operation.media_type: {"schema": schema or {"type": "string"}}}
    return {"description": says, "content": content, **({"headers": headers} if headers else {})}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": segment[1:-1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^(?:{PARAMETERS[segment[1:-1]].pattern})$"},
        }
        for segment in operation.path.split("/")
        if segment.startswith("{")
    ]
    for parameter in operation.query:
        schema = dict(parameter.schema or {"type": "string", "minLength": 1})
        found.append({"name": parameter.name, "in": "query", "description": parameter.description, "schema": schema})
    if operation.paged:
        found.extend(_PAGING)
    if operation.idempotent:
        found.append(_IDEMPOTENCY)
    return found


def _refusals(operation: Operation, schema: dict[str, Any]) -> dict[str, Any]:
    """The answers that are problems, by status, each with its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes_of(operation):
        by_status.setdefault(problems.REST[CODES[code].kind], []).append(code)
    return {
        str(status): {
            "description": ", ".join(codes),
            "content": {problems.MEDIA_TYPE: {"schema": schema}},
            **({"headers": _header(status)} if _header(status) else {}),
        }
        for status, codes in sorted(by_status.items())
    }


def _header(status: int) -> dict[str, Any]:
    names = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}
    return {names[status]: {"schema": {"type": "string"}}} if status in names else {}


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}code{font:13px ui-monospace,monospace}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd}
td,th{vertical-align:top}
tr:target{background:#fff3c4}
@media(prefers-color-scheme:dark){
body{color:#e8e8e8;background:#161616}td,th{border-color:#3a3a3a}
tr:target{background:#4a3f10}a{color:#8ab4ff}}
"""


def page(operations: Iterable[Operation]) -> tuple[bytes, bytes]:
    """The HTML page in UTF-8, and the base64 of its style sheet's SHA-256 for the content security policy."""
    calls = "".join(
        f"<tr><td><code>{operation.method}</code></td><td><code>{escape(operation.url)}</code></td>"
        f"<td>{escape(operation.summary)}</td></tr>"
        for operation in operations
    )
    codes = "".join(
        f'<tr id="{name}"><td><code>{name}</code></td><td>{problems.REST[code.kind]}</td>'
        f"<td>{escape(code.title)}</td></tr>"
        for name, code in CODES.items()
    )
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Rootward API</title><style>{_STYLE}</style></head><body><h1>Rootward API</h1>"
        f"<p>{escape(_ABOUT)} The whole description is "
        '<a href="/api/openapi.json">/api/openapi.json</a> (OpenAPI 3.1).</p>'
        f"<h2>Calls</h2><table><tr><th>Method</th><th>Path</th><th>What it does</th></tr>{calls}</table>"
        f"<h2>Problems</h2><table><tr><th>Code</th><th>Status</th><th>What it means</th></tr>{codes}</table>"
        "</body></html>"
    )
    return html.encode(), b64encode(hashlib.sha256(_STYLE.encode()).digest())
