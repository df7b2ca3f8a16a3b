"""The one road of an issuance: every door, the CLI, the console and our own certificates come through `issue`, and nothing else
leads to a signature on a certificate (I-40).

  plan (admitted under the profile) → access → approval → draft, linted → intent committed → signed and verified → committed

The intent, with the exact bytes to sign, is durable before the key is asked (I-01). What happens after it is a fact in its row:
issued, failed (surely no signature), or orphan (there may be one: it counts as issued, is revoked, is never signed again; I-05).
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime

import msgspec

from rootward.ca import freeze, park
from rootward.ca.access import Caller, Principal, require
from rootward.ca.installation import Authority, Installation
from rootward.ca.sign import WrongSignature, sign_soon
from rootward.core.capture import assemble
from rootward.core.issuer import Issuer
from rootward.core.lint import lint_certificate
from rootward.core.plan import Ask, Draft, Plan, Policy
from rootward.core.problems import Problem, Reason
from rootward.core.profile import Profile
from rootward.core.pubkey import BUILT_IN_BLOCKED
from rootward.core.roles import Role
from rootward.core.template import subject_name
from rootward.keys import NotSigned
from rootward.store import asking, certificates, events, idempotency, profiles, requests
from rootward.store.certificates import Certificate
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.rows import Rows

__all__ = ["Ask", "Idempotency", "Issued", "Pending", "issue"]


@dataclass(frozen=True)
class Idempotency:
    """A caller's key for one ask, and the SHA-256 of what was asked with it."""

    key: str
    digest: bytes


@dataclass(frozen=True)
class Issued:
    certificate: Certificate
    issuer: Issuer


@dataclass(frozen=True)
class Pending:
    request: requests.Parked


async def issue(
    inst: Installation, ask: Ask, caller: Caller, *, idempotency: Idempotency | None = None
) -> Issued | Pending:
    """Issue what is asked, or park it for a person, or raise a Problem with every reason.

    With the same idempotency key and digest it gives what it gave before, whatever was configured since (I-07).
    """
    standing = await inst.db.look(
        lambda conn: asking.standing(
            conn,
            profile=ask.profile,
            key_id=ask.csr.public_key.id,
            requester=caller.principal.id,
            idempotency_key=None if idempotency is None else idempotency.key,
        )
    )
    earlier = await _earlier(inst, standing, idempotency)
    if isinstance(earlier, Issued | Pending):
        return earlier
    policy = await _policy(inst, ask, caller.principal, standing)
    authority = inst.authority(policy.profile.authority)
    require(caller.principal, Role.REQUESTER, authority=authority.name, profile=policy.profile.name)
    plan = await _admit(inst, policy, ask, caller.principal, standing)
    approval = None
    if plan.approval:
        approval = await park.agreement(inst, plan, ask, caller)
        if approval.status(inst.clock()) != "approved":
            return Pending(approval)
    now = inst.clock()
    draft = plan.draft(inst.new_serial(), now)
    findings = lint_certificate(draft, plan)
    if findings:
        raise Problem.of(findings)
    attempt = _Attempt(authority, ask, plan, draft, caller, idempotency, earlier, approval)
    # Once the intent is written it is brought to its end, also when the asker has gone.
    return await asyncio.shield(attempt.carry_out(inst, now))


async def _earlier(
    inst: Installation, standing: asking.Standing, idempotency: Idempotency | None
) -> Issued | Pending | str | None:
    """What the same key led to before; the id of an attempt that came to nothing; None where this is the first."""
    if idempotency is None or standing.before is None:
        return None
    before = standing.before
    if before.digest != idempotency.digest:
        raise Problem("RW-IDEMPOTENCY", "This idempotency key was used for another request.")
    if before.certificate is None:
        request = await inst.db.look(lambda conn: requests.by_id(conn, before.request or ""))
        if request is None or request.certificate is None:
            return None if request is None else Pending(request)
        id = request.certificate
    else:
        id = before.certificate
    found = await inst.db.look(lambda conn: certificates.intent(conn, id))
    if found is None or found.failed_at is not None or found.orphaned_at is not None:
        return id
    if found.issued_at is None:
        raise Problem("RW-IN-PROGRESS", "The same request is still under way; ask again in a moment.", retry_after=1)
    return Issued(found, inst.authority(found.authority or "").issuer)


async def _policy(inst: Installation, ask: Ask, principal: Principal, standing: asking.Standing) -> Policy:
    """The current version of the profile, compiled (I-14: the version that is read here is the one that the row names)."""
    own: Profile | None = inst.own_profiles.get(ask.profile) if principal.kind == "system" else None
    if own is not None:
        authority = inst.authority(own.authority)
        if authority.state != "active":
            raise Problem("RW-FROZEN", f"The authority {authority.name} is {authority.state}.")
        return inst.policy(own, 0)
    if standing.version is None or standing.retired or standing.authority is None:
        raise Problem("RW-PROFILE", "There is no such profile.", field="profile")
    name, version = ask.profile, standing.version
    if standing.frozen or inst.authority(standing.authority).state != "active":
        raise Problem("RW-FROZEN", f"The authority {standing.authority} does not issue now.")
    kept = inst.kept_policy(name, version, standing.authority)
    if kept is not None:
        return kept
    row = await inst.db.look(lambda conn: profiles.at_version(conn, name, version))
    if row is None:
        raise Problem("RW-PROFILE", "There is no such profile.", field="profile")
    return inst.policy(msgspec.json.decode(row.body, type=Profile), version)


