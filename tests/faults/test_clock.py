"""Clocks that are wrong (F8), at the start and under a running server: nothing is issued by one, status goes on,
nothing is lost by it, and there is a way out. The clock and the seconds that pass are the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from rootward.ca.clock import TOLERANCE, accept_clock, begin_clock, trusted, watch_clock
from rootward.ca.issue import Issued
from rootward.ca.publish import publish, publish_due
from rootward.ca.revoke import revoke
from rootward.core.crl import parse_crl
from rootward.core.problems import Kind, Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.core.times import whole_second
from rootward.fleet import health
from rootward.store import db, jobs
from rootward.worker import JOBS, Worker, forget_idempotency
from tests.faults.scenes import Wish, attempt, wish
from tests.support.faults import AUTHORITY, Home, Open, books, listed, opened, served, status

DAY = timedelta(days=1)
FAR = 400 * DAY


@dataclass
class Time:
    """The right time, the error of the machine's clock, and the seconds that pass."""

    wrong: timedelta = timedelta()
    passed: float = 1000.0
    real: datetime = field(default_factory=lambda: whole_second(datetime.now(UTC)))

    def clock(self) -> datetime:
        """What the machine shows."""
        return self.real + self.wrong

    def monotonic(self) -> float:
        """What its counter shows."""
        return self.passed

    def go_by(self, span: timedelta) -> None:
        """Time passes."""
        self.real += span
        self.passed += span.total_seconds()


@asynccontextmanager
async def running(home: Home, time: Time) -> AsyncIterator[Open]:
    """The home as a server has it that starts now."""
    async with opened(home, serving=False) as made:
        made.inst.clock = time.clock  # only now: tokens have a clock too
        await begin_clock(made.inst, monotonic=time.monotonic)
        await made.responder.renew()
        await publish_due(made.inst)
        yield made


async def refused(made: Open, wanted: Wish | None = None) -> bool:
    """Whether an ask is refused for the clock, in the form that a client can act on."""
    try:
        await attempt(made, wanted or wish())
    except Problem as problem:
        if (problem.code, problem.kind, problem.retry_after) != ("RW-CLOCK", Kind.UNAVAILABLE, 60):
            raise
        return True
    return False


async def given(made: Open, wanted: Wish | None = None) -> Issued:
    """What is issued, or was before."""
    done = await attempt(made, wanted or wish())
    assert isinstance(done, Issued)
    return done


async def status_goes_on(made: Open, good: Issued, bad: Issued) -> None:
    """What must work whatever the clock says: revocation, OCSP and a CRL that is good by this clock."""
    await revoke(made.inst, bad.certificate.id, RevocationReason.SUPERSEDED, made.admin)
    assert isinstance(await status(made, bad.certificate.serial), Revoked)
    assert await status(made, good.certificate.serial) == Good()
    await publish_due(made.inst)
    assert bad.certificate.serial in await listed(made)


# ── at the start ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-61")
def test_back_by_a_day_at_the_start(fresh: Home) -> None:
    time = Time()

    async def main() -> None:
        async with running(fresh, time) as made:
            good, bad = await given(made), await given(made)
        time.wrong = -DAY
        async with running(fresh, time) as made:  # which serves
            assert await refused(made)
            await status_goes_on(made, good, bad)
            assert "halted.clock" in {check.name for check in await health.checks(made.inst)}
            time.wrong = timedelta()
            await watch_clock(made.inst)  # the server's job
            assert not await refused(made)
            await publish_due(made.inst)
            await served(made)
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_ahead_by_400_days_and_back_over_restarts(sqlite_home: Home) -> None:
    """SQLite: nobody else knows the time, so a server that starts in the far future believes it. Put right, it serves
    and issues nothing until somebody accepts the clock.
    """
    time = Time()

    async def main() -> None:
        async with running(sqlite_home, time) as made:
            good, bad = await given(made), await given(made)
            before = await served(made)
        time.wrong = FAR
        async with running(sqlite_home, time) as made:
            assert (await served(made)).number > before.number
        time.wrong = timedelta()
        async with running(sqlite_home, time) as made:
            assert await refused(made)
            await status_goes_on(made, good, bad)
            now = await served(made)
            assert now.number > before.number
        async with opened(sqlite_home, serving=False, clock=time.clock) as made:
            await accept_clock(made.inst)  # rootward doctor --accept-clock
        async with running(sqlite_home, time) as made:
            assert not await refused(made)
            assert (await served(made)).number >= now.number
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("wrong", [FAR, -DAY, 2 * TOLERANCE, -2 * TOLERANCE], ids=str)
def test_a_replica_whose_clock_is_beside_the_databases(postgres_home: Home, wrong: timedelta) -> None:
    """It alone stops; what it reads is not written down, so that the others go on."""
    bad, right = Time(wrong), Time()

    async def main() -> None:
        async with running(postgres_home, bad) as made, running(postgres_home, right) as other:
            assert await refused(made)
            assert not await refused(other)
            await watch_clock(made.inst)
            await watch_clock(other.inst)
            assert not await refused(other)
            last = await other.inst.db.read(trusted)
            assert last is not None
            assert abs(last - right.real) < TOLERANCE
            bad.wrong = timedelta()
            await watch_clock(made.inst)
            assert not await refused(made)

    asyncio.run(main())


