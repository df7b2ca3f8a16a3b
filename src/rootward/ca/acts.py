"""What proposals can be of, and how each is carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from rootward.ca import compromise, destruction, ending, proposals, subordinate, succession
from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.core.problems import Kind, Problem
from rootward.store.errors import Lost
from rootward.store.proposals import Proposal

log = structlog.get_logger()

Act = Callable[[Installation, Proposal, Caller], Awaitable[None]]

ACTS: Final[dict[str, Act]] = {
    ending.KIND: ending.carry_out,
    destruction.KIND: destruction.carry_out,
    compromise.COMPROMISE: compromise.carry_out,
    succession.SUCCEED: succession.succeed,
    succession.RETIRE: succession.retire,
    subordinate.KIND: subordinate.carry_out,
}


async def approve(inst: Installation, id: str, comment: str | None, caller: Caller) -> Proposal:
    """Agree to a proposal and carry it out; one that was agreed to and not carried out, carry out.

    Problems as of `proposals.agree`, and the act's own: where that may pass, the yes stands.
    """
    agreed = await proposals.agree(inst, id, comment, caller)
    if agreed.done_at is not None:
        return agreed
    act = ACTS.get(agreed.kind)
    if act is None:
        raise Problem("RW-CONFLICT", "This version of the program does not know how to do that.")
    if agreed.digest != proposals.digest_of(agreed.kind, agreed.authority, agreed.body):
        raise Problem("RW-APPROVAL", "The proposal is not the one that was made: it was changed in the store.")
    try:
        await act(inst, agreed, caller)
    except Lost:
        done = await proposals.read(inst, id)
        if done.done_at is None:
            raise Problem("RW-CONFLICT", "Something changed just now; approve it again.", retry_after=1) from None
    except Problem as problem:
        if problem.kind not in (Kind.UNAVAILABLE, Kind.CONFLICT, Kind.INTERNAL):
            await proposals.give_up(inst, agreed, problem, caller)
        raise
    log.warning("proposal.carried-out", kind=agreed.kind, authority=agreed.authority, proposal=id)
    return await proposals.read(inst, id)
