"""Reading the events. Whoever reads them is an auditor, and reading all of them is an event itself (I-60)."""

from __future__ import annotations

from rootward.ca.access import Caller, require
from rootward.ca.installation import Installation
from rootward.ca.log import HALT
from rootward.ca.sequence import note_head, settle
from rootward.core.ledger import Verifier
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.store import events


async def list_events(
    inst: Installation, filters: events.Filters, caller: Caller, *, after: int | None = None, limit: int = 50
) -> tuple[events.Event, ...]:
    """A page of events. An auditor of one authority sees that one's only, and must say so in the filter."""
    require(caller.principal, Role.AUDITOR, authority=filters.authority)
    return await inst.db.read(lambda conn: events.list(conn, filters, after=after, limit=limit))


async def begin_export(inst: Installation, caller: Caller) -> Verifier:
    """Whoever reads everything is written down first: when this returns, a signed head has that event in it. Gives the
    key that signs heads. RW-LOG-BEHIND where the log is halted, or somebody else is always faster.
    """
    require(caller.principal, Role.AUDITOR)
    now = inst.clock()
    await settle(inst)
    if inst.log is not None:
        await note_head(inst)
    await inst.db.write(
        events.record("audit.exported", actor=caller.principal.id, request_id=caller.request_id, at=now)
    )
    await settle(inst)
    opened = inst.log
    if opened is None:
        raise inst.process.halted.get(HALT) or Problem("RW-LOG-BEHIND", "The audit log is not open.", retry_after=1)
    return opened.verifier


async def event(inst: Installation, n: int, caller: Caller) -> events.Event:
    """One event by its number."""
    found = await inst.db.look(lambda conn: events.by_n(conn, n))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such event.")
    require(caller.principal, Role.AUDITOR, authority=found.authority)
    return found
