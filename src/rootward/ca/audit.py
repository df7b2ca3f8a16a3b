"""Reading the events. Whoever reads them is an auditor, and reading all of them is an event itself (I-60)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from rootward.ca.access import Caller, require
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.store import events

PAGE = 500


async def list_events(
    inst: Installation, filters: events.Filters, caller: Caller, *, after: int | None = None, limit: int = 50
) -> tuple[events.Event, ...]:
    """A page of events. An auditor of one authority sees that one's only, and must say so in the filter."""
    require(caller.principal, Role.AUDITOR, authority=filters.authority)
    return await inst.db.read(lambda conn: events.list(conn, filters, after=after, limit=limit))


async def export(inst: Installation, caller: Caller) -> AsyncIterator[events.Event]:
    """Every event there is when it begins, its own beginning included, in the order of their numbers."""
    require(caller.principal, Role.AUDITOR)
    now = inst.clock()
    await inst.db.write(
        events.record("audit.exported", actor=caller.principal.id, request_id=caller.request_id, at=now)
    )
    return _pages(inst)


async def _pages(inst: Installation) -> AsyncIterator[events.Event]:
    after = 0
    while True:
        page = await inst.db.read(partial(events.page, after=after, limit=PAGE))
        if not page:
            return
        for event in page:
            yield event
        after = page[-1].n


async def event(inst: Installation, n: int, caller: Caller) -> events.Event:
    """One event by its number."""
    found = await inst.db.look(lambda conn: events.by_n(conn, n))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such event.")
    require(caller.principal, Role.AUDITOR, authority=found.authority)
    return found
