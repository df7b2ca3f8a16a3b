"""New authorities and their ends, as far as paper travels: what is asked of offline authorities, somebody else's
certificates, the results of ceremonies.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import authorities as verbs
from rootward.ca import ending, results
from rootward.ca.access import Principal, require
from rootward.core.answer import MAX_SIZE
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.problems import Problem
from rootward.core.revocation import parse_reason
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.protocols.rest import authorities
from rootward.protocols.rest.certificate import may_see
from rootward.protocols.rest.operation import (
    API,
    Answer,
    Call,
    Empty,
    Line,
    Moment,
    Operation,
    Page,
    Pem,
    Reason,
    moment,
)
from rootward.protocols.rest.proposals import ProposalBody, proposed
from rootward.store import paperwork as papers
from rootward.store.paperwork import Asked, Held
from rootward.store.proposals import Proposal

_LARGEST = 64 * 1024 * 1024
_ONE = "/authorities/{name}"


class CreateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`parent` is the authority that shall certify it, null: somebody else's. `key_store` is a `[keys.NAME]` of
    the server, empty: the home's own files.
    """

    spec: AuthoritySpec
    parent: Line | None
    key_store: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ChainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`chain` is PEM: the new certificate, then all above it up to the root. `parents` are names for those above that
    are new here, the nearest first.
    """

    chain: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SIZE)]
    parents: Annotated[list[Line], msgspec.Meta(max_length=8)] = []

    def __repr__(self) -> str:
        return "ChainBody(…)"  # somebody may send a private key in it


class RevokeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason` is a name of RFC 5280 5.3.1; a hold is none."""

    reason: Reason = "unspecified"


class PaperBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an offline authority is asked to sign. `kind` is certify, crl or cross; `subject` whom it is about;
    `authority` whose key is to sign, empty for somebody else's. `state` is open, answered or withdrawn. `file` is the
    request file, byte for byte, and `sha256` its hash. `csr` is there where a certificate is asked for.
    """

    id: str
    kind: str
    authority: str
    subject: str
    state: str
    made_at: Moment
    made_by: str
    answered_at: Moment | None
    ceremony: str | None
    sha256: str
    file: str
    csr: Pem | None


class ResultBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`result` is the result file as text, byte for byte."""

    result: Annotated[str, msgspec.Meta(min_length=1)]


class CeremonyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A ceremony whose result was taken in. `lab`: nobody watched it. Hashes are SHA-256, hex."""

    id: str
    title: str
    lab: bool
    held_at: Moment
    imported_at: Moment
    imported_by: str
    script_sha256: str
    transcript_sha256: str


class CeremonyDetail(CeremonyBody, frozen=True, kw_only=True):
    """With what it made, and the script and the transcript as they are."""

    certificates: list[str]
    crls: list[str]
    script: str
    transcript: str


class ParticipantBody(msgspec.Struct, frozen=True):
    """Somebody whose signature under a transcript counts; `key_id` is the SHA-256 of their public key, hex."""

    name: str
    key_id: str


class ForgetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is a participant's, as scripts have it."""

    name: Line


def _paper(one: Asked) -> PaperBody:
    state = "open" if one.is_open else "withdrawn" if one.answered_at is None else "answered"
    return PaperBody(
        id=one.id,
        kind=one.kind,
        authority=one.authority,
        subject=one.subject,
        state=state,
        made_at=rfc3339(one.made_at),
        made_by=one.made_by,
        answered_at=moment(one.answered_at),
        ceremony=one.ceremony,
        sha256=hashlib.sha256(one.body).hexdigest(),
        file=one.body.decode(),
        csr=None,
    )


def with_csr(one: Asked, csr: bytes) -> PaperBody:
    """What is asked of a parent, with the CSR that proves the key (DER)."""
    pem = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()
    return msgspec.structs.replace(_paper(one), csr=pem)


async def create(call: Call) -> Answer:
    """What is asked for it; under an online parent 202 with the proposal that a second person must agree to."""
    given: CreateBody = call.body
    store = given.key_store or call.inst.keys.name
    made = await verbs.create(call.inst, given.spec, given.parent, store, call.caller)
    proposal = await verbs.proposal(call.inst, made, call.caller)
    if proposal is not None:
        return proposed(proposal, call)
    pending, asked = await verbs.request(call.inst, given.spec.name)
    where = f"{API}/authorities/{pending.name}/request".encode()
    return Answer(with_csr(asked, pending.csr), 201, ((b"location", where),))


