"""OCSP as OpenSSL, curl and GnuTLS ask for it: with the root as only trust, at once after a revocation."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path

import pytest

from tests.clients.pki import Answer, Issued, Pki, ocsp
from tests.support.programs import run, said

HASHES = ["-sha1", "-sha256"]
NONCES = {"nonce": (), "no nonce": ("-no_nonce",)}
REASONS = [
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "certificateHold",
]


def ask(pki: Pki, issued: Issued, *options: str) -> Answer:
    """By POST."""
    return ocsp(pki, *options, "-cert", issued.cert, "-url", pki.ocsp_url)


def request(pki: Pki, issued: Issued, *options: str) -> str:
    """A request of OpenSSL's, base64."""
    der = issued.folder / "request.der"
    run("openssl", "ocsp", *options, "-issuer", pki.issuing, "-cert", issued.cert, "-reqout", der)
    return base64.b64encode(der.read_bytes()).decode()


def fetch(pki: Pki, folder: Path, path: str) -> Path:
    """The answer to a GET by curl; it must be what it says, by its header too."""
    der = folder / "answer.der"
    url = f"{pki.ocsp_url}/{path}"
    done = run("curl", "-sSf", "--path-as-is", "-o", der, "-w", "%{content_type}", url)
    assert done.stdout == "application/ocsp-response"
    return der


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-27")
@pytest.mark.invariant("I-28")
@pytest.mark.invariant("I-31")
@pytest.mark.parametrize("nonce", list(NONCES))
@pytest.mark.parametrize("digest", HASHES)
def test_good_then_revoked_at_once_by_post(pki: Pki, digest: str, nonce: str) -> None:
    issued = pki.issue()
    options = (*NONCES[nonce], digest)
    before = ask(pki, issued, *options)
    assert (before.status, before.verified) == ("good", True), before
    assert "no nonce in response" not in before.text  # and an unequal one is "Nonce Verify error", which fails the run
    pki.revoke(issued, "superseded")
    after = ask(pki, issued, *options)
    assert (after.status, after.reason, after.verified) == ("revoked", "superseded", True), after


@pytest.mark.invariant("I-27")
@pytest.mark.parametrize("encode", [quoted, str], ids=["percent-encoded", "raw"])
@pytest.mark.parametrize("digest", HASHES)
def test_good_then_revoked_at_once_by_get(pki: Pki, digest: str, encode: type[str]) -> None:
    issued = pki.issue()
    path = encode(request(pki, issued, "-no_nonce", digest))
    believe = ("-no_nonce", digest, "-cert", issued.cert, "-respin")
    before = ocsp(pki, *believe, fetch(pki, issued.folder, path))
    assert (before.status, before.verified) == ("good", True), before
    pki.revoke(issued, "cessationOfOperation")
    after = ocsp(pki, *believe, fetch(pki, issued.folder, path))
    assert (after.status, after.reason, after.verified) == ("revoked", "cessationOfOperation", True), after


def test_every_character_of_base64_works_raw_and_encoded(pki: Pki) -> None:
    """`+`, `/`, `//` and both paddings, made by serials of our choice."""
    folder = pki.make_key().parent
    seen = set()
    for pattern in ("fbefbe", "efbefb", "befbef", "ffffff"):
        for length in (9, 10, 11):
            serial = f"0x7f{(pattern * 4)[: 2 * length]}"
            der = folder / "request.der"
            run("openssl", "ocsp", "-no_nonce", "-issuer", pki.issuing, "-serial", serial, "-reqout", der)
            text = base64.b64encode(der.read_bytes()).decode()
            seen |= {part for part in ("+", "//", "=", "==") if part in text}
            for path in (text, quoted(text)):
                answer = ocsp(pki, "-no_nonce", "-serial", serial, "-respin", fetch(pki, folder, path))
                assert (answer.status, answer.verified) == ("unknown", True), (path, answer)
    assert seen == {"+", "//", "=", "=="}


@pytest.mark.invariant("I-31")
def test_a_long_get_with_a_nonce_is_answered_with_that_nonce(pki: Pki) -> None:
    """SHA-256 and a nonce are more than the 255 octets of RFC 5019."""
    issued = pki.issue()
    der = issued.folder / "request.der"
    text = request(pki, issued, "-nonce", "-sha256")
    assert len(text) > 200
    answer = run(
        *("openssl", "ocsp", "-CAfile", pki.root, "-issuer", pki.issuing, "-reqin", der),
        *("-respin", fetch(pki, issued.folder, quoted(text)), "-text"),
    )
    sent, back = (part.split("\n")[0] for part in answer.stdout.split("OCSP Nonce: \n")[1:3])
    assert sent.split() == back.split()
    assert "Response verify OK" in answer.stderr


@pytest.mark.invariant("I-31")
def test_an_answer_to_another_nonce_is_refused_by_the_client(pki: Pki) -> None:
    """So `openssl ocsp` does compare them."""
    issued = pki.issue()
    first = fetch(pki, issued.folder, quoted(request(pki, issued, "-nonce")))
    request(pki, issued, "-nonce")
    done = run(
        *("openssl", "ocsp", "-CAfile", pki.root, "-issuer", pki.issuing),
        *("-reqin", issued.folder / "request.der", "-respin", first),
        codes=(1,),
    )
    assert "Nonce Verify error" in said(done)


