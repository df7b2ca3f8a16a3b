"""The sequencer killed and paused at each of its places, and several at once: one history, and no two heads that
contradict each other are ever signed (I-57, I-62).
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from datetime import timedelta

import pytest

from rootward.ca.log import keep_head, told
from rootward.ca.sequence import settle
from rootward.core.ledger import Frontier, leaf_hash, parse_head
from rootward.fleet.auditor import Report, verify_store
from rootward.store import events, jobs
from rootward.store.db import clock
from tests.faults import scenes
from tests.support.faults import Home, Open, Play, killed, opened

PLACES = ("sequence.taken", "sequence.appended", "sequence.signed", "sequence.published")


async def judged(home: Home, notes: list[str]) -> int:
    """Take everything in; the log and the inventory must be right, and every head that was ever signed must be of this
    history. The tree's size.
    """
    async with opened(home) as made:
        assert made.inst.process.halted == {}
        await settle(made.inst)
        await keep_head(made.inst)
        files = told(home.folder / "log")
        with made.inst.db.snapshot() as conn:
            assert [*verify_store(conn, files, None, Report())] == []
        leaves = await made.inst.db.read(lambda conn: events.by_leaf(conn, 0, 100_000))
        assert [*await made.inst.db.read(lambda conn: events.unsequenced(conn, 10))] == []
    assert files.verifier is not None
    assert files.head is not None
    hashes = [leaf_hash(events.leaf_of(event)) for event in leaves]
    for note in notes:
        head = parse_head(note)
        head.check(files.verifier)
        assert Frontier().extended(hashes[: head.size]).root == head.root
    assert files.head.size == len(leaves)
    return len(leaves)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.invariant("I-57")
def test_killed_at_each_place(home: Home, place: str) -> None:
    before = asyncio.run(judged(home, []))
    said = killed(home, scenes.take_in, 3, traps=f"{place}:kill:2")
    assert len(said) == 1
    assert asyncio.run(judged(home, said)) == before + 2


@pytest.mark.invariant("I-57", "I-62")
def test_several_replicas_at_once(postgres_home: Home) -> None:
    asyncio.run(judged(postgres_home, []))
    notes: list[str] = []
    with ExitStack() as stack:
        plays = [stack.enter_context(Play(postgres_home, scenes.take_in, 15)) for _ in range(3)]
        for play in plays:
            assert play.end() == 0
            notes += play.said
    assert len(notes) == 45
    asyncio.run(judged(postgres_home, notes))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.invariant("I-57", "I-62")
def test_paused_beyond_its_lease(postgres_home: Home, place: str) -> None:
    """The holder stops at a place; another takes the lease and goes on; the first one wakes up and does no harm."""

    async def claim(made: Open, number: int) -> None:
        late = timedelta(days=number)

        def write(conn: object) -> int | None:
            now = clock(conn) + late  # type: ignore[arg-type]  # a Connection
            return jobs.claim(conn, "sequence", lease=f"test {number}", now=now, until=now)  # type: ignore[arg-type]  # the same

        await made.inst.db.write(jobs.ensure("sequence", due_at=made.inst.clock()))
        assert await made.inst.db.write(write) == number

    async def prepare() -> None:
        async with opened(postgres_home) as made:
            await claim(made, 1)
            await made.inst.db.write(events.record("test.a", actor="p", request_id="r", at=made.inst.clock()))

    async def meanwhile() -> None:
        async with opened(postgres_home, serving=False) as made:
            await claim(made, 2)
            await made.inst.db.write(events.record("test.b", actor="p", request_id="r", at=made.inst.clock()))
            await settle(made.inst)
            notes.append(await scenes.newest_note(made) or "")

    notes: list[str] = []
    asyncio.run(prepare())
    with Play(postgres_home, scenes.take_in_leased, 1, traps=f"{place}:stop") as play:
        play.until_stopped()
        asyncio.run(meanwhile())
        play.go_on()
        assert play.end() == 0
    assert play.said[0] in {"Lost", "Taken", notes[0]}
    asyncio.run(judged(postgres_home, notes))


@pytest.mark.invariant("I-57")
def test_killed_at_random_while_others_go_on(postgres_home: Home) -> None:
    notes: list[str] = []
    for _ in range(3):
        with ExitStack() as stack:
            rounds = (3000, 30)  # the first is killed long before its end
            first, second = (stack.enter_context(Play(postgres_home, scenes.take_in, count)) for count in rounds)
            for _ in range(5):
                notes.append(first.hear())
            first.kill()
            assert first.end() == -signal.SIGKILL
            assert second.end() == 0
            notes += [*first.said[5:], *second.said]
    asyncio.run(judged(postgres_home, notes))
