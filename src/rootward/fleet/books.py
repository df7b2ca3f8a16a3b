"""A certificate's row against its events, both ways: what the log says must stand in the row, and nothing else.

Pure: rows and events go in, sentences come out. `as_of` is the row as its events up to a head tell it, for an export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from cryptography import x509

from rootward.core.der import DerError
from rootward.core.foreign import read_foreign
from rootward.core.problems import Problem
from rootward.core.pubkey import certificate_key
from rootward.core.times import rfc3339
from rootward.store.certificates import HOLD, Certificate, issuer_of_others
from rootward.store.events import Event
from rootward.store.requests import Parked

Issuers = Mapping[int, str]  # issuers.n to key id

_ENDS = ("issue.done", "issue.failed", "issue.orphaned")
_REVOKING = ("certificate.revoked", "certificate.held", "certificate.released")
_FIRST = ("issue.intended", "authority.certified", "certificate.adopted")
_FILLED = "certificate.filled"

# Columns that are NULL in the row of a certificate of others.
_OURS_ALONE = (
    *("authority", "profile", "profile_version", "signature", "replaces", "retry_of"),
    *("failed_at", "orphaned_at", "revoked_at", "reason"),
)

# What `issue.intended` says of the row: the event's field, and the row's value in the event's form.
_DECIDED: dict[str, Callable[[Certificate], Any]] = {
    "serial": lambda row: row.serial.hex(),
    "authority": lambda row: row.authority,
    "profile": lambda row: row.profile,
    "version": lambda row: row.profile_version,
    "key": lambda row: row.key_id,
    "subject_name": lambda row: row.subject,
    "names": lambda row: [*row.names],
    "not_before": lambda row: rfc3339(row.not_before),
    "not_after": lambda row: rfc3339(row.not_after),
    "owner": lambda row: row.owner,
    "labels": lambda row: row.labels,
    "replaces": lambda row: row.replaces,
    "retry_of": lambda row: row.retry_of,
    "tbs_sha256": lambda row: hashlib.sha256(row.tbs).hexdigest(),
}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of one certificate, in their order, make of the columns that are NULL until something happens."""

    issued_at: datetime | None = None
    sha256: str | None = None
    failed_at: datetime | None = None
    orphaned_at: datetime | None = None
    revoked_at: datetime | None = None
    reason: str | None = None


def state(facts: Sequence[Event]) -> State:
    """Fold the events of one certificate."""
    found = State()
    change = msgspec.structs.replace
    for fact in facts:
        match fact.kind:
            case "issue.done" | "authority.certified" | "certificate.imported" | "certificate.adopted":
                found = change(found, issued_at=fact.at, sha256=fact.values().get("sha256"))
            case "certificate.filled":
                found = change(found, sha256=fact.values().get("sha256"))
            case "issue.failed":
                found = change(found, failed_at=fact.at)
            case "issue.orphaned":
                found = change(found, orphaned_at=fact.at, revoked_at=fact.at, reason="unspecified")
            case "certificate.revoked":
                found = change(found, revoked_at=fact.at, reason=str(fact.values().get("reason")))
            case "certificate.held":
                found = change(found, revoked_at=fact.at, reason=HOLD)
            case "certificate.released":
                found = change(found, revoked_at=None, reason=None)
            case _:
                pass
    return found


def as_of(row: Certificate, facts: Sequence[Event]) -> Certificate | None:
    """The row as these events tell it, where later ones have changed it since; None where they do not know it yet."""
    if not facts:
        return None
    told = state(facts)
    signature = row.signature if told.issued_at is not None else None
    row = msgspec.structs.replace(row, signature=signature, **msgspec.structs.asdict(told))
    if told.issued_at is not None and told.sha256 is None:  # it was filled since
        row = msgspec.structs.replace(row, signature=None, **_bare(facts[0]))
    return row


def differences(row: Certificate, facts: Sequence[Event], issuers: Issuers) -> Iterator[str]:
    """Everything in which a row and its events do not agree, as sentences."""
    if row.source != "issued":
        yield from _foreign(row, facts)
        return
    first = [fact for fact in facts if fact.kind in _FIRST]
    if len(first) != 1:
        yield "no event tells of its beginning" if not first else f"{len(first)} events tell of its beginning"
        return
    if facts[0] is not first[0]:
        yield f"the event {facts[0].kind} came before its beginning"
    ends = [fact.kind for fact in facts if fact.kind in _ENDS]
    if len(ends) > 1 or (ends and first[0].kind != "issue.intended"):
        yield f"it has more than one end: {', '.join(ends)}"
    beginning = first[0]
    if beginning.kind == "issue.intended":
        yield from _decided(row, beginning, issuers)
    elif beginning.kind == "certificate.adopted":
        yield from _adopted(row, beginning, issuers)
    else:
        yield from _certified(row, beginning, issuers)
    yield from _filled(row, beginning, facts, issuers)
    yield from _whole(row, facts)
    yield from _state(row, state(facts))


class Uses(NamedTuple):
    """What events of others say of requests. `of` are the intents that used the yes, oldest first, by request; `over`
    the certificates whose attempt came to nothing; `parked` the moments at which something was parked.
    """

    of: Mapping[str, Sequence[Event]]
    over: Collection[str]
    parked: Collection[datetime]


