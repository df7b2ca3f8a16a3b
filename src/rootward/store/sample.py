"""Single rows of the inventory for whoever compares it with what is told outside: each by a key, so that a sample costs
the same in a store of a million certificates.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from rootward.store.certificates import COUNTS
from rootward.store.rows import Look
from rootward.store.schema import certificates

_c = certificates.c


class Sampled(NamedTuple):
    """What the inventory says of a serial that counts as issued."""

    revoked_at: datetime | None
    not_after: datetime


_SAMPLED = Look(
    select(_c.revoked_at, _c.not_after).where(_c.issuer == bindparam("of"), _c.serial == bindparam("number"), COUNTS)
)
_HIGHEST = Look(select(_c.n).order_by(_c.n.desc()).limit(1))
_FROM = Look(
    select(_c.serial, _c.issuer, *(_c[x] for x in ("issued_at", "orphaned_at")))
    .where(_c.n >= bindparam("low"))
    .order_by(_c.n)
    .limit(1)
)
_LATELY = Look(
    select(_c.serial)
    .where(_c.issuer == bindparam("of"), _c.revoked_at.is_not(None))
    .order_by(_c.revoked_at.desc())
    .limit(bindparam("most"))
)


def sampled(conn: Connection, issuer: int, serial: bytes) -> Sampled | None:
    """The row of that serial (DER content octets); None where it does not count as issued."""
    row = _SAMPLED.one(conn, {"of": issuer, "number": serial})
    return None if row is None else Sampled(*row)


def highest(conn: Connection) -> int:
    """The number of the newest row; 0 where there is none."""
    row = _HIGHEST.one(conn, {})
    return 0 if row is None else int(row[0])


def issued_from(conn: Connection, issuer: int, low: int) -> bytes | None:
    """The serial of the first row from number `low` on; None where it is none that this issuer has issued."""
    row = _FROM.one(conn, {"low": low})
    if row is None or row[1] != issuer or (row[2] is None and row[3] is None):
        return None
    serial: bytes = row[0]
    return serial


def lately_revoked(conn: Connection, issuer: int, most: int) -> list[bytes]:
    """The serials of the latest revocations of an issuer."""
    return [row[0] for row in _LATELY.all(conn, {"of": issuer, "most": most})]
