"""Closing what a dead process left open: every intent without an end becomes an orphan (I-05).

Whether its signature was made cannot be known, so it counts as issued, is revoked at once, and its serial is burnt.
It is never signed again; the asker's retry gets a new intent that names it. On SQLite the lock file proves that every
other process is dead; on PostgreSQL another process's intent is let alone until its lease has run out. This process's
own attempts are in `in_flight` for as long as they run.
"""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.store import certificates, events, requests
from rootward.store.db import clock
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()


async def reconcile(inst: Installation, fence: Rows = UNFENCED) -> int:
    """Close every open intent that nobody works on; gives how many there were."""

    def abandoned(conn: Connection) -> list[certificates.Certificate]:
        lease = inst.db.lease
        mine = [row for row in certificates.open_intents(conn) if row.lease == lease]
        return mine + certificates.abandoned(conn, lease=lease, now=clock(conn))

    # Looked up after the read: what ended meanwhile is in neither, and its closing below comes too late (Lost).
    stale = [row for row in await inst.db.read(abandoned) if row.id not in inst.process.in_flight]
    if stale:
        failpoint("reconcile.found")
    closed = 0
    for row in stale:
        now = inst.clock()

        def close(conn: Connection, row: certificates.Certificate = row) -> None:
            fence.run(conn)
            certificates.orphan(row.id, at=now, lease=row.lease).run(conn)  # noqa: B023  # awaited before the next turn
            requests.give_back(row.id, at=now).run(conn)  # noqa: B023  # as above
            events.record(
                "issue.orphaned",
                actor=SYSTEM,
                authority=row.authority,
                certificate=row.id,
                request_id=row.request_id,
                data={"serial": row.serial.hex(), "requester": row.requester, "tbs": row.tbs.hex()},
                at=now,  # noqa: B023  # as above
            ).run(conn)

        try:
            await inst.db.write(close)
        except Lost:
            continue  # it came to its end meanwhile
        finally:
            inst.process.told += 1
        failpoint("reconcile.closed")
        closed += 1
        telemetry.ORPHANS.inc()
        log.warning("issue.orphaned", certificate=row.id, serial=row.serial.hex(), requester=row.requester)
    return closed
