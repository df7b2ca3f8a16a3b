"""`/proposals`: what a second person must agree to and is no certificate. Who oversees an authority sees its own."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from rootward.ca import acts
from rootward.ca import proposals as deciding
from rootward.ca.access import Principal
from rootward.core.problems import Problem, Reason
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.protocols.problems import ReasonBody
from rootward.protocols.rest.operation import API, Answer, Call, Moment, Operation, Page, Parameter, moment
from rootward.protocols.rest.request import Agreement, Denial
from rootward.protocols.rest.requests import DecisionBody
from rootward.protocols.rest.visible import visible
from rootward.store import proposals as rows
from rootward.store.proposals import Proposal

_OVERSEERS = (Role.APPROVER, Role.OFFICER, Role.ADMIN, Role.AUDITOR)


class ProposalBody(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is waiting, approved (and not carried out yet), denied, expired, done or failed. A yes is to exactly
    `kind`, `authority` and `body`, whose hash is `digest`.
    """

    id: str
    status: str
    kind: str
    authority: str
    body: dict[str, Any]
    digest: str
    proposed_by: str
    proposed_at: Moment
    expires_at: Moment
    done_at: Moment | None
    reasons: list[ReasonBody]
    approval: Agreement | None
    denial: Denial | None


def body(proposal: Proposal, call: Call) -> ProposalBody:
    """A proposal as it stands now."""
    reasons = [] if proposal.failure is None else msgspec.json.decode(proposal.failure, type=list[Reason])
    yes, no = proposal.approved_by, proposal.denied_by
    return ProposalBody(
        id=proposal.id,
        status=proposal.status(call.inst.clock()),
        kind=proposal.kind,
        authority=proposal.authority,
        body=proposal.values(),
        digest=proposal.digest,
        proposed_by=proposal.proposed_by,
        proposed_at=rfc3339(proposal.proposed_at),
        expires_at=rfc3339(proposal.expires_at),
        done_at=moment(proposal.done_at),
        reasons=[ReasonBody(reason.code, reason.field, reason.detail) for reason in reasons],
        # The comment is the last decision's: a no to what was agreed to has it.
        approval=None if yes is None else Agreement(yes, None if no else proposal.comment),
        denial=None if no is None else Denial(no, proposal.comment),
    )


def proposed(proposal: Proposal, call: Call) -> Answer:
    """202: another person must agree first."""
    return Answer(body(proposal, call), 202, ((b"location", f"{API}/proposals/{proposal.id}".encode()),))


def may_see(principal: Principal, proposal: Proposal) -> bool:
    """Whether it is this principal's own, or of an authority that they oversee."""
    return principal.id == proposal.proposed_by or any(
        principal.holds(role, authority=proposal.authority) for role in _OVERSEERS
    )


async def listed(call: Call) -> Answer:
    """A page of the proposals of one status that the caller may see, newest first."""
    status = next((known for known in rows.STATUSES if known == call.query.get("status", "waiting")), None)
    if status is None:
        raise Problem("RW-QUERY", f"status is one of {', '.join(rows.STATUSES)}.", field="status")
    now, limit, position = call.inst.clock(), call.limit, call.numbers(1)

    def read(conn: Connection) -> list[Proposal]:
        return visible(
            lambda after, most: rows.list(conn, status=status, now=now, after=after, limit=most),
            lambda proposal: may_see(call.principal, proposal),
            after=None if position is None else position[0],
            limit=limit,
        )

    found = await call.inst.db.read(read)
    items = [body(one, call) for one in found[:limit]]
    return Answer(call.page(items, (found[limit - 1].n,) if len(found) > limit else None))


async def shown(call: Call) -> Answer:
    """One proposal; what is hidden is not there."""
    return Answer(body(await _find(call), call))


async def approve(call: Call) -> Answer:
    """The proposal after a yes, carried out."""
    decision: DecisionBody = call.body
    await _find(call)
    done = await acts.approve(call.inst, call.path["id"], decision.comment, call.caller)
    return Answer(body(done, call))


async def deny(call: Call) -> Answer:
    """The proposal after a no."""
    decision: DecisionBody = call.body
    await _find(call)
    return Answer(body(await deciding.deny(call.inst, call.path["id"], decision.comment, call.caller), call))


async def _find(call: Call) -> Proposal:
    found = await deciding.read(call.inst, call.path["id"])
    if not may_see(call.principal, found):
        raise Problem("RW-NOT-FOUND", "There is no such proposal.")
    return found


_DECISION = ("RW-FORBIDDEN", "RW-SAME-PERSON", "RW-APPROVAL")

OPERATIONS = (
    Operation(
        name="listProposals",
        method="GET",
        path="/proposals",
        handler=listed,
        summary="Proposals that wait for a second person, or of another status.",
        result=Page[ProposalBody],
        query=(
            Parameter(
                "status", "Of which status; waiting if it is not said.", {"type": "string", "enum": list(rows.STATUSES)}
            ),
        ),
        paged=True,
    ),
    Operation(
        name="getProposal",
        method="GET",
        path="/proposals/{id}",
        handler=shown,
        summary="One proposal.",
        result=ProposalBody,
    ),
    Operation(
        name="approveProposal",
        method="POST",
        path="/proposals/{id}/approve",
        handler=approve,
        summary="Agree to exactly what is proposed, and carry it out.",
        body=DecisionBody,
        lenient=True,
        result=ProposalBody,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=(*_DECISION, "RW-CONFLICT", "RW-FROZEN", "RW-KEY-UNAVAILABLE"),
    ),
    Operation(
        name="denyProposal",
        method="POST",
        path="/proposals/{id}/deny",
        handler=deny,
        summary="Refuse what is proposed and not carried out; who proposed it takes it back so.",
        body=DecisionBody,
        lenient=True,
        result=ProposalBody,
        idempotent=True,
        urgent=True,
        problems=_DECISION,
    ),
)
