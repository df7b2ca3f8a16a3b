"""The request of another system's CA (Vault, OpenBao, AD CS, SPIRE): its key is proved, and nothing else is taken.

What such a CSR asks for (CA:true, a path length, usages, SPIFFE names, Microsoft's extensions) is refused in any other
CSR. Here a specification says what the CA gets, written by those who sign; what was asked is read for them alone, side
by side with what is given (RFC 2986 4, RFC 5280 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from rootward.core.csr import proved_key
from rootward.core.hierarchy import AuthorityPlan
from rootward.core.problems import shown
from rootward.core.pubkey import PublicKey
from rootward.core.sealed import Sealed

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)
_NOTHING = "nothing"


class Line(msgspec.Struct, frozen=True):
    """One thing of a certificate: what the CSR asks for and what the CA gets, both for people."""

    what: str
    asked: str
    given: str


class CaRequest(Sealed):
    """A CSR whose maker has proved to hold the private key. `asked` are (what, in what words), for people."""

    der: bytes
    key: PublicKey
    asked: tuple[tuple[str, str], ...]


def read_ca_request(data: bytes) -> CaRequest:
    """The request that `data` is (PEM or DER). Problem RW-CSR-* or RW-KEY-*."""
    encoded, key = proved_key(data)
    return CaRequest._make(der=encoded, key=key, asked=tuple(_asked(x509.load_der_x509_csr(encoded))))


def compare(request: CaRequest, plan: AuthorityPlan) -> list[Line]:
    """What was asked for beside what is given: first what a specification says, then what it has no word for."""
    given, asked = dict(_given(plan)), dict(request.asked)
    first = [Line(what, asked.get(what, _NOTHING), value) for what, value in given.items()]
    return first + [Line(what, value, _NOTHING) for what, value in request.asked if what not in given]


def _given(plan: AuthorityPlan) -> Iterator[tuple[str, str]]:
    spec = plan.spec
    yield "subject", plan.subject.rfc4514_string()
    yield "names", _listed(str(name) for name in plan.names)
    yield "path length", _length(spec.path_length)
    yield "key usage", "key_cert_sign, crl_sign"
    yield "extended key usage", _listed(plan.facts["extended_key_usage"])
    yield "policies", _listed(spec.policies)
    for what, constraints in (("permitted names", spec.permitted), ("excluded names", spec.excluded)):
        told = [f"{form}:{value}" for form in constraints.__struct_fields__ for value in getattr(constraints, form)]
        yield what, _listed(told)
    yield "lifetime", spec.lifetime


def _asked(csr: x509.CertificateSigningRequest) -> Iterator[tuple[str, str]]:
    """Everything that it says but its key; what cannot be read is named as such, because none of it counts."""
    try:
        yield "subject", shown(csr.subject.rfc4514_string(), 300)
    except _UNREADABLE:
        yield "subject", "what cannot be read"
    try:
        extensions = list(csr.extensions)
    except _UNREADABLE:
        yield "extensions", "what cannot be read"
        return
    for extension in extensions[:50]:
        yield _extension(extension.value)


def _extension(value: x509.ExtensionType) -> tuple[str, str]:
    match value:
        case x509.BasicConstraints():
            return "path length", _length(value.path_length) if value.ca else "not to be a CA"
        case x509.KeyUsage():
            return "key usage", _listed(name for name in _USAGES if getattr(value, name))
        case x509.ExtendedKeyUsage():
            return "extended key usage", _listed(oid.dotted_string for oid in value)
        case x509.SubjectAlternativeName():
            return "names", shown(_listed(_name(name) for name in list(value)[:20]), 500)
        case x509.CertificatePolicies():
            return "policies", _listed(policy.policy_identifier.dotted_string for policy in list(value)[:20])
    return f"extension {value.oid.dotted_string}", "it"


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign"),
)


def _name(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName() | x509.UniformResourceIdentifier() | x509.RFC822Name():
            return name.value
        case x509.IPAddress():
            return str(name.value)
    return type(name).__name__


def _length(length: int | None) -> str:
    return "without a limit" if length is None else str(length)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values) or _NOTHING
