"""How each door says no: one table from a problem's `Kind` to a status, and the REST body (RFC 9457).

A door is a column here. What is not a `Problem` is a mistake of ours: it is logged whole under the request's id, and
the sender learns that id and nothing else. The same holds for every problem of kind INTERNAL, whose sentences are for
the log.
"""

from __future__ import annotations

import msgspec
import structlog

from rootward.core.problems import CODES, Kind, Problem, Reason

log = structlog.get_logger("rootward.protocols")

REST: dict[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.POLICY: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.METHOD: 405,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.MEDIA_TYPE: 415,
    Kind.UNPROCESSABLE: 422,
    Kind.RATE_LIMITED: 429,
    Kind.INTERNAL: 500,
    Kind.UNAVAILABLE: 503,
}
ACME: dict[Kind, int] = {  # the problem types are in acme/problems.py
    Kind.MALFORMED: 400,
    Kind.POLICY: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.METHOD: 405,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.MEDIA_TYPE: 415,
    Kind.UNPROCESSABLE: 400,
    Kind.RATE_LIMITED: 429,
    Kind.INTERNAL: 500,
    Kind.UNAVAILABLE: 503,
}
STATUS: dict[str, dict[Kind, int]] = {"rest": REST, "acme": ACME}

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5  # seconds, where the problem itself names no time
TYPE = "/api/docs#"  # a relative reference (RFC 9457 3.1.1): the docs page of this server explains each code

Header = tuple[bytes, bytes]


class ReasonBody(msgspec.Struct, frozen=True, rename={"field_": "field"}):
    """One thing that is wrong; `field` is the input's, where there is one."""

    code: str
    field_: str | None
    detail: str


class ProblemBody(msgspec.Struct, frozen=True):
    """RFC 9457 with a stable `code`, the request's id and every reason."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    reasons: list[ReasonBody]


_ENCODER = msgspec.json.Encoder()


def internal(error: BaseException, request_id: str) -> Problem:
    """The problem that stands for an exception that nobody expected; the exception goes to the log only."""
    log.error("request.failed", request_id=request_id, error=type(error).__name__, exc_info=error)
    return Problem("RW-INTERNAL", CODES["RW-INTERNAL"].title + ".")


def render(
    problem: Problem, request_id: str, *, table: dict[Kind, int] = REST, headers: tuple[Header, ...] = ()
) -> tuple[int, list[Header], bytes]:
    """Status, headers (lower-case names) and body of a problem at an HTTP door. `headers` are added (`allow` at a
    405).
    """
    status = table[problem.kind]
    detail, reasons = problem.detail, problem.reasons
    if problem.kind is Kind.INTERNAL:
        if problem.code != "RW-INTERNAL":
            log.error("request.failed", request_id=request_id, error=problem.code, detail=detail)
        detail = f"{problem.title}. The server's log has more under this request's id."
        reasons = (Reason(problem.code, detail),)
    body = ProblemBody(
        type=TYPE + problem.code,
        title=problem.title,
        status=status,
        detail=detail,
        code=problem.code,
        request_id=request_id,
        reasons=[ReasonBody(reason.code, reason.field, reason.detail) for reason in reasons],
    )
    found = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode()),
        *headers,
    ]
    if problem.kind is Kind.UNAUTHENTICATED:
        found.append((b"www-authenticate", b"Bearer"))
    if problem.retry_after is not None or problem.kind is Kind.UNAVAILABLE:
        found.append((b"retry-after", str(problem.retry_after or RETRY_AFTER).encode()))
    return status, found, _ENCODER.encode(body)
