"""OCSP answers, signed by delegated, short-lived responders (RFC 6960, 9654, 5019).

`good` is said only of what this very issuer key issued and nobody revoked (I-27). An answer without nonce is kept
together with the count of revocations that it was made under; each request learns the count (`reading.py`), so that a
revocation is seen at once by its own process and within a second by every other one (I-30). The count is read before
the status, never after it: a revocation between the two makes the answer `revoked` or its count an old one, and a
`good` from before it is never kept under a count from after it. Where the store is away or does not answer, kept
answers are good for as long as a revocation may take, then `tryLater`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca import own
from rootward.ca.installation import PROMISE, Authority, Installation
from rootward.ca.reading import Away, Count, uptime
from rootward.ca.sign import WrongSignature, sign_soon
from rootward.core.ocsp import (
    CertId,
    OcspError,
    OcspRequest,
    OcspStatus,
    draft_response,
    error_response,
    finish_response,
    lint_ocsp,
    matches,
    parse_request,
)
from rootward.core.problems import Kind, Problem
from rootward.core.revocation import Good, RevocationReason, Revoked, Status, Unknown
from rootward.keys import NotSigned, SignatureUnknown
from rootward.store import certificates
from rootward.store.failpoint import failpoint

log = structlog.get_logger()
KEPT = 100_000  # answers of about 1 KiB
_SECOND = timedelta(seconds=1)
STATUS_SECONDS = 2.0  # how long an answer waits for a status


class Answer(msgspec.Struct, frozen=True):
    """A whole OCSPResponse (DER). `max_age` in seconds, 0 for what no cache may keep; `status` for counting."""

    body: bytes
    status: str
    max_age: int = 0
    etag: str | None = None
    last_modified: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class _Kept:
    body: bytes
    status: str
    etag: str
    count: int
    responder: str
    this_update: datetime
    fresh_until: datetime  # made anew from here on
    next_update: datetime


class Responder:
    """All authorities' responders of one process. `monotonic` counts seconds; it only measures how old a reading of the
    store is.
    """

    def __init__(self, inst: Installation, *, monotonic: Callable[[], float] = uptime) -> None:
        self._inst = inst
        self.count = Count(inst, monotonic=monotonic)
        self._own: dict[str, own.Own] = {}
        self._kept: OrderedDict[tuple[str, bytes], _Kept] = OrderedDict()
        inst.process.ocsp = self._body
        inst.process.renew_responders = self.renew

    async def renew(self) -> None:
        """Have a living responder certificate for each online authority; run at start and by the worker.

        One that cannot be had keeps no other authority from having its own; it is raised at the end, so that it is
        tried again.
        """
        failures = list[Exception]()
        for authority in list(self._inst.authorities.values()):
            if authority.key is None:
                continue
            try:
                await self._renew_one(authority.name)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised once the others have theirs
                failures.append(error)
        if failures:
            raise failures[0]

    async def _renew_one(self, name: str) -> None:
        profile, label = f"ocsp:{name}", f"ocsp-{name}"
        try:
            self._own[name] = await own.obtain(self._inst, profile, label)
        except Problem:
            if name not in self._own and (kept := await own.standing(self._inst, profile, label)) is not None:
                self._own[name] = kept  # just started, and the authority's key is away: status needs it not
            raise

    async def answer(self, name: str, data: bytes) -> Answer:
        """The answer of authority `name` to a request (DER). Never raises for what the asker sent; RW-NOT-FOUND for
        the name.
        """
        authority = self._inst.authority(name)
        try:
            request = parse_request(data)
            if authority.key is None or not all(matches(cert_id, authority.issuer) for cert_id in request.cert_ids):
                raise OcspError(OcspStatus.UNAUTHORIZED, "not an issuer that this responder speaks for")
            return await self._answer(authority, request)
        except OcspError as error:
            log.debug("ocsp.refused", authority=name, status=error.status.value, why=error.detail)
            return Answer(error_response(error.status), error.status.value)

    async def _body(self, name: str, data: bytes) -> bytes:
        return (await self.answer(name, data)).body

    async def _answer(self, authority: Authority, request: OcspRequest) -> Answer:
        now = self._inst.clock()
        keepable = request.nonce is None and len(request.cert_ids) == 1
        kept = self._kept.get((authority.name, request.cert_ids[0].der)) if keepable else None
        try:
            count = await self.count.now()
        except Away:
            raise OcspError(OcspStatus.TRY_LATER, "the store is away") from None
        if kept is not None and kept.count == count and self._usable(authority, kept, now):
            return _answer_of(kept, now)
        statuses = await self._statuses(authority, request.cert_ids)
        made = await self._sign(authority, request, statuses, now, count)
        if not keepable or made.status == "unknown":
            return Answer(made.body, made.status)
        self._keep((authority.name, request.cert_ids[0].der), made)
        return _answer_of(made, now)

    def _usable(self, authority: Authority, kept: _Kept, now: datetime) -> bool:
        """Kept for this responder, and young enough. (A clock that went back makes it anew as well.)"""
        current = self._own.get(authority.name)
        return (
            current is not None
            and kept.responder == current.key.public.id
            and kept.this_update <= now < kept.fresh_until
        )

    async def _statuses(self, authority: Authority, cert_ids: tuple[CertId, ...]) -> list[tuple[CertId, Status]]:
        now = self._inst.clock()

        def read(conn: Connection) -> list[tuple[CertId, Status]]:
            return [
                (cert_id, _status(certificates.status_of(conn, authority.n, cert_id.serial), now))
                for cert_id in cert_ids
            ]

        try:
            async with asyncio.timeout(STATUS_SECONDS):
                return await self._inst.db.status(read)
        except TimeoutError:
            raise OcspError(OcspStatus.TRY_LATER, "the store does not answer") from None
        except Problem as problem:
            if problem.kind is not Kind.UNAVAILABLE:
                raise
            raise OcspError(OcspStatus.TRY_LATER, "the store is away") from None

    async def _sign(
        self,
        authority: Authority,
        request: OcspRequest,
        statuses: list[tuple[CertId, Status]],
        now: datetime,
        count: int,
    ) -> _Kept:
        responder = self._own.get(authority.name)
        if responder is None or responder.certificate.not_valid_after_utc <= now:
            self._trouble(authority, "There is no living responder certificate.")
            log.error("ocsp.responder-expired", authority=authority.name)
            raise OcspError(OcspStatus.INTERNAL, "there is no living responder certificate")
        end = min(
            now + authority.ocsp_lifetime,
            responder.certificate.not_valid_after_utc,
            authority.issuer.certificate.not_valid_after_utc,
        )
        draft = draft_response(
            responder=responder.certificate,
            responder_key=responder.key.public,
            statuses=statuses,
            this_update=now,
            next_update=end,
            produced_at=now,
            nonce=request.nonce,
        )
        findings = lint_ocsp(draft, responder=responder.certificate, issuer=authority.issuer)
        if findings:
            telemetry.LINT_FAILURES.labels("ocsp").inc()
            self._trouble(authority, "An answer did not pass its lints.")
            log.error("ocsp.lint", authority=authority.name, findings=[finding.detail for finding in findings])
            raise OcspError(OcspStatus.INTERNAL, "the answer did not pass its lints")
        failpoint("ocsp.drafted")
        try:
            signature = await sign_soon(responder.key, responder.key.public, draft)
        except (NotSigned, SignatureUnknown, WrongSignature) as error:
            telemetry.KEY_FAILURES.labels(authority.name).inc()
            self._trouble(authority, f"The responder's key does not sign ({type(error).__name__}).")
            log.error("ocsp.key", authority=authority.name, error=str(error))
            raise OcspError(OcspStatus.TRY_LATER, "the responder's key does not sign now") from error
        failpoint("ocsp.signed")
        body = finish_response(draft, signature, [responder.certificate.public_bytes(Encoding.DER)])
        return _Kept(
            body=body,
            status=_named(statuses),
            etag=hashlib.sha256(body).hexdigest()[:32],
            count=count,
            responder=responder.key.public.id,
            this_update=now,
            fresh_until=now + (end - now) / 2,
            next_update=end,
        )

    def _trouble(self, authority: Authority, why: str) -> None:
        self._inst.process.troubles[f"ocsp.{authority.name}"] = (self._inst.clock(), why)

    def _keep(self, key: tuple[str, bytes], made: _Kept) -> None:
        self._kept[key] = made
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _status(row: certificates.StatusRow | None, now: datetime) -> Status:
    if row is None:
        return Unknown()
    if row.revoked_at is None:
        return Good()
    # Another process's clock may be a little ahead of ours; no answer dates a revocation in its own future (I-24).
    return Revoked(min(row.revoked_at, now), RevocationReason(row.reason or "unspecified"))


def _named(statuses: list[tuple[CertId, Status]]) -> str:
    """The most alarming status of an answer, for the counters and for caching."""
    kinds = {type(status).__name__.lower() for _, status in statuses}
    return next(kind for kind in ("unknown", "revoked", "good") if kind in kinds)


def _answer_of(kept: _Kept, now: datetime) -> Answer:
    """With cache headers that promise no more than a revocation may take."""
    seconds = max(min(PROMISE, kept.next_update - now) // _SECOND, 0)
    return Answer(kept.body, kept.status, seconds, kept.etag, kept.this_update, now + timedelta(seconds=seconds))
