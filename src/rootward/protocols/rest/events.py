"""`/events`: the audit log, newest first, and its export as one JSON value a line. Reading all of it is an event."""

from __future__ import annotations

from rootward.ca import audit
from rootward.core.problems import Problem
from rootward.fleet.export import EventLine, event_line, export
from rootward.protocols.rest.operation import Answer, Call, Operation, Page, Parameter
from rootward.store import events as rows


async def listed(call: Call) -> Answer:
    """A page of events, newest first."""
    query, limit, position = call.query, call.limit, call.numbers(1)
    filters = rows.Filters(
        kind=query.get("kind"), certificate=query.get("certificate"), authority=query.get("authority")
    )
    after = None if position is None else position[0]
    found = await audit.list_events(call.inst, filters, call.caller, after=after, limit=limit + 1)
    more = len(found) > limit
    return Answer(call.page([event_line(event) for event in found[:limit]], (found[limit - 1].n,) if more else None))


async def shown(call: Call) -> Answer:
    """One event by its number."""
    number = int(call.path["number"])
    try:
        return Answer(event_line(await audit.event(call.inst, number, call.caller)))
    except Problem as problem:
        if problem.code == "RW-FORBIDDEN":
            raise Problem("RW-NOT-FOUND", "There is no such event.") from None
        raise


async def exported(call: Call) -> Answer:
    """Events, certificates and head, from one snapshot."""
    return Answer(await export(call.inst, call.caller))


OPERATIONS = (
    Operation(
        name="listEvents",
        method="GET",
        path="/events",
        handler=listed,
        summary="Events, newest first. An auditor of one authority names it.",
        result=Page[EventLine],
        query=(
            Parameter("kind", "Of one kind, or of a group of kinds: issue.done, issue.*"),
            Parameter("certificate", "About the certificate of this id."),
            Parameter("authority", "Of this authority."),
        ),
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="exportEvents",
        method="GET",
        path="/events/export",
        handler=exported,
        summary="One JSON value a line: every event in the order of the audit tree, then every certificate, then the "
        "signed head. The export is an event itself.",
        result=EventLine,
        media_type="application/x-ndjson",
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="getEvent",
        method="GET",
        path="/events/{number}",
        handler=shown,
        summary="One event.",
        result=EventLine,
    ),
)