async def asked_for(call: Call) -> Answer:
    """What is asked for an authority that waits."""
    _see_all(call.principal)
    pending, asked = await verbs.request(call.inst, call.path["name"])
    return Answer(with_csr(asked, pending.csr))


async def withdraw(call: Call) -> Answer:
    """The request, which nobody shall answer any more."""
    _, asked = await verbs.request(call.inst, call.path["name"])
    await verbs.withdraw(call.inst, call.path["name"], call.caller)
    found = await call.inst.db.read(lambda conn: papers.request(conn, asked.id))
    return Answer(_paper(found or asked))


async def install(call: Call) -> Answer:
    """The authority, as it is from now on."""
    given: ChainBody = call.body
    await verbs.install(call.inst, call.path["name"], given.chain.encode(), given.parents, call.caller)
    return await authorities.told(call, call.inst.authority(call.path["name"]))


async def revoke(call: Call) -> Answer:
    """202 with the proposal that a second person must agree to; asked again after that, the authority."""
    given: RevokeBody = call.body
    await authorities.shown(call)  # what the caller may not see is not there
    reason = parse_reason(given.reason, field="reason")
    found = await ending.propose(call.inst, call.path["name"], reason, call.caller)
    if isinstance(found, Proposal):
        return proposed(found, call)
    return await authorities.told(call, call.inst.authority(call.path["name"]))


async def ask_crl(call: Call) -> Answer:
    """The request for the next CRL."""
    await authorities.shown(call)
    require(call.principal, Role.OFFICER, authority=call.path["name"])
    return Answer(_paper(await ending.crl_request(call.inst, call.path["name"], call.caller)))


async def papers_open(call: Call) -> Answer:
    """Every open request, as far as the caller sees whom it is about."""
    found = await call.inst.db.read(papers.open_requests)
    online = {one.name for one in call.inst.authorities.values() if one.key is not None}
    seen = [one for one in found if one.authority not in online and may_see(call.principal, one.authority or None)]
    page = call.cut(seen, lambda one: f"{one.n:020}")
    return Answer(Page([_paper(one) for one in page.items], page.next_cursor))


def _see_all(principal: Principal) -> None:
    """What is about the whole installation is for those who see all of it."""
    if not principal.holds(Role.SYSTEM_ADMIN) and principal.authorities_seen() is not None:
        raise Problem("RW-FORBIDDEN", "This needs a role on every authority, or system-admin.")


def _may_import(principal: Principal) -> None:
    require(principal, Role.SYSTEM_ADMIN)


async def take_in(call: Call) -> Answer:
    """The ceremony."""
    given: ResultBody = call.body
    held = await results.import_result(call.inst, given.result.encode(), call.caller)
    where = f"{API}/ceremonies/{held.id}".encode()
    return Answer(_held(held), 201, ((b"location", where),))


async def ceremonies(call: Call) -> Answer:
    """A page of ceremonies, newest first."""
    _see_all(call.principal)
    after = call.numbers(1)
    found = await results.listed(call.inst, before=None if after is None else after[0], limit=call.limit + 1)
    kept = found[: call.limit]
    items = [_held(one) for one in kept]
    return Answer(call.page(items, (kept[-1].n,) if len(found) > len(kept) else None))


async def ceremony(call: Call) -> Answer:
    """One ceremony."""
    _see_all(call.principal)
    held, result = await results.shown(call.inst, call.path["id"])
    return Answer(
        CeremonyDetail(
            **msgspec.structs.asdict(_held(held)),
            certificates=[one.certificate for one in result.certificates],
            crls=[one.authority for one in result.crls],
            script=result.script,
            transcript=result.transcript,
        )
    )


async def participants(call: Call) -> Answer:
    """A page of those who are known."""
    _see_all(call.principal)
    known = await results.participants(call.inst)
    page = call.cut(known.items(), lambda one: one[0])
    return Answer(Page([ParticipantBody(name, key) for name, key in page.items], page.next_cursor))


