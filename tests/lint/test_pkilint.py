"""pkilint finds nothing above INFO in any shape that a new installation signs (I-09): RFC 5280, RFC 6960.

One finding is a shipped, listed ignore: pkilint takes every wildcard and every single-label dNSName for bad syntax. It
is asked for here by name, so that it is neither missed nor wider than that. ML-DSA is read like every other algorithm.
"""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.founding import first_profiles
from rootward.cli.enrol import make_key
from rootward.core.profile import WILDCARD_IGNORE
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason
from tests.lint.conftest import Of
from tests.lint.linter import Finding, lint_certificate, lint_crl, lint_link, lint_ocsp
from tests.lint.shapes import NONCE
from tests.support.authority import DAY, NOW, Authority

PROFILES = {profile.name: profile for profile in first_profiles("issuing")}
PLAIN = ("a.internal", "b.test", "10.0.0.1", "fd00::1")
ODD = ("*.a.internal", "localhost")
MANY = tuple(f"host-{number}.lan" for number in range(100 - len(PLAIN) - len(ODD)))
ALGORITHMS = list(KeyAlgorithm)
NEXT_UPDATE = b"\xa0\x11\x18\x0f20"  # [0] EXPLICIT GeneralizedTime, and its century
pytestmark = pytest.mark.invariant("I-09")


def beyond(findings: list[Finding], profile: str) -> list[Finding]:
    """What is left when the profile's listed ignores are taken away; those may only be about the odd names."""
    ignored = [finding for finding in findings if finding.code in PROFILES[profile].lint_ignores]
    for finding in ignored:
        assert finding.path.endswith(".dNSName")
        assert any(f'"{name}"' in finding.message for name in ODD), finding
    return [finding for finding in findings if finding not in ignored]


def test_the_shipped_profiles_list_one_ignore() -> None:
    assert {profile.lint_ignores for profile in PROFILES.values()} == {(WILDCARD_IGNORE,)}
    assert set(PROFILES) == {"server", "client", "peer", "device", "short"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("profile", list(PROFILES))
def test_certificates_of_each_profile_for_each_key(of: Of, profile: str, algorithm: KeyAlgorithm) -> None:
    made = of(KeyAlgorithm.P256)
    for names, common_name in (
        (PLAIN, None),
        (PLAIN[:1], PLAIN[0]),
        (ODD, None),
        ((*PLAIN, *ODD, *MANY), "localhost"),
        *((((), "sensor 7 / north"),) if profile == "device" else ()),
    ):
        der = made.issue(profile, algorithm, names=names, common_name=common_name).der
        findings = lint_certificate(der)
        assert beyond(findings, profile) == [], names
        assert len(findings) == len(set(ODD) & set(names)), findings  # the ignore is needed: it is pkilint's own code
        assert lint_link(made.issuing, der) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_authorities_of_each_algorithm_and_what_they_sign(of: Of, algorithm: KeyAlgorithm) -> None:
    made = of(algorithm)
    for authority in (made.root, made.issuing):
        assert lint_certificate(authority) == []
    # pkilint reads ML-DSA and brainpool and looks at everything, but cannot verify their signatures: it says so, and no
    # more
    beyond_it = ["pkix.unsupported_algorithm"] if algorithm.startswith(("ml-dsa", "brainpool")) else []
    for issuer, subject in ((made.root, made.root), (made.root, made.issuing)):
        assert [finding.code for finding in lint_link(issuer, subject)] == beyond_it
    for profile in PROFILES:
        der = made.issue(profile, names=PLAIN).der
        assert lint_certificate(der) == []
        assert [finding.code for finding in lint_link(made.issuing, der)] == beyond_it
    for der in made.own().values():
        assert [finding.code for finding in lint_link(made.issuing, der)] == beyond_it
    assert lint_crl(made.root_crl) == []


def test_the_servers_own_certificates(of: Of) -> None:
    own = of(KeyAlgorithm.P256).own()
    assert lint_certificate(own["ocsp:issuing"]) == []
    findings = lint_certificate(own["tls:rootward-tls"])
    assert [(finding.code, '"localhost"' in finding.message) for finding in findings] == [(WILDCARD_IGNORE, True)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_crls_and_ocsp_answers(of: Of, algorithm: KeyAlgorithm) -> None:
    made = of(algorithm)
    empty = x509.load_der_x509_crl(made.crl())
    assert len(empty) == 0
    assert lint_crl(empty.public_bytes(Encoding.DER)) == []
    good = made.issue("server", names=PLAIN)
    reasons = [reason for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL]
    revoked = {}
    for reason in reasons:
        own_key = make_key(KeyAlgorithm.P256)  # a compromised key is blocked from then on
        revoked[reason] = made.issue("server", names=PLAIN, subject_key=own_key)
        made.revoke(revoked[reason], reason)
    full = x509.load_der_x509_crl(made.crl())
    assert len(full) == len(reasons)
    assert lint_crl(full.public_bytes(Encoding.DER)) == []
    unknown = bytes.fromhex("40" + "ab" * 19)
    for nonce in (None, NONCE):
        for serial in (good.serial, unknown, *(one.serial for one in revoked.values())):
            answer = made.ocsp(serial, nonce=nonce)
            assert b"\x0a\x01\x00" in answer[:8]  # successful: there is something to lint
            assert lint_ocsp(answer) == []
    assert lint_ocsp(made.ocsp(good.serial, digest="sha256")) == []
    assert lint_ocsp(made.ocsp(good.serial, unknown, *(one.serial for one in revoked.values()))) == []


# So that nothing above passes because nothing was looked at.


def test_pkilint_finds_what_is_wrong_in_a_certificate() -> None:
    authority = Authority("CA")
    leaf = authority.leaf("a.internal", "not_a_name", extensions=[(x509.BasicConstraints(True, None), False)])
    codes = {finding.code for finding in lint_certificate(leaf.public_bytes(Encoding.DER))}
    assert codes >= {
        WILDCARD_IGNORE,
        "pkix.basic_constraints_extension_not_critical",
        "pkix.ca_certificate_no_ku_extension",
        "pkix.certificate_skid_ca_missing",
        "pkix.san_extension_not_critical_empty_subject",
    }


def test_pkilint_finds_what_is_wrong_in_a_chain() -> None:
    one, other = Authority("CA"), Authority("CA")  # the same name, another key
    der = one.leaf("a.internal").public_bytes(Encoding.DER)
    assert lint_link(one.certificate.public_bytes(Encoding.DER), der) == []
    assert lint_link(other.certificate.public_bytes(Encoding.DER), der)


def test_pkilint_finds_what_is_wrong_in_a_crl() -> None:
    authority = Authority("CA")
    assert lint_crl(authority.crl(7))  # no authority key identifier
    bare = x509.CertificateRevocationListBuilder().issuer_name(authority.name).last_update(NOW).next_update(NOW + DAY)
    codes = {finding.code for finding in lint_crl(bare.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER))}
    assert any("crl_number" in code for code in codes), codes


def test_pkilint_finds_what_is_wrong_in_an_ocsp_answer(of: Of) -> None:
    made = of(KeyAlgorithm.P256)
    answer = made.ocsp(made.issue("server", names=PLAIN).serial)
    ended = answer.replace(NEXT_UPDATE, NEXT_UPDATE.replace(b"20", b"19"))
    assert ended != answer
    assert {finding.code for finding in lint_ocsp(ended)} == {"pkix.ocsp_negative_validity_period"}
