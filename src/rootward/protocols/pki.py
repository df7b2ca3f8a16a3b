"""What those who rely on certificates fetch, without a login: CRLs (RFC 5280 5), OCSP (RFC 6960, RFC 5019), issuer
certificates.

All of it is signed, so that it is served on the plain HTTP listener too; only `/roots.pem`, which nothing would vouch
for there, is left out. An OCSP answer is HTTP 200 whatever its status, with `no-store` where it must not be kept. The
path of OCSP's GET is taken as it came but for its escapes: `+`, `/` and `=` are right both raw and percent-encoded, and
`//` is two characters of base64.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from prometheus_client import Counter
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from rootward import telemetry
from rootward.ca.installation import PROMISE, Authority, Installation
from rootward.core.ocsp import OcspStatus, error_response
from rootward.core.problems import Kind, Problem
from rootward.protocols.caching import Published, Reply, respond
from rootward.store.authorities import Crl

log = structlog.get_logger()

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_ISSUER_AGE: Final = 3600  # seconds; an issuer's certificate never changes
_GET_LIMIT: Final = 2048  # characters of base64: RFC 5019 5 wants the GET below 256, SHA-256 and a nonce take more
_OCSP: Final = b"application/ocsp-response"
_STATUS: Final = ("successful", "malformedRequest", "internalError", "tryLater", "", "sigRequired", "unauthorized")


class Answer(Protocol):
    """An OCSP answer with how long anybody may keep it: `max_age` in seconds, 0: not at all. `etag` unquoted."""

    @property
    def body(self) -> bytes: ...
    @property
    def max_age(self) -> int: ...
    @property
    def etag(self) -> str | None: ...
    @property
    def last_modified(self) -> datetime | None: ...
    @property
    def expires(self) -> datetime | None: ...


CurrentCrl = Callable[[str], Awaitable[Crl | None]]
Respond = Callable[[str, bytes], Awaitable[Answer]]


def routes(inst: Installation, *, crl: CurrentCrl, ocsp: Respond, tls: bool) -> list[BaseRoute]:
    """The door's routes. `crl` gives an authority's current CRL, `ocsp` answers (authority, DER of a request)."""
    door = _Door(inst, crl, ocsp)
    found: list[BaseRoute] = [
        Route("/ocsp/{authority}", _Endpoint(door.ocsp_post), methods=["POST"]),
        Route("/ocsp/{authority}/{request:path}", _Endpoint(door.ocsp_get), methods=["GET", "POST"]),
        Route("/crl/{file}", _Endpoint(door.crl), methods=["GET"]),
        Route("/ca/{file}", _Endpoint(door.certificate), methods=["GET"]),
    ]
    if tls:
        found.append(Route("/roots.pem", _Endpoint(door.roots), methods=["GET"]))
    return found


class _Endpoint:
    """A handler as an ASGI application. Starlette would make objects of the request and of the answer, which cost more
    than an OCSP answer does, and catch exceptions twice; here the edge alone does.
    """

    def __init__(self, handler: Callable[[Scope, Receive], Awaitable[Reply]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = await self._handler(scope, receive)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Door:
    def __init__(self, inst: Installation, crl: CurrentCrl, ocsp: Respond) -> None:
        self._inst = inst
        self._crl = crl
        self._ocsp = ocsp

    async def crl(self, scope: Scope, _receive: Receive) -> Reply:
        authority = self._named(scope["path_params"]["file"], ".crl")
        found = await self._crl(authority.name)
        if found is None:
            raise _nothing()
        now = self._inst.clock()
        left = int((found.next_update - now).total_seconds())
        return respond(
            scope,
            Published(
                found.der,
                b"application/pkix-crl",
                max_age=max(0, min(int(PROMISE.total_seconds()), left)),
                etag=f'"{found.issuer}-{found.scope}-{found.number:x}"',
                # In its first second another one may follow with the same date; then only the tag tells them apart.
                last_modified=found.this_update if found.this_update < now else None,
                ranges=True,
            ),
        )

    async def certificate(self, scope: Scope, _receive: Receive) -> Reply:
        file: str = scope["path_params"]["file"]
        if file.endswith(".p7c"):
            issuer = self._named(file, ".p7c").issuer
            # without the root: whoever trusts it has it (RFC 5280 4.2.2.1 asks for what leads to a trust anchor)
            chain = [certificate for certificate in issuer.chain if certificate.issuer != certificate.subject]
            body = pkcs7.serialize_certificates(chain or [issuer.certificate], Encoding.DER)
            return respond(scope, _lasting(body, b"application/pkcs7-mime; smime-type=certs-only"))
        issuer = self._named(file, ".cer").issuer
        return respond(scope, _lasting(issuer.der, b"application/pkix-cert"))

    async def roots(self, scope: Scope, _receive: Receive) -> Reply:
        body = "".join(issuer.pem() for issuer in self._inst.roots()).encode()
        return respond(scope, _lasting(body, b"application/pem-certificate-chain"))

    async def ocsp_post(self, scope: Scope, receive: Receive) -> Reply:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        if kind.partition(b";")[0].strip().lower() != b"application/ocsp-request":
            raise Problem("RW-MEDIA-TYPE", "The body must be application/ocsp-request (RFC 6960 A.1).")
        authority = self._authority(scope["path_params"]["authority"])
        return (await self._answer(authority, await _body(receive))).whole()

    async def ocsp_get(self, scope: Scope, receive: Receive) -> Reply:
        text: str = scope["path"].split("/", 3)[3]
        if scope["method"] == "POST":
            if text:
                raise _nothing()
            return await self.ocsp_post(scope, receive)  # the address with a slash at its end
        authority = self._authority(scope["path_params"]["authority"])
        return respond(scope, await self._answer(authority, _from_path(text)))

    async def _answer(self, authority: Authority, body: bytes | None) -> Published:
        """`body` None: nothing that could be a request."""
        if body is None:
            published = _unsigned(OcspStatus.MALFORMED)
        elif authority.key is None:
            published = _unsigned(OcspStatus.UNAUTHORIZED)  # an offline root's certificates have no OCSP (RFC 6960 2.3)
        else:
            published = await self._asked(authority.name, body)
        _counter(_status(published.body)).inc()
        return published

    async def _asked(self, authority: str, body: bytes) -> Published:
        try:
            answer = await self._ocsp(authority, body)
        except Problem as problem:
            log.warning("ocsp.failed", authority=authority, code=problem.code, detail=problem.detail)
            return _unsigned(OcspStatus.TRY_LATER if problem.kind is Kind.UNAVAILABLE else OcspStatus.INTERNAL)
        max_age = min(answer.max_age, int(PROMISE.total_seconds()))
        # RFC 5019 6.2 puts nextUpdate here; a cache that only knows Expires would then break the revocation promise
        soonest = self._inst.clock() + timedelta(seconds=max_age)
        return Published(
            answer.body,
            _OCSP,
            max_age=max_age,
            etag=None if answer.etag is None else f'"{answer.etag}"',
            last_modified=answer.last_modified,
            expires=min(answer.expires or soonest, soonest),
            dated=False,
        )

    def _named(self, file: str, ending: str) -> Authority:
        if not file.endswith(ending):
            raise _nothing()
        return self._authority(file.removesuffix(ending))

    def _authority(self, name: str) -> Authority:
        found = self._inst.authorities.get(name) if _NAME.fullmatch(name) else None
        if found is None:
            raise _nothing()
        return found


async def _body(receive: Receive) -> bytes:
    """All of the request's body; the listener bounds it."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _from_path(text: str) -> bytes | None:
    """The request in `/ocsp/{authority}/{base64}`; None where it is none."""
    if not 0 < len(text) <= _GET_LIMIT:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _unsigned(status: OcspStatus) -> Published:
    return Published(error_response(status), _OCSP, max_age=0)


@lru_cache(maxsize=16)
def _counter(status: str) -> Counter:
    """Looked up once: a label's lookup takes a lock and sorts."""
    return telemetry.OCSP_ANSWERS.labels(status)


def _status(response: bytes) -> str:
    """The name of an OCSPResponse's status: the octet of the ENUMERATED right behind the SEQUENCE's header."""
    head = 2 + (response[1] & 0x7F if response[1] & 0x80 else 0)
    return _STATUS[response[head + 2]]


def _lasting(body: bytes, media_type: bytes) -> Published:
    return Published(body, media_type, max_age=_ISSUER_AGE, etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _nothing() -> Problem:
    return Problem("RW-NOT-FOUND", "There is nothing at this address.")