def undecided(row: Parked, facts: Sequence[Event], uses: Uses) -> Iterator[str]:
    """Everything in which a request and its events do not agree: who asked for what, who said yes or no, and what the
    yes was used for.
    """
    by_kind = {fact.kind: fact for fact in facts}
    parked = by_kind.get("request.parked")
    if parked is None:
        yield "no event tells that it was parked"
        return
    said = parked.values()
    # Who asks in an account's place stands as the actor, and the account in the event's data.
    who, account = (row.principal, None) if row.asked_by is None else (row.asked_by, row.principal)
    asked = (who, account, row.created_at, row.authority, row.profile, row.plan)
    told = (parked.actor, said.get("account"), parked.at, parked.authority, said.get("profile"), said.get("plan"))
    if asked != told:
        yield f"who asked, when, or for what is not what event {parked.n} says"
    for kind, stands in (
        ("request.approved", (row.approved_at, row.approved_by)),
        ("request.denied", (row.denied_at, row.denied_by)),
    ):
        fact = by_kind.get(kind)
        if stands != ((None, None) if fact is None else (fact.at, fact.actor)):
            yield f"it says {_said(stands[0])} of being {kind.partition('.')[2]}, against its events"
        elif fact is not None and fact.values().get("comment") != row.comment:
            yield f"its comment is another one than in event {fact.n}"
    failed = by_kind.get("request.failed")
    if row.failed_at != (None if failed is None else failed.at):
        yield f"it says {_said(row.failed_at)} of having failed, against its events"
    if "sha256" in said:  # else it was parked by a program that did not write of uses either
        if said["sha256"] != row.sha256:
            yield f"what was asked for, or what a yes is bound to, is not what event {parked.n} says"
        yield from _used(row, uses)


def _used(row: Parked, uses: Uses) -> Iterator[str]:
    """A yes is for one certificate: used once, given back only by an attempt that came to nothing (I-07)."""
    used = uses.of.get(row.id, ())
    for before, after in pairwise(used):
        if before.certificate not in uses.over:
            yield f"event {after.n} used it, and event {before.n} had"
    last = used[-1] if used else None
    if row.certificate != (None if last is None else last.certificate):
        yield f"it names the certificate {_said(row.certificate)}, against the events of its use"
    # Given back it is open again, unless it had expired or the same was parked anew.
    given_back = row.used_at is None and last is not None and last.certificate in uses.over
    if row.used_at != (None if last is None else last.at) and not given_back:
        yield f"it says {_said(row.used_at)} of its use, against its events"
    closed = row.denied_at or row.failed_at or row.used_at
    # What nothing else closes is closed when the same is parked anew after it has expired.
    expired = row.closed_at is not None and row.closed_at >= row.expires_at and row.closed_at in uses.parked
    if row.closed_at != closed and not (closed is None and expired):
        yield f"it says {_said(row.closed_at)} of being closed, against its events"


def _decided(row: Certificate, fact: Event, issuers: Issuers) -> Iterator[str]:
    said = fact.values()
    for name, of in _DECIDED.items():
        if name in said and said[name] != of(row):
            yield f"its {name} is {of(row)!r}, and {said[name]!r} in event {fact.n}"
    if "issuer" in said and said["issuer"] != issuers.get(row.issuer):
        yield f"its issuer is another one than in event {fact.n}"
    yield from _asker(row, fact)


def _asker(row: Certificate, fact: Event) -> Iterator[str]:
    for name, mine, theirs in (
        ("requester", row.requester, fact.actor),
        ("request", row.request_id, fact.request_id),
        ("beginning", row.intended_at, fact.at),
    ):
        if mine != theirs:
            yield f"its {name} is {_said(mine)}, and {_said(theirs)} in event {fact.n}"


def _certified(row: Certificate, fact: Event, issuers: Issuers) -> Iterator[str]:
    """An authority's own certificate: what the row says is what its DER says."""
    yield from _asker(row, fact)
    yield from _under(row, fact, issuers)
    if row.der is None:
        return
    try:
        read = x509.load_der_x509_certificate(row.der)
        dates = (read.not_valid_before_utc, read.not_valid_after_utc)
        says = (read.subject.rfc4514_string(), certificate_key(read).id, *dates, ())
    except (ValueError, x509.InvalidVersion, Problem) as error:
        yield f"its DER cannot be read: {error}"
        return
    if (row.subject, row.key_id, row.not_before, row.not_after, row.names) != says:
        yield "its subject, key, names or dates are others than those of its DER"
    fields = (row.profile, row.profile_version, row.owner, row.replaces, row.retry_of, row.labels or None)
    if any(field is not None for field in fields):
        yield "it has a profile, an owner or labels, which no authority's certificate has"


