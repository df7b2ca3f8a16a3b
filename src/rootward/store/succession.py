"""What one authority leaves to another: that it is compromised, who follows it, its profiles, the roles and scopes that
name it, and who has certificates of it. Facts and questions; `ca/succession.py` and `ca/compromise.py` decide.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, insert, or_, select, update

from rootward.core.roles import Grant
from rootward.store import profiles as versions
from rootward.store.profiles import ProfileRow
from rootward.store.rows import Rows
from rootward.store.schema import authorities as table
from rootward.store.schema import certificates, grants, principals, tokens
from rootward.store.watermark import BUMP_PEOPLE

_c = certificates.c
RESPONDER = "ocsp-responder"  # goes on under an authority that stops: nothing takes its place

_COMPROMISE = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.compromised_at.is_(None))
    .values(
        compromised_at=bindparam("moment"),
        waves_until=bindparam("until"),
        # Whatever asks only whether it is retired stops too: the intent's own statement, and a version before this one.
        retired_at=func.coalesce(table.c.retired_at, bindparam("moment")),
    )
)
_RETIRE = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.retired_at.is_(None))
    .values(retired_at=bindparam("moment"), waves_until=bindparam("until"))
)
_FOUND = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.destroyed_at.is_not(None))
    .values(
        destroyed_at=None,
        retired_at=case((table.c.retired_at == table.c.destroyed_at, None), else_=table.c.retired_at),
    )
)
_FOLLOW = (
    update(table)
    .where(
        table.c.name == bindparam("which"),
        or_(table.c.compromised_at.is_(None), func.coalesce(table.c.successor, bindparam("next")) == bindparam("next")),
    )
    .values(successor=bindparam("next"))
)
_ADD_GRANT = insert(grants)
_SCOPES = update(tokens).where(tokens.c.id == bindparam("which")).values(scopes=bindparam("text"))


class Holding(NamedTuple):
    """How many living certificates somebody has; `owner` None: those without one."""

    owner: str | None
    certificates: int
    last: datetime  # when the last one ends


def compromise(name: str, *, at: datetime, waves_until: datetime) -> Rows:
    """Its key is in other hands: it never issues again. Lost where that is known already."""
    return Rows.one(_COMPROMISE, {"which": name, "moment": at, "until": waves_until})


def retire(name: str, *, at: datetime, waves_until: datetime) -> Rows:
    """It never issues again, and its certificates are renewed in waves. Lost where it is retired already."""
    return Rows.one(_RETIRE, {"which": name, "moment": at, "until": waves_until})


def found(name: str) -> Rows:
    """Its key is there after all; what retired with the key alone is not retired. Lost where it was not destroyed."""
    return Rows.one(_FOUND, {"which": name})


def follow(name: str, successor: str) -> Rows:
    """`successor` takes the place of `name`. Lost where a compromised one has another successor already."""
    return Rows.one(_FOLLOW, {"which": name, "next": successor})


def living(authority: str, now: datetime) -> ColumnElement[bool]:
    """Certificates of an authority that somebody may use: not its responders', nor what is revoked or over."""
    return and_(
        _c.authority == authority,
        _c.issued_at.is_not(None),
        _c.revoked_at.is_(None),
        _c.not_after > now,
        func.coalesce(_c.source, "") == "issued",  # hidden from the planner, which has an index for it
        func.coalesce(_c.profile, "") != RESPONDER,
    )


def count_living(conn: Connection, authority: str, now: datetime) -> int:
    """How many there are."""
    return int(conn.execute(select(func.count()).where(living(authority, now))).scalar_one())


def holdings(conn: Connection, authority: str, now: datetime) -> tuple[Holding, ...]:
    """Who has how many of them, by owner."""
    query = (
        select(_c.owner, func.count(), func.max(_c.not_after))
        .where(living(authority, now))
        .group_by(_c.owner)
        .order_by(_c.owner)
    )
    return tuple(Holding(*row) for row in conn.execute(query))


def last_end(conn: Connection, authority: str, now: datetime) -> datetime | None:
    """When the last certificate under an authority ends, revoked or not; None where nothing is left."""
    query = select(func.max(_c.not_after)).where(
        _c.authority == authority, _c.not_after > now, (_c.issued_at.is_not(None)) | (_c.orphaned_at.is_not(None))
    )
    found: datetime | None = conn.execute(query).scalar()
    return found


def last_child(conn: Connection, authority: str, now: datetime, *, but: str = "") -> datetime | None:
    """When the last certificate under an authority ends that relying parties ask about, revoked or not: any but its
    responders' and those of the key `but` (SHA-256 of its SPKI, hex). None where nothing is left.
    """
    query = select(func.max(_c.not_after)).where(
        _c.authority == authority,
        _c.not_after > now,
        _c.issued_at.is_not(None) | _c.orphaned_at.is_not(None),
        func.coalesce(_c.profile, "") != RESPONDER,
        _c.key_id != but,
    )
    found: datetime | None = conn.execute(query).scalar()
    return found


def profiles_of(conn: Connection, authority: str) -> tuple[ProfileRow, ...]:
    """The profiles that issue from it now."""
    return tuple(row for row in versions.list(conn) if row.authority == authority and row.retired_at is None)


def roles_on(conn: Connection, authority: str) -> tuple[tuple[str, str, str | None], ...]:
    """(principal, role, profile) of each living grant for this authority, of principals that are not disabled."""
    query = (
        select(grants.c.principal, grants.c.role, grants.c.profile)
        .join(principals, principals.c.id == grants.c.principal)
        .where(grants.c.authority == authority, grants.c.removed_at.is_(None), principals.c.disabled_at.is_(None))
        .order_by(grants.c.id)
    )
    return tuple((principal, role, profile) for principal, role, profile in conn.execute(query))


def add_role(id: str, *, principal: str, role: str, authority: str, profile: str | None, at: datetime) -> Rows:
    """A grant that is carried over."""
    values = {"id": id, "principal": principal, "role": role, "authority": authority, "profile": profile}
    return Rows.one(_ADD_GRANT, values | {"created_at": at}) + BUMP_PEOPLE


def widen_scopes(conn: Connection, authority: str, successor: str, now: datetime) -> int:
    """Let each living token that was cut down to something of `authority` do the same of `successor`; how many."""
    query = select(tokens.c.id, tokens.c.scopes).where(
        tokens.c.revoked_at.is_(None), tokens.c.expires_at > now, tokens.c.scopes.contains(f'"{authority}"')
    )
    changed = 0
    for id, text in conn.execute(query).all():
        before = msgspec.json.decode(text, type=list[Grant])
        more = [msgspec.structs.replace(one, authority=successor) for one in before if one.authority == authority]
        after = [*before, *(one for one in more if one not in before)]
        if len(after) > len(before):
            Rows.one(_SCOPES, {"which": id, "text": msgspec.json.encode(after).decode()}).run(conn)
            changed += 1
    if changed:
        BUMP_PEOPLE.run(conn)
    return changed
