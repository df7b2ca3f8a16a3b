"""CSRs by OpenSSL that ask for what nobody gets: refused with every reason, or ignored; never in the certificate."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from tests.clients.pki import Issued, Pki
from tests.support.programs import run, said

UPN = "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:admin@corp.test"
REFUSED = {
    "a CA": ("basicConstraints=CA:true", "RW-CSR-CA"),
    "a critical CA with a path length": ("basicConstraints=critical,CA:true,pathlen:3", "RW-CSR-CA"),
    "signing certificates": ("keyUsage=keyCertSign,cRLSign", "RW-CSR-USAGE"),
    "signing code": ("extendedKeyUsage=codeSigning", "RW-CSR-USAGE"),
    "answering OCSP": ("extendedKeyUsage=OCSPSigning", "RW-CSR-USAGE"),
    "stamping time": ("extendedKeyUsage=critical,timeStamping", "RW-CSR-USAGE"),
    "any usage": ("extendedKeyUsage=anyExtendedKeyUsage", "RW-CSR-USAGE"),
    "logging on to Windows": ("extendedKeyUsage=1.3.6.1.4.1.311.20.2.2", "RW-CSR-USAGE"),
    "no usage at all": ("2.5.29.37=DER:3000", "RW-CSR-EXTENSION"),
    "application policies": ("1.3.6.1.4.1.311.21.10=DER:300c300a06082b06010505070302", "RW-CSR-EXTENSION"),
    "an unknown critical extension": ("1.2.3.4.5=critical,ASN1:UTF8String:evil", "RW-CSR-EXTENSION"),
    "must-staple": ("tlsfeature=status_request", "RW-CSR-EXTENSION"),
}
NAMES = {
    "a Windows user": UPN,
    "a directory name": "dirName:dir",
    "a registered id": "RID:1.2.3.4",
    "a foreign name": "DNS:evil.example.com",
    "a bare suffix's wildcard": "DNS:*.internal",
    "a foreign address": "IP:8.8.8.8",
    "a mailbox": "email:root@a.internal",
    "a workload": "URI:spiffe://evil.test/x",
}
IGNORED = """\
subjectKeyIdentifier=65:76:69:6c
2.5.29.35=DER:300680046576696c
crlDistributionPoints=URI:http://evil.test/x.crl
authorityInfoAccess=OCSP;URI:http://evil.test/ocsp,caIssuers;URI:http://evil.test/ca
subjectInfoAccess=caRepository;URI:http://evil.test/
certificatePolicies=1.2.3.4.5
policyConstraints=critical,requireExplicitPolicy:0
inhibitAnyPolicy=critical,0
nameConstraints=critical,permitted;DNS:evil.test
issuerAltName=DNS:evil.test
1.3.6.1.5.5.7.48.1.5=DER:0500
2.5.29.56=DER:0500
1.2.3.4.6=ASN1:UTF8String:evil
basicConstraints=CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
"""
OURS = [
    (ExtensionOID.BASIC_CONSTRAINTS, True),
    (ExtensionOID.KEY_USAGE, True),
    (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
    (ExtensionOID.EXTENDED_KEY_USAGE, False),
    (ExtensionOID.CRL_DISTRIBUTION_POINTS, False),
    (ExtensionOID.AUTHORITY_INFORMATION_ACCESS, False),
    (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
    (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, True),  # the subject is empty
]
WEAK = {
    "rsa-1024": ("-algorithm RSA", "-pkeyopt rsa_keygen_bits:1024", "RW-KEY-TYPE"),
    "rsa, exponent 3": ("-algorithm RSA", "-pkeyopt rsa_keygen_pubexp:3", "RW-KEY-WEAK"),
    "secp256k1": ("-algorithm EC", "-pkeyopt ec_paramgen_curve:secp256k1", "RW-KEY-TYPE"),
    "brainpool": ("-algorithm EC", "-pkeyopt ec_paramgen_curve:brainpoolP256r1", "RW-KEY-TYPE"),
    "explicit parameters": (
        "-algorithm EC",
        "-pkeyopt ec_paramgen_curve:P-256",
        "-pkeyopt ec_param_enc:explicit",
        "RW-KEY-ENCODING",
    ),
    "ed448": ("-algorithm ED448", "RW-CSR-ALGORITHM"),
}


def refused(pki: Pki, csr: str) -> set[str]:
    """The codes of all reasons; nothing is issued."""
    before = serials(pki)
    status, body = pki.post("/api/v1/certificates", {"profile": "server", "csr": csr})
    assert status == 400, body
    assert serials(pki) == before
    assert all(reason["detail"] for reason in body["reasons"])
    return {reason["code"] for reason in body["reasons"]}


def serials(pki: Pki) -> set[str]:
    return {item["serial"] for item in pki.get("/api/v1/certificates?limit=500")["items"]}


def extensions(issued: Issued) -> list[tuple[str, bool, bytes]]:
    """Every extension in order: dotted OID, criticality, the value's DER."""
    certificate = x509.load_pem_x509_certificate(issued.cert.read_bytes())
    return [(one.oid.dotted_string, one.critical, one.value.public_bytes()) for one in certificate.extensions]


