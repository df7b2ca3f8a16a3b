"""Revoking, holding and releasing: durable with its event before anybody is told so, in OCSP at once, in the CRL
within a minute (I-15, I-16, I-56). It does not need the issuing half to work (I-25).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca import aftermath
from rootward.ca.access import Caller, require
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Role
from rootward.store import certificates, events
from rootward.store.certificates import Certificate
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

T = TypeVar("T")

log = structlog.get_logger()
HOLD = RevocationReason.CERTIFICATE_HOLD
BATCH = 200  # revocations in one transaction


async def revoke(inst: Installation, id: str, reason: RevocationReason, caller: Caller) -> Certificate:
    """Revoke one certificate; the same again changes nothing. From a hold any final reason follows.

    Problems: RW-NOT-FOUND; RW-ALREADY-REVOKED with another reason; RW-CONFLICT for what no online authority signed, and
    for an authority's own certificate (`ending.py`).
    """
    row = await _find(inst, id)
    _require_right(row, caller)
    _require_online(inst, row)
    failpoint("revoke.checked")
    revoked = await _written(inst, _Revocation(row.id, reason, caller, inst.clock()).apply)
    failpoint("revoke.stored")
    telemetry.REVOCATIONS.inc()
    return revoked


async def revoke_proven(
    inst: Installation, id: str, reason: RevocationReason, caller: Caller, *, proof: str, also: Rows = UNFENCED
) -> Certificate:
    """As `revoke`, where the door has proved that the caller is entitled to it by more than a role: `proof` says by
    what (the certificate's key, its account, its names), and is in the event. `also` is written with it.
    """
    row = await _find(inst, id)
    _require_online(inst, row)
    failpoint("revoke.checked")
    revocation = _Revocation(row.id, reason, caller, inst.clock(), proof)

    def apply(conn: Connection) -> Certificate:
        also.run(conn)
        return revocation.apply(conn)

    revoked = await _written(inst, apply)
    failpoint("revoke.stored")
    telemetry.REVOCATIONS.inc()
    return revoked


async def release(inst: Installation, id: str, caller: Caller) -> Certificate:
    """Take a certificate off hold; nothing else is ever taken back (I-16)."""
    row = await _find(inst, id)
    require(caller.principal, Role.OFFICER, authority=row.authority)
    now = inst.clock()

    def apply(conn: Connection) -> Certificate:
        current = certificates.by_id(conn, id)
        if current is None or current.reason != HOLD or current.revoked_at is None:
            raise Problem("RW-NOT-HELD", "Only a certificate on hold can be released.")
        released = certificates.release(conn, id)
        _record(conn, "certificate.released", current, caller, now, {})
        return released

    failpoint("release.checked")
    released = await _written(inst, apply)
    failpoint("release.stored")
    return released


async def revoke_by_serial(
    inst: Installation, authority: str, serial: bytes, reason: RevocationReason, caller: Caller
) -> list[Certificate]:
    """Revoke what this authority issued under this serial; RW-NOT-FOUND where there is nothing."""
    of = inst.authority(authority).name

    def find(conn: Connection) -> Iterable[Certificate]:
        return [row for row in certificates.by_serial_anywhere(conn, serial) if row.authority == of]

    return await _revoke_all(inst, find, reason, caller)


async def revoke_by_key(inst: Installation, key_id: str, reason: RevocationReason, caller: Caller) -> list[Certificate]:
    """Revoke every certificate of this public key (SHA-256 of its SPKI, hex) that the caller may revoke."""
    return await _revoke_all(inst, lambda conn: certificates.each_by_key(conn, key_id), reason, caller)


def revoke_in(conn: Connection, id: str, reason: RevocationReason, caller: Caller, at: datetime) -> Certificate:
    """Revoke one certificate in the caller's transaction; who may do that is the caller's to know."""
    return _Revocation(id, reason, caller, at).unless_final(conn)


async def _revoke_all(
    inst: Installation, find: Callable[[Connection], Iterable[Certificate]], reason: RevocationReason, caller: Caller
) -> list[Certificate]:
    """Rights are checked on every one before the first is revoked; then each batch is a transaction of its own. Cut off
    in between, the same call again revokes the rest and changes nothing of what is done (I-26).

    Of several, those that are revoked for good already stay as they are: one old reason must not keep the others alive.
    """

    def check(conn: Connection) -> list[str]:
        ids, refusal = [], None
        for row in find(conn):  # to its end, whatever comes: it may be a stream
            try:
                _require_right(row, caller)
                _require_online(inst, row)
            except Problem as problem:
                refusal = refusal or problem
            ids.append(row.id)
        if refusal is not None:
            raise refusal
        return ids

    done: dict[str, Certificate] = {}
    # Once more each time, for what was issued meanwhile; a key that is compromised is blocked by the first batch.
    while left := [id for id in await inst.db.read(check) if id not in done]:
        for batch in (left[at : at + BATCH] for at in range(0, len(left), BATCH)):
            failpoint("revoke-many.checked")
            revocations = [_Revocation(id, reason, caller, inst.clock()) for id in batch]
            for row in await _written(inst, partial(_apply, revocations)):
                done[row.id] = row
            failpoint("revoke-many.stored")
    if not done:
        raise Problem("RW-NOT-FOUND", "There is no such certificate.")
    telemetry.REVOCATIONS.inc(len(done))
    found = [*done.values()]
    if not any(one.reason == reason for one in found):
        raise Problem("RW-ALREADY-REVOKED", f"It is revoked already, with the reason {found[0].reason}.")
    return found


def _apply(revocations: list[_Revocation], conn: Connection) -> list[Certificate]:
    return [one.unless_final(conn) for one in revocations]


async def _written(inst: Installation, apply: Callable[[Connection], T]) -> T:
    """Once more where somebody else revoked or released it at the same moment: then it is judged as it is now."""
    try:
        return await inst.db.write(apply)
    except Lost:
        return await inst.db.write(apply)
    finally:
        inst.process.told += 1  # also where it failed: it may have taken effect


async def _find(inst: Installation, id: str) -> Certificate:
    row = await inst.db.look(lambda conn: certificates.by_id(conn, id))
    if row is None or (row.issued_at is None and row.orphaned_at is None):
        raise Problem("RW-NOT-FOUND", "There is no such certificate.")
    return row


def _require_right(row: Certificate, caller: Caller) -> None:
    """An officer of the authority, or whoever asked for the certificate and may still ask."""
    principal = caller.principal
    asked = row.requester == principal.id and principal.holds(
        Role.REQUESTER, authority=row.authority, profile=row.profile
    )
    if not asked:
        require(principal, Role.OFFICER, authority=row.authority)


def _require_online(inst: Installation, row: Certificate) -> None:
    authority = inst.by_issuer(row.issuer)
    if row.source != "issued" or authority is None:
        raise Problem("RW-CONFLICT", "This certificate was not issued here; revoke it where it was.")
    if authority.key is None:
        raise Problem(
            "RW-CONFLICT",
            f"The authority {authority.name} is offline: what it signed is revoked in a ceremony, with its CRL.",
        )
    own = (
        None
        if row.profile is not None
        else next((a for a in inst.authorities.values() if a.issuer.der == row.der), None)
    )
    if own is not None:
        # Its end is decided by two, with all that is below it; stopping it for now takes one (I-22, I-42).
        raise Problem(
            "RW-CONFLICT",
            f"This is the certificate of the authority {own.name}, which two people revoke: rootward ca revoke "
            f"{own.name}. One alone stops it with rootward ca freeze {own.name}.",
        )


@dataclass(frozen=True)
class _Revocation:
    """One revocation, inside whoever's transaction."""

    id: str
    reason: RevocationReason
    caller: Caller
    at: datetime
    proof: str | None = None

    def unless_final(self, conn: Connection) -> Certificate:
        """As `apply`; what is revoked for another reason is given back as it is."""
        current = certificates.by_id(conn, self.id)
        if current is not None and current.revoked_at is not None and current.reason not in (HOLD, self.reason):
            return current
        return self.apply(conn)

    def apply(self, conn: Connection) -> Certificate:
        current = certificates.by_id(conn, self.id)
        if current is None:
            raise Problem("RW-NOT-FOUND", "There is no such certificate.")
        if current.revoked_at is not None:
            if current.reason == self.reason:
                return current
            if current.reason != HOLD:
                raise Problem("RW-ALREADY-REVOKED", f"It is revoked already, with the reason {current.reason}.")
        revoked = certificates.revoke(conn, self.id, at=self.at, reason=self.reason.value)
        aftermath.follow(conn, current, revoked, self.caller, self.at)
        kind = "certificate.held" if self.reason is HOLD else "certificate.revoked"
        by = {} if self.proof is None else {"proof": self.proof}
        _record(conn, kind, current, self.caller, self.at, {"reason": self.reason.value, **by})
        return revoked


def _record(
    conn: Connection, kind: str, row: Certificate, caller: Caller, at: datetime, data: dict[str, object]
) -> None:
    events.record(
        kind,
        actor=caller.principal.id,
        authority=row.authority,
        certificate=row.id,
        request_id=caller.request_id,
        data={"serial": row.serial.hex(), **data},
        at=at,
    ).run(conn)
