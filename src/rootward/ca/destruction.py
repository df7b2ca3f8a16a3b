"""The end of an authority's key: agreed to by two people, done in the key's own store, and recorded.

An authority's key is needed for as long as somebody asks about what it certified: its CRL and its responders hang on
it. So it goes when its last certificate has ended, and not before, unless it is compromised and somebody says so: what
it signs proves nothing then.

What is done cannot be taken back, so it is noted before as begun and after as done. From the first note on the key is
not loaded any more, whether it is there or not; cut off in between, the same yes carries it out again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import Connection

from rootward.ca import freeze, own, paper, proposals
from rootward.ca.access import Caller, require
from rootward.ca.installation import DESTROYING, Authority, Installation
from rootward.ca.succession import written
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.keys import RemoteBackend
from rootward.store import authorities, events, facts, succession
from rootward.store.failpoint import failpoint
from rootward.store.proposals import Proposal, still_agreed
from rootward.store.rows import Rows

log = structlog.get_logger()

KIND: Final = "key.destroy"
# What `Backend.delete` does, as the record says it. What a disk did below it nobody knows.
HOW: Final = {
    "file": "the file was overwritten and unlinked",
    "memory": "forgotten",
    "pkcs11": "destroyed in its token (C_DestroyObject)",
    "aws-kms": "its deletion was scheduled over there",
    "gcp-kms": "its destruction was scheduled over there",
    "azure-kv": "it was deleted over there; the vault may keep it until it is purged",
}
_GONE: Final = "it was not there any more"


async def propose(inst: Installation, name: str, compromised: bool, caller: Caller) -> Proposal:
    """Destroy the key of `name`. `compromised` says that what it certified may lose its CRL, which only a compromised
    authority's may.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN; RW-CONFLICT where the key is needed, offline, a signer's or gone.
    """
    authority = inst.authority(name)
    require(caller.principal, Role.ADMIN, authority=authority.name)
    await _check(inst, authority, compromised)
    return await proposals.propose(inst, KIND, authority.name, {"compromised": compromised}, caller)


async def carry_out(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """The act."""
    await freeze.look_again(inst)
    authority = inst.authority(proposal.authority)
    await _check(inst, authority, bool(proposal.values()["compromised"]))
    store = inst.key_store(authority.backend or "")
    said: dict[str, object] = {
        "key": authority.issuer.key_id,  # SHA-256 of its SubjectPublicKeyInfo
        "label": authority.key_label,
        "key_store": authority.backend,
        "backend": store.name,
        "by": [proposal.proposed_by, caller.principal.id],
        "proposal": proposal.id,
    }
    await inst.db.write(lambda conn: _begin(conn, authority, proposal, caller, inst.clock(), said))
    failpoint("key.destroying")
    try:
        await asyncio.to_thread(store.delete, authority.key_label, authority.issuer.key_id)
        how = HOW.get(store.name, "deleted")
    except Problem as problem:
        if problem.code != "RW-KEY-MISSING":
            raise
        how = _GONE  # this very yes did it before and was cut off, or somebody else did
    failpoint("key.destroyed")
    now = inst.clock()

    def end(conn: Connection) -> None:
        authorities.wait_for_intents(conn, authority.name)
        authorities.destroy(authority.name, at=now).run(conn)
        facts.forget(DESTROYING + authority.name).run(conn)
        paper.give_up_crosses(conn, authority.name, caller, now)
        _event("key.destroyed", authority, caller, now, {**said, "how": how}).run(conn)
        proposals.carried_out(proposal, caller, now, {"how": how}).run(conn)

    await written(inst, end)
    log.warning("key.destroyed", authority=authority.name, key=authority.issuer.key_id, how=how)
    await freeze.look_again(inst)
    own.register(inst)


def _begin(
    conn: Connection, authority: Authority, proposal: Proposal, caller: Caller, now: datetime, said: dict[str, object]
) -> None:
    still_agreed(proposal.id, at=now).run(conn)  # else it is denied, and the key goes all the same
    if facts.get(conn, DESTROYING + authority.name) is None:
        facts.put_once(DESTROYING + authority.name, at=now).run(conn)
        _event("key.destruction-begun", authority, caller, now, said).run(conn)


async def _check(inst: Installation, authority: Authority, compromised: bool) -> None:
    name, now = authority.name, inst.clock()
    if authority.destroyed_at is not None:
        raise Problem("RW-CONFLICT", f"The key of {name} was destroyed {rfc3339(authority.destroyed_at)}.")
    if authority.backend is None:
        raise Problem("RW-CONFLICT", f"The key of {name} is not here: a ceremony destroys it.")
    if isinstance(inst.key_store(authority.backend), RemoteBackend):
        raise Problem("RW-CONFLICT", f"The key of {name} is a signer's: it is destroyed on the signer's own host.")
    if authority.retired_at is None and now <= authority.issuer.not_after:
        raise Problem("RW-CONFLICT", f"{name} is {authority.state}. Retire it first: rootward ca retire {name}")
    if compromised and authority.compromised_at is None:
        raise Problem("RW-CONFLICT", f"{name} is {authority.state}, and not compromised.", field="compromised")
    last = await inst.db.read(lambda conn: _last_end(conn, inst, authority, now))
    if last is not None and not compromised:
        raise Problem(
            "RW-CONFLICT",
            f"What {name} certified lasts until {rfc3339(last)}, and needs its CRL until then. Destroy the key after "
            "that. Only the key of a compromised authority can go before, with --compromised.",
        )


def _last_end(conn: Connection, inst: Installation, authority: Authority, now: datetime) -> datetime | None:
    below = [
        one.issuer.not_after
        for one in inst.authorities.values()
        if one.name != authority.name and authority.issuer.certificate in one.issuer.chain
    ]
    child = succession.last_child(conn, authority.name, now)
    return max((end for end in [*below, child] if end is not None and end > now), default=None)


def _event(kind: str, authority: Authority, caller: Caller, at: datetime, data: dict[str, object]) -> Rows:
    return events.record(
        kind, actor=caller.principal.id, authority=authority.name, request_id=caller.request_id, data=data, at=at
    )
