"""A certificate asked for with `openssl req` and curl, and what OpenSSL and GnuTLS say of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.pki import KEYS, Issued, Pki
from tests.support.programs import run, said

STRICT = ("-x509_strict", "-purpose")
SERVER_AUTH, CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
PROFILES = {
    "server": {"sslserver"},
    "client": {"sslclient"},
    "peer": {"sslserver", "sslclient"},
    "device": {"sslclient"},
    "short": {"sslserver", "sslclient"},
}


def certtool(pki: Pki, issued: Issued, *options: str, trust: Path | None = None) -> tuple[int, str]:
    """`certtool --verify` with the root as only trust: its exit code and what it said."""
    done = run(
        *("certtool", "--verify", "--verify-profile", "medium", *options),
        *("--load-ca-certificate", trust or pki.root),
        stdin=issued.fullchain.read_text(),
        codes=(0, 1),
    )
    return done.returncode, said(done)


@pytest.mark.parametrize("kind", list(KEYS))
def test_a_certificate_for_each_kind_of_key(pki: Pki, kind: str) -> None:
    issued = pki.issue(kind=kind)
    assert pki.verify(issued, *STRICT, "sslserver", "-verify_hostname", "a.internal").stdout == f"{issued.cert}: OK\n"
    code, text = certtool(pki, issued, "--verify-hostname=a.internal", f"--verify-purpose={SERVER_AUTH}")
    assert code == 0, text
    assert text.count("The certificate is trusted.") == 3  # two links, and the chain
    # the certificate is for the key of the CSR, and has the CSR's names
    public = run("openssl", "pkey", "-in", issued.key, "-pubout").stdout
    assert run("openssl", "x509", "-in", issued.cert, "-noout", "-pubkey").stdout == public
    names = run("openssl", "x509", "-in", issued.cert, "-noout", "-ext", "subjectAltName").stdout
    assert re.findall(r"^    (.+)$", names, re.MULTILINE) == ["DNS:a.internal"]


@pytest.mark.parametrize(
    "options",
    [
        ("-sha384",),
        ("-sha512",),
        ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"),
    ],
)
def test_a_csr_that_is_signed_in_another_way(pki: Pki, options: tuple[str, ...]) -> None:
    key = pki.make_key("rsa-2048")
    issued = pki.certify(key, pki.make_csr(key, options=options))
    assert pki.verify(issued, *STRICT, "sslserver").stdout == f"{issued.cert}: OK\n"


@pytest.mark.parametrize("profile", list(PROFILES))
def test_each_profile_is_good_for_its_purposes_and_no_others(pki: Pki, profile: str) -> None:
    issued = pki.issue(profile=profile, names="DNS:a.internal,IP:10.0.0.1,DNS:*.b.internal")
    for purpose, oid in (("sslserver", SERVER_AUTH), ("sslclient", CLIENT_AUTH)):
        done = pki.verify(issued, *STRICT, purpose)
        code, _ = certtool(pki, issued, f"--verify-purpose={oid}")
        if purpose in PROFILES[profile]:
            assert done.returncode == 0, said(done)
            assert code == 0
        else:
            assert done.returncode == 2
            assert re.search("unsuitable certificate purpose|unsupported certificate purpose", said(done))
            assert code == 1
    for purpose in ("crlsign", "ocsphelper", "smimesign", "timestampsign"):
        done = pki.verify(issued, *STRICT, purpose)
        assert done.returncode == (0 if purpose == "ocsphelper" else 2), purpose  # OpenSSL takes any end entity there


@pytest.mark.parametrize(
    ("profile", "days"), [("server", 30), ("client", 30), ("peer", 30), ("device", 365), ("short", 1)]
)
def test_each_profile_lives_as_long_as_it_says(pki: Pki, profile: str, days: int) -> None:
    issued = pki.issue(profile=profile)
    almost, more = (days * 86_400 - 300, days * 86_400 + 300)
    assert run("openssl", "x509", "-in", issued.cert, "-noout", "-checkend", str(almost)).stdout.strip() == (
        "Certificate will not expire"
    )
    assert run("openssl", "x509", "-in", issued.cert, "-noout", "-checkend", str(more), codes=(1,)).stdout.strip() == (
        "Certificate will expire"
    )


def test_a_short_one_says_that_it_cannot_be_revoked_in_time_and_points_nowhere(pki: Pki) -> None:
    text = run("openssl", "x509", "-in", pki.issue(profile="short").cert, "-noout", "-text").stdout
    assert "2.5.29.56" in text or "No Revocation Available" in text  # RFC 9608; OpenSSL 3.0 has no name for it
    assert "CRL Distribution" not in text
    assert "OCSP" not in text
    assert "CA Issuers - URI:" in text


def test_a_device_is_named_by_its_common_name_alone(pki: Pki) -> None:
    issued = pki.issue(profile="device", names="", subject="/CN=sensor 7")
    assert pki.verify(issued, *STRICT, "sslclient").returncode == 0
    assert run("openssl", "x509", "-in", issued.cert, "-noout", "-subject").stdout == "subject=CN = sensor 7\n"
    assert certtool(pki, issued, f"--verify-purpose={CLIENT_AUTH}")[0] == 0


@pytest.mark.parametrize(
    ("host", "good"),
    [("a.internal", True), ("x.b.internal", True), ("b.internal", False), ("y.x.b.internal", False), ("c.test", False)],
)
def test_names_hold_for_what_they_say(pki: Pki, host: str, good: bool) -> None:
    issued = pki.issue(names="DNS:a.internal,DNS:*.b.internal,IP:10.0.0.1")
    assert (pki.verify(issued, "-verify_hostname", host).returncode == 0) is good
    assert (certtool(pki, issued, f"--verify-hostname={host}")[0] == 0) is good
    assert pki.verify(issued, "-verify_ip", "10.0.0.1").returncode == 0
    assert pki.verify(issued, "-verify_ip", "10.0.0.2").returncode == 2


def test_another_root_does_not_do(pki: Pki) -> None:
    """The same checks refuse when the trust is not ours: so they do check."""
    issued = pki.issue()
    trust = ("-CAfile", pki.stranger, "-no-CApath", "-no-CAstore", "-untrusted", issued.chain)
    done = run("openssl", "verify", *trust, issued.cert, codes=(2,))
    assert "unable to get local issuer certificate" in said(done)
    code, text = certtool(pki, issued, trust=pki.stranger)
    assert code == 1
    assert "NOT trusted" in text


def test_the_addresses_in_a_certificate_give_its_issuer(pki: Pki) -> None:
    """AIA leads up, and the CDPs lead to CRLs of the right issuer."""
    issued = pki.issue()
    for cert, authority in ((issued.cert, "issuing"), (pki.issuing, "root")):
        text = run("openssl", "x509", "-in", cert, "-noout", "-text").stdout
        (url,) = re.findall(r"CA Issuers - URI:(\S+)", text)
        fetched = cert.with_name(f"{authority}-of.cer")
        run("curl", "-sSf", "-o", fetched, url)
        above = run("openssl", "x509", "-inform", "DER", "-in", fetched, "-noout", "-subject").stdout.partition("=")[2]
        assert above == run("openssl", "x509", "-in", cert, "-noout", "-issuer").stdout.partition("=")[2]
        (point,) = re.findall(r"URI:(\S+\.crl)", text)
        assert point == f"{pki.server.pki}/crl/{authority}.crl"
    bundle = pki.folder / "issuing.p7c"
    run("curl", "-sSf", "-o", bundle, f"{pki.server.pki}/ca/issuing.p7c")
    subjects = run("openssl", "pkcs7", "-inform", "DER", "-in", bundle, "-print_certs", "-noout").stdout
    assert re.findall(r"CN = (.+)", subjects) == ["Rootward Issuing CA", "Rootward Root CA"]  # subject, issuer of one
