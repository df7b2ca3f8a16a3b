"""People, their tokens and their roles. Each change is an event; none of them can leave the installation without an
administrator or an auditor, and no token can do more than whoever made it (I-43).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, cut, find_principal, new_token, require
from rootward.ca.approve import SECOND_PERSON
from rootward.ca.installation import Installation
from rootward.core.problems import Problem, shown
from rootward.core.roles import Grant, Role
from rootward.store import events, facts, people, profiles
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.rows import Rows

T = TypeVar("T")

LONGEST_TOKEN = timedelta(days=366)
INVITATION = timedelta(days=7)
# Without anybody in these, an installation could not be run or not be watched.
_KEPT_ROLES = (Role.SYSTEM_ADMIN, Role.AUDITOR)


async def create_person(inst: Installation, name: str, caller: Caller) -> people.Principal:
    """A person without any role. Problem RW-CONFLICT where the name is taken."""
    require(caller.principal, Role.SYSTEM_ADMIN)
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip() or ":" in name:
        raise Problem(
            "RW-FIELD", f"{shown(name)} is no usable name: 1 to 64 printable characters, no colon.", field="name"
        )
    id, now = new_id(), inst.clock()
    try:
        await inst.db.write(
            people.add_principal(id, kind="person", name=name, at=now)
            + _event("person.created", caller, now, {"id": id, "name": name})
        )
    except Taken:
        raise Problem("RW-CONFLICT", f"There is a principal {shown(name)} already.", field="name") from None
    return people.Principal(id, "person", name, now, None)


async def disable_person(inst: Installation, id: str, caller: Caller) -> people.Principal:
    """From now on none of its tokens works. The last holder of a role that must be held stays (RW-LAST-ROLE)."""
    require(caller.principal, Role.SYSTEM_ADMIN)
    now = inst.clock()

    def apply(conn: Connection) -> people.Principal:
        found = people.by_id(conn, id)
        if found is None:
            raise Problem("RW-NOT-FOUND", "There is no such person.")
        if found.disabled_at is None:
            people.disable(id, at=now).run(conn)
            _require_holders(conn)
            _event("person.disabled", caller, now, {"id": id}).run(conn)
        return msgspec.structs.replace(found, disabled_at=found.disabled_at or now)

    return await _changed(inst, apply)


async def create_token(
    inst: Installation,
    *,
    principal_id: str,
    label: str,
    lifetime: timedelta,
    scopes: tuple[Grant, ...] | None,
    caller: Caller,
) -> tuple[people.Token, str]:
    """A token and its value, which is told this once. For oneself, or by a system-admin for others.

    It cannot do more than its maker: `scopes` beyond that are RW-FORBIDDEN, none means all that both of them hold now.
    It lives no longer than the token it is made with, and ends with it. For somebody else there is one invitation, for
    a week: with it that person makes a token that nobody else ever had.
    """
    own = principal_id == caller.principal.id
    if not own:
        require(caller.principal, Role.SYSTEM_ADMIN)
        lifetime = min(lifetime, INVITATION)
    if not timedelta(minutes=1) <= lifetime <= LONGEST_TOKEN:
        raise Problem("RW-FIELD", "A token lives from 1 minute to 366 days.", field="lifetime")
    if not label or len(label) > 64 or not label.isprintable():
        raise Problem("RW-FIELD", "A label has 1 to 64 printable characters.", field="label")
    wanted = scopes
    if wanted is None:
        target = caller.principal if own else await find_principal(inst, principal_id)
        wanted = () if target is None else cut(target.grants, caller.principal.grants)
    if not all(any(scope.within(grant) for grant in caller.principal.grants) for scope in wanted):
        raise Problem("RW-FORBIDDEN", "A token cannot do more than who makes it.", field="scopes")
    value, digest = new_token()
    id, now = new_id(), inst.clock()
    expires_at, parent = now + lifetime, None
    if own and caller.principal.credential is not None and caller.principal.credential.own:
        expires_at, parent = min(expires_at, caller.principal.credential.expires_at), caller.principal.credential.token
    made_by = None if own else caller.principal.id
    text = msgspec.json.encode(wanted).decode()

    def apply(conn: Connection) -> people.Token:
        target = people.by_id(conn, principal_id)
        if target is None or target.disabled_at is not None:
            raise Problem("RW-NOT-FOUND", "There is no such person.")
        if made_by is not None and people.had_token(conn, principal_id):
            raise Problem(
                "RW-FORBIDDEN", "This person had a token before; further ones are made with it.", field="principal"
            )
        people.add_token(
            id,
            principal=principal_id,
            label=label,
            digest=digest,
            at=now,
            expires_at=expires_at,
            scopes=text,
            made_by=made_by,
            parent=parent,
        ).run(conn)
        _event("token.created", caller, now, {"id": id, "principal": principal_id, "label": label}).run(conn)
        return people.Token(id, principal_id, label, text, now, expires_at, None, made_by, parent)

    made = await inst.db.write(apply)
    failpoint("token.stored")
    return made, value


async def revoke_token(inst: Installation, id: str, caller: Caller) -> people.Token:
    """One's own, or anybody's by a system-admin, with all that were made with it. Twice is as good as once."""
    now = inst.clock()

    def apply(conn: Connection) -> people.Token:
        found = people.token_by_id(conn, id)
        if found is None or not (found.principal == caller.principal.id or caller.principal.holds(Role.SYSTEM_ADMIN)):
            raise Problem("RW-NOT-FOUND", "There is no such token.")
        if found.revoked_at is None:
            for one in (id, *people.descendants(conn, id)):
                people.revoke_token(one, at=now).run(conn)
                _event("token.revoked", caller, now, {"id": one}).run(conn)
        return msgspec.structs.replace(found, revoked_at=found.revoked_at or now)

    return await _changed(inst, apply)


async def create_grant(
    inst: Installation,
    *,
    principal_id: str,
    role: Role,
    authority: str | None,
    profile: str | None,
    caller: Caller,
) -> people.Grant:
    """Give a role. `system-admin` is for the whole installation. The second approver ends the single person's
    exception for good.
    """
    require(caller.principal, Role.SYSTEM_ADMIN)
    if role is Role.SYSTEM_ADMIN and (authority or profile):
        raise Problem("RW-FIELD", "system-admin is a role for the whole installation.", field="authority")
    if authority is not None and authority not in inst.authorities:
        raise Problem("RW-FIELD", f"There is no authority {shown(authority)}.", field="authority")
    if profile is not None and await inst.db.look(lambda conn: profiles.latest(conn, profile)) is None:
        raise Problem("RW-FIELD", f"There is no profile {shown(profile)}.", field="profile")
    id, now = new_id(), inst.clock()

    def apply(conn: Connection) -> people.Grant:
        target = people.by_id(conn, principal_id)
        if target is None or target.disabled_at is not None:
            raise Problem("RW-NOT-FOUND", "There is no such person.")
        people.add_grant(id, principal=principal_id, role=role.value, authority=authority, profile=profile, at=now).run(
            conn
        )
        if role is Role.APPROVER and len(people.holders(conn, Role.APPROVER)) > 1:
            facts.put_once(SECOND_PERSON, at=now, data=principal_id).run(conn)
        given = {"id": id, "principal": principal_id, "role": role.value, "authority": authority, "profile": profile}
        _event("grant.created", caller, now, given).run(conn)
        return people.Grant(id, principal_id, role.value, authority, profile, now, None)

    made = await inst.db.write(apply)
    failpoint("grant.stored")
    return made


async def remove_grant(inst: Installation, id: str, caller: Caller) -> people.Grant:
    """Take a role away; the last system-admin and the last auditor stay (RW-LAST-ROLE)."""
    require(caller.principal, Role.SYSTEM_ADMIN)
    now = inst.clock()

    def apply(conn: Connection) -> people.Grant:
        found = people.grant_by_id(conn, id)
        if found is None:
            raise Problem("RW-NOT-FOUND", "There is no such grant.")
        if found.removed_at is None:
            people.remove_grant(id, at=now).run(conn)
            _require_holders(conn)
            _event("grant.removed", caller, now, {"id": id, "principal": found.principal, "role": found.role}).run(conn)
        return msgspec.structs.replace(found, removed_at=found.removed_at or now)

    return await _changed(inst, apply)


async def _changed(inst: Installation, apply: Callable[[Connection], T]) -> T:
    try:
        return await inst.db.write(apply)
    except Lost:
        raise Problem("RW-CONFLICT", "Somebody else changed it just now.") from None


def _require_holders(conn: Connection) -> None:
    for role in _KEPT_ROLES:
        if people.count_holders(conn, role.value, everywhere=True) == 0:
            raise Problem("RW-LAST-ROLE", f"This is the last {role}; give the role to somebody else first.")


def _event(kind: str, caller: Caller, at: datetime, data: Mapping[str, object]) -> Rows:
    return events.record(kind, actor=caller.principal.id, request_id=caller.request_id, at=at, data=data)
