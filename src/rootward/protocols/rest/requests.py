"""`/requests`: what waits for a person. A requester sees their own, an approver (and who oversees) those of their
authorities.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from sqlalchemy import Connection

from rootward.ca import approve as deciding
from rootward.ca import foresee
from rootward.ca.access import Principal
from rootward.core.acme import MAX_IDENTIFIERS
from rootward.core.problems import CODES, Problem
from rootward.core.roles import Role
from rootward.protocols.rest.operation import API, Answer, Call, Line, Operation, Page, Parameter, Text
from rootward.protocols.rest.request import RequestBody, request_body
from rootward.protocols.rest.visible import visible
from rootward.store import requests as rows
from rootward.store.requests import Parked, Status

STATUSES: tuple[Status, ...] = ("waiting", "approved", "denied", "expired", "issued", "failed")
_OVERSEERS = (Role.APPROVER, Role.OFFICER, Role.ADMIN, Role.AUDITOR)

Account = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]*$(?!\n)")]
Names = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=300)]],
    msgspec.Meta(min_length=1, max_length=MAX_IDENTIFIERS),
]


class DecisionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`comment` is kept with the decision."""

    comment: Text | None = None


def may_see(principal: Principal, request: Parked) -> bool:
    """Whether a request is this principal's own, or of an authority and profile that they oversee."""
    return principal.id in (request.principal, request.asked_by) or any(
        principal.holds(role, authority=request.authority, profile=request.profile) for role in _OVERSEERS
    )


class AskBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`account` is the id of an ACME account; `names` are what it will order: `dns:a.internal`, `ip:10.0.0.1`."""

    account: Account
    profile: Line
    names: Names


async def ask(call: Call) -> Answer:
    """202 with the request; where it was there already, as it stands."""
    body: AskBody = call.body
    found = await foresee.ask(call.inst, body.account, body.profile, body.names, call.caller)
    return Answer(request_body(found, call.inst.clock()), 202, ((b"location", f"{API}/requests/{found.id}".encode()),))


async def listed(call: Call) -> Answer:
    """A page of the requests of one status that the caller may see, newest first."""
    status = next((known for known in STATUSES if known == call.query.get("status", "waiting")), None)
    if status is None:
        raise Problem("RW-QUERY", f"status is one of {', '.join(STATUSES)}.", field="status")
    principal, now, limit = call.principal, call.inst.clock(), call.limit
    oversees = any(principal.anywhere(role) for role in _OVERSEERS)
    filters = rows.Filters(status=status, principal=None if oversees else principal.id)
    position = call.numbers(1)

    def read(conn: Connection) -> list[Parked]:
        return visible(
            lambda after, most: rows.list(conn, filters, now=now, after=after, limit=most),
            lambda request: may_see(principal, request),
            after=None if position is None else position[0],
            limit=limit,
        )

    found = await call.inst.db.read(read)
    more = len(found) > limit
    items = [request_body(request, now) for request in found[:limit]]
    return Answer(call.page(items, (found[limit - 1].n,) if more else None))


async def shown(call: Call) -> Answer:
    """One request; what is hidden is not there."""
    name = call.path["id"]
    found = await call.inst.db.look(lambda conn: rows.by_id(conn, name))
    if found is None or not may_see(call.principal, found):
        raise Problem("RW-NOT-FOUND", "There is no such request.")
    return Answer(request_body(found, call.inst.clock()))


async def approve(call: Call) -> Answer:
    """The request after a yes; where the yes binds the whole plan, the certificate is issued with it."""
    body: DecisionBody = call.body
    done = await deciding.approve(call.inst, call.path["id"], body.comment, call.caller)
    return Answer(request_body(done, call.inst.clock()))


async def deny(call: Call) -> Answer:
    """The request after a no."""
    body: DecisionBody = call.body
    done = await deciding.deny(call.inst, call.path["id"], body.comment, call.caller)
    return Answer(request_body(done, call.inst.clock()))


_DECISION = ("RW-FORBIDDEN", "RW-SAME-PERSON", "RW-APPROVAL")

OPERATIONS = (
    Operation(
        name="listRequests",
        method="GET",
        path="/requests",
        handler=listed,
        summary="Requests that wait for a person, or of another status.",
        result=Page[RequestBody],
        query=(
            Parameter(
                "status", "Of which status; waiting if it is not said.", {"type": "string", "enum": list(STATUSES)}
            ),
        ),
        paged=True,
    ),
    Operation(
        name="createRequest",
        method="POST",
        path="/requests",
        handler=ask,
        summary="Ask in an ACME account's place whether it may have names, before it orders them.",
        body=AskBody,
        result=RequestBody,
        status=202,
        idempotent=True,
        problems=(
            *(code for code in CODES if code.startswith("RW-NAME")),
            *"RW-TOO-MANY RW-KEY-TYPE RW-CSR-EMPTY RW-CSR-SUBJECT RW-CONDITION RW-PROFILE RW-FROZEN".split(),
            *"RW-FORBIDDEN RW-NOT-FOUND RW-CONFLICT".split(),
        ),
    ),
    Operation(
        name="getRequest",
        method="GET",
        path="/requests/{id}",
        handler=shown,
        summary="One request.",
        result=RequestBody,
    ),
    Operation(
        name="approveRequest",
        method="POST",
        path="/requests/{id}/approve",
        handler=approve,
        summary="Agree to exactly what is asked.",
        body=DecisionBody,
        lenient=True,
        result=RequestBody,
        idempotent=True,
        problems=(*_DECISION, "RW-FROZEN", "RW-KEY-UNAVAILABLE"),
    ),
    Operation(
        name="denyRequest",
        method="POST",
        path="/requests/{id}/deny",
        handler=deny,
        summary="Refuse what is asked.",
        body=DecisionBody,
        lenient=True,
        result=RequestBody,
        idempotent=True,
        problems=_DECISION,
    ),
)
