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
    """Until when (`at`) the next CRL, the certificate or the key of an authority must have a successor; it is there
    since `since`.
    """

    at: datetime
    authority: str
    what: What
    since: datetime

    def stage(self, now: datetime) -> int | None:
        """The fewest days of its countdown that are left at most; 0 once it is over, None while there is more time."""
        if self.at <= now:
            return 0
        return min(
            (days for days in stages(self.at - self.since) if self.at - now <= timedelta(days=days)), default=None
        )


def stages(life: timedelta) -> tuple[int, ...]:
    """The days of `COUNT_DOWN` for what lives so long: nothing is near its end in the first half of its life."""
    return tuple(days for days in COUNT_DOWN if timedelta(days=days) <= life / 2)


def signs_until(not_after: datetime, longest: timedelta) -> datetime:
    """The end of an authority's cryptoperiod: what it signs then, for `longest` at most, still ends before itself."""
    return not_after - longest


def dates(
    authority: str, *, crl: tuple[datetime, datetime] | None, validity: tuple[datetime, datetime], longest: timedelta
) -> Iterator[Due]:
    """One authority's due dates. `crl` are thisUpdate and nextUpdate of its offline CRL, None where CRLs come by
    themselves; `validity` is its certificate's.
    """
    begin, end = validity
    if crl is not None:
        yield Due(crl[1], authority, "crl", crl[0])
    yield Due(end, authority, "certificate", begin)
    yield Due(signs_until(end, longest), authority, "key", begin)
