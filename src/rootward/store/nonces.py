"""Nonces of ACME that were used (I-47): one row each, until they would be too old to be used anyway. One that was only
handed out is no row.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from rootward.store.rows import Rows
from rootward.store.schema_acme import nonces as table

_c = table.c
TABLE = table.name
_INSERT = insert(table)
_FORGET = delete(table).where(
    _c.nonce.in_(select(_c.nonce).where(_c.expires_at < bindparam("before")).order_by(_c.expires_at).limit(5_000))
)


def use(nonce: bytes, *, expires_at: datetime) -> Rows:
    """Taken where it was used before, by whichever process."""
    return Rows.one(_INSERT, {"nonce": nonce, "expires_at": expires_at})


def forget(conn: Connection, before: datetime) -> int:
    """Forget some of those that expired before; how many there were. Asked again until there is none."""
    return conn.execute(_FORGET, {"before": before}).rowcount
