"""The requests of other systems' CAs: a key that is proved, and everything else only told; and specifications read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from rootward.core import der
from rootward.core.authority import MAX_ENTRIES, AuthoritySpec, Constraints, check_spec, read_spec
from rootward.core.hierarchy import plan_authority
from rootward.core.problems import CODES
from rootward.core.pubkey import public_key_of
from rootward.core.subordinate import CaRequest, compare, read_ca_request
from tests.support.authority import key_usage
from tests.support.plans import refusal
from tests.support.tiers import certify, issuing, key_of, root
from tests.vectors import csr_parts as parts
from tests.vectors.csrs import BAD_CSRS

SPEC = AuthoritySpec("mesh", "issuing", "The Mesh CA", lifetime="1y", uris=("spiffe://mesh.internal",))
CONSTRAINTS = parts.extension("2.5.29.19", der.sequence(der.boolean(True), der.integer(3)), critical=True)


def lines(request: CaRequest) -> dict[str, tuple[str, str]]:
    plan = plan_authority(SPEC, request.key, root().issuer)
    return {line.what: (line.asked, line.given) for line in compare(request, plan)}


def spire() -> bytes:
    """As SPIRE's upstream authorities get it: a SPIFFE ID and nothing of a CA."""
    uri = x509.UniformResourceIdentifier("spiffe://mesh.internal")
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return builder.sign(parts.private_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def adcs() -> bytes:
    """As a Windows CA asks: Microsoft's extensions and a key usage beside CA:true."""
    version, template = "1.3.6.1.4.1.311.21.1", "1.3.6.1.4.1.311.20.2"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CORP-CA")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    builder = builder.add_extension(
        key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=False
    )
    for oid, value in ((version, b"\x02\x01\x00"), (template, b"\x1e\x0a\x00S\x00u\x00b\x00C\x00A")):
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return builder.sign(parts.private_key("rsa-2048"), hashes.SHA256()).public_bytes(Encoding.PEM)


