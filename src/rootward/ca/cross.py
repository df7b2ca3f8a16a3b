"""Cross-signed certificates of authorities: taken in, listed, taken out of use. Who may is an admin of the authority.

What makes one good is `core/cross.py`, judged when it comes: a profile that is made later may give usages that it does
not allow, and it ends when it ends.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller, require
from rootward.ca.installation import Installation
from rootward.core.cross import Below, CrossChain, read_cross
from rootward.core.issuer import Issuer
from rootward.core.problems import Problem
from rootward.core.profile import Profile, usage_oid
from rootward.core.roles import Role
from rootward.store import cross as rows
from rootward.store import events, profiles
from rootward.store.cross import Cross
from rootward.store.errors import Lost, Taken
from rootward.store.rows import Rows

MOST = 8  # of one authority: every ACME download names all of them


async def listed(inst: Installation, authority: str) -> list[Cross]:
    """Those of an authority that are in use, the oldest first. Problem RW-NOT-FOUND."""
    name = inst.authority(authority).name
    return await inst.db.read(lambda conn: rows.of(conn, name))


async def add(inst: Installation, authority: str, chain_pem: bytes, caller: Caller) -> Cross:
    """Take a chain in (PEM, the cross-signed certificate first), also one that was removed before.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, those of `read_cross`, and RW-CONFLICT where it is in use already or there
    are too many.
    """
    name = inst.authority(authority).name
    require(caller.principal, Role.ADMIN, authority=name)
    chain, now = await read(inst, inst.authority(name).issuer, chain_pem), inst.clock()
    try:
        return await inst.db.write(lambda conn: keep(conn, name, chain, caller, now))
    except (Taken, Lost):  # somebody else, at this very moment
        raise _there() from None


async def read(inst: Installation, issuer: Issuer, chain_pem: bytes) -> CrossChain:
    """The chain (PEM), where it is one for this authority, which may be about to become one; Problems as `add`."""
    return read_cross(chain_pem, issuer, await _below(inst, issuer), now=inst.clock())


def keep(conn: Connection, authority: str, chain: CrossChain, caller: Caller, at: datetime) -> Cross:
    """Write it down with its event, in the caller's transaction. Problem RW-CONFLICT; Taken and Lost where somebody
    else does the same.
    """
    before = rows.by_hash(conn, chain.sha256)
    if before is not None and before.removed_at is None:
        raise _there()
    if len(rows.of(conn, authority)) >= MOST:
        raise Problem("RW-CONFLICT", f"{authority} has {MOST} cross-signed certificates; remove one first.")
    change = rows.add if before is None else rows.put_back
    change(authority, chain=chain.pem(), sha256=chain.sha256, at=at).run(conn)
    _event("authority.cross-added", authority, chain.sha256, caller, at).run(conn)
    return _known(rows.by_hash(conn, chain.sha256))


async def remove(inst: Installation, authority: str, sha256: str, caller: Caller) -> Cross:
    """Take it out of use. Problems: RW-NOT-FOUND (also where it was not in use), RW-FORBIDDEN."""
    name = inst.authority(authority).name
    require(caller.principal, Role.ADMIN, authority=name)
    now = inst.clock()

    def apply(conn: Connection) -> Cross | None:
        before = rows.by_hash(conn, sha256)
        if before is None or before.authority != name:
            return None
        rows.remove(sha256, at=now).run(conn)
        _event("authority.cross-removed", name, sha256, caller, now).run(conn)
        return rows.by_hash(conn, sha256)

    try:
        return _known(await inst.db.write(apply))
    except Lost:
        return _known(None)


async def _below(inst: Installation, issuer: Issuer) -> Below:
    """How deep the CAs below it go, and what the profiles of it and of them give now: their chains lead through it."""
    depths = {
        other.name: depth
        for other in inst.authorities.values()
        for depth, certificate in enumerate(other.issuer.chain)
        if certificate == issuer.certificate
    }
    found = await inst.db.read(profiles.list)
    bodies = [
        msgspec.json.decode(row.body, type=Profile)
        for row in found
        if row.authority in depths and row.retired_at is None
    ]
    usages = {profile.name: frozenset(map(usage_oid, profile.extended_key_usage)) for profile in bodies}
    return Below(max(depths.values(), default=0), usages)


def _event(kind: str, name: str, sha256: str, caller: Caller, at: datetime) -> Rows:
    return events.record(
        kind,
        actor=caller.principal.id,
        authority=name,
        request_id=caller.request_id,
        data={"sha256": sha256},
        at=at,
    )


def _there() -> Problem:
    return Problem("RW-CONFLICT", "This cross-signed certificate is in use already.", field="chain")


def _known(found: Cross | None) -> Cross:
    if found is None:
        raise Problem("RW-NOT-FOUND", "The authority uses no such cross-signed certificate.")
    return found