async def forget(call: Call) -> Answer:
    """The one who is forgotten."""
    given: ForgetBody = call.body
    known = await results.participants(call.inst)
    await results.forget(call.inst, given.name, call.caller)
    return Answer(ParticipantBody(given.name, known[given.name]))


def _held(held: Held) -> CeremonyBody:
    return CeremonyBody(
        id=held.id,
        title=held.title,
        lab=bool(held.lab),
        held_at=rfc3339(held.held_at),
        imported_at=rfc3339(held.imported_at),
        imported_by=held.imported_by,
        script_sha256=held.script_sha256,
        transcript_sha256=held.transcript_sha256,
    )


OPERATIONS = (
    Operation(
        name="createAuthority",
        method="POST",
        path="/authorities",
        handler=create,
        summary="Make the key of a new authority, and the request for its certificate.",
        body=CreateBody,
        result=PaperBody,
        status=201,
        also={202: ProposalBody},
        idempotent=True,
        problems=(
            *("RW-FORBIDDEN", "RW-CONFLICT", "RW-CONFIG", "RW-KEY-TYPE", "RW-CEREMONY", "RW-CSR-SUBJECT"),
            *("RW-VALIDITY", "RW-NOT-FOUND", "RW-KEY-BLOCKED", "RW-KEY-FILE", "RW-KEK", "RW-FROZEN"),
        ),
    ),
    Operation(
        name="getAuthorityRequest",
        method="GET",
        path=_ONE + "/request",
        handler=asked_for,
        summary="The request for the certificate of an authority that waits for it.",
        result=PaperBody,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="withdrawAuthority",
        method="POST",
        path=_ONE + "/withdraw",
        handler=withdraw,
        summary="Give up an authority that waits for its certificate.",
        body=Empty,
        lenient=True,
        result=PaperBody,
        idempotent=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="installAuthority",
        method="POST",
        path=_ONE + "/certificate",
        handler=install,
        summary="Take the certificate that somebody else's CA made for an authority that waits for it.",
        body=ChainBody,
        result=authorities.AuthorityBody,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-CERTIFICATE", "RW-KEY-MISMATCH", "RW-IMPORT-KEY"),
    ),
    Operation(
        name="revokeAuthority",
        method="POST",
        path=_ONE + "/revoke",
        handler=revoke,
        summary="Revoke the certificate of an authority, once a second person agrees: it and all below issue no more.",
        body=RevokeBody,
        lenient=True,
        result=authorities.AuthorityBody,
        also={202: ProposalBody},
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-ALREADY-REVOKED"),
    ),
    Operation(
        name="requestCrl",
        method="POST",
        path=_ONE + "/crl-request",
        handler=ask_crl,
        summary="The request for the next CRL of an offline authority, with all that is revoked under it now.",
        body=Empty,
        lenient=True,
        result=PaperBody,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT"),
    ),
    Operation(
        name="listCeremonyRequests",
        method="GET",
        path="/ceremony-requests",
        handler=papers_open,
        summary="What offline authorities are asked to sign, and have not yet.",
        result=Page[PaperBody],
        paged=True,
    ),
    Operation(
        name="importCeremony",
        method="POST",
        path="/ceremonies",
        handler=take_in,
        summary="Take in the result of a ceremony: all of it or nothing.",
        body=ResultBody,
        result=CeremonyBody,
        status=201,
        idempotent=True,
        largest=_LARGEST,
        admits=_may_import,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-CEREMONY"),
    ),
    Operation(
        name="listCeremonies",
        method="GET",
        path="/ceremonies",
        handler=ceremonies,
        summary="The ceremonies whose results were taken in, newest first.",
        result=Page[CeremonyBody],
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="getCeremony",
        method="GET",
        path="/ceremonies/{id}",
        handler=ceremony,
        summary="One ceremony: its script, its transcript and what it made.",
        result=CeremonyDetail,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="listParticipants",
        method="GET",
        path="/ceremony-participants",
        handler=participants,
        summary="Whose signatures under transcripts count here.",
        result=Page[ParticipantBody],
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="forgetParticipant",
        method="POST",
        path="/ceremony-participants/forget",
        handler=forget,
        summary="Let a participant's signature count no more.",
        body=ForgetBody,
        result=ParticipantBody,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-NOT-FOUND", "RW-CONFLICT"),
    ),
)
