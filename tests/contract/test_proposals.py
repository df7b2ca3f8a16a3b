"""What a second person must agree to, on each kind of store: one proposal for one thing, a yes of somebody else to
exactly that, carried out once (I-42).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from rootward.ca import acts, proposals
from rootward.ca.access import Caller, Credential, Principal
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.store import proposals as rows
from rootward.store.errors import Lost
from rootward.store.failpoint import Injected, armed
from rootward.store.proposals import Proposal
from rootward.store.schema import proposals as table
from tests.support.rest import Door
from tests.support.world import APPROVER, ISSUING, OFFICER, World, refused

BODY = {"reason": "a test"}


class Counted:
    """An act that counts how often it took effect."""

    def __init__(self) -> None:
        self.done = 0
        self.fails: list[Problem] = []

    async def __call__(self, inst: Installation, proposal: Proposal, caller: Caller) -> None:
        if self.fails:
            raise self.fails.pop(0)
        await inst.db.write(proposals.carried_out(proposal, caller, inst.clock(), {"times": 1}))
        self.done += 1


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted()
    monkeypatch.setitem(acts.ACTS, "test.act", made)
    return made


async def team(lab: World) -> tuple[Caller, Caller]:
    """An officer and an approver."""
    return await lab.person("olga", OFFICER), await lab.person("bob", APPROVER)


async def propose(lab: World, caller: Caller, **body: Any) -> Proposal:
    return await proposals.propose(lab.inst, "test.act", ISSUING, body or BODY, caller)


async def approve(lab: World, proposal: Proposal, caller: Caller) -> Proposal:
    return await acts.approve(lab.inst, proposal.id, "go on", caller)


@pytest.mark.invariant("I-42")
async def test_a_second_person_agrees_and_it_is_done_once(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    assert made.status(lab.clock()) == "waiting"
    assert (await propose(lab, olga)).id == made.id
    assert (await propose(lab, lab.admin)).id == made.id  # whoever asks for the same
    assert (await propose(lab, olga, reason="another")).id != made.id
    done = await approve(lab, made, bob)
    assert (done.status(lab.clock()), done.approved_by, done.comment) == ("done", bob.principal.id, "go on")
    assert await approve(lab, made, bob) == done  # again: as it stands
    assert act.done == 1
    with pytest.raises(Lost):
        await lab.inst.db.write(proposals.carried_out(done, bob, lab.clock()))
    kinds = [event.kind for event in await lab.events() if event.kind.startswith("proposal.")]
    assert kinds == ["proposal.made", "proposal.made", "proposal.approved", "proposal.carried-out"]
    assert (await propose(lab, olga)).id != made.id  # a new one, now that it is closed


@pytest.mark.invariant("I-42")
async def test_who_proposed_it_does_not_approve_it(lab: World, act: Counted) -> None:
    both = await lab.person("both", OFFICER, APPROVER)
    await lab.person("bob", APPROVER)
    made = await propose(lab, both)
    assert await refused(approve(lab, made, both)) == "RW-SAME-PERSON"
    assert act.done == 0


@pytest.mark.invariant("I-42")
async def test_the_single_person_at_first(lab: World, act: Counted) -> None:
    """Each time an event, and over for good once there was a second approver."""
    made = await propose(lab, lab.admin)
    await approve(lab, made, lab.admin)
    assert [event.values()["proposal"] for event in await lab.events("approval.single_person")] == [made.id]
    await lab.person("bob", APPROVER)
    again = await propose(lab, lab.admin)
    assert await refused(approve(lab, again, lab.admin)) == "RW-SAME-PERSON"
    assert act.done == 1


@pytest.mark.invariant("I-43")
async def test_only_approvers_of_that_authority(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    for who in (
        await lab.person("other", Grant(Role.APPROVER, "root")),
        await lab.person("narrow", Grant(Role.APPROVER, ISSUING, "server")),
        await lab.person("officer", OFFICER),
    ):
        assert await refused(approve(lab, made, who)) == "RW-FORBIDDEN"
        assert await refused(proposals.deny(lab.inst, made.id, None, who)) == "RW-FORBIDDEN"
    stranger = await lab.person("stranger", APPROVER)
    assert await refused(proposals.propose(lab.inst, "test.act", ISSUING, BODY, stranger)) == "RW-FORBIDDEN"
    invited = Credential("t", lab.clock() + timedelta(days=1), own=False)
    lent = Principal(bob.principal.id, "person", "bob", bob.principal.grants, invited)
    assert await refused(approve(lab, made, Caller(lent, "req_lent"))) == "RW-FORBIDDEN"
    assert act.done == 0


async def test_a_no_and_a_proposal_taken_back(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    for who in (bob, olga):
        made = await propose(lab, olga)
        denied = await proposals.deny(lab.inst, made.id, "no", who)
        assert (denied.status(lab.clock()), denied.denied_by) == ("denied", who.principal.id)
        assert await refused(approve(lab, made, bob)) == "RW-APPROVAL"
    assert act.done == 0


async def test_it_expires(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    lab.clock.move(timedelta(days=7))
    assert await refused(approve(lab, made, bob)) == "RW-APPROVAL"
    assert await refused(proposals.deny(lab.inst, made.id, None, bob)) == "RW-APPROVAL"
    assert (await propose(lab, olga)).id != made.id
    assert act.done == 0


async def test_a_yes_outlives_a_crash_and_what_passes(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    with armed("agree.stored:fail"), pytest.raises(Injected):
        await approve(lab, made, bob)
    assert (await proposals.read(lab.inst, made.id)).status(lab.clock()) == "approved"
    act.fails = [Problem("RW-KEY-UNAVAILABLE", "Not now.", retry_after=5), Problem("RW-CONFLICT", "Not yet.")]
    assert await refused(approve(lab, made, bob)) == "RW-KEY-UNAVAILABLE"
    assert await refused(approve(lab, made, bob)) == "RW-CONFLICT"
    assert (await approve(lab, made, bob)).status(lab.clock()) == "done"
    assert (await lab.counts())["proposal.approved"] == 1
    assert act.done == 1


@pytest.mark.invariant("I-42")
@pytest.mark.parametrize("by", ["olga", "bob"])
async def test_a_yes_that_is_not_carried_out_is_taken_back(lab: World, act: Counted, by: str) -> None:
    """Else it could be carried out for days, by any approver, though nobody wants it any more."""
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    act.fails = [Problem("RW-KEY-UNAVAILABLE", "Not now.", retry_after=5)]
    assert await refused(approve(lab, made, bob)) == "RW-KEY-UNAVAILABLE"
    who = {"olga": olga, "bob": bob}[by]
    denied = await proposals.deny(lab.inst, made.id, "after all not", who)
    assert (denied.status(lab.clock()), denied.comment) == ("denied", "after all not")
    assert await refused(approve(lab, made, bob)) == "RW-APPROVAL"
    assert act.done == 0
    with pytest.raises(Problem, match="The proposal is denied, which is final"):
        await proposals.deny(lab.inst, made.id, None, who)
    again = await propose(lab, olga)
    assert again.id != made.id
    assert (await approve(lab, again, bob)).status(lab.clock()) == "done"
    with pytest.raises(Problem, match="The proposal is done, which is final"):
        await proposals.deny(lab.inst, again.id, None, who)


async def test_a_no_while_it_is_carried_out_stops_it(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    olga, bob = await team(lab)
    done = []

    async def denied_meanwhile(inst: Installation, proposal: Proposal, caller: Caller) -> None:
        await proposals.deny(inst, proposal.id, None, olga)
        await inst.db.write(proposals.carried_out(proposal, caller, inst.clock()))
        done.append(proposal.id)

    monkeypatch.setitem(acts.ACTS, "test.act", denied_meanwhile)
    made = await propose(lab, olga)
    assert await refused(approve(lab, made, bob)) == "RW-CONFLICT"
    assert done == []
    assert await refused(approve(lab, made, bob)) == "RW-APPROVAL"


async def test_what_cannot_be_done_any_more(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    act.fails = [Problem("RW-NOT-FOUND", "There is no such authority.")]
    assert await refused(approve(lab, made, bob)) == "RW-NOT-FOUND"
    failed = await proposals.read(lab.inst, made.id)
    assert failed.status(lab.clock()) == "failed"
    assert "no such authority" in (failed.failure or "")
    assert (await lab.counts())["proposal.failed"] == 1


async def test_two_approvers_at_one_moment(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    ann = await lab.person("ann", APPROVER)
    made = await propose(lab, olga)
    told = await asyncio.gather(*(approve(lab, made, who) for who in (bob, ann) * 4), return_exceptions=True)
    assert all(isinstance(one, Proposal) or getattr(one, "code", "") == "RW-APPROVAL" for one in told), told
    assert act.done == 1
    counts = await lab.counts()
    assert (counts["proposal.approved"], counts["proposal.carried-out"]) == (1, 1)


async def test_the_same_proposed_twice_at_one_moment(lab: World, act: Counted) -> None:
    olga, _ = await team(lab)
    made = await asyncio.gather(*(propose(lab, olga) for _ in range(6)))
    assert len({one.id for one in made}) == 1
    assert (await lab.counts())["proposal.made"] == 1


@pytest.mark.invariant("I-42")
async def test_a_row_that_was_changed_since_is_not_carried_out(lab: World, act: Counted) -> None:
    olga, bob = await team(lab)
    made = await propose(lab, olga)
    await lab.inst.db.write(
        lambda conn: conn.execute(update(table).where(table.c.id == made.id).values(body='{"reason":"worse"}'))
    )
    assert await refused(approve(lab, made, bob)) == "RW-APPROVAL"
    assert act.done == 0


async def test_through_the_doors(lab: World, act: Counted) -> None:
    """What is hidden is not there; the list has each status."""
    olga, _ = await team(lab)
    first, second = await propose(lab, olga), await propose(lab, olga, reason="another")
    door = Door(lab.inst, lab.token)
    page = await door("GET", "/proposals")
    assert [item["id"] for item in page.json["items"]] == [second.id, first.id]
    assert (await door("GET", f"/proposals/{first.id}")).json["body"] == BODY
    done = await door("POST", f"/proposals/{first.id}/approve", {"comment": "yes"})
    assert (done.status, done.json["status"]) == (200, "done")
    assert (await door("POST", f"/proposals/{second.id}/deny", {})).json["status"] == "denied"
    for status in rows.STATUSES:
        page = await door("GET", f"/proposals?status={status}")
        assert [item["status"] for item in page.json["items"]] == [status] * (status in ("done", "denied"))
    third = await propose(lab, olga, reason="a third")
    act.fails = [Problem("RW-CONFLICT", "Not yet.")]
    assert (await door("POST", f"/proposals/{third.id}/approve", {"comment": "yes"})).code == "RW-CONFLICT"
    taken_back = (await door("POST", f"/proposals/{third.id}/deny", {"comment": "no"})).json
    assert taken_back["status"] == "denied"
    assert [taken_back[said]["comment"] for said in ("approval", "denial")] == [None, "no"]
    assert (await door("GET", "/proposals?status=gone")).status == 400
    assert (await door("GET", f"/proposals/{'0' * 32}")).status == 404
