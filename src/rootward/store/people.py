"""Principals, their tokens and their grants: facts only. What a grant allows is decided in `ca`.

Of a token only the SHA-256 of its 256-bit random value is kept. Only living tokens of principals that are not disabled
are found by it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import grants, principals, tokens
from rootward.store.watermark import BUMP_PEOPLE


class Principal(msgspec.Struct, frozen=True):
    """Who can ask: `kind` is "person", "workload", "account" or "device"."""

    id: str
    kind: str
    name: str
    created_at: datetime
    disabled_at: datetime | None


class Token(msgspec.Struct, frozen=True):
    """`scopes` is JSON: the grants that it is cut down to, or "*" for all of its principal's. `made_by` is who made it
    for its principal, None where that was the principal's own doing; `parent` the token that it was made with.
    """

    id: str
    principal: str
    label: str
    scopes: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    made_by: str | None = None
    parent: str | None = None


class Grant(msgspec.Struct, frozen=True):
    """A role; `authority` or `profile` None means every one."""

    id: str
    principal: str
    role: str
    authority: str | None
    profile: str | None
    created_at: datetime
    removed_at: datetime | None


class Holder(msgspec.Struct, frozen=True):
    """Who a token speaks for, and what was granted to them."""

    token: Token
    principal: Principal
    grants: tuple[Grant, ...]


class Bearer(NamedTuple):
    """Who a living token speaks for; `scopes` as in `Token`, `grants` as (role, authority, profile)."""

    id: str
    kind: str
    name: str
    scopes: str
    expires_at: datetime
    token: str
    made_by: str | None
    grants: tuple[tuple[str, str | None, str | None], ...]


_PRINCIPAL = tuple(principals.c[name] for name in Principal.__struct_fields__)
_TOKEN = tuple(tokens.c[name] for name in Token.__struct_fields__)
_GRANT = tuple(grants.c[name] for name in Grant.__struct_fields__)
_T, _P = len(_TOKEN), len(_PRINCIPAL)

_INSERT_PRINCIPAL = insert(principals)
_INSERT_TOKEN = insert(tokens)
_INSERT_GRANT = insert(grants)
_living_grant = and_(grants.c.principal == principals.c.id, grants.c.removed_at.is_(None))
# The one place that says when a token still speaks for somebody.
_living_token = and_(
    tokens.c.hash == bindparam("digest"),
    tokens.c.revoked_at.is_(None),
    tokens.c.expires_at > bindparam("moment"),
    principals.c.disabled_at.is_(None),
)
_BY_TOKEN = Look(
    select(*_TOKEN, *_PRINCIPAL, *_GRANT)
    .join(principals, principals.c.id == tokens.c.principal)
    .outerjoin(grants, _living_grant)
    .where(_living_token)
    .order_by(grants.c.id)
)
_BEARER = Look(
    select(
        principals.c.id,
        principals.c.kind,
        principals.c.name,
        tokens.c.scopes,
        tokens.c.expires_at,
        tokens.c.id,
        tokens.c.made_by,
        grants.c.role,
        grants.c.authority,
        grants.c.profile,
    )
    .select_from(tokens)
    .join(principals, principals.c.id == tokens.c.principal)
    .outerjoin(grants, _living_grant)
    .where(_living_token)
)
_BY_ID = Look(select(*_PRINCIPAL).where(principals.c.id == bindparam("which")))
_BY_NAME = Look(select(*_PRINCIPAL).where(principals.c.name == bindparam("which")))
_GRANTS_OF = Look(
    select(*_GRANT).where(grants.c.principal == bindparam("of"), grants.c.removed_at.is_(None)).order_by(grants.c.id)
)
_GRANT_BY_ID = Look(select(*_GRANT).where(grants.c.id == bindparam("which")))
_TOKEN_BY_ID = Look(select(*_TOKEN).where(tokens.c.id == bindparam("which")))
_DISABLE = (
    update(principals)
    .where(principals.c.id == bindparam("which"), principals.c.disabled_at.is_(None))
    .values(disabled_at=bindparam("at"))
)
_ENABLE = (
    update(principals)
    .where(principals.c.id == bindparam("which"), principals.c.disabled_at.is_not(None))
    .values(disabled_at=None)
)
_REMOVE_GRANT = (
    update(grants)
    .where(grants.c.id == bindparam("which"), grants.c.removed_at.is_(None))
    .values(removed_at=bindparam("at"))
)
_REVOKE_TOKEN = (
    update(tokens)
    .where(tokens.c.id == bindparam("which"), tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_EXPIRE_TOKEN = (
    update(tokens)
    .where(tokens.c.id == bindparam("which"), tokens.c.expires_at > bindparam("at"))
    .values(expires_at=bindparam("at"))
)
_HOLDERS = (
    select(func.count(principals.c.id.distinct()))
    .join(grants, _living_grant)
    .where(grants.c.role == bindparam("which"), principals.c.disabled_at.is_(None), principals.c.kind == "person")
)
_COUNT = Look(_HOLDERS)
_COUNT_EVERYWHERE = Look(_HOLDERS.where(grants.c.authority.is_(None), grants.c.profile.is_(None)))


def add_principal(id: str, *, kind: str, name: str, at: datetime) -> Rows:
    """Taken where the name is."""
    return Rows.one(_INSERT_PRINCIPAL, {"id": id, "kind": kind, "name": name, "created_at": at})


def add_token(
    id: str,
    *,
    principal: str,
    label: str,
    digest: bytes,
    at: datetime,
    expires_at: datetime,
    scopes: str = '"*"',
    made_by: str | None = None,
    parent: str | None = None,
) -> Rows:
    """`digest` is the SHA-256 of the token's value."""
    return (
        Rows.one(
            _INSERT_TOKEN,
            {
                "id": id,
                "principal": principal,
                "label": label,
                "hash": digest,
                "scopes": scopes,
                "created_at": at,
                "expires_at": expires_at,
                "made_by": made_by,
                "parent": parent,
            },
        )
        + BUMP_PEOPLE
    )


