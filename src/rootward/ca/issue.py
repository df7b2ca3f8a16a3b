"""The one road of an issuance: every door, the CLI, the console and our own certificates come through `issue`, and
those of CAs through `ca/subordinate.py`; nothing else leads to a signature on a certificate, and both end in one
`Attempt` (I-40).

plan (admitted under the profile) → access → approval → draft, linted → intent committed → signed and verified →
committed
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from rootward.ca import park, trouble
from rootward.ca.access import Caller, require
from rootward.ca.asked import Errand, Idempotency, Issued, Pending, admit, current_policy, earlier
from rootward.ca.attempt import LEASE, Attempt, Matter
from rootward.ca.installation import Installation
from rootward.core.grounds import grounds_of
from rootward.core.lint import lint_certificate
from rootward.core.plan import Ask, Plan
from rootward.core.problems import Problem
from rootward.core.profile import OCSP_SIGNING
from rootward.core.roles import Role
from rootward.core.template import subject_name
from rootward.store import asking
from rootward.store import idempotency as used_keys
from rootward.store.failpoint import failpoint

__all__ = ["LEASE", "Ask", "Errand", "Idempotency", "Issued", "Pending", "issue"]


async def issue(
    inst: Installation,
    ask: Ask,
    caller: Caller,
    *,
    idempotency: Idempotency | None = None,
    errand: Errand | None = None,
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
    retry_of = None if errand is None else errand.retry_of
    if idempotency is not None and standing.before is not None:
        before = await earlier(inst, standing.before, idempotency)
        if isinstance(before, Issued | Pending):
            return before
        retry_of = before
    policy = await current_policy(inst, ask, caller.principal, standing)
    authority = inst.authority(policy.profile.authority)
    require(caller.principal, Role.REQUESTER, authority=authority.name, profile=policy.profile.name)
    if ask.profile not in inst.own_profiles:  # the responders' own certificates go on: status depends on them
        inst.process.check_halted()
        policy.check_period(inst.clock())
    now = inst.clock()
    if ask.ends is not None:
        ask = replace(ask, lifetime=policy.lifetime_until(ask.ends, now))
    plan = await admit(inst, policy, ask, caller.principal, standing)
    approval = None
    if plan.approval:
        approval = await park.agreement(inst, plan, ask, caller, _first_claim(caller, idempotency, standing))
        if approval.status(inst.clock()) != "approved":
            return Pending(approval)
        retry_of = retry_of or approval.certificate  # an attempt under this yes that came to nothing
    draft = plan.draft(inst.new_serial(), now)
    findings = lint_certificate(draft, plan)
    if findings:
        await trouble.lint_failed(inst, "certificate", findings, caller, authority=authority.name)
        raise Problem.of(findings)
    failpoint("issue.drafted")
    attempt = Attempt(
        authority,
        _matter(ask, plan),
        draft,
        caller,
        idempotency,
        standing.before,
        retry_of,
        approval,
        errand,
        grounds_of(ask, plan, draft, caller.principal.identity(), now),
    )
    # Once the intent is written it is brought to its end, also when the asker has gone.
    return await asyncio.shield(attempt.carry_out(inst, now))


def _matter(ask: Ask, plan: Plan) -> Matter:
    profile = plan.policy.profile
    return Matter(
        profile=profile.name,
        version=plan.policy.version,
        key_id=plan.key.id,
        subject=subject_name(plan.subject).rfc4514_string(),
        names=tuple(plan.facts["names"]),
        facts=plan.facts,
        hash=plan.hash,
        owner=ask.owner,
        labels=ask.labels,
        replaces=ask.replaces,
        # No stored profile can have this usage: it is the authority's own responder (ca/own.py).
        answers=OCSP_SIGNING in profile.extended_key_usage,
    )


def _first_claim(caller: Caller, key: Idempotency | None, standing: asking.Standing) -> park.Claim | None:
    """How a request that is parked now is tied to a key that was never used before."""
    if key is None or standing.before is not None:
        return None
    return lambda request, at: used_keys.claim(caller.principal.id, key.key, digest=key.digest, request=request, at=at)
