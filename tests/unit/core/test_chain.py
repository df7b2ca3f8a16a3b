"""Path building and validation: NIST PKITS, hostile shapes, and that each refusal says why.

PKITS 1.0.1, by section: 4.1 signatures (RSA; the DSA ones use SHA-1 and are refused), 4.2 validity, 4.3 name
chaining, 4.5 self-issued certificates, 4.6 basic constraints, 4.7 key usage (keyCertSign), 4.13 name constraints,
4.16 private extensions are run for their exact result. 4.8 to 4.12 (policies) are run for "nothing invalid is
accepted" only, because policies that a CA requires are refused, not evaluated. 4.4, 4.14 and 4.15 (CRLs) are run
against the CRLs in the same way: delta and indirect CRLs and CRLs for some reasons are inconclusive here, and so
refused.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from rootward.core.chain import ChainReport, verify_chain
from rootward.core.constraints import name_key
from rootward.core.links import State
from rootward.core.names import IpName, parse_dns, parse_ip
from rootward.core.relying import Inconclusive, crl_status
from rootward.core.revocation import Good
from tests.support.authority import DAY, NOW, Authority, key_usage, name

PKITS = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
PKITS_NOW = datetime(2024, 1, 1, tzinfo=UTC)

POLICY = re.compile("[Pp]olic(y|ies)")
DSA = "DSA"
# Test names whose wrong thing is in a CRL, not in the path.
CRL = re.compile(
    "(?i:crl)|Revoked|[dD]istributionPoint|onlySomeReasons|onlyContains|InvalidIDP|ValidIDP|SeparateCertificate"
    "|LongSerialNumberTest18|NegativeSerialNumberTest15|SelfIssuedNewWithOldTest5|SelfIssuedOldWithNewTest2"
)
# Revoked by a delta CRL alone: whoever does not read those relies on the base (RFC 5280 5.2.4), which says good.
ONLY_DELTA = {"InvaliddeltaCRLTest4EE"}


@cache
def pkits() -> dict[str, x509.Certificate]:
    """Every certificate that can be read, by file name; the two with inherited DSA parameters cannot."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one serial is negative
        for path in sorted((PKITS / "certs").iterdir()):
            if not path.stem.startswith(("DSAParametersInherited", "ValidDSAParameterInheritance")):
                found[path.stem] = x509.load_der_x509_certificate(path.read_bytes())
    return found


@cache
def pkits_crls() -> list[tuple[object, bytes]]:
    data = [path.read_bytes() for path in sorted((PKITS / "crls").iterdir())]
    return [(name_key(x509.load_der_x509_crl(one).issuer), one) for one in data]


def pkits_names(*, crl: bool, policy: bool) -> list[str]:
    return [
        stem
        for stem in sorted(path.stem for path in (PKITS / "certs").iterdir())
        if stem.startswith(("Valid", "Invalid"))
        and not stem.startswith("ValidDSA")
        and bool(CRL.search(stem)) is crl
        and bool(POLICY.search(stem)) is policy
    ]


def judged(stem: str) -> ChainReport:
    certificates = pkits()
    pool = [certificate for found, certificate in certificates.items() if not found.endswith("EE")]
    return verify_chain(certificates[stem], pool, [certificates["TrustAnchorRootCertificate"]], now=PKITS_NOW)


@pytest.mark.parametrize("stem", pkits_names(crl=False, policy=False))
def test_pkits_paths(stem: str) -> None:
    report = judged(stem)
    assert report.ok is stem.startswith("Valid"), report.steps


@pytest.mark.parametrize("stem", [stem for stem in pkits_names(crl=False, policy=True) if stem.startswith("Invalid")])
def test_pkits_policies_nothing_invalid_is_accepted(stem: str) -> None:
    assert not judged(stem).ok


def test_pkits_sha1_is_refused_and_said() -> None:
    assert any(
        "SHA-1" in step.detail for step in judged("ValidDSASignaturesTest4EE").steps if step.state is State.FAILED
    )


@pytest.mark.parametrize("stem", [stem for stem in pkits_names(crl=True, policy=False) if stem not in ONLY_DELTA])
@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of the test about a negative one
def test_pkits_crls_nothing_invalid_is_accepted(stem: str) -> None:
    report = judged(stem)
    good = report.ok
    for certificate, issuer in pairwise(report.path):
        answers = []
        for found, data in pkits_crls():
            if found == name_key(issuer.subject):
                try:
                    answers.append(crl_status(data, certificate, issuer, now=PKITS_NOW))
                except Inconclusive:
                    continue
        good = good and bool(answers) and all(isinstance(answer, Good) for answer in answers)
    if stem.startswith("Invalid"):
        assert not good
    elif stem in ("ValidTwoCRLsTest7EE", "ValidGeneralizedTimeCRLnextUpdateTest13EE", "ValiddistributionPointTest1EE"):
        assert good


