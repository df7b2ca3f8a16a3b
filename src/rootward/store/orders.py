"""ACME orders: facts only; `core.acme.order_status` says what they make of an order. Every step is a compare-and-set,
so that of many finalizations at once one counts (I-50).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from rootward.core.acme import OrderFacts
from rootward.store.rows import Look, Rows
from rootward.store.schema_acme import orders as table

_c = table.c


class Order(msgspec.Struct, frozen=True):
    """One row; columns as in `schema_acme.orders`. `identifiers` and `authorizations` are JSON arrays, `error` a JSON
    problem document.
    """

    n: int
    id: str
    account: str
    profile: str
    identifiers: str
    authorizations: str
    not_after: datetime | None
    replaces: str | None
    created_at: datetime
    expires_at: datetime
    csr: bytes | None = None
    finalized_at: datetime | None = None
    request: str | None = None
    certificate: str | None = None
    settled_at: datetime | None = None
    error: str | None = None

    @property
    def facts(self) -> OrderFacts:
        """What its status follows from."""
        return OrderFacts(self.expires_at, self.finalized_at, self.settled_at, failed=self.error is not None)

    @property
    def names(self) -> list[str]:
        """Its identifiers as "dns:…" and "ip:…"."""
        return msgspec.json.decode(self.identifiers, type=list[str])

    @property
    def authorization_ids(self) -> list[str]:
        """Ids of its authorizations, in the order of its identifiers."""
        return msgspec.json.decode(self.authorizations, type=list[str])


_ALL = tuple(_c[name] for name in Order.__struct_fields__)
_NEW = Order.__struct_fields__[1 : Order.__struct_fields__.index("csr")]
_INSERT = insert(table)
_BY_ID = Look(select(*_ALL).where(_c.id == bindparam("which")))
_OF_ACCOUNT = Look(
    select(_c.n, _c.id)
    .where(_c.account == bindparam("whose"), _c.n < bindparam("before"))
    .order_by(_c.n.desc())
    .limit(bindparam("most"))
)
# One row at the end of a walk along the index: never all orders of an account.
_NTH = Look(
    select(_c.created_at)
    .where(_c.account == bindparam("whose"))
    .order_by(_c.n.desc())
    .limit(1)
    .offset(bindparam("skipped"))
)
_open = (_c.id == bindparam("which"), _c.settled_at.is_(None))
_FINALIZE = (
    update(table)
    .where(*_open, _c.finalized_at.is_(None))
    .values(
        csr=bindparam("asked"),
        finalized_at=bindparam("moment"),
        request=bindparam("parked"),
        certificate=bindparam("made"),
    )
)
_ATTEMPT = (
    update(table)
    .where(*_open, _c.finalized_at.is_not(None), func.coalesce(_c.certificate, "") == bindparam("was"))
    .values(certificate=bindparam("made"))
)
_SETTLE = update(table).where(*_open, _c.certificate == bindparam("made")).values(settled_at=bindparam("moment"))
_REFUSE = update(table).where(*_open).values(settled_at=bindparam("moment"), error=bindparam("why"))


def new(
    id: str,
    *,
    account: str,
    profile: str,
    names: Iterable[str],
    authorizations: Iterable[str],
    not_after: datetime | None,
    replaces: str | None,
    at: datetime,
    expires_at: datetime,
) -> Order:
    """An order as it begins, which is not stored yet: its `n` is 0."""
    return Order(
        n=0,
        id=id,
        account=account,
        profile=profile,
        identifiers=msgspec.json.encode(list(names)).decode(),
        authorizations=msgspec.json.encode(list(authorizations)).decode(),
        not_after=not_after,
        replaces=replaces,
        created_at=at,
        expires_at=expires_at,
    )


def add(order: Order) -> Rows:
    """Store a new one."""
    return Rows.one(_INSERT, {name: getattr(order, name) for name in _NEW})


def by_id(conn: Connection, id: str) -> Order | None:
    """The order of this id, whoever's it is."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Order(*row)


def of_account(conn: Connection, account: str, *, before: int, limit: int) -> list[tuple[int, str]]:
    """(n, id) of an account's orders with an `n` below `before`, newest first."""
    found = _OF_ACCOUNT.all(conn, {"whose": account, "before": before, "most": limit})
    return [(n, id) for n, id in found]


def nth_newest(conn: Connection, account: str, n: int) -> datetime | None:
    """When the account made its n-th newest order; None where it has fewer."""
    row = _NTH.one(conn, {"whose": account, "skipped": n - 1})
    return None if row is None else row[0]


def finalize(id: str, *, csr: bytes, at: datetime, certificate: str | None = None, request: str | None = None) -> Rows:
    """What was asked for, with the intent of a certificate or the request that waits for a person. Lost where it was
    finalized before.
    """
    return Rows.one(_FINALIZE, {"which": id, "asked": csr, "moment": at, "made": certificate, "parked": request})


def attempt(id: str, *, certificate: str, was: str | None) -> Rows:
    """A further attempt, after `was` came to nothing. Lost where somebody else made one already."""
    return Rows.one(_ATTEMPT, {"which": id, "made": certificate, "was": was or ""})


def settle(id: str, *, certificate: str, at: datetime) -> Rows:
    """Its certificate was issued: it is valid for good."""
    return Rows.one(_SETTLE, {"which": id, "made": certificate, "moment": at})


def refuse(id: str, *, at: datetime, error: str) -> Rows:
    """It is invalid for good. `error` is a JSON problem document."""
    return Rows.one(_REFUSE, {"which": id, "moment": at, "why": error})
