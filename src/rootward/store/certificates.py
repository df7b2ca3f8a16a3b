"""Certificates: one row from the intent on, and facts that are added to it.

`intend` reserves serial and TBS; then exactly one of `complete`, `fail` and `orphan` closes the row, each a
compare-and-set, so that a paused process that wakes up changes nothing (I-05). A row counts as a certificate once it is
issued or an orphan; `intent` alone sees the others. (issuer, serial) is unique for ever, failures included (I-03).

Over 400 lines, because every statement about this one table stands here, where its states can be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Boolean, Connection, Text, bindparam, case, func, insert, or_, select, update

from rootward.core.capture import assemble
from rootward.store import search
from rootward.store import watermark as _watermark
from rootward.store.db import clock
from rootward.store.errors import Lost
from rootward.store.may_issue import MayIssue
from rootward.store.rows import Look, Rows
from rootward.store.schema import certificates as table

Status = Literal["active", "expired", "revoked", "held", "orphan"]
HOLD = "certificateHold"

_c = table.c


class Certificate(msgspec.Struct, frozen=True, dict=True):
    """One row. Columns are as in `schema.certificates`; `names` are "dns:…" and the like, `labels` a dictionary."""

    n: int
    id: str
    issuer: int
    serial: bytes
    source: str
    authority: str | None
    profile: str | None
    profile_version: int | None
    tbs: bytes
    algorithm: bytes
    signature: bytes | None
    sha256: str | None
    key_id: str
    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    owner: str | None
    labels: dict[str, str]
    requester: str
    request_id: str
    replaces: str | None
    retry_of: str | None
    lease: str
    lease_until: datetime | None
    intended_at: datetime
    issued_at: datetime | None
    failed_at: datetime | None
    orphaned_at: datetime | None
    revoked_at: datetime | None
    reason: str | None

    @cached_property
    def der(self) -> bytes | None:
        """The certificate's DER. None for an intent, a failure or an orphan: we have no signature of it."""
        if self.source != "issued":
            return self.tbs
        if self.signature is None:
            return None
        return assemble(self.tbs, self.algorithm, self.signature)

    @property
    def is_bare(self) -> bool:
        """Whether only its serial is known here, by its issuer's CRL."""
        return not self.tbs

    @property
    def serial_hex(self) -> str:
        """The serial's DER content octets in lower-case hex, even length."""
        return self.serial.hex()

    def status(self, now: datetime) -> Status:
        """The first that holds of orphan, revoked, held, expired, active. ValueError for what is no certificate."""
        if self.orphaned_at is not None:
            return "orphan"
        if self.issued_at is None:
            raise ValueError("an intent or a failure has no status")
        if self.revoked_at is not None:
            return "held" if self.reason == HOLD else "revoked"
        return "expired" if self.not_after < now else "active"


class StatusRow(NamedTuple):
    """What OCSP needs. `revoked_at` None is good; `reason` is RFC 5280's name; (revoked_at, reason) is the status's
    version.
    """

    revoked_at: datetime | None
    reason: str | None
    not_after: datetime


COLUMNS = tuple(_c[name] for name in Certificate.__struct_fields__)
FILLED = ("tbs", "algorithm", "signature", "sha256", "key_id", "subject", "names", "not_before", "not_after")
COUNTS = or_(_c.issued_at.is_not(None), _c.orphaned_at.is_not(None))
_OURS = func.coalesce(_c.source, "") == "issued"  # hidden from the planner, which has an index for it
_OPEN = (_c.issued_at.is_(None), _c.failed_at.is_(None), _c.orphaned_at.is_(None))
_NAMES = Certificate.__struct_fields__.index("names")
_LABELS = Certificate.__struct_fields__.index("labels")
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode
_read_labels = msgspec.json.Decoder(dict[str, str]).decode

