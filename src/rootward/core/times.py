"""Times are aware UTC in whole seconds; durations are `90d`, `24h`, `15m`, `30s` (the contract's form)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rootward.core.problems import Problem, shown

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdy])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)


def parse_duration(text: str, *, field: str | None = None, code: str = "RW-VALIDITY") -> timedelta:
    """`90d`, `24h`, `15m`, `30s` or `10y` (of 365 days) as a positive timedelta; Problem `code` otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Problem(code, f"{shown(text)} is not a duration such as 90d, 24h or 15m.", field=field)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def show_duration(span: timedelta) -> str:
    """The shortest exact form that `parse_duration` reads, never in years."""
    seconds = int(span.total_seconds())
    for unit in "dhm":
        if seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T17:46:41Z`."""
    at = moment.astimezone(UTC)
    return f"{at.year:04}-{at.month:02}-{at.day:02}T{at.hour:02}:{at.minute:02}:{at.second:02}Z"


def parse_time(text: str, *, field: str | None = None, code: str = "RW-QUERY") -> datetime:
    """The inverse of `rfc3339`; Problem `code` for anything else."""
    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # such as 30 February: said below, as any other wrong time
    raise Problem(code, f"{shown(text)} is not a time such as 2026-11-23T17:46:41Z.", field=field)


def whole_second(moment: datetime) -> datetime:
    """The same moment in UTC without its fraction (X.509 times have none, RFC 5280 4.1.2.5)."""
    return moment.astimezone(UTC).replace(microsecond=0)
