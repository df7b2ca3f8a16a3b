"""ACME accounts as principals: made, changed, ended; and what they may do (RFC 8555 7.3).

An account may ask under a profile that is open to everybody, under one that wants a binding where its binding covers
it, and where a role was granted to it as to anybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy import Connection

from rootward.ca import bindings
from rootward.ca.access import Caller, Principal, require
from rootward.ca.bindings import READERS, Scope, authorities_of, scope_of
from rootward.ca.installation import Installation
from rootward.core.jwk import Fault, JoseError, Jwk, b64encode
from rootward.core.problems import Problem
from rootward.core.profile import Profile
from rootward.core.roles import Grant, Role
from rootward.store import accounts, authorizations, blocked, events, people, profiles
from rootward.store.accounts import Account
from rootward.store.bindings import Binding
from rootward.store.errors import Lost
from rootward.store.rows import Rows

Write = Callable[[Rows], Awaitable[None]]  # one transaction of the door's


class New(msgspec.Struct, frozen=True):
    """What an account is made of. `address` is where it comes from, for the limits; `terms`: it agreed to them."""

    jwk: Jwk
    contacts: tuple[str, ...]
    terms: bool
    binding: Binding | None
    address: str


class BindingSpent(Exception):
    """The binding has no use left, is revoked or has expired, since it was looked at."""


def principal(account: Account) -> Principal:
    """Who an account is, with what was granted to it and nothing more."""
    held = tuple(Grant(Role(role), authority, profile) for role, authority, profile in account.grants)
    return Principal(account.id, "account", name_of(account.id), held)


def principal_of(account: Account, profile: Profile) -> Principal:
    """Who an account is when it asks under a profile."""
    who = principal(account)
    if not covers(account, profile):
        return who
    own = Grant(Role.REQUESTER, profile.authority, profile.name)
    return Principal(who.id, who.kind, who.name, (*who.grants, own))


def covers(account: Account, profile: Profile) -> bool:
    """Whether a profile is open to this account by itself: to everybody, or by its binding."""
    if account.profile not in (None, profile.name):
        return False
    return profile.acme.accounts == "open" or (profile.acme.accounts == "bound" and account.binding is not None)


def name_of(id: str) -> str:
    """The name of an account's principal."""
    return f"acme:{id}"


async def register(inst: Installation, new: New, caller: Caller, write: Write) -> Account:
    """A new account. Taken of `accounts.TABLE` where the key has one, also one of the same moment; `BindingSpent`;
    JoseError for a key that is blocked.
    """
    await _check_key(inst, new.jwk)
    id, now, binding = b64encode(inst.random(16)), inst.clock(), new.binding
    account = Account(
        n=0,
        id=id,
        thumbprint=new.jwk.thumbprint,
        jwk=new.jwk.text,
        contacts=msgspec.json.encode(new.contacts).decode(),
        terms_at=now if new.terms else None,
        binding=None if binding is None else binding.id,
        owner=None if binding is None else binding.owner,
        made_by=None if binding is None else binding.created_by,
        profile=None if binding is None else binding.profile,
        names="[]" if binding is None else binding.names,
        preauthorized="[]" if binding is None else binding.preauthorized,
        address=new.address,
        created_at=now,
        deactivated_at=None,
    )
    authority = await _authority(inst, account.profile)
    made = accounts.add(account) + people.add_principal(id, kind="account", name=name_of(id), at=now)
    made += events.record(
        "acme.account-created",
        actor=id,
        request_id=caller.request_id,
        at=now,
        authority=authority,
        data={
            "account": id,
            "thumbprint": new.jwk.thumbprint,
            "binding": account.binding,
            "owner": account.owner,
            "profile": account.profile,
        },
    )
    if binding is not None:
        made += bindings.using(binding, id, caller, now, authority)
    try:
        await write(made)
    except Lost:
        raise BindingSpent from None
    return account


async def set_contacts(
    inst: Installation, account: Account, contacts: tuple[str, ...], caller: Caller, write: Write
) -> Account:
    """Other contacts, which stand in no event: they are personal. Lost where it was deactivated just now."""
    text = msgspec.json.encode(contacts).decode()
    data: dict[str, object] = {"account": account.id, "contacts": len(contacts)}
    event = await _event(inst, "acme.account-updated", account, caller, data)
    await write(accounts.set_contacts(account.id, text) + event)
    return msgspec.structs.replace(account, contacts=text)


