"""newOrder and the order object (RFC 8555 7.4, RFC 8738, RFC 9773 5, the profiles extension)."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Principal
from rootward.core.acme import (
    MAX_IDENTIFIERS,
    AuthorizationStatus,
    Identifier,
    OrderStatus,
    UnsupportedIdentifier,
    authorization_status,
    distinct,
    order_status,
    read_identifier,
)
from rootward.core.names import DnsName, Name
from rootward.core.plan import Policy
from rootward.core.problems import Problem, shown
from rootward.core.times import parse_duration, parse_time
from rootward.protocols.acme import finalize as finalizing
from rootward.protocols.acme.access import may_name, may_order, policy_of, preauthorized
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.challenges import CHALLENGES
from rootward.protocols.acme.documents import encode, order_document
from rootward.protocols.acme.limits import check_orders
from rootward.protocols.acme.problems import AcmeError, Subproblem, nothing_here
from rootward.protocols.acme.problems import Identifier as About
from rootward.protocols.acme.replacing import read_replaces, replaces_of
from rootward.store import authorizations, orders
from rootward.store.failpoint import failpoint
from rootward.store.orders import Order
from rootward.store.rows import UNFENCED, Rows

ORDER_LIVES: Final = timedelta(days=7)
# A proof that ends sooner than that is not used again: the client needs time to finalize.
_SPARE: Final = timedelta(hours=1)


class WireIdentifier(msgspec.Struct, frozen=True):
    """RFC 8555 9.7.7."""

    type: str
    value: str


class NewOrder(msgspec.Struct, frozen=True, rename={"not_before": "notBefore", "not_after": "notAfter"}):
    """The payload of newOrder."""

    identifiers: list[WireIdentifier]
    not_before: str | None = None
    not_after: str | None = None
    profile: str | None = None
    replaces: str | None = None


async def new_order(call: Call, _where: dict[str, str]) -> Answer:
    """An order with an authorization for each name: one that was proved before, one that is not asked for, or a new
    one.
    """
    wanted = call.decode(NewOrder)
    names = _names(wanted.identifiers)
    policy = await policy_of(call, _profile(call, wanted.profile))
    principal = may_order(call, policy)
    _check_names(call, policy, principal, names)
    not_after = _not_after(wanted, policy, call.inst.clock())
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
        not_after=not_after,
        replaces=None if old is None else old.id,
        at=now,
        expires_at=now + ORDER_LIVES,
    )
    await call.write(sum((one.rows for one in found), orders.add(order)))
    failpoint("acme.order-stored")
    state = order_status(order.facts, [one.status for one in found], now)
    return await answer(call, order, state, status=201)


async def show(call: Call, where: dict[str, str]) -> Answer:
    """The order as it stands. One that waits is carried on where its wait is over: by its client's asking, so that a
    yes never goes to an order that its client gave up.
    """
    call.require_get()
    order, state = await own_order(call, where["id"])
    if order.finalized_at is not None and order.settled_at is None:
        order, state = await finalizing.carry_on(call, order, state)
    return await answer(call, order, state)


async def own_order(call: Call, id: str) -> tuple[Order, OrderStatus]:
    """The account's order of this id, and its status (RFC 8555 7.1.6); another's is as good as none (I-48)."""
    now = call.inst.clock()

    def read(conn: Connection) -> tuple[Order, OrderStatus] | None:
        order = orders.by_id(conn, id)
        if order is None or order.account != call.account.id:
            return None
        if order.finalized_at is not None or order.settled_at is not None:
            return order, order_status(order.facts, (), now)
        found = [authorizations.by_id(conn, one) for one in order.authorization_ids]
        statuses = ["invalid" if one is None else authorization_status(one.facts, now) for one in found]
        return order, order_status(order.facts, statuses, now)

    own = await call.inst.db.look(read)
    if own is None:
        raise nothing_here()
    return own


async def answer(call: Call, order: Order, state: OrderStatus, *, status: int = 200) -> Answer:
    """The order object, with Location, and with Retry-After while it is worked on."""
    base = call.url("/acme")
    headers = [(b"location", f"{base}/order/{order.id}".encode())]
    if state == "processing":
        headers.append((b"retry-after", b"%d" % finalizing.RETRY_AFTER))
    document = order_document(order, state, base, replaces=await replaces_of(call.inst, order))
    if call.settings.chaos:
        random.shuffle(document["authorizations"])  # clients must not rely on their order
    return Answer(status, encode(document), tuple(headers))


def new_url_id() -> str:
    """128 random bits in base64url: what stands in a URL is not to be guessed (I-48)."""
    return secrets.token_urlsafe(16)


def _profile(call: Call, asked: str | None) -> str:
    if call.directory is None:
        return asked or call.settings.profile
    if asked not in (None, call.directory):
        raise AcmeError("invalidProfile", f"This directory is for the profile {call.directory} alone.")
    return call.directory


def _names(given: Sequence[WireIdentifier]) -> tuple[Identifier, ...]:
    if not given:
        raise AcmeError("malformed", "An order names at least one identifier.")
    if len(given) > MAX_IDENTIFIERS:
        raise AcmeError("malformed", f"An order names at most {MAX_IDENTIFIERS} identifiers.")
    names: list[Identifier] = []
    wrong: list[Subproblem] = []
    for one in given:
        about = About(one.type[:20], one.value[:300])
        try:
            names.append(read_identifier(one.type, one.value))
        except UnsupportedIdentifier:
            detail = f"Identifiers of type {shown(one.type)} are not supported; dns and ip are."
            wrong.append(Subproblem("unsupportedIdentifier", detail, about))
        except Problem as problem:
            wrong.append(Subproblem("malformed", problem.detail, about))
    if wrong:
        raise _all(wrong)
    return distinct(names)


def _check_names(call: Call, policy: Policy, principal: Principal, names: Sequence[Identifier]) -> None:
    """rejectedIdentifier for what the profile, its issuer or the account's binding does not allow, all at once; and
    for what nothing that the profile allows could prove.
    """
    refused = policy.refused_names(names, principal.identity())
    wrong = [
        Subproblem("rejectedIdentifier", reason.detail, None if name is None else _about(name))
        for name, reason in refused
    ]
    told = {name for name, _ in refused}
    for name in names:
        if name in told:
            continue
        if not may_name(call.account, name):
            detail = f"{shown(str(name), 300)} is outside what this account may ask for."
            wrong.append(Subproblem("rejectedIdentifier", detail, _about(name)))
        elif not preauthorized(call.account, name) and not _offered(policy, name):
            detail = f"The profile allows no challenge that could prove {shown(str(name), 300)}."
            wrong.append(Subproblem("rejectedIdentifier", detail, _about(name)))
    if wrong:
        raise _all(wrong)


def _not_after(wanted: NewOrder, policy: Policy, now: datetime) -> datetime | None:
    """When the certificate is to end, where the order says so; the profile's bounds are checked with the CSR too."""
    if wanted.not_before is not None and abs(_time(wanted.not_before, "notBefore") - now) > policy.backdate + _SPARE:
        raise AcmeError("malformed", "Certificates begin when they are made: leave notBefore out.")
    if wanted.not_after is None:
        return None
    end = _time(wanted.not_after, "notAfter")
    lifetime = end - now
    rules = policy.profile.lifetime
    if not parse_duration(rules.minimum) <= lifetime <= parse_duration(rules.maximum):
        detail = f"The profile {policy.profile.name} gives lifetimes of {rules.minimum} to {rules.maximum}."
        raise AcmeError("malformed", detail)
    return end


