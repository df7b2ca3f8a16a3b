"""What an ask meets before anything is decided: what the same key led to, the profile as it stands now, and the
reasons against it that only the store knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from rootward.ca import freeze
from rootward.ca.access import Principal
from rootward.ca.installation import Installation
from rootward.core.issuer import Issuer
from rootward.core.plan import Ask, Plan, Policy
from rootward.core.problems import Problem, Reason
from rootward.core.profile import OCSP_SIGNING, Profile
from rootward.core.pubkey import BUILT_IN_BLOCKED
from rootward.core.roles import Role
from rootward.store import asking, authorities, certificates, profiles, requests
from rootward.store.certificates import Certificate
from rootward.store.rows import Rows


@dataclass(frozen=True)
class Idempotency:
    """A caller's key for one ask, and the SHA-256 of what was asked with it."""

    key: str
    digest: bytes


class Errand(Protocol):
    """What a door writes down with an issuance, in the very transactions of its intent and of its end: an order that is
    finalized, a nonce that is used. A `Taken` of a table of the door's comes back to the door as it is; a `Lost` says
    RW-IN-PROGRESS: somebody else was first.
    """

    @property
    def retry_of(self) -> str | None:
        """The attempt (certificates.id) for the same thing that came to nothing, where there was one."""

    def intended(self, certificate: str, at: datetime) -> Rows:
        """With the intent."""

    def issued(self, certificate: str, at: datetime) -> Rows:
        """With the signature."""


@dataclass(frozen=True)
class Issued:
    """A certificate, and the issuer whose chain goes with it."""

    certificate: Certificate
    issuer: Issuer


@dataclass(frozen=True)
class Pending:
    """A request that waits for a person, or was decided against."""

    request: requests.Parked


async def earlier(inst: Installation, before: asking.Before, idempotency: Idempotency) -> Issued | Pending | str | None:
    """What the same key led to; the id of an attempt that came to nothing; None where there was none yet, or a yes
    came since.
    """
    if before.digest != idempotency.digest:
        raise Problem("RW-IDEMPOTENCY", "This idempotency key was used for another request.")
    id = before.certificate
    if id is None:
        request = await inst.db.look(lambda conn: requests.by_id(conn, before.request or ""))
        if request is None or request.status(inst.clock()) == "approved":
            return None
        if request.certificate is None:
            return Pending(request)
        id = request.certificate
    found = await inst.db.look(lambda conn: certificates.intent(conn, id))
    if found is None or found.failed_at is not None or found.orphaned_at is not None:
        return id
    if found.issued_at is None:
        raise Problem("RW-IN-PROGRESS", "The same request is still under way; ask again in a moment.", retry_after=1)
    return Issued(found, inst.authority(found.authority or "").issuer)


async def current_policy(inst: Installation, ask: Ask, principal: Principal, standing: asking.Standing) -> Policy:
    """The current version of the profile, compiled (I-14: the version that is read here is the one that the row
    names).
    """
    own: Profile | None = inst.own_profiles.get(ask.profile) if principal.kind == "system" else None
    if own is not None:
        inst.learn(await inst.db.read(authorities.list))
        authority = inst.authority(own.authority)
        # One that is frozen or retired goes on with its CRL and OCSP (I-22), and OCSP needs responders.
        answers = OCSP_SIGNING in own.extended_key_usage
        stopped = authority.state != "active" or authority.name in inst.process.stopped
        if stopped and not (authority.state != "offline" and answers):
            raise await freeze.refusal(inst, authority.name)
        return inst.policy(own, 0)
    return await _policy(inst, ask.profile, standing)


async def _policy(inst: Installation, name: str, standing: asking.Standing) -> Policy:
    if standing.version is None or standing.retired or standing.authority is None:
        raise Problem("RW-PROFILE", "There is no such profile.", field="profile")
    version = standing.version
    authority = inst.authority(standing.authority)
    if standing.frozen or authority.key is None or authority.name in inst.process.stopped:
        raise await freeze.refusal(inst, authority.name)
    kept = inst.kept_policy(name, version, standing.authority)
    if kept is not None:
        return kept
    row = await inst.db.look(lambda conn: profiles.at_version(conn, name, version))
    if row is None:
        raise Problem("RW-PROFILE", "There is no such profile.", field="profile")
    return inst.policy(msgspec.json.decode(row.body, type=Profile), version)


async def named_policy(inst: Installation, name: str, requester: str) -> Policy:
    """The current version of a profile for a door that has no CSR yet. Problems as for an issuance."""
    standing = await inst.db.look(
        lambda conn: asking.standing(conn, profile=name, key_id="", requester=requester, idempotency_key=None)
    )
    return await _policy(inst, name, standing)


async def admit(inst: Installation, policy: Policy, ask: Ask, principal: Principal, standing: asking.Standing) -> Plan:
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
    """One's own certificate also where another authority of ours issued it: that one may be retired since."""
    own = old is not None and old.source == "issued" and old.requester == principal.id
    if old is None or not (own or old.authority == authority):
        return [Reason("RW-REPLACES", "There is no such certificate of this authority to replace.", "replaces")]
    if not own and not principal.holds(Role.OFFICER, authority=authority):
        return [Reason("RW-REPLACES", "The certificate to replace belongs to somebody else.", "replaces")]
    return []
