"""One authority takes the place of another: its profiles issue from the new one, its people have the same roles there,
and what it issued stays as it is, with its CRL and OCSP. Agreed to by two people (`ca/proposals.py`), for a role on one
authority is worth nothing on another but by such a decision (I-43).

A profile that is pointed at another authority is a new version of it. ACME accounts and bindings name profiles, so they
follow by themselves. Where the successor is not certified yet, the yes stands and `settle` carries it out when it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection

from rootward.ca import authorities as making
from rootward.ca import ending, freeze, own, proposals
from rootward.ca.access import Caller, require, system_caller
from rootward.ca.installation import Authority, Installation
from rootward.ca.paper import CERTIFY
from rootward.core.authority import read_spec
from rootward.core.plan import Policy
from rootward.core.problems import Problem
from rootward.core.profile import Profile, profile_json
from rootward.core.renewal import renewed, spec_of
from rootward.core.roles import Role
from rootward.core.times import parse_duration, rfc3339
from rootward.core.waves import LONGEST, span
from rootward.store import authorities, events, facts, profiles, succession
from rootward.store import paperwork as papers
from rootward.store.authorities import Pending
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.paperwork import Asked
from rootward.store.proposals import Proposal
from rootward.store.rows import UNFENCED, Rows

T = TypeVar("T")

log = structlog.get_logger()

SUCCEED: Final = "ca.succeed"
RETIRE: Final = "ca.retire"
ENDED: Final = "authority.ended:"  # a fact for each authority of which nothing is left
_HANDED = "authority.handed:"  # a fact for each authority that has left what it had to another one, which it names
_LONGEST_WAVES: Final = timedelta(days=30)


@dataclass(frozen=True)
class Handed:
    """What went over: names of profiles; how many roles and tokens."""

    profiles: tuple[str, ...]
    roles: int
    tokens: int

    def values(self) -> dict[str, object]:
        """As events say it."""
        return {"profiles": list(self.profiles), "roles": self.roles, "tokens": self.tokens}


NOTHING = Handed((), 0, 0)


async def renew(inst: Installation, name: str, successor: str, store: str, caller: Caller) -> Pending:
    """Ask for an authority that can take the place of `name`: a new key in the key store (empty: where the old one is),
    and the same specification, for the same parent to certify.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-CONFLICT, RW-CEREMONY where its certificate says what no specification can,
    and those of `authorities.create`.
    """
    old = inst.authority(name)
    making.require_system_admin(caller)
    if old.kind != "issuing" or old.backend is None:
        raise Problem("RW-CONFLICT", f"The key of {old.name} is offline: a ceremony makes what takes its place.")
    parent = ending.parent_of(inst, old)
    by = None if parent is None or parent.settings.external else parent.name
    row = await inst.db.read(lambda conn: authorities.by_name(conn, old.name))
    if row is None or row.spec is None:  # it was elsewhere before
        spec = spec_of(old.issuer.certificate, old.name, "issuing")
    else:
        spec = read_spec(msgspec.json.decode(row.spec))
    return await making.create(inst, renewed(spec, successor), by, store or old.backend, caller)


async def propose(inst: Installation, name: str, successor: str, caller: Caller) -> Proposal:
    """Let `successor`, which issues already, take the place of `name`.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-CONFLICT, and those of a profile that cannot issue from the new one.
    """
    old = inst.authority(name)
    require(caller.principal, Role.ADMIN, authority=old.name)
    await check_successor(inst, old, successor)
    require(caller.principal, Role.ADMIN, authority=successor)
    return await proposals.propose(inst, SUCCEED, old.name, {"successor": successor}, caller)


async def succeed(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """The act: in one transaction everything of the old one is the new one's."""
    old, successor = inst.authority(proposal.authority), str(proposal.values()["successor"])
    await check_successor(inst, old, successor)
    now = inst.clock()

    def apply(conn: Connection) -> None:
        authorities.wait_for_intents(conn, old.name)
        succession.follow(old.name, successor).run(conn)
        handed = hand_over(conn, inst, old.name, successor, caller, now)
        proposals.carried_out(proposal, caller, now, handed.values()).run(conn)

    await written(inst, apply)
    failpoint("succeed.stored")
    await freeze.look_again(inst)


async def propose_retirement(inst: Installation, name: str, waves: str | None, caller: Caller) -> Proposal:
    """Let `name` end: it never issues again, and goes on with its CRL and OCSP until its last certificate is over. Its
    holders are told to renew in waves, `waves` long at most.

    RW-CONFLICT while a profile issues from it.
    """
    old = inst.authority(name)
    require(caller.principal, Role.ADMIN, authority=old.name)
    _check_retirable(old, await inst.db.read(lambda conn: succession.profiles_of(conn, old.name)))
    longest_of(waves)
    return await proposals.propose(inst, RETIRE, old.name, {"waves": waves}, caller)


