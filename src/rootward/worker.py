"""The background work of a server. Shared jobs are leased rows of the store, so that one process at a time does each
(I-62); local ones are about this process alone (its own certificates) and simply come round.

A job that fails is logged, counted and tried again, later each time up to five minutes; it never ends the others. A
lease is short and kept alive while its job runs, so that the work of a process that died is taken up within `LEASE`. A
holder that was paused for longer finds its next write Lost: that is no failure, somebody else does the work by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca.agree import agree
from rootward.ca.clock import trusted
from rootward.ca.installation import Installation
from rootward.ca.publish import publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.sequence import keep_up
from rootward.ca.succession import settle
from rootward.core.problems import Problem
from rootward.fleet.calendar import remind
from rootward.fleet.replacement import recount
from rootward.store import authorizations, certificates, db, idempotency, jobs, nonces
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()

LEASE: Final = timedelta(seconds=30)
KEEP_IDEMPOTENCY: Final = timedelta(hours=24)
KEEP_NONCES: Final = timedelta(hours=1)
_TURN_SECONDS: Final = 1.0
_BEGIN_EVERY: Final = timedelta(seconds=0.2)
_LONGEST_REST: Final = 30.0
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
    """Forget idempotency keys after a day (the contract's time), by a clock that is not in doubt."""

    def forget(conn: Connection) -> None:
        fence.run(conn)
        last = trusted(conn)
        now = inst.clock() if last is None else min(inst.clock(), last)
        idempotency.forget(now - KEEP_IDEMPOTENCY).run(conn)

    await inst.db.write(forget)


async def forget_nonces(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Forget used ACME nonces an hour after they could be used at all: no replica's clock is so far behind."""

    def forget(conn: Connection) -> int:
        fence.run(conn)
        last = trusted(conn)
        now = inst.clock() if last is None else min(inst.clock(), last)
        return nonces.forget(conn, now - KEEP_NONCES)

    while await inst.db.write(forget):
        continue


JOBS: Final[dict[str, Job]] = {
    "sequence": Job(timedelta(seconds=1), keep_up),
    "publish": Job(timedelta(seconds=5), publish_due),
    "reconcile": Job(timedelta(seconds=30), reconcile),
    "index": Job(timedelta(seconds=3), index_names),
    "agree": Job(timedelta(hours=1), agree),
    "succession": Job(timedelta(seconds=30), settle),
    "replacement": Job(timedelta(seconds=30), recount),
    "idempotency": Job(timedelta(hours=1), forget_idempotency),
    "nonces": Job(timedelta(minutes=10), forget_nonces),
    "calendar": Job(timedelta(hours=1), remind),
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
                        await self._inst.db.write(_new(name))
                    known = True
                due, put_off = await self._inst.db.read(self._to_do)
                for row in put_off:
                    await self._inst.db.write(_new(row.name))
            except Problem as problem:
                self._failed("worker", problem)  # the store is away: the next turn may find it
                due = ()
            for row in due:
                if row.name in self._shared and row.name not in self._running:
                    task = asyncio.create_task(self._leased(row.name, self._shared[row.name]))
                    self._running[row.name] = task
                    telemetry.LEASES_HELD.set(len(self._running))
                    task.add_done_callback(partial(self._ended, row.name))
            await self._pause(_TURN_SECONDS)

    def _to_do(self, conn: Connection) -> tuple[Sequence[jobs.Job], Sequence[jobs.Job]]:
        """Jobs to claim, and those put off for longer than any is: a clock ran ahead then and was put right."""
        now = db.clock(conn)
        put_off = [
            row
            for row in jobs.list(conn)
            if row.name in self._shared and row.due_at > now + 2 * max(self._shared[row.name].every, _SLOWEST)
        ]
        return jobs.due(conn, now), put_off

    async def _rounds(self, name: str, job: Job) -> None:
        while not self._stopping.is_set():
            right = await self._try(name, job, UNFENCED)
            if right is None:
                self._inst.process.failing.pop(name, None)
            else:
                self._inst.process.failing[name] = right
            await self._pause((job.every if right is None else self._again(name, job)).total_seconds())

    async def _leased(self, name: str, job: Job) -> None:
        try:
            fence = await self._inst.db.write(lambda conn: _claim(conn, name, self._inst.db.lease))
        except Problem as problem:
            self._failed(name, problem)
            return
        if fence is not None:
            failpoint("job.claimed")
            await self._hold(name, job, fence)

    async def _hold(self, name: str, job: Job, fence: int) -> None:
        """Run a job whose lease is ours, and give the lease back with how it went."""
        keeper = asyncio.create_task(self._keep(name, fence))
        began = time.monotonic()
        try:
            failure = await self._try(name, job, jobs.fenced(name, fence=fence))
        finally:
            keeper.cancel()
        failpoint("job.carried-out")
        again = rest(job, time.monotonic() - began) if failure is None else self._again(name, job)

        def end(conn: Connection) -> None:
            # By the database's clock, like the lease: a replica whose own clock is wrong must not put the job off.
            now = db.clock(conn)
            if failure is None:
                jobs.done(name, fence=fence, at=now, again=now + again).run(conn)
            else:
                jobs.failed(name, fence=fence, failure=failure, again=now + again).run(conn)

        try:
            await self._inst.db.write(end)
        except Lost:
            self._failures.pop(name, None)
            telemetry.LEASES_LOST.labels(name).inc()
            log.info("job.lost", job=name)  # it took longer than its lease, and somebody else has it by now
        except Problem as problem:
            log.warning("job.end", job=name, error=str(problem))  # the lease runs out by itself

    async def _keep(self, name: str, fence: int) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with suppress(Problem, Lost):  # tried again in a moment; each write of a leased job has its own fence
                await self._inst.db.write(lambda conn: _renew(conn, name, fence))

    async def begin(self, name: str, ready: Callable[[], Awaitable[bool]]) -> None:
        """Run the shared job `name` once before anything is served, under its lease. Where another process holds it,
        wait until that one has made things `ready`, or its lease has run out.
        """
        job, tries = self._shared[name], int(LEASE / _BEGIN_EVERY) + 10
        for _ in range(tries):
            if await ready():
                return
            fence = await self._inst.db.write(lambda conn: _claim(conn, name, self._inst.db.lease, wake=True))
            if fence is not None:
                await self._hold(name, job, fence)
                return
            await asyncio.sleep(_BEGIN_EVERY.total_seconds())

    async def _try(self, name: str, job: Job, fence: Rows) -> str | None:
        """What went wrong, in a few words for the job's row; None when nothing did."""
        try:
            await job.run(self._inst, fence)
        except Lost as error:
            if not fence.steps or await self._holds(fence):
                return self._failed(name, error)
            return "the lease was lost"
        except Exception as error:  # noqa: BLE001  # a job may fail in any way: it is logged whole, counted and tried again
            return self._failed(name, error)
        self._failures.pop(name, None)
        telemetry.JOB_RUNS.labels(name, "done").inc()
        telemetry.JOB_LAST.labels(name).set_to_current_time()
        log.debug("job.done", job=name)
        return None

    async def _holds(self, fence: Rows) -> bool:
        """Whether the lease is still ours; where nobody can tell, it is taken to be."""
        try:
            await self._inst.db.write(fence)
        except Lost:
            return False
        except Problem:
            return True
        return True

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
        telemetry.LEASES_HELD.set(len(self._running))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def rest(job: Job, seconds: float) -> timedelta:
    """How long a job rests after a run that took so many seconds: twice as long, so that it takes a third of the time
    at most. A CRL that takes ten seconds, came just too early and is made again is still there within a minute (I-15).
    """
    return max(job.every, timedelta(seconds=min(2 * seconds, _LONGEST_REST)))


def _claim(conn: Connection, name: str, lease: str, *, wake: bool = False) -> int | None:
    """The fence of a new lease; with `wake` also before the job is due."""
    now = db.clock(conn)
    if wake:
        _new(name)(conn)
    return jobs.claim(conn, name, lease=lease, now=now, until=now + LEASE)


def _new(name: str) -> Callable[[Connection], None]:
    """The job is there, and due now."""

    def write(conn: Connection) -> None:
        now = db.clock(conn)
        (jobs.ensure(name, due_at=now) + jobs.set_due(name, at=now)).run(conn)

    return write


def _renew(conn: Connection, name: str, fence: int) -> None:
    jobs.renew(name, fence=fence, until=db.clock(conn) + LEASE).run(conn)


async def break_leases(inst: Installation) -> None:
    """On SQLite, where the lock file proves that every other process is dead, their work need not wait for its
    leases' ends.
    """
    if inst.db.dialect == "sqlite":
        await inst.db.write(lambda conn: jobs.break_leases(but=inst.db.lease, now=db.clock(conn)).run(conn))
        await inst.db.write(authorizations.break_leases(but=inst.db.lease))
