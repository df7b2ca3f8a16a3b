"""Conditional and range requests for what is published (RFC 9110 13 and 14, caching as RFC 9111 and RFC 5019 6.2 want
it).

Odd validators and ranges are ignored, as the RFC asks: the answer is then the whole thing. One range is served, several
are not (RFC 9110 14.2 leaves that to the server). A file is compared by a strong ETag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rootward.core.problems import Problem
from rootward.protocols.problems import render

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """Something that anybody may fetch and keep. `etag` with its quotes; `max_age` in seconds, 0: not to be stored at
    all.
    """

    body: bytes
    media_type: str
    max_age: int
    etag: str | None = None
    last_modified: datetime | None = None
    expires: datetime | None = None
    ranges: bool = False
    # Whether its date alone tells two versions apart. An OCSP answer's does not: two within a second share it.
    dated: bool = True

    def headers(self) -> dict[str, str]:
        """The header fields but Content-Type and Content-Length."""
        cache = f"max-age={self.max_age}, public, no-transform, must-revalidate" if self.max_age > 0 else "no-store"
        found = {"cache-control": cache, "x-content-type-options": "nosniff"}
        if self.etag is not None:
            found["etag"] = self.etag
        if self.last_modified is not None:
            found["last-modified"] = _http_date(int(self.last_modified.timestamp()))
        if self.expires is not None and self.max_age > 0:
            found["expires"] = _http_date(int(self.expires.timestamp()))
        if self.ranges:
            found["accept-ranges"] = "bytes"
        return found


@lru_cache(maxsize=1024)
def _http_date(second: int) -> str:
    """IMF-fixdate (RFC 9110 5.6.7) of a Unix second."""
    return format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)


def respond(request: Request, published: Published) -> Response:
    """200, 206, 304, 412 or 416, in the order of RFC 9110 13.2.2. The same for HEAD, which knows no ranges."""
    headers = published.headers()
    if any(name.startswith(b"if-") for name, _ in request.scope["headers"]):
        if _failed(request, published):
            return _refusal(request, 412, "The precondition does not hold.", {})
        if _unchanged(request, published):
            return Response(status_code=304, headers=headers)
    length = len(published.body)
    found = _range(request, published) if published.ranges and request.method == "GET" else None
    if found is None:
        return Response(published.body, headers=headers, media_type=published.media_type)
    first, last = found
    if first >= length:
        return _refusal(
            request, 416, "The range begins behind the end (RFC 9110 15.5.17).", {"content-range": f"bytes */{length}"}
        )
    last = min(last, length - 1)
    headers["content-range"] = f"bytes {first}-{last}/{length}"
    part = memoryview(published.body)[first : last + 1]  # no copy: a list may have 40 MB, and many slow readers
    return Response(part, 206, headers=headers, media_type=published.media_type)


def _failed(request: Request, published: Published) -> bool:
    wanted = _joined(request, "if-match")
    if wanted is not None:
        strong = [match[0] for match in _TAG.finditer(wanted) if not match[0].startswith("W/")]
        return wanted.strip() != "*" and published.etag not in strong
    until = _date(request.headers.get("if-unmodified-since"))
    return until is not None and published.last_modified is not None and published.last_modified > until


def _unchanged(request: Request, published: Published) -> bool:
    known = _joined(request, "if-none-match")
    if known is not None:
        return known.strip() == "*" or published.etag in [match[1] for match in _TAG.finditer(known)]
    since = _date(request.headers.get("if-modified-since"))
    last = published.last_modified if published.dated else None
    return since is not None and last is not None and last <= since


def _range(request: Request, published: Published) -> tuple[int, int] | None:
    """First and last octet, the first possibly behind the end; None: the whole thing."""
    asked = request.headers.getlist("range")
    match = _RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
    if match is None or match[0].strip().endswith("=-"):
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != published.etag:
        # the date form is not served: a whole second is no strong validator where two CRLs can share one (13.1.5)
        return None
    length = len(published.body)
    if not match[1]:
        wanted = int(match[2])
        return (max(0, length - wanted), length - 1) if wanted else (length, length)
    first, last = int(match[1]), int(match[2]) if match[2] else length
    return (first, last) if match[2] == "" or first <= last else None


def _joined(request: Request, name: str) -> str | None:
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None


def _refusal(request: Request, status: int, detail: str, headers: dict[str, str]) -> Response:
    problem = Problem("RW-MALFORMED", detail)
    request_id = request.scope.get("extensions", {}).get("rootward.request_id", "")
    _, found, body = render(problem, request_id, table={problem.kind: status})
    return Response(body, status, headers={name.decode(): value.decode() for name, value in found} | headers)
