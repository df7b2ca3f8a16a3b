"""Hierarchies of every kind, made by the core as a ceremony makes them, and what OpenSSL, GnuTLS, Java and
`cryptography` say of a leaf under each; and leaves outside the limits, signed by hand, which the same programs refuse.

`SAYS` and `REFUSED` are who was asked; docs/hierarchies.md has the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from rootward.core.authority import Constraints
from rootward.core.cross import Below, read_cross
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.issuer import Issuer
from rootward.core.problems import Problem
from rootward.core.profile import Subject, Value
from rootward.core.pubkey import KeyAlgorithm as K
from rootward.core.signature import signature_of
from tests.support.programs import run
from tests.support.tiers import AT, PKI, Tier, certify, forged, issuing, key_of, leaf, root

CHECK = Path(__file__).parent / "java" / "Check.java"
TABLE = Path(__file__).parents[2] / "docs" / "hierarchies.md"
A = "dns:a.internal"
POLICY = "1.3.6.1.4.1.99999.1"
PROGRAMS = ("openssl", "gnutls", "java", "cryptography")
ALL = frozenset(PROGRAMS)
TIERS = Subject(common_name=Value("none"), organization=Value("fixed", "Tiers"))
CLIENT: dict[str, Any] = {"extended_key_usage": ("client_auth",)}


@dataclass(frozen=True)
class Seen:
    """A leaf and its chain, the root last. `purpose` is what it is presented for."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    purpose: str = "server"


def under(tier: Tier, *names: str, purpose: str = "server", **profile: Any) -> Seen:
    return Seen(leaf(tier, *(names or (A,)), **profile), tier.issuer.chain, purpose)


@cache
def above() -> Tier:
    return root()


@cache
def policy_ca() -> Tier:
    spec = AuthoritySpec("unit", "policy", "The Unit Policy CA", path_length=1, policies=(POLICY,), lifetime="8y")
    return certify(spec, above())


@cache
def constrained() -> Tier:
    return issuing(
        above(),
        "constrained",
        permitted=Constraints(
            dns=("internal",), ip=("10.0.0.0/8",), email=("a.internal",), uri=(".internal",), directory=("O=Tiers",)
        ),
        excluded=Constraints(dns=("evil.internal",)),
    )


@cache
def narrow() -> Tier:
    """DNS names alone, which every program can judge."""
    return issuing(
        above(),
        "narrow",
        permitted=Constraints(dns=("internal",)),
        excluded=Constraints(dns=("evil.internal", "x.a.internal")),
    )


@cache
def for_clients() -> Tier:
    return issuing(above(), "clients", extended_key_usage=("client_auth", "ocsp_signing"))


def deep() -> Seen:
    top = root("deep", path_length=None)
    for number in range(4):
        spec = AuthoritySpec(f"deep-{number}", "policy", f"Deep CA {number}", path_length=4 - number, lifetime="8y")
        top = certify(spec, top)
    return under(issuing(top, "deep-issuing"))


def pure(algorithm: K) -> Seen:
    """One algorithm from the root to the leaf."""
    tier = issuing(root(algorithm.value, algorithm), f"{algorithm}-issuing", algorithm)
    return under(tier, key=key_of(algorithm, "leaf")._private, keys=(algorithm,))


def pss() -> Seen:
    top = root("pss", K.RSA_2048, rsa_signature="pss")
    tier = issuing(top, "pss-issuing", K.RSA_2048, rsa_signature="pss")
    made = under(tier, rsa_signature="pss")
    wanted = signature_of(K.RSA_2048, "pss").pss
    for certificate in (made.leaf, *made.chain):
        assert certificate.signature_algorithm_oid.dotted_string == "1.2.840.113549.1.1.10"
        assert isinstance(certificate.signature_algorithm_parameters, type(wanted))
    return made


def mixed(upper: K, lower: K) -> Seen:
    return under(issuing(root(f"mixed-{upper}", upper), f"under-{upper}", lower))


