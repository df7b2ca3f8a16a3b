"""The background work of a server. Shared jobs are leased rows of the store, so that one process at a time does each
(I-62); local ones are about this process alone (its own certificates) and simply come round.

A job that fails is logged, counted and tried again, later each time up to five minutes; it never ends the others. A
lease is short and kept alive while its job runs, so that the work of a process that died is taken up within `LEASE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca.installation import Installation
from rootward.ca.publish import publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.sequence import sequence
from rootward.core.problems import Problem
from rootward.store import certificates, db, idempotency, jobs
from rootward.store.errors import Lost
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()

LEASE: Final = timedelta(seconds=30)
KEEP_IDEMPOTENCY: Final = timedelta(hours=24)
_TURN_SECONDS: Final = 1.0
_SLOWEST: Final = timedelta(minutes=5)
_INDEX_BATCH: Final = 500


@dataclass(frozen=True)
class Job:
    """Something to do every so often. `run` also gets the rows that it adds to each of its writes, so that the write is
    Lost once the lease is somebody else's; a local job has no lease and gets none.
    """

    every: timedelta
    run: Callable[[Installation, Rows], Awaitable[object]]


async def index_names(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Put the names of new certificates into the search index."""

    def index(conn: Connection) -> int:
        fence.run(conn)
        return certificates.index_names(conn, _INDEX_BATCH)

    while await inst.db.write(index) == _INDEX_BATCH:
        continue


async def forget_idempotency(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Forget idempotency keys after a day (the contract's time)."""
    await inst.db.write(fence + idempotency.forget(inst.clock() - KEEP_IDEMPOTENCY))


JOBS: Final[dict[str, Job]] = {
    "sequence": Job(timedelta(seconds=1), sequence),
    "publish": Job(timedelta(seconds=5), publish_due),
    "reconcile": Job(timedelta(seconds=30), reconcile),
    "index": Job(timedelta(seconds=3), index_names),
    "idempotency": Job(timedelta(hours=1), forget_idempotency),
}


class Worker:
    """Runs jobs until `stop`. `shared` are rows of the store, `local` this process's own."""

    def __init__(
        self, inst: Installation, *, shared: Mapping[str, Job] = JOBS, local: Mapping[str, Job] | None = None
    ) -> None:
        self._inst = inst
        self._shared = shared
        self._local = local or {}
        self._stopping = asyncio.Event()
        self._failures: dict[str, int] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begins in the background."""
        self._loops = [asyncio.create_task(self._turns())]
        self._loops += [asyncio.create_task(self._rounds(name, job)) for name, job in self._local.items()]

    async def stop(self, seconds: float) -> None:
        """Jobs under way may finish within `seconds`, then they are cancelled; their leases run out by themselves."""
        self._stopping.set()
        tasks = [*self._loops, *self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _turns(self) -> None:
        known = False
        while not self._stopping.is_set():
            try:
                if not known:
                    for name in self._shared:
                        await self._inst.db.write(jobs.ensure(name, due_at=self._inst.clock()))
                    known = True
                due = await self._inst.db.read(lambda conn: jobs.due(conn, db.clock(conn)))
            except Problem as problem:
                self._failed("worker", problem)  # the store is away: the next turn may find it
                due = ()
            for row in due:
                if row.name in self._shared and row.name not in self._running:
                    task = asyncio.create_task(self._leased(row.name, self._shared[row.name]))
                    self._running[row.name] = task
                    task.add_done_callback(partial(self._ended, row.name))
            await self._pause(_TURN_SECONDS)

    async def _rounds(self, name: str, job: Job) -> None:
        while not self._stopping.is_set():
            right = await self._try(name, job, UNFENCED)
            await self._pause((job.every if right is None else self._again(name, job)).total_seconds())

    async def _leased(self, name: str, job: Job) -> None:
        try:
            fence = await self._inst.db.write(lambda conn: _claim(conn, name, self._inst.db.lease))
        except Problem as problem:
            self._failed(name, problem)
            return
        if fence is None:
            return
        keeper = asyncio.create_task(self._keep(name, fence))
        try:
            failure = await self._try(name, job, jobs.fenced(name, fence=fence))
        finally:
            keeper.cancel()
        now = self._inst.clock()
        if failure is None:
            end = jobs.done(name, fence=fence, at=now, again=now + job.every)
        else:
            end = jobs.failed(name, fence=fence, failure=failure, again=now + self._again(name, job))
        # Lost: it took longer than its lease and somebody else has it by now. A Problem: the lease runs out by itself.
        with suppress(Lost, Problem):
            await self._inst.db.write(end)

    async def _keep(self, name: str, fence: int) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with suppress(Problem, Lost):  # tried again in a moment; each write of a leased job has its own fence
                await self._inst.db.write(lambda conn: _renew(conn, name, fence))

    async def _try(self, name: str, job: Job, fence: Rows) -> str | None:
        """What went wrong, in a few words for the job's row; None when nothing did."""
        try:
            await job.run(self._inst, fence)
        except Exception as error:  # noqa: BLE001  # a job may fail in any way: it is logged whole, counted and tried again
            return self._failed(name, error)
        self._failures.pop(name, None)
        telemetry.JOB_RUNS.labels(name, "done").inc()
        telemetry.JOB_LAST.labels(name).set_to_current_time()
        log.debug("job.done", job=name)
        return None

    def _failed(self, name: str, error: Exception) -> str:
        self._failures[name] = self._failures.get(name, 0) + 1
        telemetry.JOB_RUNS.labels(name, "failed").inc()
        unexpected = None if isinstance(error, Problem) else error
        log.error("job.failed", job=name, error=str(error), failures=self._failures[name], exc_info=unexpected)
        return f"{type(error).__name__}: {error}"[:500]

    def _again(self, name: str, job: Job) -> timedelta:
        doubled = timedelta(seconds=1 << min(self._failures.get(name, 0), 10))
        return min(doubled, max(job.every, _SLOWEST))

    def _ended(self, name: str, _: asyncio.Task[None]) -> None:
        del self._running[name]

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _claim(conn: Connection, name: str, lease: str) -> int | None:
    now = db.clock(conn)
    return jobs.claim(conn, name, lease=lease, now=now, until=now + LEASE)


def _renew(conn: Connection, name: str, fence: int) -> None:
    jobs.renew(name, fence=fence, until=db.clock(conn) + LEASE).run(conn)
