"""The states of an authority's key, as NIST SP 800-57 part 1 (revision 5), section 7, has them: a function of facts.

    pre-activation  made, and not certified: it signed its own request, and nothing else (7.1)
    active          it certifies (7.2)
    suspended       its authority is frozen: it may be active again (7.3)
    deactivated     it certifies nothing any more: retired, expired, or its cryptoperiod is over (7.4)
    compromised     in other hands (7.5)
    destroyed       gone (7.6)

One thing is not as there: a deactivated or suspended key goes on signing CRLs and its responders' certificates, since
what it certified before must be revocable until its end. So it is destroyed later than 7.2 has it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class KeyState(StrEnum):
    """One of the six."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key. `not_after` is its certificate's end, None where there is no certificate; `signs_until`
    the last moment in which it can certify anything (`calendar.signs_until`). The others are None until they happen.
    """

    not_after: datetime | None = None
    signs_until: datetime | None = None
    frozen_at: datetime | None = None
    retired_at: datetime | None = None
    compromised_at: datetime | None = None
    destroyed_at: datetime | None = None


def state_of(facts: KeyFacts, now: datetime) -> KeyState:
    """The last state that it has come to, and none goes back but from suspended: destroyed before compromised, that
    before pre-activation, deactivated, suspended, active.
    """
    if facts.destroyed_at is not None:
        return KeyState.DESTROYED
    if facts.compromised_at is not None:
        return KeyState.COMPROMISED
    if facts.not_after is None:
        return KeyState.PRE_ACTIVATION
    over = facts.signs_until is not None and now > facts.signs_until
    if facts.retired_at is not None or over or now > facts.not_after:
        return KeyState.DEACTIVATED
    return KeyState.ACTIVE if facts.frozen_at is None else KeyState.SUSPENDED
