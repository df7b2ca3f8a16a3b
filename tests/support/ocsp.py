"""An OCSP answer, drafted, signed, linted and checked in one call each; times are around NOW."""

from __future__ import annotations

from datetime import datetime, timedelta

from rootward.core.ocsp import (
    CertId,
    OcspDraft,
    cert_id_for,
    check_response,
    draft_response,
    finish_response,
    lint_ocsp,
    parse_response,
)
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, RevocationReason, Revoked, Status, Unknown
from tests.support.revocation import NOW, SERIAL, Signer, issuer_of

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
NONCE = b"\x07" * 32
REVOKED = Revoked(NOW - HOUR, RevocationReason.KEY_COMPROMISE)
STATUSES: list[Status] = [Good(), Unknown(), REVOKED, Revoked(NOW, RevocationReason.UNSPECIFIED)]
ALGORITHMS = [
    KeyAlgorithm.P256,
    KeyAlgorithm.P384,
    KeyAlgorithm.RSA_2048,
    KeyAlgorithm.ED25519,
    KeyAlgorithm.ML_DSA_44,
]


def draft(
    signer: Signer,
    *statuses: tuple[CertId, Status],
    this_update: datetime = NOW,
    next_update: datetime = NOW + HOUR,
    produced_at: datetime = NOW,
    nonce: bytes | None = None,
) -> OcspDraft:
    """An answer by this responder, for an hour from NOW on."""
    return draft_response(
        responder=signer.certificate,
        responder_key=signer.key,
        statuses=statuses,
        this_update=this_update,
        next_update=next_update,
        produced_at=produced_at,
        nonce=nonce,
    )


def signed(signer: Signer, made: OcspDraft) -> bytes:
    """The draft with the responder's signature and certificate."""
    return finish_response(made, signer.sign(made.tbs), [signer.der])


def cert_id(ca: Signer, serial: bytes = SERIAL) -> CertId:
    """By SHA-1, as most clients ask."""
    return cert_id_for(issuer_of(ca), serial, "sha1")


def check(ca: Signer, data: bytes, now: datetime = NOW, nonce: bytes | None = None) -> Status:
    """What a client believes about SERIAL."""
    return check_response(parse_response(data), cert_id=cert_id(ca), issuer=issuer_of(ca), now=now, nonce=nonce)


def lint(made: OcspDraft, responder: Signer, ca: Signer) -> list[str]:
    """The findings' sentences."""
    found = lint_ocsp(made, responder=responder.certificate, issuer=issuer_of(ca))
    assert {reason.code for reason in found} <= {"RW-LINT"}
    return [reason.detail for reason in found]


def changed(made: OcspDraft, **fields: object) -> OcspDraft:
    """A draft that no check stands for."""
    return OcspDraft._make(**{name: fields.get(name, getattr(made, name)) for name in OcspDraft._fields})