def cross(*, back: bool) -> Seen:
    """A leaf under a new root, for those who trust the old one; and the other way round."""
    old, new = root("old"), root("new", K.P384, common_name="The next Root CA")
    trusted, hidden = (new, old) if back else (old, new)
    spec = msgspec.structs.replace(hidden.spec, kind="policy", name="crossed", path_length=1, lifetime="8y")
    crossed = certify(spec, trusted, key=hidden.key, existing=hidden.certificate)
    tier = issuing(hidden, "under-cross-back" if back else "under-cross")
    # What online authorities take in as a cross-signed chain is this.
    text = b"".join(one.public_bytes(Encoding.PEM) for one in (crossed.certificate, trusted.certificate))
    taken = read_cross(text, hidden.issuer, Below(1, {"server": frozenset()}), now=datetime.now(UTC))
    assert taken.certificates == (crossed.certificate,)
    return Seen(leaf(tier, A), (tier.certificate, crossed.certificate, trusted.certificate))


def spiffe() -> Seen:
    return under(issuing(above(), "mesh", uris=("spiffe://mesh.internal",)))


PQC = frozenset({"cryptography"})  # OpenSSL from 3.5, GnuTLS from 3.8.9, Java from 24 on can; these cannot
SAYS: dict[str, tuple[Callable[[], Seen], frozenset[str]]] = {
    "two tiers": (lambda: under(issuing(above(), "two")), ALL),
    "three tiers, a policy CA": (
        lambda: under(issuing(policy_ca(), "three", policies=(POLICY,)), policies=(POLICY,)),
        ALL,
    ),
    "six tiers": (deep, ALL),
    "name constraints: DNS": (lambda: under(narrow()), ALL),
    "name constraints: all types": (
        lambda: under(
            constrained(),
            *(A, "ip:10.1.1.1", "email:x@a.internal", "uri:https://a.internal/x"),
            subject=TIERS,
        ),
        ALL - {"cryptography"},
    ),
    "extended key usage of a CA": (lambda: under(for_clients(), purpose="client", **CLIENT), ALL),
    "a CA with a SPIFFE name": (spiffe, ALL),
    "cross-signed: the old root trusted": (lambda: cross(back=False), ALL),
    "cross-signed: the new root trusted": (lambda: cross(back=True), ALL),
    "RSA-PSS": (pss, ALL),
    "Ed25519": (lambda: pure(K.ED25519), ALL - {"cryptography"}),
    "brainpool P256r1": (lambda: pure(K.BRAINPOOL_P256R1), frozenset({"openssl"})),
    "brainpool P384r1": (lambda: pure(K.BRAINPOOL_P384R1), frozenset({"openssl"})),
    "brainpool P512r1": (lambda: pure(K.BRAINPOOL_P512R1), frozenset({"openssl"})),
    "ML-DSA-44": (lambda: pure(K.ML_DSA_44), PQC),
    "ML-DSA-65": (lambda: pure(K.ML_DSA_65), PQC),
    "ML-DSA-87": (lambda: pure(K.ML_DSA_87), PQC),
    "ML-DSA root, ECDSA below": (lambda: mixed(K.ML_DSA_65, K.P256), PQC),
    "ECDSA root, ML-DSA below": (lambda: mixed(K.P384, K.ML_DSA_65), PQC),
}


def too_deep() -> Tier:
    """A CA that an issuing CA with path length 0 signed by hand."""
    signer = issuing(above(), "two")
    key = key_of(K.P256, "too-deep")
    open_ended = root("pretended", K.P256, common_name=signer.spec.common_name)
    made = certify(AuthoritySpec("deeper", "issuing", "A deeper CA", lifetime="1y"), open_ended, key=key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.certificate.subject)
        .issuer_name(signer.certificate.subject)
        .public_key(key.public.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT)
        .not_valid_after(AT + timedelta(days=30))
    )
    for extension in made.certificate.extensions:
        value: x509.ExtensionType = extension.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            value = x509.AuthorityKeyIdentifier(signer.issuer.subject_key_id, None, None)
        builder = builder.add_extension(value, extension.critical)
    by_hand = builder.sign(signer.key._private, hashes.SHA256())
    return Tier(made.spec, key, Issuer("deeper", by_hand, (by_hand, *signer.issuer.chain), PKI))


