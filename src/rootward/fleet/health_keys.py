"""Checks of `health` about the life of keys: cryptoperiods, the change of the KEK, a destruction that was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from rootward.ca.installation import DESTROYING, Authority, Installation
from rootward.core.times import rfc3339
from rootward.fleet.check import Check
from rootward.fleet.vitals import Vitals

LONG_CHANGE: Final = timedelta(days=1)


def of_kek(inst: Installation, now: datetime) -> Check:
    """Whether a change of the key-encryption key came to its end."""
    change = inst.process.kek
    if change is None:
        return Check("kek", "ok", "No change of the key-encryption key goes on.")
    what = f"from {change.old} to {change.new}"
    if change.over:
        detail = f"Nothing needs the key-encryption key {change.old} any more."
        mend = "Take kek.previous out of rootward.toml once every host says so, and destroy that key. Make a backup."
        return Check("kek", "warning", detail, mend)
    detail = f"The key-encryption key is being changed {what}, since {rfc3339(change.since)}."
    if now - change.since <= LONG_CHANGE:
        return Check("kek", "ok", detail)
    mend = "rootward key rewrap goes on with it and says what is left; the failure of the job kek says what is wrong."
    return Check("kek", "warning", detail, mend)


def of_periods(inst: Installation, found: Vitals) -> Iterator[tuple[Authority, datetime]]:
    """The authorities whose profiles stop before their certificates do, and when that is."""
    for authority in inst.authorities.values():
        end = found.periods.get(authority.name)
        issues = authority.key is not None and authority.retired_at is None
        if issues and end is not None and end < authority.issuer.not_after:
            yield authority, end


def of_destructions(inst: Installation, found: Vitals) -> Iterator[Check]:
    """Keys that are being destroyed, and may be there still."""
    for name in inst.authorities:
        fact = found.troubled.get(DESTROYING + name)
        if fact is not None:
            detail = f"The destruction of the key of {name} was begun {rfc3339(fact.at)}, and has no end yet."
            mend = f"Approve its proposal again, or propose it again: rootward key destroy {name}"
            yield Check(f"destroying.{name}", "error", detail, mend)
