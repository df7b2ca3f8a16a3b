"""Events: the append-only facts that are the audit log and the outbox of alerts, webhooks and exports.

A row is written with its effect, in one transaction, and never changed. Its place in the audit tree (`leaf`) comes
within a second, from one fenced sequencer that takes events without a leaf; every consumer reads by leaf, because on
PostgreSQL ids appear out of order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select

from rootward.core import ledger
from rootward.core.times import rfc3339
from rootward.store.errors import Lost
from rootward.store.rows import Look, Rows
from rootward.store.schema import events

_c = events.c


class Event(msgspec.Struct, frozen=True):
    """One event. `n` is its row, `leaf` its place in the audit tree once it has one, `data` JSON (an object)."""

    n: int
    at: datetime
    kind: str
    actor: str
    authority: str | None
    certificate: str | None
    request_id: str
    data: str
    leaf: int | None

    def values(self) -> dict[str, Any]:
        """`data` as Python values."""
        values: dict[str, Any] = msgspec.json.decode(self.data)
        return values


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What `list` keeps; None keeps all. `kind` may end in `.*`. `since` and `before` are moments."""

    kind: str | None = None
    actor: str | None = None
    authority: str | None = None
    certificate: str | None = None
    since: datetime | None = None
    before: datetime | None = None


_ALL = (_c.n, _c.at, _c.kind, _c.actor, _c.authority, _c.certificate, _c.request_id, _c.data, _c.leaf)
_INSERT = insert(events)
_PLACE_SQLITE = "UPDATE events SET leaf = ?, leaf_hash = ? WHERE n = ? AND leaf IS NULL"
_PLACE_POSTGRESQL = (
    "UPDATE events SET leaf = placed.leaf, leaf_hash = placed.hash "
    "FROM unnest(%s::bigint[], %s::bytea[], %s::bigint[]) AS placed (leaf, hash, n) "
    "WHERE events.n = placed.n AND events.leaf IS NULL"
)
_UNSEQUENCED = Look(select(*_ALL).where(_c.leaf.is_(None)).order_by(_c.n).limit(bindparam("most")))
_BY_LEAF = Look(select(*_ALL).where(_c.leaf >= bindparam("first")).order_by(_c.leaf).limit(bindparam("most")))
_LAST_LEAF = Look(select(_c.leaf).where(_c.leaf.is_not(None)).order_by(_c.leaf.desc()).limit(1))
_HASHES = Look(
    select(_c.leaf, _c.leaf_hash)
    .where(_c.leaf >= bindparam("first"), _c.leaf < bindparam("end"))
    .order_by(_c.leaf)
    .limit(bindparam("most"))
)
_BATCH = 10_000
_ONE = Look(select(*_ALL).where(_c.n == bindparam("event")))


def record(
    kind: str,
    *,
    actor: str,
    request_id: str,
    at: datetime,
    authority: str | None = None,
    certificate: str | None = None,
    data: Mapping[str, object] | None = None,
) -> Rows:
    """The row of one event, to be added to the rows of its effect. `actor` is a principal's id or "system:…"; `data`
    becomes JSON.
    """
    return Rows.one(
        _INSERT,
        {
            "at": at,
            "kind": kind,
            "actor": actor,
            "authority": authority,
            "certificate": certificate,
            "request_id": request_id,
            "data": msgspec.json.encode(data or {}, order="sorted").decode(),
        },
    )


def by_n(conn: Connection, n: int) -> Event | None:
    """The event of that row."""
    row = _ONE.one(conn, {"event": n})
    return None if row is None else Event(*row)


def list(conn: Connection, filters: Filters, *, after: int | None = None, limit: int = 50) -> tuple[Event, ...]:
    """Newest first; `after` is the `n` of the last event of the page before."""
    query = select(*_ALL).order_by(_c.n.desc()).limit(limit)
    if after is not None:
        query = query.where(_c.n < after)
    if filters.kind is not None and filters.kind.endswith(".*"):
        query = query.where(_c.kind.startswith(filters.kind[:-1], autoescape=True))
    elif filters.kind is not None:
        query = query.where(_c.kind == filters.kind)
    if filters.actor is not None:
        query = query.where(_c.actor == filters.actor)
    if filters.authority is not None:
        query = query.where(_c.authority == filters.authority)
    if filters.certificate is not None:
        query = query.where(_c.certificate == filters.certificate)
    if filters.since is not None:
        query = query.where(_c.at >= filters.since)
    if filters.before is not None:
        query = query.where(_c.at < filters.before)
    return tuple(Event(*row) for row in conn.execute(query))


def unsequenced(conn: Connection, limit: int) -> tuple[Event, ...]:
    """Events without a leaf, oldest first: the sequencer's work."""
    return tuple(Event(*row) for row in _UNSEQUENCED.all(conn, {"most": limit}))


def unsequenced_count(conn: Connection, *, most: int) -> tuple[int, datetime | None]:
    """How many events have no leaf, counted up to `most`, and when the first of them was."""
    waiting = select(_c.n).where(_c.leaf.is_(None)).limit(most).subquery()
    count: int = conn.execute(select(func.count()).select_from(waiting)).scalar_one()
    since = conn.execute(select(_c.at).where(_c.leaf.is_(None)).order_by(_c.n).limit(1)).scalar_one_or_none()
    return count, since


def place(conn: Connection, numbers: Sequence[int], hashes: Sequence[bytes], *, first: int) -> None:
    """Give the events of these numbers their places in the audit tree, from leaf `first` on, with their hashes.

    Lost where one of them has a place already; Taken where a place has an event.
    """
    leaves = range(first, first + len(numbers))
    if conn.dialect.name == "sqlite":
        driver: Any = conn.connection.dbapi_connection
        touched = driver.executemany(_PLACE_SQLITE, zip(leaves, hashes, numbers, strict=True)).rowcount
    else:
        touched = conn.exec_driver_sql(_PLACE_POSTGRESQL, ([*leaves], [*hashes], [*numbers])).rowcount
    if touched != len(numbers):
        raise Lost(f"{touched} events instead of {len(numbers)} got their places")


def leaf_of(event: Event) -> bytes:
    """The bytes of its leaf (core/ledger.py)."""
    return ledger.leaf(
        n=event.n,
        at=rfc3339(event.at),
        kind=event.kind,
        actor=event.actor,
        authority=event.authority,
        certificate=event.certificate,
        request_id=event.request_id,
        data=event.data.encode(),
    )


def leaf_hashes(conn: Connection, first: int, end: int) -> Iterator[bytes]:
    """The kept hashes of the leaves from `first` up to and without `end`, in their order; a missing one ends it."""
    expected = first
    while expected < end:
        rows = _HASHES.all(conn, {"first": expected, "end": end, "most": _BATCH})
        for leaf, found in rows:
            if leaf != expected or found is None:
                return
            yield found
            expected += 1
        if not rows:
            return


def by_leaf(conn: Connection, first: int, limit: int) -> tuple[Event, ...]:
    """Sequenced events from leaf `first` on, in their order."""
    return tuple(Event(*row) for row in _BY_LEAF.all(conn, {"first": first, "most": limit}))


def tree_size(conn: Connection) -> int:
    """How many events have a leaf; they are numbered from 0 without gaps."""
    row = _LAST_LEAF.one(conn, {})
    return 0 if row is None else int(row[0]) + 1


def page(conn: Connection, *, after: int, limit: int) -> tuple[Event, ...]:
    """Oldest first, from the number after `after` on: how everything is read once."""
    rows = conn.execute(select(*_ALL).where(_c.n > after).order_by(_c.n).limit(limit))
    return tuple(Event(*row) for row in rows)
