"""Profiles, requests and issuers for tests of admission and drafts: what a policy takes, in one call each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from rootward.core.csr import Csr, parse_csr
from rootward.core.issuer import Issuer
from rootward.core.names import parse_name, to_general_name
from rootward.core.plan import Ask, Draft, Plan, Policy, Serial, make_serial
from rootward.core.problems import Problem
from rootward.core.profile import DnsRules, NameRules, Profile
from tests.support.authority import Authority
from tests.vectors import csr_parts as parts

T = TypeVar("T")

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
SERIAL: Serial = make_serial(bytes(range(20)))
PKI = "http://pki.test"
WHO = {"id": "p-1", "kind": "person", "name": "mia"}
NAMES = NameRules(
    dns=DnsRules(allow=(".internal", "localhost"), wildcards=True),
    ip=("10.0.0.0/8", "fc00::/7"),
    uri=("https://a.internal/**", "spiffe://a.internal/**"),
    email=("@a.internal",),
)


@functools.cache
def ca(common: str = "Test Issuing CA", *, days: int = 1800) -> Authority:
    """A root of that name with a P-256 key and this many days to live; the same one for the same arguments."""
    return Authority(common, start=NOW - 30 * DAY, end=NOW + days * DAY)


def issuer_of(authority: Authority) -> Issuer:
    """The authority as the core sees it, with its parents as its chain."""
    chain, at = [authority.certificate], authority.parent
    while at is not None:
        chain.append(at.certificate)
        at = at.parent
    return Issuer("issuing", chain[0], tuple(chain), PKI)


def profile(**changes: Any) -> Profile:
    """A profile of TLS servers that takes names of every kind."""
    base = Profile(
        "server",
        "issuing",
        names=NAMES,
        key_usage=("digital_signature", "key_encipherment"),
        extended_key_usage=("server_auth",),
    )
    return msgspec.structs.replace(base, **changes)


def policy(*, version: int = 1, issuer: Issuer | None = None, **changes: Any) -> Policy:
    """That profile, changed, compiled."""
    return Policy(profile(**changes), version, issuer or issuer_of(ca()))


def csr(
    *names: str,
    cn: str | None = None,
    key: Any = None,
    subject: Iterable[tuple[x509.ObjectIdentifier, str]] = (),
    extensions: Iterable[x509.ExtensionType] = (),
) -> Csr:
    """A request with these names (`dns:…`) and a common name, read as the doors read it."""
    key = key or parts.private_key()
    attributes = [x509.NameAttribute(oid, value) for oid, value in subject]
    if cn is not None:
        attributes.append(x509.NameAttribute(x509.NameOID.COMMON_NAME, cn, _validate=False))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        alternative = x509.SubjectAlternativeName([to_general_name(parse_name(name)) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    digest = hashes.SHA256() if type(key).__name__.startswith(("RSA", "EC", "Elliptic")) else None
    return parse_csr(builder.sign(key, digest).public_bytes(serialization.Encoding.DER))


def ask(*names: str, lifetime: timedelta | None = None, labels: dict[str, str] | None = None, **request: Any) -> Ask:
    """An ask for these names."""
    return Ask("server", csr(*names, **request), lifetime, labels=labels or {})


def plan(*names: str, rules: dict[str, Any] | None = None, **wanted: Any) -> Plan:
    """What is admitted under the profile changed by `rules`."""
    return policy(**(rules or {})).admit(ask(*(names or ("dns:a.internal",)), **wanted), WHO)


def draft(made: Plan, *, now: datetime = NOW, serial: Serial = SERIAL) -> Draft:
    """Its draft."""
    return made.draft(serial, now)


def read(made: Draft) -> x509.Certificate:
    """What a relying party's parser makes of the draft."""
    from rootward.core.capture import assemble

    return x509.load_der_x509_certificate(assemble(made.tbs, made.algorithm, bytes(8)))


def refusal(call: Callable[[], object]) -> list[tuple[str, str | None]]:
    """Code and field of every reason of the Problem that the call must raise."""
    with pytest.raises(Problem) as caught:
        call()
    assert all(reason.detail for reason in caught.value.reasons)
    return [(reason.code, reason.field) for reason in caught.value.reasons]


def attempt(call: Callable[[], T]) -> T | Problem:
    """What the call gives, or the Problem that it raises."""
    try:
        return call()
    except Problem as problem:
        return problem


def changed(made: Draft, **fields: object) -> Draft:
    """A draft that no check stands for."""
    return Draft._make(**{name: fields.get(name, getattr(made, name)) for name in Draft._fields})
