"""ACME accounts (RFC 8555 7.1.2): facts only, and each change as a compare-and-set. An account is a principal with the
same id; what it may do is decided in `ca`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from rootward.core.acme import AccountStatus, account_status
from rootward.store.rows import Look, Rows
from rootward.store.schema import grants, principals
from rootward.store.schema_acme import accounts as table

_c = table.c
TABLE = table.name


class Account(msgspec.Struct, frozen=True):
    """`jwk` is its key's canonical JSON, `contacts`, `names` and `preauthorized` are JSON arrays of texts.

    `binding` is the external binding that it came with, `made_by` the person who made that one. `disabled_at` and
    `grants` (role, authority, profile) are its principal's.
    """

    n: int
    id: str
    thumbprint: str
    jwk: str
    contacts: str
    terms_at: datetime | None
    binding: str | None
    owner: str | None
    made_by: str | None
    profile: str | None
    names: str
    preauthorized: str
    address: str
    created_at: datetime
    deactivated_at: datetime | None
    disabled_at: datetime | None = None
    grants: tuple[tuple[str, str | None, str | None], ...] = ()

    @property
    def status(self) -> AccountStatus:
        return account_status(deactivated=self.deactivated_at is not None, disabled=self.disabled_at is not None)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What `list` keeps; None keeps all."""

    status: AccountStatus | None = None
    owner: str | None = None


_OWN = Account.__struct_fields__[:-2]
_STORED = tuple(name for name in _OWN if name not in ("n", "deactivated_at"))
_ROW = (*(_c[name] for name in _OWN), principals.c.disabled_at)
_GRANT = (grants.c.role, grants.c.authority, grants.c.profile)
_N = len(_ROW)
_whole = (
    select(*_ROW, *_GRANT)
    .select_from(table)
    .join(principals, principals.c.id == _c.id)
    .outerjoin(grants, and_(grants.c.principal == _c.id, grants.c.removed_at.is_(None)))
)
_BY_ID = Look(_whole.where(_c.id == bindparam("which")))
_BY_THUMBPRINT = Look(_whole.where(_c.thumbprint == bindparam("print")))
_INSERT = insert(table)
_living = (_c.id == bindparam("which"), _c.deactivated_at.is_(None))
_SET_CONTACTS = update(table).where(*_living).values(contacts=bindparam("texts"))
_DEACTIVATE = update(table).where(*_living).values(deactivated_at=bindparam("at"))
_CHANGE_KEY = (
    update(table)
    .where(*_living, _c.thumbprint == bindparam("was"))
    .values(thumbprint=bindparam("print"), jwk=bindparam("key"))
)
_RECENT = Look(
    select(func.count(), func.min(_c.created_at)).where(
        _c.address == bindparam("source"), _c.created_at > bindparam("since"), _c.binding.is_(None)
    )
)


def by_id(conn: Connection, id: str) -> Account | None:
    """Whatever its status."""
    return _one(_BY_ID.all(conn, {"which": id}))


def by_thumbprint(conn: Connection, thumbprint: str) -> Account | None:
    """Whose key has this RFC 7638 thumbprint; whatever its status."""
    return _one(_BY_THUMBPRINT.all(conn, {"print": thumbprint}))


def _one(rows: Sequence[tuple[Any, ...]]) -> Account | None:
    if not rows:
        return None
    values = [*rows[0][:_N], tuple(row[_N:] for row in rows if row[_N] is not None)]
    return Account(*values)


def add(account: Account) -> Rows:
    """A new account; its principal is written with it. Taken where the key has an account."""
    return Rows.one(_INSERT, {name: getattr(account, name) for name in _STORED})


def set_contacts(id: str, contacts: str) -> Rows:
    """Lost where it is deactivated."""
    return Rows.one(_SET_CONTACTS, {"which": id, "texts": contacts})


def deactivate(id: str, *, at: datetime) -> Rows:
    """By its own client. Lost where it is already."""
    return Rows.one(_DEACTIVATE, {"which": id, "at": at})


def change_key(id: str, *, was: str, thumbprint: str, jwk: str) -> Rows:
    """Another key, in one step (I-51). Lost where the key is no longer the one with the thumbprint `was`; Taken where
    the new one has an account.
    """
    return Rows.one(_CHANGE_KEY, {"which": id, "was": was, "print": thumbprint, "key": jwk})


def recent(conn: Connection, address: str, since: datetime) -> tuple[int, datetime | None]:
    """How many accounts without a binding were made from there after `since`, and when the first of them was."""
    row = _RECENT.one(conn, {"source": address, "since": since})
    return (0, None) if row is None else (int(row[0]), row[1])


def list(conn: Connection, filters: Filters, *, after: int | None = None, limit: int = 50) -> tuple[Account, ...]:
    """Newest first, without their grants; `after` is the `n` of the last one of the page before."""
    query = select(*_ROW).join(principals, principals.c.id == _c.id).order_by(_c.n.desc()).limit(limit)
    if after is not None:
        query = query.where(_c.n < after)
    if filters.owner is not None:
        query = query.where(_c.owner == filters.owner)
    if filters.status == "revoked":
        query = query.where(principals.c.disabled_at.is_not(None))
    elif filters.status is not None:
        own = _c.deactivated_at.is_(None) if filters.status == "valid" else _c.deactivated_at.is_not(None)
        query = query.where(principals.c.disabled_at.is_(None), own)
    return tuple(Account(*row) for row in conn.execute(query))
