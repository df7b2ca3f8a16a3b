"""An order on the one road: each attempt at its certificate, its wait for a person, and its end without one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection

from rootward.ca import issue as road
from rootward.ca.access import Caller, Principal
from rootward.ca.issue import Ask, Issued, Pending
from rootward.core.csr import Csr
from rootward.core.plan import Policy
from rootward.core.problems import Kind, Problem
from rootward.protocols.acme import order as ordering
from rootward.protocols.acme.call import Call
from rootward.protocols.acme.documents import name_of
from rootward.protocols.acme.problems import AcmeError, Document
from rootward.store import certificates, orders, requests
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.orders import Order
from rootward.store.rows import Rows

PAUSE: Final = timedelta(seconds=10)  # after an attempt that came to nothing, however often the client asks


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
            rows = orders.finalize(self.order, csr=self.csr, at=at, certificate=certificate)
        else:
            rows = orders.attempt(self.order, certificate=certificate, at=at)
        return self.call.nonce_rows() + rows

    def issued(self, certificate: str, at: datetime) -> Rows:
        return orders.settle(self.order.id, certificate=certificate, at=at)


async def issue(call: Call, order: Order, csr: Csr, policy: Policy, principal: Principal) -> None:
    """By the one road, or parked until a person agrees. What is refused is raised; RW-IN-PROGRESS: somebody else was
    first with the order or the yes, or an authorization is no longer valid.
    """
    await _check_lineage(call, order)
    if policy.profile.approval.required != "never":
        await call.use_nonce()  # what is parked is written before the order is
    ask = Ask(
        profile=order.profile,
        csr=csr,
        owner=call.account.owner,
        replaces=order.replaces,
        ends=order.not_after,
        names=tuple(name_of(text) for text in order.names),
    )
    try:
        came = await road.issue(
            call.inst, ask, Caller(principal, call.request_id), errand=_Errand(call, order, csr.der)
        )
    except Problem as problem:
        if problem.kind is Kind.UNAVAILABLE and await _has_begun(call, order.id):
            call.spent()
        raise
    if isinstance(came, Issued):
        call.spent()
    else:
        await _park(call, order, csr, came)


async def _has_begun(call: Call, id: str) -> bool:
    """Whether this very request has written an attempt for the order, and used its nonce with it."""

    def read(conn: Connection) -> bool:
        order = orders.by_id(conn, id)
        made = None if order is None or order.certificate is None else certificates.intent(conn, order.certificate)
        return made is not None and made.request_id == call.request_id

    return await call.inst.db.look(read)


async def _park(call: Call, order: Order, csr: Csr, pending: Pending) -> None:
    """A person must agree first: the order waits for that request, and no longer for one that was about something else,
    such as an earlier version of the profile.
    """
    id = pending.request.id
    if order.request == id:
        return
    if order.finalized_at is None:
        rows = orders.finalize(order, csr=csr.der, at=call.inst.clock(), request=id)
    else:
        rows = orders.wait(order, request=id)
    try:
        await call.write(rows)
    except Lost:
        return  # another request was first, or an authorization is no longer valid


async def waits(call: Call, order: Order) -> bool:
    """Whether a finalized order has to wait: for an attempt under way, or for a person. AcmeError where it can never be
    issued any more.
    """
    now = call.inst.clock()
    attempt, request = order.certificate, order.request
    if attempt is not None:
        found = await call.inst.db.look(lambda conn: certificates.intent(conn, attempt))
        if found is not None and found.failed_at is None and found.orphaned_at is None:
            return True  # under way, here or at another process
        if found is not None and found.failed_at is not None and found.failed_at > now - PAUSE:
            return True
    if request is not None:
        parked = await call.inst.db.look(lambda conn: requests.by_id(conn, request))
        status = "expired" if parked is None else parked.status(now)
        if status == "waiting":
            return True
        if status == "denied":
            said = f": {parked.comment}" if parked is not None and parked.comment else "."
            raise AcmeError("unauthorized", f"A person decided against this certificate{said}", status=403)
        if status == "issued" and parked is not None and parked.certificate != attempt:
            detail = "The agreement to this certificate was used by another order for the same names."
            raise AcmeError("unauthorized", detail, status=403)
        if status in ("expired", "failed", "issued"):
            raise AcmeError("unauthorized", "Nobody agreed to this certificate in time.", status=403)
    if order.expires_at <= now:
        raise AcmeError("malformed", "The order expired before its certificate could be issued.")
    if any(one != "valid" for one in await ordering.proofs_of(call, order)):
        raise AcmeError("unauthorized", "An authorization of the order is no longer valid.", status=403)
    return False


async def refuse(call: Call, order: Order, error: Document) -> None:
    """The order is invalid for good, unless an attempt has begun since it was read."""
    text = msgspec.json.encode(error).decode()
    try:
        await call.write(orders.refuse(order, at=call.inst.clock(), error=text))
    except Lost:
        return
    failpoint("acme.refused")


async def _check_lineage(call: Call, order: Order) -> None:
    old = order.replaces
    if old is not None and await call.inst.db.look(lambda conn: certificates.is_replaced(conn, old)):
        raise AcmeError("alreadyReplaced", "The certificate was replaced by another order meanwhile.", status=409)
