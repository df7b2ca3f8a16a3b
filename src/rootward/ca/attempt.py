"""One try at a signature on a certificate, from its intent to its end: the part of the road that leaves and CAs share.

The intent, with the exact bytes to sign, is durable before the key is asked (I-01). What happens after it is a fact
in its row: issued, failed (surely no signature), or orphan (there may be one: it counts as issued, is revoked, is
never signed again; I-05).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rootward import telemetry
from rootward.ca import freeze, trouble
from rootward.ca.access import Caller
from rootward.ca.asked import Errand, Idempotency, Issued
from rootward.ca.installation import Authority, Installation
from rootward.ca.sign import WrongSignature, sign_soon
from rootward.core.capture import assemble
from rootward.core.grounds import Grounds
from rootward.core.plan import Draft
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.keys import NotSigned, Refused, SignatureUnknown
from rootward.store import asking, authorities, certificates, events, requests
from rootward.store import idempotency as used_keys
from rootward.store.errors import Constraint, Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.rows import Rows

# How long an attempt may take before another process may take it for dead. With the reconciler's period it stays within
# the minute of I-05.
LEASE = timedelta(seconds=30)
_CLAIMED = ("idempotency", "requests")  # tables of what an attempt uses up; Taken there: somebody was first
AUTHORITY = "(authority)"  # what metrics have in the place of a profile, for certificates of CAs


async def _lease_until(inst: Installation) -> datetime | None:
    """Until when nobody else closes an intent that is written now, by the database's clock. On SQLite there is nobody
    else.
    """
    if inst.db.dialect == "sqlite":
        return None
    return await inst.db.look(lambda conn: certificates.lease_end(conn, LEASE))


@dataclass(frozen=True)
class Matter:
    """What is to be certified, in the words of its row and of the event that begins it. `profile` is None for a CA.

    `answers` says that it is the authority's own OCSP responder, which a frozen one may have too.
    """

    profile: str | None
    version: int | None
    key_id: str
    subject: str
    names: tuple[str, ...]
    facts: Mapping[str, Any]
    hash: str
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    replaces: str | None = None
    answers: bool = False


@dataclass(frozen=True)
class Attempt:
    """One try at a signature: what was decided, from the intent to its end."""

    authority: Authority
    matter: Matter
    draft: Draft
    caller: Caller
    idempotency: Idempotency | None = None
    before: asking.Before | None = None
    retry_of: str | None = None
    approval: requests.Parked | None = None
    errand: Errand | None = None
    grounds: Grounds | None = None  # of a profile's certificate, for a key whose holder decides anew

    async def carry_out(self, inst: Installation, now: datetime) -> Issued:
        """From the intent to its end. To be shielded: what was begun is ended, also when the asker has gone.

        Problems: RW-UNAVAILABLE, RW-FROZEN, RW-IN-PROGRESS, RW-KEY-UNAVAILABLE.
        """
        id = new_id()
        inst.process.in_flight.add(id)
        outcome, began = "failed", time.perf_counter()
        try:
            row = self._row(inst, id, now, await _lease_until(inst))
            await self._intend(inst, id, row, now)
            signature = await self._sign(inst, id)
            der = assemble(self.draft.tbs, self.draft.algorithm, signature)
            sha256 = hashlib.sha256(der).hexdigest()
            at = inst.clock()
            done = certificates.complete(id, signature=signature, sha256=sha256, issued_at=at, lease=inst.db.lease)
            if self.errand is not None:
                done += self.errand.issued(id, at)
            await self._close(inst, done + self._event("issue.done", id, at, {"sha256": sha256}))
            outcome = "done"
            failpoint("issue.stored")
        finally:
            inst.process.in_flight.discard(id)
            telemetry.ISSUANCES.labels(self.matter.profile or AUTHORITY, outcome).inc()
            telemetry.ISSUANCE_SECONDS.observe(time.perf_counter() - began)
        stored = certificates.completed(row, signature=signature, sha256=sha256, issued_at=at)
        return Issued(stored, self.authority.issuer)

    async def _intend(self, inst: Installation, id: str, row: dict[str, Any], now: datetime) -> None:
        """Serial, exact bytes, profile version, requester and request id, durable before the key is asked (I-01)."""
        failpoint("issue.admitted")
        answers = self.matter.answers
        intent = certificates.intend_while_open(row, answers=answers) + self._event(
            "issue.intended", id, now, self._intention(row)
        )
        try:
            await inst.db.write(intent + self._claims(id, now))
        except (Constraint, Lost) as error:
            if isinstance(error, Taken) and error.table == "certificates":
                # The random numbers repeat themselves. No serial is used twice, so nothing is signed (I-03).
                raise Problem(
                    "RW-UNAVAILABLE", "The serial number was used before; ask again.", retry_after=1
                ) from error
            name = self.authority.name
            if not answers and await inst.db.look(lambda conn: authorities.frozen(conn, name)):
                # Frozen since this was asked, here or by another process: the statement itself saw it.
                raise await freeze.refusal(inst, name) from None
            if not isinstance(error, Lost) and error.table not in _CLAIMED:
                raise
            # Somebody was first with this idempotency key or this approval: nothing of this attempt exists.
            raise Problem(
                "RW-IN-PROGRESS", "The same request is under way; ask again in a moment.", retry_after=1
            ) from None
        failpoint("issue.intended")

    async def _sign(self, inst: Installation, id: str) -> bytes:
        key = self.authority.key
        if key is None:
            raise Problem("RW-KEY-UNAVAILABLE", f"The key of {self.authority.name} is offline.")
        try:
            signature = await sign_soon(key, self.authority.issuer.key, self.draft, self.grounds)
        except NotSigned as error:
            at = inst.clock()
            await self._close(
                inst,
                certificates.fail(id, at=at, lease=inst.db.lease)
                + requests.give_back(id, at=at)
                + self._event("issue.failed", id, at, {"why": type(error).__name__})
                + trouble.key_failed(self.authority.name, type(error).__name__, at=at),
            )
            failpoint("issue.failed-stored")
            if isinstance(error, Refused):
                raise error.problem from None
            raise Problem("RW-KEY-UNAVAILABLE", "The authority's key does not sign now.", retry_after=5) from error
        except SignatureUnknown as error:
            # There may be a signature somewhere: the intent stays open, and the reconciler closes it as an orphan.
            await inst.db.write(trouble.key_failed(self.authority.name, type(error).__name__, at=inst.clock()))
            raise Problem("RW-KEY-UNAVAILABLE", "The authority's key did not answer.", retry_after=5) from error
        except WrongSignature as error:
            await freeze.freeze(inst, self.authority.name, str(error), self.caller)
            raise Problem("RW-KEY-UNAVAILABLE", "The authority was stopped: its key signs wrongly.") from error
        failpoint("issue.signed")
        return signature

    async def _close(self, inst: Installation, end: Rows) -> None:
        """Write the intent's end, unless it has one: then another process took this one for dead, and what was signed
        is an orphan.
        """
        try:
            await inst.db.write(end)
        except Lost:
            raise Problem(
                "RW-UNAVAILABLE", "This took so long that the attempt was given up; ask again.", retry_after=1
            ) from None

    def _claims(self, id: str, now: datetime) -> Rows:
        """What this attempt uses up: the idempotency key, the approval. Both at most once, by compare-and-set."""
        used = Rows()
        if self.idempotency is not None:
            who, key = self.caller.principal.id, self.idempotency.key
            if self.before is None:
                used += used_keys.claim(who, key, digest=self.idempotency.digest, certificate=id, at=now)
            else:
                used += used_keys.point(who, key, certificate=id, was=self.before.certificate)
        if self.approval is not None:
            used += requests.use(self.approval.id, certificate=id, at=now)
        if self.errand is not None:
            used += self.errand.intended(id, now)
        return used

    def _row(self, inst: Installation, id: str, now: datetime, lease_until: datetime | None) -> dict[str, Any]:
        matter = self.matter
        return {
            "id": id,
            "issuer": self.authority.n,
            "serial": self.draft.serial,
            "source": "issued",
            "authority": self.authority.name,
            "profile": matter.profile,
            "profile_version": matter.version,
            "tbs": self.draft.tbs,
            "algorithm": self.draft.algorithm,
            "key_id": matter.key_id,
            "subject": matter.subject,
            "names": matter.names,
            "not_before": self.draft.not_before,
            "not_after": self.draft.not_after,
            "owner": matter.owner,
            "labels": dict(matter.labels),
            "requester": self.caller.principal.id,
            "request_id": self.caller.request_id,
            "replaces": matter.replaces,
            "retry_of": self.retry_of,
            "lease": inst.db.lease,
            "lease_until": lease_until,
            "intended_at": now,
        }

    def _intention(self, row: dict[str, Any]) -> dict[str, object]:
        """Everything in the row that is decided here, so that the log shows a change of it (fleet/books.py)."""
        return {
            **self.matter.facts,
            "plan": self.matter.hash,
            "serial": self.draft.serial.hex(),
            "tbs_sha256": hashlib.sha256(self.draft.tbs).hexdigest(),
            "subject_name": row["subject"],
            "not_before": rfc3339(self.draft.not_before),
            "not_after": rfc3339(self.draft.not_after),
            "owner": self.matter.owner,
            "labels": row["labels"],
            "replaces": self.matter.replaces,
            "retry_of": self.retry_of,
            "request": None if self.approval is None else self.approval.id,  # whose yes it uses up
        }

    def _event(self, kind: str, id: str, at: datetime, data: dict[str, object]) -> Rows:
        return events.record(
            kind,
            actor=self.caller.principal.id,
            authority=self.authority.name,
            certificate=id,
            request_id=self.caller.request_id,
            data=data,
            at=at,
        )
