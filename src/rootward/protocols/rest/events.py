"""`/events`: the audit log, newest first, and its export as one JSON value a line (oldest first). Reading all of it
is an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from rootward.ca import audit
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.protocols.rest.operation import Answer, Call, Moment, Operation, Page, Parameter
from rootward.store import events as rows

_LINES = 64 * 1024  # bytes of an export that are sent together
_ENCODE = msgspec.json.Encoder().encode


class EventBody(msgspec.Struct, frozen=True):
    """One fact. `leaf` is its place in the audit tree, null until the sequencer has taken it in."""

    id: str
    at: Moment
    kind: str
    actor: str
    authority: str | None
    certificate_id: str | None
    request_id: str
    data: dict[str, Any]
    leaf: int | None


def body(event: rows.Event) -> EventBody:
    """An event as the API says it."""
    return EventBody(
        id=str(event.n),
        at=rfc3339(event.at),
        kind=event.kind,
        actor=event.actor,
        authority=event.authority,
        certificate_id=event.certificate,
        request_id=event.request_id,
        data=event.values(),
        leaf=event.leaf,
    )


async def listed(call: Call) -> Answer:
    """A page of events, newest first."""
    query, limit, position = call.query, call.limit, call.numbers(1)
    filters = rows.Filters(
        kind=query.get("kind"), certificate=query.get("certificate"), authority=query.get("authority")
    )
    after = None if position is None else position[0]
    found = await audit.list_events(call.inst, filters, call.caller, after=after, limit=limit + 1)
    more = len(found) > limit
    return Answer(call.page([body(event) for event in found[:limit]], (found[limit - 1].n,) if more else None))


async def shown(call: Call) -> Answer:
    """One event by its number."""
    number = int(call.path["number"])
    try:
        return Answer(body(await audit.event(call.inst, number, call.caller)))
    except Problem as problem:
        if problem.code == "RW-FORBIDDEN":
            raise Problem("RW-NOT-FOUND", "There is no such event.") from None
        raise


async def export(call: Call) -> Answer:
    """Every event there is when the export begins, its own beginning included."""
    return Answer(_lines(await audit.export(call.inst, call.caller)))


async def _lines(found: AsyncIterator[rows.Event]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for event in found:
        buffer += _ENCODE(body(event))
        buffer += b"\n"
        if len(buffer) >= _LINES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


OPERATIONS = (
    Operation(
        name="listEvents",
        method="GET",
        path="/events",
        handler=listed,
        summary="Events, newest first. An auditor of one authority names it.",
        result=Page[EventBody],
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
        handler=export,
        summary="Every event as one JSON value a line, oldest first. The export is an event itself.",
        result=EventBody,
        media_type="application/x-ndjson",
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="getEvent",
        method="GET",
        path="/events/{number}",
        handler=shown,
        summary="One event.",
        result=EventBody,
    ),
)
