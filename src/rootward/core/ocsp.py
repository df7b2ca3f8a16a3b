"""OCSP (RFC 6960, RFC 9654, the profile of RFC 5019): answers drafted, linted and finished; and the door to the codec.

A responder reads `parse_request`, drafts with `draft_response`, lints, signs, and puts together with `finish_response`;
a client writes `request_for`, reads `parse_response` and believes nothing that `check_response` has not seen. What
cannot be answered is an `OcspError`, whose status goes out unsigned (`error_response`). Requests are in `ocsp_request`,
reading answers is in `ocsp_response`; what others need of them has its name here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509

from rootward.core import der
from rootward.core.issuer import Issuer
from rootward.core.ocsp_request import (
    MAX_CERT_IDS,
    MAX_REQUEST,
    CertId,
    OcspError,
    OcspRequest,
    OcspStatus,
    cert_id_for,
    matches,
    nonce_extension,
    parse_request,
    request_for,
)
from rootward.core.ocsp_response import (
    BASIC,
    GOOD,
    UNKNOWN,
    Answer,
    BadResponse,
    OcspResponse,
    by_key,
    check_response,
    delegation_faults,
    key_of,
    parse_response,
    read_data,
)
from rootward.core.problems import Reason
from rootward.core.pubkey import PublicKey
from rootward.core.revocation import Good, RevocationReason, Revoked, Status, Unknown
from rootward.core.sealed import Sealed
from rootward.core.signature import SIGNATURES
from rootward.core.times import whole_second

__all__ = [
    "MAX_CERT_IDS",
    "MAX_REQUEST",
    "Answer",
    "BadResponse",
    "CertId",
    "OcspDraft",
    "OcspError",
    "OcspRequest",
    "OcspResponse",
    "OcspStatus",
    "cert_id_for",
    "check_response",
    "draft_response",
    "error_response",
    "finish_response",
    "lint_ocsp",
    "matches",
    "parse_request",
    "parse_response",
    "request_for",
]


class OcspDraft(Sealed):
    """An answer without its signature, from `draft_response` alone.

    `issuer_key_id` is the key that must sign: the responder's; `responder` is the certificate that vouches for it.
    `statuses` are in the order of the TBS.
    """

    issuer_key_id: str
    responder: x509.Certificate
    statuses: tuple[tuple[CertId, Status], ...]
    this_update: datetime
    next_update: datetime
    produced_at: datetime
    nonce: bytes | None
    tbs: bytes
    algorithm: bytes


def draft_response(
    *,
    responder: x509.Certificate,
    responder_key: PublicKey,
    statuses: Sequence[tuple[CertId, Status]],
    this_update: datetime,
    next_update: datetime,
    produced_at: datetime,
    nonce: bytes | None,
) -> OcspDraft:
    """An answer for these CertIDs, all for the same time, by the key of `responder` (its ResponderID is byKey).

    `nonce` is the request's, or None. ValueError for no status at all and for the reason removeFromCRL.
    """
    if not statuses:
        raise ValueError("an answer has at least one status")
    settled = tuple((cert_id, _settled(status)) for cert_id, status in statuses)
    first, last, made = whole_second(this_update), whole_second(next_update), whole_second(produced_at)
    times = der.generalized_time(first) + der.explicit(0, der.generalized_time(last))
    tbs = der.sequence(
        by_key(responder_key),
        der.generalized_time(made),
        der.sequence(*(der.sequence(cert_id.der, _encode_status(status), times) for cert_id, status in settled)),
        b"" if nonce is None else der.explicit(1, nonce_extension(nonce)),
    )
    return OcspDraft._make(
        issuer_key_id=responder_key.id,
        responder=responder,
        statuses=settled,
        this_update=first,
        next_update=last,
        produced_at=made,
        nonce=nonce,
        tbs=tbs,
        algorithm=SIGNATURES[responder_key.algorithm].identifier,
    )


def _settled(status: Status) -> Status:
    return Revoked(whole_second(status.at), status.reason) if isinstance(status, Revoked) else status


def _encode_status(status: Status) -> bytes:
    if isinstance(status, Good):
        return GOOD
    if isinstance(status, Unknown):
        return UNKNOWN
    if status.reason is RevocationReason.REMOVE_FROM_CRL:
        raise ValueError("removeFromCRL is for delta CRLs only")
    reason = b""
    if status.reason is not RevocationReason.UNSPECIFIED:
        reason = der.explicit(0, der.enumerated(status.reason.number))
    return der.explicit(1, der.generalized_time(status.at), reason)


def finish_response(draft: OcspDraft, signature: bytes, certificates: Sequence[bytes]) -> bytes:
    """The successful OCSPResponse, DER; `certificates` (DER) are the responder's, none if the issuer's key signed."""
    chain = der.explicit(0, der.sequence(*certificates)) if certificates else b""
    basic = der.sequence(draft.tbs, draft.algorithm, der.bit_string(signature), chain)
    return der.sequence(der.enumerated(0), der.explicit(0, der.sequence(BASIC, der.octet_string(basic))))


def error_response(status: OcspStatus) -> bytes:
    """The unsigned OCSPResponse that says only why there is no other (2.3)."""
    return der.sequence(der.enumerated(status.number))


def lint_ocsp(draft: OcspDraft, *, responder: x509.Certificate, issuer: Issuer) -> list[Reason]:
    """Everything that is wrong with the bytes that would be signed (I-09, I-28, I-29, I-32), read anew from them.

    Empty when nothing is.
    """
    try:
        found = list(_lint(draft, responder, issuer))
    except der.DerError as error:
        found = [f"The TBS cannot be read: {error}."]
    return [Reason("RW-LINT", text, "ocsp") for text in found]


def _lint(draft: OcspDraft, responder: x509.Certificate, issuer: Issuer) -> Iterator[str]:
    data = read_data(draft.tbs)
    yield from _responder_faults(responder, issuer.certificate)
    key = key_of(responder)
    if draft.responder != responder or draft.issuer_key_id != key.id or data.responder != by_key(key):
        yield "The responder is not the one that would sign."
    if draft.algorithm != SIGNATURES[key.algorithm].identifier:
        yield "The signature algorithm is not the one of the responder's key."
    if tuple((answer.cert_id, answer.status) for answer in data.answers) != draft.statuses:
        yield "The statuses are not the draft's."
    if any((one.this_update, one.next_update) != (draft.this_update, draft.next_update) for one in data.answers):
        yield "The times are not the draft's."
    if data.produced_at != draft.produced_at or data.nonce != draft.nonce:
        yield "The time of production or the nonce is not the draft's."
    if not all(matches(answer.cert_id, issuer) for answer in data.answers):
        yield "A CertID is not this issuer's."
    if not draft.this_update <= draft.produced_at < draft.next_update:
        yield "producedAt is not between thisUpdate and nextUpdate."
    if draft.produced_at < responder.not_valid_before_utc:
        yield "producedAt is before the responder's notBefore."
    if draft.next_update > min(responder.not_valid_after_utc, issuer.certificate.not_valid_after_utc):
        yield "nextUpdate is after the notAfter of the responder or the issuer."
    if any(isinstance(answer.status, Revoked) and answer.status.at > draft.produced_at for answer in data.answers):
        yield "A revocation date is in the future."


@lru_cache(maxsize=64)
def _responder_faults(responder: x509.Certificate, issuer: x509.Certificate) -> tuple[str, ...]:
    """What keeps a responder of ours from signing for this issuer: as a client has it, and ocsp-nocheck (4.2.2.2.1)."""
    found = delegation_faults(responder, issuer)
    if responder != issuer and not any(isinstance(one.value, x509.OCSPNoCheck) for one in responder.extensions):
        found += ("The responder's certificate has no ocsp-nocheck.",)
    return found
