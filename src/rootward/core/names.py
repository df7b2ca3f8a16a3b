"""The names that a certificate may hold, checked once, then a type: `DnsName`, `IpName`, `UriName`, `EmailName`.

Sources: RFC 5280 4.2.1.6, RFC 1123 2.1 and RFC 5890 (host names, LDH and A-labels), RFC 3986 (URIs), RFC 5321
(mailboxes), the SPIFFE ID specification. What is refused here is refused everywhere; what a profile allows is decided
with `patterns`. Choices where the sources leave one: no underscore, no trailing dot; at most ten labels; a last label
that an IPv4 parser would read as a number is refused (`127.1`, `0x7f000001`); a wildcard is one whole left-most label
and never stands above an internationalised label; e-mail addresses are dot-atoms at a host; URIs have no fragment,
userinfo or dot segment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import idna
from cryptography import x509

from rootward.core.labels import label_problem
from rootward.core.problems import Problem, Reason, shown
from rootward.core.sealed import Sealed

MAX_LABELS = 10
MAX_DNS = 253
MAX_URI = 2048
MAX_EMAIL = 254


class DnsName(Sealed):
    """A host name in lower-case A-labels; a wildcard begins with `*.`."""

    kind = "dns"
    value: str
    wildcard: bool

    @property
    def base(self) -> str:
        """The name without its `*.`."""
        return self.value[2:] if self.wildcard else self.value

    def __str__(self) -> str:
        return f"dns:{self.value}"


class IpName(Sealed):
    """One address, never a network, and never one that cannot be a peer's."""

    kind = "ip"
    address: IPv4Address | IPv6Address

    def __str__(self) -> str:
        return f"ip:{self.address}"


class UriName(Sealed):
    """An absolute URI; scheme and host are lower-case. `trust_domain` is there for a SPIFFE ID only."""

    kind = "uri"
    value: str
    trust_domain: str | None

    def __str__(self) -> str:
        return f"uri:{self.value}"


class EmailName(Sealed):
    """`local@domain`: the local part as it came, the domain in lower-case A-labels."""

    kind = "email"
    value: str
    local: str
    domain: str

    def __str__(self) -> str:
        return f"email:{self.value}"


Name = DnsName | IpName | UriName | EmailName

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LAST = rf"(?![0-9]+\Z)(?!0x[0-9a-f]*\Z){_LABEL}"
# Almost every name there is: no label of the form ab--c, so nothing that IDNA would have to look at.
_PLAIN = re.compile(rf"(\*\.)?(?:(?!..--){_LABEL}\.)*(?!..--){_LAST}", re.ASCII)
_HOST = re.compile(rf"(\*\.)?(?:{_LABEL}\.)*{_LAST}", re.ASCII)


def parse_dns(text: str, *, field: str | None = None) -> DnsName:
    """A name in ASCII, upper case folded; Problem RW-NAME, or RW-NAME-SCRIPT for an A-label that mixes scripts."""
    if len(text) <= MAX_DNS and text.isascii():
        value = text.lower()
        match = _PLAIN.fullmatch(value)
        if match is not None and value.count(".") < MAX_LABELS:
            return DnsName._make(value=value, wildcard=match[1] is not None)
    return _parse_odd_dns(text, field)


def _parse_odd_dns(text: str, field: str | None) -> DnsName:
    """What the fast pattern did not take: names with A-labels, and everything that is wrong."""
    why = _dns_problem(text)
    if why is not None:
        raise Problem("RW-NAME", f"{shown(text)} is not a DNS name: {why}.", field=field)
    value = text.lower()
    for label in value.split("."):
        problem = label_problem(label) if label[2:4] == "--" else None
        if problem is not None:
            raise Problem(problem[0], f"{shown(text)} is not a DNS name: {problem[1]}.", field=field)
    if value.startswith("*.") and any(label.startswith("xn--") for label in value.split(".")):
        raise Problem("RW-NAME", f"{shown(text)} puts a wildcard above an internationalised label.", field=field)
    return DnsName._make(value=value, wildcard=value.startswith("*."))


def _dns_problem(text: str) -> str | None:
    """Why this cannot be a host name whatever its labels mean, or None."""
    if not text:
        return "it is empty"
    if not text.isascii():
        return "it holds characters outside ASCII (an internationalised name is written in A-labels, xn--…)"
    if len(text) > MAX_DNS:
        return f"it has more than {MAX_DNS} characters"
    if text.endswith("."):
        return "it ends with a dot"
    value = text.lower()
    if value.count(".") >= MAX_LABELS:
        return f"it has more than {MAX_LABELS} labels"
    if "*" in value and ("*" in value[1:] or not value.startswith("*.")):
        return "a wildcard is the whole left-most label, once, above a name"
    labels = value.removeprefix("*.").split(".")
    if "" in labels:
        return "a label is empty"
    if any(len(label) > 63 for label in labels):
        return "a label has more than 63 characters"
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        return "a label begins or ends with a hyphen"
    if _HOST.fullmatch(value) is not None:
        return None
    if re.fullmatch(rf"(?:{_LABEL}\.)*{_LABEL}", value.removeprefix("*."), re.ASCII):
        return "its last label is a number, as in an IP address"
    return "a label holds something else than letters, digits and hyphens"


