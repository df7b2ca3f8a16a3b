"""Certificate revocation lists (RFC 5280 section 5): drafted, linted, finished, checked and read.

A full CRL for everything that one issuer key signed. It has no issuingDistributionPoint, unless it is drafted for one
address: RFC 5280 5.2.5 wants one only for a CRL of a narrower scope, and it is critical, so a plain full CRL is read by
the most relying parties. Entries are put together as bytes, because a list of a million of them must not take minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from rootward.core import der
from rootward.core.issuer import Issuer
from rootward.core.problems import Reason
from rootward.core.revocation import RevocationReason, Revoked
from rootward.core.sealed import Sealed
from rootward.core.signature import SIGNATURES, verifies

MAX_SERIAL = 20  # octets (RFC 5280 4.1.2.2); the CRL number has the same bound (5.2.3)

_V2 = der.integer(1)
_AKI = der.oid("2.5.29.35")
_NUMBER = der.oid("2.5.29.20")
_IDP = der.oid("2.5.29.28")
_REASON = der.oid("2.5.29.21")
_READ_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


class BadCrl(ValueError):
    """A CRL that must not be used; `reasons` are sentences, all of them."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__(" ".join(reasons))


class Entry(msgspec.Struct, frozen=True):
    """One revoked certificate: its serial as DER content octets, when (aware UTC) and why."""

    serial: bytes
    revoked_at: datetime
    reason: RevocationReason


class CrlDraft(Sealed):
    """A CRL without its signature, from `draft_crl` alone. `algorithm` is the AlgorithmIdentifier in `tbs`, DER."""

    issuer_key_id: str
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    distribution_point: str | None
    tbs: bytes
    algorithm: bytes


def _reason_extension(reason: RevocationReason) -> bytes:
    if reason is RevocationReason.UNSPECIFIED:
        return b""  # 5.3.1: absent rather than unspecified
    return der.sequence(der.sequence(_REASON, der.octet_string(der.enumerated(reason.number))))


_EXTENSIONS: dict[RevocationReason, bytes] = {
    reason: _reason_extension(reason) for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL
}

# What an entry of a full CRL looks like, so that linting a million of them stays in C: its length, its serial (that is
# positive, minimal, at most 20 octets), its time, and a reason other than unspecified (0), 7 and removeFromCRL (8).
_SERIALS = [rb"\x01[\x01-\x7f]"] + [
    rb"\x%02x(?:[\x01-\x7f].|\x00[\x80-\xff]).{%d}" % (octets, octets - 2) for octets in range(2, MAX_SERIAL + 1)
]
_CLOCK = rb"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]Z"
_ENTRY = re.compile(
    rb"\x30(.)\x02((?:%b))(\x17\x0d[0-9]{2}%b|\x18\x0f(?:20[5-9][0-9]|2[1-9][0-9]{2})%b)(?:%b[\x01-\x06\x09\x0a])?"
    % (b"|".join(_SERIALS), _CLOCK, _CLOCK, re.escape(_EXTENSIONS[RevocationReason.SUPERSEDED][:-1])),
    re.DOTALL,
)
_FIFTY = ord("5")


def encode_entry(entry: Entry) -> bytes:
    """An element of revokedCertificates, DER; ValueError for a serial outside RFC 5280 4.1.2.2 or removeFromCRL."""
    serial, extension = entry.serial, _EXTENSIONS.get(entry.reason)
    if extension is None:
        raise ValueError("removeFromCRL is for delta CRLs only")
    if not serial_is_valid(serial):
        raise ValueError("a serial is positive and has at most 20 octets")
    at = entry.revoked_at
    if at.tzinfo is UTC and 2000 <= at.year < 2050:  # der.time in one step, for those who encode a million
        digits = (at.year - 2000, at.month, at.day, at.hour, at.minute, at.second)
        moment = b"\x17\x0d%02d%02d%02d%02d%02d%02dZ" % digits
    else:
        moment = der.time(at)
    size = len(serial)
    length = 2 + size + len(moment) + len(extension)
    return b"\x30%c\x02%c%b%b%b" % (length, size, serial, moment, extension)


def serial_is_valid(serial: bytes) -> bool:
    """Whether these are the content octets of a serial that a CA may give: positive, minimal, at most 20 octets."""
    return (
        0 < len(serial) <= MAX_SERIAL
        and serial[0] < 0x80
        and (serial[0] > 0 or (len(serial) > 1 and serial[1] >= 0x80))
    )


