"""Nothing is issued while the disk is nearly full, so that revoking, CRLs and OCSP have what is left of it (I-25)."""

from __future__ import annotations

import structlog

from rootward.ca.installation import Installation
from rootward.core.problems import Problem

log = structlog.get_logger()
STOP = "disk"


def keep(inst: Installation) -> None:
    """Hold the reserve, and refuse to issue while little is left beyond it; for a server's start."""
    inst.db.keep_reserve()
    inst.process.stops[STOP] = _Room(inst)


class _Room:
    """Asked before each issuance."""

    def __init__(self, inst: Installation) -> None:
        self._inst = inst
        self._low = False

    def __call__(self) -> Problem | None:
        low = self._inst.db.is_low()
        if low is not self._low:
            self._low = low
            log.error("disk.low") if low else log.info("disk.room")
        if not low:
            return None
        return Problem(
            "RW-DISK",
            "The disk of the database is nearly full: nothing is issued until there is room again. Revocation, CRLs "
            "and OCSP go on with what is held in reserve.",
            retry_after=60,
        )


async def look(inst: Installation) -> None:
    """Take the reserve again where there is room, also when nobody asks for a certificate."""
    inst.process.stops[STOP]()
