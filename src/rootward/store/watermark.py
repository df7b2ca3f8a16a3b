"""How many revocations, holds and releases there ever were. Each kept OCSP answer names the count that it was made
under.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import watermark as table

_BUMP = update(table).values(revocations=table.c.revocations + 1).where(table.c.one == 1)
_READ = Look(select(table.c.revocations).where(table.c.one == 1))

BUMP = Rows.one(_BUMP, {})


def watermark(conn: Connection) -> int:
    """The count now."""
    row = _READ.one(conn, {})
    return 0 if row is None else int(row[0])