_INSERT = insert(table)
# One row of VALUES: SQLite keeps a journal of its own for each INSERT … SELECT, which costs twice as much as the row.
_INSERT_WHILE_OPEN = insert(table).values(
    issuer=case((or_(bindparam("answers", type_=Boolean()), MayIssue(bindparam("of", type_=Text()))), bindparam("by")))
)
_COMPLETE = (
    update(table)
    .where(_c.id == bindparam("which"), _c.lease == bindparam("holder"), _c.signature.is_(None), *_OPEN)
    .values(signature=bindparam("signature"), sha256=bindparam("sha256"), issued_at=bindparam("issued_at"))
)
_FAIL = (
    update(table)
    .where(_c.id == bindparam("which"), _c.lease == bindparam("holder"), *_OPEN)
    .values(failed_at=bindparam("failed_at"))
)
_ORPHAN = (
    update(table)
    .where(_c.id == bindparam("which"), _c.lease == bindparam("holder"), *_OPEN)
    .values(orphaned_at=bindparam("at"), revoked_at=bindparam("at"), reason="unspecified")
)
_REVOKE = (
    update(table)
    .where(_c.id == bindparam("which"), COUNTS, or_(_c.revoked_at.is_(None), _c.reason == HOLD))
    .values(revoked_at=bindparam("at"), reason=bindparam("why"))
)
# Of what is issued, a row without a hash is a serial that a CRL had: any other has one for ever.
_FILL = (
    update(table)
    .where(_c.id == bindparam("which"), _c.sha256.is_(None), _c.signature.is_(None), _c.issued_at.is_not(None))
    .values({name: bindparam(f"new_{name}") for name in FILLED})
)
_RELEASE = (
    update(table)
    .where(_c.id == bindparam("which"), _c.revoked_at.is_not(None), _c.reason == HOLD)
    .values(revoked_at=None, reason=None)
)
_ANY = Look(select(*COLUMNS).where(_c.id == bindparam("which")))
_BY_ID = Look(select(*COLUMNS).where(_c.id == bindparam("which"), COUNTS))
_BY_SERIAL = Look(select(*COLUMNS).where(_c.issuer == bindparam("of"), _c.serial == bindparam("number"), COUNTS))
_USED = Look(select(_c.id).where(_c.issuer == bindparam("of"), _c.serial == bindparam("number")))
_ANY_SERIAL = select(*COLUMNS).where(_c.serial == bindparam("number"), COUNTS)
# In the order of the index, so that it ends after 100 however many others have used the serial; theirs are negative.
_BY_SERIAL_ANYWHERE = Look(_ANY_SERIAL.order_by(_c.issuer.desc()).limit(100))
_BY_KEY = Look(
    select(*COLUMNS).where(_c.key_id == bindparam("key"), _OURS, COUNTS).order_by(_c.n).limit(bindparam("most"))
)
# Two ranges of the one index over (serial, issuer), never all rows of a serial: an upload may bring 10,000 of one.
_BY_SHA256_OF_OTHERS = Look(_ANY_SERIAL.where(_c.issuer == bindparam("of"), _c.sha256 == bindparam("digest")))
_BY_SHA256_OF_OURS = Look(_ANY_SERIAL.where(_c.issuer >= 0, _c.sha256 == bindparam("digest")))
_OPEN_INTENTS = Look(
    select(*COLUMNS).where(*_OPEN, _c.lease != bindparam("mine")).order_by(_c.n).limit(bindparam("most"))
)
_STATUS = Look(
    select(_c.revoked_at, _c.reason, _c.not_after).where(
        _c.issuer == bindparam("of"), _c.serial == bindparam("number"), _OURS, COUNTS
    )
)


_ending = (
    select(_c.n)
    .where(_c.not_after >= bindparam("begin"), _c.not_after < bindparam("end"), _c.issuer == bindparam("of"))
    .limit(bindparam("most"))
    .subquery()
)
_ENDING = Look(select(func.count().label("so_many")).select_from(_ending))
_SUCCESSOR = Look(select(_c.id).where(_c.replaces == bindparam("which"), _c.issued_at.is_not(None)).limit(1))

_NEW: dict[str, Any] = dict.fromkeys(("failed_at", "orphaned_at", "revoked_at", "reason")) | {"n": 0}


def from_row(row: Any) -> Certificate:
    """A row of `COLUMNS` as a Certificate."""
    values = [*row]
    values[_NAMES] = _read_names(values[_NAMES])
    values[_LABELS] = _read_labels(values[_LABELS])
    return Certificate(*values)


def _maybe(row: tuple[Any, ...] | None) -> Certificate | None:
    return None if row is None else from_row(row)


def intend(values: Mapping[str, Any]) -> Rows:
    """The row of an intent, before anything is signed (I-01). `values` by column; `names` and `labels` may be Python
    values.

    Taken on (serial, issuer) means: draw another serial.
    """
    return Rows.one(_INSERT, _intent(values))


def _intent(values: Mapping[str, Any]) -> dict[str, Any]:
    row = {"source": "issued", "labels": {}, **values}
    for name in ("names", "labels"):
        if not isinstance(row[name], str):
            row[name] = msgspec.json.encode(row[name], order="sorted").decode()
    return row


