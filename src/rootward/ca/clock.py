"""The clock against what else is known of the time: one that is wrong must not date certificates (I-61).

Three witnesses. The last reading, which is written down each half minute: a clock that stands behind it went back.
The time that passed in this process (`Watch`), which no setting of the clock changes: a clock that went back by more
than the tolerance, or leapt ahead by a day and more, is in doubt from the very next issuance on. On PostgreSQL the
database's clock: it tells a replica whose own clock is wrong from one that is right, and a right leap from a wrong one.

While the clock is in doubt nothing is issued but the server's own certificates; revocation, CRLs and OCSP go on, by the
clock as it is. No reading is written down, so that a wrong one spoils nothing that is decided by it (what may be left
out of a CRL, which idempotency keys are forgotten). It ends by itself once the clock is right again. Whoever looked
into a clock that ran ahead before and is right now accepts it: `rootward doctor --accept-clock`, which is an event. A
leap ahead that was right is accepted by the next start, or by the database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.ca.reading import uptime
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.store import db, events, facts
from rootward.store.ids import new_id

log = structlog.get_logger()
LAST = "clock.last"
ACCEPTED = "clock.accepted"
HALT = "clock"
TOLERANCE = timedelta(seconds=60)
LEAP = timedelta(days=1)


class Watch:
    """The clock against the seconds that passed. `monotonic` counts them, also while the machine sleeps."""

    def __init__(self, inst: Installation, *, monotonic: Callable[[], float] = uptime) -> None:
        self._inst = inst
        self._monotonic = monotonic
        self._accepted: str | None = None
        self.sure = False  # no clock was believed yet

    def believe(self) -> None:
        """Take the clock as it stands for right."""
        self._wall, self._at = self._inst.clock(), self._monotonic()
        self.sure = True

    def __call__(self) -> Problem | None:
        """What is wrong, None where nothing is; asked before each issuance."""
        if not self.sure:
            return None
        wall, at = self._inst.clock(), self._monotonic()
        expected = self._wall + timedelta(seconds=at - self._at)
        if expected - TOLERANCE <= wall < expected + LEAP:
            self._wall, self._at = wall, at
            return None
        return _problem(
            f"The clock says {rfc3339(wall)}, but by the time that passed since this server started it should be "
            f"{rfc3339(expected.replace(microsecond=0))}. Nothing is issued until it is right; where it is right now, "
            "restart the server."
        )

    def heed(self, accepted: facts.Fact | None) -> None:
        """Believe the clock once more for each time that somebody accepted it since the first look."""
        mark = "" if accepted is None else accepted.data
        if self._accepted not in {None, mark}:
            self.believe()
        self._accepted = mark


async def begin_clock(inst: Installation, *, monotonic: Callable[[], float] = uptime) -> None:
    """Watch the clock from now on, for a server's start."""
    inst.process.stops[HALT] = Watch(inst, monotonic=monotonic)
    await watch_clock(inst)


async def watch_clock(inst: Installation) -> None:
    """Halt all issuing while the clock is in doubt, and let it go on once it is not; write a good reading down."""
    try:
        await check_clock(inst)
    except Problem as problem:
        if problem.code != "RW-CLOCK":
            raise
        if HALT not in inst.process.halted:
            log.error("clock.doubt", detail=problem.detail)
        inst.process.halted[HALT] = problem
        return
    if inst.process.halted.pop(HALT, None) is not None:
        log.info("clock.right")
    await note_clock(inst)


async def check_clock(inst: Installation) -> None:
    """Problem RW-CLOCK where the clock is behind the last reading or beside the database's by more than the tolerance,
    or is not where the time that passed has brought it.
    """
    now = inst.clock()

    def look(conn: Connection) -> tuple[datetime | None, facts.Fact | None, facts.Fact | None]:
        # On SQLite it is the same clock and says nothing.
        theirs = None if conn.dialect.name == "sqlite" else db.clock(conn)
        return theirs, facts.get(conn, LAST), facts.get(conn, ACCEPTED)

    theirs, last, accepted = await inst.db.read(look)
    before, now = now, inst.clock()  # the database was asked somewhere in between
    watch = inst.process.stops.get(HALT)
    if theirs is not None and not before - TOLERANCE <= theirs <= now + TOLERANCE:
        raise _problem(
            f"The clock says {rfc3339(now)}, the database's {rfc3339(theirs)}. Set the wrong one right; issuing "
            "goes on by itself then."
        )
    if last is not None and now < last.at - TOLERANCE:
        raise _problem(
            f"The clock says {rfc3339(now)}, but this installation already ran at {rfc3339(last.at)}. "
            "Set the clock right; "
            "if it ran ahead then and is right now, run: rootward doctor --accept-clock"
        )
    if isinstance(watch, Watch):
        watch.heed(accepted)
        if theirs is not None or not watch.sure:
            watch.believe()
        found = watch()
        if found is not None:
            raise found


def trusted(conn: Connection) -> datetime | None:
    """The last reading that was written down, which no leap of the clock has reached; None where there is none."""
    last = facts.get(conn, LAST)
    return None if last is None else last.at


async def note_clock(inst: Installation) -> None:
    """Write the reading down; it never goes back by itself."""
    now = inst.clock()

    def write(conn: Connection) -> None:
        last = facts.get(conn, LAST)
        if last is None or last.at < now:
            facts.put(LAST, at=now).run(conn)

    await inst.db.write(write)


async def accept_clock(inst: Installation) -> None:
    """Take the present reading for the right one."""
    now = inst.clock()

    def write(conn: Connection) -> None:
        last = facts.get(conn, LAST)
        (facts.put(LAST, at=now) + facts.put(ACCEPTED, at=now, data=new_id())).run(conn)
        was = None if last is None else rfc3339(last.at)
        events.record(
            "clock.accepted", actor=SYSTEM, request_id="system:clock", at=now, data={"was": was, "is": rfc3339(now)}
        ).run(conn)

    await inst.db.write(write)


def _problem(detail: str) -> Problem:
    return Problem("RW-CLOCK", detail, retry_after=60)