def test_the_corpus_is_all_there() -> None:
    assert len(pkits()) == 403
    assert len(pkits_names(crl=False, policy=False)) > 75
    assert len(pkits_names(crl=True, policy=False)) > 60


# --- our own shapes


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("Root")


@pytest.fixture(scope="module")
def issuing(root: Authority) -> Authority:
    return Authority("Issuing", root, path_length=0)


def check(
    leaf: x509.Certificate, above: Iterable[Authority], roots: Iterable[Authority], **options: Any
) -> ChainReport:
    return verify_chain(
        leaf,
        [authority.certificate for authority in above],
        [authority.certificate for authority in roots],
        now=options.pop("now", NOW),
        **options,
    )


def failed(report: ChainReport) -> dict[str, str]:
    """What failed, by its name; all sentences of one name together."""
    found: dict[str, str] = {}
    for step in report.steps:
        if step.state is State.FAILED:
            found[step.name] = f"{found.get(step.name, '')} {step.detail}".strip()
    return found


def test_a_good_chain_says_what_was_checked(root: Authority, issuing: Authority) -> None:
    leaf = issuing.leaf("a.internal", extensions=[(key_usage(digital_signature=True), True)])
    report = check(leaf, [issuing], [root], purpose="server", host=parse_dns("a.internal"))
    assert report.ok
    assert report.authentic
    assert report.path == (leaf, issuing.certificate, root.certificate)
    counted = {name: sum(step.name == name for step in report.steps) for name in {step.name for step in report.steps}}
    assert counted == {
        "path": 1,
        "signature": 2,
        "validity": 3,
        "authority": 2,
        "constraints": 1,
        "usage": 1,
        "critical": 1,
        "host": 1,
    }


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        ({"end": NOW - DAY / 2}, "validity", "expired"),
        ({"start": NOW + DAY}, "validity", "not valid before"),
        ({"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "usage", "not for server"),
        ({"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, "usage", "not for server"),
        ({"extensions": [(key_usage(key_cert_sign=True), True)]}, "usage", "key usage"),
        ({"extensions": [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"x"), True)]}, "critical", "1.2.3"),
    ],
)
def test_one_wrong_thing_is_the_one_that_fails(
    root: Authority, issuing: Authority, options: dict[str, Any], name: str, words: str
) -> None:
    found = failed(check(issuing.leaf("a.internal", **options), [issuing], [root], purpose="server"))
    assert list(found) == [name]
    assert words in found[name]


def test_a_signature_that_is_not_of_whole_octets_is_refused(root: Authority, issuing: Authority) -> None:
    """The same certificate with another hash, which its parser takes for the same."""
    leaf = issuing.leaf("a.internal")
    while leaf.signature[-1] & 1:
        leaf = issuing.leaf("a.internal")
    der = bytearray(leaf.public_bytes(Encoding.DER))
    der[-len(leaf.signature) - 1] = 1
    altered = x509.load_der_x509_certificate(bytes(der))
    assert (altered.signature, altered.tbs_certificate_bytes) == (leaf.signature, leaf.tbs_certificate_bytes)
    assert check(leaf, [issuing], [root]).ok
    assert "whole octets" in " ".join(failed(check(altered, [issuing], [root])).values())


def test_everything_wrong_is_said_at_once(root: Authority, issuing: Authority) -> None:
    leaf = issuing.leaf("a.internal", end=NOW - DAY / 2, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    found = failed(check(leaf, [], [root], purpose="server", host=parse_dns("b.internal")))
    assert set(found) == {"path", "validity", "usage", "host"}


def test_a_noncritical_extension_that_nobody_knows_does_not_matter(root: Authority, issuing: Authority) -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"x")
    assert check(issuing.leaf("a.internal", extensions=[(unknown, False)]), [issuing], [root]).ok


def test_a_leaf_that_another_key_signed(root: Authority, issuing: Authority) -> None:
    impostor = Authority("Issuing", root)
    found = failed(check(impostor.leaf("a.internal"), [issuing], [root]))
    assert set(found) == {"signature"}
    assert "the signature is wrong" in found["signature"]
    assert not check(impostor.leaf("a.internal"), [issuing], [root]).authentic