@pytest.mark.invariant("I-11")
@pytest.mark.parametrize("what", list(REFUSED))
def test_what_nobody_gets_is_refused(pki: Pki, what: str) -> None:
    config, code = REFUSED[what]
    assert refused(pki, pki.make_csr(pki.make_key(), config=config)) == {code}


@pytest.mark.invariant("I-11")
@pytest.mark.parametrize("what", list(NAMES))
def test_names_that_nobody_gets_are_refused(pki: Pki, what: str) -> None:
    csr = pki.make_csr(pki.make_key(), names=f"DNS:a.internal,{NAMES[what]}", config="[dir]\nCN=evil")
    codes = refused(pki, csr)
    assert codes
    assert all(code.startswith("RW-NAME") for code in codes)


def test_every_reason_at_once(pki: Pki) -> None:
    asked = ("a CA", "signing certificates", "signing code", "an unknown critical extension", "must-staple")
    config = "\n".join(REFUSED[what][0] for what in asked)
    codes = refused(pki, pki.make_csr(pki.make_key(), names=f"DNS:a.internal,{UPN}", config=config))
    assert {"RW-CSR-CA", "RW-CSR-EXTENSION"} <= codes
    assert any(code.startswith("RW-NAME") for code in codes)


def test_a_name_only_in_the_subject_is_refused(pki: Pki) -> None:
    codes = refused(pki, pki.make_csr(pki.make_key(), subject="/CN=b.internal"))
    assert codes == {"RW-CSR-SUBJECT"}


@pytest.mark.invariant("I-11")
def test_what_is_ignored_leaves_no_trace(pki: Pki) -> None:
    """The certificate is the one that a CSR without all of it gets, byte for byte, but for serial and dates."""
    key = pki.make_key()
    plain = pki.certify(key, pki.make_csr(key))
    expected = extensions(plain)
    issued = pki.certify(key, pki.make_csr(key, config=IGNORED))
    assert extensions(issued) == expected
    assert [(oid, critical) for oid, critical, _ in expected] == [(oid.dotted_string, flag) for oid, flag in OURS]
    parsed = x509.load_pem_x509_certificate(issued.cert.read_bytes())
    assert b"evil" not in parsed.tbs_certificate_bytes
    assert list(parsed.subject) == []
    assert pki.verify(issued, "-x509_strict", "-purpose", "sslserver").returncode == 0


@pytest.mark.invariant("I-11")
def test_a_rich_subject_is_cut_to_what_the_profile_gives(pki: Pki) -> None:
    subject = "/C=US/ST=evil/O=evil/OU=evil/CN=a.internal/emailAddress=evil@evil.test/serialNumber=evil"
    key = pki.make_key()
    issued = pki.certify(key, pki.make_csr(key, subject=subject))
    assert run("openssl", "x509", "-in", issued.cert, "-noout", "-subject").stdout == "subject=CN = a.internal\n"
    assert b"evil" not in x509.load_pem_x509_certificate(issued.cert.read_bytes()).tbs_certificate_bytes


@pytest.mark.invariant("I-12")
def test_a_csr_that_somebody_changed_is_refused(pki: Pki) -> None:
    """Another name, another key: the signature no longer holds."""
    first, *body, last = pki.make_csr(pki.make_key(), names="DNS:a.internal").splitlines()
    raw = base64.b64decode("".join(body)).replace(b"a.internal", b"b.internal")
    changed = f"{first}\n{base64.encodebytes(raw).decode()}{last}\n"
    assert "verify failure" in said(run("openssl", "req", "-noout", "-verify", stdin=changed, codes=None))
    assert refused(pki, changed) == {"RW-CSR-SIGNATURE"}


@pytest.mark.parametrize("what", list(WEAK))
def test_weak_keys_are_refused(pki: Pki, what: str) -> None:
    *options, code = WEAK[what]
    key = pki.make_key().with_name("weak.pem")
    run("openssl", "genpkey", *[part for option in options for part in option.split()], "-out", key)
    assert refused(pki, pki.make_csr(key)) == {code}


@pytest.mark.parametrize("digest", ["-md5", "-sha1", "-sha224"])
def test_weak_signatures_are_refused(pki: Pki, digest: str) -> None:
    assert refused(pki, pki.make_csr(pki.make_key("rsa-2048"), options=(digest,))) == {"RW-CSR-ALGORITHM"}


def test_the_authoritys_own_key_is_refused_with_words_that_say_so(pki: Pki) -> None:
    """Nobody has that key; but the CSR that the issuing authority made for its own certificate is public."""
    request = (pki.server.home / "ceremony" / "issuing.request").read_text()
    (csr,) = re.findall(r'"csr": "(-----BEGIN CERTIFICATE REQUEST-----.*?-----END CERTIFICATE REQUEST-----)', request)
    assert "RW-KEY-BLOCKED" in refused(pki, csr.replace("\\n", "\n") + "\n")
