"""Room for request bodies, so that memory is bounded however many are under way at once (I-66).

A body's first `FREE` bytes are everybody's. Beyond that it asks for room in pieces as it grows, so that a length that
is only announced takes none. Where there is none left it is refused at once and gives back what it had: nobody waits
for room while holding some. What a request holds comes back when it ends, or when its client goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rootward.core.problems import Problem

FREE: Final = 16 * 1024  # bytes of each body: an ordinary request has fewer
_PIECE: Final = 64 * 1024
_RETRY_SECONDS: Final = 5
_USUAL: Final = 32 * 1024 * 1024
_LARGE: Final = (
    64 * 1024 * 1024
)  # two of limits.import_bytes as it is by default; what is read out of them comes on top


class Guest:
    """One body, and what it holds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.held = 0

    def grow(self, size: int) -> None:
        """The body has `size` bytes by now. Problem RW-UNAVAILABLE where there is no room for them."""
        missing = size - FREE - self.held
        if missing <= 0:
            return
        piece = max(missing, _PIECE)
        if piece > self._room.left:
            detail = "Other large requests are under way. Try again in a moment."
            raise Problem("RW-UNAVAILABLE", detail, retry_after=_RETRY_SECONDS)
        self._room.left -= piece
        self.held += piece


class Room:
    """A number of bytes, `left` of them free. For one event loop."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextmanager
    def guest(self) -> Iterator[Guest]:
        """A body that comes and goes."""
        guest = Guest(self)
        try:
            yield guest
        finally:
            self.left += guest.held


class Rooms:
    """Those of one process, for all of its listeners. Two, so that whoever fills the one for ordinary bodies, for which
    any role will do, keeps no import out, nor the other way round. `largest` is how long a body may be at all.
    """

    def __init__(self, largest: int = 0) -> None:
        self.usual = Room(_USUAL)
        self.large = Room(max(_LARGE, largest + _PIECE))
