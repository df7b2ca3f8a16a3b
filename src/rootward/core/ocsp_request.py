"""OCSP requests and CertIDs as bytes to values and back (RFC 6960 4.1, RFC 9654, the profile of RFC 5019).

Where the RFCs leave a choice: a request has at most 16 KiB and 16 CertIDs; requestorName and the optional signature
may be there and count for nothing; a CertID by another hash than SHA-1 or SHA-256 is `unauthorized` (it may name an
issuer, but none that we can tell); a serial that no CA may give (zero, negative, over 20 octets) is `malformedRequest`;
so is an extension that is there twice, or critical and not the nonce. A nonce of 16 to 32 octets is echoed, other ones
of up to 128 are ignored.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rootward.core import der
from rootward.core.crl_entries import serial_is_valid
from rootward.core.issuer import Issuer

MAX_REQUEST = 16 * 1024
_SHORT = 256  # octets; with one certificate, and no signature
MAX_CERT_IDS = 16

HashName = Literal["sha1", "sha256"]

NONCE = der.oid("1.3.6.1.5.5.7.48.1.2")
_SHA1 = der.oid("1.3.14.3.2.26")
_SHA256 = der.oid("2.16.840.1.101.3.4.2.1")
_ALGORITHMS: dict[HashName, bytes] = {
    "sha1": der.sequence(_SHA1, der.null()),
    "sha256": der.sequence(_SHA256, der.null()),
}
# the parameters are NULL or absent (RFC 3279 2.1 for SHA-1, RFC 5754 2 for SHA-256)
_HASHES: dict[bytes, tuple[HashName, int]] = {
    _ALGORITHMS["sha1"]: ("sha1", 20),
    der.sequence(_SHA1): ("sha1", 20),
    _ALGORITHMS["sha256"]: ("sha256", 32),
    der.sequence(_SHA256): ("sha256", 32),
}


class OcspStatus(enum.StrEnum):
    """OCSPResponseStatus of an answer that is none (RFC 6960 4.2.1); `number` is its value."""

    MALFORMED = "malformedRequest"
    INTERNAL = "internalError"
    TRY_LATER = "tryLater"
    SIG_REQUIRED = "sigRequired"
    UNAUTHORIZED = "unauthorized"

    @property
    def number(self) -> int:
        return _NUMBERS[self]


_NUMBERS = dict(zip(OcspStatus, (1, 2, 3, 5, 6), strict=True))
_STATUSES = {number: status for status, number in _NUMBERS.items()}


def status_of(number: int) -> OcspStatus | None:
    """The status with this value; None for 0 (successful), for 4 (never given out) and for everything above 6."""
    return _STATUSES.get(number)


class OcspError(Exception):
    """There is no signed answer, and `status` says why. `detail` is for our own log, never for the asker."""

    def __init__(self, status: OcspStatus, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"{status}: {detail}")


class _OtherHash(der.DerError):
    """A CertID by a hash that we do not know."""


@dataclass(frozen=True, slots=True)
class CertId:
    """One certificate as OCSP names it (RFC 6960 4.1.1): `serial` is DER content octets, `der` all of it as it came."""

    hash: HashName
    name_hash: bytes
    key_hash: bytes
    serial: bytes
    der: bytes


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """What was asked: 1 to 16 certificates, and the nonce if it is one to echo."""

    cert_ids: tuple[CertId, ...]
    nonce: bytes | None


@lru_cache(maxsize=256)
def digest(data: bytes, algorithm: HashName) -> bytes:
    """The hash, kept: it is over the same few names and keys. SHA-1 only names them here (RFC 6960 4.1.1)."""
    if algorithm == "sha256":
        return hashlib.sha256(data).digest()
    return hashlib.sha1(data, usedforsecurity=False).digest()


def cert_id_for(issuer: Issuer, serial: bytes, algorithm: HashName) -> CertId:
    """The CertID of what `issuer` signed under these serial octets."""
    name_hash, key_hash = digest(issuer.name_der, algorithm), digest(issuer.key_bits, algorithm)
    fields = (der.octet_string(name_hash), der.octet_string(key_hash), der.tlv(der.INTEGER, serial))
    return CertId(algorithm, name_hash, key_hash, serial, der.sequence(_ALGORITHMS[algorithm], *fields))


def matches(cert_id: CertId, issuer: Issuer) -> bool:
    """Whether the CertID means something that this issuer key signed: both hashes, never one (I-28)."""
    return (
        digest(issuer.key_bits, cert_id.hash) == cert_id.key_hash
        and digest(issuer.name_der, cert_id.hash) == cert_id.name_hash
    )


def read_cert_id(data: bytes, item: der.Item) -> CertId:
    """The CertID that `item` is; DerError, and one of its own for a hash that is neither SHA-1 nor SHA-256."""
    algorithm, name, key, serial = exactly(data, item, (der.SEQUENCE, der.OCTET_STRING, der.OCTET_STRING, der.INTEGER))
    name_hash, key_hash, octets = der.content(data, name), der.content(data, key), der.content(data, serial)
    known = _HASHES.get(der.whole(data, algorithm))
    if known is None:
        if der.header(data, algorithm.body, algorithm.end).tag != der.OID:
            raise der.DerError("an algorithm has no identifier")
        raise _OtherHash("a CertID has another hash than SHA-1 and SHA-256")
    if not len(name_hash) == len(key_hash) == known[1]:
        raise der.DerError("a hash does not have its algorithm's length")
    if not serial_is_valid(octets):
        raise der.DerError("a serial is not positive, not minimal or longer than 20 octets")
    return CertId(known[0], name_hash, key_hash, octets, der.whole(data, item))


def exactly(data: bytes, parent: der.Item, tags: tuple[int, ...]) -> list[der.Item]:
    """The elements inside a SEQUENCE that must have exactly these tags."""
    found = list(der.items(data, parent))
    if parent.tag != der.SEQUENCE or tuple(item.tag for item in found) != tags:
        raise der.DerError("a sequence does not have the elements that it must")
    return found


def inside(data: bytes, item: der.Item, tag: int) -> der.Item:
    """The one element of an EXPLICIT tag."""
    return der.only(data, tag, start=item.body, end=item.end)


def read_extensions(data: bytes, item: der.Item, known: frozenset[bytes]) -> dict[bytes, bytes]:
    """The Extensions in an EXPLICIT tag, identifier to value; a critical one that is not `known` is an error (4.4)."""
    found: dict[bytes, bytes] = {}
    for extension in der.items(data, inside(data, item, der.SEQUENCE)):
        parts = list(der.items(data, extension))
        tags = [part.tag for part in parts]
        if extension.tag != der.SEQUENCE or tags not in (_PLAIN, _FLAGGED):
            raise der.DerError("an extension does not have the elements that it must")
        name = der.whole(data, parts[0])
        if tags == _FLAGGED and (name not in known or der.content(data, parts[1]) != b"\xff"):
            raise der.DerError("an extension is critical and unknown")
        if name in found:
            raise der.DerError("an extension is there twice")
        found[name] = der.content(data, parts[-1])
    if not found:
        raise der.DerError("the extensions are there but empty")
    return found


_PLAIN = [der.OID, der.OCTET_STRING]
_FLAGGED = [der.OID, der.BOOLEAN, der.OCTET_STRING]


def read_nonce(extensions: dict[bytes, bytes]) -> bytes | None:
    """The nonce among them, 1 to 128 octets (RFC 9654 2.1), or None."""
    value = extensions.get(NONCE)
    if value is None:
        return None
    nonce = der.content(value, der.only(value, der.OCTET_STRING))
    if not 1 <= len(nonce) <= 128:
        raise der.DerError("a nonce has 1 to 128 octets")
    return nonce


def parse_request(data: bytes) -> OcspRequest:
    """Read a DER OCSPRequest (4.1); OcspError `malformedRequest`, or `unauthorized` for a CertID by an unknown hash."""
    if len(data) > MAX_REQUEST:
        raise OcspError(OcspStatus.MALFORMED, "the request has more than 16 KiB")
    try:
        return _read_short(data) if len(data) <= _SHORT else _read_request(data)
    except _OtherHash as error:
        raise OcspError(OcspStatus.UNAUTHORIZED, str(error)) from error
    except der.DerError as error:
        raise OcspError(OcspStatus.MALFORMED, str(error)) from error


@lru_cache(maxsize=4096)  # the same few bytes come again and again, and what they say never changes
def _read_short(data: bytes) -> OcspRequest:
    return _read_request(data)


def _read_request(data: bytes) -> OcspRequest:
    parts = list(der.items(data, der.only(data, der.SEQUENCE)))
    if [part.tag for part in parts] not in ([der.SEQUENCE], [der.SEQUENCE, 0xA0]):
        raise der.DerError("the request does not have the elements that it must")
    if len(parts) == 2:
        _skip_signature(data, parts[1])
    fields = list(der.items(data, parts[0]))
    if fields and fields[0].tag == 0xA0:
        version = fields.pop(0)
        if der.content(data, inside(data, version, der.INTEGER)) != b"\x00":
            raise der.DerError("the version is not v1")
    if fields and fields[0].tag == 0xA1:
        name = data[fields[0].body : fields.pop(0).end]
        der.check(name)
        if name[0] & 0xC0 != 0x80:
            raise der.DerError("the requestor's name is not a GeneralName")
    if [field.tag for field in fields] not in ([der.SEQUENCE], [der.SEQUENCE, 0xA2]):
        raise der.DerError("the request's body does not have the elements that it must")
    listed = list(der.items(data, fields[0]))
    if not 1 <= len(listed) <= MAX_CERT_IDS:
        raise der.DerError("a request asks for 1 to 16 certificates")
    nonce = read_nonce(read_extensions(data, fields[1], _REQUEST_KNOWN)) if len(fields) == 2 else None
    echoed = nonce if nonce is not None and 16 <= len(nonce) <= 32 else None
    return OcspRequest(tuple(_read_single_request(data, item) for item in listed), echoed)


_REQUEST_KNOWN = frozenset({NONCE})


def _skip_signature(data: bytes, item: der.Item) -> None:
    """Its form is checked, its worth is not: nobody who asks has to be known."""
    der.check(der.whole(data, item))
    tags = [part.tag for part in der.items(data, inside(data, item, der.SEQUENCE))]
    if tags not in ([der.SEQUENCE, der.BIT_STRING], [der.SEQUENCE, der.BIT_STRING, 0xA0]):
        raise der.DerError("the signature does not have the elements that it must")


def _read_single_request(data: bytes, item: der.Item) -> CertId:
    parts = list(der.items(data, item))
    tags = [part.tag for part in parts]
    if item.tag != der.SEQUENCE or tags not in ([der.SEQUENCE], [der.SEQUENCE, 0xA0]):
        raise der.DerError("a single request does not have the elements that it must")
    if len(parts) == 2:
        read_extensions(data, parts[1], frozenset())
    return read_cert_id(data, parts[0])


def request_for(cert_ids: Sequence[CertId], nonce: bytes | None = None) -> bytes:
    """An OCSPRequest, DER, unsigned. A nonce should have 32 octets (RFC 9654 2.1); ValueError outside 1 to 128."""
    listed = der.sequence(*(der.sequence(cert_id.der) for cert_id in cert_ids))
    return der.sequence(der.sequence(listed, b"" if nonce is None else der.explicit(2, nonce_extension(nonce))))


def nonce_extension(nonce: bytes) -> bytes:
    """Extensions, DER, that are this nonce alone; ValueError unless it has 1 to 128 octets."""
    if not 1 <= len(nonce) <= 128:
        raise ValueError("a nonce has 1 to 128 octets")
    return der.sequence(der.sequence(NONCE, der.octet_string(der.octet_string(nonce))))
