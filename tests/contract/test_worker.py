"""The worker: every job comes round, one that fails is tried again and harms no other, and a lease keeps a job with one
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from rootward.ca.installation import PROMISE, Installation
from rootward.core.problems import Problem
from rootward.store import db, jobs
from rootward.store.rows import Rows
from rootward.worker import JOBS, LEASE, Job, Worker, rest
from tests.support.installation import lab

SOON = timedelta(seconds=0)


def with_installation(folder: Path, test: Callable[[Installation], Awaitable[None]]) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{folder}/rootward.db", home=folder) as made:
            await test(made.inst)

    asyncio.run(main())


class Counted:
    """A job that counts its runs and tells when there were enough."""

    def __init__(self, enough: int, failure: Exception | None = None) -> None:
        self.runs = 0
        self.done = asyncio.Event()
        self._enough = enough
        self._failure = failure

    async def __call__(self, _inst: Installation, _fence: Rows) -> None:
        self.runs += 1
        if self.runs >= self._enough:
            self.done.set()
        if self._failure is not None:
            raise self._failure


async def within(event: asyncio.Event, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


@pytest.mark.parametrize("failure", [Problem("RW-STORE", "away"), ValueError("a mistake")], ids=["problem", "mistake"])
def test_a_job_that_fails_is_tried_again_and_harms_no_other(tmp_path: Path, failure: Exception) -> None:
    async def test(inst: Installation) -> None:
        good, bad, near = Counted(3), Counted(2, failure), Counted(2, failure)
        shared = {"good": Job(SOON, good), "bad": Job(SOON, bad)}
        worker = Worker(inst, shared=shared, local={"near": Job(SOON, near)})
        worker.start()
        for counted in (good, bad, near):
            await within(counted.done)
        await worker.stop(5)
        rows = {row.name: row for row in await inst.db.read(jobs.list)}
        assert rows["good"].failure is None
        assert rows["good"].done_at is not None
        assert type(failure).__name__ in str(rows["bad"].failure)
        assert rows["bad"].done_at is None

    with_installation(tmp_path, test)


def test_a_job_of_another_process_is_left_alone_until_its_lease_runs_out(tmp_path: Path) -> None:
    async def test(inst: Installation) -> None:
        def taken(conn: Connection) -> int | None:
            now = db.clock(conn)
            jobs.ensure("theirs", due_at=now).run(conn)
            return jobs.claim(conn, "theirs", lease="another", now=now, until=now + LEASE)

        fence = await inst.db.write(taken)
        assert fence is not None
        theirs, ours = Counted(1), Counted(3)
        worker = Worker(inst, shared={"theirs": Job(SOON, theirs), "ours": Job(SOON, ours)})
        worker.start()
        await within(ours.done)
        assert theirs.runs == 0
        await inst.db.write(jobs.done("theirs", fence=fence, at=inst.clock(), again=inst.clock()))
        await within(theirs.done)
        await worker.stop(5)

    with_installation(tmp_path, test)


def test_stopping_lets_a_job_finish_and_cancels_one_that_does_not(tmp_path: Path) -> None:
    async def test(inst: Installation) -> None:
        begun, told = asyncio.Event(), []

        async def stuck(_inst: Installation, _fence: Rows) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        worker = Worker(inst, shared={"stuck": Job(SOON, stuck)})
        worker.start()
        await within(begun)
        await worker.stop(0.1)
        assert told == ["cancelled"]

    with_installation(tmp_path, test)


@pytest.mark.invariant("I-15")
def test_a_job_that_takes_long_rests_for_twice_as_long() -> None:
    job = JOBS["publish"]
    assert rest(job, 0.1) == job.every
    assert rest(job, 8.0) == timedelta(seconds=16)
    for seconds in range(1, 11):  # revoked just after a run began to read, seen at the end of the next one
        assert seconds + rest(job, seconds).total_seconds() + seconds <= PROMISE.total_seconds()
