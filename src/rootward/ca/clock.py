"""The clock against what was written down: one that ran backwards must not date certificates (I-61).

The reading is kept in the store each minute. A clock that ran ahead and was put right stands behind it; whoever
looked into that accepts it with `rootward doctor --accept-clock`, which is an event.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.store import events, facts

log = structlog.get_logger()
LAST = "clock.last"
TOLERANCE = timedelta(seconds=60)


async def check_clock(inst: Installation) -> None:
    """Problem RW-CLOCK where the clock is behind the last reading by more than the tolerance."""
    last = await inst.db.read(lambda conn: facts.get(conn, LAST))
    now = inst.clock()
    if last is not None and now < last.at - TOLERANCE:
        raise Problem(
            "RW-CLOCK",
            f"The clock says {rfc3339(now)}, but this installation already ran at {rfc3339(last.at)}. "
            "Set the clock right; "
            "if it ran ahead then and is right now, run: rootward doctor --accept-clock",
        )


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
        elif now < last.at - TOLERANCE:
            log.error("clock.behind", now=rfc3339(now), last=rfc3339(last.at))

    await inst.db.write(write)


async def accept_clock(inst: Installation) -> None:
    """Take the present reading for the right one."""
    now = inst.clock()

    def write(conn: Connection) -> None:
        last = facts.get(conn, LAST)
        facts.put(LAST, at=now).run(conn)
        was = None if last is None else rfc3339(last.at)
        events.record(
            "clock.accepted", actor=SYSTEM, request_id="system:clock", at=now, data={"was": was, "is": rfc3339(now)}
        ).run(conn)

    await inst.db.write(write)