def intend_while_open(values: Mapping[str, Any], *, answers: bool = False) -> Rows:
    """As `intend`, where the authority of that name issues at this moment: Constraint where it is frozen or retired,
    for then the row has no issuer.

    The condition is in the statement, so that no intent follows a freeze that has returned (ADR 0020). `answers` is for
    its OCSP responder, which an authority goes on certifying.
    """
    row = _intent(values)
    row |= {"by": row.pop("issuer"), "of": row["authority"], "answers": answers}
    return Rows.one(_INSERT_WHILE_OPEN, row)


add = intend  # a certificate of others is written whole, with `signature` None and the DER as `tbs`


def issuer_of_others(sha256: str) -> int:
    """What stands as the issuer of a certificate of others with that SHA-256 (hex): negative, and the same only for the
    same certificate, so that (serial, issuer) is unique for those too. 0 is nobody's.
    """
    return -1 - (int(sha256[:16], 16) >> 1)


def complete(id: str, *, signature: bytes, sha256: str, issued_at: datetime, lease: str) -> Rows:
    """The intent became a certificate. Lost where it is closed already or another process's."""
    values = {"which": id, "holder": lease, "signature": signature, "sha256": sha256, "issued_at": issued_at}
    return Rows.one(_COMPLETE, values)


def completed(row: Mapping[str, Any], *, signature: bytes, sha256: str, issued_at: datetime) -> Certificate:
    """What `intend(row)` and `complete` have put into the store, without reading it again. Its `n` is not known: 0."""
    return Certificate(**_NEW, **row, signature=signature, sha256=sha256, issued_at=issued_at)


def fail(id: str, *, at: datetime, lease: str) -> Rows:
    """The intent came to nothing, and it is certain that nothing was signed. Its serial stays burnt."""
    return Rows.one(_FAIL, {"which": id, "holder": lease, "failed_at": at})


def orphan(id: str, *, at: datetime, lease: str) -> Rows:
    """Close an intent of which nobody knows whether it was signed: it counts as issued, and is revoked. `lease` is the
    intent's own.
    """
    return Rows.one(_ORPHAN, {"which": id, "holder": lease, "at": at}) + _watermark.BUMP


def open_intents(conn: Connection, *, but: str = "", limit: int = 1000) -> list[Certificate]:
    """Intents that nothing closed yet, oldest first; all, or those that the process of lease `but` does not hold."""
    return [from_row(row) for row in _OPEN_INTENTS.all(conn, {"most": limit, "mine": but})]


class Open(NamedTuple):
    """Open intents: how many, those that nobody works on here, and since when the oldest of each is open."""

    total: int
    oldest: datetime | None
    stale: int
    stale_oldest: datetime | None


def open_summary(conn: Connection, *, but: Collection[str] = (), limit: int = 1000) -> Open:
    """The open intents, counted up to `limit`. `but` are ids that somebody works on: they are in `total` alone."""
    rows = conn.execute(select(_c.id, _c.intended_at).where(*_OPEN).order_by(_c.n).limit(limit)).all()
    stale = [row.intended_at for row in rows if row.id not in but]
    every = [row.intended_at for row in rows]
    return Open(len(every), min(every, default=None), len(stale), min(stale, default=None))


def abandoned(conn: Connection, *, lease: str, now: datetime, limit: int = 1000) -> list[Certificate]:
    """Open intents that process `lease` may take over: not its own, and their time ran out (or never ran).

    `now` by `clock`. On SQLite an intent has no `lease_until`: the lock file proves that its process is gone.
    """
    rows = conn.execute(
        select(*COLUMNS)
        .where(*_OPEN, _c.lease != lease, or_(_c.lease_until.is_(None), _c.lease_until <= now))
        .order_by(_c.n)
        .limit(limit)
    )
    return [from_row(row) for row in rows]


def intent(conn: Connection, id: str) -> Certificate | None:
    """The row of `id` in whatever state, intents and failures too."""
    return _maybe(_ANY.one(conn, {"which": id}))


def by_id(conn: Connection, id: str) -> Certificate | None:
    """The certificate of that id; None for an intent or a failure."""
    return _maybe(_BY_ID.one(conn, {"which": id}))


def by_serial(conn: Connection, issuer: int, serial: bytes) -> Certificate | None:
    """The certificate of that serial (DER content octets) and issuer (`issuers.n`)."""
    return _maybe(_BY_SERIAL.one(conn, {"of": issuer, "number": serial}))