async def _admit(
    inst: Installation, policy: Policy, ask: Ask, principal: Principal, standing: asking.Standing
) -> Plan:
    """`Policy.admit`, joined with what only the store knows: every reason at once."""
    reasons: list[Reason] = []
    key_id = ask.csr.public_key.id
    if standing.blocked is not None or key_id in BUILT_IN_BLOCKED:
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden.", "csr"))
    elif any(authority.issuer.key_id == key_id for authority in inst.authorities.values()):
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden: it is an authority's.", "csr"))
    elif standing.others and policy.profile.key_reuse == "own":
        reasons.append(Reason("RW-KEY-IN-USE", "The public key is in a certificate of somebody else.", "csr"))
    if ask.replaces is not None:
        old = await inst.db.look(lambda conn: certificates.by_id(conn, ask.replaces or ""))
        reasons.extend(_may_replace(old, policy.profile.authority, principal))
    try:
        plan = policy.admit(ask, principal.identity())
    except Problem as problem:
        raise Problem.of([*reasons, *problem.reasons]) from None
    if reasons:
        raise Problem.of(reasons)
    return plan


def _may_replace(old: Certificate | None, authority: str, principal: Principal) -> list[Reason]:
    if old is None or old.authority != authority:
        return [Reason("RW-REPLACES", "There is no such certificate of this authority to replace.", "replaces")]
    if old.requester != principal.id and not principal.holds(Role.OFFICER, authority=authority):
        return [Reason("RW-REPLACES", "The certificate to replace belongs to somebody else.", "replaces")]
    return []


@dataclass(frozen=True)
class _Attempt:
    """One try at a signature: what was decided, from the intent to its end."""

    authority: Authority
    ask: Ask
    plan: Plan
    draft: Draft
    caller: Caller
    idempotency: Idempotency | None
    retry_of: str | None
    approval: requests.Parked | None

    async def carry_out(self, inst: Installation, now: datetime) -> Issued:
        id = str(uuid.uuid4())
        inst.in_flight.add(id)
        try:
            await self._intend(inst, id, now)
            signature = await self._sign(inst, id)
            der = assemble(self.draft.tbs, self.draft.algorithm, signature)
            sha256 = hashlib.sha256(der).hexdigest()
            at = inst.clock()
            await inst.db.write(
                certificates.complete(id, signature=signature, sha256=sha256, issued_at=at, lease=inst.db.lease)
                + self._event("issue.done", id, at, {"sha256": sha256})
            )
            failpoint("issue.stored")
        finally:
            inst.in_flight.discard(id)
        found = await inst.db.look(lambda conn: certificates.by_id(conn, id))
        if found is None:
            raise Problem("RW-STORE", "The certificate was stored and cannot be read.", retry_after=5)
        return Issued(found, self.authority.issuer)

    async def _intend(self, inst: Installation, id: str, now: datetime) -> None:
        """Serial, exact bytes, profile version, requester and request id, durable before the key is asked (I-01)."""
        failpoint("issue.admitted")
        intent = certificates.intend(self._row(inst, id, now)) + self._event("issue.intended", id, now, self.plan.facts)
        try:
            await inst.db.write(intent + self._claims(id, now))
        except (Taken, Lost):
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
            signature = await sign_soon(key, self.authority.issuer.key, self.draft)
        except NotSigned as error:
            at = inst.clock()
            await inst.db.write(
                certificates.fail(id, at=at, lease=inst.db.lease)
                + self._event("issue.failed", id, at, {"why": type(error).__name__})
            )
            raise Problem("RW-KEY-UNAVAILABLE", "The authority's key does not sign now.", retry_after=5) from error
        except WrongSignature as error:
            await freeze.freeze(inst, self.authority.name, str(error), self.caller)
            raise
        failpoint("issue.signed")
        return signature

    def _claims(self, id: str, now: datetime) -> Rows:
        """What this attempt uses up: the idempotency key, the approval. Both at most once, by compare-and-set."""
        used = Rows()
        if self.idempotency is not None:
            who, key, digest = self.caller.principal.id, self.idempotency.key, self.idempotency.digest
            if self.retry_of is None:
                used += idempotency.claim(who, key, digest=digest, certificate=id, request=None, at=now)
            else:
                used += idempotency.point(who, key, certificate=id, was=self.retry_of)
        if self.approval is not None:
            used += requests.use(self.approval.id, certificate=id, at=now)
        return used

    def _row(self, inst: Installation, id: str, now: datetime) -> dict[str, object]:
        profile = self.plan.policy.profile
        return {
            "id": id,
            "issuer": self.authority.n,
            "serial": self.draft.serial,
            "source": "issued",
            "authority": self.authority.name,
            "profile": profile.name,
            "profile_version": self.plan.policy.version,
            "tbs": self.draft.tbs,
            "algorithm": self.draft.algorithm,
            "key_id": self.plan.key.id,
            "subject": subject_name(self.plan.subject).rfc4514_string(),
            "names": self.plan.facts["names"],
            "not_before": self.draft.not_before,
            "not_after": self.draft.not_after,
            "owner": self.ask.owner,
            "labels": dict(self.ask.labels),
            "requester": self.caller.principal.id,
            "request_id": self.caller.request_id,
            "replaces": self.ask.replaces,
            "retry_of": self.retry_of,
            "lease": inst.db.lease,
            "lease_until": None,
            "intended_at": now,
        }

    def _event(self, kind: str, id: str, at: datetime, data: dict[str, object]) -> Rows:
        return events.record(
            kind,
            actor=self.caller.principal.id,
            authority=self.authority.name,
            certificate=id,
            request_id=self.caller.request_id,
            data=data if kind != "issue.intended" else {**data, "serial": self.draft.serial.hex(), "plan": self.plan.hash},
            at=at,
        )
