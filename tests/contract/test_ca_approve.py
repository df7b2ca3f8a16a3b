"""Approvals on both stores: one request for one ask, a yes of somebody else to exactly that, used once (I-42).

It has so many lines because it is one table of cases, easier to read whole.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from rootward.ca import freeze, people, profiles
from rootward.ca.access import Caller, authenticate, find_principal
from rootward.ca.approve import SECOND_PERSON, approve, deny
from rootward.ca.issue import Ask, Issued, Pending, issue
from rootward.core.problems import Problem
from rootward.core.profile import Approval, DnsRules, Lifetime, NameRules
from rootward.core.roles import Grant, Role
from rootward.store import facts, requests
from rootward.store.requests import Parked
from tests.support.world import APPROVER, ISSUING, REQUESTER, World, ask, issued, new_key, once, pending, refused

BY_PLAN = Approval("always")
BY_NAMES = Approval("always", binds="names")


async def team(lab: World, approval: Approval = BY_PLAN) -> tuple[Caller, Caller]:
    """A requester and an approver, and a profile `careful` with this rule."""
    await lab.profile("careful", approval=approval)
    return await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER)


async def park(lab: World, wanted: Ask, caller: Caller) -> Parked:
    return pending(await issue(lab.inst, wanted, caller))


async def status(lab: World, request: Parked) -> str:
    return (await again(lab, request)).status(lab.clock())


async def again(lab: World, request: Parked) -> Parked:
    found = await lab.inst.db.read(lambda conn: requests.by_id(conn, request.id))
    assert found is not None
    return found


async def requests_of(lab: World) -> tuple[Parked, ...]:
    return await lab.inst.db.read(lambda conn: requests.list(conn, requests.Filters(), now=lab.clock()))


async def certified(lab: World) -> int:
    return len([row for row in await lab.rows() if row.profile == "careful"])


# ── Parking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42")
async def test_one_ask_is_one_request_however_often_it_comes(lab: World) -> None:
    mia, _ = await team(lab)
    wanted = ask(profile="careful", owner="ops", labels={"a": "b"})
    outcomes = await asyncio.gather(*(issue(lab.inst, wanted, mia) for _ in range(10)))
    ids = {pending(one).id for one in outcomes} | {(await park(lab, wanted, mia)).id}
    assert len(ids) == 1
    (request,) = await requests_of(lab)
    assert request.status(lab.clock()) == "waiting"
    assert (request.principal, request.profile, request.profile_version) == (mia.principal.id, "careful", 1)
    (event,) = await lab.events("request.parked")
    assert (event.actor, event.request_id) == (mia.principal.id, "req_mia")
    told = {
        "request": request.id,
        "profile": "careful",
        "plan": request.plan,
        "sha256": request.sha256,
        "account": None,
    }
    assert event.values() == told
    assert msgspec.json.decode(request.summary)["names"] == ["dns:a.internal"]
    assert await certified(lab) == 0


async def test_another_ask_is_another_request(lab: World) -> None:
    mia, _ = await team(lab)
    tom = await lab.person("tom", REQUESTER)
    key = new_key()
    first = await park(lab, ask(profile="careful", key=key), mia)
    others = [
        await park(lab, ask(profile="careful"), mia),  # another key
        await park(lab, ask("b.internal", profile="careful", key=key), mia),
        await park(lab, ask(profile="careful", key=key, lifetime=timedelta(days=1)), mia),
        await park(lab, ask(profile="careful", key=key), tom),
    ]
    assert len({first.id, *(one.id for one in others)}) == 5


async def test_where_names_are_bound_the_key_makes_no_difference(lab: World) -> None:
    mia, _ = await team(lab, BY_NAMES)
    first = await park(lab, ask(profile="careful"), mia)
    assert (await park(lab, ask(profile="careful", lifetime=timedelta(days=1)), mia)).id == first.id
    assert (await park(lab, ask("b.internal", profile="careful"), mia)).id != first.id


async def test_an_ask_that_would_be_refused_is_not_parked(lab: World) -> None:
    mia, bob = await team(lab)
    assert await refused(issue(lab.inst, ask("a.example", profile="careful"), mia)) == "RW-NAME-PERMITTED"
    assert await refused(issue(lab.inst, ask(profile="careful"), bob)) == "RW-FORBIDDEN"
    assert await requests_of(lab) == ()


# ── Deciding ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42", "I-56")
async def test_a_yes_issues_what_was_asked_for_its_asker(lab: World) -> None:
    mia, bob = await team(lab)
    wanted = ask(profile="careful", owner="ops", labels={"a": "b"}, lifetime=timedelta(days=3))
    request = await park(lab, wanted, mia)
    lab.clock.move(timedelta(days=2))  # a yes given two days later neither back-dates nor voids
    done = await approve(lab.inst, request.id, "fine", bob)
    assert (done.status(lab.clock()), done.approved_by, done.comment) == ("issued", bob.principal.id, "fine")
    row = await lab.row(done.certificate or "")
    assert (row.requester, row.owner, row.labels) == (mia.principal.id, "ops", {"a": "b"})
    assert row.key_id == wanted.csr.public_key.id
    assert row.not_before == lab.clock() - timedelta(minutes=1)
    assert row.not_after - row.not_before + timedelta(seconds=1) == timedelta(days=3)
    (event,) = await lab.events("request.approved")
    assert (event.actor, event.values()["plan"], event.values()["comment"]) == (bob.principal.id, request.plan, "fine")
    assert await lab.events("approval.single_person") == []
    (intended,) = await lab.events("issue.intended", certificate=row.id)
    assert intended.values()["plan"] == request.plan


@pytest.mark.invariant("I-42")
async def test_nobody_approves_what_they_asked_for(lab: World) -> None:
    """301, 302: whatever roles they hold, and through whatever token."""
    await team(lab)
    both = await lab.person("eve", REQUESTER, APPROVER)
    request = await park(lab, ask(profile="careful"), both)
    assert await refused(approve(lab.inst, request.id, None, both)) == "RW-SAME-PERSON"
    _, token = await people.create_token(
        lab.inst, principal_id=both.principal.id, label="x", lifetime=timedelta(days=1), scopes=(APPROVER,), caller=both
    )
    other = Caller(await authenticate(lab.inst, token), "req_other")
    assert await refused(approve(lab.inst, request.id, None, other)) == "RW-SAME-PERSON"
    mine = await park(lab, ask("b.internal", profile="careful"), lab.admin)
    assert await refused(approve(lab.inst, mine.id, None, lab.admin)) == "RW-SAME-PERSON"  # admins are not exempt
    assert await status(lab, request) == await status(lab, mine) == "waiting"
    assert await certified(lab) == 0
    assert await lab.events("request.approved") == []


@pytest.mark.invariant("I-42")
async def test_the_single_person_decides_alone_and_each_time_it_is_an_event(lab: World) -> None:
    await lab.profile("careful", approval=BY_PLAN)
    for number in (1, 2):
        request = await park(lab, ask(f"n{number}.internal", profile="careful"), lab.admin)
        assert (await approve(lab.inst, request.id, None, lab.admin)).status(lab.clock()) == "issued"
        alone = await lab.events("approval.single_person")
        assert len(alone) == number
        assert alone[-1].values()["request"] == request.id
    mia = await lab.person("mia", REQUESTER)
    request = await park(lab, ask(profile="careful"), mia)
    await approve(lab.inst, request.id, None, lab.admin)
    assert len(await lab.events("approval.single_person")) == 2  # requester and approver were two


@pytest.mark.invariant("I-42")
async def test_the_second_person_ends_the_exception_for_good(lab: World) -> None:
    await lab.profile("careful", approval=BY_PLAN)
    bob = await people.create_person(lab.inst, "bob", lab.admin)
    grant = await people.create_grant(
        lab.inst, principal_id=bob.id, role=Role.APPROVER, authority="root", profile=None, caller=lab.admin
    )
    await people.remove_grant(lab.inst, grant.id, lab.admin)
    await people.disable_person(lab.inst, bob.id, lab.admin)
    assert await lab.inst.db.read(lambda conn: facts.get(conn, SECOND_PERSON)) is not None
    request = await park(lab, ask(profile="careful"), lab.admin)
    assert await refused(approve(lab.inst, request.id, None, lab.admin)) == "RW-SAME-PERSON"
    assert await lab.events("approval.single_person") == []


@pytest.mark.invariant("I-42")
async def test_a_second_person_at_the_same_moment_counts(lab: World) -> None:
    """The role is given by one, and taken by the other, while the request is decided: never both an exception and
    somebody who could have decided.
    """
    await lab.profile("careful", approval=BY_PLAN)
    bob = await people.create_person(lab.inst, "bob", lab.admin)
    request = await park(lab, ask(profile="careful"), lab.admin)
    give = people.create_grant(
        lab.inst, principal_id=bob.id, role=Role.APPROVER, authority=None, profile=None, caller=lab.admin
    )
    decided, _ = await asyncio.gather(approve(lab.inst, request.id, None, lab.admin), give, return_exceptions=True)
    alone = await lab.events("approval.single_person")
    if isinstance(decided, Problem):
        assert decided.code == "RW-SAME-PERSON"
        assert alone == []
    else:
        assert len(alone) == 1
    request = await park(lab, ask("b.internal", profile="careful"), lab.admin)
    assert await refused(approve(lab.inst, request.id, None, lab.admin)) == "RW-SAME-PERSON"


@pytest.mark.invariant("I-42", "I-43")
async def test_a_role_elsewhere_decides_nothing_here(lab: World) -> None:
    mia, _ = await team(lab)
    request = await park(lab, ask(profile="careful"), mia)
    held = {
        "root": Grant(Role.APPROVER, "root"),
        "other": Grant(Role.APPROVER, ISSUING, "server"),
        "officer": Grant(Role.OFFICER),
        "admin2": Grant(Role.ADMIN),
        "auditor": Grant(Role.AUDITOR),
    }
    for name, grant in held.items():
        caller = await lab.person(name, grant)
        assert await refused(approve(lab.inst, request.id, None, caller)) == "RW-FORBIDDEN"
        assert await refused(deny(lab.inst, request.id, None, caller)) == "RW-FORBIDDEN"
    one = await lab.person("one", Grant(Role.APPROVER, ISSUING, "careful"))
    assert (await approve(lab.inst, request.id, None, one)).status(lab.clock()) == "issued"


@pytest.mark.invariant("I-42")
async def test_an_approver_who_was_demoted_in_between_decides_nothing(lab: World) -> None:
    """306."""
    mia, _ = await team(lab)
    made = await people.create_person(lab.inst, "tom", lab.admin)
    grant = await people.create_grant(
        lab.inst, principal_id=made.id, role=Role.APPROVER, authority=None, profile=None, caller=lab.admin
    )
    _, token = await people.create_token(
        lab.inst, principal_id=made.id, label="x", lifetime=timedelta(days=1), scopes=(APPROVER,), caller=lab.admin
    )
    request = await park(lab, ask(profile="careful"), mia)
    before = Caller(await authenticate(lab.inst, token), "req_before")
    await people.remove_grant(lab.inst, grant.id, lab.admin)
    after = Caller(await authenticate(lab.inst, token), "req_after")
    assert await refused(approve(lab.inst, request.id, None, after)) == "RW-FORBIDDEN"
    # Whose request was authenticated just before: the decision looks again.
    assert await refused(approve(lab.inst, request.id, None, before)) == "RW-FORBIDDEN"
    assert await status(lab, request) == "waiting"


@pytest.mark.invariant("I-42")
async def test_two_approvers_at_once_are_one_yes(lab: World) -> None:
    """305."""
    mia, bob = await team(lab)
    tom = await lab.person("tom", APPROVER)
    for number in range(5):
        request = await park(lab, ask(f"n{number}.internal", profile="careful"), mia)
        calls = [approve(lab.inst, request.id, None, caller) for caller in (bob, tom, bob, tom)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        won = [one for one in outcomes if isinstance(one, Parked)]
        lost = [one.code for one in outcomes if isinstance(one, Problem)]
        assert len(won) == 1, outcomes
        assert lost == ["RW-APPROVAL"] * 3
        assert await certified(lab) == number + 1
    assert (await lab.counts())["request.approved"] == 5


@pytest.mark.invariant("I-42")
async def test_yes_and_no_at_once_are_one_of_them(lab: World) -> None:
    mia, bob = await team(lab)
    tom = await lab.person("tom", APPROVER)
    for number in range(5):
        request = await park(lab, ask(f"n{number}.internal", profile="careful"), mia)
        before = await certified(lab)
        outcomes = await asyncio.gather(
            approve(lab.inst, request.id, None, bob), deny(lab.inst, request.id, None, tom), return_exceptions=True
        )
        said = await status(lab, request)
        assert said in {"issued", "denied"}
        assert await certified(lab) - before == (said == "issued")
        assert [isinstance(one, Problem) for one in outcomes] == [said == "denied", said == "issued"]


async def test_a_no_is_told_and_the_same_may_be_asked_anew(lab: World) -> None:
    mia, bob = await team(lab)
    wanted = ask(profile="careful")
    key = once("k", wanted)
    request = pending(await issue(lab.inst, wanted, mia, idempotency=key))
    assert (await deny(lab.inst, request.id, "too wide", bob)).status(lab.clock()) == "denied"
    (event,) = await lab.events("request.denied")
    assert event.values()["comment"] == "too wide"
    for call in (approve, deny):
        assert await refused(call(lab.inst, request.id, None, bob)) == "RW-APPROVAL"
    told = pending(await issue(lab.inst, wanted, mia, idempotency=key))
    assert (told.id, told.status(lab.clock()), told.comment) == (request.id, "denied", "too wide")
    assert (await park(lab, wanted, mia)).id != request.id


async def test_an_ask_that_waited_too_long_is_over(lab: World) -> None:
    """304."""
    mia, bob = await team(lab, Approval("always", expires="2h"))
    wanted = ask(profile="careful")
    key = once("k", wanted)
    request = pending(await issue(lab.inst, wanted, mia, idempotency=key))
    lab.clock.move(timedelta(hours=2))
    assert await status(lab, request) == "expired"
    for call in (approve, deny):
        assert await refused(call(lab.inst, request.id, None, bob)) == "RW-APPROVAL"
    assert pending(await issue(lab.inst, wanted, mia, idempotency=key)).status(lab.clock()) == "expired"
    new = await park(lab, wanted, mia)
    assert new.id != request.id
    assert (await approve(lab.inst, new.id, None, bob)).status(lab.clock()) == "issued"


async def test_what_is_not_there_is_not_found(lab: World) -> None:
    for id in ("", "x", "' OR 1=1 --"):
        for call in (approve, deny):
            assert await refused(call(lab.inst, id, None, lab.admin)) == "RW-NOT-FOUND"


# ── What changed in between ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-14", "I-42")
async def test_a_new_version_of_the_profile_voids_what_waits(lab: World) -> None:
    mia, bob = await team(lab)
    tom = await lab.person("tom", REQUESTER)
    made = await profiles.current(lab.inst, "careful")
    assert made is not None
    request = await park(lab, ask(profile="careful"), mia)
    await profiles.update(lab.inst, msgspec.structs.replace(made[1], description="the same otherwise"), lab.admin)
    assert await refused(approve(lab.inst, request.id, None, bob)) == "RW-APPROVAL"
    retired = await park(lab, ask("b.internal", profile="careful"), tom)
    await profiles.retire(lab.inst, "careful", lab.admin)
    assert await refused(approve(lab.inst, retired.id, None, bob)) == "RW-APPROVAL"
    assert await certified(lab) == 0


@pytest.mark.invariant("I-14", "I-42")
async def test_a_yes_to_names_is_void_under_a_new_version(lab: World) -> None:
    mia, bob = await team(lab, BY_NAMES)
    made = await profiles.current(lab.inst, "careful")
    assert made is not None
    request = await park(lab, ask(profile="careful"), mia)
    await approve(lab.inst, request.id, None, bob)
    await profiles.update(lab.inst, msgspec.structs.replace(made[1], lifetime=Lifetime("1d", "1d")), lab.admin)
    new = await park(lab, ask(profile="careful"), mia)
    assert (new.id == request.id, new.status(lab.clock())) == (False, "waiting")
    assert await certified(lab) == 0


async def test_an_asker_who_is_gone_gets_nothing(lab: World) -> None:
    mia, bob = await team(lab)
    request = await park(lab, ask(profile="careful"), mia)
    await people.disable_person(lab.inst, mia.principal.id, lab.admin)
    assert await find_principal(lab.inst, mia.principal.id) is None
    assert await refused(approve(lab.inst, request.id, None, bob)) == "RW-APPROVAL"
    assert await certified(lab) == 0


async def test_an_asker_who_may_no_longer_ask_gets_nothing(lab: World) -> None:
    _, bob = await team(lab)
    tom = await people.create_person(lab.inst, "tom", lab.admin)
    grant = await people.create_grant(
        lab.inst, principal_id=tom.id, role=Role.REQUESTER, authority=None, profile=None, caller=lab.admin
    )
    found = await find_principal(lab.inst, tom.id)
    assert found is not None
    request = await park(lab, ask(profile="careful"), Caller(found, "req_tom"))
    await people.remove_grant(lab.inst, grant.id, lab.admin)
    done = await approve(lab.inst, request.id, None, bob)
    assert done.status(lab.clock()) == "failed"
    assert [reason["code"] for reason in msgspec.json.decode(done.reasons or "")] == ["RW-FORBIDDEN"]
    (event,) = await lab.events("request.failed")
    assert event.values()["code"] == "RW-FORBIDDEN"
    assert await certified(lab) == 0


async def test_a_key_that_was_blocked_in_between_fails_the_request(lab: World) -> None:
    from rootward.store import blocked

    mia, bob = await team(lab)
    wanted = ask(profile="careful")
    request = await park(lab, wanted, mia)
    await lab.inst.db.write(blocked.add(wanted.csr.public_key.id, why="stolen", at=lab.clock()))
    done = await approve(lab.inst, request.id, None, bob)
    assert done.status(lab.clock()) == "failed"
    assert "RW-KEY-BLOCKED" in (done.reasons or "")


async def test_a_yes_stands_while_the_authority_is_frozen(lab: World) -> None:
    mia, bob = await team(lab)
    wanted = ask(profile="careful")
    request = await park(lab, wanted, mia)
    kept = dict(lab.inst.authorities)
    await freeze.freeze(lab.inst, ISSUING, "for a while", lab.admin)
    assert await refused(approve(lab.inst, request.id, None, bob)) == "RW-FROZEN"
    assert await status(lab, request) == "approved"
    assert await refused(issue(lab.inst, wanted, mia)) == "RW-FROZEN"
    from rootward.store import authorities

    await lab.inst.db.write(authorities.thaw(ISSUING))
    lab.inst.authorities.update(kept)
    row = issued(await issue(lab.inst, wanted, mia))
    assert (await again(lab, request)).certificate == row.id


# ── Used once ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42", "I-07")
async def test_a_yes_to_names_is_used_up_by_one_certificate(lab: World) -> None:
    mia, bob = await team(lab, BY_NAMES)
    tom = await lab.person("tom", REQUESTER)
    request = await park(lab, ask(profile="careful"), mia)
    assert (await approve(lab.inst, request.id, None, bob)).status(lab.clock()) == "approved"
    assert await certified(lab) == 0  # whoever does not wait asks again
    assert (await park(lab, ask(profile="careful"), tom)).status(lab.clock()) == "waiting"  # not tom's yes
    asks = [issue(lab.inst, ask(profile="careful"), mia) for _ in range(8)]
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    won = [one for one in outcomes if isinstance(one, Issued)]
    assert len(won) == await certified(lab) == 1
    for one in outcomes:
        assert isinstance(one, Issued | Pending) or (isinstance(one, Problem) and one.code == "RW-IN-PROGRESS"), one
    assert (await again(lab, request)).certificate == won[0].certificate.id
    anew = await park(lab, ask(profile="careful"), mia)
    assert (anew.id == request.id, anew.status(lab.clock())) == (False, "waiting")


@pytest.mark.invariant("I-42")
async def test_a_yes_to_names_expires(lab: World) -> None:
    mia, bob = await team(lab, Approval("always", binds="names", expires="1d"))
    request = await park(lab, ask(profile="careful"), mia)
    await approve(lab.inst, request.id, None, bob)
    lab.clock.move(timedelta(days=1))
    assert (await park(lab, ask(profile="careful"), mia)).id != request.id
    assert await certified(lab) == 0


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("approval", [BY_PLAN, BY_NAMES], ids=["plan", "names"])
async def test_an_idempotency_key_through_the_whole_flow(lab: World, approval: Approval) -> None:
    mia, bob = await team(lab, approval)
    wanted = ask(profile="careful")
    key = once("k", wanted)
    first = pending(await issue(lab.inst, wanted, mia, idempotency=key))
    assert pending(await issue(lab.inst, wanted, mia, idempotency=key)).id == first.id
    other = ask("b.internal", profile="careful")
    assert await refused(issue(lab.inst, other, mia, idempotency=once("k", other))) == "RW-IDEMPOTENCY"
    await approve(lab.inst, first.id, None, bob)
    rows = [issued(await issue(lab.inst, wanted, mia, idempotency=key)) for _ in range(3)]
    assert len({row.id for row in rows}) == await certified(lab) == 1
    assert await refused(issue(lab.inst, other, mia, idempotency=once("k", other))) == "RW-IDEMPOTENCY"


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("approval", [BY_PLAN, BY_NAMES], ids=["plan", "names"])
async def test_a_key_that_came_while_the_request_waited_leads_to_its_certificate(
    lab: World, approval: Approval
) -> None:
    """The same ask, first without a key or with another one."""
    mia, bob = await team(lab, approval)
    wanted = ask(profile="careful")
    request = await park(lab, wanted, mia)
    for key in ("one", "two"):
        assert pending(await issue(lab.inst, wanted, mia, idempotency=once(key, wanted))).id == request.id
    other = ask("b.internal", profile="careful")
    assert await refused(issue(lab.inst, other, mia, idempotency=once("one", other))) == "RW-IDEMPOTENCY"
    await approve(lab.inst, request.id, None, bob)
    rows = [issued(await issue(lab.inst, wanted, mia, idempotency=once(key, wanted))) for key in ("one", "two", "one")]
    assert len({row.id for row in rows}) == await certified(lab) == 1


async def test_only_sensitive_names_wait(lab: World) -> None:
    names = NameRules(dns=DnsRules(allow=(".internal",), wildcards=True))
    rule = Approval("sensitive", (".corp.internal",))
    await lab.profile("careful", approval=rule, names=names)
    mia = await lab.person("mia", REQUESTER)
    assert issued(await issue(lab.inst, ask(profile="careful"), mia))
    for name in ("x.corp.internal", "*.corp.internal"):
        assert pending(await issue(lab.inst, ask(name, profile="careful"), mia))
