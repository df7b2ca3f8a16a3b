"""Counts that only rise, for whoever keeps what was read: an OCSP answer names the count of revocations, holds and
releases that it was made under; what a token may do names the count of changes to people, tokens and grants.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import watermark as table

_BUMP = update(table).values(revocations=table.c.revocations + 1).where(table.c.one == 1)
_READ = Look(select(table.c.revocations).where(table.c.one == 1))

_BUMP_PEOPLE = update(table).values(people=table.c.people + 1).where(table.c.one == 1)
_READ_PEOPLE = Look(select(table.c.people).where(table.c.one == 1))

BUMP = Rows.one(_BUMP, {})
BUMP_PEOPLE = Rows.one(_BUMP_PEOPLE, {})


def watermark(conn: Connection) -> int:
    """The count of revocations now."""
    row = _READ.one(conn, {})
    return 0 if row is None else int(row[0])


def people_count(conn: Connection) -> int:
    """The count of changes to people, tokens and grants now."""
    row = _READ_PEOPLE.one(conn, {})
    return 0 if row is None else int(row[0])
