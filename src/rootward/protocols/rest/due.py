"""`/ceremonies/due`: what only people can renew, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from rootward.ca.paper import CRL
from rootward.core.calendar import Due
from rootward.core.times import rfc3339
from rootward.fleet import calendar
from rootward.protocols.rest.certificate import may_see
from rootward.protocols.rest.operation import Answer, Call, Moment, Operation
from rootward.store import paperwork


class DueBody(msgspec.Struct, frozen=True):
    """`days` are those of the countdown (90, 30, 7, 1) that are left at most, 0 once it is over, null while there is
    more time. `request` is the id of the open request for that CRL, whose file goes to the ceremony.
    """

    authority: str
    what: Literal["crl", "certificate", "key"]
    due_at: Moment
    days: int | None
    request: str | None


class DueList(msgspec.Struct, frozen=True):
    """The nearest first."""

    items: list[DueBody]


async def due(call: Call) -> Answer:
    """Every due date of the authorities that the caller may see."""
    found = [one for one in await calendar.dates(call.inst) if may_see(call.principal, one.authority)]
    asked = await call.inst.db.read(paperwork.open_requests)
    requests = {one.subject: one.id for one in asked if one.kind == CRL}
    return Answer(DueList([_body(one, call, requests) for one in found]))


def _body(one: Due, call: Call, requests: Mapping[str, str]) -> DueBody:
    request = requests.get(one.authority) if one.what == "crl" else None
    return DueBody(one.authority, one.what, rfc3339(one.at), one.stage(call.inst.clock()), request)


OPERATIONS = (
    Operation(
        name="listDue",
        method="GET",
        path="/ceremonies/due",
        handler=due,
        summary="Until when CRLs, certificates and keys of authorities need people: a ceremony, a successor.",
        result=DueList,
    ),
)
