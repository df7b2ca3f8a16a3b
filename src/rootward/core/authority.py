"""What an authority shall be, as people write it, and everything that can be said about that without a key or a parent
(RFC 5280 4.2.1.4, 4.2.1.6, 4.2.1.9, 4.2.1.10, 4.2.1.12).

`hierarchy.py` admits such a specification for a key under a parent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootward.core.names import parse_email, parse_host, parse_uri
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import EXTENDED_KEY_USAGES, FORBIDDEN_USAGES, check_name, value_fault
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import RSA, RsaSignature
from rootward.core.times import parse_duration

MAX_ENTRIES = 100  # of each list
MAX_PATH = 20
_USAGES = EXTENDED_KEY_USAGES | {"ocsp_signing": ExtendedKeyUsageOID.OCSP_SIGNING}


class Constraints(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Name constraints: DNS, mail and URI domains as RFC 5280 writes them (`internal`, `.internal`), networks as CIDR,
    directory names as RFC 4514 writes them (`O=Acme,C=DE`; a subtree is that name and all that begin with it).
    """

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    directory: tuple[str, ...] = ()


class AuthoritySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an authority's certificate shall say. `path_length` is the number of CAs that may follow; None: no limit.

    A root and a policy CA certify CAs and must allow one at least; an issuing CA does not, unless told. Extended key
    usages (names as profiles have them, `ocsp_signing`, or OIDs) and policies limit everything below; `uris` stand in
    subjectAltName. `rsa_signature` is how its RSA key signs CRLs and CAs; its own certificate is signed as its parent's
    says.
    """

    name: str
    kind: Literal["root", "policy", "issuing"]
    common_name: str
    organization: str = ""
    country: str = ""
    key_algorithm: KeyAlgorithm = KeyAlgorithm.P256
    lifetime: str = "5y"
    path_length: int | None = 0
    permitted: Constraints = Constraints()
    excluded: Constraints = Constraints()
    policies: tuple[str, ...] = ()
    extended_key_usage: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    rsa_signature: RsaSignature = "pkcs1"


def read_spec(value: object, *, field: str = "spec") -> AuthoritySpec:
    """A specification from plain values (of YAML or JSON), unchecked but for its form; Problem RW-CEREMONY."""
    try:
        return msgspec.convert(value, AuthoritySpec)
    except msgspec.ValidationError as error:
        raise Problem(
            "RW-CEREMONY", f"The specification cannot be read: {shown(str(error), 300)}", field=field
        ) from None


def check_spec(spec: AuthoritySpec) -> list[Reason]:
    """Every reason why no authority could be as this says; none where one could."""
    sizes = list(_too_many(spec))
    return sizes or [*_name_faults(spec), *_shape_faults(spec), *_unreadable(spec)]


def _too_many(spec: AuthoritySpec) -> Iterator[Reason]:
    lists: dict[str, tuple[str, ...]] = {
        f"{where}.{form}": getattr(getattr(spec, where), form)
        for where in ("permitted", "excluded")
        for form in Constraints.__struct_fields__
    }
    lists |= {field: getattr(spec, field) for field in ("policies", "extended_key_usage", "uris")}
    for field, values in lists.items():
        if len(values) > MAX_ENTRIES or any(len(value) > 1000 for value in values):
            detail = f"There are at most {MAX_ENTRIES} entries of at most 1,000 characters."
            yield Reason("RW-TOO-MANY", detail, field)
    if len(spec.lifetime) > 40 or len(spec.common_name) > 1000:
        yield Reason("RW-TOO-MANY", "A text is far too long.", "common_name")


def _name_faults(spec: AuthoritySpec) -> Iterator[Reason]:
    try:
        check_name(spec.name, field="name")
    except Problem as problem:
        yield from problem.reasons
    for field in ("common_name", "organization", "country"):
        value: str = getattr(spec, field)
        why = value_fault(field, value) if value or field == "common_name" else None
        if why is not None:
            yield Reason("RW-CSR-SUBJECT", why, field)


def _shape_faults(spec: AuthoritySpec) -> Iterator[Reason]:
    if spec.path_length is not None and not 0 <= spec.path_length <= MAX_PATH:
        yield Reason("RW-CEREMONY", f"A path length is 0 to {MAX_PATH}.", "path_length")
    if spec.path_length == 0 and spec.kind != "issuing":
        detail = f"A {spec.kind} CA with path length 0 could sign no authority: say how many CAs may follow it."
        yield Reason("RW-CEREMONY", detail, "path_length")
    if spec.rsa_signature == "pss" and spec.key_algorithm not in RSA:
        yield Reason("RW-CEREMONY", f"Only RSA keys sign with PSS, not {spec.key_algorithm}.", "rsa_signature")
    try:
        parse_duration(spec.lifetime, field="lifetime")
    except Problem as problem:
        yield from problem.reasons


def _unreadable(spec: AuthoritySpec) -> Iterator[Reason]:
    """Everything in the constraints, policies, usages and URIs that is not of its form, or there twice."""
    checks: dict[str, Callable[[str], object]] = {
        "dns": lambda text: parse_host(text.removeprefix(".")),
        "ip": ipaddress.ip_network,
        "email": lambda text: parse_email(text) if "@" in text else parse_host(text.removeprefix(".")),
        "uri": lambda text: parse_host(text.removeprefix(".")),
        "directory": _directory,
    }
    for where in ("permitted", "excluded"):
        for kind, check in checks.items():
            for text in getattr(getattr(spec, where), kind):
                if not _passes(check, text):
                    yield Reason("RW-CEREMONY", f"{shown(text)} is no {kind} name constraint.", f"{where}.{kind}")
    plain: dict[str, tuple[Callable[[str], Any], str]] = {
        "policies": (x509.ObjectIdentifier, "an object identifier"),
        "extended_key_usage": (authority_usage, "an extended key usage that a CA may have"),
        "uris": (parse_uri, "a URI that can be certified"),
    }
    for field, (check, what) in plain.items():
        values: tuple[str, ...] = getattr(spec, field)
        for text in values:
            if not _passes(check, text):
                yield Reason("RW-CEREMONY", f"{shown(text)} is not {what}.", field)
        known = [check(text) for text in values if _passes(check, text)]
        if any(one in known[:at] for at, one in enumerate(known)):
            yield Reason("RW-CEREMONY", "A value is there twice (RFC 5280 4.2.1.4).", field)


def _passes(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except (Problem, ValueError):
        return False
    return True


def _directory(text: str) -> x509.Name:
    """ValueError for what is no name, or an empty one, which would rule out everybody."""
    name = x509.Name.from_rfc4514_string(text)
    if not name.rdns:
        raise ValueError("a directory name has no attribute")
    return name


def authority_usage(usage: str) -> x509.ObjectIdentifier:
    """The OID of an extended key usage by name or dotted; ValueError for what is neither, and for what no CA of ours is
    given: any usage at all (then there is no list), and those that no profile may give.
    """
    oid = _USAGES.get(usage) or x509.ObjectIdentifier(usage)
    if oid in FORBIDDEN_USAGES and oid != ExtendedKeyUsageOID.OCSP_SIGNING:
        raise ValueError("no authority is given this usage")
    return oid


def subject_of(spec: AuthoritySpec) -> tuple[tuple[str, str], ...]:
    """The subject as (dotted OID, value) pairs."""
    oids = (
        (NameOID.COUNTRY_NAME, spec.country),
        (NameOID.ORGANIZATION_NAME, spec.organization),
        (NameOID.COMMON_NAME, spec.common_name),
    )
    return tuple((oid.dotted_string, value) for oid, value in oids if value)


def constraints_of(spec: AuthoritySpec) -> x509.NameConstraints | None:
    """The extension of a checked specification, if it says any."""
    permitted, excluded = _trees(spec.permitted), _trees(spec.excluded)
    if not permitted and not excluded:
        return None
    return x509.NameConstraints(permitted or None, excluded or None)


def _trees(constraints: Constraints) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(domain.removeprefix(".")) for domain in constraints.dns),
        *(x509.IPAddress(ipaddress.ip_network(network)) for network in constraints.ip),
        *(x509.RFC822Name(domain) for domain in constraints.email),
        *(x509.UniformResourceIdentifier(host) for host in constraints.uri),
        *(x509.DirectoryName(_directory(name)) for name in constraints.directory),
    ]
