"""`/authorities/{name}/cross-certificates`: further ways from what an authority signed to somebody's trust anchor."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cryptography import x509

from rootward.ca import cross as crossing
from rootward.core.cross import MAX_SIZE
from rootward.core.times import rfc3339
from rootward.protocols.rest import authorities
from rootward.protocols.rest.operation import Answer, Call, Empty, Line, Moment, Operation, Page, moment
from rootward.protocols.rest.paperwork import PaperBody, paper_body
from rootward.store.cross import Cross

_PATH = "/authorities/{name}/cross-certificates"
_ASKED = _PATH + "/requests"

Chain = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        description=f"PEM, the cross-signed certificate first, then what is above it; {MAX_SIZE} bytes at most.",
    ),
]


class ChainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A self-signed root at the end is left out."""

    chain: Chain

    def __repr__(self) -> str:
        return "ChainBody(…)"  # somebody may send a private key in it


class ByBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`by` is the offline authority whose ceremony shall sign."""

    by: Line


class CrossBody(msgspec.Struct, frozen=True, kw_only=True):
    """Issuer, times and `sha256` are those of the cross-signed certificate; `chain` is PEM and begins with it.

    `added_at` is since when it is in use, `removed_at` null while it is.
    """

    sha256: str
    issuer: str
    not_before: Moment
    not_after: Moment
    chain: str
    added_at: Moment
    removed_at: Moment | None


def body(found: Cross) -> CrossBody:
    """A cross-signed certificate as the API says it."""
    certificate = x509.load_pem_x509_certificate(found.chain)
    return CrossBody(
        sha256=found.sha256,
        issuer=certificate.issuer.rfc4514_string(),
        not_before=rfc3339(certificate.not_valid_before_utc),
        not_after=rfc3339(certificate.not_valid_after_utc),
        chain=found.chain.decode(),
        added_at=rfc3339(found.created_at),
        removed_at=moment(found.removed_at),
    )


async def listed(call: Call) -> Answer:
    """A page of those in use, the oldest first."""
    await authorities.shown(call)  # what the caller may not see is not there
    found = await crossing.listed(call.inst, call.path["name"])
    page = call.cut(found, lambda one: f"{one.n:020}")
    return Answer(Page([body(one) for one in page.items], page.next_cursor))


async def add(call: Call) -> Answer:
    """The new one."""
    given: ChainBody = call.body
    await authorities.shown(call)
    return Answer(body(await crossing.add(call.inst, call.path["name"], given.chain.encode(), call.caller)), 201)


async def remove(call: Call) -> Answer:
    """The one that is no longer in use."""
    await authorities.shown(call)
    return Answer(body(await crossing.remove(call.inst, call.path["name"], call.path["sha256"], call.caller)))


async def ask(call: Call) -> Answer:
    """The request that travels."""
    given: ByBody = call.body
    return Answer(paper_body(await crossing.ask(call.inst, call.path["name"], given.by, call.caller)), 201)


async def withdraw(call: Call) -> Answer:
    """The request, which nobody shall answer any more."""
    given: ByBody = call.body
    return Answer(paper_body(await crossing.withdraw(call.inst, call.path["name"], given.by, call.caller)))


OPERATIONS = (
    Operation(
        name="listCrossCertificates",
        method="GET",
        path=_PATH,
        handler=listed,
        summary="The cross-signed certificates of an authority, the oldest first.",
        result=Page[CrossBody],
        paged=True,
    ),
    Operation(
        name="addCrossCertificate",
        method="POST",
        path=_PATH,
        handler=add,
        summary="Add a cross-signed certificate, with the chain above it.",
        body=ChainBody,
        result=CrossBody,
        status=201,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-CROSS", "RW-IMPORT-KEY", "RW-TOO-LARGE", "RW-CONFLICT"),
    ),
    Operation(
        name="removeCrossCertificate",
        method="POST",
        path=_PATH + "/{sha256}/remove",
        handler=remove,
        summary="Use a cross-signed certificate no longer.",
        body=Empty,
        lenient=True,
        result=CrossBody,
        idempotent=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="requestCrossCertificate",
        method="POST",
        path=_ASKED,
        handler=ask,
        summary="Ask the ceremony of an offline authority for a cross-signed certificate of another one.",
        body=ByBody,
        result=PaperBody,
        status=201,
        idempotent=True,
        problems=(
            *("RW-FORBIDDEN", "RW-CONFLICT", "RW-CROSS", "RW-CEREMONY", "RW-CSR-SUBJECT", "RW-VALIDITY"),
            *("RW-KEY-BLOCKED", "RW-NAME-CONSTRAINED"),
        ),
    ),
    Operation(
        name="withdrawCrossRequest",
        method="POST",
        path=_ASKED + "/withdraw",
        handler=withdraw,
        summary="Take back what was asked of that ceremony.",
        body=ByBody,
        result=PaperBody,
        idempotent=True,
        problems=("RW-FORBIDDEN",),
    ),
)
