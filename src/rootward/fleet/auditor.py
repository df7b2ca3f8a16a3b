"""`rootward audit verify`: the whole log held against its heads, and the inventory against the log. Without a server,
without a lock, in constant memory.

It finds every change that contradicts a head which the checker holds: events edited, deleted, inserted, reordered or
cut off; leaves, heads and keys changed; certificates and revocations that no event tells of, and events whose effect is
not there (I-59). What it cannot find: a store and the signed head beside it put back together to an older state (a
witness that kept a newer head can), and events of the last second, which have no place in the tree yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from rootward.ca.clock import TOLERANCE
from rootward.ca.log import FACT, Told
from rootward.core.ledger import BadNote, Frontier, Head, Verifier, leaf_hash, parse_head, parse_verifier
from rootward.core.times import rfc3339
from rootward.core.words import count
from rootward.fleet import books
from rootward.store import certificates, events, facts, heads
from rootward.store.requests import Parked
from rootward.store.schema import certificates as rows
from rootward.store.schema import events as log
from rootward.store.schema import issuers
from rootward.store.schema import requests as parked

_AT_ONCE = 1000
_EVENT = tuple(log.c[name] for name in events.Event.__struct_fields__)


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was signed: what it is about (`event 18`, `head 40`), and a sentence."""

    about: str
    detail: str


@dataclass
class Report:
    """What was read. `size` is the tree's, `waiting` counts events without a place yet, `went_on` how often the log
    went on from an older state by somebody's word.
    """

    verifier: Verifier | None = None
    size: int = 0
    newest: int = 0  # the size of the newest head
    waiting: int = 0
    certificates: int = 0
    went_on: int = 0
    findings: int = 0
    roots: dict[int, list[tuple[bytes, str]]] = field(default_factory=dict)

    def want(self, size: int, root: bytes, about: str) -> None:
        """The tree of that size must have this root."""
        self.roots.setdefault(size, []).append((root, about))


def verify_store(conn: Connection, told: Told, pinned: Verifier | None, report: Report) -> Iterator[Finding]:
    """Every finding about a store; `told` is what the files of its host say (read before the snapshot was taken)."""
    fact = facts.get(conn, FACT)
    try:
        report.verifier = None if fact is None else parse_verifier(fact.data)
    except BadNote as error:
        yield Finding("the log's key", str(error))
    known = report.verifier or told.verifier or pinned
    if fact is None and (told.verifier is not None or pinned is not None):
        yield Finding("the log's key", "the store has none")
    yield from _keys(report.verifier, told.verifier, pinned)
    if told.verifier is None and heads.newest_signed(conn) is not None and pinned is None:
        yield Finding("the log's key", "the files beside the store that pin it are gone; --key pins it")
    if told.verifier is not None and told.head is None:
        yield Finding("the checkpoint", "the file with the newest head is gone")
    if told.head is not None:
        report.want(told.head.size, told.head.root, "the checkpoint beside the store")
    yield from _heads(conn, known, report)
    if told.head is not None:
        signed = heads.newest_signed(conn)
        size = 0 if signed is None else signed.size
        if size < told.head.size:
            detail = (
                f"the store's newest signed head has {size} events, the checkpoint {told.head.size}: it was cut off"
            )
            yield Finding("the checkpoint", detail)
    yield from _tree(conn, report, stored=True)
    if report.newest != report.size:
        yield Finding("the newest head", f"it has {report.newest} events, and the log has {report.size}")
    yield from _books(conn, report)
    yield from _requests(conn)


def verify_export(
    conn: Connection, head: Head | None, verifier: Verifier | None, pinned: Verifier | None, report: Report
) -> Iterator[Finding]:
    """Every finding about an export that was read into `conn` (fleet/export.py), with the head and key of its last
    line.
    """
    report.verifier = verifier
    yield from _keys(verifier, None, pinned)
    if head is not None:
        report.want(head.size, head.root, "the export's head")
        try:
            if verifier is not None:
                head.check(verifier)
        except BadNote as error:
            yield Finding("the export's head", str(error))
    yield from _tree(conn, report, stored=False)
    if head is not None and head.size < report.size:  # a larger one was found with the tree
        yield Finding("the export's head", f"it has {count(head.size, 'event')}, and the export {report.size}")
    yield from _books(conn, report)


