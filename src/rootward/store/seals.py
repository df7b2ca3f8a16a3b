"""Secrets that are sealed and written, and whoever looks for those under an old key: one after the other.

SQLite writes one transaction after the other anyway.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_SHARED = text("SELECT pg_advisory_xact_lock_shared(1382445691)")
_ALONE = text("SELECT pg_advisory_xact_lock(1382445691)")


def sealing(conn: Connection) -> None:
    """Before a secret is sealed in the caller's transaction: whoever holds `alone` has ended, or sees it."""
    if conn.dialect.name == "postgresql":
        conn.execute(_SHARED).all()


def alone(conn: Connection) -> None:
    """Let every transaction that is sealing end, and make new ones wait for this one."""
    if conn.dialect.name == "postgresql":
        conn.execute(_ALONE).all()