def _adopted(row: Certificate, fact: Event, issuers: Issuers) -> Iterator[str]:
    """What an authority had signed before it came here: what the row says is what its DER says, if we have that."""
    yield from _asker(row, fact)
    yield from _under(row, fact, issuers)
    if row.der is None:  # whatever its columns make of it, there is no more of it than its beginning
        if any(getattr(row, name) != value for name, value in _bare(fact).items()):
            yield f"it says something else than event {fact.n}, which knows its serial alone"
    else:
        try:
            found = read_foreign(row.der)
        except DerError as error:
            yield f"its DER cannot be read: {error}"
            return
        for name in ("serial", "subject", "key_id", "names", "not_before", "not_after"):
            if getattr(row, name) != getattr(found, name):
                yield f"its {name} is not what its DER says"
    fields = (row.profile, row.profile_version, row.owner, row.replaces, row.retry_of, row.labels or None)
    if any(field is not None for field in fields):
        yield "it has a profile, an owner or labels, which nothing that was adopted has"


def _filled(row: Certificate, beginning: Event, facts: Sequence[Event], issuers: Issuers) -> Iterator[str]:
    """Once, and only what came as a serial alone."""
    filled = [fact for fact in facts if fact.kind == _FILLED]
    was_bare = beginning.kind == "certificate.adopted" and beginning.values().get("sha256") is None
    if len(filled) > was_bare:
        yield f"event {filled[-1].n} fills it, and it was full"
    for fact in filled:
        yield from _under(row, fact, issuers)


def _bare(beginning: Event) -> dict[str, Any]:
    """What a row says of which only the serial is known, by the event that brought it; older ones have no dates."""
    said = beginning.values()
    dates: dict[str, Any] = {
        name: datetime.fromisoformat(said[name]) for name in ("not_before", "not_after") if name in said
    }
    return {"tbs": b"", "algorithm": b"", "key_id": "", "subject": "", "names": (), **dates}


def _under(row: Certificate, fact: Event, issuers: Issuers) -> Iterator[str]:
    said = fact.values()
    told = (said.get("serial"), said.get("issuer"), said.get("issuer_key"))
    if told != (row.serial.hex(), row.authority, issuers.get(row.issuer)):
        yield f"its serial, authority or issuer is another one than in event {fact.n}"


def _foreign(row: Certificate, facts: Sequence[Event]) -> Iterator[str]:
    """A certificate of others: the one event that brought it in, and columns that are what its DER says.

    Nothing else ever happens to it, so a row with events of an issuance, or with an issuer of ours, is one of ours that
    somebody made look like this.
    """
    if row.source != "imported":
        yield f"its source is {row.source!r}, which nothing here writes"
    for fact in facts:
        if fact.kind != "certificate.imported":
            yield f"it is of others, and event {fact.n} tells of {fact.kind}"
    imported = [fact for fact in facts if fact.kind == "certificate.imported"]
    if len(imported) != 1:
        yield "no event tells that it was imported" if not imported else f"{len(imported)} events tell of its import"
        return
    yield from _asker(row, imported[0])
    yield from _imported(row, imported[0])
    if filled := [name for name in _OURS_ALONE if getattr(row, name) is not None]:
        yield f"it has {', '.join(filled)}, which no certificate of others has"


def _imported(row: Certificate, fact: Event) -> Iterator[str]:
    """The columns of a certificate of others, read from its DER anew; the rest is in its event."""
    said = fact.values()
    expected: dict[str, Any] = {name: said[name] for name in ("owner", "labels") if name in said}
    try:
        found = read_foreign(row.tbs)
    except DerError as error:
        yield f"its DER cannot be read: {error}"
        return
    if (found.sha256, found.serial.hex()) != (said.get("sha256"), said.get("serial")):
        yield f"its DER is not the one that event {fact.n} names"
    for name in ("serial", "algorithm", "sha256", "key_id", "subject", "names", "not_before", "not_after"):
        expected[name] = getattr(found, name)
    expected |= {"issuer": issuer_of_others(found.sha256), "issued_at": fact.at}
    for name, value in expected.items():
        if getattr(row, name) != value:
            yield f"its {name} is not what its DER and event {fact.n} say"


def _whole(row: Certificate, facts: Sequence[Event]) -> Iterator[str]:
    if row.algorithm not in row.tbs:
        yield "its algorithm is not the one in its TBS"
    der = row.der
    if der is not None and hashlib.sha256(der).hexdigest() != row.sha256:
        yield "its hash is not that of its DER"
    for fact in facts:
        said = fact.values()
        if "serial" in said and said["serial"] != row.serial.hex():
            yield f"event {fact.n} names another serial"
        if fact.kind in (*_ENDS, *_REVOKING, _FILLED) and fact.authority != row.authority:
            yield f"event {fact.n} is about another authority"
        if fact.kind == "issue.orphaned" and (said.get("tbs"), said.get("requester")) != (row.tbs.hex(), row.requester):
            yield f"its TBS or requester is another one than in event {fact.n}"


def _state(row: Certificate, told: State) -> Iterator[str]:
    for name, expected in msgspec.structs.asdict(told).items():
        found = getattr(row, name)
        if found != expected:
            yield f"its {name} is {_said(found)}, and its events say {_said(expected)}"
    if (row.signature is not None) != (told.sha256 is not None):
        yield "it has a signature, or none, against what its events say"


def _said(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    return "nothing" if value is None else repr(value)
