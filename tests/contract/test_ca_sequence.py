"""The sequencer and the log's heads, on both stores: places without gaps, one history, and what halts issuing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from rootward.ca import log as logs
from rootward.ca.installation import Installation
from rootward.ca.log import Log, accept, go_on, keep_head, open_log, told
from rootward.ca.publish import publish
from rootward.ca.revoke import revoke
from rootward.ca.sequence import note_head, sequence, settle
from rootward.core.ledger import EMPTY, Frontier, leaf_hash, parse_head
from rootward.core.revocation import RevocationReason
from rootward.fleet.auditor import Report, verify_store
from rootward.store import events, facts, heads, jobs
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import Injected, armed
from tests.support.store import event
from tests.support.world import ISSUING, World, refused

DROP = {
    "sqlite": ("DROP TRIGGER events_append_only_update", "DROP TRIGGER events_append_only_delete"),
    "postgresql": ("DROP TRIGGER events_append_only_rows ON events",),
}


def opened(inst: Installation) -> Log:
    assert inst.log is not None
    return inst.log


async def leaves(lab: World) -> list[events.Event]:
    return list(await lab.inst.db.read(lambda conn: events.by_leaf(conn, 0, 10_000)))


async def newest(lab: World) -> heads.Head:
    found = await lab.inst.db.read(heads.newest)
    assert found is not None
    return found


async def tamper(lab: World, *statements: str, size: int = 0) -> None:
    """What somebody does who has the database in hand; `:size` stands for a number."""

    def write(conn: object) -> None:
        for statement in (*DROP[lab.dialect], *statements):
            conn.execute(text(statement), {"size": size} if ":size" in statement else {})  # type: ignore[attr-defined]  # a Connection

    await lab.inst.db.write(write)


@pytest.mark.invariant("I-57")
async def test_every_event_gets_its_place_and_the_head_is_signed(lab: World) -> None:
    await lab.issue()
    assert await sequence(lab.inst) > 0
    await sequence(lab.inst)  # the event that says the first head
    found, head = await leaves(lab), await newest(lab)
    assert [one.leaf for one in found] == list(range(head.size))
    assert {one.n for one in found} == {one.n for one in await lab.events()}
    tree = Frontier().extended(leaf_hash(events.leaf_of(one)) for one in found)
    assert tree == head.tree()
    assert [*await lab.inst.db.read(lambda conn: [*events.leaf_hashes(conn, 0, 10_000)])] == [
        leaf_hash(events.leaf_of(one)) for one in found
    ]
    assert head.note is not None
    signed = parse_head(head.note)
    signed.check(opened(lab.inst).verifier)
    assert (signed.size, signed.root) == (head.size, head.root)
    assert await sequence(lab.inst) == 0


@pytest.mark.invariant("I-57")
async def test_many_more_than_one_transaction_takes(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootward.ca.sequence.MOST", 7)
    for _ in range(30):
        await lab.inst.db.write(event())
    await sequence(lab.inst)
    await sequence(lab.inst)
    chain = await lab.inst.db.read(lambda conn: [*heads.every(conn)])
    assert [one.was for one in chain] == [0, *(one.size for one in chain[:-1])]
    assert chain[-1].size == len(await lab.events())


@pytest.mark.invariant("I-57", "I-62")
async def test_sequencers_that_race_make_one_history(lab: World) -> None:
    for _ in range(20):
        await asyncio.gather(*(lab.inst.db.write(event()) for _ in range(5)), *(settle(lab.inst) for _ in range(4)))
    await settle(lab.inst)
    found, head = await leaves(lab), await newest(lab)
    assert [one.leaf for one in found] == list(range(head.size))
    assert Frontier().extended(leaf_hash(events.leaf_of(one)) for one in found) == head.tree()


@pytest.mark.invariant("I-57")
async def test_a_head_has_one_successor(lab: World) -> None:
    await sequence(lab.inst)
    before = await newest(lab)
    tree = before.tree().extended([leaf_hash(b"a")])
    fork = before.tree().extended([leaf_hash(b"b")])
    await lab.inst.db.write(heads.grow(tree, was=before.size, at=before.at))
    for other in (fork, fork.extended([leaf_hash(b"c")])):
        with pytest.raises(Taken):
            await lab.inst.db.write(heads.grow(other, was=before.size, at=before.at))


@pytest.mark.invariant("I-62")
async def test_a_holder_that_lost_its_lease_appends_nothing(lab: World) -> None:
    await sequence(lab.inst)
    await sequence(lab.inst)
    now = lab.clock()
    await lab.inst.db.write(jobs.ensure("sequence", due_at=now))
    late = now + timedelta(days=1)
    first = await lab.inst.db.write(lambda conn: jobs.claim(conn, "sequence", lease="a", now=late, until=late))
    second = await lab.inst.db.write(lambda conn: jobs.claim(conn, "sequence", lease="b", now=late, until=late))
    assert (first, second) == (1, 2)
    await lab.inst.db.write(event())
    before = await newest(lab)
    with pytest.raises(Lost):
        await sequence(lab.inst, jobs.fenced("sequence", fence=1))
    assert await newest(lab) == before
    await sequence(lab.inst, jobs.fenced("sequence", fence=2))
    assert (await newest(lab)).size == before.size + 1


@pytest.mark.parametrize("place", ["sequence.taken", "sequence.appended", "sequence.signed", "sequence.published"])
@pytest.mark.invariant("I-57")
async def test_what_was_left_half_done_is_finished(lab: World, place: str) -> None:
    await lab.inst.db.write(event())
    with armed(f"{place}:fail"), pytest.raises(Injected):
        await sequence(lab.inst)
    left = await lab.inst.db.read(heads.newest)
    assert (left is None) == (place == "sequence.taken")
    await sequence(lab.inst)
    assert (await newest(lab)).note is not None
    assert [one.leaf for one in await leaves(lab)] == list(range((await newest(lab)).size))


async def test_the_log_says_its_head_once_an_hour_where_something_came_since(lab: World) -> None:
    async def said() -> int:
        await sequence(lab.inst)
        await sequence(lab.inst)
        return (await lab.counts())["log.head"]

    assert await said() == 1
    for _ in range(3):
        lab.clock.move(timedelta(hours=2))
        await note_head(lab.inst)  # nothing came but the last of these events
        assert await said() == 1
    await lab.inst.db.write(event())
    assert await said() == 2
    await lab.inst.db.write(event())
    assert await said() == 2
    (first, second) = await lab.events("log.head")
    for one in (first, second):
        tree = Frontier().extended(
            leaf_hash(events.leaf_of(leaf)) for leaf in (await leaves(lab))[: one.values()["size"]]
        )
        assert one.values()["root"] == tree.root.hex()


# ── The file, and what is held against it at start ────────────────────────────────────────────────────────────────


async def kept(lab: World, folder: Path) -> int:
    """Open the log with files, take everything in, keep the head; its size."""
    await open_log(lab.inst, folder)
    assert lab.inst.process.halted == {}
    await settle(lab.inst)
    await settle(lab.inst)
    await keep_head(lab.inst)
    head = told(folder).head
    assert head is not None
    assert head.size == (await newest(lab)).size
    return head.size


@pytest.mark.invariant("I-57")
async def test_the_file_follows_and_never_goes_back(lab: World, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    size = await kept(lab, folder)
    before = (folder / "checkpoint").read_text()
    await lab.issue()
    await settle(lab.inst)
    await keep_head(lab.inst)
    head = told(folder).head
    assert head is not None
    assert head.size > size
    logs.keep(opened(lab.inst), before)
    assert told(folder).head == head
    assert {path.name for path in folder.iterdir()} == {"key", "checkpoint"}


TRICKS = {
    "events cut off": ["DELETE FROM events WHERE leaf >= 3", "DELETE FROM heads WHERE size > 3"],
    "leaves taken back": ["UPDATE events SET leaf = NULL WHERE leaf >= 3", "DELETE FROM heads WHERE size > 3"],
    "the tail edited": ["UPDATE events SET actor = 'x' WHERE leaf = (SELECT max(leaf) FROM events)"],
    "the last event gone": ["DELETE FROM events WHERE leaf = (SELECT max(leaf) FROM events)"],
    "no heads": ["DELETE FROM heads"],
    "another root": ["UPDATE heads SET root = frontier"],
    "another note": ["UPDATE heads SET note = 'x'"],
    "another key": ["UPDATE facts SET data = replace(data, '/1+', '/2+') WHERE name = 'log.key'"],
    "no key": ["DELETE FROM facts WHERE name = 'log.key'"],
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.invariant("I-61", "I-63", "I-59")
async def test_a_store_that_is_not_what_this_host_saw_issues_nothing(lab: World, tmp_path: Path, trick: str) -> None:
    row = await lab.issue()
    await kept(lab, tmp_path / "log")
    await tamper(lab, *TRICKS[trick])
    await open_log(lab.inst, tmp_path / "log")
    assert lab.inst.process.halted["log"].code == "RW-LOG-BEHIND"
    assert await refused(lab.issue("b.internal")) == "RW-LOG-BEHIND"
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    await publish(lab.inst, lab.inst.authority(ISSUING))
    assert await sequence(lab.inst) == 0  # nothing is signed that could contradict what was


@pytest.mark.invariant("I-57", "I-61")
async def test_a_store_that_goes_back_under_a_living_server(lab: World, tmp_path: Path) -> None:
    size = await kept(lab, tmp_path / "log")
    await lab.issue()
    assert await kept(lab, tmp_path / "log") > size
    before = (tmp_path / "log" / "checkpoint").read_text()
    back = "UPDATE events SET leaf = NULL, leaf_hash = NULL, actor = 'x' WHERE leaf >= :size"
    await tamper(lab, back, "DELETE FROM heads WHERE size > :size", size=size)
    await sequence(lab.inst)
    assert (await newest(lab)).note is None  # appended by the rules, and not signed: it is another history
    assert lab.inst.process.halted["log"].code == "RW-LOG-BEHIND"
    assert lab.inst.log is None
    await keep_head(lab.inst)
    assert (tmp_path / "log" / "checkpoint").read_text() == before


@pytest.mark.invariant("I-57", "I-61")
async def test_a_host_sees_that_the_store_went_back(lab: World, tmp_path: Path) -> None:
    size = await kept(lab, tmp_path / "log")
    await lab.issue()
    await kept(lab, tmp_path / "log")
    await tamper(lab, "DELETE FROM heads WHERE size > :size", size=size)
    await keep_head(lab.inst)
    assert lab.inst.process.halted["log"].code == "RW-LOG-BEHIND"


@pytest.mark.invariant("I-63", "I-57")
async def test_going_on_is_an_event_and_another_origin(lab: World, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    size = await kept(lab, folder)
    was = told(folder)
    assert was.head is not None
    await tamper(lab, *TRICKS["events cut off"])
    await open_log(lab.inst, folder)
    assert "log" in lab.inst.process.halted
    following = await accept(lab.inst, folder, why="a test")
    (accepted,) = await lab.events("log.accepted")
    values = accepted.values()
    assert values["was"] == {"origin": was.head.origin, "size": size, "root": was.head.root.hex()}
    assert (values["is"]["origin"], values["is"]["size"], values["why"]) == (following.name, 3, "a test")
    assert following.name == was.head.origin.removesuffix("/1") + "/2"
    assert await kept(lab, folder) == 4
    await lab.issue("b.internal")


async def test_going_on_where_events_are_missing_in_between(lab: World, tmp_path: Path) -> None:
    await kept(lab, tmp_path / "log")
    await tamper(lab, "DELETE FROM events WHERE leaf = 1")
    assert await refused(accept(lab.inst, tmp_path / "log", why="a test")) == "RW-LOG-BEHIND"


async def test_going_on_from_nothing(lab: World) -> None:
    verifier = opened(lab.inst).verifier
    await tamper(lab, "DELETE FROM events")
    following = await lab.inst.db.write(
        lambda conn: go_on(conn, verifier=verifier, why="a test", was=None, at=lab.clock())
    )
    (accepted,) = await lab.events()
    assert accepted.values()["is"] == {"origin": following.name, "size": 0, "root": EMPTY.hex()}
    fact = await lab.inst.db.read(lambda conn: facts.get(conn, "log.key"))
    assert fact is not None
    assert fact.data == following.text


async def test_a_second_host_begins_with_what_the_store_says(lab: World, tmp_path: Path) -> None:
    await kept(lab, tmp_path / "log")
    await open_log(lab.inst, tmp_path / "other")
    if lab.dialect == "sqlite":
        assert "gone" in lab.inst.process.halted["log"].detail  # there is one host only, and it had these files
        return
    assert lab.inst.process.halted == {}
    await keep_head(lab.inst)
    assert told(tmp_path / "other") == told(tmp_path / "log")


async def test_files_that_are_not_to_be_believed(lab: World, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    await kept(lab, folder)
    good = (folder / "checkpoint").read_bytes()
    for spoilt in (b"", b"\xff", good.replace(b"\n\n", b"\n"), good[:-20] + b"\n", good * 50):
        (folder / "checkpoint").write_bytes(spoilt)
        await open_log(lab.inst, folder)
        assert "log" in lab.inst.process.halted
    (folder / "checkpoint").write_bytes(good)
    (folder / "key").unlink()
    await open_log(lab.inst, folder)
    assert "log" in lab.inst.process.halted


# ── Files that are gone ───────────────────────────────────────────────────────────────────────────────────────────

BACK = {
    "not at all": (),
    "to an older head": ("UPDATE events SET leaf = NULL, leaf_hash = NULL, actor = 'x' WHERE leaf >= 3", "cut"),
    "before the first head": ("UPDATE events SET leaf = NULL, leaf_hash = NULL", "DELETE FROM heads"),
    "before the log": (
        "UPDATE events SET leaf = NULL, leaf_hash = NULL",
        "DELETE FROM heads",
        "DELETE FROM facts WHERE name = 'log.key'",
    ),
}


@pytest.mark.parametrize("back", BACK)
@pytest.mark.invariant("I-57", "I-61", "I-63")
async def test_a_store_put_back_with_the_checkpoint_deleted(
    lab: World, tmp_path: Path, back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootward.ca.sequence.MOST", 3)  # a head of three, to go back to
    folder = tmp_path / "log"
    await kept(lab, folder)
    was = told(folder).verifier
    assert was is not None
    await tamper(lab, *("DELETE FROM heads WHERE size > 3" if one == "cut" else one for one in BACK[back]))
    (folder / "checkpoint").unlink()
    await open_log(lab.inst, folder)
    assert "accept-log" in lab.inst.process.halted["log"].detail
    assert await refused(lab.issue("b.internal")) == "RW-LOG-BEHIND"
    assert await sequence(lab.inst) == 0
    following = await accept(lab.inst, folder, why="a test")  # which does not halt again
    assert following.name != was.name
    await kept(lab, folder)
    await lab.issue("b.internal")


@pytest.mark.invariant("I-57")
async def test_a_log_key_that_is_there_signs_no_second_first_generation(lab: World, tmp_path: Path) -> None:
    """Everything of the log is gone but its key in the backend: what it signed, nobody knows any more."""
    await kept(lab, tmp_path / "log")
    was = opened(lab.inst).verifier
    await tamper(lab, *BACK["before the log"])
    for path in (tmp_path / "log").iterdir():
        path.unlink()
    await open_log(lab.inst, tmp_path / "log")
    assert lab.inst.process.halted == {}  # it looks like a first start that was cut off, so it begins a log
    now = opened(lab.inst).verifier
    assert (now.key, now.name) != (was.key, was.name)
    assert now.name.endswith("/1")
    assert now.name != was.name


async def test_places_in_a_log_whose_key_the_store_has_lost(lab: World, tmp_path: Path) -> None:
    await kept(lab, tmp_path / "log")
    await tamper(lab, *TRICKS["no key"])
    await open_log(lab.inst, tmp_path / "other")
    assert "its key is gone from the store" in lab.inst.process.halted["log"].detail
    await accept(lab.inst, tmp_path / "other", why="a test")
    await kept(lab, tmp_path / "other")


@pytest.mark.parametrize("left", [(), ("checkpoint",)])
async def test_a_first_start_that_was_cut_off_goes_on(lab: World, tmp_path: Path, left: tuple[str, ...]) -> None:
    """The key's fact is in the store, and not both files are there yet; nothing has a place."""
    folder = tmp_path / "log"
    await open_log(lab.inst, folder)
    head = told(folder).head
    assert head is not None
    assert head.size == 0
    for name in {"key", "checkpoint"} - {*left}:
        (folder / name).unlink()
    await kept(lab, folder)


