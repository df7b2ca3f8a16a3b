"""Deciding parked requests. Requester and approver are never the same person (I-42), with one exception: as long as
only one person has ever held an approver's role, that one decides alone, and each time it is an event.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from rootward.ca import accounts, park
from rootward.ca import issue as road
from rootward.ca.access import Caller, Principal, find_principal, require
from rootward.ca.installation import Installation
from rootward.core.problems import Kind, Problem
from rootward.core.profile import Profile
from rootward.core.roles import Grant, Role
from rootward.store import facts, people, profiles, requests
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.requests import Parked

SECOND_PERSON = "approvers.second-person"


async def approve(inst: Installation, id: str, comment: str | None, caller: Caller) -> Parked:
    """A yes to exactly the plan that was parked; where it binds the plan, the certificate is issued at once."""
    request = await _decidable(inst, id, caller)
    requester = await _requester(inst, request)
    if request.binds == "plan":
        await _check_unchanged(inst, request, requester)
    now = inst.clock()

    def decide(conn: Connection) -> None:
        require_still(conn, request.authority, request.profile, caller.principal)
        single = _require_another(conn, request, caller.principal)
        requests.approve(id, by=caller.principal.id, at=now, comment=comment).run(conn)
        park.event(request, "request.approved", caller, now, {"plan": request.plan, "comment": comment}).run(conn)
        if single:
            park.event(request, "approval.single_person", caller, now, {"request": id}).run(conn)

    failpoint("approve.checked")
    await _decide(inst, decide)
    failpoint("approve.stored")
    if request.binds == "plan":
        await _issue(inst, request, requester, caller)
        failpoint("approve.carried-out")
    return await _read(inst, id)


async def deny(inst: Installation, id: str, comment: str | None, caller: Caller) -> Parked:
    """A no; the same may be asked for anew."""
    request = await _decidable(inst, id, caller)
    now = inst.clock()

    def decide(conn: Connection) -> None:
        require_still(conn, request.authority, request.profile, caller.principal)
        requests.deny(id, by=caller.principal.id, at=now, comment=comment).run(conn)
        park.event(request, "request.denied", caller, now, {"comment": comment}).run(conn)

    await _decide(inst, decide)
    failpoint("deny.stored")
    return await _read(inst, id)


async def _read(inst: Installation, id: str) -> Parked:
    found = await inst.db.look(lambda conn: requests.by_id(conn, id))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such request.")
    return found


async def _decidable(inst: Installation, id: str, caller: Caller) -> Parked:
    request = await _read(inst, id)
    require(caller.principal, Role.APPROVER, authority=request.authority, profile=request.profile)
    require_own_token(caller.principal)
    status = request.status(inst.clock())
    if status != "waiting":
        raise Problem("RW-APPROVAL", f"The request is {status}; only a waiting one can be decided.")
    return request


async def _decide(inst: Installation, decide: Callable[[Connection], None]) -> None:
    try:
        await inst.db.write(decide)
    except Lost:
        raise Problem("RW-APPROVAL", "The request was decided by somebody else just now.") from None


def require_own_token(principal: Principal) -> None:
    """RW-FORBIDDEN for who comes with an invitation: its maker has had it too, and may be who asked (I-42)."""
    if principal.credential is not None and not principal.credential.own:
        raise Problem("RW-FORBIDDEN", "Deciding needs a token of your own: make one with your invitation, and use it.")


def require_still(conn: Connection, authority: str, profile: str | None, approver: Principal) -> None:
    """Raises RW-FORBIDDEN where the role was taken away since the approver was authenticated."""
    row = people.by_id(conn, approver.id)
    held = (Grant(Role(grant.role), grant.authority, grant.profile) for grant in people.grants_of(conn, approver.id))
    if (
        row is None
        or row.disabled_at is not None
        or not any(grant.covers(Role.APPROVER, authority, profile) for grant in held)
    ):
        raise Problem("RW-FORBIDDEN", f"This needs the role {Role.APPROVER} on {authority}.")


def is_alone(conn: Connection, approver: Principal) -> bool:
    """Whether nobody else has ever held an approver's role: the exception of I-42."""
    return people.holders(conn, Role.APPROVER) <= {approver.id} and facts.get(conn, SECOND_PERSON) is None


def _require_another(conn: Connection, request: Parked, approver: Principal) -> bool:
    """Raises RW-SAME-PERSON where approver and requester are one, or the approver asked in the place of the ACME
    account or stands behind it, and RW-FORBIDDEN where the approver could edit the profile; True where the exception of
    the single person is used for one's own request.
    """
    alone = is_alone(conn, approver)
    asked = approver.id in (request.principal, request.asked_by)
    same = asked or accounts.is_behind(conn, request.principal, approver)
    if same and not alone:
        raise Problem("RW-SAME-PERSON", "Nobody approves what he or she asked for; ask another approver.")
    if not alone and approver.holds(Role.ADMIN, authority=request.authority):
        # Who could change the profile would in effect approve alone (I-43).
        raise Problem("RW-FORBIDDEN", f"Who is admin of {request.authority} does not approve under its profiles.")
    return same


async def _requester(inst: Installation, request: Parked) -> Principal:
    """Who asked, with what that principal may do now; an ACME account may more than what was granted to it."""
    principal = await find_principal(inst, request.principal)
    if principal is not None and principal.kind == "account":
        principal = await accounts.requester(inst, principal.id, request.profile)
    if principal is None:
        raise Problem("RW-APPROVAL", "Who asked is no longer a principal of this installation.")
    return principal


async def _check_unchanged(inst: Installation, request: Parked, requester: Principal) -> None:
    """The plan that would be issued now is the one that is shown and approved; any change voids it (I-42)."""
    row = await inst.db.look(lambda conn: profiles.latest(conn, request.profile))
    if row is None or row.version != request.profile_version or row.retired_at is not None:
        raise Problem("RW-APPROVAL", "The profile has changed since; the request must be made anew.")
    policy = inst.policy(msgspec.json.decode(row.body, type=Profile), row.version)
    if policy.admit(park.unpack(request.ask), requester.identity()).hash != request.plan:
        raise Problem(
            "RW-APPROVAL", "What would be issued is no longer what was asked for; the request must be made anew."
        )


async def _issue(inst: Installation, request: Parked, requester: Principal, caller: Caller) -> None:
    """Issue what was approved, as its requester, in the approver's request."""
    try:
        await road.issue(inst, park.unpack(request.ask), Caller(requester, caller.request_id))
    except Problem as problem:
        if problem.kind in (Kind.UNAVAILABLE, Kind.CONFLICT, Kind.INTERNAL):
            raise  # the yes stands; asking again, by either of them, finishes it
        reasons, code = msgspec.json.encode(problem.reasons).decode(), problem.code
        now = inst.clock()

        def fail(conn: Connection) -> None:
            requests.fail(request.id, at=now, reasons=reasons).run(conn)
            park.event(request, "request.failed", caller, now, {"code": code}).run(conn)

        await inst.db.write(fail)
        failpoint("approve.failed-stored")