@pytest.mark.invariant("I-27")
@pytest.mark.parametrize("serial", ["0x1234", "0x7f" + "ab" * 19])
def test_a_serial_that_was_never_issued_is_unknown(pki: Pki, serial: str) -> None:
    answer = ocsp(pki, "-serial", serial, "-url", pki.ocsp_url)
    assert (answer.status, answer.verified) == ("unknown", True), answer


@pytest.mark.parametrize("serial", ["0x0", "-1", "0x7f" + "ab" * 4096])
def test_what_can_be_no_serial_is_never_good(pki: Pki, serial: str) -> None:
    answer = ocsp(pki, "-serial", serial, "-url", pki.ocsp_url, codes=(1,))
    assert "Responder Error: malformedrequest (1)" in answer.text


@pytest.mark.invariant("I-28")
def test_who_is_asked_about_another_issuer_says_unauthorized(pki: Pki) -> None:
    """The root's certificates have no OCSP, and no responder speaks for somebody else."""
    serial = run("openssl", "x509", "-in", pki.issuing, "-noout", "-serial").stdout.strip().partition("=")[2]
    for issuer, authority in ((pki.root, "root"), (pki.root, "issuing"), (pki.issuing, "root")):
        url = f"{pki.server.pki}/ocsp/{authority}"
        done = run("openssl", "ocsp", "-issuer", issuer, "-serial", f"0x{serial}", "-url", url, codes=(1,))
        assert "Responder Error: unauthorized (6)" in said(done), (issuer, authority)


@pytest.mark.invariant("I-28")
def test_one_request_for_several_certificates(pki: Pki) -> None:
    good, revoked = pki.issue(), pki.issue()
    pki.revoke(revoked)
    options = ("-cert", good.cert, "-cert", revoked.cert, "-serial", "0x99", "-url", pki.ocsp_url)
    answer = ocsp(pki, *options)
    assert answer.verified
    for line in (f"{good.cert}: good", f"{revoked.cert}: revoked", "0x99: unknown"):
        assert line in answer.text
    mixed = ("-issuer", pki.root, "-serial", "0x99")
    done = run("openssl", "ocsp", "-issuer", pki.issuing, "-cert", good.cert, *mixed, "-url", pki.ocsp_url, codes=(1,))
    assert "unauthorized (6)" in said(done)


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_is_shown(pki: Pki, reason: str) -> None:
    issued = pki.issue()
    pki.revoke(issued, reason)
    answer = ask(pki, issued)
    # OpenSSL 3.0 has no name for this one; the CRL's test and Java's see it by name
    shown = {reason, "(UNKNOWN)"} if reason == "privilegeWithdrawn" else {reason}
    assert (answer.status, answer.verified) == ("revoked", True), answer
    assert answer.reason in shown


def test_no_reason_is_no_reason(pki: Pki) -> None:
    issued = pki.issue()
    pki.revoke(issued)
    answer = ask(pki, issued)
    assert (answer.status, answer.reason, answer.verified) == ("revoked", None, True), answer
    assert "Revocation Time:" in answer.text


@pytest.mark.invariant("I-16")
def test_hold_and_release(pki: Pki) -> None:
    issued = pki.issue()
    pki.revoke(issued, "certificateHold")
    assert ask(pki, issued).reason == "certificateHold"
    pki.release(issued)
    assert ask(pki, issued).status == "good"
    pki.revoke(issued, "keyCompromise")
    assert ask(pki, issued).reason == "keyCompromise"
    status, body = pki.post(f"/api/v1/certificates/{issued.id}/release", {})
    assert status == 409, body
    assert ask(pki, issued).status == "revoked"


@pytest.mark.invariant("I-32")
def test_the_responder_is_a_delegate_of_the_issuer_and_nothing_else(pki: Pki) -> None:
    issued = pki.issue()
    text = ask(pki, issued, "-resp_text", "-no_nonce").text
    certificate = issued.folder / "responder.pem"
    begin = text.index("-----BEGIN CERTIFICATE-----")
    certificate.write_text(text[begin : text.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n")
    shown = run("openssl", "x509", "-in", certificate, "-noout", "-text").stdout
    assert "X509v3 Extended Key Usage: \n                OCSP Signing\n" in shown
    assert "OCSP No Check" in shown
    assert "CA:FALSE" in shown
    chain = ("-CAfile", pki.root, "-no-CApath", "-no-CAstore", "-untrusted", pki.issuing)
    run("openssl", "verify", *chain, "-x509_strict", "-purpose", "ocsphelper", certificate)
    assert run("openssl", "x509", "-in", certificate, "-noout", "-checkend", str(3 * 86_400), codes=(1,))


@pytest.mark.parametrize("status", ["good", "revoked"])
def test_gnutls_asks_the_address_in_the_certificate(pki: Pki, status: str) -> None:
    """GnuTLS wants the issuer among its trust to believe a delegate, and times in whole seconds."""
    issued = pki.issue()
    if status == "revoked":
        pki.revoke(issued, "keyCompromise")
    anchors = issued.folder / "anchors.pem"
    anchors.write_text(pki.root.read_text() + pki.issuing.read_text())
    for address in ("--ask", f"--ask={pki.ocsp_url}"):
        done = run(
            *("ocsptool", address, "--load-cert", issued.cert, "--load-issuer", pki.issuing, "--load-trust", anchors),
            codes=(0, 1),
        )
        assert f"Certificate Status: {status}" in said(done)
        assert "Verifying OCSP Response: Success." in said(done)
