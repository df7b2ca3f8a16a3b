"""When a person must agree first: one parked request for one (principal, profile, names, and the key where approvals
bind it).

A yes is bound to the plan's hash (or, by the profile's choice, to the names), expires, and goes into one intent only.
Deciding is in `ca/approve.py`; the road only asks here whether there is a yes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, Principal
from rootward.ca.installation import Installation
from rootward.core.csr import parse_csr
from rootward.core.names import parse_name
from rootward.core.plan import Ask, Plan
from rootward.core.problems import Problem
from rootward.core.times import parse_duration
from rootward.store import events, requests
from rootward.store.errors import Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.requests import Parked
from rootward.store.rows import Rows


class ParkedAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """An ask as it is kept: what is needed to admit it anew. `lifetime` is in seconds, `csr` DER."""

    profile: str
    csr: bytes
    lifetime: int | None = None
    owner: str | None = None
    labels: dict[str, str] = {}
    replaces: str | None = None
    names: tuple[str, ...] | None = None


def pack(ask: Ask) -> str:
    """An ask as JSON, to be admitted anew later."""
    lifetime = None if ask.lifetime is None else int(ask.lifetime.total_seconds())
    names = None if ask.names is None else tuple(map(str, ask.names))
    parked = ParkedAsk(ask.profile, ask.csr.der, lifetime, ask.owner, dict(ask.labels), ask.replaces, names)
    return msgspec.json.encode(parked).decode()


def unpack(text: str) -> Ask:
    """The inverse of `pack`; the CSR is checked again."""
    parked = msgspec.json.decode(text, type=ParkedAsk)
    lifetime = None if parked.lifetime is None else timedelta(seconds=parked.lifetime)
    names = None if parked.names is None else tuple(map(parse_name, parked.names))
    csr, owner, labels, replaces = parse_csr(parked.csr), parked.owner, parked.labels, parked.replaces
    return Ask(parked.profile, csr, lifetime, owner, labels, replaces, names=names)


# Ties an idempotency key to the request of this id, in the transaction that parks it.
Claim = Callable[[str, datetime], Rows]


async def agreement(inst: Installation, plan: Plan, ask: Ask, caller: Caller, claim: Claim | None) -> Parked:
    """The open request for this plan, parked now where there is none. Its status says whether there is a yes."""
    # An ACME client does not wait and makes a new key for its next order: its yes is to the names (RFC 8555 7.4).
    binds = "names" if caller.principal.kind == "account" else plan.policy.profile.approval.binds
    row = _row(plan, ask, caller.principal, binds, inst.clock())
    return await _one(inst, row, caller, claim)


async def foreseen(inst: Installation, plan: Plan, ask: Ask, account: Principal, caller: Caller) -> Parked:
    """As `agreement`, before there is an order of the account: `caller` asks in its place, and the account's next order
    for these names finds the answer. Of the plan only that counts which no later CSR can change.
    """
    row = _row(plan, ask, account, "names", inst.clock())
    promise = {"plan": plan.promise_hash, "summary": msgspec.json.encode(plan.promise).decode()}
    return await _one(inst, row | promise | {"asked_by": caller.principal.id}, caller, None)


def _row(plan: Plan, ask: Ask, principal: Principal, binds: str, now: datetime) -> dict[str, Any]:
    """A request of `principal`, by column."""
    facts = plan.facts
    return {
        "id": new_id(),
        "principal": principal.id,
        "authority": facts["authority"],
        "profile": facts["profile"],
        "profile_version": facts["version"],
        "names": msgspec.json.encode(facts["names"]).decode(),
        "binds": binds,
        "binding": plan.binding(principal.id, binds),
        "plan": plan.hash,
        "summary": msgspec.json.encode(facts).decode(),
        "ask": pack(ask),
        "created_at": now,
        "expires_at": now + parse_duration(plan.policy.profile.approval.expires),
    }


async def _one(inst: Installation, row: dict[str, Any], caller: Caller, claim: Claim | None) -> Parked:
    """The open request with the row's binding: the one that is there, or this one, parked now."""
    id, binding, now = row["id"], row["binding"], row["created_at"]
    found = await inst.db.look(lambda conn: requests.open_by_binding(conn, binding))
    if found is not None and found.status(now) != "expired":
        if claim is not None and found.status(now) == "waiting":
            await _claim(inst, claim(found.id, now))
        return found

    def park(conn: Connection) -> Parked | None:
        requests.park(row).run(conn)
        if claim is not None:
            claim(id, now).run(conn)
        parked = requests.by_id(conn, id)
        if parked is not None:
            account = None if parked.asked_by is None else parked.principal
            said: dict[str, object] = {"plan": parked.plan, "sha256": parked.sha256, "account": account}
            event(parked, "request.parked", caller, now, said).run(conn)
        return parked

    failpoint("park.asked")
    try:
        parked = await inst.db.write(park)
        failpoint("park.stored")
    except Taken:  # the same was asked for twice at one moment: both get the one that is there
        parked = await inst.db.look(lambda conn: requests.open_by_binding(conn, binding))
        if parked is not None and claim is not None:
            await _claim(inst, claim(parked.id, now))
    if parked is None:
        raise Problem("RW-STORE", "The request was parked and cannot be read.", retry_after=5)
    return parked


async def _claim(inst: Installation, claim: Rows) -> None:
    """Tie one more idempotency key to a request that is there."""
    with suppress(Taken):  # the same ask with the same key, a moment before
        await inst.db.write(claim)
        failpoint("park.claimed")


def event(request: Parked, kind: str, caller: Caller, at: datetime, data: dict[str, object]) -> Rows:
    """An event about a request."""
    return events.record(
        kind,
        actor=caller.principal.id,
        authority=request.authority,
        certificate=None,
        request_id=caller.request_id,
        data={"request": request.id, "profile": request.profile, **data},
        at=at,
    )
