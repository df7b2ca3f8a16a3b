"""Which addresses may be called: pure, and decided by the address itself.

An address is let through where a network of `Rules.allow` holds it. The ranges of `_SPECIAL` are shut whatever broad
network is allowed: they open only to a listed network that itself lies within the range, so "0.0.0.0/0" never opens
loopback and "127.0.0.0/8" does. Of cloud metadata and of what we listen on, only that very address opens anything.
Sources: the IANA special-purpose address registries (RFC 6890), RFC 4291 2.5.5, RFC 6052, RFC 3056, RFC 4380, and the
metadata addresses that the clouds document.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class _Special(NamedTuple):
    """A range that no network around it opens. `exact`: only the very address does."""

    network: Network
    what: str
    exact: bool


_RANGES: Final[dict[str, tuple[str, ...]]] = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "site-local": ("fec0::/10",),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "broadcast": ("255.255.255.255/32",),
    "reserved": (
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "::/8",
        "100::/8",
        "200::/7",
        "400::/6",
        "800::/5",
        "1000::/4",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "4000::/2",
        "8000::/2",
        "c000::/3",
        "e000::/4",
        "f000::/5",
        "f800::/6",
        "fe00::/9",
    ),
    "mapped": ("::ffff:0:0/96",),
    "compatible": ("::/96",),
    "translated": ("::ffff:0:0:0/96", "64:ff9b::/96"),
    "6to4": ("2002::/16",),
    "Teredo": ("2001::/32",),
}
# In 64:ff9b:1::/48 only its operator knows where the IPv4 address stands (RFC 8215), so it cannot be judged.
_EXACT: Final[dict[str, tuple[str, ...]]] = {
    "translated": ("64:ff9b:1::/48",),
    "metadata": (
        "169.254.169.0/24",
        "169.254.170.0/24",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fe80::a9fe:a9fe/128",
    ),
}


def _table() -> tuple[_Special, ...]:
    """Most specific first, so that the first one that holds an address is the one that counts."""
    rows = [
        _Special(ip_network(text), what, exact)
        for ranges, exact in ((_RANGES, False), (_EXACT, True))
        for what, texts in ranges.items()
        for text in texts
    ]
    return tuple(sorted(rows, key=lambda row: -row.network.prefixlen))


_SPECIAL: Final = _table()


@dataclass(frozen=True)
class Rules:
    """What may be called.

    `allow` are networks. `own` are the (address, port) that we listen on or that serve us; one with the unspecified
    address stands for that port on every address of this host. `suffixes` are the domains that a looked-up name must
    be or lie in; empty: any name.
    """

    allow: tuple[Network, ...]
    own: frozenset[tuple[Address, int]] = frozenset()
    suffixes: tuple[str, ...] = ()

    def refusal(self, address: Address, port: int, *, here: bool = False) -> str | None:
        """Why this address and port may not be called, as a word or two for the log; None where it may.

        `here` says that the address is one of this host's own.
        """
        listed = [network for network in self.allow if address in network]
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return "zone"
        special = special_of(address)
        if special is not None and not any(_opens(network, special) for network in listed):
            return special.what
        if self._ours(address, port, here) and not any(_names(network, special) for network in listed):
            return "own listener"
        if not listed:
            return "not allowed"
        inner = None if special is None else embedded(address, special.what)
        return None if inner is None else self.refusal(inner, port, here=here)

    def covers(self, name: str) -> bool:
        """Whether a name in lower-case A-labels without a dot at its end is within `suffixes`."""
        return not self.suffixes or any(name == one or name.endswith(f".{one}") for one in self.suffixes)

    def everywhere(self, port: int) -> bool:
        """Whether something of ours has this port on every address of this host, so that `here` matters."""
        return any(port == its and address.is_unspecified for address, its in self.own)

    def _ours(self, address: Address, port: int, here: bool) -> bool:
        return (address, port) in self.own or (self.everywhere(port) and (here or address.is_loopback))


def special_of(address: Address) -> _Special | None:
    """The most specific special range that holds the address."""
    return next((row for row in _SPECIAL if address in row.network), None)


def _opens(listed: Network, special: _Special) -> bool:
    if special.exact:
        return listed.num_addresses == 1
    return listed.version == special.network.version and _within(listed, special.network)


def _names(listed: Network, special: _Special | None) -> bool:
    """Whether a listed network means this very address. "::1/128" does not: it is how all of loopback is written."""
    return listed.num_addresses == 1 and (special is None or special.network != listed)


def _within(inner: Network, outer: Network) -> bool:
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def embedded(address: Address, what: str) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one of such a range stands for (RFC 4291 2.5.5, 6052, 3056, 4380)."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    match what:
        case "mapped" | "compatible" | "translated":
            return IPv4Address(number & 0xFFFFFFFF)
        case "6to4":
            return IPv4Address(number >> 80 & 0xFFFFFFFF)
        case "Teredo":
            return IPv4Address(~number & 0xFFFFFFFF)
        case _:
            return None


def make_rules(allow: Iterable[str], own: Iterable[tuple[str, int]] = (), suffixes: Iterable[str] = ()) -> Rules:
    """Rules of texts that have been checked; ValueError for one that is no network or address."""
    return Rules(
        allow=tuple(ip_network(text) for text in allow),
        own=frozenset((ip_address(address), port) for address, port in own),
        suffixes=tuple(suffixes),
    )
