"""New authorities and their ends, as far as paper travels: what is asked of offline authorities, and somebody else's
certificates.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import authorities as verbs
from rootward.ca import ending
from rootward.ca.access import require
from rootward.core.answer import MAX_SIZE
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.revocation import parse_reason
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.protocols.rest import authorities
from rootward.protocols.rest.ceremonies import see_all
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
from rootward.store.paperwork import Asked
from rootward.store.proposals import Proposal

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
    request file, byte for byte, and `sha256` its hash. `csr` is there where a new authority asks for its certificate.
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


def paper_body(one: Asked) -> PaperBody:
    """A request as the API says it."""
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
    return msgspec.structs.replace(paper_body(one), csr=pem)


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
    see_all(call.principal)
    pending, asked = await verbs.request(call.inst, call.path["name"])
    return Answer(with_csr(asked, pending.csr))


async def withdraw(call: Call) -> Answer:
    """The request, which nobody shall answer any more."""
    _, asked = await verbs.request(call.inst, call.path["name"])
    await verbs.withdraw(call.inst, call.path["name"], call.caller)
    found = await call.inst.db.read(lambda conn: papers.request(conn, asked.id))
    return Answer(paper_body(found or asked))


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
    return Answer(paper_body(await ending.crl_request(call.inst, call.path["name"], call.caller)))


async def papers_open(call: Call) -> Answer:
    """Every open request, as far as the caller sees whom it is about."""
    found = await call.inst.db.read(papers.open_requests)
    online = {one.name for one in call.inst.authorities.values() if one.backend is not None}
    seen = [one for one in found if one.authority not in online and may_see(call.principal, one.authority or None)]
    page = call.cut(seen, lambda one: f"{one.n:020}")
    return Answer(Page([paper_body(one) for one in page.items], page.next_cursor))


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
)