# What can never be the address of one reachable peer, and why.
_REFUSED_NETWORKS = (
    ("0.0.0.0/8", "unspecified"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("::/128", "unspecified"),
    ("::/96", "an IPv4 address in IPv6 form"),
    ("::ffff:0:0/96", "an IPv4 address in IPv6 form"),
    ("::ffff:0:0:0/96", "an IPv4 address in IPv6 form"),
    ("64:ff9b::/96", "a translated IPv4 address"),
    ("64:ff9b:1::/48", "a translated IPv4 address"),
    ("100::/64", "discard-only"),
    ("2001::/32", "a Teredo address"),
    ("2002::/16", "a 6to4 address"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_REFUSED = tuple(
    (network.version, int(network[0]), int(network[-1]), why)
    for network, why in ((ip_network(text), why) for text, why in _REFUSED_NETWORKS)
)
_LOOPBACK_V6 = IPv6Address("::1")


def ip_name(address: IPv4Address | IPv6Address, *, field: str | None = None) -> IpName:
    """The name of an address; Problem RW-NAME where no single reachable peer can have it."""
    number, version = int(address), address.version
    for refused, first, last, why in _REFUSED:
        if version == refused and first <= number <= last and address != _LOOPBACK_V6:
            raise Problem("RW-NAME", f"{address} cannot be certified: it is {why}.", field=field)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Problem("RW-NAME", "An IPv6 address with a zone cannot be certified.", field=field)
    return IpName._make(address=address)


def parse_ip(text: str, *, field: str | None = None) -> IpName:
    """An address in its usual form: no brackets, zone, mask or leading zeros; Problem RW-NAME."""
    try:
        address = ip_address(text)
    except ValueError:
        raise Problem("RW-NAME", f"{shown(text)} is not an IP address.", field=field) from None
    return ip_name(address, field=field)


_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31}):(?://(?P<authority>[^/?]*))?(?P<path>[^?]*)(?P<query>\?.*)?", re.ASCII
)
_URI_CHARS = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_HIDDEN = re.compile(r"%(?:2[ef]|5c|[01][0-9a-f]|7f)", re.ASCII | re.IGNORECASE)
_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[1-9][0-9]{0,4}))?", re.ASCII)
_SPIFFE = re.compile(r"spiffe://([a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII)
# Schemes that make a reader run or open what stands behind them.
_DENIED_SCHEMES = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "view-source"})


def parse_uri(text: str, *, field: str | None = None) -> UriName:
    """An absolute URI in ASCII, up to 2,048 characters; Problem RW-NAME. A `spiffe:` one must be a SPIFFE ID."""
    match = _URI.fullmatch(text) if len(text) <= MAX_URI and _URI_CHARS.fullmatch(text) else None
    if match is None or not (match["path"] or match["authority"]):
        raise Problem("RW-NAME", f"{shown(text)} is not an absolute URI of at most {MAX_URI} characters.", field=field)
    scheme = match["scheme"].lower()
    if scheme in _DENIED_SCHEMES:
        raise Problem("RW-NAME", f"A URI of the scheme {scheme} cannot be certified.", field=field)
    if scheme == "spiffe":
        value = "spiffe" + text[len(scheme) :]
        spiffe = _SPIFFE.fullmatch(value)
        if spiffe is None:
            raise Problem("RW-NAME", f"{shown(text)} is not a SPIFFE ID.", field=field)
        return UriName._make(value=value, trust_domain=spiffe[1])
    if _HIDDEN.search(text) or any(part in (".", "..") for part in match["path"].split("/")):
        raise Problem("RW-NAME", f"{shown(text)} hides a separator, dot segment or control character.", field=field)
    authority = "" if match["authority"] is None else "//" + _authority(match["authority"], text, field)
    value = f"{scheme}:{authority}{match['path']}{match['query'] or ''}"
    return UriName._make(value=value, trust_domain=None)


def _authority(authority: str, text: str, field: str | None) -> str:
    """`host` or `host:port` with the host checked, in lower case (RFC 5280 4.2.1.6 wants a name or an address)."""
    match = _PORT.fullmatch(authority)
    if match is None or not match["host"] or (match["port"] and int(match["port"]) > 65535):
        raise Problem(
            "RW-NAME", f"{shown(text)} has no plain host, or one with a user's name or password.", field=field
        )
    host = match["host"]
    if host.startswith("["):
        host = f"[{parse_ip(host[1:-1], field=field).address}]"
    elif re.fullmatch(r"[0-9.]+", host, re.ASCII):
        host = str(parse_ip(host, field=field).address)
    else:
        host = parse_host(host, field=field).value
    return f"{host}:{match['port']}" if match["port"] else host