@dataclass(frozen=True)
class Outside:
    """A leaf outside the limits of its chain: how the road is asked for it, the code with which it refuses, and who
    else does, of those who accept a leaf inside.
    """

    tier: Callable[[], Tier]
    names: tuple[str, ...]
    code: str
    refused_by: frozenset[str]
    usage: str = "server_auth"
    organization: str = "Tiers"


NAMES = "RW-NAME-CONSTRAINED"
JUDGES = ALL - {"cryptography"}  # who reads constraints of all types, and so accepts what is inside of them
REFUSED: dict[str, Outside] = {
    "a DNS name outside": Outside(narrow, ("dns:a.test",), NAMES, ALL),
    "a DNS name that is excluded": Outside(narrow, ("dns:a.evil.internal",), NAMES, ALL),
    "a wildcard over what is excluded": Outside(narrow, ("dns:*.a.internal",), NAMES, frozenset({"cryptography"})),
    "an address outside": Outside(constrained, ("ip:192.168.0.1",), NAMES, JUDGES),
    "an IPv6 address beside IPv4 networks": Outside(constrained, ("ip:fc00::1",), NAMES, JUDGES - {"gnutls"}),
    "an e-mail address outside": Outside(constrained, ("email:x@a.test",), NAMES, JUDGES),
    "a URI outside": Outside(constrained, ("uri:https://a.test/x",), NAMES, JUDGES - {"gnutls"}),
    "a subject outside": Outside(constrained, (A,), NAMES, JUDGES - {"gnutls"}, organization="Others"),
    "a server under a CA for clients": Outside(for_clients, (A,), "RW-PROFILE-INVALID", ALL - {"java"}),
    "a CA too many": Outside(too_deep, (A,), "RW-PROFILE-INVALID", ALL),
}


def ask(name: str) -> Seen:
    outside = REFUSED[name]
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, outside.organization)])
    tier = outside.tier()
    return Seen(forged(tier, *outside.names, usage=outside.usage, subject=subject), tier.issuer.chain)


# ── Who says what ─────────────────────────────────────────────────────────────────────────────────────────────────


def pem(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def by_openssl(seen: Seen, folder: Path) -> bool:
    files = {"root": seen.chain[-1:], "between": seen.chain[:-1], "leaf": (seen.leaf,)}
    for name, certificates in files.items():
        (folder / f"{name}.pem").write_text(pem(certificates))
    trust = ("-CAfile", folder / "root.pem", "-no-CApath", "-no-CAstore", "-x509_strict")
    given = ("-purpose", f"ssl{seen.purpose}", "-untrusted", folder / "between.pem", folder / "leaf.pem")
    return run("openssl", "verify", *trust, *given, codes=None).returncode == 0


def by_gnutls(seen: Seen, folder: Path) -> bool:
    (folder / "root.pem").write_text(pem(seen.chain[-1:]))
    purpose = ("--verify-purpose", {"server": "1.3.6.1.5.5.7.3.1", "client": "1.3.6.1.5.5.7.3.2"}[seen.purpose])
    done = run(
        *("certtool", "--verify", *purpose, "--load-ca-certificate", folder / "root.pem"),
        stdin=pem((seen.leaf, *seen.chain[:-1])),
        codes=None,
    )
    return "Chain verification output: Verified." in done.stdout


def by_cryptography(seen: Seen, _folder: Path) -> bool:
    builder = PolicyBuilder().store(Store([seen.chain[-1]])).time(datetime.now(UTC))
    between = list(seen.chain[:-1])
    try:
        if seen.purpose == "client":
            builder.build_client_verifier().verify(seen.leaf, between)
        else:
            names = seen.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            host = next(iter(names.get_values_for_type(x509.DNSName)), "a.internal").replace("*", "x")
            builder.build_server_verifier(x509.DNSName(host)).verify(seen.leaf, between)
    except VerificationError:
        return False
    return True


def by_java(all_seen: dict[str, Seen], folder: Path) -> dict[str, bool]:
    """All in one virtual machine, which takes seconds to begin."""
    roots = {one.chain[-1].public_bytes(Encoding.DER): one.chain[-1] for one in all_seen.values()}
    (folder / "roots.pem").write_text(pem(roots.values()))
    words: list[str | Path] = []
    for number, seen in enumerate(all_seen.values()):
        file = folder / f"{number}.pem"
        file.write_text(pem((seen.leaf, *seen.chain[:-1])))
        words += ["chain", file]
    done = run("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", CHECK, folder / "roots.pem", *words)
    return {name: line == "chain valid" for name, line in zip(all_seen, done.stdout.splitlines(), strict=True)}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, frozenset[str]]:
    """Which programs accept each."""
    folder = tmp_path_factory.mktemp("hierarchies")
    all_seen = {name: make() for name, (make, _) in SAYS.items()} | {name: ask(name) for name in REFUSED}
    java = by_java(all_seen, folder)
    others = {"openssl": by_openssl, "gnutls": by_gnutls, "cryptography": by_cryptography}
    return {
        name: frozenset(program for program, asked in others.items() if asked(seen, folder))
        | ({"java"} if java[name] else frozenset())
        for name, seen in all_seen.items()
    }


