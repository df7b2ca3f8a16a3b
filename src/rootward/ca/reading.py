"""The count of revocations as this process last read it, for whoever keeps what was said under a count (I-30, I-33).

A local job reads it every half second and questions use that reading, as long as it is younger than `FRESH` and this
process itself told nobody of a revocation since: what is revoked here is known at once (on SQLite there is nowhere
else), what is revoked at another replica within a second. An older one is not trusted: whoever asks reads anew. So a
process that was stopped and wakes up says nothing that it knew before.

Age is measured from before the read began. The store counts as away when a read failed or hung for `PATIENCE`, and
only a read that began after this process last woke up proves that: a reply that lay in a socket while we were stopped
proves nothing. While the store is away the last reading is good for the promise, then nothing is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from rootward.ca.installation import PROMISE, Installation
from rootward.core.problems import Kind, Problem
from rootward.store import certificates

log = structlog.get_logger()

EVERY = 0.5  # seconds from one reading to the next
FRESH = 0.9  # seconds for which a reading is good without asking again
PATIENCE = 1.0  # seconds after which a read that does not come back means that the store is away
GRACE = 0.25  # seconds more for a read that nobody heard of because this process was held up
STOPPED = 2.0  # seconds without a sign of life after which this process must have been stopped
TRIES = 3


def uptime() -> float:
    """Seconds that only rise and go on while the machine sleeps, whatever the clock says."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Away(Exception):
    """The store is away, and nothing that is known is young enough."""


@dataclass(frozen=True)
class _Read:
    """A count, when its read began, and what this process itself had told by then."""

    begun: float
    told: int
    count: int


class _Reading:
    """A read under way."""

    def __init__(self, inst: Installation, begun: float) -> None:
        self.begun = begun
        self.due = begun + PATIENCE
        self.told = inst.process.told
        self.task = asyncio.ensure_future(inst.db.status(certificates.watermark))
        self.task.add_done_callback(_heard)  # nobody may be waiting any more when it fails

    @property
    def succeeded(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


def _heard(task: asyncio.Future[int]) -> None:
    if not task.cancelled():
        task.exception()


class Count:
    """One process's readings. `monotonic` counts seconds, also those in which the process was stopped."""

    def __init__(self, inst: Installation, *, monotonic: Callable[[], float] = uptime) -> None:
        self._inst = inst
        self._monotonic = monotonic
        self._last: _Read | None = None
        self._under_way: _Reading | None = None
        self._alive = monotonic()
        self._wakes = 0  # how often this process was stopped and woke up
        self._away = False

    async def now(self) -> int:
        """The count, no older than `FRESH`; as last read, for as long as the promise, while the store is away; else
        Away.
        """
        told = self._inst.process.told  # what is told while this question waits was not told to who asks
        for _ in range(TRIES):
            now, wakes = self._wake(), self._wakes
            if self._last is not None and self._last.told >= told and now - self._last.begun < FRESH:
                return self._last.count
            reading = self._read(now)
            await asyncio.wait({reading.task}, timeout=max(reading.due - now, 0))
            self._wake()
            if self._wakes == wakes and not reading.succeeded:
                return self._kept()  # it failed or hangs
        raise Away

    async def refresh(self) -> None:
        """Read the count, for those who ask in the next half second. A store that is away is no failure of this job:
        questions find it out for themselves.
        """
        reading = self._read(self._wake())
        await asyncio.wait({reading.task}, timeout=PATIENCE)
        self._wake()

    def _wake(self) -> float:
        """Note that this process runs, take over a read that came back, drop what a stopped process waited for."""
        now = self._monotonic()
        reading = self._under_way
        if reading is not None and reading.task.done():
            self._under_way = None
            self._take(reading)
        if now - self._alive > STOPPED:
            self._under_way = None
            self._wakes += 1
        elif now - self._alive > FRESH and self._under_way is not None:
            # Its reply may lie in the socket: that it is late says nothing of the store yet.
            self._under_way.due = max(self._under_way.due, now + GRACE)
        self._alive = now
        return now

    def _take(self, reading: _Reading) -> None:
        if reading.task.cancelled():
            return
        error = reading.task.exception()
        if error is None:
            self._last = _Read(reading.begun, reading.told, reading.task.result())
        elif not isinstance(error, Problem) or error.kind is not Kind.UNAVAILABLE:
            raise error
        if self._away is (error is None):
            self._away = error is not None
            log.warning("ocsp.store-away") if self._away else log.info("ocsp.store-back")

    def _read(self, now: float) -> _Reading:
        if self._under_way is None:
            self._under_way = _Reading(self._inst, now)
        return self._under_way

    def _kept(self) -> int:
        """The last reading while it is younger than the promise, unless this process itself revoked something since."""
        last = self._last
        if (
            last is None
            or last.told != self._inst.process.told
            or self._monotonic() - last.begun >= PROMISE.total_seconds()
        ):
            raise Away
        return last.count
