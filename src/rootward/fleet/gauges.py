"""The gauges of `/metrics` that need the store or the keys: set from what `vitals` measured and `health` judged, at
most once in `FRESH_SECONDS`, however often and at how many doors somebody scrapes.

Each replica sets its own: what the store says is the same at all of them, what is of the process (its certificates,
its queues, its jobs) is not. While the store is away `rootward_store_up` is 0 and the ages go on from what was read
last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from rootward import telemetry
from rootward.ca import own
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.fleet import health
from rootward.fleet.vitals import Vitals, measure

FRESH_SECONDS: Final = 5.0
_STATES: Final = {"ok": 0, "warning": 1, "error": 2}


class Gauges:
    """One process's gauges. `monotonic` counts seconds."""

    def __init__(self, inst: Installation, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inst = inst
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._read_at: float | None = None
        self._last: Vitals | None = None

    async def refresh(self) -> None:
        """Set them, unless that was just done. Never raises for a store that is away."""
        async with self._lock:
            if self._read_at is not None and self._monotonic() - self._read_at < FRESH_SECONDS:
                return
            try:
                self._last = await measure(self._inst)
                telemetry.STORE_UP.set(1)
                checks = health.judge(self._inst, self._last)
            except Problem as problem:
                telemetry.STORE_UP.set(0)
                checks = [health.away(problem)]
            checks += await health.of_this_process(self._inst)
            self._read_at = self._monotonic()
            # from here on nothing waits: a scrape sees all of them or none
            telemetry.CHECK.clear()
            for check in checks:
                telemetry.CHECK.labels(check.name).set(_STATES[check.state])
            _set_own(self._inst)
            if self._last is not None:
                _set(self._inst, self._last, self._inst.clock())


def _set_own(inst: Installation) -> None:
    now = inst.clock()
    for authority in inst.authorities.values():
        end = inst.process.own_ends.get(f"ocsp-{authority.name}")
        if end is not None:
            telemetry.RESPONDER_REMAINING.labels(authority.name).set(_seconds(end - now))
        telemetry.AUTHORITY_REMAINING.labels(authority.name).set(_seconds(authority.issuer.not_after - now))
    if own.TLS in inst.process.own_ends:
        telemetry.TLS_REMAINING.set(_seconds(inst.process.own_ends[own.TLS] - now))
    for queue, length in inst.db.waiting().items():
        telemetry.STORE_WAITING.labels(queue).set(length)


def _set(inst: Installation, found: Vitals, now: datetime) -> None:
    for name, crl in found.crls.items():
        telemetry.CRL_AGE.labels(name).set(_seconds(now - crl.this_update))
        telemetry.CRL_REMAINING.labels(name).set(_seconds(crl.next_update - now))
        telemetry.CRL_ENTRIES.labels(name).set(crl.entries)
    telemetry.OPEN_INTENTS.set(found.open.total)
    telemetry.OPEN_INTENT_AGE.set(_age(found.open.oldest, now))
    telemetry.ORPHANED.set(found.orphans)
    telemetry.CLOCK_SKEW.set(_seconds(found.now - found.theirs))
    telemetry.CLOCK_BEHIND.set(max(0.0, _seconds(found.last_reading - found.now)) if found.last_reading else 0)
    telemetry.EVENTS_UNSEQUENCED.set(found.unsequenced)
    telemetry.EVENTS_UNSEQUENCED_AGE.set(_age(found.unsequenced_since, now))
    telemetry.LOG_SIZE.set(found.log_size or 0)
    if inst.log is not None:
        telemetry.LOG_FILE_LAG.set((found.log_size or 0) - (0 if inst.log.kept is None else inst.log.kept.size))
    telemetry.HALTED.set(len(inst.process.halts()))
    for job in found.jobs:
        telemetry.JOB_LAG.labels(job.name).set(max(0.0, _seconds(found.theirs - job.due_at)))
    if found.disk is not None:
        telemetry.DISK_FREE.set(found.disk)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, _seconds(now - since))


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