def draft_crl(
    issuer: Issuer,
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[Entry | bytes],
    distribution_point: str | None = None,
) -> CrlDraft:
    """A full CRL of `issuer`, ready to be linted and signed.

    `entries` may be encoded already (`encode_entry`). `distribution_point` is the URI of a critical
    issuingDistributionPoint. ValueError for a number below 1 or above 20 octets, and what `encode_entry` raises.
    """
    if not 0 < number < 1 << (8 * MAX_SERIAL - 1):
        raise ValueError("a CRL number is positive and has at most 20 octets")
    encoded = [entry if isinstance(entry, bytes) else encode_entry(entry) for entry in entries]
    algorithm = SIGNATURES[issuer.key.algorithm].identifier
    tbs = der.sequence(
        _V2,
        algorithm,
        issuer.name_der,
        der.time(this_update),
        der.time(next_update),
        der.sequence(*encoded) if encoded else b"",  # 5.1.2.6: absent when nothing is revoked
        _extensions(issuer, number, distribution_point),
    )
    return CrlDraft._make(
        issuer_key_id=issuer.key_id,
        number=number,
        this_update=this_update,
        next_update=next_update,
        entries=len(encoded),
        distribution_point=distribution_point,
        tbs=tbs,
        algorithm=algorithm,
    )


def _extensions(issuer: Issuer, number: int, distribution_point: str | None) -> bytes:
    """crlExtensions: who signed, which number, and the address if it is for one only (5.2.1, 5.2.3, 5.2.5)."""
    key = der.sequence(der.implicit(0, issuer.subject_key_id))
    extensions = [
        der.sequence(_AKI, der.octet_string(key)),
        der.sequence(_NUMBER, der.octet_string(der.integer(number))),
    ]
    if distribution_point is not None:
        name = der.explicit(0, der.implicit(6, distribution_point.encode("ascii")))
        point = der.sequence(der.explicit(0, name))
        extensions.append(der.sequence(_IDP, der.boolean(True), der.octet_string(point)))
    return der.explicit(0, der.sequence(*extensions))


def finish_crl(draft: CrlDraft, signature: bytes) -> bytes:
    """The CRL, DER: the draft's TBS, its algorithm and the signature over exactly that TBS."""
    return der.sequence(draft.tbs, draft.algorithm, der.bit_string(signature))


class _Tbs(NamedTuple):
    """The fields of a TBSCertList (5.1.2), each its whole element; `revoked` is where the list stands, if it does."""

    version: bytes
    algorithm: bytes
    issuer: bytes
    this_update: bytes
    next_update: bytes
    extensions: bytes
    revoked: der.Item | None


def _split(tbs: bytes) -> _Tbs:
    parts = list(der.items(tbs, der.only(tbs, der.SEQUENCE)))
    revoked = parts.pop(5) if len(parts) == 7 else None
    if len(parts) != 6:
        raise der.DerError("it does not have the fields of a version 2 CRL")
    version, algorithm, issuer, this_update, next_update, extensions = (der.whole(tbs, part) for part in parts)
    return _Tbs(version, algorithm, issuer, this_update, next_update, extensions, revoked)


def lint_crl(draft: CrlDraft, issuer: Issuer) -> list[Reason]:
    """Everything that is wrong with the bytes that would be signed (I-09, I-24), read anew; empty when nothing is."""
    try:
        found = list(_lint(draft, issuer, _split(draft.tbs)))
    except der.DerError as error:
        found = [f"The TBS cannot be read: {error}."]
    return [Reason("RW-LINT", text, "crl") for text in found]


def _lint(draft: CrlDraft, issuer: Issuer, tbs: _Tbs) -> Iterator[str]:
    certificate = issuer.certificate
    if tbs.version != _V2:
        yield "The version is not v2."
    if not tbs.algorithm == draft.algorithm == SIGNATURES[issuer.key.algorithm].identifier:
        yield "The signature algorithm is not the one of the issuer's key."
    if tbs.issuer != issuer.name_der or draft.issuer_key_id != issuer.key_id:
        yield "The issuer is not the one that would sign."
    if not _signs_crls(certificate):
        yield "The issuer's certificate does not allow signing CRLs."
    if (tbs.this_update, tbs.next_update) != (der.time(draft.this_update), der.time(draft.next_update)):
        yield "The times are not the draft's, or not encoded as RFC 5280 5.1.2.4 has it."
    if draft.this_update >= draft.next_update:
        yield "nextUpdate is not after thisUpdate."
    if draft.this_update < certificate.not_valid_before_utc:
        yield "thisUpdate is before the issuer's notBefore."
    if draft.next_update > certificate.not_valid_after_utc:
        yield "nextUpdate is after the issuer's notAfter."
    if tbs.extensions != _extensions(issuer, draft.number, draft.distribution_point):
        yield "The extensions are not exactly those of a full CRL of this issuer, number and address."
    if tbs.revoked is not None:
        yield from _lint_entries(draft, tbs.revoked)
    elif draft.entries:
        yield "The list of revoked certificates is missing."


