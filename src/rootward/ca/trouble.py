"""What went wrong and should not be forgotten with the process: facts that `doctor` and the metrics show.

A lint that failed is a mistake of ours, a key that does not sign one of the device: each is an event, and a fact with
the time of the last one, so that it is found again without reading events. What only this process knows (OCSP answers
that could not be made, which hostile requests can cause at will) is in `Installation.troubles` and costs no commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from rootward import telemetry
from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.core.problems import Reason
from rootward.store import events, facts
from rootward.store.rows import Rows

LINT: Final = "lint.failed"
KEY: Final = "key.failed."  # and the authority's name
LASTS: Final = timedelta(days=1)  # how long a failed lint is shown
KEY_LASTS: Final = timedelta(minutes=15)
OCSP_LASTS: Final = timedelta(minutes=10)


def key_failed(authority: str, why: str, *, at: datetime) -> Rows:
    """For the rows of what failed: the key of that authority did not sign."""
    telemetry.KEY_FAILURES.labels(authority).inc()
    return facts.put(KEY + authority, at=at, data=why)


async def lint_failed(
    inst: Installation, what: str, findings: Sequence[Reason], caller: Caller, *, authority: str
) -> None:
    """A draft (`certificate`, `crl`) did not pass its own lints: nothing was signed, and somebody has to look."""
    telemetry.LINT_FAILURES.labels(what).inc()
    now, why = inst.clock(), "; ".join(finding.detail for finding in findings)[:500]
    await inst.db.write(
        facts.put(LINT, at=now, data=f"{what}: {why}")
        + events.record(
            "lint.failed",
            actor=caller.principal.id,
            authority=authority,
            request_id=caller.request_id,
            data={"what": what, "findings": why},
            at=now,
        )
    )