def add_grant(
    id: str, *, principal: str, role: str, at: datetime, authority: str | None = None, profile: str | None = None
) -> Rows:
    """A role; for every authority or profile where that is None."""
    return (
        Rows.one(
            _INSERT_GRANT,
            {
                "id": id,
                "principal": principal,
                "role": role,
                "authority": authority,
                "profile": profile,
                "created_at": at,
            },
        )
        + BUMP_PEOPLE
    )


def by_token(conn: Connection, digest: bytes, now: datetime) -> Holder | None:
    """Whose token has this SHA-256, with their living grants, in one round trip; None for any that is not valid at
    `now`.
    """
    rows = _BY_TOKEN.all(conn, {"digest": digest, "moment": now})
    if not rows:
        return None
    first = rows[0]
    found = tuple(Grant(*row[_T + _P :]) for row in rows if row[_T + _P] is not None)
    return Holder(Token(*first[:_T]), Principal(*first[_T : _T + _P]), found)


def bearer(conn: Connection, digest: bytes, now: datetime) -> Bearer | None:
    """What each request needs of `by_token`, and nothing more."""
    rows = _BEARER.all(conn, {"digest": digest, "moment": now})
    if not rows:
        return None
    id, kind, name, scopes, expires_at, token, made_by = rows[0][:7]
    held = tuple(row[7:] for row in rows if row[7] is not None)
    return Bearer(id, kind, name, scopes, expires_at, token, made_by, held)


