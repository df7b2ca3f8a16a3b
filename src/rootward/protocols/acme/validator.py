"""Proving names: each chosen challenge is tried at once by the process that took it, and again where that can help
(RFC 8555 8.2). What is due is in the store, so that the work of a process that died is taken up by another.

Nothing here happens inside a transaction (I-53): a try is claimed, then the network is asked, then the end is written
where the claim still holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.protocols.acme.challenges import CHALLENGES, Failed, Task, Ways
from rootward.protocols.acme.documents import asked, name_of
from rootward.store import authorizations, certificates, db, events
from rootward.store.authorizations import Authorization
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()

LEASE: Final = timedelta(seconds=45)  # above the longest try
AT_ONCE: Final = 64
OF_ONE_ACCOUNT: Final = 16  # so that one account with slow targets does not hold up the others
VALID_FOR: Final = timedelta(days=30)  # how long a proof may serve at most; profiles say how long it does
# Rests between the tries of a challenge whose failure may pass: a client that is not quite ready, a slow resolver.
RESTS: Final = (timedelta(seconds=2), timedelta(seconds=5))


class Validator:
    """This process's tries. `ways` is where it looks from; with `slow` it waits that long before each (a test mode)."""

    def __init__(self, inst: Installation, ways: Ways, *, slow: float = 0.0) -> None:
        self._inst, self._ways, self._slow = inst, ways, slow
        self._tasks: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()

    def has_room(self, account: str) -> bool:
        """Whether a try of this account could begin now; else it waits in the store for its turn."""
        return len(self._tasks) < AT_ONCE and self._of[account] < OF_ONE_ACCOUNT

    def begin(self, one: Authorization) -> None:
        """Try, in the background, what this process holds the lease of."""
        self._of[one.account] += 1
        task = asyncio.create_task(self._try(one))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, one.account))

    async def take_up(self, _inst: Installation, _fence: Rows = UNFENCED) -> None:
        """Begin what is due and nobody holds: further tries, those that found no room, those of processes that died."""
        room = AT_ONCE - len(self._tasks)
        if room <= 0:
            return
        now, found = await self._inst.db.read(lambda conn: _due(conn, room))
        for one in found:
            if not self.has_room(one.account):
                continue
            try:
                await self._inst.db.write(
                    authorizations.claim(one.id, lease=self._inst.db.lease, now=now, lease_until=now + LEASE)
                )
            except Lost:
                continue  # another process was first
            self.begin(one)

    async def close(self) -> None:
        """End every try; others take them up at once, or when the leases have run out where the store is away."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            with suppress(Problem):
                await self._inst.db.write(authorizations.give_back(self._inst.db.lease))

    def _ended(self, task: asyncio.Task[None], account: str) -> None:
        self._tasks.discard(task)
        self._of[account] -= 1
        if self._of[account] <= 0:
            del self._of[account]
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease runs out by itself, and it is tried again.
            log.error("acme.validation-broke", error=str(error), exc_info=error)

    async def _try(self, one: Authorization) -> None:
        failpoint("acme.claimed")
        if self._slow:
            await asyncio.sleep(self._slow)
        failed: Failed | None = None
        if one.expires_at > self._inst.clock():
            try:
                task = Task(name_of(one.name), one.token, one.thumbprint or "")
                await CHALLENGES[one.challenge or ""].validate(task, self._ways)
            except Failed as error:
                failed = error
            failpoint("acme.validated")
        try:
            await self._inst.db.write(self._end(one, failed))
        except Lost:
            return  # taken back by its client, or held by somebody else by now
        except Problem as problem:
            log.warning("acme.validation-unwritten", error=str(problem))
            return
        failpoint("acme.validation-stored")

    def _end(self, one: Authorization, failed: Failed | None) -> Rows:
        at, lease, kind = self._inst.clock(), self._inst.db.lease, one.challenge or ""
        if one.expires_at <= at:
            return authorizations.lapse(one.id, tries=one.tries, lease=lease)  # too late, whatever was found
        if failed is None:
            telemetry.ACME_VALIDATIONS.labels(kind, "valid").inc()
            valid = authorizations.valid(one.id, tries=one.tries, lease=lease, at=at, expires_at=at + VALID_FOR)
            return valid + _event("acme.authorization-valid", one, at, {})
        error = msgspec.json.encode(
            {"type": f"urn:ietf:params:acme:error:{failed.kind}", "detail": failed.detail}
        ).decode()
        if failed.again and one.tries < len(RESTS):
            telemetry.ACME_VALIDATIONS.labels(kind, "again").inc()
            return authorizations.again(one.id, tries=one.tries, lease=lease, at=at + RESTS[one.tries], error=error)
        telemetry.ACME_VALIDATIONS.labels(kind, "invalid").inc()
        end = authorizations.failed(one.id, tries=one.tries, lease=lease, at=at, error=error)
        return end + _event("acme.authorization-invalid", one, at, {"error": failed.kind})


async def lease_end(inst: Installation) -> datetime:
    """When a lease that begins now ends, by the clock that leases run out by."""
    if inst.db.dialect == "sqlite":
        return inst.clock() + LEASE  # nobody else is there
    return await inst.db.look(lambda conn: certificates.lease_end(conn, LEASE))


def _due(conn: Connection, limit: int) -> tuple[datetime, list[Authorization]]:
    now = db.clock(conn)
    return now, authorizations.due(conn, now=now, limit=limit)


def _event(kind: str, one: Authorization, at: datetime, data: dict[str, object]) -> Rows:
    return events.record(
        kind,
        actor=one.account,
        request_id=f"acme:{one.id}",
        data={"authorization": one.id, "name": str(asked(one)), "challenge": one.challenge, **data},
        at=at,
    )
