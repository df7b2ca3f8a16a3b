"""From a ready order to its certificate (RFC 8555 7.4): the CSR is compared with the order, and the one road does the
rest.

An order is finalized by the very transaction that writes its certificate's intent, and valid by the one that writes the
signature, so that there is nothing in between that a crash could leave behind (I-50). What waits is carried on when its
client asks for the order: where a person agreed, where an attempt came to nothing. Nobody carries on an order whose
client gave up, and so a yes is never used up by a key that was thrown away.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec
from sqlalchemy import Connection

from rootward.core.acme import Identifier
from rootward.core.csr import Csr, parse_csr
from rootward.core.jwk import thumbprint_of
from rootward.core.names import parse_dns
from rootward.core.problems import Kind, Problem, shown
from rootward.protocols.acme import issuing
from rootward.protocols.acme import order as ordering
from rootward.protocols.acme.access import may_order, policy_of
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.documents import name_of, octets
from rootward.protocols.acme.problems import AcmeError, document_of
from rootward.store import accounts
from rootward.store.failpoint import failpoint
from rootward.store.orders import Order

_TRIES: Final = 4  # where somebody else was first with the order, or with the yes that it would have used
_TOLD: Final = 3  # names in one sentence
_FINAL = (Kind.MALFORMED, Kind.POLICY, Kind.FORBIDDEN, Kind.TOO_LARGE)  # refusals that asking again does not change


class Finalize(msgspec.Struct, frozen=True):
    """The payload: a CSR's DER in base64url without padding."""

    csr: str


async def finalize(call: Call, where: dict[str, str]) -> Answer:
    """Asks for the certificate. The same once more changes nothing; of many at once one counts. What is refused leaves
    the order ready; what fails once it has begun leaves it processing, and its client goes on by asking for it.
    """
    payload = call.decode(Finalize)
    order = await ordering.own_order(call, where["id"])
    csr = _csr(payload.csr)
    refusal: AcmeError | Problem | None = None
    for _ in range(_TRIES):
        if order.finalized_at is not None:
            break
        refusal = await _begin(call, order, csr)
        order = await ordering.own_order(call, order.id)
        if refusal is not None and not _was_second(refusal):
            break
    if order.finalized_at is None:
        raise refusal or Problem("RW-IN-PROGRESS", "The order is being worked on; ask again.", retry_after=1)
    if order.csr != csr.der:
        raise AcmeError("orderNotReady", "The order was finalized with another CSR.", status=403)
    return await ordering.answer(call, order)


def _was_second(refusal: AcmeError | Problem) -> bool:
    return isinstance(refusal, Problem) and refusal.code == "RW-IN-PROGRESS"


async def _begin(call: Call, order: Order, csr: Csr) -> AcmeError | Problem | None:
    """One try at an order that is not finalized; what is against it."""
    try:
        state = await ordering.status_of(call, order)
        if state != "ready":
            raise AcmeError("orderNotReady", f"The order is {state}; it is finalized when it is ready.", status=403)
        policy = await policy_of(call, order.profile)
        principal = may_order(call, policy)
        await _check_csr(call, order, csr)
        failpoint("acme.finalize")
        await issuing.issue(call, order, csr, policy, principal)
        failpoint("acme.finalized")
    except (AcmeError, Problem) as refusal:
        return refusal
    return None


async def carry_on(call: Call, order: Order) -> Order:
    """An order that is processing, one step further where that is possible now; as it stands then."""
    try:
        if await issuing.waits(call, order):
            return order
        policy = await policy_of(call, order.profile)
        await issuing.issue(call, order, parse_csr(order.csr or b""), policy, may_order(call, policy))
    except AcmeError as error:
        await issuing.refuse(call, order, document_of(error))
    except Problem as problem:
        if problem.kind is Kind.INTERNAL:
            raise
        if problem.kind in _FINAL:
            await issuing.refuse(call, order, document_of(problem))
        # else: not now, or another request carried it on; the client asks again
    return await ordering.own_order(call, order.id)


def _csr(text: str) -> Csr:
    """The CSR, or badCSR: unlike REST, ACME takes DER alone."""
    data = octets(text, "csr")
    if data[:1] != b"\x30":
        raise AcmeError("badCSR", "csr is the DER of a certification request in base64url.")
    return parse_csr(data)


async def _check_csr(call: Call, order: Order, csr: Csr) -> None:
    """badCSR where its names are not the order's, or its key is an account's, whoever's (RFC 8555 7.4, 11.1). A DNS
    name may stand in the common name alone; nothing that was not proved stands there, whatever else the profile takes.
    """
    wrong: list[str] = []
    ordered = {name_of(text) for text in order.names}
    asked = set(csr.names)
    if csr.common_name is not None:
        common = _common_name(csr.common_name)
        if common in ordered:
            asked |= {common}
        else:
            wrong.append(f"The common name {shown(csr.common_name)} is none of the order's DNS names.")
    for names, why in ((ordered - asked, "is ordered and not in the CSR"), (asked - ordered, "is not ordered")):
        wrong += [f"{shown(text, 300)} {why}." for text in sorted(map(str, names))[:_TOLD]]
    thumbprint = thumbprint_of(csr.public_key.key)

    def is_known(conn: Connection) -> bool:
        return thumbprint is not None and accounts.by_thumbprint(conn, thumbprint) is not None

    if await call.inst.db.look(is_known):
        wrong.append("The key of an account cannot be the key of a certificate.")
    if wrong:
        raise AcmeError("badCSR", " ".join(wrong))


def _common_name(text: str) -> Identifier | None:
    with suppress(Problem):
        return parse_dns(text)
    return None
