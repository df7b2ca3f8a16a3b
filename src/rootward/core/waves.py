"""When each certificate of an authority that is being replaced should be renewed: in waves, so that what issues them
anew is not asked by all at once.

Nothing is written for a certificate: its wave follows from its hash, from when the authority stopped and from until
when the waves go. The rate is what a small machine with PostgreSQL issues by ACME, with room for the usual.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from rootward.core.ari import Window

RATE: Final = 5  # certificates in a second
LONGEST: Final = timedelta(hours=2)
_WAVE: Final = timedelta(minutes=1)


def span(certificates: int, *, longest: timedelta = LONGEST) -> timedelta:
    """How long the waves go for so many certificates, in whole minutes; 0: all of them at once."""
    waves = -(-certificates // (RATE * 60))
    return min((waves - 1) * _WAVE if waves > 1 else timedelta(), longest)


def wave(began: datetime, until: datetime | None, *, seed: bytes, normal: Window) -> Window | None:
    """The window of one certificate: `seed` (8 octets or more) puts it into a wave of a minute. None: at once. One
    that should be renewed sooner in any case keeps its `normal` window.
    """
    if until is None or until - began < _WAVE:
        return None
    waves = (until - began) // _WAVE + 1
    start = began + _WAVE * (int.from_bytes(seed[:8], "big") * waves >> 64)
    return normal if normal.start < start else Window(start, start + _WAVE)
