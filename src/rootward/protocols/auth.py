"""Who asks: a bearer token (RFC 6750 2.1, the header and nothing else) becomes a `Principal`; everybody else is
refused.

A client certificate on the mTLS listener (`scope["extensions"]["rootward.peer_certificate"]`, DER) makes nobody a
principal yet: a request that brings only that is refused like one that brings nothing. Failures are counted, never
events: a hostile packet must not cost a durable commit. An address that fails too often gets 429 in the place of 401;
good credentials are never held up by somebody else's bad ones behind the same address.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic
from typing import Any

from prometheus_client import Counter

from rootward.ca.access import Principal, authenticate
from rootward.ca.installation import Installation
from rootward.core.problems import Kind, Problem

LIMIT = 20  # failures of one address
WINDOW = 60.0  # seconds
ADDRESSES = 4_096  # remembered at most; the oldest goes first

FAILED = Counter("rootward_authentication_failures", "Requests with no or wrong credentials.")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]{1,512})")
_NOBODY = "This needs the header Authorization: Bearer with a valid token."


class Failures:
    """Failed attempts of each address (an IPv6 network of 64 bits counts as one) within the last window, in bounded
    memory.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str) -> int | None:
        """One more failure. The seconds to wait where that is too many, else None."""
        key, now = _source(address), self._clock()
        began, failures = self._seen.pop(key, (now, 0))
        if now - began >= WINDOW:
            began, failures = now, 0
        self._seen[key] = (began, failures + 1)
        if len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)
        return max(1, round(began + WINDOW - now)) if failures >= LIMIT else None

    def __len__(self) -> int:
        return len(self._seen)


def _source(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)


async def principal_of(inst: Installation, scope: Any, failures: Failures) -> Principal:
    """The principal of an ASGI request. Problem RW-UNAUTHENTICATED, or RW-RATE after too many failures of its address.

    The answer is the same for no token, two, a malformed, unknown, expired or revoked one.
    """
    try:
        return await authenticate(inst, _token(scope["headers"]))
    except Problem as problem:
        if problem.kind is not Kind.UNAUTHENTICATED:
            raise
    FAILED.inc()
    client = scope.get("client")
    wait = failures.count(client[0] if client else "")
    if wait is not None:
        raise Problem("RW-RATE", "Too many requests with wrong credentials from this address.", retry_after=wait)
    raise Problem("RW-UNAUTHENTICATED", _NOBODY)


def _token(headers: list[tuple[bytes, bytes]]) -> str:
    """The one bearer token of the headers; Problem RW-UNAUTHENTICATED where there is not exactly one."""
    values = [value for name, value in headers if name == b"authorization"]
    match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise Problem("RW-UNAUTHENTICATED", _NOBODY)
    return match[1].decode("ascii")
