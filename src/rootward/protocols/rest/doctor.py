"""`/doctor`: what an operator should look at."""

from __future__ import annotations

from typing import Literal

import msgspec

from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.fleet import health
from rootward.protocols.rest.operation import Answer, Call, Operation


class CheckBody(msgspec.Struct, frozen=True):
    """One check; `mend` says what to do where it is not ok."""

    name: str
    state: Literal["ok", "warning", "error"]
    detail: str
    mend: str | None


class Report(msgspec.Struct, frozen=True):
    """Every check, whatever came of it."""

    checks: list[CheckBody]


async def doctor(call: Call) -> Answer:
    """Every check, done now."""
    if not (call.principal.holds(Role.AUDITOR) or call.principal.holds(Role.SYSTEM_ADMIN)):
        raise Problem("RW-FORBIDDEN", "This needs the role auditor on every authority, or system-admin.")
    checks = await health.checks(call.inst)
    return Answer(Report([CheckBody(one.name, one.state, one.detail, one.mend) for one in checks]))


OPERATIONS = (
    Operation(
        name="doctor",
        method="GET",
        path="/doctor",
        handler=doctor,
        summary="What an operator should look at.",
        result=Report,
        problems=("RW-FORBIDDEN",),
    ),
)
