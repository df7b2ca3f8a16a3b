"""The export of the log, one JSON value a line: events in the order of their leaves, then the certificates that they
tell of, then the head that they are proven by. Written and read here, so that both are one form.

It is made from one snapshot and says what the events of its head say: what happened a moment later is in neither half.
Reading puts it into a scratch database, so that checking a long export needs no memory (fleet/auditor.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, NullPool, create_engine, insert, or_, select

from rootward.ca.access import Caller
from rootward.ca.audit import begin_export
from rootward.ca.installation import Installation
from rootward.core.ledger import BadNote, Head, Verifier, parse_head, parse_verifier
from rootward.core.problems import Problem
from rootward.core.times import parse_time, rfc3339
from rootward.fleet import books
from rootward.fleet.auditor import Finding, Report, verify_export
from rootward.store import certificates, events, heads
from rootward.store.schema import certificates as rows
from rootward.store.schema import events as log
from rootward.store.schema import facts, issuers, metadata
from rootward.store.schema import heads as heads_table

LONGEST = 16 * 1024 * 1024  # octets of a line that is read
MOST = 2  # exports at a time: each holds a snapshot of the store
_AT_ONCE = 500
_PIECE = 64 * 1024
_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode


Moment = Annotated[
    str, msgspec.Meta(description="RFC 3339 in UTC, whole seconds", extra_json_schema={"format": "date-time"})
]


class EventLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fact. `leaf` is its place in the audit tree, null until the sequencer has taken it in."""

    id: str
    at: Moment
    kind: str
    actor: str
    authority: str | None
    certificate_id: str | None
    request_id: str
    data: dict[str, Any]
    leaf: int | None


class CertificateFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What events tell of a certificate. `issuer` is the SHA-256 of the issuer's key, octets are in hex."""

    id: str
    issuer: str | None
    serial: str
    source: str
    authority: str | None
    profile: str | None
    version: int | None
    key: str
    subject: str
    names: list[str]
    not_before: str
    not_after: str
    owner: str | None
    labels: dict[str, str]
    requester: str
    request_id: str
    replaces: str | None
    retry_of: str | None
    intended_at: str
    issued_at: str | None
    failed_at: str | None
    orphaned_at: str | None
    revoked_at: str | None
    reason: str | None
    sha256: str | None
    tbs: str
    algorithm: str
    signature: str | None


class CertificateLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line about a certificate."""

    certificate: CertificateFacts


class HeadLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: the signed note, and the log's public key as `name+id+key`."""

    head: str
    key: str


def event_line(event: events.Event) -> EventLine:
    """An event as the API says it."""
    return EventLine(
        id=str(event.n),
        at=rfc3339(event.at),
        kind=event.kind,
        actor=event.actor,
        authority=event.authority,
        certificate_id=event.certificate,
        request_id=event.request_id,
        data=event.values(),
        leaf=event.leaf,
    )


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def export(inst: Installation, caller: Caller) -> AsyncIterator[bytes]:
    """The whole export, by pieces. Its own event, and the newest head, are in it (I-60).

    Problems: RW-FORBIDDEN without the role auditor, RW-LOG-BEHIND, RW-UNAVAILABLE where others are being made.
    """
    verifier = await begin_export(inst, caller)
    if inst.process.exports >= MOST:
        raise Problem("RW-UNAVAILABLE", f"{MOST} exports are being made already.", retry_after=30)
    return _pieces(inst, verifier)


async def _pieces(inst: Installation, verifier: Verifier) -> AsyncIterator[bytes]:
    inst.process.exports += 1
    try:
        with inst.db.snapshot() as conn:
            source = lines(conn, verifier)
            while piece := await asyncio.to_thread(_piece, source):
                yield piece
    finally:
        inst.process.exports -= 1


def _piece(source: Iterator[bytes]) -> bytes:
    """The next lines, 64 KiB or so; nothing at the end."""
    piece = bytearray()
    for line in source:
        piece += line
        if len(piece) >= _PIECE:
            break
    return bytes(piece)


