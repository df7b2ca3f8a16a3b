"""Freezing an authority and ending it: nothing more is issued from it at once, in every process; its CRL, its OCSP and
its responder's certificate go on (ADR 0020).

The store decides: each intent's own statement asks whether its authority may issue. What is known of it here is for
showing, and is read again by `look_again`. An authority whose key signed wrongly (I-02) also stops in this process
where the store cannot be told.
"""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import Connection

from rootward.ca.access import Caller, require, require_officer
from rootward.ca.installation import Authority, Installation
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.store import authorities, events
from rootward.store.failpoint import failpoint

log = structlog.get_logger()


async def freeze_by(inst: Installation, name: str, reason: str | None, caller: Caller) -> Authority:
    """Freeze `name` for an officer or admin of it. Again: the same answer, and no second event.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN.
    """
    authority = inst.authority(name)
    require_officer(caller.principal, authority.name)
    await freeze(inst, name, reason, caller)
    return inst.authority(name)


async def unfreeze_by(inst: Installation, name: str, reason: str | None, caller: Caller) -> Authority:
    """Let `name` issue again, for an admin of it; what froze it is theirs to have mended. Again: the same answer.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN.
    """
    require(caller.principal, Role.ADMIN, authority=inst.authority(name).name)
    now = inst.clock()
    record = events.record(
        "authority.unfrozen",
        actor=caller.principal.id,
        authority=name,
        request_id=caller.request_id,
        data={"reason": reason},
        at=now,
    )

    def apply(conn: Connection) -> bool:
        authorities.wait_for_intents(conn, name)
        row = authorities.by_name(conn, name)
        if row is None or row.frozen_at is None:
            return False
        (authorities.thaw(name) + record).run(conn)
        return True

    changed = await inst.db.write(apply)
    inst.process.stopped.discard(name)
    if changed:
        log.warning("authority.unfrozen", authority=name, reason=reason)
    await look_again(inst)
    return inst.authority(name)


async def refusal(inst: Installation, name: str) -> Problem:
    """RW-FROZEN as the store has it now: since when, and who ends it."""
    row = await inst.db.look(lambda conn: authorities.by_name(conn, name))
    if row is not None and row.compromised_at is not None:
        return Problem("RW-FROZEN", f"The authority {name} is compromised: it never issues again.")
    if row is not None and row.retired_at is not None:
        return Problem("RW-FROZEN", f"The authority {name} is retired: it never issues again.")
    if row is not None and row.frozen_at is not None:
        detail = f"The authority {name} is frozen since {rfc3339(row.frozen_at)}"
        return Problem("RW-FROZEN", f"{detail}. An admin ends it with rootward ca unfreeze {name}.")
    return Problem("RW-FROZEN", f"The authority {name} does not issue now.")


async def freeze(inst: Installation, name: str, reason: str | None, caller: Caller) -> None:
    """Freeze `name` with its event, whoever asks. Where it is frozen already, nothing happens."""
    now = inst.clock()
    record = events.record(
        "authority.frozen",
        actor=caller.principal.id,
        authority=name,
        certificate=None,
        request_id=caller.request_id,
        data={"reason": reason},
        at=now,
    )

    def apply(conn: Connection) -> None:
        authorities.wait_for_intents(conn, name)
        row = authorities.by_name(conn, name)
        if row is not None and row.frozen_at is None:
            (authorities.freeze(name, at=now) + record).run(conn)

    inst.process.stopped.add(name)  # in this process first: it holds also where the store cannot be written
    log.error("authority.frozen", authority=name, reason=reason)
    failpoint("freeze.held")
    await inst.db.write(apply)
    failpoint("freeze.stored")
    inst.process.stopped.discard(name)
    await look_again(inst)


def end(conn: Connection, name: str, caller: Caller, at: datetime) -> None:
    """With the revocation of an authority's own certificate, the authority and all below it never issue again (I-22):
    in the caller's transaction.
    """
    ended = [name]
    parents = {one.name: one.parent for one in authorities.list(conn)}
    for one in ended:
        ended += [below for below, parent in parents.items() if parent == one and below not in ended]
        _end(conn, one, f"the certificate of {name} is revoked", caller, at)


def _end(conn: Connection, name: str, why: str, caller: Caller, at: datetime) -> None:
    authorities.wait_for_intents(conn, name)
    row = authorities.by_name(conn, name)
    if row is None or row.retired_at is not None:
        return
    authorities.retire(name, at=at).run(conn)
    events.record(
        "authority.retired",
        actor=caller.principal.id,
        authority=name,
        request_id=caller.request_id,
        data={"reason": why},
        at=at,
    ).run(conn)


async def look_again(inst: Installation) -> None:
    """Read what another process may have frozen, unfrozen or retired: for whoever shows it. Authorities that are new
    come by `certified.learn_new`.
    """
    inst.learn(await inst.db.read(authorities.list))
