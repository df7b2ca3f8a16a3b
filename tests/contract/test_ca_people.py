"""People, tokens and grants on both stores: the last ones stay, a token never exceeds its maker, and what does not
authenticate is always the same answer (I-43).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from rootward.ca import people
from rootward.ca.access import Caller, Principal, authenticate, cut, find_principal, new_token, system_caller
from rootward.ca.audit import list_events
from rootward.ca.issue import issue
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.store import events
from rootward.store import people as rows
from tests.support.world import APPROVER, ISSUING, OFFICER, REQUESTER, World, ask, refused

DAY = timedelta(days=1)
SYSTEM_ADMIN, AUDITOR = Grant(Role.SYSTEM_ADMIN), Grant(Role.AUDITOR)


async def token(
    lab: World,
    of: Caller,
    *,
    scopes: tuple[Grant, ...] | None = None,
    caller: Caller | None = None,
    lifetime: timedelta = DAY,
) -> tuple[rows.Token, str]:
    return await people.create_token(
        lab.inst, principal_id=of.principal.id, label="x", lifetime=lifetime, scopes=scopes, caller=caller or of
    )


async def grant(lab: World, to: Caller, given: Grant, caller: Caller | None = None) -> rows.Grant:
    return await people.create_grant(
        lab.inst,
        principal_id=to.principal.id,
        role=given.role,
        authority=given.authority,
        profile=given.profile,
        caller=caller or lab.admin,
    )


async def acting(lab: World, value: str) -> Caller:
    return Caller(await authenticate(lab.inst, value), "req_token")


async def grants_of(lab: World, role: Role) -> list[rows.Grant]:
    found = await lab.inst.db.read(lambda conn: rows.list_grants(conn, limit=500))
    return [one for one in found if one.role == role]


# ── The last ones ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-43")
async def test_the_last_administrator_and_the_last_auditor_stay(lab: World) -> None:
    for role in (Role.SYSTEM_ADMIN, Role.AUDITOR):
        (only,) = await grants_of(lab, role)
        assert await refused(people.remove_grant(lab.inst, only.id, lab.admin)) == "RW-LAST-ROLE"
    assert await refused(people.disable_person(lab.inst, lab.admin.principal.id, lab.admin)) == "RW-LAST-ROLE"
    assert await authenticate(lab.inst, lab.token)
    limited = await lab.person("mia", Grant(Role.AUDITOR, ISSUING))  # of one authority: does not count
    (only,) = [one for one in await grants_of(lab, Role.AUDITOR) if one.authority is None]
    assert await refused(people.remove_grant(lab.inst, only.id, lab.admin)) == "RW-LAST-ROLE"
    await grant(lab, limited, AUDITOR)
    await people.remove_grant(lab.inst, only.id, lab.admin)
    assert await refused(people.disable_person(lab.inst, limited.principal.id, lab.admin)) == "RW-LAST-ROLE"
    assert (await lab.counts())["grant.removed"] == 1
    assert (await lab.counts())["person.disabled"] == 0


@pytest.mark.invariant("I-43")
async def test_two_who_remove_each_other_at_once_leave_one(lab: World) -> None:
    before = lab.admin
    for number in range(6):
        bob = await lab.person(f"bob{number}", SYSTEM_ADMIN, AUDITOR)
        tom = await lab.person(f"tom{number}", SYSTEM_ADMIN, AUDITOR)
        await people.disable_person(lab.inst, before.principal.id, bob)
        outcomes = await asyncio.gather(
            people.disable_person(lab.inst, tom.principal.id, bob),
            people.disable_person(lab.inst, bob.principal.id, tom),
            return_exceptions=True,
        )
        assert [one.code for one in outcomes if isinstance(one, Problem)] == ["RW-LAST-ROLE"], outcomes
        living = [one for one in (bob, tom) if await find_principal(lab.inst, one.principal.id) is not None]
        assert len(living) == 1
        before = living[0]


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-43")
async def test_a_token_never_does_more_than_its_maker(lab: World) -> None:
    mia = await lab.person("mia", Grant(Role.REQUESTER, ISSUING), OFFICER)
    for beyond in (
        (APPROVER,),
        (REQUESTER,),
        (Grant(Role.REQUESTER, "root"),),
        (Grant(Role.REQUESTER, ISSUING), APPROVER),
        (SYSTEM_ADMIN,),
        (Grant(Role.REQUESTER, None, "server"),),
    ):
        assert await refused(token(lab, mia, scopes=beyond)) == "RW-FORBIDDEN", beyond
    narrow = Grant(Role.REQUESTER, ISSUING, "server")
    for within in ((), (narrow,), (OFFICER, narrow), (narrow, OFFICER), (Grant(Role.OFFICER, "root"), narrow)):
        _, value = await token(lab, mia, scopes=within)
        assert set((await authenticate(lab.inst, value)).grants) == set(within)
    _, value = await token(lab, mia)
    assert set((await authenticate(lab.inst, value)).grants) == set(mia.principal.grants)


@pytest.mark.invariant("I-43")
async def test_a_token_made_by_a_token_never_does_more_than_that_one(lab: World) -> None:
    mia = await lab.person("mia", REQUESTER, OFFICER)
    _, first = await token(lab, mia, scopes=(Grant(Role.REQUESTER, ISSUING),))
    narrow = await acting(lab, first)
    for scopes in ((OFFICER,), (REQUESTER,), mia.principal.grants):
        assert await refused(token(lab, mia, scopes=scopes, caller=narrow)) == "RW-FORBIDDEN"
    _, second = await token(lab, mia, caller=narrow)  # all of what its maker has
    assert (await authenticate(lab.inst, second)).grants == (Grant(Role.REQUESTER, ISSUING),)


@pytest.mark.invariant("I-43")
async def test_a_token_for_somebody_else_is_cut_to_both(lab: World) -> None:
    mia = await lab.person("mia", REQUESTER)
    bob = await lab.person("bob", Grant(Role.SYSTEM_ADMIN), REQUESTER)
    _, value = await token(lab, mia, caller=bob)  # none named: what both hold
    assert (await authenticate(lab.inst, value)).grants == (REQUESTER,)
    assert await refused(token(lab, mia, scopes=(OFFICER,), caller=bob)) == "RW-FORBIDDEN"
    assert await refused(token(lab, mia, caller=bob)) == "RW-FORBIDDEN"  # one invitation, no more
    zoe = await lab.person("zoe", REQUESTER)
    _, value = await token(lab, zoe, scopes=(REQUESTER, SYSTEM_ADMIN), caller=bob)
    assert (await authenticate(lab.inst, value)).grants == (REQUESTER,)  # zoe is no administrator
    assert await refused(token(lab, bob, scopes=(REQUESTER,), caller=mia)) == "RW-FORBIDDEN"
    assert await refused(token(lab, system_caller("x"), scopes=(REQUESTER,), caller=bob)) == "RW-NOT-FOUND"


async def test_what_is_taken_away_is_gone_at_once(lab: World) -> None:
    mia = await lab.person("mia")
    given = await grant(lab, mia, REQUESTER)
    _, value = await token(lab, mia, scopes=(REQUESTER,), caller=lab.admin)
    assert (await authenticate(lab.inst, value)).grants == (REQUESTER,)
    await people.remove_grant(lab.inst, given.id, lab.admin)
    assert (await authenticate(lab.inst, value)).grants == ()
    assert await refused(issue(lab.inst, ask(), await acting(lab, value))) == "RW-FORBIDDEN"
    narrower = Grant(Role.REQUESTER, ISSUING)
    await grant(lab, mia, narrower)
    assert (await authenticate(lab.inst, value)).grants == (narrower,)


@pytest.mark.invariant("I-45")
async def test_whatever_does_not_authenticate_is_the_same_answer(lab: World) -> None:
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", REQUESTER)
    _, short = await token(lab, mia, lifetime=timedelta(minutes=1))
    made, revoked = await token(lab, mia)
    _, disabled = await token(lab, bob)
    for value in (short, revoked, disabled):
        assert await authenticate(lab.inst, value)  # kept, too: what follows must be seen all the same
    lab.clock.move(timedelta(minutes=1))
    await people.revoke_token(lab.inst, made.id, mia)
    await people.disable_person(lab.inst, bob.principal.id, lab.admin)
    wrong = [short, revoked, disabled, new_token()[0], lab.token[:-1], lab.token + "x", lab.token.upper()]
    wrong += ["", "x", "rwt_", "rwt_" + "a" * 200, "rwt_é", lab.token + "\n", " " + lab.token, "rwt_' OR 1=1"]
    told = set()
    for value in wrong:
        with pytest.raises(Problem) as caught:
            await authenticate(lab.inst, value)
        told.add((caught.value.code, caught.value.detail, caught.value.reasons, caught.value.retry_after))
    assert len(told) == 1
    assert {code for code, *_ in told} == {"RW-UNAUTHENTICATED"}
    assert await authenticate(lab.inst, lab.token)


async def test_a_token_of_a_disabled_person_is_not_made(lab: World) -> None:
    mia = await lab.person("mia", REQUESTER)
    await people.disable_person(lab.inst, mia.principal.id, lab.admin)
    assert await refused(token(lab, mia)) == "RW-NOT-FOUND"
    assert await refused(grant(lab, mia, OFFICER)) == "RW-NOT-FOUND"
    again = await people.disable_person(lab.inst, mia.principal.id, lab.admin)  # twice is as good as once
    assert again.disabled_at == lab.clock()
    assert (await lab.counts())["person.disabled"] == 1


async def test_tokens_are_revoked_by_their_owner_or_an_administrator(lab: World) -> None:
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", REQUESTER, OFFICER)
    made, _ = await token(lab, mia)
    assert await refused(people.revoke_token(lab.inst, made.id, bob)) == "RW-NOT-FOUND"  # as if there were none
    assert await refused(people.revoke_token(lab.inst, "none", mia)) == "RW-NOT-FOUND"
    outcomes = await asyncio.gather(
        *(people.revoke_token(lab.inst, made.id, caller) for caller in (mia, lab.admin, mia)), return_exceptions=True
    )
    assert {one.code if isinstance(one, Problem) else "" for one in outcomes} <= {"", "RW-CONFLICT"}
    assert (await people.revoke_token(lab.inst, made.id, mia)).revoked_at == lab.clock()
    assert (await lab.counts())["token.revoked"] == 1


async def test_a_token_has_a_life(lab: World) -> None:
    for lifetime in (timedelta(), timedelta(seconds=59), timedelta(days=367), -DAY, timedelta.max):
        assert await refused(token(lab, lab.admin, lifetime=lifetime)) == "RW-FIELD"


# ── Who may, and what is written down ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-43", "I-45")
async def test_only_an_administrator_of_the_installation_changes_people(lab: World) -> None:
    every = [Grant(role) for role in Role if role is not Role.SYSTEM_ADMIN]
    mia = await lab.person("mia", *every)
    (some, *_) = await grants_of(lab, Role.OFFICER)
    for call in (
        people.create_person(lab.inst, "x", mia),
        people.disable_person(lab.inst, lab.admin.principal.id, mia),
        grant(lab, mia, SYSTEM_ADMIN, mia),
        people.remove_grant(lab.inst, some.id, mia),
        token(lab, lab.admin, scopes=(REQUESTER,), caller=mia),
    ):
        assert await refused(call) == "RW-FORBIDDEN"


async def test_grants_are_for_what_there_is(lab: World) -> None:
    mia = await lab.person("mia")
    for wrong in (
        Grant(Role.SYSTEM_ADMIN, ISSUING),
        Grant(Role.SYSTEM_ADMIN, None, "server"),
        Grant(Role.OFFICER, "no"),
    ):
        assert await refused(grant(lab, mia, wrong)) == "RW-FIELD"
    assert await refused(people.remove_grant(lab.inst, "none", lab.admin)) == "RW-NOT-FOUND"
    given = await grant(lab, mia, OFFICER)
    outcomes = await asyncio.gather(
        *(people.remove_grant(lab.inst, given.id, lab.admin) for _ in range(3)), return_exceptions=True
    )
    assert {one.code if isinstance(one, Problem) else "" for one in outcomes} <= {"", "RW-CONFLICT"}
    assert (await lab.counts())["grant.removed"] == 1


async def test_a_name_that_is_none(lab: World) -> None:
    for name in ("", " a", "a ", "a\n", "x" * 65, "system:rootward", "a\u202eb", "a\0"):
        assert await refused(people.create_person(lab.inst, name, lab.admin)) == "RW-FIELD"


@pytest.mark.invariant("I-56")
async def test_each_change_is_an_event_and_nothing_else_is(lab: World) -> None:
    before = await lab.counts()
    made = await people.create_person(lab.inst, "mia", lab.admin)
    assert await refused(people.create_person(lab.inst, "mia", lab.admin)) == "RW-CONFLICT"
    mia = Caller(Principal(made.id, "person", "mia", ()), "req_mia")
    given = await grant(lab, mia, REQUESTER)
    kept, value = await token(lab, mia, scopes=(REQUESTER,), caller=lab.admin)
    await people.revoke_token(lab.inst, kept.id, lab.admin)
    await people.remove_grant(lab.inst, given.id, lab.admin)
    await people.disable_person(lab.inst, made.id, lab.admin)
    counted = await lab.counts()
    counted.subtract(before)
    kinds = ["person.created", "grant.created", "token.created", "token.revoked", "grant.removed", "person.disabled"]
    assert {kind: count for kind, count in counted.items() if count} == dict.fromkeys(kinds, 1)
    assert all(value not in event.data for event in await lab.events())


@pytest.mark.invariant("I-43")
async def test_an_auditor_sees_what_the_role_is_for(lab: World) -> None:
    await lab.issue()
    every, one = events.Filters(), events.Filters(authority=ISSUING)
    assert await list_events(lab.inst, every, await lab.person("all", AUDITOR))
    limited = await lab.person("mia", Grant(Role.AUDITOR, ISSUING))
    assert await refused(list_events(lab.inst, every, limited)) == "RW-FORBIDDEN"
    assert await refused(list_events(lab.inst, events.Filters(authority="root"), limited)) == "RW-FORBIDDEN"
    assert {event.authority for event in await list_events(lab.inst, one, limited)} == {ISSUING}


def test_overlapping_grants_are_cut_to_the_narrower() -> None:
    wide, here, there = REQUESTER, Grant(Role.REQUESTER, ISSUING), Grant(Role.REQUESTER, "root", "server")
    assert cut((wide,), (here, there)) == (here, there)
    assert cut((here, there), (wide,)) == (here, there)
    assert cut((here,), (there,)) == cut((wide,), (OFFICER,)) == cut((), (wide,)) == cut((wide,), ()) == ()
    assert cut((wide, here), None) == (wide, here)
