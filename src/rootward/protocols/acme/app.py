"""The ACME door: `/acme/…` (RFC 8555). It finds the resource in one table, has the gate authenticate, and renders; what
may be is decided in `ca`.

Every answer is `no-store` and has the request's id, every one but the directory a link to its directory (RFC 8555 7.1),
and every answer to a POST a fresh nonce (6.5). Paths are exact, as they come: one with an escape names nothing.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute, Mount
from starlette.types import Receive, Scope, Send

from rootward import telemetry
from rootward.ca.installation import Installation
from rootward.core.jose import LARGEST
from rootward.core.problems import Problem
from rootward.protocols.acme import directory, gate
from rootward.protocols.acme.call import Answer, Call, Settings, Visit
from rootward.protocols.acme.nonces import Nonces, lucky, open_nonces
from rootward.protocols.acme.problems import AcmeError, nothing_here, render
from rootward.protocols.acme.routes import ROUTES, Route, find
from rootward.protocols.acme.validator import Validator
from rootward.protocols.problems import Header, internal

# Handlers at work at once, as at the REST door: what status answers wait for while this one is saturated (I-65).
AT_ONCE: Final = 48
_TYPE: Final = re.compile(rb"application/jose\+json(?:[ \t]*;.*)?", re.IGNORECASE)
_ENCODE = msgspec.json.Encoder().encode


def routes(inst: Installation, settings: Settings, validator: Validator) -> list[BaseRoute]:
    """The door's routes for an installation."""
    return [Mount("/acme", app=Door(inst, settings, validator))]


class ClientGone(Exception):
    """The client closed the connection before its request was whole: nobody is there to be answered."""


class Door:
    """The ASGI application below `/acme`."""

    def __init__(self, inst: Installation, settings: Settings, validator: Validator) -> None:
        self._inst = inst
        self._settings = settings
        self._validator = validator
        self._nonces: Nonces | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope.get("extensions", {}).get("rootward.request_id") or telemetry.new_request_id()
        route: Route | None = None
        profile: str | None = None
        headers: list[Header]
        try:
            route, profile, found = find(scope["method"], scope["raw_path"])
            answer = await self._answer(scope, receive, request_id, route, profile, found)
            status, body = answer.status, answer.body
            content = body if isinstance(body, bytes) else _ENCODE(body)
            headers = [(b"content-type", answer.media_type.encode()), *answer.headers] if content else [*answer.headers]
        except ClientGone:
            return
        except (AcmeError, Problem) as refusal:
            status, headers, content = render(refusal, request_id)
        except Exception as error:  # noqa: BLE001  # the outermost edge: logged whole, told as serverInternal
            status, headers, content = render(internal(error, request_id), request_id)
        headers += await self._common(scope["method"], route, profile, request_id, again=status >= 400)
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        request_id: str,
        route: Route,
        profile: str | None,
        found: dict[str, str],
    ) -> Answer:
        client = scope.get("client")
        visit = Visit(
            inst=self._inst,
            settings=self._settings,
            validator=self._validator,
            request_id=request_id,
            method=scope["method"],
            directory=profile,
            served=None if profile is None else await directory.served(self._inst, profile),
            address=client[0] if client else "",
            query=_query(scope["query_string"], route),
        )
        if profile is not None and visit.served is None:
            raise nothing_here()
        if route.path == "new-nonce":
            await self._handed()  # without the key of nonces there is none to give: 503, and no answer that lacks it
        if route.signer is None:
            answer: Answer = await route.handler(visit, found)
            return answer
        body = await _body(scope["headers"], receive)
        path: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        async with self._turns:
            call = await gate.admit(visit, path.decode("ascii"), route.signer, body, await self._handed())
            return await gate.carry_out(call, partial(_handle, route, call, found))

    async def _handed(self) -> Nonces:
        if self._nonces is None:
            self._nonces = await open_nonces(self._inst)
        return self._nonces

    async def _common(
        self, method: str, route: Route | None, profile: str | None, request_id: str, *, again: bool
    ) -> list[Header]:
        headers = [
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", request_id.encode("ascii")),
        ]
        if route is None or route.path != "directory":
            path = "/acme/directory" if profile is None else f"/acme/{profile}/directory"
            headers.append((b"link", f'<{self._inst.external_url}{path}>;rel="index"'.encode()))
        asked = route is not None and route.path == "new-nonce"
        if method == "POST" or asked:
            random = self._inst.random(16)
            try:
                # Some clients try again with the nonce of the refusal, some with one that they ask for.
                fresh = (await self._handed()).make(self._inst.clock(), lucky(random) if again or asked else random)
                headers.append((b"replay-nonce", fresh.encode("ascii")))
            except Problem:
                pass  # the store is away, and was since the start: the answer itself says so
        return headers


async def _handle(route: Route, call: Call, found: dict[str, str]) -> Answer:
    if route.reads:
        call.require_get()
    answer: Answer = await route.handler(call, found)
    return answer


def _query(query: bytes, route: Route) -> dict[str, str]:
    """The one parameter that a resource may take, `cursor`. AcmeError malformed for everything else."""
    if not query:
        return {}
    match = re.fullmatch(rb"cursor=([A-Za-z0-9_-]{1,200})", query)
    if match is None or not route.cursor:
        raise AcmeError("malformed", "This address does not take such a query.")
    return {"cursor": match[1].decode("ascii")}


async def _body(headers: list[Header], receive: Receive) -> bytes:
    types = [value for name, value in headers if name == b"content-type"]
    if len(types) != 1 or not _TYPE.fullmatch(types[0].strip()):
        raise AcmeError("malformed", "The body must be application/jose+json (RFC 8555 6.2).", 415)
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > LARGEST:
            raise _too_large()
    body, more = bytearray(), True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > LARGEST:
            raise _too_large()
        more = message.get("more_body", False)
    return bytes(body)


def _too_large() -> AcmeError:
    return AcmeError("malformed", f"A body has at most {LARGEST} bytes.", 413)


__all__ = ["ROUTES", "Door", "Settings", "routes"]
