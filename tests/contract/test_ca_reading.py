"""The count of revocations as a process reads it: how old it may be, what counts as the store being away, and that no
order of events keeps a `good` under a count that knows better.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rootward.ca import reading
from rootward.ca.reading import FRESH, STOPPED, Away, Count
from rootward.ca.revoke import release, revoke
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from tests.support.world import World

HOLD = RevocationReason.CERTIFICATE_HOLD


class Store:
    """A store whose answers the test gives: each read waits for `say` or `fail`."""

    dialect = "postgresql"

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[int]] = []

    async def status(self, _work: object) -> int:
        self.reads.append(asyncio.get_running_loop().create_future())
        return await self.reads[-1]


@dataclasses.dataclass
class Process:
    """One process that reads, and its seconds."""

    store: Store
    inst: Any
    seconds: float = 100.0

    def count(self) -> Count:
        return Count(self.inst, monotonic=lambda: self.seconds)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(reading, "PATIENCE", 0.05)
    store = Store()
    return Process(store, SimpleNamespace(db=store, process=SimpleNamespace(told=0)))


async def asked(count: Count) -> asyncio.Task[int]:
    """A question that is under way."""
    task = asyncio.create_task(count.now())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def read(process: Process, count: Count, value: int) -> None:
    """A reading that went well."""
    task = await asked(count)
    process.store.reads[-1].set_result(value)
    assert await task == value


@pytest.mark.invariant("I-30")
async def test_one_read_serves_many_and_not_for_long(process: Process) -> None:
    count = process.count()
    tasks = [await asked(count) for _ in range(50)]
    assert len(process.store.reads) == 1
    process.store.reads[0].set_result(7)
    assert {await task for task in tasks} == {7}
    process.seconds += FRESH - 0.01
    assert await count.now() == 7
    process.seconds += 0.01
    task = await asked(count)
    assert len(process.store.reads) == 2
    process.store.reads[1].set_result(8)
    assert await task == 8


@pytest.mark.invariant("I-30")
async def test_what_this_process_itself_told_is_known_at_once(process: Process) -> None:
    count = process.count()
    await read(process, count, 7)
    process.inst.process.told += 1
    task = await asked(count)
    process.store.reads[-1].set_result(8)
    assert await task == 8
    process.inst.process.told += 1
    task = await asked(count)
    process.store.reads[-1].set_exception(Problem("RW-STORE", "away"))
    with pytest.raises(Away):  # it knows that its last reading is old
        await task


@pytest.mark.invariant("I-30", "I-65")
async def test_what_is_told_while_a_question_waits_is_for_the_next_one(process: Process) -> None:
    """So a mass revocation holds up nobody."""
    count = process.count()
    task = await asked(count)
    process.inst.process.told += 1
    joined = await asked(count)  # by the time of this question it was told
    process.store.reads[0].set_result(7)
    assert await task == 7
    for _ in range(5):
        await asyncio.sleep(0)
    process.inst.process.told += 1
    process.store.reads[1].set_result(8)
    assert await joined == 8
    process.inst.process.told += 1
    task = await asked(count)
    process.store.reads[2].set_result(9)
    assert await task == 9


@pytest.mark.invariant("I-33")
@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_store_that_is_away_leaves_the_last_reading_for_the_promise(process: Process, how: str) -> None:
    count = process.count()
    await read(process, count, 7)
    for seconds, known in ((1.0, True), (58.9, True), (0.1, False), (1000.0, False)):
        process.seconds += seconds
        count._alive = process.seconds  # it ran all the time
        task = await asked(count)
        if how == "fails":
            process.store.reads[-1].set_exception(Problem("RW-STORE", "away"))
        if known:
            assert await task == 7
        else:
            with pytest.raises(Away):
                await task


@pytest.mark.invariant("I-30")
@pytest.mark.invariant("I-33")
async def test_a_reply_that_waited_while_this_process_was_stopped_is_not_trusted(process: Process) -> None:
    count = process.count()
    await read(process, count, 7)
    process.seconds += 1
    task = await asked(count)  # under way when it is stopped
    process.seconds += STOPPED + 1
    process.store.reads[-1].set_result(7)  # as the store said before
    for _ in range(5):
        await asyncio.sleep(0)
    process.store.reads[-1].set_result(8)
    assert await task == 8
    assert len(process.store.reads) == 3


@pytest.mark.invariant("I-30")
@pytest.mark.invariant("I-33")
@pytest.mark.parametrize("first", ["question", "job"])
async def test_a_failure_from_before_a_stop_proves_nothing(process: Process, first: str) -> None:
    """Whoever wakes up first."""
    count = process.count()
    await read(process, count, 7)
    process.seconds += 1
    task = await asked(count)
    process.seconds += 30
    process.store.reads[-1].set_exception(Problem("RW-STORE", "away, before the stop"))
    job = asyncio.create_task(count.refresh()) if first == "job" else None
    for _ in range(5):
        await asyncio.sleep(0)
    process.store.reads[-1].set_result(8)
    assert await task == 8
    if job is not None:
        await job


@pytest.mark.invariant("I-30")
async def test_a_read_that_is_late_because_this_process_was_held_up_is_heard_out(process: Process) -> None:
    """For less than counts as a stop, and for longer than a reading is good: every question of then reads anew."""
    count = process.count()
    await read(process, count, 1)
    process.seconds += FRESH
    tasks = [await asked(count)]
    process.seconds += (FRESH + STOPPED) / 2
    tasks += [await asked(count) for _ in range(3)]
    process.store.reads[1].set_result(1)  # from before the revocation
    for _ in range(10):
        await asyncio.sleep(0)
    process.store.reads[2].set_result(2)
    assert {await task for task in tasks} == {2}


async def test_an_error_that_is_ours_is_not_taken_for_a_store_that_is_away(process: Process) -> None:
    count = process.count()
    task = await asked(count)
    process.store.reads[-1].set_exception(TypeError("ours"))
    with pytest.raises(TypeError):
        await task


# ── count, then status ────────────────────────────────────────────────────────────────────────────────────────────


class Meddling:
    """The store, with something that another process does before or after the n-th look of an answer."""

    def __init__(self, db: Any, at: int, meddle: Callable[[], Any]) -> None:
        self._db, self._at, self._meddle, self._looks = db, at, meddle, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def status(self, work: Any) -> Any:
        self._looks += 1
        if self._looks == self._at:
            await self._meddle()
        return await self._db.status(work)


@pytest.mark.invariant("I-30")
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_no_order_keeps_an_answer_under_a_count_that_knows_better(lab: World, at: int, held: bool) -> None:
    row = await lab.issue()
    elsewhere = dataclasses.replace(lab.inst)  # another process
    if held:
        await revoke(elsewhere, row.id, HOLD, lab.admin)

    async def meddle() -> None:
        if held:
            await release(elsewhere, row.id, lab.admin)
        else:
            await revoke(elsewhere, row.id, RevocationReason.SUPERSEDED, lab.admin)

    real = lab.inst.db
    lab.inst.db = Meddling(real, at, meddle)  # type: ignore[assignment]  # it is one in all that is used
    await lab.status(row.serial)
    lab.inst.db = real
    if at == 3:
        await meddle()  # after the answer
    for seconds in (1.0, 2.0):  # a second later each process knows
        lab.seconds[0] += seconds
        now = await lab.status(row.serial)
        assert isinstance(now, Good if held else Revoked)
