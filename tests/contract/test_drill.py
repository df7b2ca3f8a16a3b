"""A rehearsal on a shadow, on each kind of store: it says what would happen, and changes nothing that is live."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from rootward.ca import compromise
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.fleet import drill
from rootward.store import authorities, dump
from tests.support.rest import Door
from tests.support.second import add_second
from tests.support.world import APPROVER, ISSUING, World, refused

_BELOW = "UPDATE authorities SET parent = 'above' WHERE name = 'aged'"
Rows = dict[str, list[tuple[object, ...]]]


def everything(conn: Connection) -> Rows:
    """Every row of every table but the jobs'."""
    return {
        name: [tuple(row) for row in conn.execute(text(f'SELECT {", ".join(columns)} FROM "{name}"'))]  # noqa: S608  # names of our own schema
        for name, columns in dump.tables(conn)
        if name != "jobs"
    }


async def test_it_changes_nothing_that_is_live(lab: World) -> None:
    for n in range(5):
        await lab.issue(f"n{n}.internal", owner="shop" if n else None)
    await add_second(lab.inst, "second")
    known = dict(lab.inst.authorities)
    before = await lab.inst.db.read(everything)
    await drill.rehearse(lab.inst, ISSUING, "second", "1h", lab.admin)
    after = await lab.inst.db.read(everything)
    gone, new = (
        {name: [row for row in one[name] if row not in other[name]] for name in one}
        for one, other in ((before, after), (after, before))
    )
    assert not any(gone.values())
    assert {name: len(rows) for name, rows in new.items() if rows} == {"events": 1}
    assert (await lab.events())[-1].kind == "drill.held"
    assert lab.inst.authorities == known
    assert (await lab.issue()).authority == ISSUING


async def test_what_it_says(lab: World) -> None:
    for n, owner in enumerate(("shop", "shop", "web", None)):
        await lab.issue(f"n{n}.internal", owner=owner)
    await add_second(lab.inst, "second")
    made = await drill.rehearse(lab.inst, ISSUING, "second", None, lab.admin)
    assert (made.authority, made.successor, made.stand_in, made.certificates) == (ISSUING, "second", False, 4)
    assert dict(made.owners) == {"shop": 2, "web": 1, None: 1}
    assert made.waves == ((lab.clock(), 4),)
    assert made.waves_until == lab.clock()
    assert [step.name for step in made.steps] == ["copy", "propose", "agree and carry out", "renewal windows"]
    assert any("second person" in one for one in made.missing)
    assert any("ceremony" in one for one in made.missing)
    await lab.person("bob", APPROVER)
    made = await drill.rehearse(lab.inst, ISSUING, "second", None, lab.admin)
    assert not any("second person" in one for one in made.missing)


async def test_without_a_successor_one_is_made_up(lab: World) -> None:
    made = await drill.rehearse(lab.inst, ISSUING, None, None, lab.admin)
    assert (made.successor, made.stand_in) == (drill.STAND_IN, True)
    assert made.successor not in lab.inst.authorities
    assert any("no other issuing authority" in one for one in made.missing)
    await add_second(lab.inst, "second")
    made = await drill.rehearse(lab.inst, ISSUING, None, None, lab.admin)
    assert any("second could be" in one for one in made.missing)


async def test_what_would_be_refused_is_refused(lab: World) -> None:
    with pytest.raises(Problem) as caught:
        await drill.rehearse(lab.inst, "root", None, None, lab.admin)
    assert caught.value.code == "RW-CEREMONY"
    assert await refused(drill.rehearse(lab.inst, ISSUING, "nobody", None, lab.admin)) == "RW-NOT-FOUND"
    assert await refused(drill.rehearse(lab.inst, ISSUING, None, "soon", lab.admin)) == "RW-FIELD"
    mia = await lab.person("mia", Grant(Role.REQUESTER, ISSUING))
    assert await refused(drill.rehearse(lab.inst, ISSUING, None, None, mia)) == "RW-FORBIDDEN"
    assert (await lab.counts())["drill.held"] == 0


async def test_again_and_for_real_afterwards(lab: World) -> None:
    """A drill leaves nothing that the real thing would fall over."""
    await add_second(lab.inst, "second")
    for _ in range(2):
        await drill.rehearse(lab.inst, ISSUING, "second", None, lab.admin)
    lab.clock.move(timedelta(hours=1))
    made = await compromise.propose(lab.inst, ISSUING, "second", None, None, lab.admin)
    assert made.status(lab.clock()) == "waiting"


async def test_an_authority_that_is_older_than_its_parent(lab: World) -> None:
    """As in each real installation: the issuing authority was asked for before the ceremony made its root."""
    at = lab.clock()
    await lab.inst.db.write(authorities.add("aged", "issuing", parent=None, settings="{}", at=at))
    await lab.inst.db.write(authorities.add("above", "root", parent=None, settings="{}", at=at))
    await lab.inst.db.write(lambda conn: conn.execute(text(_BELOW)).rowcount)
    assert (await drill.rehearse(lab.inst, ISSUING, None, None, lab.admin)).stand_in


async def test_through_the_door(lab: World) -> None:
    await lab.issue(owner="shop")
    door = Door(lab.inst, lab.token)
    told = await door("POST", f"/authorities/{ISSUING}/drill", {"waves": "30m"})
    assert told.status == 200
    assert told.json["stand_in"] is True
    assert told.json["owners"] == [{"owner": "shop", "certificates": 1}]
    assert sum(wave["certificates"] for wave in told.json["waves"]) == 1
    assert (await door("POST", f"/authorities/{ISSUING}/drill", {"waves": "x"})).code == "RW-FIELD"
    assert (await door("POST", "/authorities/root/drill", {})).code == "RW-CEREMONY"