def _keys(mine: Verifier | None, beside: Verifier | None, pinned: Verifier | None) -> Iterator[Finding]:
    for other, where in ((beside, "the file beside the store"), (pinned, "the pinned key")):
        if mine is None or other is None or mine == other:
            continue
        if mine.key != other.key:
            yield Finding("the log's key", f"it is another one than {where} says")
        else:
            detail = f"it is {mine.name}, and {where} says {other.name}: the log was begun anew from an older state"
            yield Finding("the log's key", detail)


# ── The tree ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _heads(conn: Connection, verifier: Verifier | None, report: Report) -> Iterator[Finding]:
    """The kept heads and their chain; wants each root."""
    every = [*heads.every(conn)]
    for position, head in enumerate(every):
        about = f"head {head.size}"
        before = every[position - 1].size if position else 0
        # Heads go one by one from the oldest, once there are more than are kept: only then the first names another.
        pruned = position == 0 and len(every) >= heads.KEPT
        if head.was != before and not pruned:
            yield Finding(about, f"it says that it grew from {head.was}, and the one before it has {before}")
        try:
            head.tree()
        except ValueError as error:
            yield Finding(about, str(error))
        report.want(head.size, head.root, about)
        if head.note is None:
            if position < len(every) - 1:  # the newest may be about to be signed
                yield Finding(about, "it is not signed")
            continue
        try:
            signed = parse_head(head.note)
            if verifier is not None:
                signed.check(verifier)
            if (signed.size, signed.root) != (head.size, head.root):
                yield Finding(about, "its note is about another tree")
        except BadNote as error:
            yield Finding(about, str(error))
        last = events.by_leaf(conn, head.size - 1, 1) if head.size else ()
        if not last or last[0].leaf != head.size - 1 or last[0].at != head.at:
            yield Finding(about, "its time is not that of its last event")
    report.newest = every[-1].size if every else 0


def _said_heads(conn: Connection, report: Report) -> None:
    """The heads that the log itself tells of. Few: one an hour."""
    found = conn.execute(select(log.c.leaf, log.c.data).where(log.c.kind == "log.head", log.c.leaf.is_not(None)))
    for leaf, data in found:
        said = _decoded(data)
        try:
            size, root = int(said["size"]), bytes.fromhex(said["root"])
        except (KeyError, ValueError, TypeError):
            size, root = -1, b""  # edited: its own leaf shows it
        if 0 < size <= leaf:
            report.want(size, root, f"the head that leaf {leaf} tells of")


def _tree(conn: Connection, report: Report, *, stored: bool) -> Iterator[Finding]:
    """Every leaf from its event, the roots that were wanted, and the order of times. A gap is one finding: behind it
    no root can be made, so none is compared.
    """
    _said_heads(conn, report)
    query = select(*_EVENT, log.c.leaf_hash).where(log.c.leaf.is_not(None)).order_by(log.c.leaf)
    tree, latest, held = Frontier(), None, list[bytes]()
    wanted, whole = report.roots, True
    for row in _stream(conn, query):
        event, kept = events.Event(*row[:-1]), row[-1]
        if event.leaf != report.size:
            missing = event.leaf != report.size + 1
            detail = f"leaves {report.size} to {(event.leaf or 0) - 1} are" if missing else f"leaf {report.size} is"
            yield Finding(f"event {event.n}", f"it has leaf {event.leaf}, and {detail} missing")
            report.size, whole = event.leaf or 0, False
            held.clear()
        made = leaf_hash(events.leaf_of(event))
        if stored and made != kept:
            yield Finding(f"event {event.n}", f"it is not what leaf {event.leaf} was made of")
        report.size += 1
        if whole:
            held.append(made)
        if whole and report.size in wanted:
            tree = tree.extended(held)
            held.clear()
            for root, about in wanted.pop(report.size):
                if root != tree.root:
                    yield Finding(about, f"the first {report.size} events are not those that it was made of")
        elif len(held) >= _AT_ONCE:
            tree = tree.extended(held)
            held.clear()
        yield from _early(event, latest)
        latest = _later(event, latest)
        report.went_on += event.kind == "log.accepted"
    for size, others in sorted(wanted.items()):
        for _, about in others:
            if size > report.size:
                yield Finding(about, f"it has {count(size, 'event')}, and the log only {report.size}")
    # Those without a place yet are of the last second: an old time among them was made up.
    for row in _stream(conn, select(*_EVENT).where(log.c.leaf.is_(None)).order_by(log.c.n)):
        event = events.Event(*row)
        yield from _early(event, latest)
        latest = _later(event, latest)
        report.waiting += 1