@pytest.mark.parametrize("name", list(SAYS))
def test_who_accepts_it(name: str, verdicts: dict[str, frozenset[str]]) -> None:
    assert verdicts[name] == SAYS[name][1]


@pytest.mark.invariant("I-46")
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_outside_is_refused_before_it_is_signed(name: str, verdicts: dict[str, frozenset[str]]) -> None:
    """By us always; and by those who look, where somebody signs it all the same."""
    outside = REFUSED[name]
    subject = Subject(common_name=Value("none"), organization=Value("fixed", outside.organization))
    with pytest.raises(Problem) as caught:
        leaf(outside.tier(), *outside.names, subject=subject, extended_key_usage=(outside.usage,))
    assert {reason.code for reason in caught.value.reasons} == {outside.code}
    accepting = verdicts["name constraints: all types"] if outside.tier is constrained else ALL
    assert accepting - verdicts[name] == outside.refused_by


def test_a_classical_chain_beside_its_twin(tmp_path: Path) -> None:
    """The same names on both; a program that trusts both roots finds the way by keys."""
    classical, twin = (
        issuing(root("twin", algorithm, common_name="Twin Root"), "twin-issuing", lower, common_name="Twin Issuing")
        for algorithm, lower in ((K.P384, K.P256), (K.ML_DSA_87, K.ML_DSA_65))
    )
    assert classical.certificate.subject == twin.certificate.subject
    assert classical.issuer.key_id != twin.issuer.key_id
    for tier, other in ((classical, twin), (twin, classical)):
        made = leaf(tier, A)
        both = [*tier.issuer.chain[:-1], *other.issuer.chain[:-1]]
        builder = PolicyBuilder().store(Store([tier.root, other.root])).time(datetime.now(UTC))
        path = builder.build_server_verifier(x509.DNSName("a.internal")).verify(made, both)
        assert path == [made, *tier.issuer.chain]
        only = PolicyBuilder().store(Store([other.root])).time(datetime.now(UTC))
        verifier = only.build_server_verifier(x509.DNSName("a.internal"))
        with pytest.raises(VerificationError):
            verifier.verify(made, both)
    (tmp_path / "roots.pem").write_text(pem((twin.root, classical.root)))
    (tmp_path / "between.pem").write_text(pem((twin.certificate, classical.certificate)))
    (tmp_path / "leaf.pem").write_text(pem((leaf(classical, A),)))
    trust = ("-CAfile", tmp_path / "roots.pem", "-no-CApath", "-no-CAstore", "-untrusted", tmp_path / "between.pem")
    run("openssl", "verify", *trust, tmp_path / "leaf.pem")  # it cannot read the twin, and goes the way that it can


def test_the_page_has_the_same_table() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", TABLE.read_text(), re.MULTILINE))
    for name, (_, accepted) in SAYS.items():
        assert rows[name] == ", ".join(program for program in PROGRAMS if program in accepted), name
    for name, outside in REFUSED.items():
        assert rows[name] == (", ".join(one for one in PROGRAMS if one in outside.refused_by) or "none"), name
