"""Conditional and range requests for what is published (RFC 9110 13 and 14, caching as RFC 9111 and RFC 5019 6.2 want
it).

Odd validators and ranges are ignored, as the RFC asks: the answer is then the whole thing. One range is served, several
are not (RFC 9110 14.2 leaves that to the server). A file is compared by a strong ETag.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Final

import msgspec
from starlette.datastructures import Headers
from starlette.types import Scope

from rootward.core.problems import Problem
from rootward.protocols.problems import Header, render

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


Reply = tuple[int, list[Header], bytes | memoryview]  # status, header fields, body


class Published(msgspec.Struct, frozen=True):
    """Something that anybody may fetch and keep. `etag` with its quotes; `max_age` in seconds, 0: not to be stored at
    all.
    """

    body: bytes
    media_type: bytes
    max_age: int
    etag: str | None = None
    last_modified: datetime | None = None
    expires: datetime | None = None
    ranges: bool = False
    # Whether its date alone tells two versions apart. An OCSP answer's does not: two within a second share it.
    dated: bool = True

    def whole(self) -> Reply:
        """All of it, whatever was asked."""
        return 200, [*self._whose(len(self.body)), *self.about()], self.body

    def part(self, first: int, last: int) -> Reply:
        """Only the octets from `first` to `last`. No copy: a list may have 40 MB, and many slow readers."""
        span = (b"content-range", b"bytes %d-%d/%d" % (first, last, len(self.body)))
        return 206, [*self._whose(last + 1 - first), span, *self.about()], memoryview(self.body)[first : last + 1]

    def about(self) -> list[Header]:
        """The header fields but Content-Type and Content-Length."""
        found = [(b"cache-control", _cache_control(self.max_age)), (b"x-content-type-options", b"nosniff")]
        if self.etag is not None:
            found.append((b"etag", self.etag.encode("ascii")))
        if self.last_modified is not None:
            found.append((b"last-modified", _http_date(int(self.last_modified.timestamp()))))
        if self.expires is not None and self.max_age > 0:
            found.append((b"expires", _http_date(int(self.expires.timestamp()))))
        if self.ranges:
            found.append((b"accept-ranges", b"bytes"))
        return found

    def _whose(self, length: int) -> tuple[Header, Header]:
        return (b"content-type", self.media_type), (b"content-length", b"%d" % length)


@lru_cache(maxsize=128)
def _cache_control(max_age: int) -> bytes:
    return b"max-age=%d, public, no-transform, must-revalidate" % max_age if max_age > 0 else b"no-store"


@lru_cache(maxsize=1024)
def _http_date(second: int) -> bytes:
    """IMF-fixdate (RFC 9110 5.6.7) of a Unix second."""
    return format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True).encode("ascii")


def respond(scope: Scope, published: Published) -> Reply:
    """200, 206, 304, 412 or 416, in the order of RFC 9110 13.2.2. The same for HEAD, which knows no ranges."""
    if not any(name.startswith(b"if-") or name == b"range" for name, _ in scope["headers"]):
        return published.whole()
    headers = Headers(scope=scope)
    if _failed(headers, published):
        return _refusal(scope, 412, "The precondition does not hold.")
    if _unchanged(headers, published):
        return 304, published.about(), b""
    found = _range(headers, published) if published.ranges and scope["method"] == "GET" else None
    if found is None:
        return published.whole()
    first, last = found
    length = len(published.body)
    if first >= length:
        span = (b"content-range", b"bytes */%d" % length)
        return _refusal(scope, 416, "The range begins behind the end (RFC 9110 15.5.17).", span)
    return published.part(first, min(last, length - 1))


def _failed(headers: Headers, published: Published) -> bool:
    wanted = _joined(headers, "if-match")
    if wanted is not None:
        strong = [match[0] for match in _TAG.finditer(wanted) if not match[0].startswith("W/")]
        return wanted.strip() != "*" and published.etag not in strong
    until = _date(headers.get("if-unmodified-since"))
    return until is not None and published.last_modified is not None and published.last_modified > until


def _unchanged(headers: Headers, published: Published) -> bool:
    known = _joined(headers, "if-none-match")
    if known is not None:
        return known.strip() == "*" or published.etag in [match[1] for match in _TAG.finditer(known)]
    since = _date(headers.get("if-modified-since"))
    last = published.last_modified if published.dated else None
    return since is not None and last is not None and last <= since


def _range(headers: Headers, published: Published) -> tuple[int, int] | None:
    """First and last octet, the first possibly behind the end; None: the whole thing."""
    asked = headers.getlist("range")
    match = _RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
    if match is None or match[0].strip().endswith("=-"):
        return None
    condition = headers.get("if-range")
    if condition is not None and condition.strip() != published.etag:
        # the date form is not served: a whole second is no strong validator where two CRLs can share one (13.1.5)
        return None
    length = len(published.body)
    if not match[1]:
        wanted = int(match[2])
        return (max(0, length - wanted), length - 1) if wanted else (length, length)
    first, last = int(match[1]), int(match[2]) if match[2] else length
    return (first, last) if match[2] == "" or first <= last else None


def _joined(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    return ", ".join(values) if values else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None


def _refusal(scope: Scope, status: int, detail: str, *more: Header) -> Reply:
    problem = Problem("RW-MALFORMED", detail)
    request_id = scope.get("extensions", {}).get("rootward.request_id", "")
    _, headers, body = render(problem, request_id, table={problem.kind: status})
    return status, [*headers, *more, (b"content-length", b"%d" % len(body))], body
