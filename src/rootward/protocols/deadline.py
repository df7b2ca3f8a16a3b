"""What a connection waits for at the moment, and for how long. A request changes that four times: so the one timer is
left alone where it rings too early, and then sets itself anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_HELD_UP_SECONDS: Final = 0.25  # a clock that comes so late says nothing about the client


class Deadline:
    """`late` is called with the seconds that were waited for, once for each `set` that was not followed by another one
    or by `clear` in time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[float], None]) -> None:
        self._loop = loop
        self._late = late
        self._seconds = 0.0
        self._due: float | None = None  # by the loop's time
        self._again = False
        self._timer: asyncio.TimerHandle | None = None  # rings when it is due or before

    @property
    def is_set(self) -> bool:
        return self._due is not None

    def set(self, seconds: float) -> None:
        """From now on this is what is waited for."""
        self._again, self._seconds = False, seconds
        self._begin(seconds)

    def clear(self) -> None:
        """Nothing is waited for."""
        self._due = None

    def end(self) -> None:
        """The connection is gone."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self._wind(self._due)

    def _wind(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._due is None:
            return
        over = self._loop.time() - self._due
        if over < 0:
            self._wind(self._due)
        elif over > _HELD_UP_SECONDS and not self._again:
            # this process was held up, and what the client sent in time may lie in the socket: once more, and only once
            self._again = True
            self._begin(_HELD_UP_SECONDS)
        else:
            self._due = None
            self._late(self._seconds)
