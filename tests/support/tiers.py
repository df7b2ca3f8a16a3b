"""Hierarchies as a ceremony makes them, with keys in memory: specification, plan, draft, lint, signature."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.ca.certified import Certified, begin, keep
from rootward.ca.sign import sign
from rootward.core.capture import assemble
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthoritySpec, lint_authority, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.lint import lint_certificate
from rootward.core.names import parse_name, to_general_name
from rootward.core.plan import Ask, Policy, make_serial
from rootward.core.profile import DnsRules, NameRules, Profile
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.times import whole_second
from rootward.keys import Backend, Key
from tests.support.installation import memory_keys

AT = whole_second(datetime.now(UTC)) - timedelta(hours=1)
PKI = "http://pki.test"
WHO = {"id": "p-1", "kind": "person", "name": "mia"}
EVERYTHING = NameRules(
    dns=DnsRules(allow=(".internal", ".test", "localhost"), wildcards=True),
    ip=("10.0.0.0/8", "192.168.0.0/16", "fc00::/7"),
    uri=("https://a.internal/**", "https://a.test/**"),
    email=("@a.internal", "@a.test"),
    minimum=0,
)
_KEYS = memory_keys()
_kept: dict[tuple[KeyAlgorithm, str], Key] = {}


def key_of(algorithm: KeyAlgorithm, label: str) -> Key:
    """A key of that kind; the same one for the same label, because RSA keys are slow to make."""
    if (algorithm, label) not in _kept:
        _kept[algorithm, label] = _KEYS.generate(label, algorithm)
    return _kept[algorithm, label]


@dataclass(frozen=True)
class Tier:
    """An authority that was certified, and its key."""

    spec: AuthoritySpec
    key: Key
    issuer: Issuer

    @property
    def certificate(self) -> x509.Certificate:
        return self.issuer.certificate

    @property
    def root(self) -> x509.Certificate:
        return self.issuer.chain[-1]


def certify(
    spec: AuthoritySpec, above: Tier | None = None, *, key: Key | None = None, existing: x509.Certificate | None = None
) -> Tier:
    """The authority of `spec` under `above`, or a root; every lint passes."""
    key = key or key_of(spec.key_algorithm, spec.name)
    plan = plan_authority(spec, key.public, None if above is None else above.issuer, existing=existing)
    draft = plan.draft(make_serial(secrets.token_bytes(20)), AT)
    assert lint_authority(draft, plan) == []
    data = assemble(draft.tbs, draft.algorithm, sign((above.key if above else key), plan.signer, draft))
    made = x509.load_der_x509_certificate(data)
    chain = (made, *(above.issuer.chain if above else ()))
    return Tier(spec, key, Issuer(spec.name, made, chain, PKI, online=False, rsa_signature=spec.rsa_signature))


def root(name: str = "root", algorithm: KeyAlgorithm = KeyAlgorithm.P384, **more: Any) -> Tier:
    """A root for ten years with room for two CAs below each other."""
    asked = {"path_length": 2, "lifetime": "10y", "common_name": f"The {name} Root CA", "organization": "Tiers"} | more
    return certify(AuthoritySpec(name, "root", key_algorithm=algorithm, **asked))


def issuing(above: Tier, name: str = "issuing", algorithm: KeyAlgorithm = KeyAlgorithm.P256, **more: Any) -> Tier:
    """An issuing CA for five years."""
    asked = {"common_name": f"The {name} Issuing CA", "organization": "Tiers", "kind": "issuing"} | more
    return certify(AuthoritySpec(name=name, key_algorithm=algorithm, **asked), above)


def csr_of(*names: str, cn: str | None = None, key: Any = None) -> bytes:
    """A request, DER, with these names (`dns:…`)."""
    key = key or key_of(KeyAlgorithm.P256, "leaf")._private
    subject = [] if cn is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        alternative = x509.SubjectAlternativeName([to_general_name(parse_name(name)) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    digest = hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def policy_of(tier: Tier, **changes: Any) -> Policy:
    """A profile of TLS servers and clients, changed, compiled for that authority."""
    rules: dict[str, Any] = {"names": EVERYTHING, "extended_key_usage": ("server_auth",)} | changes
    return Policy(Profile("server", tier.spec.name, **rules), 1, tier.issuer)


def leaf(
    tier: Tier, *names: str, cn: str | None = None, key: Any = None, now: datetime = AT, **changes: Any
) -> x509.Certificate:
    """What the road makes of an ask for these names: admitted, linted, signed, verified; or the Problem that it is."""
    plan = policy_of(tier, **changes).admit(Ask("server", parse_csr(csr_of(*names, cn=cn, key=key))), WHO)
    draft = plan.draft(make_serial(secrets.token_bytes(20)), now)
    assert lint_certificate(draft, plan) == []
    data = assemble(draft.tbs, draft.algorithm, sign(tier.key, tier.issuer.key, draft))
    return x509.load_der_x509_certificate(data)


def forged(tier: Tier, *names: str, usage: str = "server_auth", subject: x509.Name | None = None) -> x509.Certificate:
    """A leaf that the road refuses, signed by hand with the CA's key."""
    purpose = {"server_auth": ExtendedKeyUsageOID.SERVER_AUTH, "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH}[usage]
    alternative = [to_general_name(parse_name(name)) for name in names]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([]))
        .issuer_name(tier.certificate.subject)
        .public_key(key_of(KeyAlgorithm.P256, "leaf").public.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT)
        .not_valid_after(AT + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=subject is None)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(tier.issuer.subject_key_id, None, None), critical=False)
        .add_extension(x509.SubjectKeyIdentifier(key_of(KeyAlgorithm.P256, "leaf").public.identifier), critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
    )
    return builder.sign(tier.key._private, hashes.SHA256())


async def online(inst: Any, keys: Backend, caller: Any, **spec: Any) -> Tier:
    """An online authority with room for a CA below it, under an offline root of its own, in an installation."""
    above = root("tier-root")
    asked: dict[str, Any] = {"kind": "issuing", "common_name": "The Tier CA", "path_length": 1} | spec
    wanted = AuthoritySpec(name="tier", **asked)
    key = keys.generate("tier", wanted.key_algorithm)
    made = certify(wanted, above, key=key)

    def write(conn: Any) -> None:
        keep(conn, inst, Certified("tier-root", "root", None, above.certificate), caller)
        keep(conn, inst, Certified("tier", "issuing", "tier-root", made.certificate, keys.name), caller)

    await inst.db.write(write)
    await begin(inst)
    return made