def vault() -> bytes:
    """As Vault and OpenBao ask for an intermediate: CA:true, and the common name as a DNS name too."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault.internal")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("vault.internal")]), critical=False)
    return builder.sign(parts.private_key("ed25519"), None).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            spire,
            {"names": ("uri:spiffe://mesh.internal", "uri:spiffe://mesh.internal"), "path length": ("nothing", "0")},
        ),
        (adcs, {"path length": ("without a limit", "0"), "extension 1.3.6.1.4.1.311.20.2": ("it", "nothing")}),
        (
            vault,
            {"names": ("dns:vault.internal", "uri:spiffe://mesh.internal"), "path length": ("without a limit", "0")},
        ),
    ],
)
def test_what_other_systems_ask(make: Any, told: dict[str, tuple[str, str]]) -> None:
    request = read_ca_request(make())
    spec = msgspec.structs.replace(SPEC, key_algorithm=request.key.algorithm)
    plan = plan_authority(spec, request.key, root().issuer)
    found = {line.what: (line.asked.strip('"'), line.given) for line in compare(request, plan)}
    assert told.items() <= found.items()
    assert found["subject"][1] == "CN=The Mesh CA"


def test_what_nobody_gets_is_told_and_not_taken() -> None:
    """A key that is proved is enough: whatever else is asked for counts for nothing."""
    unknown = parts.extension("1.2.3.4.5", der.null(), critical=True)
    asked = [CONSTRAINTS, unknown, parts.eku("2.5.29.37.0"), parts.san(parts.dns(b"*"), parts.dns(b"a.internal"))]
    request = read_ca_request(parts.raw_csr(extensions=asked))
    found = lines(request)
    assert found["path length"] == ("3", "0")
    assert found["extended key usage"] == ('"2.5.29.37.0"', "nothing")
    assert found["names"] == ('"dns:a.internal"', "uri:spiffe://mesh.internal")
    assert sum(what == "what nobody gets" for what, _ in request.asked) == 2


def test_names_for_people_have_no_control_characters() -> None:
    name = [parts.common_name("a\u202eb"), parts.common_name("c\x00d")]
    request = read_ca_request(parts.raw_csr(rdns=name, extensions=[parts.san(parts.uri(b"spiffe://a\xff.internal"))]))
    assert all(text.isprintable() for line in request.asked for text in line)


@pytest.mark.invariant("I-12")
def test_the_key_must_be_proved() -> None:
    """Whatever is malformed or not proved is refused as in any other CSR; no other wish is a reason, or breaks it."""
    refused = {code for code in CODES if code.startswith(("RW-CSR-", "RW-KEY-"))}
    refused -= {"RW-CSR-CA", "RW-CSR-EXTENSION", "RW-CSR-SUBJECT", "RW-CSR-USAGE", "RW-CSR-EMPTY"}
    tried = 0
    for bad in BAD_CSRS:
        if bad.code in refused and not bad.needs_profile:
            assert refusal(lambda bad=bad: read_ca_request(bad.make()))[0][0] == bad.code, bad
            tried += 1
        elif not bad.needs_profile:
            assert all(text.isprintable() for line in read_ca_request(bad.make()).asked for text in line), bad
    assert tried > 60


# ── Specifications ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {}, {"name": "a"}, {"name": "a", "kind": "leaf", "common_name": "A"}, {"name": 1}]
    + [{"name": "a", "kind": "issuing", "common_name": "A", more: 1} for more in ("is_ca", "path_len", "permitted")],
)
def test_what_is_no_specification(value: Any) -> None:
    assert refusal(lambda: read_spec(value)) == [("RW-CEREMONY", "spec")]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"policies": tuple(f"1.2.{n}" for n in range(MAX_ENTRIES + 1))}, "policies"),
        ({"permitted": Constraints(dns=("a",) * 10_000)}, "permitted.dns"),
        ({"uris": ("https://" + "a" * 5000,)}, "uris"),
        ({"common_name": "x" * 100_000}, "common_name"),
        ({"lifetime": "1" * 10_000}, "common_name"),
    ],
)
def test_what_is_far_too_much(changes: dict[str, Any], field: str) -> None:
    found = check_spec(msgspec.structs.replace(SPEC, **changes))
    assert [(reason.code, reason.field) for reason in found] == [("RW-TOO-MANY", field)]


def test_a_specification_is_what_it_was_written_from() -> None:
    for spec in (SPEC, root().spec, issuing(root()).spec):
        assert read_spec(msgspec.json.decode(msgspec.json.encode(spec))) == spec


# ── A CA that is there, certified once more ───────────────────────────────────────────────────────────────────────


def test_a_ca_that_is_there_keeps_name_and_identifier() -> None:
    other = root("other", common_name="The other Root CA")
    spec = msgspec.structs.replace(other.spec, kind="policy", path_length=1, lifetime="8y")
    made = certify(spec, root(), key=other.key, existing=other.certificate)
    assert made.certificate.subject.public_bytes() == other.certificate.subject.public_bytes()
    assert made.issuer.subject_key_id == other.issuer.subject_key_id
    assert made.issuer.key_id == other.issuer.key_id


def test_and_nobody_elses() -> None:
    other, third = root("other", common_name="The other Root CA"), root("third")
    spec = msgspec.structs.replace(other.spec, kind="policy", path_length=1, lifetime="8y")
    key = public_key_of(key_of(third.spec.key_algorithm, "third")._private.public_key())
    assert refusal(lambda: plan_authority(spec, key, root().issuer, existing=other.certificate)) == [
        ("RW-KEY-MISMATCH", "key")
    ]
    renamed = msgspec.structs.replace(spec, common_name="Another")
    assert refusal(lambda: certify(renamed, root(), key=other.key, existing=other.certificate)) == [
        ("RW-CSR-SUBJECT", "common_name")
    ]
