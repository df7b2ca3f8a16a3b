"""How far the certificates of an authority that stops are replaced, counted where they lie.

A certificate is replaced when another one was issued in its place (`replaces`), or when the authority's successor has a
living one of the same profile and names for the same owner, or the same requester where there is no owner: clients that
do not say what they replace are the more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, FromClause, and_, exists, func, or_, select

from rootward.store.schema import certificates as table
from rootward.store.schema_acme import orders
from rootward.store.succession import RESPONDER, living

_c = table.c


class Counts(msgspec.Struct, frozen=True):
    """Of an authority's certificates that had not expired when it stopped: `remaining` are in use and not replaced, and
    the last one of them ends at `ends_at`.
    """

    total: int
    replaced: int
    revoked: int
    expired: int
    remaining: int
    ends_at: datetime | None


class Left(msgspec.Struct, frozen=True):
    """A certificate that is not replaced. `last_seen` is when its ACME account last made an order; None for others."""

    n: int
    id: str
    owner: str | None
    requester: str
    profile: str | None
    names: str
    not_after: datetime
    last_seen: datetime | None


def _replaced(successors: Sequence[str], now: datetime) -> ColumnElement[bool]:
    newer, follower = table.alias("newer"), table.alias("follower")
    by_name = exists().where(newer.c.replaces == _c.id, newer.c.issued_at.is_not(None))
    if not successors:
        return by_name
    theirs = select(_holder(follower)).where(
        follower.c.authority.in_(successors),
        follower.c.issued_at.is_not(None),
        follower.c.revoked_at.is_(None),
        follower.c.not_after > now,
    )
    return or_(by_name, _holder(table).in_(theirs))


def _holder(of: FromClause) -> ColumnElement[str]:
    """Profile, names and owner in one text: SQLite compares with a list of single values by an index that it makes, and
    with one of several values each by each. No name and no owner has a line feed in it.
    """
    return func.coalesce(of.c.profile, "") + "\n" + of.c.names + "\n" + func.coalesce(of.c.owner, of.c.requester)


def counts(conn: Connection, authority: str, successors: Sequence[str], *, since: datetime, now: datetime) -> Counts:
    """Since the authority stopped at `since`."""
    mine = and_(
        _c.authority == authority,
        _c.issued_at.is_not(None),
        _c.not_after > since,
        func.coalesce(_c.source, "") == "issued",
        func.coalesce(_c.profile, "") != RESPONDER,
    )
    revoked, over = _c.revoked_at.is_not(None), _c.not_after <= now
    replaced = _replaced(successors, now)
    left = and_(living(authority, now), ~replaced)
    total, gone, ended = conn.execute(
        select(func.count(), func.count().filter(revoked), func.count().filter(and_(~revoked, over))).where(mine)
    ).one()
    remaining, ends_at = conn.execute(select(func.count(), func.max(_c.not_after)).where(left)).one()
    return Counts(total, total - gone - ended - remaining, gone, ended, remaining, ends_at)


def left(
    conn: Connection,
    authority: str,
    successors: Sequence[str],
    *,
    now: datetime,
    after: int | None = None,
    limit: int = 50,
) -> tuple[Left, ...]:
    """Certificates that are not replaced, oldest first; `after` is the `n` of the last one of the page before."""
    seen = select(func.max(orders.c.created_at)).where(orders.c.account == _c.requester).scalar_subquery()
    columns: tuple[Any, ...] = (_c.n, _c.id, _c.owner, _c.requester, _c.profile, _c.names, _c.not_after, seen)
    query = select(*columns).where(living(authority, now), ~_replaced(successors, now)).order_by(_c.n).limit(limit)
    if after is not None:
        query = query.where(_c.n > after)
    return tuple(Left(*row) for row in conn.execute(query))
