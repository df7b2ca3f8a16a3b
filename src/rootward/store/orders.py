"""ACME orders: facts only; `core.acme.order_status` says what they make of an order. Every step is a compare-and-set,
so that of many finalizations at once one counts (I-50).

What goes on to a certificate does so while every authorization of the order is valid and its account has not ended,
and the statement itself asks: a deactivation of either that was answered before comes in time (I-49; RFC 8555 7.5.2,
7.3.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Update, bindparam, func, insert, select, update

from rootward.core.acme import MAX_IDENTIFIERS, OrderFacts
from rootward.store.rows import Look, Rows
from rootward.store.schema import principals
from rootward.store.schema_acme import accounts
from rootward.store.schema_acme import authorizations as proofs
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
# Without those of which the row itself says that they are invalid (RFC 8555 7.1.2.1).
_OF_ACCOUNT = Look(
    select(_c.n, _c.id)
    .where(
        _c.account == bindparam("whose"),
        _c.n < bindparam("before"),
        _c.error.is_(None),
        _c.finalized_at.is_not(None) | (_c.expires_at > bindparam("moment")),
    )
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
_same = func.coalesce(_c.certificate, "") == bindparam("was")
# Whether the account works, whoever could have ended it. On PostgreSQL it stays so until the commit.
_works = (
    select(func.count())
    .select_from(
        select(accounts.c.id)
        .join(principals, principals.c.id == accounts.c.id)
        .where(
            accounts.c.id == bindparam("whose"), accounts.c.deactivated_at.is_(None), principals.c.disabled_at.is_(None)
        )
        .with_for_update(read=True)
        .subquery()
    )
    .scalar_subquery()
    == 1
)


@lru_cache(maxsize=MAX_IDENTIFIERS)
def _proved(count: int) -> ColumnElement[bool]:
    """Whether so many authorizations, `proof_0` and on, are all valid. On PostgreSQL they stay so until the commit."""
    _p = proofs.c
    valid = (
        select(_p.id)
        .where(
            _p.id.in_([bindparam(f"proof_{n}") for n in range(count)]),
            _p.validated_at.is_not(None),
            _p.failed_at.is_(None),
            _p.deactivated_at.is_(None),
            _p.expires_at > bindparam("moment"),
        )
        .with_for_update(read=True)
        .subquery()
    )
    return select(func.count()).select_from(valid).scalar_subquery() == count


@lru_cache(maxsize=MAX_IDENTIFIERS)
def _finalize(count: int) -> Update:
    return (
        update(table)
        .where(*_open, _c.finalized_at.is_(None), _c.expires_at > bindparam("moment"), _works, _proved(count))
        .values(
            csr=bindparam("asked"),
            finalized_at=bindparam("moment"),
            request=bindparam("parked"),
            certificate=bindparam("made"),
        )
    )


@lru_cache(maxsize=MAX_IDENTIFIERS)
def _attempt(count: int) -> Update:
    return (
        update(table)
        .where(*_open, _c.finalized_at.is_not(None), _same, _works, _proved(count))
        .values(certificate=bindparam("made"))
    )


_WAIT = update(table).where(*_open, _c.finalized_at.is_not(None), _same).values(request=bindparam("parked"))
_SETTLE = update(table).where(*_open, _c.certificate == bindparam("made")).values(settled_at=bindparam("moment"))
_REFUSE = update(table).where(*_open, _same).values(settled_at=bindparam("moment"), error=bindparam("why"))


def _proofs(ids: Sequence[str]) -> dict[str, Any]:
    return {f"proof_{n}": id for n, id in enumerate(ids)}


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


def of_account(conn: Connection, account: str, *, now: datetime, before: int, limit: int) -> list[tuple[int, str]]:
    """(n, id) of an account's orders with an `n` below `before`, newest first; not those that were refused, or expired
    before they were finalized.
    """
    values = {"whose": account, "before": before, "moment": now, "most": limit}
    return [(n, id) for n, id in _OF_ACCOUNT.all(conn, values)]


def nth_newest(conn: Connection, account: str, n: int) -> datetime | None:
    """When the account made its n-th newest order; None where it has fewer."""
    row = _NTH.one(conn, {"whose": account, "skipped": n - 1})
    return None if row is None else row[0]


def finalize(
    order: Order, *, csr: bytes, at: datetime, certificate: str | None = None, request: str | None = None
) -> Rows:
    """What was asked for, with the intent of a certificate or the request that waits for a person. Lost where it was
    finalized before, has expired, its account has ended, or one of its authorizations is not valid.
    """
    ids = order.authorization_ids
    values = {
        "which": order.id,
        "whose": order.account,
        "asked": csr,
        "moment": at,
        "made": certificate,
        "parked": request,
    }
    return Rows.one(_finalize(len(ids)), values | _proofs(ids))


def attempt(order: Order, *, certificate: str, at: datetime) -> Rows:
    """A further attempt, after the order's one came to nothing. Lost where somebody else made one already, its account
    has ended, or one of its authorizations is no longer valid.
    """
    ids = order.authorization_ids
    values = {
        "which": order.id,
        "whose": order.account,
        "made": certificate,
        "was": order.certificate or "",
        "moment": at,
    }
    return Rows.one(_attempt(len(ids)), values | _proofs(ids))


def wait(order: Order, *, request: str) -> Rows:
    """Another request for a person's yes, in place of the order's one. Lost where an attempt began."""
    return Rows.one(_WAIT, {"which": order.id, "parked": request, "was": order.certificate or ""})


def settle(id: str, *, certificate: str, at: datetime) -> Rows:
    """Its certificate was issued: it is valid for good."""
    return Rows.one(_SETTLE, {"which": id, "made": certificate, "moment": at})


def refuse(order: Order, *, at: datetime, error: str) -> Rows:
    """It is invalid for good. `error` is a JSON problem document. Lost where an attempt began since the order was read:
    what is under way comes to its own end.
    """
    return Rows.one(_REFUSE, {"which": order.id, "moment": at, "why": error, "was": order.certificate or ""})
