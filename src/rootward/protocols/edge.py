"""Around every door, inside the connection: the request's id, paths that name nothing, overload, unknown errors, log
and metrics.

The id goes by context variable into every log line and event. A path with an encoded slash, a dot segment, a control
character or bytes that are no UTF-8 is a path that does not exist (404): no two spellings name one thing. Only OCSP's
GET (RFC 6960 A.1) carries free text in its path. While too many requests run, all but CRL, OCSP and issuer certificates
are asked to come back; revoking has an eighth more (I-25, I-65).
"""

from __future__ import annotations

import logging
import math
import time
import urllib.parse
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from rootward import telemetry
from rootward.core.problems import Problem
from rootward.protocols.problems import Header, internal, render
from rootward.store.failpoint import failpoint

log = structlog.get_logger()

_SLICE: Final = (
    64 * 1024
)  # an answer is handed over in slices: a slow client holds back the rest, and only a stalled one is cut
_STATUS_PATHS: Final = (b"/crl/", b"/ocsp/", b"/ca/")
_REVOKING: Final = (b"/api/v1/revocations", b"/revoke")  # the beginning of a path, the end of one
_FREE_TEXT: Final = b"/ocsp/"
_PROBLEMS: Final = {405: "RW-METHOD", 404: "RW-NOT-FOUND", 413: "RW-TOO-LARGE"}


class Edge:
    """The ASGI application of one listener. `requests` is how many may run at once."""

    def __init__(self, door: str, routes: Sequence[BaseRoute], *, requests: int = 512) -> None:
        self._door = door
        self._router = Router(routes, redirect_slashes=False, default=_nothing)
        self._most = requests
        self._running = 0
        telemetry.REQUESTS_RUNNING.labels(door).set_function(lambda: self._running)
        self._seconds = telemetry.HTTP_SECONDS.labels(door)
        self._says_all = log.is_enabled_for(logging.DEBUG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request_id = scope.get("extensions", {}).get("rootward.request_id") or telemetry.new_request_id()
        token = telemetry.request_id.set(request_id)
        answer = _Answer(send, request_id)
        self._running += 1
        try:
            await self._answer(scope, receive, answer)
            failpoint("http.answered")
        finally:
            self._running -= 1
            took = time.perf_counter() - began
            status = answer.status or 499  # 499: the client left before there was an answer
            _counter(self._door, status).inc()
            self._seconds.observe(took)
            self._note(scope, status, took, answer.size)
            telemetry.request_id.reset(token)

    def _note(self, scope: Scope, status: int, took: float, size: int) -> None:
        """The log line. What everybody asks all the time is counted, and written only where it failed."""
        raw = scope["raw_path"]
        if status < 400 and raw.startswith(_STATUS_PATHS) and not self._says_all:
            return
        ms = round(took * 1000, 1)
        log.info(
            "http.request", door=self._door, method=scope["method"], path=_path(raw), status=status, ms=ms, bytes=size
        )

    def _room(self, path: bytes) -> float:
        """How many requests may run while one for this path is let in."""
        if path.startswith(_STATUS_PATHS):
            return math.inf
        beginning, end = _REVOKING
        revoking = path.startswith(beginning) or path.endswith(end)
        return self._most + max(1, self._most // 8) if revoking else self._most

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            if _names_nothing(scope["raw_path"], scope["path"]):
                raise Problem("RW-NOT-FOUND", "There is nothing at this address.")
            if self._running > self._room(scope["raw_path"]):
                raise Problem("RW-UNAVAILABLE", "Too many requests are under way.", retry_after=1)
            scope["app"] = self  # a route then raises for a wrong method, where it would answer in plain text
            await self._router(scope, receive, answer)
        except ClientDisconnect:
            return
        except Problem as problem:
            await answer.problem(problem)
        except HTTPException as error:
            allow = (error.headers or {}).get("Allow")
            detail = f"This address takes {allow}." if allow else "There is nothing at this address."
            await answer.problem(
                Problem(_PROBLEMS.get(error.status_code, "RW-MALFORMED"), detail),
                ((b"allow", allow.encode()),) if allow else (),
            )
        except Exception as error:
            await answer.problem(internal(error, answer.request_id))
            if answer.failed:
                raise  # half an answer is out: the connection has to end, so that the half is seen as one


class _Answer:
    """`send`, watched: adds the request's id, slices long bodies, knows the status and the size."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0
        self.size = 0
        self.failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            failpoint("http.answer")
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            if b"x-request-id" not in dict(headers):  # names are in lower case (ASGI)
                message["headers"] = [*headers, (b"x-request-id", self.request_id.encode())]
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self.size += len(body)
        if len(body) <= _SLICE:
            await self._send(message)
            return
        view = memoryview(body)
        for at in range(0, len(view), _SLICE):
            rest = at + _SLICE < len(view)
            await self._send({"type": message["type"], "body": view[at : at + _SLICE], "more_body": rest or more})

    async def problem(self, problem: Problem, headers: tuple[Header, ...] = ()) -> None:
        """Answers with the problem, unless an answer has begun: then `failed` says so."""
        if self.status:
            self.failed = True
            return
        status, found, body = render(problem, self.request_id, headers=headers)
        found.append((b"content-length", b"%d" % len(body)))
        await self({"type": "http.response.start", "status": status, "headers": found})
        await self({"type": "http.response.body", "body": body})


@lru_cache(maxsize=256)
def _counter(door: str, status: int) -> Counter:
    """Looked up once: a label's lookup takes a lock and sorts."""
    return telemetry.HTTP_REQUESTS.labels(door, str(status))


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Problem("RW-NOT-FOUND", "There is nothing at this address.")


def _names_nothing(raw: bytes, path: str) -> bool:
    if b"%" not in raw and b"/." not in raw and b"\\" not in raw:
        return False
    if raw.startswith(_FREE_TEXT):
        raw, _, _ = raw.removeprefix(_FREE_TEXT).partition(b"/")
        return b"%" in raw or raw in (b".", b"..")
    lower = raw.lower()
    odd = b"%2f" in lower or b"%5c" in lower or "\\" in path or "\ufffd" in path or not path.isprintable()
    return odd or any(segment in (".", "..") for segment in path.split("/"))


def _path(raw: bytes) -> str:
    """The path for the log: as it came, without the query, which may hold what is nobody's business; OCSP's is cut."""
    text = urllib.parse.quote(raw[:200], safe="/%:@!$&'()*+,;=~")
    return text[:60] if raw.startswith(_FREE_TEXT) else text
