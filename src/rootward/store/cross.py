"""Cross-signed certificates of authorities: further ways from what an authority signed to somebody's trust anchor."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import cross_certificates as table

_c = table.c


class Cross(msgspec.Struct, frozen=True):
    """`chain` is PEM, the cross-signed certificate first; `sha256` is that one's, lower-case hex. `created_at` is since
    when it is in use.
    """

    n: int
    authority: str
    chain: bytes
    sha256: str
    created_at: datetime
    removed_at: datetime | None


_ALL = tuple(_c[name] for name in Cross.__struct_fields__)
_INSERT = insert(table)
_OF = Look(select(*_ALL).where(_c.authority == bindparam("whose"), _c.removed_at.is_(None)).order_by(_c.n))
_EVER = Look(select(*_ALL).where(_c.authority == bindparam("whose")).order_by(_c.n))
_EVERY = Look(select(*_ALL).order_by(_c.n))
_BY_HASH = Look(select(*_ALL).where(_c.sha256 == bindparam("digest")))
_REMOVE = (
    update(table)
    .where(_c.sha256 == bindparam("digest"), _c.removed_at.is_(None))
    .values(removed_at=bindparam("moment"))
)
_PUT_BACK = (
    update(table)
    .where(_c.sha256 == bindparam("digest"), _c.authority == bindparam("whose"), _c.removed_at.is_not(None))
    .values(removed_at=None, chain=bindparam("pem"), created_at=bindparam("moment"))
)


def of(conn: Connection, authority: str) -> list[Cross]:
    """Those of an authority that are in use, the oldest first."""
    return [Cross(*row) for row in _OF.all(conn, {"whose": authority})]


def ever(conn: Connection, authority: str) -> list[Cross]:
    """Those of an authority, removed or not, the oldest first."""
    return [Cross(*row) for row in _EVER.all(conn, {"whose": authority})]


def every(conn: Connection) -> list[Cross]:
    """Those of all authorities, removed or not, the oldest first: a few of each."""
    return [Cross(*row) for row in _EVERY.all(conn, {})]


def by_hash(conn: Connection, sha256: str) -> Cross | None:
    """The one of that SHA-256, removed or not."""
    row = _BY_HASH.one(conn, {"digest": sha256})
    return None if row is None else Cross(*row)


def add(authority: str, *, chain: bytes, sha256: str, at: datetime) -> Rows:
    """A new one. Taken where it is there already, also a removed one."""
    return Rows.one(_INSERT, {"authority": authority, "chain": chain, "sha256": sha256, "created_at": at})


def put_back(authority: str, *, chain: bytes, sha256: str, at: datetime) -> Rows:
    """A removed one in use again, with the chain that it has now. Lost where there is none."""
    return Rows.one(_PUT_BACK, {"digest": sha256, "whose": authority, "pem": chain, "moment": at})


def remove(sha256: str, *, at: datetime) -> Rows:
    """No longer in use. Lost where it was not."""
    return Rows.one(_REMOVE, {"digest": sha256, "moment": at})