def test_the_right_one_of_two_issuers_of_one_name_is_found(root: Authority, issuing: Authority) -> None:
    twin = Authority("Issuing", root)
    for one in (issuing, twin):
        report = check(one.leaf("a.internal"), [twin, issuing], [root])
        assert report.ok
        assert report.path[1] == one.certificate


def test_a_leaf_is_no_issuer(root: Authority, issuing: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    middle = issuing.issue(key.public_key(), [], subject=name("Middle"))
    forged = Authority("Middle", issuing)
    forged.key, forged.certificate = key, middle
    found = failed(check(forged.leaf("a.internal"), [forged, issuing], [root]))
    assert set(found) == {"authority"}
    assert "no basic constraints" in found["authority"]


def test_path_length_is_kept(root: Authority, issuing: Authority) -> None:
    below = Authority("Below", issuing)
    found = failed(check(below.leaf("a.internal"), [below, issuing], [root]))
    assert set(found) == {"authority"}
    assert "allows 0 CAs below it, and there are 1" in found["authority"]


def test_a_root_is_trusted_whoever_it_is_and_nobody_else(root: Authority, issuing: Authority) -> None:
    leaf = issuing.leaf("a.internal")
    assert check(leaf, [], [issuing]).ok
    assert check(root.certificate, [], [root]).ok
    assert "none of the roots" in failed(check(leaf, [issuing, root], []))["path"]
    assert "no such certificate was given" in failed(check(leaf, [], [root]))["path"]
    other = Authority("Root")
    assert set(failed(check(leaf, [issuing], [other]))) == {"signature"}


def test_an_expired_root_is_refused() -> None:
    old = Authority("Old", start=NOW - 9 * DAY, end=NOW - DAY)
    assert set(failed(check(old.leaf("a.internal"), [], [old]))) == {"validity"}


def test_small_rsa_keys_are_refused(root: Authority) -> None:
    weak = Authority("Weak", root)
    weak.key = rsa.generate_private_key(65537, 1024)  # type: ignore[assignment]  # noqa: S505  # weak on purpose
    weak.certificate = root.issue(
        weak.key.public_key(),
        [],
        subject=weak.name,
        usages=[],
        extensions=[(x509.BasicConstraints(True, None), True), (key_usage(key_cert_sign=True), True)],
    )
    found = failed(check(weak.leaf("a.internal"), [weak], [root]))
    assert "1024 bits" in found["signature"]


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "good"),
    [
        ([".internal"], [], ["a.internal"], True),
        (["internal"], [], ["a.internal"], True),
        (["internal"], [], ["internal"], True),
        ([".internal"], [], ["internal"], False),
        (["internal"], [], ["a.xinternal"], False),
        (["internal"], [], ["a.internal", "b.test"], False),
        ([], ["b.internal"], ["a.internal"], True),
        ([], ["b.internal"], ["x.B.internal"], False),
        ([], ["b.internal"], ["*.internal"], False),
        ([], ["c.b.internal"], ["*.internal"], True),
        (["b.internal"], [], ["*.internal"], False),
        (["internal"], [], ["*.internal"], True),
        ([], [""], ["a.internal"], False),
    ],
)
def test_dns_constraints(
    root: Authority, permitted: list[str], excluded: list[str], names: list[str], good: bool
) -> None:
    constraints = x509.NameConstraints(
        [x509.DNSName(text) for text in permitted] or None, [x509.DNSName(text) for text in excluded] or None
    )
    limited = Authority("Limited", root, extensions=[(constraints, True)])
    found = failed(check(limited.leaf(*names), [limited], [root]))
    assert set(found) == (set() if good else {"constraints"})


def test_constraints_of_every_ca_hold_and_of_the_root_too() -> None:
    def only(text: str) -> list[tuple[x509.ExtensionType, bool]]:
        return [(x509.NameConstraints([x509.DNSName(text)], None), True)]

    top = Authority("Top", extensions=only("internal"))
    middle = Authority("Middle", top, extensions=only("a.internal"))
    assert check(middle.leaf("x.a.internal"), [middle], [top]).ok
    assert not check(middle.leaf("x.b.internal"), [middle], [top]).ok
    wide = Authority("Wide", top, extensions=only("test"))
    assert not check(wide.leaf("x.test"), [wide], [top]).ok


