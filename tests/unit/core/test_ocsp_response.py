"""OCSP answers: others read and verify what is drafted, what is wrong is found before it is signed."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp as others

from rootward.core.ocsp import (
    OcspDraft,
    cert_id_for,
    draft_response,
    finish_response,
    parse_request,
    parse_response,
    request_for,
)
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, RevocationReason, Revoked, Status, Unknown
from tests.support.ocsp import (
    ALGORITHMS,
    HOUR,
    NONCE,
    REVOKED,
    SECOND,
    STATUSES,
    cert_id,
    changed,
    check,
    draft,
    lint,
    signed,
)
from tests.support.revocation import NOW, SERIAL, issuer_of, make_ca, make_leaf, make_responder

# --- What others read


@pytest.mark.parametrize("nonce", [None, NONCE])
@pytest.mark.parametrize("status", STATUSES)
def test_cryptography_reads_what_was_drafted(status: Status, nonce: bytes | None) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    found = others.load_der_ocsp_response(signed(responder, draft(responder, (cert_id(ca), status), nonce=nonce)))
    assert found.response_status is others.OCSPResponseStatus.SUCCESSFUL
    assert (found.produced_at_utc, found.this_update_utc, found.next_update_utc) == (NOW, NOW, NOW + HOUR)
    assert found.serial_number == int.from_bytes(SERIAL, "big")
    assert found.certificates == [responder.certificate]
    assert found.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(responder.private.public_key()).digest
    assert found.certificate_status.name == type(status).__name__.upper()
    if isinstance(status, Revoked):
        assert found.revocation_time_utc == status.at
        assert (found.revocation_reason and found.revocation_reason.value) == (
            None if status.reason is RevocationReason.UNSPECIFIED else status.reason.value
        )
    assert [one.value.nonce for one in found.extensions] == ([] if nonce is None else [nonce])
    assert not list(found.single_extensions)
    digest = ec.ECDSA(hashes.SHA256())
    responder.private.public_key().verify(found.signature, found.tbs_response_bytes, digest)


@pytest.mark.parametrize("delegated", [True, False])
@pytest.mark.parametrize("algorithm", ALGORITHMS[:-1])
def test_openssl_verifies_it(tmp_path: Path, algorithm: KeyAlgorithm, delegated: bool) -> None:
    ca = make_ca(algorithm=algorithm)
    responder = make_responder(ca) if delegated else ca
    leaf = make_leaf(ca)
    asked = [cert_id_for(issuer_of(ca), SERIAL, "sha256"), cert_id(ca, b"\x05"), cert_id(ca, b"\x06")]
    (tmp_path / "ask.der").write_bytes(request_for(asked, NONCE))
    request = parse_request((tmp_path / "ask.der").read_bytes())
    made = draft(responder, *zip(request.cert_ids, [Good(), REVOKED, Unknown()], strict=True), nonce=request.nonce)
    (tmp_path / "answer.der").write_bytes(signed(responder, made))
    (tmp_path / "ca.pem").write_text(issuer_of(ca).pem())
    (tmp_path / "leaf.pem").write_text(issuer_of(leaf).pem())
    command = ["openssl", "ocsp", "-respin", "answer.der", "-CAfile", "ca.pem", "-issuer", "ca.pem", "-sha256"]
    command += ["-cert", "leaf.pem", "-sha1", "-serial", "0x05", "-sha1", "-serial", "0x06", "-resp_text"]
    command += ["-attime", str(int(NOW.timestamp())), "-no_nonce"]
    command += ["-validity_period", str(10**9)]  # the times are NOW's, and it looks at the machine's clock
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Response verify OK" in done.stderr
    assert "leaf.pem: good" in done.stdout
    assert "0x05: revoked" in done.stdout
    assert "Reason: keyCompromise" in done.stdout
    assert "0x06: unknown" in done.stdout
    assert "Next Update: Nov 23 13:00:00 2026 GMT" in done.stdout


def test_openssl_knows_its_own_nonce(tmp_path: Path) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    (tmp_path / "ca.pem").write_text(issuer_of(ca).pem())
    (tmp_path / "ask.der").write_bytes(request_for([cert_id(ca)], NONCE))
    base = ["openssl", "ocsp", "-reqin", "ask.der", "-respin", "answer.der", "-CAfile", "ca.pem"]
    base += ["-attime", str(int(NOW.timestamp()))]
    for nonce, words in ((NONCE, "Response verify OK"), (b"\x08" * 32, "Nonce Verify error")):
        (tmp_path / "answer.der").write_bytes(signed(responder, draft(responder, (cert_id(ca), Good()), nonce=nonce)))
        done = subprocess.run(base, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert words in done.stdout + done.stderr


def test_pkilint_has_nothing_to_say(tmp_path: Path) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    linter = Path(sys.executable).with_name("lint_ocsp_response")
    for number, status in enumerate(STATUSES):
        path = tmp_path / f"{number}.der"
        path.write_bytes(signed(responder, draft(responder, (cert_id(ca), status), nonce=NONCE)))
        command = [str(linter), "lint", "-s", "NOTICE", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


# --- What is drafted


@pytest.mark.invariant("I-24")
def test_unspecified_is_not_encoded() -> None:
    ca = make_ca()
    made = draft(make_responder(ca), (cert_id(ca), Revoked(NOW, RevocationReason.UNSPECIFIED)))
    assert bytes.fromhex("a111180f") + b"20261123120000Z" + bytes.fromhex("180f") in made.tbs


@pytest.mark.invariant("I-24")
def test_remove_from_crl_is_refused() -> None:
    ca = make_ca()
    with pytest.raises(ValueError, match="delta"):
        draft(make_responder(ca), (cert_id(ca), Revoked(NOW, RevocationReason.REMOVE_FROM_CRL)))


def test_an_answer_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        draft(make_responder(make_ca()))


@pytest.mark.invariant("I-38")
def test_a_draft_is_not_made_by_hand() -> None:
    with pytest.raises(TypeError):
        OcspDraft(tbs=b"")


@pytest.mark.invariant("I-31")
@pytest.mark.parametrize("nonce", [None, b"\x01" * 16, NONCE])
def test_the_nonce_comes_back_as_it_was_sent(nonce: bytes | None) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    asked = parse_request(request_for([cert_id(ca)], nonce))
    answer = parse_response(signed(responder, draft(responder, (asked.cert_ids[0], Good()), nonce=asked.nonce)))
    assert answer.data.nonce == nonce


# --- Lints


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("status", STATUSES)
def test_what_is_right_passes(status: Status, algorithm: KeyAlgorithm) -> None:
    ca = make_ca(algorithm=algorithm)
    for responder in (make_responder(ca), ca):
        made = draft(
            responder, (cert_id(ca), status), (cert_id_for(issuer_of(ca), b"\x05", "sha256"), Good()), nonce=NONCE
        )
        assert lint(made, responder, ca) == []
        assert check(ca, signed(responder, made), nonce=NONCE) == status


@pytest.mark.invariant("I-29")
@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"this_update": NOW + SECOND}, "producedAt is not between"),
        ({"next_update": NOW}, "producedAt is not between"),
        ({"next_update": NOW - HOUR}, "producedAt is not between"),
        ({"produced_at": NOW + HOUR}, "producedAt is not between"),
        ({"this_update": NOW - timedelta(days=3), "produced_at": NOW - timedelta(days=2)}, "before the responder's"),
        ({"next_update": NOW + timedelta(days=30, seconds=1)}, "nextUpdate is after"),
    ],
)
def test_a_window_that_is_wrong_is_found(times: dict[str, datetime], words: str) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    found = lint(draft(responder, (cert_id(ca), Good()), **times), responder, ca)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.invariant("I-29")
def test_it_ends_with_responder_and_issuer() -> None:
    ca = make_ca()
    responder = make_responder(ca, days=30)
    assert lint(draft(responder, (cert_id(ca), Good()), next_update=NOW + timedelta(days=30)), responder, ca) == []
    short = make_ca("Short", days=2)
    longer = make_responder(short, days=30)
    found = lint(draft(longer, (cert_id(short), Good()), next_update=NOW + timedelta(days=3)), longer, short)
    assert found == ["nextUpdate is after the notAfter of the responder or the issuer."]


@pytest.mark.invariant("I-24")
def test_a_revocation_in_the_future_is_found() -> None:
    ca = make_ca()
    responder = make_responder(ca)
    made = draft(responder, (cert_id(ca), Revoked(NOW + SECOND, RevocationReason.SUPERSEDED)))
    assert lint(made, responder, ca) == ["A revocation date is in the future."]


@pytest.mark.invariant("I-28")
def test_a_cert_id_of_another_issuer_is_found() -> None:
    ca, other = make_ca(), make_ca("Other CA")
    responder = make_responder(ca)
    made = draft(responder, (cert_id(ca), Good()), (cert_id(other), Good()))
    assert lint(made, responder, ca) == ["A CertID is not this issuer's."]


@pytest.mark.invariant("I-32")
def test_a_responder_that_is_none_is_found() -> None:
    ca, other = make_ca(), make_ca("Other CA")
    for responder, words in (
        (make_responder(ca, purpose=False), "not for OCSP signing"),
        (make_responder(ca, nocheck=False), "no ocsp-nocheck"),
        (make_responder(other), "not the issuer's"),
        (make_responder(make_ca(algorithm=KeyAlgorithm.P384)), "not the issuer's"),
    ):
        found = lint(draft(responder, (cert_id(ca), Good())), responder, ca)
        assert len(found) == 1
        assert words in found[0]


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tbs": b""}, "cannot be read"),
        ({"tbs": b"\x30\x00"}, "cannot be read"),
        ({"algorithm": bytes.fromhex("300a06082a8648ce3d040303")}, "algorithm"),
        ({"issuer_key_id": "00" * 32}, "responder"),
        ({"responder": make_ca().certificate}, "responder"),
        ({"statuses": ()}, "statuses"),
        ({"this_update": NOW - SECOND}, "times"),
        ({"next_update": NOW + 2 * HOUR}, "times"),
        ({"produced_at": NOW + SECOND}, "production"),
        ({"nonce": NONCE}, "nonce"),
    ],
)
def test_a_draft_that_is_not_its_tbs_is_found(fields: dict[str, object], words: str) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    found = lint(changed(draft(responder, (cert_id(ca), Good())), **fields), responder, ca)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.invariant("I-27")
def test_a_tbs_with_another_status_is_found() -> None:
    ca = make_ca()
    responder = make_responder(ca)
    revoked, good = (draft(responder, (cert_id(ca), status)) for status in (REVOKED, Good()))
    assert lint(changed(revoked, tbs=good.tbs), responder, ca) == ["The statuses are not the draft's."]


def test_another_key_with_the_responders_name_is_found() -> None:
    ca = make_ca()
    responder, twin = make_responder(ca), make_responder(ca)
    assert lint(draft(twin, (cert_id(ca), Good())), responder, ca) == ["The responder is not the one that would sign."]


def test_an_answer_takes_microseconds() -> None:
    """Reading, drafting and putting together, without signing: below 100 us here; the bound is for a busy machine."""
    ca = make_ca()
    responder = make_responder(ca)
    asked, key, chain = request_for([cert_id(ca)], NONCE), responder.key, [responder.der]

    def answer() -> bytes:
        request = parse_request(asked)
        made = draft_response(
            responder=responder.certificate,
            responder_key=key,
            statuses=[(request.cert_ids[0], Good())],
            this_update=NOW,
            next_update=NOW + HOUR,
            produced_at=NOW,
            nonce=request.nonce,
        )
        return finish_response(made, b"s" * 70, chain)

    def once() -> float:
        start = time.perf_counter()
        for _ in range(500):
            answer()
        return (time.perf_counter() - start) / 500

    assert min(once() for _ in range(5)) < 0.0005
