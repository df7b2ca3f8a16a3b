"""OCSP answers as a client reads and checks them (RFC 6960 3.2 and 4.2, RFC 5019, RFC 9654).

`parse_response` says what is in the bytes, `check_response` whether it may be believed. Only what responders of ours
send is read: basic responses with whole seconds and CertIDs by SHA-1 or SHA-256, signed as `signature.py` has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.core import der
from rootward.core.issuer import Issuer
from rootward.core.ocsp_request import (
    MAX_CERT_IDS,
    NONCE,
    CertId,
    OcspError,
    digest,
    exactly,
    inside,
    matches,
    read_cert_id,
    read_extensions,
    read_nonce,
    status_of,
)
from rootward.core.problems import Problem
from rootward.core.pubkey import PublicKey, certificate_key
from rootward.core.revocation import Good, RevocationReason, Revoked, Status, Unknown, reason_of
from rootward.core.signature import verifies

MAX_RESPONSE = 64 * 1024
MAX_CERTIFICATES = 8
SKEW = timedelta(minutes=5)  # a responder's clock may be this far ahead of a client's

BASIC = der.oid("1.3.6.1.5.5.7.48.1.1")
GOOD = der.implicit(0, b"")
UNKNOWN = der.implicit(2, b"")
_TIME = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z")
_KNOWN = frozenset({NONCE})
_READ_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, Problem)


class BadResponse(ValueError):
    """An answer that proves nothing; `reasons` are sentences, all of them."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__(" ".join(reasons))


@dataclass(frozen=True, slots=True)
class Answer:
    """A SingleResponse."""

    cert_id: CertId
    status: Status
    this_update: datetime
    next_update: datetime | None


@dataclass(frozen=True, slots=True)
class ResponseData:
    """What is signed; `responder` is the whole ResponderID element, `[1]` for a name or `[2]` for a key hash."""

    responder: bytes
    produced_at: datetime
    answers: tuple[Answer, ...]
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """A BasicOCSPResponse as it was read; nothing about it is checked but its form. `certificates` are DER."""

    data: ResponseData
    tbs: bytes
    algorithm: bytes
    signature: bytes
    certificates: tuple[bytes, ...]


def parse_response(data: bytes) -> OcspResponse:
    """Read a DER OCSPResponse (4.2.1).

    OcspError with the responder's own status where it gave no answer; BadResponse for what is no basic response in DER.
    """
    if len(data) > MAX_RESPONSE:
        raise BadResponse("The answer has more than 64 KiB.")
    try:
        return _read_response(data)
    except der.DerError as error:
        raise BadResponse(f"The answer cannot be read: {error}.") from error


def _read_response(data: bytes) -> OcspResponse:
    parts = list(der.items(data, der.only(data, der.SEQUENCE)))
    if not parts or parts[0].tag != der.ENUMERATED:
        raise der.DerError("there is no status")
    number = der.read_integer(der.content(data, parts[0]))
    if number != 0:
        status = status_of(number)
        if status is None or len(parts) > 1:
            raise der.DerError("there is no such status")
        raise OcspError(status, "the responder gave no answer")
    if len(parts) != 2 or parts[1].tag != 0xA0:
        raise der.DerError("there is no answer")
    kind, value = exactly(data, inside(data, parts[1], der.SEQUENCE), (der.OID, der.OCTET_STRING))
    if der.whole(data, kind) != BASIC:
        raise der.DerError("the answer is not a basic one")
    basic = list(der.items(data, inside(data, value, der.SEQUENCE)))
    certificates: tuple[bytes, ...] = ()
    if len(basic) == 4 and basic[3].tag == 0xA0:
        listed = list(der.items(data, inside(data, basic.pop(), der.SEQUENCE)))
        certificates = tuple(der.whole(data, item) for item in listed)
        if len(listed) > MAX_CERTIFICATES:
            raise der.DerError("there are too many certificates")
    if [part.tag for part in basic] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise der.DerError("the answer does not have the elements that it must")
    tbs, algorithm = der.whole(data, basic[0]), der.whole(data, basic[1])
    bits = der.content(data, basic[2])
    if bits[:1] != b"\0":
        raise der.DerError("a signature is whole octets")
    return OcspResponse(read_data(tbs), tbs, algorithm, bits[1:], certificates)


def read_data(tbs: bytes) -> ResponseData:
    """Read a DER ResponseData; DerError if it is none, or has an extension that is critical and not the nonce."""
    parts = list(der.items(tbs, der.only(tbs, der.SEQUENCE)))
    nonce = None
    if len(parts) == 4 and parts[3].tag == 0xA1:
        nonce = read_nonce(read_extensions(tbs, parts.pop(), _KNOWN))
    if len(parts) != 3 or parts[0].tag not in (0xA1, 0xA2) or parts[2].tag != der.SEQUENCE:
        raise der.DerError("the response data do not have the elements that they must")
    answers = tuple(_read_answer(tbs, item) for item in der.items(tbs, parts[2]))
    if not 1 <= len(answers) <= MAX_CERT_IDS:
        raise der.DerError("there are no answers, or too many")
    return ResponseData(der.whole(tbs, parts[0]), _read_time(tbs, parts[1]), answers, nonce)


def _read_answer(tbs: bytes, single: der.Item) -> Answer:
    parts = list(der.items(tbs, single))
    if len(parts) > 3 and parts[-1].tag == 0xA1:
        read_extensions(tbs, parts.pop(), frozenset())
    next_update = None
    if len(parts) == 4 and parts[3].tag == 0xA0:
        next_update = _read_time(tbs, inside(tbs, parts.pop(), der.GENERALIZED_TIME))
    if len(parts) != 3 or single.tag != der.SEQUENCE:
        raise der.DerError("an answer does not have the elements that it must")
    return Answer(read_cert_id(tbs, parts[0]), _read_status(tbs, parts[1]), _read_time(tbs, parts[2]), next_update)