def test_a_constraint_that_cannot_be_judged_refuses(root: Authority) -> None:
    constraints = x509.NameConstraints([x509.RegisteredID(ObjectIdentifier("1.2.3"))], None)
    limited = Authority("Limited", root, extensions=[(constraints, True)])
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = limited.issue(key, [x509.RegisteredID(ObjectIdentifier("1.2.3"))])
    assert "cannot be judged" in failed(check(leaf, [limited], [root]))["constraints"]
    assert check(limited.leaf("a.internal"), [limited], [root]).ok


@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_the_usages_of_a_ca_limit_what_is_below(root: Authority, usage: ObjectIdentifier) -> None:
    limited = Authority("Limited", root, extensions=[(x509.ExtendedKeyUsage([usage]), False)])
    report = check(limited.leaf("a.internal"), [limited], [root], purpose="server")
    assert report.ok is (usage == ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


@pytest.mark.parametrize(
    ("presented", "wanted", "good"),
    [
        ("a.internal", "a.internal", True),
        ("A.Internal", "a.internal", True),
        ("*.a.internal", "x.a.internal", True),
        ("*.a.internal", "a.internal", False),
        ("*.a.internal", "y.x.a.internal", False),
        ("x*.a.internal", "xy.a.internal", False),
        ("x.*.internal", "x.a.internal", False),
        ("*", "localhost", False),
        ("*.internal", "a.internal", False),
        ("10.0.0.1", "10.0.0.1", False),
    ],
)
def test_host_names(root: Authority, presented: str, wanted: str, good: bool) -> None:
    host = parse_ip(wanted) if wanted[0].isdigit() else parse_dns(wanted)
    assert (set(failed(check(root.leaf(presented), [], [root], host=host))) == set()) is good


def test_an_address_matches_an_address_and_the_common_name_has_no_say(root: Authority) -> None:
    host = parse_ip("10.0.0.1")
    assert isinstance(host, IpName)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert check(root.issue(key, [x509.IPAddress(host.address)]), [], [root], host=host).ok
    named = root.issue(key, [], subject=name("a.internal"))
    assert "it has none" in failed(check(named, [], [root], host=parse_dns("a.internal")))["host"]


# --- bounds


def test_authorities_that_sign_each_other_end(root: Authority) -> None:
    """A thicket of 24 CAs of three names, each signed by every other one: without bounds, billions of paths."""
    knot = [Authority(f"Knot {number % 3}") for number in range(24)]
    crossed = []
    for upper in knot:
        for lower in knot:
            copy = Authority.__new__(Authority)
            copy.certificate = upper.issue(
                lower.key.public_key(),
                [],
                subject=lower.name,
                usages=[],
                extensions=[(x509.BasicConstraints(True, None), True)],
            )
            crossed.append(copy)
    started = time.perf_counter()
    report = check(knot[0].leaf("a.internal"), crossed, [root])
    assert time.perf_counter() - started < 5
    assert not report.ok
    assert not report.anchored
    assert any("given up" in step.detail for step in report.steps)


def test_a_loop_of_two_ends(root: Authority) -> None:
    one, two = Authority("One"), Authority("Two")
    extensions = [(x509.BasicConstraints(True, None), True)]
    pool = [
        one.issue(two.key.public_key(), [], subject=two.name, usages=[], extensions=extensions),
        two.issue(one.key.public_key(), [], subject=one.name, usages=[], extensions=extensions),
    ]
    report = verify_chain(one.leaf("a.internal"), pool, [root.certificate], now=NOW)
    assert not report.ok
    assert len(report.path) == 3


def test_a_path_has_at_most_eight_certificates_of_cas(root: Authority) -> None:
    chain = [root]
    for number in range(8):
        chain.append(Authority(f"Level {number}", chain[-1]))
    assert check(chain[7].leaf("a.internal"), chain[1:], [root]).ok
    found = failed(check(chain[8].leaf("a.internal"), chain[1:], [root]))
    assert "more than 9 certificates" in found["path"]


def test_a_thousand_names_against_a_thousand_constraints(root: Authority) -> None:
    many = [x509.DNSName(f"x{number}.test") for number in range(1500)]
    limited = Authority("Limited", root, extensions=[(x509.NameConstraints(many, many), True)])
    leaf = limited.leaf(*(f"y{number}.internal" for number in range(1500)))
    started = time.perf_counter()
    found = failed(check(leaf, [limited], [root]))
    assert time.perf_counter() - started < 2
    assert "too many names" in found["constraints"]


def test_hostile_names_are_escaped(root: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = root.issue(key, [], subject=name("a\x1b[2J\u202egnp"))
    text = "".join(step.detail for step in check(leaf, [], [root]).steps)
    assert "\\u001b[2J\\u202egnp" in text
    assert text.isprintable()
