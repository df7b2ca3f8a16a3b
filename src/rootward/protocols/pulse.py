"""How long the event loop was held up: a clock that ticks and notes how late each tick comes.

Everything of a server goes on in turns of one loop, so that whatever computes in it for long delays every OCSP answer.
A tick that is 50 ms late counts as a stall; the longest of the last minute is a gauge (`rootward_loop_stall_seconds`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from rootward import telemetry

TICK_SECONDS: Final = 0.02
STALL_SECONDS: Final = 0.05
_WINDOW_SECONDS: Final = 60.0


class Pulse:
    """Ticks on the running loop from `start` until `stop`. `longest` is the longest delay of the last minute, in
    seconds.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late: deque[tuple[float, float]] = deque()  # (when, how late), each larger than those behind it

    def start(self) -> None:
        """Ticks from now on."""
        self._due = self._loop.time() + TICK_SECONDS
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        """Ticks no more."""
        if self._handle is not None:
            self._handle.cancel()

    @property
    def longest(self) -> float:
        return self._late[0][1] if self._late else 0.0

    def _tick(self) -> None:
        now = self._loop.time()
        self.note(now, now - self._due)
        self.start()

    def note(self, now: float, late: float) -> None:
        """A tick that came at `now`, `late` seconds behind its time."""
        if late >= STALL_SECONDS:
            telemetry.LOOP_STALLS.inc()
        while self._late and self._late[-1][1] <= late:
            self._late.pop()
        self._late.append((now, late))
        while self._late[0][0] < now - _WINDOW_SECONDS:
            self._late.popleft()
        telemetry.LOOP_STALL.set(self.longest)