async def retire(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """The act."""
    old, now = inst.authority(proposal.authority), inst.clock()
    longest = longest_of(proposal.values()["waves"])

    def apply(conn: Connection) -> None:
        authorities.wait_for_intents(conn, old.name)
        _check_retirable(old, succession.profiles_of(conn, old.name))
        count = succession.count_living(conn, old.name, now)
        until = now + span(count, longest=longest)
        succession.retire(old.name, at=now, waves_until=until).run(conn)
        data: dict[str, object] = {
            "reason": "its end was agreed to",
            "certificates": count,
            "waves_until": rfc3339(until),
            "successor": old.successor,
        }
        _event("authority.retired", old.name, caller, now, data).run(conn)
        proposals.carried_out(proposal, caller, now, data).run(conn)

    await written(inst, apply)
    failpoint("retire.stored")
    await freeze.look_again(inst)
    own.register(inst)


def longest_of(waves: str | None) -> timedelta:
    """How long the waves may go; RW-FIELD. `0s` is all at once."""
    if waves is None:
        return LONGEST
    found = timedelta() if waves == "0s" else parse_duration(waves, field="waves", code="RW-FIELD")
    if found > _LONGEST_WAVES:
        raise Problem("RW-FIELD", f"Waves go for {_LONGEST_WAVES.days} days at most.", field="waves")
    return found


async def check_successor(inst: Installation, old: Authority, successor: str) -> None:
    """RW-NOT-FOUND, RW-CONFLICT or a profile's own problem unless all that `old` does can go on from it now."""
    new = inst.authorities.get(successor)
    if new is None:
        detail = f"There is no authority {successor} with a certificate. One that waits for it can follow after"
        raise Problem("RW-NOT-FOUND", f"{detail} rootward ceremony import.", field="successor")
    if new.name == old.name or any(one == old.issuer.certificate for one in new.issuer.chain):
        raise Problem("RW-CONFLICT", f"{successor} is {old.name} itself, or below it.", field="successor")
    _check_kind(old, successor, new.kind)
    if new.state != "active":
        raise Problem("RW-CONFLICT", f"{successor} is {new.state}: it issues nothing.", field="successor")
    for row in await inst.db.read(lambda conn: succession.profiles_of(conn, old.name)):
        _pointed(row.body, row.name, new)


async def check_waiting(inst: Installation, old: Authority, successor: str) -> bool:
    """Whether the successor waits for its certificate, and can follow `old` when it has it; False where it does not
    wait. RW-CONFLICT where it never can.
    """

    def read(conn: Connection) -> tuple[Pending | None, Asked | None]:
        return authorities.pending_by_name(conn, successor), papers.latest(conn, CERTIFY, successor)

    waiting, asked = await inst.db.read(read)
    if waiting is None:
        return False
    # Who asked before its parent was here has no parent in its row, but in its request.
    above = inst.authorities.get(waiting.parent or ("" if asked is None else asked.authority))
    if above is not None and old.issuer.certificate in above.issuer.chain:
        raise Problem("RW-CONFLICT", f"{successor} is to be certified by or below {old.name}.", field="successor")
    _check_kind(old, successor, waiting.kind)
    return True


def _check_kind(old: Authority, successor: str, kind: str) -> None:
    if kind != old.kind:
        raise Problem("RW-CONFLICT", f"{successor} is a {kind} CA, and {old.name} is not.", field="successor")


def _pointed(body: str, name: str, new: Authority) -> Profile:
    """The profile as one of `new`; what cannot be compiled for it must not be stored."""
    profile = msgspec.structs.replace(msgspec.json.decode(body, type=Profile), authority=new.name)
    try:
        Policy(profile, 0, new.issuer)
    except Problem as problem:
        raise Problem(
            "RW-PROFILE-INVALID", f"The profile {name} cannot issue from {new.name}: {problem.detail}", field=name
        ) from None
    return profile


def hand_over(conn: Connection, inst: Installation, old: str, successor: str, caller: Caller, now: datetime) -> Handed:
    """Profiles, roles and tokens' scopes, in the caller's transaction, each with its event. What went over before stays
    as it is. It is done once for each yes: roles that are given on the old one later were not agreed to (I-43).
    """
    new = inst.authority(successor)
    pointed = succession.profiles_of(conn, old)
    for row in pointed:
        body = profile_json(_pointed(row.body, row.name, new)).decode()
        version = profiles.put(conn, row.name, authority=new.name, body=body, at=now, by=caller.principal.id)
        data: dict[str, object] = {"name": row.name, "version": version, "was": old}
        _event("profile.moved", new.name, caller, now, data).run(conn)
    roles = 0
    there = set(succession.roles_on(conn, successor))
    for principal, role, profile in succession.roles_on(conn, old):
        if (principal, role, profile) in there:
            continue
        there.add((principal, role, profile))
        id, roles = new_id(), roles + 1
        succession.add_role(id, principal=principal, role=role, authority=successor, profile=profile, at=now).run(conn)
        given = {"id": id, "principal": principal, "role": role, "authority": successor, "profile": profile}
        events.record("grant.created", actor=caller.principal.id, request_id=caller.request_id, data=given, at=now).run(
            conn
        )
    widened = succession.widen_scopes(conn, old, successor, now)
    facts.put(_HANDED + old, at=now, data=successor).run(conn)
    handed = Handed(tuple(row.name for row in pointed), roles, widened)
    if handed != NOTHING:
        _event("authority.succeeded", old, caller, now, {"successor": successor, **handed.values()}).run(conn)
    return handed


async def settle(inst: Installation, fence: Rows = UNFENCED) -> None:
    """What time brings: a successor that was certified takes over what it was agreed to, and an authority of which
    nothing is left has ended, once. For a job.
    """
    await freeze.look_again(inst)
    stuck: Problem | None = None
    for old in list(inst.authorities.values()):
        new = inst.authorities.get(old.successor or "")
        try:
            if new is not None and new.state == "active":
                await _take_over(inst, old, new, fence)
        except Problem as problem:  # a profile that the new one cannot have: nobody else waits for it
            stuck = problem
        if old.state in ("retired", "compromised"):
            await _end(inst, old, fence)
    own.register(inst)
    if stuck is not None:
        raise stuck


async def _take_over(inst: Installation, old: Authority, new: Authority, fence: Rows) -> None:
    now, caller = inst.clock(), system_caller("succession")

    def has(conn: Connection) -> bool:
        handed = facts.get(conn, _HANDED + old.name)
        return handed is not None and handed.data == new.name

    def apply(conn: Connection) -> Handed | None:
        fence.run(conn)
        return None if has(conn) else hand_over(conn, inst, old.name, new.name, caller, now)

    if await inst.db.look(has):
        return
    handed = await inst.db.write(apply)
    failpoint("succession.stored")
    if handed is not None:
        log.warning("authority.succeeded", authority=old.name, successor=new.name, profiles=len(handed.profiles))


async def _end(inst: Installation, old: Authority, fence: Rows) -> None:
    now, name = inst.clock(), ENDED + old.name

    def left(conn: Connection) -> bool:
        return succession.last_end(conn, old.name, now) is not None or facts.get(conn, name) is not None

    if await inst.db.read(left):
        return

    def apply(conn: Connection) -> None:
        fence.run(conn)
        if facts.get(conn, name) is None:
            facts.put_once(name, at=now).run(conn)
            _event("authority.ended", old.name, system_caller("succession"), now, {"successor": old.successor}).run(
                conn
            )

    await inst.db.write(apply)
    failpoint("ended.stored")
    log.info("authority.ended", authority=old.name)


def _check_retirable(old: Authority, left: tuple[profiles.ProfileRow, ...]) -> None:
    if old.kind != "issuing":
        raise Problem("RW-CONFLICT", f"{old.name} is a {old.kind} CA: it ends when its last CRL has, in a ceremony.")
    if old.retired_at is not None:
        raise Problem("RW-CONFLICT", f"{old.name} is {old.state} already.")
    if left:
        names = ", ".join(row.name for row in left)
        raise Problem(
            "RW-CONFLICT",
            f"Profiles issue from {old.name}: {names}. Let another authority take them over, or retire them, first.",
        )


async def written(inst: Installation, apply: Callable[[Connection], T]) -> T:
    """One transaction of an act; RW-CONFLICT where somebody else changed the same at this moment."""
    try:
        return await inst.db.write(apply)
    except (Taken, Lost):
        raise Problem("RW-CONFLICT", "Somebody else changed it just now; approve it again.", retry_after=1) from None


def _event(kind: str, authority: str, caller: Caller, at: datetime, data: dict[str, object]) -> Rows:
    return events.record(
        kind, actor=caller.principal.id, authority=authority, request_id=caller.request_id, data=data, at=at
    )