def is_used(conn: Connection, issuer: int, serial: bytes) -> bool:
    """Whether that serial of that issuer is used up: by a certificate, an intent or a failure."""
    return _USED.one(conn, {"of": issuer, "number": serial}) is not None


def ending_between(conn: Connection, issuer: int, begin: datetime, end: datetime, *, most: int) -> int:
    """How many rows of an issuer end from `begin` on and before `end`, counted up to `most`."""
    row = _ENDING.one(conn, {"of": issuer, "begin": begin, "end": end, "most": most})
    return 0 if row is None else int(row[0])


def is_replaced(conn: Connection, id: str) -> bool:
    """Whether a certificate was issued in this one's place."""
    return _SUCCESSOR.one(conn, {"which": id}) is not None


def by_serial_anywhere(conn: Connection, serial: bytes) -> list[Certificate]:
    """All certificates of that serial, whoever issued them, ours first; at most 100."""
    return [from_row(row) for row in _BY_SERIAL_ANYWHERE.all(conn, {"number": serial})]


def by_key(conn: Connection, key_id: str, *, limit: int = 1000) -> list[Certificate]:
    """All certificates that we issued for that public key (SHA-256 of its SPKI, hex), oldest first."""
    return [from_row(row) for row in _BY_KEY.all(conn, {"key": key_id, "most": limit})]


def each_by_key(conn: Connection, key_id: str) -> Iterator[Certificate]:
    """As `by_key`, without a limit, in a stream."""
    query = select(*COLUMNS).where(_c.key_id == key_id, _OURS, COUNTS).order_by(_c.n)
    for row in conn.execution_options(yield_per=1000).execute(query):
        yield from_row(row)


def by_sha256(conn: Connection, sha256: str, *, serial: bytes) -> Certificate | None:
    """The certificate whose DER has that SHA-256, hex, and that serial; ours, where it was imported too.

    There is no index over hashes: it would be a fifth of what each issuance writes. A DER tells its serial, its hash is
    its issuer where it is of others, and of ours there are as many with one serial as we have authorities, at most.
    """
    values = {"digest": sha256, "number": serial}
    ours = _BY_SHA256_OF_OURS.one(conn, values)
    return _maybe(ours or _BY_SHA256_OF_OTHERS.one(conn, {"of": issuer_of_others(sha256), **values}))


def status_of(conn: Connection, issuer: int, serial: bytes) -> StatusRow | None:
    """The status of one certificate for OCSP; None where this issuer never issued that serial."""
    row = _STATUS.one(conn, {"of": issuer, "number": serial})
    return None if row is None else StatusRow(*row)


def revoke(conn: Connection, id: str, *, at: datetime, reason: str) -> Certificate:
    """Revoke, hold, or make a hold a revocation. The caller decided that it may, in this very transaction. Lost where
    it may not be.
    """
    (Rows.one(_REVOKE, {"which": id, "at": at, "why": reason}) + _watermark.BUMP).run(conn)
    return _there(conn, id)


def fill(conn: Connection, row: Certificate, values: dict[str, Any]) -> Certificate:
    """A bare row gets its certificate: `values` are all of `FILLED`, `names` as Python values. What was revoked stays
    so, and the search takes it in once more. Lost where the row is not bare, or not any more.
    """
    names = msgspec.json.encode(values["names"]).decode()
    given = {f"new_{name}": value for name, value in (values | {"names": names}).items()}
    Rows.one(_FILL, {"which": row.id, **given}).run(conn)
    search.forget(conn, row.n)
    return _there(conn, row.id)


def release(conn: Connection, id: str) -> Certificate:
    """End a hold. Lost where the certificate is not on hold."""
    (Rows.one(_RELEASE, {"which": id}) + _watermark.BUMP).run(conn)
    return _there(conn, id)


def _there(conn: Connection, id: str) -> Certificate:
    found = by_id(conn, id)
    if found is None:
        raise Lost(f"certificate {id} is not there")
    return found


def watermark(conn: Connection) -> int:
    """How many revocations, holds and releases there were."""
    return _watermark.watermark(conn)


def index_names(conn: Connection, limit: int) -> int:
    """Take up to `limit` certificates into the search by names; returns how many. The search job calls it until it
    returns 0.
    """
    return search.index(conn, limit, at=clock(conn))


def lease_end(conn: Connection, span: timedelta) -> datetime:
    """Until when an intent that is written now is its process's, by the database's clock."""
    return clock(conn) + span
