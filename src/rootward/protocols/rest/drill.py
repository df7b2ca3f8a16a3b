"""`/authorities/{name}/drill`: a rehearsal that changes nothing."""

from __future__ import annotations

import msgspec

from rootward.core.times import rfc3339
from rootward.fleet import drill
from rootward.protocols.rest import authorities
from rootward.protocols.rest.operation import Answer, Call, Duration, Line, Moment, Operation


class DrillAskBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`successor` and `waves` as they would be given of a compromise; without a successor one is made up."""

    successor: Line | None = None
    waves: Duration | None = None


class StepBody(msgspec.Struct, frozen=True):
    """One step, and how long it took."""

    name: str
    seconds: float
    detail: str


class WaveBody(msgspec.Struct, frozen=True):
    """How many certificates would be renewed from when on."""

    start: Moment
    certificates: int


class OwnerBody(msgspec.Struct, frozen=True):
    """How many certificates an owner would have to replace; null: those without one."""

    owner: str | None
    certificates: int


class DrillBody(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen; `missing` says in sentences what stands in the way. `stand_in`: the successor was made up."""

    authority: str
    successor: str
    stand_in: bool
    certificates: int
    waves_until: Moment
    steps: list[StepBody]
    waves: list[WaveBody]
    owners: list[OwnerBody]
    missing: list[str]


async def held(call: Call) -> Answer:
    """The report of a drill."""
    body: DrillAskBody = call.body
    await authorities.shown(call)
    made = await drill.rehearse(call.inst, call.path["name"], body.successor, body.waves, call.caller)
    return Answer(
        DrillBody(
            authority=made.authority,
            successor=made.successor,
            stand_in=made.stand_in,
            certificates=made.certificates,
            waves_until=rfc3339(made.waves_until),
            steps=[StepBody(step.name, step.seconds, step.detail) for step in made.steps],
            waves=[WaveBody(rfc3339(start), count) for start, count in made.waves],
            owners=[OwnerBody(owner, count) for owner, count in made.owners],
            missing=list(made.missing),
        )
    )


OPERATIONS = (
    Operation(
        name="drillAuthority",
        method="POST",
        path="/authorities/{name}/drill",
        handler=held,
        summary="Rehearse that its key is in other hands, on a shadow: nothing changes.",
        body=DrillAskBody,
        lenient=True,
        result=DrillBody,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-CEREMONY", "RW-PROFILE-INVALID"),
    ),
)
