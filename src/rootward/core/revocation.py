"""Why a certificate is revoked (RFC 5280 5.3.1), and what is known of one: good, revoked or unknown (RFC 6960 2.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from rootward.core.problems import Problem, shown


class RevocationReason(enum.StrEnum):
    """CRLReason by the names of RFC 5280. `number` is its value; 7 was never given out."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def number(self) -> int:
        return _NUMBERS[self]


_NUMBERS = dict(zip(RevocationReason, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10), strict=True))
_REASONS = {number: reason for reason, number in _NUMBERS.items()}


def reason_of(number: int) -> RevocationReason | None:
    """The reason with this CRLReason value; None for 7 and for everything above 10 or below 0."""
    return _REASONS.get(number)


def parse_reason(text: str, *, field: str | None = None) -> RevocationReason:
    """A reason that somebody may revoke for, by its name; Problem RW-FIELD otherwise.

    `removeFromCRL` is no such reason: it only takes an entry out of a delta CRL (RFC 5280 5.3.1).
    """
    try:
        reason = RevocationReason(text)
    except ValueError:
        names = ", ".join(name for name in RevocationReason if name != RevocationReason.REMOVE_FROM_CRL)
        raise Problem("RW-FIELD", f"{shown(text)} is not a reason: use one of {names}.", field=field) from None
    if reason is RevocationReason.REMOVE_FROM_CRL:
        raise Problem("RW-FIELD", "removeFromCRL is not a reason to revoke for.", field=field)
    return reason


@dataclass(frozen=True, slots=True)
class Good:
    """Issued by us and not revoked."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Revoked (or on hold, with that reason) since `at`."""

    at: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class Unknown:
    """Never issued, as far as the inventory knows."""


Status = Good | Revoked | Unknown
