"""ACME accounts as principals: made, changed, ended; and what they may do (RFC 8555 7.3).

An account may ask under a profile that is open to everybody, under one that wants a binding where its binding covers
it, and where a role was granted to it as to anybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from rootward.ca.access import Caller, Principal
from rootward.ca.installation import Installation
from rootward.core.jwk import Jwk, b64encode
from rootward.core.profile import Profile
from rootward.core.roles import Grant, Role
from rootward.store import accounts, events, people
from rootward.store.accounts import Account
from rootward.store.rows import Rows

Write = Callable[[Rows], Awaitable[None]]


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


async def register(
    inst: Installation, jwk: Jwk, contacts: tuple[str, ...], address: str, caller: Caller, write: Write
) -> Account:
    """A new account of this key. `write` is one transaction of the door's. Taken of `accounts.TABLE` where the key has
    one already, also when that was made at the same moment.
    """
    id, now = b64encode(inst.random(16)), inst.clock()
    text = msgspec.json.encode(contacts).decode()
    account = Account(
        n=0,
        id=id,
        thumbprint=jwk.thumbprint,
        jwk=jwk.text,
        contacts=text,
        terms_at=None,
        binding=None,
        owner=None,
        made_by=None,
        profile=None,
        names="[]",
        preauthorized="[]",
        address=address,
        created_at=now,
        deactivated_at=None,
    )
    await write(
        accounts.add(account)
        + people.add_principal(id, kind="account", name=name_of(id), at=now)
        + events.record(
            "acme.account-created",
            actor=id,
            request_id=caller.request_id,
            at=now,
            data={"account": id, "thumbprint": jwk.thumbprint},
        )
    )
    return account
