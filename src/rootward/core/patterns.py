"""What a profile allows, as patterns over checked names; and RFC 5280's name constraints over the same names.

Patterns are data: nothing in them is a glob or a regular expression, and what an identity puts into a placeholder
stands for exactly one whole label or path segment, or for nothing at all (I-44).

- DNS: `localhost` is that name; `.internal` every name below `internal`, at any depth; `{user}.people.internal` has a
  label from the identity's attribute `user`. A wildcard matches `.internal` only where its base is below `internal`.
- URI: exact, or segments with placeholders (`spiffe://a.internal/ns/{team}/api`); a last segment `**` stands for one or
  more further segments. Scheme and host are literal. A URI with a query is matched by the exact text only.
- E-mail: `root@a.internal`, `@a.internal` (any mailbox at that host), `@.internal` (at any host below).
- IP: networks in CIDR form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from rootward.core.names import DnsName, EmailName, IpName, UriName, parse_email, parse_host, parse_uri
from rootward.core.problems import Problem, shown
from rootward.core.sealed import Sealed

_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)
_LDH = re.compile(r"(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,128}", re.ASCII)
_REST = "**"


def _invalid(text: str, kind: str) -> Problem:
    return Problem("RW-PROFILE-INVALID", f"{shown(text)} is not a pattern for {kind}.")


def _same(
    parts: Iterable[str], wanted: Iterable[str], attributes: Mapping[str, str], plain: Callable[[str], bool]
) -> bool:
    """Whether each part is the wanted one; a `{slot}` stands for its attribute's value where that is `plain`."""
    for part, want in zip(parts, wanted, strict=True):
        if want.startswith("{"):
            value = attributes.get(want[1:-1], "")
            if not plain(value) or part != value:
                return False
        elif part != want:
            return False
    return True


def _plain_label(value: str) -> bool:
    return _LDH.fullmatch(value) is not None


def _plain_segment(value: str) -> bool:
    return _SEGMENT.fullmatch(value) is not None


class DnsPattern(Sealed):
    """`labels` from left to right, placeholders as `{attribute}`; `below` if only names under them match."""

    text: str
    below: bool
    labels: tuple[str, ...]

    def matches(self, name: DnsName, attributes: Mapping[str, str]) -> bool:
        """Whether the pattern covers the name. Whether wildcards are allowed at all is the caller's to decide.

        Attribute values are compared as DNS does, without regard to ASCII case; one that is not a single LDH label
        (or is an A-label) matches nothing.
        """
        parts = name.base.split(".")
        extra = len(parts) - len(self.labels)
        if extra < 1 if self.below else (extra != 0 or name.wildcard):
            return False
        if "{" in self.text:
            attributes = {key: value.lower() for key, value in attributes.items() if value.isascii()}
        return _same(parts[extra:], self.labels, attributes, _plain_label)


def parse_dns_pattern(text: str) -> DnsPattern:
    """The pattern, or Problem RW-PROFILE-INVALID. The last label is never a placeholder."""
    raw = text.removeprefix(".").split(".")
    literal = ".".join("x" if _SLOT.fullmatch(label) else label for label in raw)
    try:
        parse_host(literal)
    except Problem:
        raise _invalid(text, "DNS names") from None
    labels = tuple(label if label.startswith("{") else label.lower() for label in raw)
    if labels[-1].startswith("{"):
        raise Problem("RW-PROFILE-INVALID", f"{shown(text)} would let an identity choose the last label.")
    return DnsPattern._make(text=text, below=text.startswith("."), labels=labels)


class UriPattern(Sealed):
    """`exact` is the whole URI where nothing varies; else `segments` are what stands between its slashes."""

    text: str
    exact: str | None
    segments: tuple[str, ...]

    def matches(self, name: UriName, attributes: Mapping[str, str]) -> bool:
        """Whether the pattern covers the URI, segment by segment; attribute values are compared exactly."""
        if self.exact is not None:
            return name.value == self.exact
        if "?" in name.value:
            return False
        parts = name.value.split("/")
        if self.segments[-1] != _REST:
            return len(parts) == len(self.segments) and _same(parts, self.segments, attributes, _plain_segment)
        fixed = self.segments[:-1]
        if len(parts) <= len(fixed) or "" in parts[len(fixed) :]:
            return False
        return _same(parts[: len(fixed)], fixed, attributes, _plain_segment)


def parse_uri_pattern(text: str) -> UriPattern:
    """The pattern, or Problem RW-PROFILE-INVALID."""
    segments = text.split("/")
    varies = [number for number, part in enumerate(segments) if _SLOT.fullmatch(part) or part == _REST]
    literal = "/".join("x" if number in varies else part for number, part in enumerate(segments))
    if "*" in literal:
        raise Problem("RW-PROFILE-INVALID", f"{shown(text)} has a star that is not the last segment **.")
    try:
        uri = parse_uri(literal)
    except Problem:
        raise _invalid(text, "URIs") from None
    if not varies:
        return UriPattern._make(text=text, exact=uri.value, segments=())
    head = uri.value.split("/")
    # scheme, the empty part and the host come first; a `**` is the last one or nothing
    if len(head) != len(segments) or head[1] or varies[0] < 3 or "?" in text or _REST in segments[:-1]:
        raise _invalid(text, "URIs")
    return UriPattern._make(text=text, exact=None, segments=(*head[:3], *segments[3:]))


class EmailPattern(Sealed):
    """`local` is None for any mailbox; `below` if only hosts under `domain` match."""

    text: str
    local: str | None
    domain: str
    below: bool

    def matches(self, name: EmailName, attributes: Mapping[str, str]) -> bool:
        """Whether the pattern covers the address. It has no placeholders; `attributes` is for the one signature."""
        del attributes
        if self.below:
            return name.domain.endswith("." + self.domain)
        return name.domain == self.domain and self.local in (None, name.local)


def parse_email_pattern(text: str) -> EmailPattern:
    """The pattern, or Problem RW-PROFILE-INVALID."""
    if "*" in text:
        raise Problem("RW-PROFILE-INVALID", f"{shown(text)} has a star, which stands for nothing here.")
    try:
        if not text.startswith("@"):
            address = parse_email(text)
            return EmailPattern._make(text=text, local=address.local, domain=address.domain, below=False)
        below = text.startswith("@.")
        host = parse_host(text[2:] if below else text[1:])
    except Problem:
        raise _invalid(text, "e-mail addresses") from None
    return EmailPattern._make(text=text, local=None, domain=host.value, below=below)


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A network in CIDR form without host bits, or Problem RW-PROFILE-INVALID."""
    try:
        return ip_network(text)
    except ValueError:
        raise _invalid(text, "IP addresses") from None


def matches_ip(networks: Iterable[IPv4Network | IPv6Network], name: IpName) -> bool:
    """Whether one of the networks holds the address."""
    return any(name.address.version == network.version and name.address in network for network in networks)
