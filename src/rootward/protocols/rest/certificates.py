"""`/certificates`: issue, find, read, revoke, release. Names come from the CSR only; who may do what is decided in
`ca`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from sqlalchemy import Connection

from rootward.ca import issue as issuing
from rootward.ca import revoke as revoking
from rootward.core.csr import parse_csr
from rootward.core.problems import CODES, Problem
from rootward.core.revocation import parse_reason
from rootward.core.times import parse_duration, parse_time, rfc3339
from rootward.fleet import inventory
from rootward.protocols.rest.certificate import CertificateBody, CertificateDetail, detail, may_see, short
from rootward.protocols.rest.once import digest_of
from rootward.protocols.rest.operation import (
    API,
    WHEN,
    Answer,
    Call,
    Duration,
    Empty,
    Id,
    Line,
    Operation,
    Page,
    Parameter,
    Pem,
    Reason,
)
from rootward.protocols.rest.request import RequestBody, request_body
from rootward.store import certificates as rows
from rootward.store.certificates import Certificate

_DURATION = re.compile(r"[1-9][0-9]{0,5}[smhdy]", re.ASCII)


class IssueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`csr` is PEM; `lifetime` a duration such as `30d`; `replaces` a certificate's id."""

    profile: Line
    csr: Pem
    lifetime: Duration | None = None
    owner: Line | None = None
    replaces: Id | None = None
    labels: Annotated[dict[Line, Line], msgspec.Meta(max_length=50)] = {}


class RevokeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason` is a name of RFC 5280 5.3.1; `unspecified` if it is not said."""

    reason: Reason = "unspecified"


class Related(msgspec.Struct, frozen=True):
    """Another live certificate and what it shares with this one."""

    id: str
    names: list[str]
    not_after: str
    same_key: bool
    same_names: bool


class Impact(msgspec.Struct, frozen=True):
    """Who would notice if this certificate were gone, as far as it is known."""

    owner: str | None
    labels: dict[str, str]
    replaced_by: str | None
    certificates: list[Related]
    deployments: list[str]
    dependents: list[str]


async def issue(call: Call) -> Answer:
    """201 with the certificate, or 202 with the request that a person must agree to."""
    body: IssueBody = call.body
    ask = issuing.Ask(
        profile=body.profile,
        csr=parse_csr(body.csr.encode()),
        lifetime=None if body.lifetime is None else parse_duration(body.lifetime, field="lifetime"),
        owner=body.owner,
        labels=body.labels,
        replaces=body.replaces,
    )
    done = await issuing.issue(call.inst, ask, call.caller, idempotency=idempotency(call))
    if isinstance(done, issuing.Pending):
        return Answer(request_body(done.request, call.inst.clock()), 202, (_location("requests", done.request.id),))
    made = short(call.inst, done.certificate, call.inst.clock())
    return Answer(made, 201, (_location("certificates", made.id),))


def idempotency(call: Call) -> issuing.Idempotency | None:
    """The Idempotency-Key of a call with what it stands for."""
    if call.key is None:
        return None
    return issuing.Idempotency(call.key, digest_of(call))


def _location(resource: str, name: str) -> tuple[bytes, bytes]:
    return b"location", f"{API}/{resource}/{name}".encode()


async def listed(call: Call) -> Answer:
    """A page of the certificates that match every filter."""
    now = call.inst.clock()
    filters = _filters(call, now)
    after, limit = call.numbers(filters.position_length), call.limit
    found = await call.inst.db.read(
        lambda conn: inventory.search(conn, filters, now=now, limit=limit, after=after),
    )
    return Answer(call.page([short(call.inst, item, now) for item in found.certificates], found.after))


def _filters(call: Call, now: datetime) -> inventory.Filters:
    query = call.query
    status = next((known for known in inventory.STATUSES if known == query.get("status")), None)
    for name, known in (("status", inventory.STATUSES), ("source", inventory.SOURCES)):
        if name in query and query[name] not in known:
            raise Problem("RW-QUERY", f"{name} is one of {', '.join(known)}.", field=name)
    return inventory.Filters(
        q=query.get("q"),
        status=status,
        source=query.get("source"),
        owner=query.get("owner"),
        authority=query.get("authority"),
        profile=query.get("profile"),
        expires_before=_when(query.get("expires_before"), "expires_before", now),
        expires_after=_when(query.get("expires_after"), "expires_after", now),
        visible=call.principal.authorities_seen(),
    )


def _when(text: str | None, field: str, now: datetime) -> datetime | None:
    """A time, or a duration from now."""
    if text is None:
        return None
    if not _DURATION.fullmatch(text):
        return parse_time(text, field=field)
    try:
        return now + parse_duration(text, field=field, code="RW-QUERY")
    except OverflowError:
        return datetime.max.replace(microsecond=0, tzinfo=UTC)


async def look_up(call: Call) -> list[Certificate]:
    """What the path names, by id or serial, whoever may see it."""
    name = call.path["certificate"]

    def look(conn: Connection) -> list[Certificate]:
        found = rows.by_id(conn, name)
        if found is not None:
            return [found]
        return [] if "-" in name else inventory.by_serial(conn, bytes.fromhex(name))

    return await call.inst.db.look(look)


def only(found: list[Certificate]) -> Certificate:
    """The one that was found; Problem RW-NOT-FOUND for none, RW-CONFLICT for several."""
    if not found:
        raise Problem("RW-NOT-FOUND", "There is no such certificate.")
    if len(found) > 1:
        raise Problem("RW-CONFLICT", "Certificates of several authorities have this serial: use the id.")
    return found[0]


def _ours(found: list[Certificate]) -> list[Certificate]:
    """Those that were issued here, where there are any: a serial that others use too must not stand in the way."""
    return [one for one in found if one.source == "issued"] or found


async def visible(call: Call) -> Certificate:
    """The certificate of the path, where the caller may read it: what is hidden is not there."""
    return only([one for one in await look_up(call) if may_see(call.principal, one.authority)])


async def shown(call: Call) -> Answer:
    """Everything that is known of one certificate."""
    found = await visible(call)
    replaced_by = await call.inst.db.read(lambda conn: inventory.replaced_by(conn, found))
    return Answer(detail(call.inst, found, call.inst.clock(), replaced_by=replaced_by))


async def revoke(call: Call) -> Answer:
    """The certificate as it is now; the same reason again changes nothing."""
    body: RevokeBody = call.body
    reason = parse_reason(body.reason, field="reason")
    found = only(_ours(await look_up(call)))
    done = await revoking.revoke(call.inst, found.id, reason, call.caller)
    return Answer(short(call.inst, done, call.inst.clock()))


async def release(call: Call) -> Answer:
    """The certificate, no longer on hold."""
    found = only(_ours(await look_up(call)))
    done = await revoking.release(call.inst, found.id, call.caller)
    return Answer(short(call.inst, done, call.inst.clock()))


async def impact(call: Call) -> Answer:
    """Who would notice. Deployments and dependents are not recorded yet, so those lists are empty."""
    found = await visible(call)
    now = call.inst.clock()

    def read(conn: Connection) -> tuple[str | None, list[Certificate]]:
        return inventory.replaced_by(conn, found), inventory.related(conn, found, now=now)

    replaced_by, others = await call.inst.db.read(read)
    related = [
        Related(
            id=other.id,
            names=list(other.names),
            not_after=rfc3339(other.not_after),
            same_key=other.key_id == found.key_id,
            same_names=set(other.names) == set(found.names),
        )
        for other in others
        if may_see(call.principal, other.authority)
    ]
    return Answer(Impact(found.owner, dict(found.labels), replaced_by, related, [], []))


async def proof(call: Call) -> Answer:
    """Log inclusion: not there yet, always 404."""
    await visible(call)
    raise Problem("RW-NOT-FOUND", "Proofs of inclusion in the log are not there yet.")


_FILTERS = (
    Parameter(
        "q",
        "Any part of a name, 3 characters or more. The search may lag by seconds.",
        {"type": "string", "minLength": 3},
    ),
    Parameter("status", "The one status of a certificate.", {"type": "string", "enum": list(inventory.STATUSES)}),
    Parameter("source", "Where it comes from.", {"type": "string", "enum": list(inventory.SOURCES)}),
    Parameter("owner", "Whose it is."),
    Parameter("authority", "Who issued it."),
    Parameter("profile", "The profile it was issued under."),
    Parameter("expires_before", "A time, or a duration from now such as 30d.", WHEN),
    Parameter("expires_after", "A time, or a duration from now such as 30d.", WHEN),
)
_ISSUANCE = (
    *(code for code in CODES if code.startswith(("RW-CSR-", "RW-NAME"))),
    *"RW-KEY-TYPE RW-KEY-ENCODING RW-KEY-WEAK RW-KEY-BLOCKED RW-KEY-IN-USE RW-KEY-UNAVAILABLE".split(),
    *"RW-TOO-MANY RW-PROFILE RW-VALIDITY RW-CONDITION RW-REPLACES RW-LINT".split(),
    *"RW-FORBIDDEN RW-IDEMPOTENCY RW-IN-PROGRESS RW-FROZEN".split(),
)

OPERATIONS = (
    Operation(
        name="issueCertificate",
        method="POST",
        path="/certificates",
        handler=issue,
        summary="Issue a certificate for a CSR under a profile.",
        body=IssueBody,
        result=CertificateBody,
        status=201,
        also={202: RequestBody},
        idempotent=True,
        ties_key=True,
        problems=_ISSUANCE,
    ),
    Operation(
        name="listCertificates",
        method="GET",
        path="/certificates",
        handler=listed,
        summary="Find certificates: newest first, or in the order of expiry where expiry is asked for.",
        result=Page[CertificateBody],
        query=_FILTERS,
        paged=True,
    ),
    Operation(
        name="getCertificate",
        method="GET",
        path="/certificates/{certificate}",
        handler=shown,
        summary="Everything that is known of one certificate, by its id or serial.",
        result=CertificateDetail,
        problems=("RW-CONFLICT",),
    ),
    Operation(
        name="revokeCertificate",
        urgent=True,
        method="POST",
        path="/certificates/{certificate}/revoke",
        handler=revoke,
        summary="Revoke a certificate, or put it on hold (certificateHold).",
        body=RevokeBody,
        lenient=True,
        result=CertificateBody,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-ALREADY-REVOKED", "RW-CONFLICT"),
    ),
    Operation(
        name="releaseCertificate",
        method="POST",
        path="/certificates/{certificate}/release",
        handler=release,
        summary="Take a certificate off hold.",
        body=Empty,
        lenient=True,
        result=CertificateBody,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-NOT-HELD", "RW-CONFLICT"),
    ),
    Operation(
        name="getCertificateImpact",
        method="GET",
        path="/certificates/{certificate}/impact",
        handler=impact,
        summary="Who would notice if this certificate were gone, as far as it is known.",
        result=Impact,
        problems=("RW-CONFLICT",),
    ),
    Operation(
        name="getCertificateProof",
        method="GET",
        path="/certificates/{certificate}/proof",
        handler=proof,
        summary="Its inclusion in the log: not there yet, always 404.",
        result=Empty,
        problems=("RW-CONFLICT",),
    ),
)