def _read_status(tbs: bytes, item: der.Item) -> Status:
    whole = der.whole(tbs, item)
    if whole == GOOD:
        return Good()
    if whole == UNKNOWN:
        return Unknown()
    parts = list(der.items(tbs, item))
    if item.tag != 0xA1 or not 1 <= len(parts) <= 2 or parts[-1].tag not in (0xA0, der.GENERALIZED_TIME):
        raise der.DerError("a status is none")
    reason: RevocationReason | None = RevocationReason.UNSPECIFIED
    if len(parts) == 2:
        reason = reason_of(der.read_integer(der.content(tbs, inside(tbs, parts[1], der.ENUMERATED))))
    if reason is None:
        raise der.DerError("there is no such reason")
    return Revoked(_read_time(tbs, parts[0]), reason)


def _read_time(tbs: bytes, item: der.Item) -> datetime:
    """GeneralizedTime as RFC 5280 4.1.2.5.2 has it: whole seconds, in UTC."""
    digits = _TIME.fullmatch(tbs, item.body, item.end)
    if item.tag != der.GENERALIZED_TIME or digits is None:
        raise der.DerError("a time is not in whole seconds of UTC")
    year, month, day, hour, minute, second = map(int, digits.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise der.DerError("there is no such time") from error


def check_response(
    response: OcspResponse, *, cert_id: CertId, issuer: Issuer, now: datetime, nonce: bytes | None = None
) -> Status:
    """The status of the certificate that `cert_id` names, once everything about the answer is right (RFC 6960 3.2).

    Signed by the issuer's key or by a responder that it delegated to, with an algorithm by which such a key of ours
    signs; current, with a nextUpdate (RFC 5019 2.2.4). `nonce` is what was sent: another one in the answer is wrong,
    none is right (RFC 9654 2.1). BadResponse with all reasons otherwise.
    """
    data = response.data
    reasons = _signer_faults(response, issuer, now)
    if data.nonce is not None and data.nonce != nonce:
        reasons.append("The nonce is another one than was sent.")
    if data.produced_at > now + SKEW:
        reasons.append("The answer is from the future.")
    found = [answer for answer in data.answers if _same(answer.cert_id, cert_id)]
    if len(found) != 1 or not matches(cert_id, issuer):
        raise BadResponse(*reasons, "There is not one answer for the certificate that was asked about.")
    if found[0].this_update > now + SKEW:
        reasons.append("thisUpdate is in the future.")
    next_update = found[0].next_update
    if next_update is None or next_update <= now or next_update <= found[0].this_update:
        reasons.append("nextUpdate is over, or there is none.")
    if reasons:
        raise BadResponse(*reasons)
    return found[0].status


def _same(one: CertId, other: CertId) -> bool:
    """Whether two CertIDs name the same certificate; their bytes may differ in an absent or NULL parameter."""
    return (one.hash, one.name_hash, one.key_hash, one.serial) == (
        other.hash,
        other.name_hash,
        other.key_hash,
        other.serial,
    )


@lru_cache(maxsize=64)
def by_key(key: PublicKey) -> bytes:
    """ResponderID byKey: SHA-1 of the responder's key bits, whatever the CertIDs are hashed with (4.2.1)."""
    return der.explicit(2, der.octet_string(digest(key.bits, "sha1")))


@lru_cache(maxsize=64)
def key_of(certificate: x509.Certificate) -> PublicKey:
    """The certificate's key, kept; Problem if it is none that we accept."""
    return certificate_key(certificate)


def _signer_faults(response: OcspResponse, issuer: Issuer, now: datetime) -> list[str]:
    """What is wrong with the signature and with whoever made it; of several certificates for a key the best counts."""
    candidates = [issuer.certificate]
    for data in response.certificates:
        try:
            candidates.append(x509.load_der_x509_certificate(data))
        except _READ_ERRORS:
            continue  # not a certificate of a responder of ours
    found = [_faults(response, certificate, issuer, now) for certificate in candidates]
    return min((faults for faults in found if faults is not None), key=len, default=["The responder is not known."])


def _faults(response: OcspResponse, signer: x509.Certificate, issuer: Issuer, now: datetime) -> list[str] | None:
    """None if the answer does not say that it is by `signer`."""
    try:
        key = key_of(signer)
        names = (by_key(key), der.explicit(1, signer.subject.public_bytes()))
        if response.data.responder not in names:
            return None
        found = list(delegation_faults(signer, issuer.certificate))
    except _READ_ERRORS:
        return None
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        found.append("The responder's certificate is not valid now.")
    if not verifies(key, response.signature, response.tbs, algorithm=response.algorithm):
        found.append("The signature is not the responder's.")
    return found


@lru_cache(maxsize=64)
def delegation_faults(responder: x509.Certificate, issuer: x509.Certificate) -> tuple[str, ...]:
    """Why `responder` may not answer for `issuer` (4.2.2.2); nothing if it is that, or issued by its key for OCSP.

    Kept, because it costs a signature check.
    """
    if responder == issuer:
        return ()
    found = []
    try:
        responder.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_READ_ERRORS):
        found.append("The responder's certificate is not the issuer's.")
    try:
        usages = list(responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = []
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usages:
        found.append("The responder's certificate is not for OCSP signing.")
    return tuple(found)
