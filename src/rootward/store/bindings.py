"""External account bindings (RFC 8555 7.3.4): MAC keys for those who may make ACME accounts, and what an account that
came with one may do. `secret` is sealed; nothing here can open it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema_acme import bindings as table

_c = table.c
Status = Literal["open", "used", "expired", "revoked"]


class Binding(msgspec.Struct, frozen=True):
    """`id` is the kid. `profile` None: for each that takes bound accounts. `names` and `preauthorized` are JSON arrays
    of patterns; it makes `uses` accounts and has made `used`.
    """

    n: int
    id: str
    secret: bytes
    owner: str
    profile: str | None
    names: str
    preauthorized: str
    uses: int
    used: int
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None

    def status(self, now: datetime) -> Status:
        """What it is now; only an open one makes accounts."""
        if self.revoked_at is not None:
            return "revoked"
        if self.used >= self.uses:
            return "used"
        return "expired" if self.expires_at <= now else "open"

    def __repr__(self) -> str:
        return f"Binding({self.id})"


_ALL = tuple(_c[name] for name in Binding.__struct_fields__)
_BY_ID = Look(select(*_ALL).where(_c.id == bindparam("which")))
_INSERT = insert(table)
_USE = (
    update(table)
    .where(_c.id == bindparam("which"), _c.used < _c.uses, _c.revoked_at.is_(None), _c.expires_at > bindparam("moment"))
    .values(used=_c.used + 1)
)
_SECRETS = select(_c.id, _c.secret).order_by(_c.n)
_SET_SECRET = update(table).where(_c.id == bindparam("which")).values(secret=bindparam("sealed"))
_REVOKE = update(table).where(_c.id == bindparam("which"), _c.revoked_at.is_(None)).values(revoked_at=bindparam("at"))


def by_id(conn: Connection, id: str) -> Binding | None:
    """Whatever its status."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Binding(*row)


def add(
    id: str,
    *,
    secret: bytes,
    owner: str,
    profile: str | None,
    names: str,
    preauthorized: str,
    uses: int,
    at: datetime,
    by: str,
    expires_at: datetime,
) -> Rows:
    """A new one."""
    values = {
        "id": id,
        "secret": secret,
        "owner": owner,
        "profile": profile,
        "names": names,
        "preauthorized": preauthorized,
        "uses": uses,
        "created_at": at,
        "created_by": by,
        "expires_at": expires_at,
    }
    return Rows.one(_INSERT, values)


def use(id: str, *, at: datetime) -> Rows:
    """One of its uses (I-52). Lost where it has none left, is revoked or has expired."""
    return Rows.one(_USE, {"which": id, "moment": at})


def revoke(id: str, *, at: datetime) -> Rows:
    """It makes no more accounts; those that it made stay. Lost where it is revoked already."""
    return Rows.one(_REVOKE, {"which": id, "at": at})


def secrets(conn: Connection) -> tuple[tuple[str, bytes], ...]:
    """(id, sealed secret) of every one."""
    return tuple((id, secret) for id, secret in conn.execute(_SECRETS))


def set_secret(id: str, sealed: bytes) -> Rows:
    """The same secret, sealed anew."""
    return Rows.one(_SET_SECRET, {"which": id, "sealed": sealed})


def list(
    conn: Connection, *, status: Status | None = None, now: datetime, after: int | None = None, limit: int = 50
) -> tuple[Binding, ...]:
    """Newest first; `after` is the `n` of the last one of the page before."""
    query = select(*_ALL).order_by(_c.n.desc()).limit(limit)
    if after is not None:
        query = query.where(_c.n < after)
    unused, unrevoked, ended = _c.used < _c.uses, _c.revoked_at.is_(None), _c.expires_at <= now
    match status:
        case "open":
            query = query.where(unrevoked, unused, _c.expires_at > now)
        case "used":
            query = query.where(unrevoked, _c.used >= _c.uses)
        case "expired":
            query = query.where(unrevoked, unused, ended)
        case "revoked":
            query = query.where(_c.revoked_at.is_not(None))
        case _:
            pass
    return tuple(Binding(*row) for row in conn.execute(query))