def _time(text: str, field: str) -> datetime:
    try:
        return parse_time(text)
    except Problem:
        raise AcmeError("malformed", f"{field} is a time such as 2026-11-23T17:46:41Z.") from None


def _about(name: Name) -> About:
    kind, _, value = str(name).partition(":")
    return About(kind, value)


def _all(wrong: list[Subproblem]) -> AcmeError:
    """Everything that is wrong with the identifiers; of one kind, or malformed where it is several (6.7.1)."""
    kinds = {one.type for one in wrong}
    detail = " ".join(one.detail for one in wrong[:3]) + (" …" if len(wrong) > 3 else "")
    return AcmeError(kinds.pop() if len(kinds) == 1 else "malformed", detail, subproblems=tuple(wrong))


@dataclass(frozen=True)
class _Ours:
    """An authorization of the order, and its row where it is new."""

    id: str
    status: AuthorizationStatus
    rows: Rows


async def _authorizations(call: Call, policy: Policy, names: Sequence[Identifier], now: datetime) -> list[_Ours]:
    """One for each name, in their order: proved before (RFC 8555 7.1.4), owned by the account's binding, or new."""
    reuse = parse_duration(policy.profile.acme.reuse)
    account = call.account

    def read(conn: Connection) -> list[str | None]:
        found: list[str | None] = []
        for name in names:
            base, wildcard = _split(name)
            one = authorizations.reusable(
                conn, account.id, base, wildcard=wildcard, since=now - reuse, until=now + _SPARE
            )
            usable = one is not None and _still_allowed(policy, one.challenge) and not preauthorized(account, name)
            found.append(one.id if one is not None and usable else None)
        return found

    made: list[_Ours] = []
    for name, before in zip(names, await call.inst.db.look(read), strict=True):
        if before is not None:
            made.append(_Ours(before, "valid", UNFENCED))
            continue
        base, wildcard = _split(name)
        owned = preauthorized(account, name)
        new = authorizations.New(
            id=new_url_id(),
            account=account.id,
            name=base,
            wildcard=wildcard,
            token=secrets.token_urlsafe(32),
            offered=_offered(policy, name),
            created_at=now,
            expires_at=now + ORDER_LIVES,
        )
        rows = authorizations.add_preauthorized(new) if owned else authorizations.add(new)
        made.append(_Ours(new.id, "valid" if owned else "pending", rows))
    return made


def _offered(policy: Policy, name: Identifier) -> tuple[str, ...]:
    """The challenges that the profile allows and that can prove such a name."""
    allowed = policy.profile.acme.challenges or tuple(CHALLENGES)
    return tuple(kind for kind in allowed if kind in CHALLENGES and CHALLENGES[kind].offered(name))


def _still_allowed(policy: Policy, challenge: str | None) -> bool:
    """Whether the profile takes this type of proof; one that was not asked for is never used again."""
    return challenge in (policy.profile.acme.challenges or CHALLENGES)


def _split(name: Identifier) -> tuple[str, bool]:
    """The name without a wildcard's star, as it is stored, and whether it has one."""
    if isinstance(name, DnsName):
        return f"dns:{name.base}", name.wildcard
    return str(name), False
