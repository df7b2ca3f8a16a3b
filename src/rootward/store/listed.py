"""What a CRL lists: read a few thousand rows at a time, because there may be a million, and by one index that has all
of it (`certificates_listed`), because their rows lie all over the table.

There is no condition on `source`: a certificate of others has an issuer of its own (`certificates.issuer_of_others`),
so none is listed; and if somebody wrote another source into a row of ours, a condition would take it off the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import BigInteger, Connection, bindparam, select, text, type_coerce

from rootward.store.schema import Moment, certificates

_c = certificates.c

_LISTED = (
    select(_c.serial, type_coerce(_c.revoked_at, BigInteger), _c.reason)
    .where(_c.issuer == bindparam("of"), _c.revoked_at.is_not(None), _c.not_after >= bindparam("least"))
    .order_by(_c.revoked_at, _c.n)
)
# SQLite's driver lets go of the interpreter's lock for each row, and beside a busy event loop it waits milliseconds to
# get it back. So a few thousand rows come as one: a JSON array.
_LISTED_SQLITE = text(
    """
    SELECT json_group_array(json_array(hex(serial), revoked_at, reason, n)) FROM (
        SELECT serial, revoked_at, reason, n FROM certificates
        WHERE issuer = :issuer AND revoked_at IS NOT NULL AND not_after >= :least AND (revoked_at, n) > (:at, :n)
        ORDER BY revoked_at, n LIMIT :most
    )
    """
)
_read_listed = msgspec.json.Decoder(list[tuple[str, int, str, int]]).decode
_AT_ONCE = 4096


def listed(conn: Connection, issuer: int, *, not_after_from: datetime) -> Iterator[Sequence[tuple[bytes, int, str]]]:
    """(serial, revoked_at in Unix seconds, reason) of what a full CRL of `issuer` lists, oldest revocation first, a few
    thousand at a time, all of one moment.

    Certificates that expired before `not_after_from` are left out: the caller keeps each until one CRL after its expiry
    has shown it (RFC 5280 3.3).
    """
    least = Moment.seconds(not_after_from)
    if conn.dialect.name == "sqlite":
        yield from _revoked_sqlite(conn, issuer, least)
        return
    rows = conn.execute(_LISTED, {"of": issuer, "least": not_after_from}, execution_options={"yield_per": _AT_ONCE})
    for part in rows.partitions():
        yield [(serial, at, reason) for serial, at, reason in part]


def _revoked_sqlite(conn: Connection, issuer: int, least: int | None) -> Iterator[Sequence[tuple[bytes, int, str]]]:
    place = {"issuer": issuer, "least": least, "at": -(1 << 62), "n": 0, "most": _AT_ONCE}
    octets = bytes.fromhex
    while part := _read_listed(conn.execute(_LISTED_SQLITE, place).scalar_one()):
        yield [(octets(serial), at, reason) for serial, at, reason, _ in part]
        _, place["at"], _, place["n"] = part[-1]
