"""What ACME's objects are, derived from the facts that are stored of them: RFC 8555 7.1.6 as pure functions; and the
identifiers of an order (RFC 8555 7.1.3, RFC 8738).

No status is ever stored. Whatever happened last, two processes that read the same facts say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from rootward.core.names import DnsName, IpName, parse_dns, parse_ip
from rootward.core.patterns import DnsPattern, parse_dns_pattern
from rootward.core.problems import Problem, shown

CHALLENGES = ("http-01", "dns-01", "tls-alpn-01")  # what profiles may name; the door's registry has the same
MAX_IDENTIFIERS = 100

Identifier = DnsName | IpName
OrderStatus = Literal["pending", "ready", "processing", "valid", "invalid"]
AuthorizationStatus = Literal["pending", "valid", "invalid", "deactivated", "expired"]
ChallengeStatus = Literal["pending", "processing", "valid", "invalid"]
AccountStatus = Literal["valid", "deactivated", "revoked"]


@dataclass(frozen=True)
class AuthorizationFacts:
    """What happened to an authorization. `challenge` is the type that the client chose, once it did."""

    expires_at: datetime
    challenge: str | None = None
    validated_at: datetime | None = None
    failed_at: datetime | None = None
    deactivated_at: datetime | None = None


@dataclass(frozen=True)
class OrderFacts:
    """What happened to an order. `settled_at` with `failed` is a refusal for good, without it a certificate."""

    expires_at: datetime
    finalized_at: datetime | None = None
    settled_at: datetime | None = None
    failed: bool = False


def authorization_status(facts: AuthorizationFacts, now: datetime) -> AuthorizationStatus:
    """RFC 8555 7.1.6, second diagram. What was taken back is never valid again, whatever else is true of it (I-49)."""
    if facts.deactivated_at is not None:
        return "deactivated"
    if facts.failed_at is not None:
        return "invalid"
    if facts.expires_at <= now:
        return "expired"
    return "pending" if facts.validated_at is None else "valid"


def challenge_status(kind: str, facts: AuthorizationFacts) -> ChallengeStatus:
    """RFC 8555 7.1.6, first diagram, for the challenge of that type. Only the one that was chosen ever moves."""
    if facts.challenge != kind:
        return "pending"
    if facts.validated_at is not None:
        return "valid"
    return "processing" if facts.failed_at is None else "invalid"


def order_status(facts: OrderFacts, authorizations: Iterable[AuthorizationStatus], now: datetime) -> OrderStatus:
    """RFC 8555 7.1.6, third diagram. Once finalized, an order is processing until it has its certificate or its
    refusal, however long that takes; whether its authorizations are still valid then, each further attempt asks.
    """
    if facts.settled_at is not None:
        return "invalid" if facts.failed else "valid"
    if facts.finalized_at is not None:
        return "processing"
    found = list(authorizations)
    if facts.expires_at <= now or any(one not in ("pending", "valid") for one in found):
        return "invalid"
    return "ready" if all(one == "valid" for one in found) else "pending"


def account_status(*, deactivated: bool, disabled: bool) -> AccountStatus:
    """RFC 8555 7.1.6, fourth diagram; `revoked` is what the server's people did, `deactivated` what the client did."""
    if disabled:
        return "revoked"
    return "deactivated" if deactivated else "valid"


class UnsupportedIdentifier(Exception):
    """An identifier of a type that is none of ours."""


def read_identifier(kind: str, value: str) -> Identifier:
    """An identifier of newOrder. Problem RW-NAME for one that is malformed, `UnsupportedIdentifier` for other types.

    An address is in its one canonical form (RFC 8738 3: RFC 5952 for IPv6), so that it is compared as text.
    """
    if kind == "dns":
        return parse_dns(value)
    if kind != "ip":
        raise UnsupportedIdentifier(kind)
    try:
        address = ip_address(value)
    except ValueError:
        raise Problem("RW-NAME", f"{shown(value)} is not an IP address.") from None
    if isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address.scope_id is not None):
        raise Problem(
            "RW-NAME", f"{shown(value)} is another form of an address: IPv4 is written as such, without zone."
        )
    if str(address) != value:
        raise Problem("RW-NAME", f"{shown(value)} is not in canonical form (RFC 5952): {address}.")
    return parse_ip(value)


def identifier(name: Identifier) -> dict[str, str]:
    """The JSON object of a name (RFC 8555 9.7.7); of a wildcard with its star."""
    kind, _, value = str(name).partition(":")
    return {"type": kind, "value": value}


def distinct(names: Sequence[Identifier]) -> tuple[Identifier, ...]:
    """Each name once, in the order in which they were given."""
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=1024)
def _pattern(text: str) -> DnsPattern | IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        return parse_dns_pattern(text)


def check_pattern(text: str, *, field: str) -> None:
    """Problem RW-FIELD unless the text is a DNS pattern as profiles have it, without placeholders, or a network."""
    try:
        pattern = _pattern(text)
    except Problem:
        pattern = None
    if pattern is None or "{" in text:
        detail = f"{shown(text)} is neither a name, nor .SUFFIX, nor a network such as 10.0.0.0/8."
        raise Problem("RW-FIELD", detail, field=field)


def covers(patterns: Iterable[str], name: Identifier) -> bool:
    """Whether one of the patterns stands for the name."""
    for text in patterns:
        pattern = _pattern(text)
        if isinstance(pattern, DnsPattern):
            if isinstance(name, DnsName) and pattern.matches(name, {}):
                return True
        elif isinstance(name, IpName) and name.address in pattern:
            return True
    return False
