"""When something of an authority ends that only people can renew, and how near that is.

An authority's key is used for signing until the longest certificate that it may still give ends with its own
certificate (NIST SP 800-57 part 1, 5.3.5: the originator usage period ends that much sooner than the recipient's).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

COUNT_DOWN: Final = (90, 30, 7, 1)  # days before an end
What = Literal["crl", "certificate", "key"]


class Due(msgspec.Struct, frozen=True, order=True):
    """Until when (`at`) the next CRL, the certificate or the key of an offline authority must have a successor."""

    at: datetime
    authority: str
    what: What

    def stage(self, now: datetime) -> int | None:
        """The fewest days of `COUNT_DOWN` that are left at most; 0 once it is over, None while there is more time."""
        return stage(self.at, now)


def stage(at: datetime, now: datetime) -> int | None:
    """See `Due.stage`."""
    if at <= now:
        return 0
    return min((days for days in COUNT_DOWN if at - now <= timedelta(days=days)), default=None)


def signs_until(not_after: datetime, longest: timedelta) -> datetime:
    """The end of an authority's cryptoperiod: what it signs then, for `longest` at most, still ends before itself."""
    return not_after - longest


def dates(authority: str, *, crl_until: datetime | None, not_after: datetime, longest: timedelta) -> Iterator[Due]:
    """One authority's due dates. `crl_until` is its offline CRL's nextUpdate, None where CRLs come by themselves."""
    if crl_until is not None:
        yield Due(crl_until, authority, "crl")
    yield Due(not_after, authority, "certificate")
    yield Due(signs_until(not_after, longest), authority, "key")
