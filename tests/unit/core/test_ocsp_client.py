"""A client of OCSP: it reads what others write, and is not fooled."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as others
from hypothesis import given
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.ocsp import (
    BadResponse,
    OcspError,
    OcspStatus,
    error_response,
    finish_response,
    parse_response,
)
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, Revoked, Status
from tests.support.ocsp import (
    HOUR,
    NONCE,
    REVOKED,
    SECOND,
    STATUSES,
    cert_id,
    changed,
    check,
    draft,
    signed,
)
from tests.support.revocation import NOW, SERIAL, make_ca, make_leaf, make_responder

# --- A client


@pytest.mark.parametrize("status", STATUSES)
def test_what_others_write_is_read(status: Status) -> None:
    """By cryptography's builder, ResponderID by name and by hash."""
    ca = make_ca()
    responder = make_responder(ca)
    leaf = make_leaf(ca)
    revoked = isinstance(status, Revoked)
    reason = x509.ReasonFlags(status.reason.value) if revoked and status.reason.number else None
    for encoding in others.OCSPResponderEncoding:
        builder = others.OCSPResponseBuilder().add_response(
            cert=leaf.certificate,
            issuer=ca.certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 - CertIDs name issuers by it
            cert_status=others.OCSPCertStatus[type(status).__name__.upper()],
            this_update=NOW,
            next_update=NOW + HOUR,
            revocation_time=status.at if revoked else None,
            revocation_reason=reason,
        )
        builder = builder.responder_id(encoding, responder.certificate).certificates([responder.certificate])
        answer = builder.sign(responder.private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        assert parse_response(answer).data.answers[0].status == status
        # the builder stamps producedAt with the machine's clock: only that may be wrong with it
        try:
            assert check(ca, answer) == status
        except BadResponse as bad:
            if bad.reasons != ("The answer is from the future.",):
                raise


@pytest.mark.parametrize("status", list(OcspStatus))
def test_a_refusal_is_raised(status: OcspStatus) -> None:
    with pytest.raises(OcspError) as refused:
        parse_response(error_response(status))
    assert refused.value.status is status


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x00", b"\x30\x03\x0a\x01\x00", b"\x30\x03\x0a\x01\x04", b"\x30\x03\x0a\x01\x07", b"x" * 65537]
)
def test_what_is_no_answer_is_bad(data: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_response(data)


@pytest.mark.parametrize(
    ("now", "sent", "got", "words"),
    [
        (NOW + HOUR, None, None, "nextUpdate"),
        (NOW - HOUR, None, None, "future"),
        (NOW, NONCE, b"\x08" * 32, "nonce"),
        (NOW, None, NONCE, "nonce"),
    ],
)
def test_an_answer_of_another_time_or_question_is_not_believed(
    now: datetime, sent: bytes | None, got: bytes | None, words: str
) -> None:
    ca = make_ca()
    responder = make_responder(ca)
    answer = signed(responder, draft(responder, (cert_id(ca), Good()), nonce=got))
    with pytest.raises(BadResponse, match=words):
        check(ca, answer, now, sent)


@pytest.mark.invariant("I-31")
def test_an_answer_without_a_nonce_is_believed() -> None:
    """RFC 9654 2.1, RFC 5019 4: a responder may sign in advance; then the times have to do."""
    ca = make_ca()
    responder = make_responder(ca)
    assert check(ca, signed(responder, draft(responder, (cert_id(ca), Good()))), nonce=NONCE) == Good()


@pytest.mark.invariant("I-28")
@pytest.mark.invariant("I-32")
def test_an_answer_of_somebody_else_is_not_believed() -> None:
    ca, other = make_ca(), make_ca("Other CA")
    rogue = make_leaf(ca)
    for signer, words in (
        (make_responder(other), "not the issuer's"),
        (rogue, "not for OCSP signing"),
        (other, "not the issuer's"),
        (make_responder(ca, days=0), "not valid now"),
    ):
        answer = signed(signer, draft(signer, (cert_id(ca), Good())))
        with pytest.raises(BadResponse, match=words):
            check(ca, answer, NOW + 2 * SECOND)


def test_an_answer_without_its_signers_certificate_is_not_believed() -> None:
    ca = make_ca()
    responder = make_responder(ca)
    made = draft(responder, (cert_id(ca), Good()))
    for certificates in ([], [ca.der], [b"\x30\x00"]):
        with pytest.raises(BadResponse, match="not known"):
            check(ca, finish_response(made, responder.sign(made.tbs), certificates))


def test_the_signature_must_be_of_the_one_that_it_names() -> None:
    ca = make_ca()
    responder, twin = make_responder(ca), make_responder(ca)
    made = draft(responder, (cert_id(ca), Good()))
    with pytest.raises(BadResponse, match="signature"):
        check(ca, finish_response(made, twin.sign(made.tbs), [twin.der, responder.der]))
    assert check(ca, finish_response(made, responder.sign(made.tbs), [twin.der, responder.der])) == Good()


def test_an_answer_about_another_certificate_is_not_believed() -> None:
    ca = make_ca()
    responder = make_responder(ca)
    for asked in ([b"\x05"], [SERIAL, SERIAL]):
        answer = signed(responder, draft(responder, *((cert_id(ca, serial), Good()) for serial in asked)))
        with pytest.raises(BadResponse, match="not one answer"):
            check(ca, answer)


def test_an_answer_without_an_end_is_not_believed() -> None:
    ca = make_ca()
    responder = make_responder(ca)
    made = draft(responder, (cert_id(ca), Good()))
    parts = [der.tlv(part.tag, part.content) for part in der.children(made.tbs)]
    body = der.sequence(cert_id(ca).der, b"\x80\x00", der.generalized_time(NOW))
    parts[2] = der.sequence(body)
    endless = changed(made, tbs=der.sequence(*parts))
    with pytest.raises(BadResponse, match="there is none"):
        check(ca, signed(responder, endless))


@given(st.data())
def test_no_changed_octet_is_believed(data: st.DataObject) -> None:
    """Signed by the issuer itself, so that nothing in it is left out of the signature."""
    ca = make_ca(algorithm=KeyAlgorithm.ED25519)
    made = draft(ca, (cert_id(ca), REVOKED), nonce=NONCE)
    good = finish_response(made, ca.sign(made.tbs), [])
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((BadResponse, OcspError)):
        check(ca, bytes(bad), nonce=NONCE)


@pytest.mark.invariant("I-66")
@given(st.data())
def test_only_its_own_errors_come_out(data: st.DataObject) -> None:
    ca = make_ca(algorithm=KeyAlgorithm.ED25519)
    made = draft(ca, (cert_id(ca), REVOKED), nonce=NONCE)
    bad = bytearray(finish_response(made, ca.sign(made.tbs), [ca.der]))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, 10**6)) % len(bad)
        bad[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with suppress(BadResponse, OcspError):
        assert check(ca, bytes(bad), nonce=NONCE) == REVOKED