@pytest.mark.invariant("I-57")
async def test_killed_between_the_first_head_and_its_file(lab: World, tmp_path: Path) -> None:
    await open_log(lab.inst, tmp_path / "log")
    await settle(lab.inst)  # signed, and the process is gone
    await kept(lab, tmp_path / "log")


@pytest.mark.invariant("I-57", "I-63")
async def test_going_on_without_the_files_takes_another_key(lab: World, tmp_path: Path) -> None:
    """A host that has lost its files does not know which generations there were."""
    folder = tmp_path / "log"
    await kept(lab, folder)
    was = opened(lab.inst).verifier
    for path in folder.iterdir():
        path.unlink()
    following = await accept(lab.inst, folder, why="a test")
    assert following.key != was.key
    await kept(lab, folder)


# ── The last events, by their content ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("leaf", "halts"), [(9, True), (2, False)])
@pytest.mark.invariant("I-59", "I-61")
async def test_an_event_edited_before_the_last_head(
    lab: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaf: int, halts: bool
) -> None:
    """Its hash is left as it was. Among the last that are looked at it halts; an older one is `audit verify`'s."""
    monkeypatch.setattr("rootward.ca.sequence.MOST", 3)
    for _ in range(15):
        await lab.inst.db.write(event())
    size = await kept(lab, tmp_path / "log")
    monkeypatch.setattr(logs, "LOOKED_AT", size - 7)
    await open_log(lab.inst, tmp_path / "log")
    assert lab.inst.process.halted == {}
    await tamper(lab, "UPDATE events SET actor = 'x' WHERE leaf = :size", size=leaf)
    await open_log(lab.inst, tmp_path / "log")
    assert ("log" in lab.inst.process.halted) is halts
    if halts:
        await accept(lab.inst, tmp_path / "log", why="a test")
    await kept(lab, tmp_path / "log")  # it goes on, and what was edited stays a finding
    with lab.inst.db.snapshot() as conn:
        assert "it is not what leaf" in " ".join(
            one.detail for one in verify_store(conn, told(tmp_path / "log"), None, Report())
        )


@pytest.mark.invariant("I-59")
async def test_an_event_without_a_place_from_long_ago(lab: World, tmp_path: Path) -> None:
    await kept(lab, tmp_path / "log")

    def found() -> list[str]:
        with lab.inst.db.snapshot() as conn:
            return [one.detail for one in verify_store(conn, told(tmp_path / "log"), None, Report())]

    await lab.inst.db.write(event(at=lab.clock()))
    assert found() == []
    await lab.inst.db.write(event(at=lab.clock() - timedelta(hours=1)))
    (detail,) = found()
    assert "the clock went back" in detail
