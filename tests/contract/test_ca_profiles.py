"""Profiles on both stores: versions that never change, each with its event, by whoever may (I-14, I-43)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from rootward.ca import profiles
from rootward.core.problems import Problem
from rootward.core.profile import Approval, Condition, Lifetime, Profile, Revocation, Subject, Value
from rootward.core.roles import Grant, Role
from rootward.store import profiles as rows
from tests.support.world import ISSUING, World, refused

ADMIN = Grant(Role.ADMIN)
WEB = Profile("web", ISSUING, "first")


async def versions(lab: World, name: str) -> list[rows.ProfileRow]:
    latest = await lab.inst.db.read(lambda conn: rows.latest(conn, name))
    assert latest is not None
    found = [
        await lab.inst.db.read(lambda conn, n=n: rows.at_version(conn, name, n)) for n in range(1, latest.version + 1)
    ]
    return [one for one in found if one is not None]


@pytest.mark.invariant("I-14", "I-56")
async def test_versions_count_up_and_stay_as_they_were(lab: World) -> None:
    made = await profiles.create(lab.inst, WEB, lab.admin)
    assert (made.version, made.created_by, made.created_at) == (1, lab.admin.principal.id, lab.clock())
    second = msgspec.structs.replace(WEB, description="second", lifetime=Lifetime("1d", "2d"))
    assert (await profiles.update(lab.inst, second, lab.admin)).version == 2
    assert await profiles.current(lab.inst, "web") == (2, second)
    kept = await versions(lab, "web")
    assert [msgspec.json.decode(one.body, type=Profile) for one in kept] == [WEB, second]
    events = await lab.events("profile.created", "profile.updated")
    assert [(event.kind, event.authority, event.values()["version"]) for event in events[-2:]] == [
        ("profile.created", ISSUING, 1),
        ("profile.updated", ISSUING, 2),
    ]
    assert events[-1].values()["profile"]["description"] == "second"


async def test_a_name_is_used_once(lab: World) -> None:
    await profiles.create(lab.inst, WEB, lab.admin)
    assert await refused(profiles.create(lab.inst, WEB, lab.admin)) == "RW-CONFLICT"
    await profiles.retire(lab.inst, "web", lab.admin)
    assert await refused(profiles.create(lab.inst, WEB, lab.admin)) == "RW-CONFLICT"
    assert await profiles.current(lab.inst, "web") is None
    again = await profiles.retire(lab.inst, "web", lab.admin)
    assert again.retired_at == lab.clock()
    assert (await lab.counts())["profile.retired"] == 1
    assert (await profiles.update(lab.inst, WEB, lab.admin)).version == 2
    assert await profiles.current(lab.inst, "web") == (2, WEB)


async def test_what_is_not_there(lab: World) -> None:
    assert await refused(profiles.update(lab.inst, WEB, lab.admin)) == "RW-NOT-FOUND"
    for name in ("web", "", "server\n", "' OR 1=1"):
        assert await refused(profiles.retire(lab.inst, name, lab.admin)) == "RW-NOT-FOUND"
        assert await profiles.current(lab.inst, name) is None


@pytest.mark.invariant("I-43", "I-45")
async def test_only_an_admin_of_that_authority_may(lab: World) -> None:
    await profiles.create(lab.inst, WEB, lab.admin)
    other = msgspec.structs.replace(WEB, name="other")
    held = {
        "nobody": [],
        "root": [Grant(Role.ADMIN, "root")],
        "profile": [Grant(Role.ADMIN, ISSUING, "web")],
        "rest": [Grant(role) for role in Role if role is not Role.ADMIN],
    }
    for name, grants in held.items():
        caller = await lab.person(name, *grants)
        for call in (
            profiles.create(lab.inst, other, caller),
            profiles.update(lab.inst, WEB, caller),
            profiles.retire(lab.inst, "web", caller),
        ):
            assert await refused(call) == "RW-FORBIDDEN", name
    mia = await lab.person("mia", Grant(Role.ADMIN, ISSUING))
    assert (await profiles.create(lab.inst, other, mia)).created_by == mia.principal.id


async def test_a_profile_stays_with_an_authority_that_signs(lab: World) -> None:
    for authority in ("root", "none"):
        elsewhere = msgspec.structs.replace(WEB, authority=authority)
        assert await refused(profiles.create(lab.inst, elsewhere, lab.admin)) == "RW-PROFILE-INVALID"
    await profiles.create(lab.inst, WEB, lab.admin)
    moved = msgspec.structs.replace(WEB, authority="root")
    assert await refused(profiles.update(lab.inst, moved, lab.admin)) in {"RW-PROFILE-INVALID", "RW-CONFLICT"}


@pytest.mark.invariant("I-09", "I-32")
async def test_what_is_not_valid_is_never_stored(lab: World) -> None:
    wrong: list[dict[str, Any]] = [
        {"name": "ocsp-responder"},
        {"name": "ocsp:issuing"},
        {"extended_key_usage": ("1.3.6.1.5.5.7.3.9",)},
        {"extended_key_usage": ("2.5.29.37.0",)},
        {"key_usage": ("key_cert_sign",)},
        {"conditions": (Condition("(", "x"),)},
        {"approval": Approval("sensitive")},
        {"revocation": Revocation(no_rev_avail=True)},
        {"subject": Subject(Value("fixed", "x" * 65))},
        {"lifetime": Lifetime("2d", "1d")},
    ]
    for changes in wrong:
        bad = msgspec.structs.replace(WEB, **changes)
        assert await refused(profiles.create(lab.inst, bad, lab.admin)) == "RW-PROFILE-INVALID", changes
        assert await profiles.current(lab.inst, bad.name) is None
    assert await lab.events("profile.created") == []


@pytest.mark.invariant("I-14")
async def test_updates_at_once_are_versions_without_gaps(lab: World) -> None:
    await profiles.create(lab.inst, WEB, lab.admin)
    texts = [f"by {number}" for number in range(10)]
    calls = [profiles.update(lab.inst, msgspec.structs.replace(WEB, description=text), lab.admin) for text in texts]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    done = [one for one in outcomes if isinstance(one, rows.ProfileRow)]
    assert {one.code for one in outcomes if isinstance(one, Problem)} <= {"RW-CONFLICT"}
    assert sorted(one.version for one in done) == list(range(2, 2 + len(done)))
    kept = await versions(lab, "web")
    assert [one.version for one in kept] == list(range(1, 2 + len(done)))
    bodies = {one.version: one.body for one in kept}
    assert all(bodies[one.version] == one.body for one in done)
    assert (await lab.counts())["profile.updated"] == len(done)


async def test_creating_and_retiring_at_once(lab: World) -> None:
    outcomes = await asyncio.gather(
        *(profiles.create(lab.inst, WEB, lab.admin) for _ in range(5)), return_exceptions=True
    )
    assert [one.code for one in outcomes if isinstance(one, Problem)] == ["RW-CONFLICT"] * 4
    outcomes = await asyncio.gather(
        *(profiles.retire(lab.inst, "web", lab.admin) for _ in range(5)), return_exceptions=True
    )
    assert {one.code for one in outcomes if isinstance(one, Problem)} <= {"RW-CONFLICT"}
    assert any(isinstance(one, rows.ProfileRow) for one in outcomes)
    assert (await lab.counts())["profile.retired"] == 1
