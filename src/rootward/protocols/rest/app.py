"""The REST door: `/api/v1/…`, `/api/openapi.json` and `/api/docs`. It parses, asks `ca` or the inventory, and
renders; no policy here.

Every answer has the request's id, is `no-store`, and a refusal is RFC 9457 `application/problem+json`. The order of the
checks is: path, method, secrets in the URL, query, who asks, whether they may at all, media type, size, form; so that
nobody unknown makes us read a body, and a large one comes only from who may send it, as far as there is room.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Mount
from starlette.types import Receive, Scope, Send

from rootward import telemetry
from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.fleet import imports
from rootward.protocols.auth import Failures, principal_of
from rootward.protocols.problems import Header, internal, render
from rootward.protocols.rest import bodies, openapi, queries, resources
from rootward.protocols.rest.once import once
from rootward.protocols.rest.operation import Answer, Call, Operation
from rootward.protocols.rest.room import Guest, Rooms
from rootward.protocols.rest.routing import Routes
from rootward.store.failpoint import failpoint

_JSON = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)
_KEY = re.compile(rb"[!-~]{1,200}")
# Handlers at work at once. Each goes on many times on the one event loop, and an OCSP request has its turn between two
# steps of all of them: so this bounds how long status answers wait while issuance is saturated (I-65). It is above the
# 32 of a good group commit.
AT_ONCE = 48
_REQUEST_ID = re.compile(r"[0-9a-zA-Z-]{8,64}")
_ENCODE = msgspec.json.Encoder().encode
_CSP = b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def routes(inst: Installation, rooms: Rooms | None = None) -> list[BaseRoute]:
    """The door's routes for an installation. `rooms` are those that the process's listeners share."""
    return [Mount("/api", app=Door(inst, resources.OPERATIONS, rooms or Rooms()))]


class ClientGone(Exception):
    """The client closed the connection before its request was whole: nobody is there to be answered."""


class Door:
    """The ASGI application below `/api`."""

    def __init__(self, inst: Installation, operations: Sequence[Operation], rooms: Rooms) -> None:
        self._inst = inst
        self._rooms = rooms
        self._routes = Routes(operations)
        self._failures = Failures()
        self._turns = asyncio.Semaphore(AT_ONCE)
        document = openapi.document(operations)
        page, style = openapi.page(operations)
        self._static: dict[str, tuple[bytes, list[Header]]] = {
            "/api/openapi.json": (_ENCODE(document), [(b"content-type", b"application/json")]),
            "/api/docs": (
                page,
                [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _CSP % style)],
            ),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there are no web sockets here
            return
        request_id = _request_id(scope)
        allow: list[Header] = []
        try:
            status, content, headers = await self._answer(scope, receive, request_id, allow)
        except ClientGone:
            return
        except Problem as problem:
            status, headers, content = render(problem, request_id, headers=tuple(allow))
        except Exception as error:  # noqa: BLE001  # the outermost edge: logged whole, told as RW-INTERNAL
            status, headers, content = render(internal(error, request_id), request_id)
        await _send(send, status, headers, content, scope["method"] == "HEAD")

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, allow: list[Header]
    ) -> tuple[int, bytes | AsyncIterator[bytes], list[Header]]:
        raw_path: bytes = scope["raw_path"]
        static = self._static.get(raw_path.decode("latin-1"))
        method: str = scope["method"]
        if static is not None:
            if method not in ("GET", "HEAD"):
                raise _not_allowed("GET, HEAD", allow)
            queries.refuse_secrets(scope["query_string"])
            queries.parse_query(scope["query_string"], frozenset())
            return 200, static[0], [*static[1], *_common(request_id)]
        match = self._routes.find(method, raw_path)
        operation = match.operation
        if operation is None:
            raise _not_allowed(match.allow, allow)
        queries.refuse_secrets(scope["query_string"])
        query = queries.parse_query(scope["query_string"], operation.parameters)
        key = _key(scope["headers"]) if operation.idempotent else None
        principal = await principal_of(self._inst, scope, self._failures)
        if operation.admits is not None:
            operation.admits(principal)
        room = self._rooms.large if operation.largest > bodies.MAX_BODY else self._rooms.usual
        with room.guest() as guest:
            body, raw = None, b""
            if operation.body is not None:
                raw, body = await _body(operation, operation.body, scope["headers"], receive, guest)
            call = Call(
                inst=self._inst,
                caller=Caller(principal, request_id),
                method=operation.method,
                url=raw_path.decode("ascii"),
                path=match.path,
                query=query,
                body=body,
                raw=raw,
                key=key,
            )
            failpoint("http.asked")
            return _rendered(await self._carry_out(call, operation), operation, request_id)

    async def _carry_out(self, call: Call, operation: Operation) -> Answer:
        """Has the handler do it, in its turn. Nobody holds a turn while bytes come or go, so a slow client holds up
        nobody.
        """
        by_key = call.key is not None and not operation.ties_key
        if operation.urgent:
            return await (
                once(call, operation.handler, repeatable=operation.repeatable) if by_key else operation.handler(call)
            )
        telemetry.TURNS_WAITING.inc()
        try:
            await self._turns.acquire()
        finally:
            telemetry.TURNS_WAITING.dec()
        try:
            return await (
                once(call, operation.handler, repeatable=operation.repeatable) if by_key else operation.handler(call)
            )
        finally:
            self._turns.release()


def _rendered(
    answer: Answer, operation: Operation, request_id: str
) -> tuple[int, bytes | AsyncIterator[bytes], list[Header]]:
    headers = [(b"content-type", operation.media_type.encode()), *_common(request_id), *answer.headers]
    content = answer.content
    return answer.status, _ENCODE(content) if isinstance(content, msgspec.Struct) else content, headers


def _common(request_id: str) -> list[Header]:
    return [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode("ascii")),
    ]


def _request_id(scope: Scope) -> str:
    """The listener's id of this request where it gave one, never the sender's; 128 random bits otherwise."""
    given = scope.get("extensions", {}).get("rootward.request_id")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def _not_allowed(allow: str, headers: list[Header]) -> Problem:
    headers.append((b"allow", allow.encode("ascii")))
    return Problem("RW-METHOD", f"This address takes {allow}.")


def _key(headers: list[Header]) -> str | None:
    """The Idempotency-Key of a write, None without one; Problem RW-MALFORMED for a wrong one."""
    found = [value for name, value in headers if name == b"idempotency-key"]
    if not found:
        return None
    if len(found) != 1 or not _KEY.fullmatch(found[0]):
        detail = "Idempotency-Key is 1 to 200 visible ASCII characters, once."
        raise Problem("RW-MALFORMED", detail, field="Idempotency-Key")
    return found[0].decode("ascii")


async def _body(
    operation: Operation, kind: type[Any], headers: list[Header], receive: Receive, guest: Guest
) -> tuple[bytes, Any]:
    """The body's bytes, or of a large one what stands for them, and what they say. RW-MEDIA-TYPE, RW-TOO-LARGE,
    RW-UNAVAILABLE, RW-MALFORMED or RW-FIELD.
    """
    types = [value for name, value in headers if name == b"content-type"]
    if types and not (len(types) == 1 and _JSON.fullmatch(types[0].strip())):
        raise Problem("RW-MEDIA-TYPE", "The body must be application/json.")
    read = await _read(headers, receive, operation.largest, guest)
    if not read and operation.lenient:
        read += b"{}"
    elif not types:
        raise Problem("RW-MEDIA-TYPE", "The header Content-Type: application/json is missing.")
    if len(read) <= bodies.MAX_BODY:
        raw = bytes(read)
        return raw, bodies.decode(raw, kind)
    return await imports.in_pool(lambda: _large(read, kind))  # too long to hold up everybody else


def _large(read: bytearray, kind: type[Any]) -> tuple[bytes, Any]:
    """A hash stands for the bytes: kept beside what they say, they would be there twice while it is worked on."""
    return b"sha256:" + hashlib.sha256(read).digest(), bodies.decode(read, kind)


async def _read(headers: list[Header], receive: Receive, most: int, guest: Guest) -> bytearray:
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > most:
            raise _too_large(most)
    read, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size = len(read) + len(part)
        if size > most:
            raise _too_large(most)
        guest.grow(size)
        read += part
        more = message.get("more_body", False)
    return read


def _too_large(most: int) -> Problem:
    return Problem("RW-TOO-LARGE", f"A body has at most {most} bytes.")


async def _send(
    send: Send, status: int, headers: list[Header], content: bytes | AsyncIterator[bytes], head: bool
) -> None:
    """Status, headers and content in ASGI's messages. HEAD sends no content (RFC 9110 9.3.2)."""
    if isinstance(content, bytes):
        headers.append((b"content-length", str(len(content)).encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else content})
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if not head:
        async for part in content:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
