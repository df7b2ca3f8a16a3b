"""External account bindings (RFC 8555 7.3.4): who may make ACME accounts, for whom, and for which names.

Whoever is admin of a profile's authority hands them out for that profile; one for every profile needs that role on
every authority. The MAC key is told once and lies sealed in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, Principal, require
from rootward.ca.installation import Installation
from rootward.core.acme import check_pattern
from rootward.core.jwk import b64encode
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import Profile
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.store import bindings, events, profiles, seals
from rootward.store.bindings import Binding
from rootward.store.errors import Lost
from rootward.store.rows import Rows

LONGEST: Final = timedelta(days=366)
MOST_USES: Final = 10_000
MOST_PATTERNS: Final = 100
_SECRET_BYTES: Final = 32
READERS = (Role.ADMIN, Role.OFFICER, Role.AUDITOR)


class Scope(msgspec.Struct, frozen=True):
    """Of which profile a binding or an account is, and of which authority that one; None is every one."""

    profile: str | None
    authority: str | None

    def open_to(self, principal: Principal, roles: Sequence[Role]) -> bool:
        """Whether a principal holds one of these roles there: on every authority, where it is for every one."""
        return any(principal.holds(role, authority=self.authority, profile=self.profile) for role in roles)


def authorities_of(conn: Connection) -> dict[str, str]:
    """The authority of each profile that ever was; it stays the same (ca/profiles.py)."""
    return {row.name: row.authority for row in profiles.list(conn)}


def scope_of(profile: str | None, authorities: dict[str, str]) -> Scope:
    """Where a binding or an account belongs."""
    return Scope(profile, None if profile is None else authorities.get(profile))


async def create(
    inst: Installation,
    *,
    profile: str | None,
    owner: str,
    names: tuple[str, ...],
    preauthorized: tuple[str, ...],
    uses: int,
    lifetime: timedelta,
    caller: Caller,
) -> tuple[Binding, bytes]:
    """A binding and its MAC key, which is told this once. Problem RW-FIELD, RW-FORBIDDEN."""
    authority = None if profile is None else (await _taking(inst, profile)).authority
    require(caller.principal, Role.ADMIN, authority=authority)
    _check(owner, names, preauthorized, uses, lifetime)
    id, secret, now = b64encode(_random(inst, 16)), _random(inst, _SECRET_BYTES), inst.clock()
    expires_at = now + lifetime
    data = {
        "binding": id,
        "owner": owner,
        "profile": profile,
        "names": names,
        "preauthorized": preauthorized,
        "uses": uses,
        "expires_at": rfc3339(expires_at),
    }

    def write(conn: Connection) -> None:
        seals.sealing(conn)
        bindings.add(
            id,
            secret=inst.sealer.seal(secret, purpose=purpose_of(id)),
            owner=owner,
            profile=profile,
            names=msgspec.json.encode(names).decode(),
            preauthorized=msgspec.json.encode(preauthorized).decode(),
            uses=uses,
            at=now,
            by=caller.principal.id,
            expires_at=expires_at,
        ).run(conn)
        _event("acme.binding-created", caller, now, authority, data).run(conn)

    await inst.db.write(write)
    return await _read(inst, id), secret


def _random(inst: Installation, size: int) -> bytes:
    """So many random bytes whose base64url begins with no "-": people pass it to clients as an option's value."""
    while True:
        made = inst.random(size)
        if not b64encode(made).startswith("-"):
            return made


async def revoke(inst: Installation, id: str, caller: Caller) -> Binding:
    """It makes no more accounts; those that it made stay. Twice is as good as once."""
    found, scope = await find(inst, id, caller.principal)
    require(caller.principal, Role.ADMIN, authority=scope.authority)
    if found.revoked_at is not None:
        return found
    now = inst.clock()
    event = _event("acme.binding-revoked", caller, now, scope.authority, {"binding": id, "owner": found.owner})
    try:
        await inst.db.write(bindings.revoke(id, at=now) + event)
    except Lost:
        return await _read(inst, id)  # somebody else did, at the same moment
    return msgspec.structs.replace(found, revoked_at=now)


async def find(inst: Installation, id: str, principal: Principal) -> tuple[Binding, Scope]:
    """A binding that the principal may see; RW-NOT-FOUND for what is hidden, as for what is not there."""

    def read(conn: Connection) -> tuple[Binding | None, dict[str, str]]:
        return bindings.by_id(conn, id), authorities_of(conn)

    found, authorities = await inst.db.look(read)
    scope = None if found is None else scope_of(found.profile, authorities)
    if found is None or scope is None or not scope.open_to(principal, READERS):
        raise Problem("RW-NOT-FOUND", "There is no such binding.")
    return found, scope


def secret_of(inst: Installation, binding: Binding) -> bytes:
    """Its MAC key. Problem RW-KEK where it cannot be opened."""
    return inst.sealer.unseal(binding.secret, purpose=purpose_of(binding.id))


def using(binding: Binding, account: str, caller: Caller, at: datetime, authority: str | None) -> Rows:
    """One use of it, with its event, for the transaction that makes the account. Lost where it has none left."""
    data = {"binding": binding.id, "account": account, "owner": binding.owner}
    event = events.record(
        "acme.binding-used", actor=account, request_id=caller.request_id, at=at, authority=authority, data=data
    )
    return bindings.use(binding.id, at=at) + event


def purpose_of(id: str) -> str:
    """What its secret is sealed for."""
    return f"acme binding {id}"


async def _taking(inst: Installation, name: str) -> Profile:
    found = await inst.db.look(lambda conn: profiles.current(conn, name))
    profile = None if found is None else msgspec.json.decode(found[1], type=Profile)
    if profile is None or profile.acme.accounts == "none":
        raise Problem("RW-FIELD", f"There is no profile {shown(name)} that takes ACME accounts.", field="profile")
    return profile


def _check(owner: str, names: tuple[str, ...], preauthorized: tuple[str, ...], uses: int, lifetime: timedelta) -> None:
    reasons: list[Reason] = []
    if not owner or len(owner) > 200 or not owner.isprintable() or owner != owner.strip():
        reasons.append(Reason("RW-FIELD", "An owner has 1 to 200 printable characters.", "owner"))
    for field, patterns in (("names", names), ("preauthorized", preauthorized)):
        if len(patterns) > MOST_PATTERNS:
            reasons.append(Reason("RW-FIELD", f"There are at most {MOST_PATTERNS} patterns.", field))
            continue
        for text in patterns:
            try:
                check_pattern(text, field=field)
            except Problem as problem:
                reasons += problem.reasons
    if not 1 <= uses <= MOST_USES:
        reasons.append(Reason("RW-FIELD", f"A binding makes 1 to {MOST_USES} accounts.", "uses"))
    if not timedelta(minutes=1) <= lifetime <= LONGEST:
        reasons.append(Reason("RW-FIELD", "A binding can be used for 1 minute to 366 days.", "expires"))
    if reasons:
        raise Problem.of(reasons)


async def _read(inst: Installation, id: str) -> Binding:
    found = await inst.db.look(lambda conn: bindings.by_id(conn, id))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such binding.")
    return found


def _event(kind: str, caller: Caller, at: datetime, authority: str | None, data: Mapping[str, object]) -> Rows:
    actor, request_id = caller.principal.id, caller.request_id
    return events.record(kind, actor=actor, request_id=request_id, at=at, authority=authority, data=data)
