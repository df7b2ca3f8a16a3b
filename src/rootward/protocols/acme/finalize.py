"""From a ready order to its certificate (RFC 8555 7.4): the CSR is compared with the order, and the one road does the
rest.

An order is finalized by the very transaction that writes its certificate's intent, and valid by the one that writes the
signature, so that there is nothing in between that a crash could leave behind (I-50). What waits is carried on when its
client asks for the order: where a person agreed, where an attempt came to nothing. Nobody carries on an order whose
client gave up, and so a yes is never used up by a key that was thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from rootward.ca import issue as road
from rootward.ca.access import Caller, Principal
from rootward.ca.issue import Ask, Issued, Pending
from rootward.core.acme import OrderStatus
from rootward.core.csr import Csr, parse_csr
from rootward.core.jwk import stored_jwk
from rootward.core.plan import Policy
from rootward.core.problems import Kind, Problem, Reason
from rootward.core.times import whole_second
from rootward.protocols.acme import orders as ordering
from rootward.protocols.acme.access import may_order, policy_of
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.documents import name_of, octets
from rootward.protocols.acme.problems import AcmeError, Document, document_of
from rootward.store import certificates, orders, requests
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.orders import Order
from rootward.store.rows import Rows

RETRY_AFTER: Final = 3  # seconds; certbot gives up after 90
_FINAL = (Kind.MALFORMED, Kind.POLICY, Kind.FORBIDDEN, Kind.TOO_LARGE)  # refusals that asking again does not change


class Finalize(msgspec.Struct, frozen=True):
    """The payload: a CSR's DER in base64url without padding."""

    csr: str


@dataclass(frozen=True)
class _Errand:
    """What an attempt writes of its order and of the request that it answers."""

    call: Call
    order: Order
    csr: bytes

    @property
    def retry_of(self) -> str | None:
        return self.order.certificate

    def intended(self, certificate: str, at: datetime) -> Rows:
        if self.order.finalized_at is None:
            rows = orders.finalize(self.order.id, csr=self.csr, at=at, certificate=certificate)
        else:
            rows = orders.attempt(self.order.id, certificate=certificate, was=self.order.certificate)
        return self.call.nonce_rows() + rows

    def issued(self, certificate: str, at: datetime) -> Rows:
        return orders.settle(self.order.id, certificate=certificate, at=at)


async def finalize(call: Call, where: dict[str, str]) -> Answer:
    """Asks for the certificate. The same once more changes nothing; of many at once one counts."""
    payload = call.decode(Finalize)
    order, state = await ordering.own_order(call, where["id"])
    csr = _csr(payload.csr)
    if order.finalized_at is not None:
        if order.csr != csr.der:
            raise AcmeError("orderNotReady", "The order was finalized with another CSR.", status=403)
        return await ordering.answer(call, order, state)
    if state != "ready":
        raise AcmeError("orderNotReady", f"The order is {state}; it is finalized when it is ready.", status=403)
    policy = await policy_of(call, order.profile)
    principal = may_order(call, policy)
    _check_csr(call, order, csr)
    failpoint("acme.finalize")
    await _issue(call, order, csr, policy, principal)
    failpoint("acme.finalized")
    return await ordering.answer(call, *await ordering.own_order(call, order.id))


async def carry_on(call: Call, order: Order, state: OrderStatus) -> tuple[Order, OrderStatus]:
    """An order that is processing, one step further where that is possible now; as it stands then."""
    why = await _hindered(call, order)
    if why == "wait":
        return order, state
    if isinstance(why, AcmeError):
        await _refuse(call, order, document_of(why))
    else:
        try:
            policy = await policy_of(call, order.profile)
            await _issue(call, order, parse_csr(order.csr or b""), policy, may_order(call, policy))
        except AcmeError as error:
            await _refuse(call, order, document_of(error))
        except Problem as problem:
            if problem.kind in _FINAL:
                await _refuse(call, order, document_of(problem))
            # else: not now; the client asks again
    return await ordering.own_order(call, order.id)