def lines(conn: Connection, verifier: Verifier) -> Iterator[bytes]:
    """The export of a snapshot, under its newest signed head."""
    head = heads.newest_signed(conn)
    if head is None or head.note is None:
        raise Problem("RW-LOG-BEHIND", "The audit log has no signed head yet.", retry_after=1)
    first = 0
    while first < head.size:
        page = events.by_leaf(conn, first, min(_AT_ONCE, head.size - first))
        if not page:
            break  # cut off: whoever checks the export finds it
        for event in page:
            yield _encode(event_line(event)) + b"\n"
        first = (page[-1].leaf or 0) + 1
    known = {row.n: row.key_id for row in conn.execute(select(issuers.c.n, issuers.c.key_id))}
    later = _later(conn, head.size)
    query = select(*certificates.COLUMNS).order_by(rows.c.n)
    stream = conn.execute(query, execution_options={"yield_per": _AT_ONCE})
    for found in stream:
        row: certificates.Certificate | None = certificates.from_row(found)
        if row is not None and row.id in later:
            row = books.as_of(row, _until(conn, row.id, head.size))
        if row is not None:
            yield _encode(CertificateLine(_facts(row, known))) + b"\n"
    yield _encode(HeadLine(head.note, verifier.text)) + b"\n"


def _later(conn: Connection, size: int) -> frozenset[str]:
    """Certificates about which something was written that the head does not have: those of a second or so."""
    query = select(log.c.certificate).where(
        log.c.certificate.is_not(None), or_(log.c.leaf.is_(None), log.c.leaf >= size)
    )
    return frozenset(conn.execute(query).scalars())


def _until(conn: Connection, id: str, size: int) -> list[events.Event]:
    columns = [log.c[name] for name in events.Event.__struct_fields__]
    query = select(*columns).where(log.c.certificate == id, log.c.leaf < size).order_by(log.c.n)
    return [events.Event(*row) for row in conn.execute(query)]


def _facts(row: certificates.Certificate, issuers: books.Issuers) -> CertificateFacts:
    def when(at: datetime | None) -> str | None:
        return None if at is None else rfc3339(at)

    return CertificateFacts(
        id=row.id,
        issuer=issuers.get(row.issuer),
        serial=row.serial.hex(),
        source=row.source,
        authority=row.authority,
        profile=row.profile,
        version=row.profile_version,
        key=row.key_id,
        subject=row.subject,
        names=[*row.names],
        not_before=rfc3339(row.not_before),
        not_after=rfc3339(row.not_after),
        owner=row.owner,
        labels=row.labels,
        requester=row.requester,
        request_id=row.request_id,
        replaces=row.replaces,
        retry_of=row.retry_of,
        intended_at=rfc3339(row.intended_at),
        issued_at=when(row.issued_at),
        failed_at=when(row.failed_at),
        orphaned_at=when(row.orphaned_at),
        revoked_at=when(row.revoked_at),
        reason=row.reason,
        sha256=row.sha256,
        tbs=row.tbs.hex(),
        algorithm=row.algorithm.hex(),
        signature=None if row.signature is None else row.signature.hex(),
    )


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

_event = msgspec.json.Decoder(EventLine).decode
_certificate = msgspec.json.Decoder(CertificateLine).decode
_head = msgspec.json.Decoder(HeadLine).decode


@dataclass
class Reading:
    """What came of the last line."""

    head: Head | None = None
    verifier: Verifier | None = None
    leaf: int = 0  # the one that comes next
    _issuers: dict[str, int] = field(default_factory=dict)

    def issuer(self, key_id: str) -> int:
        """A number for the key of an issuer of ours."""
        return self._issuers.setdefault(key_id, len(self._issuers) + 1)

    def issuer_of(self, told: CertificateFacts) -> int:
        """As it stands in a store: each of others has its own, because their serials are not theirs alone."""
        if told.issuer is not None:
            return self.issuer(told.issuer)
        return 0 if told.sha256 is None else certificates.issuer_of_others(told.sha256)


@contextmanager
def scratch() -> Iterator[Connection]:
    """An empty database for `read`, on disk, gone after the `with` block."""
    with TemporaryDirectory(prefix="rootward-") as folder:
        engine = create_engine(f"sqlite+pysqlite:///{Path(folder) / 'scratch.db'}", poolclass=NullPool)
        with engine.connect() as conn:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
                conn.exec_driver_sql(f"PRAGMA {pragma}").close()
            metadata.create_all(conn, tables=[log, rows, issuers, facts, heads_table], checkfirst=False)
            yield conn


