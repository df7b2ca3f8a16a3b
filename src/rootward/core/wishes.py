"""The extensions that a request asks for (RFC 2985 5.4.2, RFC 5280 4.2): kept for the profile, refused, or ignored.

The three lists are those of `csr`. A value that cannot be read is a DerError, whether its extension is ignored or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from rootward.core import der
from rootward.core.names import Name, ip_name, parse_dns, parse_email, parse_uri, unsupported
from rootward.core.problems import Problem, Reason

MAX_NAMES = 100

# Known, and computed or decided by the CA: ignored even where they are marked critical.
_COMPUTED = frozenset(
    {
        "2.5.29.9",  # subjectDirectoryAttributes
        "2.5.29.14",  # subjectKeyIdentifier
        "2.5.29.16",  # privateKeyUsagePeriod
        "2.5.29.18",  # issuerAltName
        "2.5.29.30",  # nameConstraints
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.32",  # certificatePolicies
        "2.5.29.33",  # policyMappings
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.36",  # policyConstraints
        "2.5.29.46",  # freshestCRL
        "2.5.29.54",  # inhibitAnyPolicy
        "1.3.6.1.5.5.7.1.1",  # authorityInfoAccess
        "1.3.6.1.5.5.7.1.11",  # subjectInfoAccess
    }
)
# RFC 5280 4.2.1.3, bit 0 first.
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass
class Wishes:
    """What the extensions ask for, and what is wrong with them; filled by `read_extensions` alone."""

    names: list[Name] = field(default_factory=list)
    key_usage: frozenset[str] | None = None
    extended_key_usage: tuple[str, ...] | None = None
    must_staple: bool = False
    ca: bool = False  # asked for, and refused but where a CA's request is read
    path_length: int | None = None
    ignored: list[str] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def refuse(self, code: str, detail: str, where: str = "csr") -> None:
        self.reasons.append(Reason(code, detail, where))


def read_extensions(data: bytes, extensions: der.Item) -> Wishes:
    """What the Extensions that `extensions` is inside `data` ask for; DerError if they cannot be read."""
    wishes = Wishes()
    seen = set()
    if extensions.tag != der.SEQUENCE:
        raise der.DerError("the extensions are not a sequence")
    for extension in der.items(data, extensions):
        oid, critical, value = _read_extension(data, extension)
        if oid in seen:
            raise der.DerError(f"the extension {oid} is there twice")
        seen.add(oid)
        reader = _READERS.get(oid)
        if reader is not None:
            reader(wishes, value)
            continue
        der.check(value)
        if critical and oid not in _COMPUTED:
            wishes.refuse("RW-CSR-EXTENSION", f"The CSR asks for the critical extension {oid}, which is unknown here.")
        else:
            wishes.ignored.append(oid)
    return wishes


def _read_extension(data: bytes, extension: der.Item) -> tuple[str, bool, bytes]:
    if extension.tag != der.SEQUENCE:
        raise der.DerError("an extension is not a sequence")
    kind = der.header(data, extension.body, extension.end)
    if kind.tag != der.OID:
        raise der.DerError("an extension has no type")
    value = der.header(data, kind.end, extension.end)
    critical = value.tag == der.BOOLEAN
    if critical:
        # FALSE is the default, so DER leaves it out
        if data[value.start : value.end] != b"\x01\x01\xff":
            raise der.DerError("an extension's criticality is not written as DER writes it")
        value = der.header(data, value.end, extension.end)
    if value.tag != der.OCTET_STRING or value.end != extension.end:
        raise der.DerError("an extension has no value, or more than one")
    return der.read_oid(data[kind.body : kind.end]), critical, data[value.body : value.end]


def _read_names(wishes: Wishes, value: bytes) -> None:
    items = list(der.items(value, der.only(value, der.SEQUENCE)))
    if not items:
        wishes.refuse("RW-CSR-EXTENSION", "The CSR's subjectAltName is empty.", "names")
    if len(items) > MAX_NAMES:
        wishes.refuse("RW-TOO-MANY", f"The CSR asks for {len(items)} names; {MAX_NAMES} is the limit.", "names")
        return
    for item in items:
        try:
            wishes.names.append(read_name(item.tag, value[item.body : item.end]))
        except Problem as problem:
            wishes.reasons.extend(problem.reasons)


_TEXTS: dict[int, Callable[..., Name]] = {0x82: parse_dns, 0x86: parse_uri, 0x81: parse_email}


def read_name(tag: int, body: bytes) -> Name:
    """One GeneralName by its tag octet and content (RFC 5280 4.2.1.6)."""
    parse = _TEXTS.get(tag)
    if parse is not None:
        # Latin-1 keeps every octet, so what is not ASCII is seen, and refused, as such
        return parse(body.decode("latin-1"), field="names")
    if tag == 0x87:
        if len(body) not in (4, 16):
            raise Problem("RW-NAME", f"An IP address of {len(body)} octets is none.", field="names")
        return ip_name(ip_address(body), field="names")
    if tag == 0xA0:
        kind = der.header(body, 0, len(body))
        raise Problem.of([unsupported(0, der.read_oid(body[kind.body : kind.end]) if kind.tag == der.OID else None)])
    if tag in (0xA3, 0xA4, 0xA5, 0x88):
        raise Problem.of([unsupported(tag & 0x1F)])
    raise der.DerError("a name is of no type that there is")


def _read_basic_constraints(wishes: Wishes, value: bytes) -> None:
    parts = list(der.items(value, der.only(value, der.SEQUENCE)))
    tags = [part.tag for part in parts]
    if tags not in ([], [der.BOOLEAN], [der.INTEGER], [der.BOOLEAN, der.INTEGER]):
        raise der.DerError("the basic constraints cannot be read")
    if tags[:1] == [der.BOOLEAN] and der.whole(value, parts[0]) != b"\x01\x01\xff":
        raise der.DerError("the basic constraints are not written as DER writes them")
    wishes.ca = tags[:1] == [der.BOOLEAN]
    if tags[-1:] == [der.INTEGER]:
        wishes.path_length = der.read_integer(value[parts[-1].body : parts[-1].end])
    if tags:
        wishes.refuse("RW-CSR-CA", "The CSR asks to be a CA, or for a path length; neither is given on a request.")


def _read_key_usage(wishes: Wishes, value: bytes) -> None:
    bits = der.content(value, der.only(value, der.BIT_STRING))
    # RFC 5280 4.2.1.3: at least one bit is set; DER writes no zero bits behind the last one.
    if len(bits) not in (2, 3) or bits[0] > 7 or not bits[-1] >> bits[0] & 1 or bits[-1] & ((1 << bits[0]) - 1):
        raise der.DerError("the key usage cannot be read")
    flags = int.from_bytes(bits[1:].ljust(2, b"\0"), "big")
    wishes.key_usage = frozenset(name for bit, name in enumerate(_KEY_USAGES) if flags >> (15 - bit) & 1)


def _read_extended_key_usage(wishes: Wishes, value: bytes) -> None:
    found = []
    for item in der.items(value, der.only(value, der.SEQUENCE)):
        if item.tag != der.OID:
            raise der.DerError("an extended key usage is not an object identifier")
        found.append(der.read_oid(value[item.body : item.end]))
    if not found:
        wishes.refuse("RW-CSR-EXTENSION", "The CSR's extended key usage is empty.")
    wishes.extended_key_usage = tuple(dict.fromkeys(found))


def _read_tls_feature(wishes: Wishes, value: bytes) -> None:
    """RFC 7633: status_request (5) and status_request_v2 (17) are must-staple; there is nothing else to ask for."""
    features = set()
    for item in der.items(value, der.only(value, der.SEQUENCE)):
        if item.tag != der.INTEGER:
            raise der.DerError("a TLS feature is not an integer")
        features.add(der.read_integer(value[item.body : item.end]))
    if not features or features - {5, 17}:
        wishes.refuse("RW-CSR-EXTENSION", "The CSR asks for TLS features that are unknown here.")
    wishes.must_staple = True


def _refuse_application_policies(wishes: Wishes, value: bytes) -> None:
    der.check(value)
    wishes.refuse(
        "RW-CSR-EXTENSION", "The CSR asks for Microsoft's application policies, which nobody gets on request."
    )


_READERS: dict[str, Callable[[Wishes, bytes], None]] = {
    "2.5.29.15": _read_key_usage,
    "2.5.29.17": _read_names,
    "2.5.29.19": _read_basic_constraints,
    "2.5.29.37": _read_extended_key_usage,
    "1.3.6.1.5.5.7.1.24": _read_tls_feature,
    "1.3.6.1.4.1.311.21.10": _refuse_application_policies,
}