async def _hindered(call: Call, order: Order) -> AcmeError | str | None:
    """Why an order cannot be issued now: "wait", or for good; None where it can."""
    now = call.inst.clock()
    attempt, request = order.certificate, order.request
    if attempt is not None:
        found = await call.inst.db.look(lambda conn: certificates.intent(conn, attempt))
        if found is not None and found.failed_at is None and found.orphaned_at is None:
            return "wait"  # under way, here or at another process
    elif request is not None:
        parked = await call.inst.db.look(lambda conn: requests.by_id(conn, request))
        status = "expired" if parked is None else parked.status(now)
        if status == "waiting":
            return "wait"
        if status == "denied":
            said = f": {parked.comment}" if parked is not None and parked.comment else "."
            return AcmeError("unauthorized", f"A person decided against this certificate{said}", status=403)
        if status == "issued":
            detail = "The agreement to this certificate was used by another order for the same names."
            return AcmeError("unauthorized", detail, status=403)
        if status in ("expired", "failed"):
            return AcmeError("unauthorized", "Nobody agreed to this certificate in time.", status=403)
    if order.expires_at <= now:
        return AcmeError("malformed", "The order expired before its certificate could be issued.")
    return None


async def _issue(call: Call, order: Order, csr: Csr, policy: Policy, principal: Principal) -> None:
    """By the one road. What it refuses is raised; an order that was not finalized yet stays as it is then."""
    await _check_lineage(call, order)
    ask = Ask(
        profile=order.profile,
        csr=csr,
        lifetime=_lifetime(order, policy, call.inst.clock()),
        owner=call.account.owner,
        replaces=order.replaces,
    )
    caller = Caller(principal, call.request_id)
    try:
        came = await road.issue(call.inst, ask, caller, errand=_Errand(call, order, csr.der))
    except Problem as problem:
        if problem.code == "RW-IN-PROGRESS":
            return  # another finalize of the same order, or another order under the same yes, was first
        raise
    if isinstance(came, Issued):
        call.spent()
    else:
        await _park(call, order, csr, came)


async def _park(call: Call, order: Order, csr: Csr, pending: Pending) -> None:
    """A person must agree first: the order waits for that request."""
    if order.finalized_at is not None:
        return
    rows = orders.finalize(order.id, csr=csr.der, at=call.inst.clock(), request=pending.request.id)
    try:
        await call.write(rows)
    except Lost:
        return  # finalized a moment before
    failpoint("acme.finalized")


async def _refuse(call: Call, order: Order, error: Document) -> None:
    text = msgspec.json.encode(error).decode()
    try:
        await call.write(orders.refuse(order.id, at=call.inst.clock(), error=text))
    except Lost:
        return
    failpoint("acme.refused")


async def _check_lineage(call: Call, order: Order) -> None:
    old = order.replaces
    if old is not None and await call.inst.db.look(lambda conn: certificates.is_replaced(conn, old)):
        raise AcmeError("alreadyReplaced", "The certificate was replaced by another order meanwhile.", status=409)


def _lifetime(order: Order, policy: Policy, now: datetime) -> timedelta | None:
    """So long that the certificate ends when the order says; both ends of a validity count (RFC 5280 4.1.2.5)."""
    if order.not_after is None:
        return None
    return order.not_after - (whole_second(now) - policy.backdate) + timedelta(seconds=1)


def _csr(text: str) -> Csr:
    """The CSR, or badCSR: unlike REST, ACME takes DER alone."""
    data = octets(text, "csr")
    if data[:1] != b"\x30":
        raise AcmeError("badCSR", "csr is the DER of a certification request in base64url.")
    return parse_csr(data)


def _check_csr(call: Call, order: Order, csr: Csr) -> None:
    """badCSR where it is not the order's, or is made with the account's own key (RFC 8555 7.4, 11.1)."""
    reasons: list[Reason] = []
    ordered = {name_of(text) for text in order.names}
    if set(csr.names) != ordered:
        reasons.append(Reason("RW-CSR-SUBJECT", "The CSR's names are not the order's identifiers.", "csr"))
    if csr.public_key.id == stored_jwk(call.account.jwk).id:
        reasons.append(Reason("RW-KEY-BLOCKED", "An account's key cannot be a certificate's key.", "csr"))
    if reasons:
        raise AcmeError("badCSR", " ".join(reason.detail for reason in reasons))
