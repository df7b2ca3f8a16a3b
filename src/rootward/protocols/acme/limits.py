"""What one address or account may do in a time (RFC 8555 6.6). Only what was carried out is counted, by its rows in the
store, so that replicas count together and a stranger's refused requests cost nobody anything.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from rootward.ca.installation import Installation
from rootward.protocols.acme.problems import AcmeError
from rootward.store import accounts

# New accounts of one address, without an external binding: a binding counts its own.
ACCOUNTS: Final = 100
ACCOUNTS_WINDOW: Final = timedelta(minutes=10)


def source(address: str) -> str:
    """What counts as one: an IPv4 address, or an IPv6 network of 48 bits, which is what one customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 48), strict=False))
    return str(parsed)


async def check_accounts(inst: Installation, address: str) -> None:
    """AcmeError rateLimited where too many accounts were made from this source of late."""
    now = inst.clock()
    count, first = await inst.db.look(lambda conn: accounts.recent(conn, address, now - ACCOUNTS_WINDOW))
    if count >= ACCOUNTS and first is not None:
        raise limited("Too many accounts were made from this address.", first + ACCOUNTS_WINDOW, now)


def limited(detail: str, until: datetime, now: datetime) -> AcmeError:
    """To be raised, with when to try again."""
    seconds = max(1, round((until - now).total_seconds()))
    return AcmeError("rateLimited", detail, headers=((b"retry-after", str(seconds).encode()),))
