"""What needs the yes of a second person and is no certificate: an authority that is created, revoked, replaced. One
proposes, another one with the role approver agrees to exactly that, and it is carried out once (I-42).

A new kind in five lines: an act is `async def act(inst, proposal, caller)`, whose last transaction has
`carried_out(proposal, caller, now)` in it; its row stands in `ca/acts.py`, `ACTS`. Who asks for it calls
`await propose(inst, "ca.revoke", name, {"reason": reason}, caller)`, having checked whatever can be checked now, and
its door answers 202 with the proposal (`protocols/rest/proposals.py`, `proposed`). An act checks again: days may have
gone by. Where it raises RW-UNAVAILABLE or a conflict, the yes stands, and approving again carries it out; it is the
same after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, require, require_officer
from rootward.ca.approve import is_alone, require_own_token, require_still
from rootward.ca.installation import DESTROYING, Installation
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.store import events, facts, proposals
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.proposals import Proposal, Status
from rootward.store.rows import Rows

EXPIRES = timedelta(days=7)
# The fact, with the authority's name after it, that an act of this kind has begun what nobody can take back. It is
# stated in a transaction with `store.proposals.still_agreed`.
_BEGUN = {"key.destroy": DESTROYING}


async def propose(inst: Installation, kind: str, authority: str, body: Mapping[str, Any], caller: Caller) -> Proposal:
    """The open proposal of exactly this, made now unless it is there. `body` is what JSON can say.

    RW-FORBIDDEN for who is neither officer nor admin of the authority.
    """
    principal = caller.principal
    require_officer(principal, authority)
    now, text = inst.clock(), msgspec.json.encode(body, order="sorted").decode()
    digest = digest_of(kind, authority, text)
    found = await inst.db.look(lambda conn: proposals.open_by_digest(conn, digest))
    if found is not None and found.status(now) != "expired":
        return found
    id = new_id()
    row = {
        "id": id,
        "kind": kind,
        "authority": authority,
        "body": text,
        "digest": digest,
        "proposed_by": principal.id,
        "proposed_at": now,
        "expires_at": now + EXPIRES,
    }
    made = _event("proposal.made", id, kind, authority, caller, now, {"digest": digest, "body": dict(body)})
    try:
        await inst.db.write(proposals.add(row) + made)
        failpoint("propose.stored")
    except Taken:  # the same was proposed twice at one moment: both get the one that is there
        again = await inst.db.look(lambda conn: proposals.open_by_digest(conn, digest))
        if again is not None:
            return again
        raise Problem("RW-STORE", "The proposal was made and cannot be read.", retry_after=5) from None
    return await read(inst, id)


def digest_of(kind: str, authority: str, body: str) -> str:
    """What a yes is bound to: SHA-256, hex, over the JSON array of kind, authority and body."""
    return hashlib.sha256(msgspec.json.encode([kind, authority, body])).hexdigest()


async def read(inst: Installation, id: str) -> Proposal:
    """As it stands; RW-NOT-FOUND."""
    found = await inst.db.look(lambda conn: proposals.by_id(conn, id))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such proposal.")
    return found


async def agree(inst: Installation, id: str, comment: str | None, caller: Caller) -> Proposal:
    """A yes of another person than the one who proposed it. What is agreed to already, carried out or not, comes back
    as it is.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-SAME-PERSON, RW-APPROVAL.
    """
    found = await read(inst, id)
    _require_approver(found, caller)
    _require_status(found, inst.clock(), "waiting", "approved", "done")
    if found.approved_at is not None:
        return found
    now = inst.clock()

    def decide(conn: Connection) -> None:
        single = _require_another(conn, found, caller)
        proposals.approve(id, by=caller.principal.id, at=now, comment=comment).run(conn)
        _event_of("proposal.approved", found, caller, now, {"digest": found.digest, "comment": comment}).run(conn)
        if single:
            _event_of("approval.single_person", found, caller, now, {}).run(conn)

    await _decide(inst, decide)
    failpoint("agree.stored")
    return await read(inst, id)


async def deny(inst: Installation, id: str, comment: str | None, caller: Caller) -> Proposal:
    """A no, also to what was agreed to and is not carried out; the same may be proposed anew. Who proposed it may take
    it back so, with the role approver or without.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-APPROVAL.
    """
    found = await read(inst, id)
    if caller.principal.id != found.proposed_by:
        _require_approver(found, caller)
    now = inst.clock()
    _require_status(found, now, "waiting", "approved")

    def decide(conn: Connection) -> None:
        if caller.principal.id != found.proposed_by:
            require_still(conn, found.authority, None, caller.principal)
        proposals.deny(id, by=caller.principal.id, at=now, comment=comment).run(conn)
        begun = _BEGUN.get(found.kind)
        if begun is not None and facts.get(conn, begun + found.authority) is not None:  # after the row was written
            raise Problem("RW-APPROVAL", "It has begun, and cannot be taken back: approve it again to end it.")
        _event_of("proposal.denied", found, caller, now, {"comment": comment}).run(conn)

    await _decide(inst, decide)
    failpoint("disagree.stored")
    return await read(inst, id)


def carried_out(proposal: Proposal, caller: Caller, at: datetime, data: Mapping[str, object] | None = None) -> Rows:
    """With the last transaction of an act: done, once and for all. Lost where it was done before."""
    event = _event_of("proposal.carried-out", proposal, caller, at, {"effect": dict(data or {})})
    return proposals.done(proposal.id, at=at) + event


def taken_back(proposal: Proposal, caller: Caller, at: datetime) -> Rows:
    """With the transaction that takes away what it was for: nobody agrees to it or carries it out any more. Lost where
    it was carried out just now.
    """
    event = _event_of("proposal.denied", proposal, caller, at, {"comment": None})
    return proposals.deny(proposal.id, by=caller.principal.id, at=at, comment=None) + event


async def give_up(inst: Installation, proposal: Proposal, problem: Problem, caller: Caller) -> None:
    """What was agreed to cannot be done any more; the same may be proposed anew."""
    now, why = inst.clock(), msgspec.json.encode(problem.reasons).decode()
    event = _event_of("proposal.failed", proposal, caller, now, {"code": problem.code})
    await inst.db.write(proposals.fail(proposal.id, at=now, why=why) + event)
    failpoint("agree.failed-stored")


def _require_approver(proposal: Proposal, caller: Caller) -> None:
    for name in proposal.authorities:  # people and profiles of one come to the other: both have a say (I-43)
        require(caller.principal, Role.APPROVER, authority=name)
    require_own_token(caller.principal)


def _require_status(proposal: Proposal, now: datetime, *statuses: Status) -> None:
    status = proposal.status(now)
    if status not in statuses:
        raise Problem("RW-APPROVAL", f"The proposal is {status}, which is final.")


def _require_another(conn: Connection, proposal: Proposal, caller: Caller) -> bool:
    """True where the exception of the single person is used."""
    for name in proposal.authorities:
        require_still(conn, name, None, caller.principal)
    same = caller.principal.id == proposal.proposed_by
    if same and not is_alone(conn, caller.principal):
        raise Problem("RW-SAME-PERSON", "Nobody approves what he or she proposed; ask another approver.")
    return same


async def _decide(inst: Installation, decide: Any) -> None:
    try:
        await inst.db.write(decide)
    except Lost:
        raise Problem("RW-APPROVAL", "The proposal was decided by somebody else just now.") from None


def _event_of(kind: str, proposal: Proposal, caller: Caller, at: datetime, data: Mapping[str, object]) -> Rows:
    return _event(kind, proposal.id, proposal.kind, proposal.authority, caller, at, data)


def _event(
    kind: str, id: str, what: str, authority: str, caller: Caller, at: datetime, data: Mapping[str, object]
) -> Rows:
    return events.record(
        kind,
        actor=caller.principal.id,
        authority=authority,
        request_id=caller.request_id,
        data={"proposal": id, "kind": what, **data},
        at=at,
    )
