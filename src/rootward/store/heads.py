"""Heads of the audit tree: the newest is the tree's state, the ones before it are kept for a while.

A head names the one that it grew from (`was`), and no two grow from the same one: of two sequencers that append at the
same moment one is Taken (I-57). It is committed first and gets its note afterwards, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, text, update

from rootward.core.ledger import Frontier, unpacked
from rootward.store.rows import Look, Rows
from rootward.store.schema import heads as table

KEPT = 1000
_c = table.c


class Head(msgspec.Struct, frozen=True):
    """One head. `was` is the size of the head before it, 0 for the first; `at` the time of its last event."""

    size: int
    root: bytes
    frontier: bytes
    at: datetime
    was: int | None
    note: str | None

    def tree(self) -> Frontier:
        """The frontier; ValueError where it is none of that size and root."""
        found = unpacked(self.size, self.frontier)
        if found.root != self.root:
            raise ValueError(f"the head of {self.size} leaves is not its own frontier's")
        return found


_ALL = tuple(_c[name] for name in Head.__struct_fields__)
_NEWEST = Look(select(*_ALL).order_by(_c.size.desc()).limit(1))
_SIGNED = Look(select(*_ALL).where(_c.note.is_not(None)).order_by(_c.size.desc()).limit(1))
_BY_SIZE = Look(select(*_ALL).where(_c.size == bindparam("leaves")))
_OLDER = Look(select(*_ALL).where(_c.size <= bindparam("leaves")).order_by(_c.size.desc()).limit(1))
_OLDEST = Look(select(*_ALL).order_by(_c.size).limit(1))
_INSERT = insert(table)
_SIGN = update(table).where(_c.size == bindparam("leaves"), _c.note.is_(None)).values(note=bindparam("signed"))
_PRUNE = text("DELETE FROM heads WHERE size < (SELECT size FROM heads ORDER BY size DESC LIMIT 1 OFFSET :kept)")


def newest(conn: Connection) -> Head | None:
    """The tree's state; None before the first event was taken in."""
    row = _NEWEST.one(conn, {})
    return None if row is None else Head(*row)


def newest_signed(conn: Connection) -> Head | None:
    """The newest one that has its note."""
    row = _SIGNED.one(conn, {})
    return None if row is None else Head(*row)


def by_size(conn: Connection, size: int) -> Head | None:
    """The head of that size, where there was one and it is still kept."""
    row = _BY_SIZE.one(conn, {"leaves": size})
    return None if row is None else Head(*row)


def not_above(conn: Connection, size: int) -> Head | None:
    """The largest kept head of at most `size` leaves; the smallest that is kept where all are larger."""
    row = _OLDER.one(conn, {"leaves": size}) or _OLDEST.one(conn, {})
    return None if row is None else Head(*row)


def every(conn: Connection) -> Iterator[Head]:
    """All that are kept, the smallest first."""
    for row in conn.execute(select(*_ALL).order_by(_c.size)):
        yield Head(*row)


def grow(tree: Frontier, *, was: int, at: datetime) -> Rows:
    """The next head. Taken where another one grew from `was`. The oldest beyond the kept ones go."""
    values = {"size": tree.size, "root": tree.root, "frontier": tree.packed(), "at": at, "was": was}
    return Rows.one(_INSERT, values) + Rows.one(_PRUNE, {"kept": KEPT - 1}, expect=None)


def sign(size: int, note: str) -> Rows:
    """Give a head its note, unless it has one."""
    return Rows.one(_SIGN, {"leaves": size, "signed": note}, expect=None)


def forget(conn: Connection) -> None:
    """Let go of every head, for a log that begins anew from its leaves."""
    conn.execute(delete(table))