def _signs_crls(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return False


def _lint_entries(draft: CrlDraft, listed: der.Item) -> Iterator[str]:
    """One pass over all entries, without a call of ours for each: a million of them must take about a second."""
    seen: set[bytes] = set()
    latest = der.time(draft.this_update)
    at, count, late = listed.body, 0, 0
    for match in _ENTRY.finditer(draft.tbs, listed.body, listed.end):
        length, serial, moment = match.groups()
        end = match.end()
        if match.start() != at or end - at - 2 != length[0]:
            break
        if moment > latest if moment[2] < _FIFTY > latest[2] else _century(moment) > _century(latest):
            late += 1
        seen.add(serial)
        count += 1
        at = end
    if listed.tag != der.SEQUENCE or not count or at != listed.end:
        yield f"Entry {count + 1} is not encoded as it must be, or has what a full CRL may not have."
    elif count != draft.entries:
        yield "The number of entries is not the draft's."
    if len(seen) != count:
        yield "A serial is there twice."
    if late:
        yield f"{late} revocation dates are after thisUpdate."


def _century(moment: bytes) -> bytes:
    """The digits of a Time with its century: UTCTime is 1950 to 2049 (RFC 5280 4.1.2.5.1)."""
    digits = moment[2:]
    if moment[0] == der.GENERALIZED_TIME:
        return digits
    return (b"20" if digits[0] < _FIFTY else b"19") + digits


@dataclass(frozen=True, slots=True)
class Crl:
    """A CRL as it was read; nothing about it is checked but its form. `number` is None where it has none."""

    der: bytes
    list: x509.CertificateRevocationList
    number: int | None
    this_update: datetime
    next_update: datetime | None

    def __len__(self) -> int:
        return len(self.list)

    def __iter__(self) -> Iterator[Entry]:
        for found in self.list:
            yield _entry(found)

    def revoked(self, serial: bytes) -> Revoked | None:
        """What it says of the certificate with these serial octets; None if it does not name it."""
        found = self.list.get_revoked_certificate_by_serial_number(int.from_bytes(serial, "big", signed=True))
        if found is None:
            return None
        entry = _entry(found)
        return Revoked(entry.revoked_at, entry.reason)


def _entry(found: x509.RevokedCertificate) -> Entry:
    try:
        flag = found.extensions.get_extension_for_class(x509.CRLReason).value.reason
        reason = RevocationReason(flag.value)
    except x509.ExtensionNotFound:
        reason = RevocationReason.UNSPECIFIED
    return Entry(der.integer(found.serial_number)[2:], found.revocation_date_utc, reason)


def parse_crl(data: bytes) -> Crl:
    """Read a DER CRL of anybody's; BadCrl if it cannot be read. Its entries are only read when they are asked for."""
    try:
        found = x509.load_der_x509_crl(data)
        try:
            number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except x509.ExtensionNotFound:
            number = None
        return Crl(data, found, number, found.last_update_utc, found.next_update_utc)
    except _READ_ERRORS as error:
        raise BadCrl("The CRL cannot be read.") from error


def check_crl(
    data: bytes,
    issuer: Issuer,
    *,
    now: datetime,
    last_number: int | None,
    distribution_point: str | None = None,
) -> None:
    """Nothing if this DER may be published now as `issuer`'s full CRL, after the one numbered `last_number` (I-18).

    `distribution_point` is the URI that its issuingDistributionPoint must have; None means that it must have none.
    BadCrl with all reasons otherwise.
    """
    crl = parse_crl(data)
    try:
        outer = [der.whole(data, item) for item in der.items(data, der.only(data, der.SEQUENCE))]
        tbs = _split(outer[0])
    except der.DerError as error:
        raise BadCrl("The CRL is not one of ours in form.") from error
    reasons = []
    if tbs.issuer != issuer.name_der:
        reasons.append("The issuer's name is another one.")
    algorithm = SIGNATURES[issuer.key.algorithm].identifier
    if not outer[1] == tbs.algorithm == algorithm or not verifies(issuer.key, crl.list.signature, outer[0]):
        reasons.append("The signature is not the issuer's.")
    if crl.number is None or crl.number <= (last_number or 0):
        reasons.append("The CRL number is not above the last one.")
    if crl.this_update > now:
        reasons.append("thisUpdate is in the future.")
    if crl.next_update is None or crl.next_update <= now:
        reasons.append("nextUpdate is over.")
    if tbs.extensions != _extensions(issuer, crl.number or 0, distribution_point):
        reasons.append("The extensions are not exactly those of a full CRL of this issuer and address.")
    if reasons:
        raise BadCrl(*reasons)
