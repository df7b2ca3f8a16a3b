"""What one address or account may do within an hour (RFC 8555 6.6). Only what was carried out is counted, by its rows
in the store, so that replicas count together and a stranger's refused requests cost nobody anything.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from sqlalchemy import Connection

from rootward.protocols.acme.call import Call
from rootward.protocols.acme.problems import AcmeError
from rootward.store import accounts, authorizations, orders

HOUR: Final = timedelta(hours=1)
AT_ONCE: Final = 300  # challenges of one account that are being looked at, or wait for it: three orders of 100 names
_SOON: Final = timedelta(seconds=10)
_FAILED: Final = "This account had too many failed validations within the last hour."


def source(address: str) -> str:
    """What counts as one: an IPv4 address, or an IPv6 network of 48 bits, which is what one customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 48), strict=False))
    return str(parsed)


async def check_accounts(call: Call) -> None:
    """AcmeError rateLimited where too many accounts were made from this source; those with a binding are not asked: the
    binding counts its own.
    """
    now, at = call.inst.clock(), source(call.address)
    count, first = await call.inst.db.look(lambda conn: accounts.recent(conn, at, now - HOUR))
    if count >= call.settings.accounts_per_hour and first is not None:
        raise _limited("Too many accounts were made from this address.", first + HOUR, now)


async def check_orders(call: Call) -> None:
    """AcmeError rateLimited where the account made too many orders, or had too many validations that failed."""
    account, most = call.account.id, call.settings.orders_per_hour
    made, failed = await call.inst.db.look(
        lambda conn: (orders.nth_newest(conn, account, most), _nth_failure(conn, call))
    )
    _check(made, call.inst.clock(), "This account made too many orders within the last hour.")
    _check(failed, call.inst.clock(), _FAILED)


async def check_failures(call: Call) -> None:
    """The same of validations that failed alone, so that nobody makes us knock at doors all day; and of those that are
    not over yet, so that nobody's queue is in front of everybody else's.
    """
    failed, trying = await call.inst.db.look(
        lambda conn: (_nth_failure(conn, call), authorizations.trying(conn, call.account.id, most=AT_ONCE))
    )
    now = call.inst.clock()
    _check(failed, now, _FAILED)
    if trying >= AT_ONCE:
        raise _limited("Too many challenges of this account are being looked at.", now + _SOON, now)


def _nth_failure(conn: Connection, call: Call) -> datetime | None:
    return authorizations.nth_newest_failure(conn, call.account.id, call.settings.failures_per_hour)


def _check(nth: datetime | None, now: datetime, detail: str) -> None:
    if nth is not None and nth + HOUR > now:
        raise _limited(detail, nth + HOUR, now)


def _limited(detail: str, until: datetime, now: datetime) -> AcmeError:
    seconds = max(1, round((until - now).total_seconds()))
    return AcmeError("rateLimited", detail, headers=((b"retry-after", b"%d" % seconds),))
