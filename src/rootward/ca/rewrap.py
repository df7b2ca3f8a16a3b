"""Another key-encryption key (KEK): everything that is sealed with the old one is sealed with the new one instead,
while the installation serves. The files first, then the secrets in the store, in one transaction with the event.

From the moment on in which the new KEK is the current one nothing is sealed with the old one (`keys/ring.py`), so what
is left only gets less. Cut off anywhere, the same call goes on. When it has returned, the old KEK may go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection

from rootward.ca import secret
from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.keys import Sealer, key_files, reseal
from rootward.keys.file import sealed_otherwise
from rootward.keys.ring import Change
from rootward.store import events, facts
from rootward.store.failpoint import failpoint

log = structlog.get_logger()

BEGUN: Final = "kek.change"  # the fact: since when, and from which id to which
DONE: Final = "kek.rewrapped"


@dataclass(frozen=True)
class Rewrapped:
    """All that is sealed with the KEK `new` now: key files, and secrets in the store. `old` and `new` are ids."""

    old: str
    new: str
    files: int
    stored: int


async def rewrap(inst: Installation, folder: Path, change: Change) -> Rewrapped:
    """Seal every key file in `folder` and every secret in the store with the new KEK; again, where it is done: the same
    answer. Problem RW-KEK, RW-KEY-FILE for what neither KEK opens; it names the file.
    """
    said = _said(change)
    begun = await inst.db.read(lambda conn: facts.get(conn, BEGUN))
    if begun is None or begun.data != said:
        await inst.db.write(facts.put(BEGUN, at=inst.clock(), data=said))
    await asyncio.to_thread(reseal, folder, old=change.old, new=change.new)
    failpoint("kek.files-sealed")
    files = len(await asyncio.to_thread(key_files, folder))
    old, new = Sealer(change.old), Sealer(change.new)

    def seal(conn: Connection) -> Rewrapped:
        now = inst.clock()
        done = Rewrapped(change.old.id, change.new.id, files, secret.reseal(conn, old=old, new=new, at=now))
        before = facts.get(conn, DONE)
        if before is None or before.data != said:
            facts.put(DONE, at=now, data=said).run(conn)
            data = {"old": done.old, "new": done.new, "files": done.files, "stored": done.stored}
            events.record("kek.rewrapped", actor=SYSTEM, request_id="system:kek", data=data, at=now).run(conn)
            log.warning("kek.rewrapped", old=done.old, new=done.new, files=done.files, stored=done.stored)
        return done

    done = await inst.db.write(seal)
    failpoint("kek.secrets-sealed")
    return done


async def is_done(inst: Installation, folder: Path, change: Change) -> bool:
    """Whether there is nothing to do any more for this change: a look, without a write."""

    def read(conn: Connection) -> bool:
        fact = facts.get(conn, DONE)
        return fact is not None and fact.data == _said(change) and secret.left(conn, new=Sealer(change.new)) == 0

    return await inst.db.read(read) and not await asyncio.to_thread(sealed_otherwise, folder, kek=change.new)


async def since(inst: Installation, change: Change) -> datetime:
    """When this change was first seen: now, where it was not."""
    fact = await inst.db.read(lambda conn: facts.get(conn, BEGUN))
    return fact.at if fact is not None and fact.data == _said(change) else inst.clock()


def _said(change: Change) -> str:
    return f"{change.old.id} {change.new.id}"
