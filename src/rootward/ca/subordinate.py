"""CAs of other systems (Vault, OpenBao, AD CS, SPIRE) under an online authority: proposed by one of its admins, agreed
to by a second person, and certified by the road that every certificate takes (`Attempt`; I-40, I-42).

The CSR gives the key, the specification everything else. A yes is to the whole of it: specification, CSR, and the hash
of the plan, which names the issuer's key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import freeze, proposals, trouble
from rootward.ca.access import Caller, require
from rootward.ca.asked import Issued
from rootward.ca.attempt import Attempt, Matter
from rootward.ca.installation import Authority, Installation
from rootward.core.authority import AuthoritySpec, read_spec
from rootward.core.hierarchy import AuthorityPlan, lint_authority, plan_authority
from rootward.core.plan import Serial
from rootward.core.problems import Problem, Reason
from rootward.core.pubkey import BUILT_IN_BLOCKED
from rootward.core.roles import Role
from rootward.core.subordinate import CaRequest, compare, read_ca_request
from rootward.store import asking, authorities, certificates
from rootward.store import proposals as rows
from rootward.store.certificates import Certificate
from rootward.store.failpoint import failpoint
from rootward.store.proposals import Proposal, Status
from rootward.store.rows import Rows

log = structlog.get_logger()
KIND = "ca.sign"
_OPEN: tuple[Status, ...] = ("waiting", "approved")


async def propose(
    inst: Installation, authority: str, spec: AuthoritySpec, csr: bytes, caller: Caller
) -> Issued | Proposal:
    """The CA's certificate where exactly this was agreed to and made before, else the proposal of it.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-FROZEN, RW-CONFLICT where the authority is offline, RW-CSR-* and RW-KEY-*,
    and every reason of `plan_authority`.
    """
    found = inst.authority(authority)
    require(caller.principal, Role.ADMIN, authority=found.name)
    request = read_ca_request(csr)
    plan = await _admitted(inst, found, spec, request, caller)
    made = await made_before(inst, found, plan)
    if made is not None:
        return Issued(made, found.issuer)
    plan.draft(inst.new_serial(), inst.clock())  # Problem RW-VALIDITY now, and not when somebody has agreed
    body = {
        "spec": msgspec.to_builtins(spec),
        "csr": x509.load_der_x509_csr(request.der).public_bytes(Encoding.PEM).decode(),
        "plan": plan.hash,
        "compared": msgspec.to_builtins(compare(request, plan)),
    }
    return await proposals.propose(inst, KIND, found.name, body, caller)


async def carry_out(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """What was agreed to: the CA is certified. RW-APPROVAL where it would not be the very same any more."""
    values = proposal.values()
    spec, request = read_spec(values["spec"]), read_ca_request(values["csr"].encode())
    found = inst.authority(proposal.authority)
    plan = await _admitted(inst, found, spec, request, caller)
    if plan.hash != values["plan"]:
        raise Problem("RW-APPROVAL", "What was agreed to is not what would be signed now: propose it anew.")
    issued = await certify(inst, found, plan, caller, _Agreed(proposal, caller))
    log.info("ca.signed", authority=found.name, certificate=issued.certificate.id, proposal=proposal.id)


def take_back(conn: Connection, csr: bytes, caller: Caller, at: datetime) -> None:
    """Close the open proposals of this request (PEM), in the caller's transaction: its key is about to go. Problem
    RW-CONFLICT where its certificate is made already, by an authority that has not stopped for good since; Lost where
    it is made at this moment.
    """
    open_ones = [
        one for status in _OPEN for one in rows.list(conn, status=status, now=at, limit=1000) if one.kind == KIND
    ]
    for one in open_ones:
        if one.values()["csr"] == csr.decode():
            proposals.taken_back(one, caller, at).run(conn)
    made = certificates.by_key(conn, read_ca_request(csr).key.id)
    stopped = {row.name for row in authorities.list(conn) if row.retired_at is not None}
    if any(row.status(at) == "active" and row.authority not in stopped for row in made):
        raise Problem("RW-CONFLICT", "It is certified already, and is an authority in a moment: look again.")


async def certify(
    inst: Installation, authority: Authority, plan: AuthorityPlan, caller: Caller, errand: _Agreed
) -> Issued:
    """Sign what was agreed to. Whoever calls this has made sure of that; `errand` closes the decision with it."""
    inst.process.check_halted()
    now = inst.clock()
    draft = plan.draft(inst.new_serial(), now)
    findings = lint_authority(draft, plan)
    if findings:
        await trouble.lint_failed(inst, "certificate", findings, caller, authority=authority.name)
        raise Problem.of(findings)
    failpoint("issue.drafted")
    matter = Matter(
        profile=None,
        version=None,
        key_id=plan.key.id,
        subject=plan.subject.rfc4514_string(),
        names=tuple(str(name) for name in plan.names),
        facts={"profile": None, "version": None, "proposal": errand.proposal.id, **plan.facts},
        hash=plan.hash,
    )
    attempt = Attempt(authority, matter, draft, caller, errand=errand)
    return await asyncio.shield(attempt.carry_out(inst, now))


@dataclass(frozen=True)
class _Agreed:
    """The decision is carried out when the signature is written down, and only then: an attempt that failed is made
    again under the same yes. Of two at one moment one loses its end, and is an orphan, which is revoked.
    """

    proposal: Proposal
    caller: Caller
    retry_of: str | None = None

    def intended(self, certificate: str, at: datetime) -> Rows:
        return Rows()

    def issued(self, certificate: str, at: datetime) -> Rows:
        return proposals.carried_out(self.proposal, self.caller, at, {"certificate": certificate})


async def _admitted(
    inst: Installation, authority: Authority, spec: AuthoritySpec, request: CaRequest, caller: Caller
) -> AuthorityPlan:
    """The plan, joined with what only the store knows: every reason at once."""
    if authority.key is None:
        detail = f"The authority {authority.name} is offline: what it signs comes from a ceremony."
        raise Problem("RW-CONFLICT", detail)
    if authority.key.decides:
        detail = (
            f"The key of {authority.name} is in a signer process, which certifies no CAs. Certify it under another"
            " authority, or in a ceremony."
        )
        raise Problem("RW-CONFLICT", detail)
    await freeze.look_again(inst)
    if inst.authority(authority.name).state != "active" or authority.name in inst.process.stopped:
        raise await freeze.refusal(inst, authority.name)
    id = request.key.id
    standing = await inst.db.look(
        lambda conn: asking.standing(conn, profile="", key_id=id, requester=caller.principal.id, idempotency_key=None)
    )
    reasons: list[Reason] = []
    if standing.blocked is not None or id in BUILT_IN_BLOCKED:
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden.", "csr"))
    elif any(one.issuer.key_id == id for one in inst.authorities.values()):
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden: it is an authority's.", "csr"))
    elif await _in_a_leaf(inst, id):
        reasons.append(Reason("RW-KEY-IN-USE", "The public key is in a certificate that is no CA's.", "csr"))
    try:
        plan = plan_authority(spec, request.key, authority.issuer)
    except Problem as problem:
        raise Problem.of([*reasons, *problem.reasons]) from None
    if reasons:
        raise Problem.of(reasons)
    return plan


async def _in_a_leaf(inst: Installation, key_id: str) -> bool:
    found = await inst.db.look(lambda conn: certificates.by_key(conn, key_id))
    return any(row.source == "issued" and row.profile is not None and row.failed_at is None for row in found)


async def made_before(inst: Installation, authority: Authority, plan: AuthorityPlan) -> Certificate | None:
    """The living certificate of exactly this plan: with its serial and time, the plan gives its very bytes."""
    now = inst.clock()
    for row in await inst.db.look(lambda conn: certificates.by_key(conn, plan.key.id)):
        if row.issuer == authority.n and row.profile is None and row.status(now) == "active" and row.der is not None:
            try:
                draft = plan.draft(Serial(row.serial), row.not_before)
            except Problem:
                continue
            if draft.tbs == row.tbs:
                return row
    return None
