"""The index over names: any part of three characters or more is found, a few seconds after the certificate was made.

SQLite: FTS5 with trigrams, `rowid` is certificates.n. PostgreSQL: pg_trgm. The text is in lower case, one name per
line, then the subject.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, select, text, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import certificates

_c = certificates.c
_WAITING = Look(
    select(_c.n, (_c.tbs == b"").label("bare"), _c.names, _c.subject)
    .where(_c.indexed_at.is_(None))
    .order_by(_c.n)
    .limit(bindparam("most"))
)
# A row of which only the serial is known may be filled meanwhile, and no other changes what is searched. On PostgreSQL
# it is read as it is now, and who fills it from here on waits, and has it taken in once more.
_BARE = Look(select(_c.names, _c.subject).where(_c.n == bindparam("which")).with_for_update())
_TAKEN_IN = update(certificates).where(_c.n == bindparam("which")).values(indexed_at=bindparam("at"))
_INSERT = {
    "sqlite": text("INSERT INTO certificate_search (rowid, text) VALUES (:row, :body)"),
    "postgresql": text("INSERT INTO certificate_search (n, text) VALUES (:row, :body) ON CONFLICT (n) DO NOTHING"),
}
_NOT_TAKEN_IN = update(certificates).where(_c.n == bindparam("which")).values(indexed_at=None)
_DELETE = {
    "sqlite": text("DELETE FROM certificate_search WHERE rowid = :row"),
    "postgresql": text("DELETE FROM certificate_search WHERE n = :row"),
}
_read_names = msgspec.json.Decoder(list[str]).decode


def index(conn: Connection, limit: int, *, at: datetime) -> int:
    """Take in up to `limit` rows that are not indexed yet, in the caller's write transaction; returns how many."""
    insert = _INSERT[conn.dialect.name]
    found = _WAITING.all(conn, {"most": limit})
    for n, bare, *read in found:
        names, subject = _BARE.all(conn, {"which": n})[0] if bare else read
        lines = [name.partition(":")[2] for name in _read_names(names)]
        Rows.one(insert, {"row": n, "body": "\n".join([*lines, subject]).lower()}, expect=None).run(conn)
        Rows.one(_TAKEN_IN, {"which": n, "at": at}).run(conn)
    return len(found)


def forget(conn: Connection, n: int) -> None:
    """Take that row out, for `index` to take it in anew: after a change of what it says, in its transaction."""
    Rows.one(_NOT_TAKEN_IN, {"which": n}).run(conn)
    Rows.one(_DELETE[conn.dialect.name], {"row": n}, expect=None).run(conn)


def matching(part: str) -> str:
    """What FTS5's MATCH takes for names that contain `part`: one phrase, whatever characters are in it."""
    return '"' + part.lower().replace('"', '""') + '"'