def read(conn: Connection, source: Iterable[bytes], reading: Reading) -> Iterator[Finding]:
    """Put an export into the scratch database. Findings are what no export says: lines that cannot be read, that are
    there twice or out of order, and a missing last line.
    """
    add_event = insert(log).prefix_with("OR IGNORE")
    add_row = insert(rows).prefix_with("OR IGNORE")
    for number, line in enumerate(source, 1):
        about = f"line {number}"
        if reading.head is not None or reading.verifier is not None:
            yield Finding(about, "it comes after the head, which is the last line")
            return
        try:
            if line.startswith(b'{"certificate":'):
                values = _row(_certificate(line).certificate, reading)
                if conn.execute(add_row, values).rowcount != 1:
                    yield Finding(about, "this certificate is there twice")
            elif line.startswith(b'{"head":'):
                last = _head(line)
                reading.head, reading.verifier = parse_head(last.head), parse_verifier(last.key)
            else:
                event = _event(line)
                if event.leaf is None:
                    yield Finding(about, "its event has no leaf")
                elif event.leaf < reading.leaf:  # a gap is found with the tree
                    yield Finding(about, f"leaf {event.leaf} comes behind leaf {reading.leaf - 1}")
                else:
                    reading.leaf = event.leaf + 1
                if conn.execute(add_event, _columns(event)).rowcount != 1:
                    yield Finding(about, "this event or its leaf is there twice")
        except (msgspec.MsgspecError, BadNote, Problem, ValueError, OverflowError) as error:
            yield Finding(about, f"it cannot be read: {error}")
    if reading.head is None:
        yield Finding("the export", "it has no head at its end: it was cut off")
    for key_id, n in reading._issuers.items():
        conn.execute(
            insert(issuers), {"n": n, "authority": "", "key_id": key_id, "certificate": b"", "created_at": _ZERO}
        )


def _is_of_export(line: bytes) -> bool:
    """Whether the line could stand in an export."""
    for decode in (_event, _certificate, _head):
        try:
            decode(line)
        except (msgspec.MsgspecError, ValueError):
            continue
        return True
    return False


def verify_file(path: Path, pinned: Verifier | None, report: Report) -> Iterator[Finding]:
    """Every finding about an export in a file. `report` is filled on the way."""
    reading = Reading()
    with scratch() as conn, path.open("rb") as file:
        if not any(map(_is_of_export, iter(lambda: file.readline(LONGEST), b""))):
            yield Finding("the file", "this is no export of rootward audit export")
            return
        file.seek(0)
        yield from read(conn, iter(lambda: file.readline(LONGEST), b""), reading)
        yield from verify_export(conn, reading.head, reading.verifier, pinned, report)


_ZERO = parse_time("1970-01-01T00:00:00Z")


def _columns(event: EventLine) -> dict[str, Any]:
    n = int(event.id)
    if str(n) != event.id:  # such as 014: another text than was exported, and the same leaf
        raise ValueError(f"{event.id!r} is no id")
    return {
        "n": n,
        "at": parse_time(event.at),
        "kind": event.kind,
        "actor": event.actor,
        "authority": event.authority,
        "certificate": event.certificate_id,
        "request_id": event.request_id,
        "data": _sorted(event.data).decode(),
        "leaf": event.leaf,
    }


def _row(told: CertificateFacts, reading: Reading) -> dict[str, Any]:
    def when(text: str | None) -> datetime | None:
        return None if text is None else parse_time(text)

    return {
        "id": told.id,
        "issuer": reading.issuer_of(told),
        "serial": bytes.fromhex(told.serial),
        "source": told.source,
        "authority": told.authority,
        "profile": told.profile,
        "profile_version": told.version,
        "tbs": bytes.fromhex(told.tbs),
        "algorithm": bytes.fromhex(told.algorithm),
        "signature": None if told.signature is None else bytes.fromhex(told.signature),
        "sha256": told.sha256,
        "key_id": told.key,
        "subject": told.subject,
        "names": _sorted(told.names).decode(),
        "not_before": when(told.not_before),
        "not_after": when(told.not_after),
        "owner": told.owner,
        "labels": _sorted(told.labels).decode(),
        "requester": told.requester,
        "request_id": told.request_id,
        "replaces": told.replaces,
        "retry_of": told.retry_of,
        "lease": "",
        "intended_at": when(told.intended_at),
        "issued_at": when(told.issued_at),
        "failed_at": when(told.failed_at),
        "orphaned_at": when(told.orphaned_at),
        "revoked_at": when(told.revoked_at),
        "reason": told.reason,
    }
