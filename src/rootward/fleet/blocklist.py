"""Public keys that never get a certificate again: adding to the list is for system-admins and an event; nothing is
ever taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from rootward.ca.access import Caller, Principal, require
from rootward.ca.installation import Installation
from rootward.core.roles import Role
from rootward.store import blocked, events
from rootward.store.schema import blocked_keys

_c = blocked_keys.c


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """`key_id` is the SHA-256 of the SubjectPublicKeyInfo, hex."""

    key_id: str
    why: str
    at: datetime


def may_block(principal: Principal) -> None:
    """Problem RW-FORBIDDEN for who may not add to the list."""
    require(principal, Role.SYSTEM_ADMIN)


async def add(inst: Installation, keys: Sequence[tuple[str, str]], caller: Caller) -> int:
    """Block keys, pairs of id and reason, at most a few thousand; gives how many are new. RW-FORBIDDEN."""
    may_block(caller.principal)
    now = inst.clock()

    def apply(conn: Connection) -> int:
        added = blocked.add_many(conn, keys, at=now)
        if added:
            data = {"added": added, "keys": [key_id for key_id, _ in keys]}
            event = events.record(
                "key.blocked", actor=caller.principal.id, request_id=caller.request_id, at=now, data=data
            )
            event.run(conn)
        return added

    return await inst.db.write(apply)


async def page(inst: Installation, caller: Caller, *, after: str | None, limit: int) -> list[BlockedKey]:
    """At most `limit` blocked keys past `after`, by id; for system-admins and for auditors of everything.
    RW-FORBIDDEN.
    """
    if not caller.principal.holds(Role.AUDITOR):
        require(caller.principal, Role.SYSTEM_ADMIN)
    query = select(_c.key_id, _c.why, _c.at).order_by(_c.key_id).limit(limit)
    if after is not None:
        query = query.where(_c.key_id > after)
    return await inst.db.read(lambda conn: [BlockedKey(*row) for row in conn.execute(query)])