def _early(event: events.Event, latest: datetime | None) -> Iterator[Finding]:
    """Whether the clock went back to this event, without an event that says so."""
    if latest is not None and event.kind != "clock.accepted" and event.at < latest - TOLERANCE:
        detail = f"its time {rfc3339(event.at)} is before {rfc3339(latest)}: the clock went back"
        yield Finding(f"event {event.n}", detail)


def _later(event: events.Event, latest: datetime | None) -> datetime:
    """The time that the next event is held against."""
    went_back = latest is None or event.kind == "clock.accepted" or event.at < latest - TOLERANCE
    return event.at if went_back or latest is None else max(latest, event.at)


# ── The inventory ─────────────────────────────────────────────────────────────────────────────────────────────────


def _books(conn: Connection, report: Report) -> Iterator[Finding]:
    """Each certificate with its events, and events of certificates that are not there."""
    known = {row.n: row.key_id for row in conn.execute(select(issuers.c.n, issuers.c.key_id))}
    joined = rows.outerjoin(log, log.c.certificate == rows.c.id)
    query = select(*certificates.COLUMNS, *_EVENT).select_from(joined).order_by(rows.c.n, log.c.n)
    columns = len(certificates.COLUMNS)
    for _, group in groupby(_stream(conn, query), key=lambda row: row[0]):
        entries = [*group]
        report.certificates += 1
        try:
            row = certificates.from_row(entries[0][:columns])
            told = [events.Event(*entry[columns:]) for entry in entries if entry[columns] is not None]
            found = [*books.differences(row, told, known)]
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            yield Finding(f"certificate {entries[0][1]}", f"its row or its events cannot be read: {error}")
            continue
        for detail in found:
            yield Finding(f"certificate {row.id}", detail)
    lost = select(log.c.n, log.c.kind, log.c.certificate).where(
        log.c.certificate.is_not(None), ~select(rows.c.n).where(rows.c.id == log.c.certificate).exists()
    )
    for n, kind, id in _stream(conn, lost):
        yield Finding(f"event {n}", f"it tells of {kind} of the certificate {id}, which is not there")


def _requests(conn: Connection) -> Iterator[Finding]:
    """Each request with its events. They are people's, so there are few: what the events say is kept by request."""
    told: dict[str, list[events.Event]] = {}
    for found in _stream(conn, select(*_EVENT).where(log.c.kind.startswith("request.")).order_by(log.c.n)):
        event = events.Event(*found)
        told.setdefault(str(_decoded(event.data).get("request")), []).append(event)
    uses = _uses(conn, frozenset(fact.at for facts in told.values() for fact in facts if fact.kind == "request.parked"))
    for row in _stream(conn, select(*(parked.c[name] for name in Parked.__struct_fields__)).order_by(parked.c.n)):
        request = Parked(*row)
        for detail in books.undecided(request, told.pop(request.id, ()), uses):
            yield Finding(f"request {request.id}", detail)
    for id, lost in told.items():
        yield Finding(f"event {lost[0].n}", f"it tells of {lost[0].kind} of the request {id}, which is not there")


def _uses(conn: Connection, moments: frozenset[datetime]) -> books.Uses:
    """The intents that used up somebody's yes: few of all, so the database picks them out by the text of the field."""
    used: dict[str, list[events.Event]] = {}
    query = select(*_EVENT).where(log.c.kind == "issue.intended", log.c.data.contains('"request":"'))
    for found in _stream(conn, query.order_by(log.c.n)):
        event = events.Event(*found)
        if isinstance(request := _decoded(event.data).get("request"), str):
            used.setdefault(request, []).append(event)
    ends = select(log.c.certificate).where(log.c.kind.in_(("issue.failed", "issue.orphaned")))
    wanted = {event.certificate for intents in used.values() for event in intents}
    over = frozenset(id for (id,) in _stream(conn, ends) if id in wanted)
    return books.Uses(used, over, moments)


def _stream(conn: Connection, query: Any) -> Iterator[Any]:
    with conn.execute(query, execution_options={"yield_per": _AT_ONCE}) as found:
        yield from found


def _decoded(data: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def summary(report: Report) -> str:
    """What was checked, as one line."""
    name = "a log without a key" if report.verifier is None else report.verifier.name
    said = f"{name}: {count(report.size, 'event')} and {count(report.certificates, 'certificate')}"
    if report.waiting:
        said += f", {count(report.waiting, 'event')} without a place yet"
    if report.went_on:
        said += f", gone on from an older state {count(report.went_on, 'time')}"
    return f"{said}: {'no finding' if not report.findings else count(report.findings, 'finding')}."
