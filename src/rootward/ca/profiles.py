"""Profiles as the installation keeps them: versions that never change, each with its event."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, require
from rootward.ca.installation import Installation
from rootward.core.plan import Policy
from rootward.core.problems import Problem
from rootward.core.profile import Profile, check_profile, profile_json
from rootward.core.roles import Role
from rootward.store import authorities, events, profiles
from rootward.store.errors import Lost, Taken
from rootward.store.profiles import ProfileRow


async def create(inst: Installation, profile: Profile, caller: Caller) -> ProfileRow:
    """Version 1 of a new profile; RW-CONFLICT where the name was ever used."""
    _check(inst, profile, caller)

    def require_new(latest: ProfileRow | None) -> None:
        if latest is not None:
            raise Problem("RW-CONFLICT", f"There is a profile {profile.name} already.", field="name")

    return await _put(inst, profile, caller, require_new, "profile.created")


async def update(inst: Installation, profile: Profile, caller: Caller) -> ProfileRow:
    """The next version. Its authority stays: grants were given for the profile of that one."""
    _check(inst, profile, caller)

    def require_same(latest: ProfileRow | None) -> None:
        if latest is None:
            raise Problem("RW-NOT-FOUND", "There is no such profile.")
        if latest.authority != profile.authority:
            raise Problem("RW-CONFLICT", "A profile stays with its authority; create another one.", field="authority")

    return await _put(inst, profile, caller, require_same, "profile.updated")


async def retire(inst: Installation, name: str, caller: Caller) -> ProfileRow:
    """It issues no more; what it issued stays as it is. The next version, if any, brings it back."""
    found = await inst.db.look(lambda conn: profiles.latest(conn, name))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such profile.")
    require(caller.principal, Role.ADMIN, authority=found.authority)
    if found.retired_at is not None:
        return found
    now = inst.clock()
    event = events.record(
        "profile.retired",
        actor=caller.principal.id,
        authority=found.authority,
        request_id=caller.request_id,
        data={"name": name, "version": found.version},
        at=now,
    )
    try:
        await inst.db.write(profiles.retire(name, found.version, at=now) + event)
    except Lost:
        raise Problem("RW-CONFLICT", "Somebody else changed the profile just now.") from None
    return msgspec.structs.replace(found, retired_at=now)


async def current(inst: Installation, name: str) -> tuple[int, Profile] | None:
    """The version that issues now; None where there is none or it is retired."""
    found = await inst.db.look(lambda conn: profiles.current(conn, name))
    return None if found is None else (found[0], msgspec.json.decode(found[1], type=Profile))


def _check(inst: Installation, profile: Profile, caller: Caller) -> None:
    require(caller.principal, Role.ADMIN, authority=profile.authority)
    check_profile(profile)
    authority = inst.authorities.get(profile.authority)
    if authority is None:
        raise Problem("RW-PROFILE-INVALID", f"There is no authority {profile.authority}.", field="authority")
    if authority.key is None:
        raise Problem("RW-PROFILE-INVALID", f"The authority {profile.authority} is offline.", field="authority")
    Policy(profile, 0, authority.issuer)  # what cannot be compiled must not be stored


async def _put(
    inst: Installation, profile: Profile, caller: Caller, check: Callable[[ProfileRow | None], None], kind: str
) -> ProfileRow:
    now, body = inst.clock(), profile_json(profile).decode()

    def apply(conn: Connection) -> ProfileRow:
        # Whoever stops the authority at this moment comes before this transaction or after it.
        authorities.wait_for_intents(conn, profile.authority)
        latest = profiles.latest(conn, profile.name)
        check(latest)
        if latest is None or latest.retired_at is not None:
            _require_going_on(conn, profile.authority)
        version = profiles.put(
            conn, profile.name, authority=profile.authority, body=body, at=now, by=caller.principal.id
        )
        events.record(
            kind,
            actor=caller.principal.id,
            authority=profile.authority,
            request_id=caller.request_id,
            data={"name": profile.name, "version": version, "profile": msgspec.json.decode(body)},
            at=now,
        ).run(conn)
        return ProfileRow(profile.name, version, profile.authority, body, now, caller.principal.id, None)

    try:
        return await inst.db.write(apply)
    except Taken:
        raise Problem("RW-CONFLICT", "Somebody else changed the profile just now.") from None


def _require_going_on(conn: Connection, authority: str) -> None:
    """RW-CONFLICT where the authority has stopped: what it had was handed over, and nothing comes after that."""
    row = authorities.by_name(conn, authority)
    if row is not None and row.retired_at is not None:
        detail = f"The authority {authority} never issues again: make the profile under the one that takes its place."
        raise Problem("RW-CONFLICT", detail, field="authority")