def by_id(conn: Connection, id: str) -> Principal | None:
    """Disabled ones too."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Principal(*row)


def by_name(conn: Connection, name: str) -> Principal | None:
    """Disabled ones too."""
    row = _BY_NAME.one(conn, {"which": name})
    return None if row is None else Principal(*row)


def grants_of(conn: Connection, principal: str) -> tuple[Grant, ...]:
    """The living grants of a principal."""
    return tuple(Grant(*row) for row in _GRANTS_OF.all(conn, {"of": principal}))


def grant_by_id(conn: Connection, id: str) -> Grant | None:
    """Removed ones too."""
    row = _GRANT_BY_ID.one(conn, {"which": id})
    return None if row is None else Grant(*row)


def token_by_id(conn: Connection, id: str) -> Token | None:
    """Revoked and expired ones too."""
    row = _TOKEN_BY_ID.one(conn, {"which": id})
    return None if row is None else Token(*row)


def list_principals(
    conn: Connection, *, accounts: bool = False, after: str | None = None, limit: int = 50
) -> tuple[Principal, ...]:
    """By id; `after` is the last one of the page before. ACME accounts, which may be many, or all others."""
    kind = principals.c.kind == "account" if accounts else principals.c.kind != "account"
    query = select(*_PRINCIPAL).where(kind).order_by(principals.c.id).limit(limit)
    rows = conn.execute(query if after is None else query.where(principals.c.id > after))
    return tuple(Principal(*row) for row in rows)


def list_tokens(
    conn: Connection, *, principal: str | None = None, after: str | None = None, limit: int = 50
) -> tuple[Token, ...]:
    """By id, those that are not revoked; of one principal, or of all."""
    query = select(*_TOKEN).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.id).limit(limit)
    if principal is not None:
        query = query.where(tokens.c.principal == principal)
    if after is not None:
        query = query.where(tokens.c.id > after)
    return tuple(Token(*row) for row in conn.execute(query))


def list_grants(
    conn: Connection, *, principal: str | None = None, after: str | None = None, limit: int = 50
) -> tuple[Grant, ...]:
    """By id, those that are not removed; of one principal, or of all."""
    query = select(*_GRANT).where(grants.c.removed_at.is_(None)).order_by(grants.c.id).limit(limit)
    if principal is not None:
        query = query.where(grants.c.principal == principal)
    if after is not None:
        query = query.where(grants.c.id > after)
    return tuple(Grant(*row) for row in conn.execute(query))


def disable(id: str, *, at: datetime) -> Rows:
    """Lost where they are disabled already, or not there."""
    return Rows.one(_DISABLE, {"which": id, "at": at}) + BUMP_PEOPLE


def enable(id: str) -> Rows:
    """Undo `disable`. Lost where they are not disabled."""
    return Rows.one(_ENABLE, {"which": id}) + BUMP_PEOPLE


def remove_grant(id: str, *, at: datetime) -> Rows:
    """Lost where it is removed already, or not there."""
    return Rows.one(_REMOVE_GRANT, {"which": id, "at": at}) + BUMP_PEOPLE


def revoke_token(id: str, *, at: datetime) -> Rows:
    """Lost where it is revoked already, or not there."""
    return Rows.one(_REVOKE_TOKEN, {"which": id, "at": at}) + BUMP_PEOPLE


def shorten_token(id: str, *, at: datetime) -> Rows:
    """Let a token expire at `at`; Lost where it expires sooner already."""
    return Rows.one(_EXPIRE_TOKEN, {"which": id, "at": at}) + BUMP_PEOPLE


def count_holders(conn: Connection, role: str, *, everywhere: bool = False) -> int:
    """How many people who are not disabled hold `role` somewhere, or (`everywhere`) for every authority and profile."""
    row = (_COUNT_EVERYWHERE if everywhere else _COUNT).one(conn, {"which": role})
    return 0 if row is None else int(row[0])


def holders(conn: Connection, role: str) -> frozenset[str]:
    """The ids of the people who are not disabled and hold `role` anywhere."""
    query = (
        select(principals.c.id)
        .distinct()
        .join(grants, _living_grant)
        .where(grants.c.role == role, principals.c.disabled_at.is_(None), principals.c.kind == "person")
    )
    return frozenset(conn.execute(query).scalars())


def had_token(conn: Connection, principal: str) -> bool:
    """Whether there ever was a token of this principal."""
    return conn.execute(select(tokens.c.id).where(tokens.c.principal == principal).limit(1)).first() is not None


def descendants(conn: Connection, token: str) -> tuple[str, ...]:
    """The ids of the living tokens that were made with this one, or with one of those, and so on."""
    tree = select(tokens.c.id).where(tokens.c.parent == token).cte(recursive=True)
    tree = tree.union(select(tokens.c.id).where(tokens.c.parent == tree.c.id))
    query = select(tokens.c.id).where(tokens.c.id.in_(select(tree.c.id)), tokens.c.revoked_at.is_(None))
    return tuple(conn.execute(query).scalars())