async def change_key(inst: Installation, account: Account, jwk: Jwk, caller: Caller, write: Write) -> None:
    """Another key in place of the one that it has, in one step (I-51). Lost where it is no longer that one; Taken where
    the new one has an account; JoseError for a key that is blocked.
    """
    await _check_key(inst, jwk)
    change = accounts.change_key(account.id, was=account.thumbprint, thumbprint=jwk.thumbprint, jwk=jwk.text)
    data: dict[str, object] = {"account": account.id, "was": account.thumbprint, "thumbprint": jwk.thumbprint}
    await write(change + await _event(inst, "acme.key-changed", account, caller, data))


async def deactivate(inst: Installation, account: Account, caller: Caller, write: Write) -> Account:
    """The end of an account, by its own client (RFC 8555 7.3.6). Lost where it is deactivated already."""
    now = inst.clock()
    ending = accounts.deactivate(account.id, at=now) + authorizations.stop_account(account.id, at=now)
    await write(ending + await _event(inst, "acme.account-deactivated", account, caller, _ended(account)))
    return msgspec.structs.replace(account, deactivated_at=now)


async def disable(inst: Installation, id: str, caller: Caller) -> Account:
    """The end of an account, by an administrator of what it belongs to. Twice is as good as once."""
    account, scope = await find(inst, id, caller.principal)
    require(caller.principal, Role.ADMIN, authority=scope.authority)
    if account.disabled_at is not None:
        return account
    now = inst.clock()
    ending = people.disable(id, at=now) + authorizations.stop_account(id, at=now)
    try:
        await inst.db.write(ending + await _event(inst, "acme.account-deactivated", account, caller, _ended(account)))
    except Lost:
        return (await find(inst, id, caller.principal))[0]  # somebody else did, at the same moment
    return msgspec.structs.replace(account, disabled_at=now)


async def find(inst: Installation, id: str, principal: Principal) -> tuple[Account, Scope]:
    """An account that the principal may see; RW-NOT-FOUND for what is hidden, as for what is not there."""

    def read(conn: Connection) -> tuple[Account | None, dict[str, str]]:
        return accounts.by_id(conn, id), authorities_of(conn)

    found, authorities = await inst.db.look(read)
    scope = None if found is None else scope_of(found.profile, authorities)
    if found is None or scope is None or not scope.open_to(principal, READERS):
        raise Problem("RW-NOT-FOUND", "There is no such account.")
    return found, scope


async def requester(inst: Installation, id: str, profile: str) -> Principal | None:
    """An account as whoever asked for something under a profile, with what it may do now; None where it has ended."""

    def read(conn: Connection) -> tuple[Account | None, tuple[int, str] | None]:
        return accounts.by_id(conn, id), profiles.current(conn, profile)

    account, current = await inst.db.look(read)
    if account is None or account.status != "valid":
        return None
    if current is None:
        return principal(account)
    return principal_of(account, msgspec.json.decode(current[1], type=Profile))


def is_behind(conn: Connection, id: str, person: Principal) -> bool:
    """Whether a person stands behind an account: made its binding, or is its owner by name (I-42)."""
    account = accounts.by_id(conn, id)
    return account is not None and (account.made_by == person.id or account.owner in (person.id, person.name))


async def _check_key(inst: Installation, jwk: Jwk) -> None:
    if await inst.db.look(lambda conn: blocked.contains(conn, jwk.id)):
        raise JoseError(Fault.KEY, "public key is forbidden")


async def _authority(inst: Installation, profile: str | None) -> str | None:
    if profile is None:
        return None
    return (await inst.db.look(authorities_of)).get(profile)


def _ended(account: Account) -> dict[str, object]:
    return {"account": account.id, "owner": account.owner}


async def _event(inst: Installation, kind: str, account: Account, caller: Caller, data: dict[str, object]) -> Rows:
    authority, at = await _authority(inst, account.profile), inst.clock()
    actor, request_id = caller.principal.id, caller.request_id
    return events.record(kind, actor=actor, request_id=request_id, at=at, authority=authority, data=data)
