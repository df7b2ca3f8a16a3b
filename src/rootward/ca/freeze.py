"""Freezing an authority: it issues nothing more at once; its CRL and OCSP go on."""

from __future__ import annotations

import dataclasses

import structlog
from sqlalchemy import Connection

from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.store import authorities, events
from rootward.store.failpoint import failpoint

log = structlog.get_logger()


async def freeze(inst: Installation, name: str, why: str, caller: Caller) -> None:
    """Freeze `name` with its event; a second time changes nothing but adds the event."""
    now = inst.clock()
    record = events.record(
        "authority.frozen",
        actor=caller.principal.id,
        authority=name,
        certificate=None,
        request_id=caller.request_id,
        data={"why": why},
        at=now,
    )

    def apply(conn: Connection) -> None:
        if not authorities.frozen(conn, name):
            authorities.freeze(name, at=now).run(conn)
        record.run(conn)

    # In this process first: it holds also where the store cannot be written.
    inst.authorities[name] = dataclasses.replace(inst.authority(name), frozen_at=now)
    log.error("authority.frozen", authority=name, why=why)
    failpoint("freeze.held")
    await inst.db.write(apply)
    failpoint("freeze.stored")