# ── under a running server ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("wrong", [-DAY, FAR, -FAR, timedelta(seconds=-61)], ids=str)
def test_a_leap_stops_issuing_at_once_and_only_as_long_as_it_lasts(fresh: Home, wrong: timedelta) -> None:
    time = Time()

    async def main() -> None:
        async with running(fresh, time) as made:
            good, bad = await given(made), await given(made)
            keyed = wish("keyed")
            first = (await given(made, keyed)).certificate.id
            noted = await made.inst.db.read(trusted)
            time.wrong = wrong
            assert await refused(made)  # before any job has looked
            await watch_clock(made.inst)
            assert await refused(made)
            assert (await given(made, keyed)).certificate.id == first  # what was given before is given again
            assert await made.inst.db.read(trusted) == noted
            if wrong > -FAR:  # the authority itself begins after that
                await made.responder.renew()
                await status_goes_on(made, good, bad)
            await forget_idempotency(made.inst)
            time.wrong = timedelta()
            time.go_by(timedelta(seconds=30))
            await made.responder.renew()
            await publish_due(made.inst)
            await watch_clock(made.inst)
            assert not await refused(made)
            assert (await given(made, keyed)).certificate.id == first  # its key was not forgotten
            assert await status(made, good.certificate.serial) == Good()
            await served(made)
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_a_clock_that_is_put_right_by_a_little_is_no_trouble(fresh: Home) -> None:
    time = Time()

    async def main() -> None:
        async with running(fresh, time) as made:
            for wrong in (timedelta(seconds=-40), timedelta(seconds=15), timedelta()):
                time.wrong = wrong
                time.go_by(timedelta(seconds=1))
                assert not await refused(made)
                await watch_clock(made.inst)
                assert not await refused(made)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_a_leap_that_was_right_is_believed_once_it_is_accepted(sqlite_home: Home) -> None:
    """A machine that slept without counting: the clock is right, the seconds are not."""
    time = Time()

    async def main() -> None:
        async with running(sqlite_home, time) as made:
            time.real += 30 * DAY
            await watch_clock(made.inst)
            assert await refused(made)
        async with running(sqlite_home, time) as made:  # a new start
            assert not await refused(made)

    asyncio.run(main())


# ── what a wrong clock must not have done ─────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-16")
@pytest.mark.invariant("I-21")
def test_after_a_leap_two_crls_still_show_every_entry(fresh: Home) -> None:
    time = Time()

    async def main() -> None:
        async with opened(fresh, clock=time.clock) as made:  # without the watch, which alone would keep them
            done = await given(made)
            await revoke(made.inst, done.certificate.id, RevocationReason.SUPERSEDED, made.admin)
            authority = made.inst.authority(AUTHORITY)
            for _ in range(3):
                await publish(made.inst, authority)
            time.wrong = FAR  # its certificate has ended by then, for long
            shown = []
            for _ in range(3):
                crl = await publish(made.inst, authority)
                assert crl.this_update > done.certificate.not_after
                shown.append(done.certificate.serial in {entry.serial for entry in parse_crl(crl.der)})
            assert shown == [True, True, False]
            time.wrong = timedelta()
            await publish(made.inst, authority)
            assert done.certificate.serial in await listed(made)

    asyncio.run(main())


@pytest.mark.invariant("I-21")
def test_while_the_clock_is_in_doubt_nothing_leaves_a_crl(fresh: Home) -> None:
    time = Time()

    async def main() -> None:
        async with running(fresh, time) as made:
            done = await given(made)
            await revoke(made.inst, done.certificate.id, RevocationReason.SUPERSEDED, made.admin)
            time.wrong = FAR
            for _ in range(5):
                await publish(made.inst, made.inst.authority(AUTHORITY))
                assert done.certificate.serial in await listed(made)

    asyncio.run(main())


@pytest.mark.invariant("I-19")
def test_a_job_that_was_put_off_by_a_wrong_clock_runs_again(fresh: Home) -> None:
    """A database's clock that ran ahead left a lease and a due time in the far future."""

    async def main() -> None:
        async with opened(fresh) as made:
            worker = Worker(made.inst)
            worker.start()
            await _ran(made)
            await worker.stop(5)
            far = "due_at = due_at + 34560000, lease = 'x', lease_until = due_at + 34560000, done_at = NULL"
            await made.inst.db.write(lambda conn: conn.exec_driver_sql(f"UPDATE jobs SET {far}").rowcount)  # noqa: S608  # no input
            worker = Worker(made.inst)
            worker.start()
            await _ran(made)
            await worker.stop(5)

    asyncio.run(main())


async def _ran(made: Open) -> None:
    for _ in range(600):
        rows = await made.inst.db.read(jobs.list)
        now = await made.inst.db.read(db.clock)
        done = {row.name for row in rows if row.done_at is not None and row.due_at < now + DAY}
        if {"publish", "reconcile"} <= done & JOBS.keys():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"jobs do not run: {rows}")
