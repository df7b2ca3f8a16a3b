"""Public keys that get no certificate: by the SHA-256 of their SPKI, hex."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, text

from rootward.store.rows import Look, Rows
from rootward.store.schema import Moment, blocked_keys

_c = blocked_keys.c
_CONTAINS = Look(select(_c.why).where(_c.key_id == bindparam("key")))
_INSERT = text(
    "INSERT INTO blocked_keys (key_id, why, at) VALUES (:key_id, :why, :at) ON CONFLICT (key_id) DO NOTHING"
).bindparams(bindparam("at", type_=Moment))


def contains(conn: Connection, key_id: str) -> bool:
    """Whether the key is blocked."""
    return _CONTAINS.one(conn, {"key": key_id}) is not None


def why(conn: Connection, key_id: str) -> str | None:
    """Why the key is blocked; None where it is not."""
    row = _CONTAINS.one(conn, {"key": key_id})
    return None if row is None else str(row[0])


def add(key_id: str, *, why: str, at: datetime) -> Rows:
    """Block one key; it stays as it is where it is blocked already."""
    return Rows.one(_INSERT, {"key_id": key_id, "why": why, "at": at}, expect=None)


def add_many(conn: Connection, keys: Iterable[tuple[str, str]], *, at: datetime) -> int:
    """Block many (key_id, why); returns how many were new. Give a few thousand at a time: others wait for this
    transaction.
    """
    rows = [{"key_id": key_id, "why": reason, "at": at} for key_id, reason in keys]
    fresh = 0
    for row in rows:
        fresh += conn.execute(_INSERT, row).rowcount
    return fresh