def parse_host(text: str, *, field: str | None = None) -> DnsName:
    """As `parse_dns`, but a wildcard is refused."""
    name = parse_dns(text, field=field)
    if name.wildcard:
        raise Problem("RW-NAME", f"{shown(text)} is a wildcard where only a name can stand.", field=field)
    return name


_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)


def parse_email(text: str, *, field: str | None = None) -> EmailName:
    """`local@domain` in ASCII (RFC 5280's Mailbox without quoted forms and address literals); Problem RW-NAME."""
    local, at, domain = text.rpartition("@")
    if not at or len(text) > MAX_EMAIL or len(local) > 64 or not _LOCAL.fullmatch(local):
        raise Problem("RW-NAME", f"{shown(text)} is not an e-mail address.", field=field)
    host = parse_host(domain, field=field).value
    return EmailName._make(value=f"{local}@{host}", local=local, domain=host)


_PARSERS: dict[str, Callable[..., Name]] = {"dns": parse_dns, "ip": parse_ip, "uri": parse_uri, "email": parse_email}


def parse_name(text: str, *, field: str | None = None) -> Name:
    """The inverse of `str(name)`: `dns:`, `ip:`, `uri:` or `email:`, then the name; else Problem RW-NAME-TYPE."""
    kind, colon, value = text.partition(":")
    parser = _PARSERS.get(kind) if colon else None
    if parser is None:
        raise Problem("RW-NAME-TYPE", f"{shown(text)} begins with none of dns:, ip:, uri: and email:.", field=field)
    return parser(value, field=field)


def guess_name(text: str, *, field: str | None = None) -> Name:
    """A name as a person writes it, its kind seen from its form or said (`dns:…`); U-labels become A-labels."""
    if text.partition(":")[0] in _PARSERS and ":" in text:
        return parse_name(text, field=field)
    try:
        return ip_name(ip_address(text), field=field)
    except ValueError:
        pass  # not an address, so one of the others
    if ":" in text:
        return parse_uri(text, field=field)
    local, at, host = text.rpartition("@")
    if not host.isascii() and len(host) <= MAX_DNS:
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise Problem("RW-NAME", f"{shown(text)} cannot be written in A-labels (IDNA 2008).", field=field) from None
    return parse_email(f"{local}@{host}", field=field) if at else parse_dns(host, field=field)


_ORDER = {"dns": 0, "ip": 1, "uri": 2, "email": 3}


def sort_key(name: Name) -> tuple[int, int, str]:
    """A total order of names: by kind, addresses by version and number, the others by their text."""
    if isinstance(name, IpName):
        return 1, name.address.version, f"{int(name.address):039d}"
    return _ORDER[name.kind], 0, name.value


# GeneralName's tags that no certificate of ours carries (RFC 5280 4.2.1.6), as a person knows them.
UNSUPPORTED = {
    0: "otherName",
    3: "x400Address",
    4: "directoryName",
    5: "ediPartyName",
    8: "registeredID",
}
UPN = "1.3.6.1.4.1.311.20.2.3"


def unsupported(tag: int, oid: str | None = None) -> Reason:
    """Why a GeneralName of this context tag is refused; `oid` is an otherName's type."""
    if oid == UPN:
        return Reason("RW-NAME-TYPE", "A user principal name (UPN) is never taken from a request.", "names")
    return Reason("RW-NAME-TYPE", f"A name of the type {UNSUPPORTED.get(tag, 'unknown')} is not accepted.", "names")


def from_general_names(names: Iterable[x509.GeneralName]) -> tuple[list[Name], list[Reason]]:
    """The names of a subjectAltName that `cryptography` has read, in order, and all that is wrong with the others."""
    found: list[Name] = []
    reasons: list[Reason] = []
    for name in names:
        try:
            found.append(_from_general_name(name))
        except Problem as problem:
            reasons.extend(problem.reasons)
    return found, reasons


def _from_general_name(name: x509.GeneralName) -> Name:
    match name:
        case x509.DNSName():
            return parse_dns(name.value, field="names")
        case x509.IPAddress():
            if not isinstance(name.value, IPv4Address | IPv6Address):
                raise Problem("RW-NAME", "A network is not the name of anybody.", field="names")
            return ip_name(name.value, field="names")
        case x509.UniformResourceIdentifier():
            return parse_uri(name.value, field="names")
        case x509.RFC822Name():
            return parse_email(name.value, field="names")
        case x509.OtherName():
            reason = unsupported(0, name.type_id.dotted_string)
        case x509.DirectoryName():
            reason = unsupported(4)
        case x509.RegisteredID():
            reason = unsupported(8)
        case _:
            reason = unsupported(-1)
    raise Problem.of([reason])


def to_general_name(name: Name) -> x509.GeneralName:
    """The name as `cryptography`'s builders take it."""
    match name:
        case DnsName():
            return x509.DNSName(name.value)
        case IpName():
            return x509.IPAddress(name.address)
        case UriName():
            return x509.UniformResourceIdentifier(name.value)
        case EmailName():
            return x509.RFC822Name(name.value)
