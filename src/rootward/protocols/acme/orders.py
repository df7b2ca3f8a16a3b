"""newOrder, and an order's URL (RFC 8555 7.4, RFC 8738, RFC 9773 5, the profiles extension)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from rootward.core.acme import AuthorizationStatus, Identifier, order_status
from rootward.core.names import DnsName
from rootward.core.plan import Policy
from rootward.core.times import parse_duration
from rootward.protocols.acme import finalize as finalizing
from rootward.protocols.acme.access import may_order, policy_of, preauthorized
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.challenges import CHALLENGES
from rootward.protocols.acme.limits import check_orders
from rootward.protocols.acme.order import answer, answer_as, own_order
from rootward.protocols.acme.replacing import read_replaces
from rootward.protocols.acme.wanted import (
    NewOrder,
    check_names,
    latest_start,
    offered,
    profile_name,
    read_end,
    read_names,
)
from rootward.store import authorizations, orders
from rootward.store.authorizations import Authorization
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

ORDER_LIVES: Final = timedelta(days=7)
# A proof that ends sooner than that is not used again: the client needs time to finalize.
_SPARE: Final = timedelta(hours=1)


async def new_order(call: Call, _where: dict[str, str]) -> Answer:
    """An order with an authorization for each name: one that was proved before, one that is not asked for, or a new
    one.
    """
    wanted = call.decode(NewOrder)
    names = read_names(wanted.identifiers)
    policy = await policy_of(call, profile_name(call, wanted.profile))
    principal = may_order(call, policy)
    check_names(call, policy, principal, names)
    end = read_end(wanted, policy, call.inst.clock())
    await check_orders(call)
    old = None if wanted.replaces is None else await read_replaces(call, wanted.replaces, names)
    now, id = call.inst.clock(), new_url_id()
    found = await _authorizations(call, policy, names, now)
    order = orders.new(
        id,
        account=call.account.id,
        profile=policy.profile.name,
        names=[str(name) for name in names],
        authorizations=[one.id for one in found],
        not_after=end,
        replaces=None if old is None else old.id,
        at=now,
        expires_at=_expiry(policy, end, found, now),
    )
    await call.write(sum((one.rows for one in found), orders.add(order)))
    failpoint("acme.order-stored")
    state = order_status(order.facts, [one.status for one in found], now)
    return await answer_as(call, order, state, status=201)


async def show(call: Call, where: dict[str, str]) -> Answer:
    """The order as it stands. One that waits is carried on where its wait is over: by its client's asking, so that a
    yes never goes to an order that its client gave up.
    """
    call.require_get()
    order = await own_order(call, where["id"])
    if order.finalized_at is not None and order.settled_at is None:
        order = await finalizing.carry_on(call, order)
    return await answer(call, order)


def new_url_id() -> str:
    """128 random bits in base64url: what stands in a URL is not to be guessed (I-48)."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class _Ours:
    """An authorization of the order, when it ends, and its row where it is new."""

    id: str
    status: AuthorizationStatus
    expires_at: datetime
    rows: Rows


async def _authorizations(call: Call, policy: Policy, names: Sequence[Identifier], now: datetime) -> list[_Ours]:
    """One for each name, in their order: proved before (RFC 8555 7.1.4), owned by the account's binding, or new."""
    reuse = parse_duration(policy.profile.acme.reuse)
    account = call.account

    def read(conn: Connection) -> list[Authorization | None]:
        found: list[Authorization | None] = []
        for name in names:
            base, wildcard = _split(name)
            one = authorizations.reusable(
                conn, account.id, base, wildcard=wildcard, since=now - reuse, until=now + _SPARE
            )
            usable = one is not None and _still_allowed(policy, one.challenge) and not preauthorized(account, name)
            found.append(one if usable else None)
        return found

    made: list[_Ours] = []
    for name, before in zip(names, await call.inst.db.look(read), strict=True):
        if before is not None:
            made.append(_Ours(before.id, "valid", before.expires_at, UNFENCED))
            continue
        base, wildcard = _split(name)
        owned = preauthorized(account, name)
        new = authorizations.New(
            id=new_url_id(),
            account=account.id,
            name=base,
            wildcard=wildcard,
            token=secrets.token_urlsafe(32),
            offered=offered(policy, name),
            created_at=now,
            expires_at=now + ORDER_LIVES,
        )
        rows = authorizations.add_preauthorized(new) if owned else authorizations.add(new)
        made.append(_Ours(new.id, "valid" if owned else "pending", new.expires_at, rows))
    return made


def _expiry(policy: Policy, end: datetime | None, proofs: Sequence[_Ours], now: datetime) -> datetime:
    """Until when the order can be fulfilled (RFC 8555 7.4): as long as what was proved before is valid, and what is
    left until the end that it wants is no shorter than the profile's shortest lifetime.
    """
    ends = [now + ORDER_LIVES, *(one.expires_at for one in proofs)]
    if end is not None:
        ends.append(latest_start(policy, end))
    return min(ends)


def _still_allowed(policy: Policy, challenge: str | None) -> bool:
    """Whether the profile takes this type of proof; one that was not asked for is never used again."""
    return challenge in (policy.profile.acme.challenges or CHALLENGES)


def _split(name: Identifier) -> tuple[str, bool]:
    """The name without a wildcard's star, as it is stored, and whether it has one."""
    if isinstance(name, DnsName):
        return f"dns:{name.base}", name.wildcard
    return str(name), False
