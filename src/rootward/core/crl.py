"""Certificate revocation lists (RFC 5280 section 5): drafted, linted, finished, checked and read.

A full CRL for everything that one issuer key signed. It has no issuingDistributionPoint, unless it is drafted for one
address: RFC 5280 5.2.5 wants one only for a CRL of a narrower scope, and it is critical, so a plain full CRL is read by
the most relying parties. A list may have a million entries (`core/crl_entries.py`): nothing here copies it but to make
the TBS and to make the whole, and nothing goes through it in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from rootward.core import der
from rootward.core.crl_entries import MAX_SERIAL, Entries, Entry, count_entries, lint_entries, read_serials
from rootward.core.issuer import Issuer
from rootward.core.problems import Reason
from rootward.core.revocation import RevocationReason, Revoked
from rootward.core.sealed import Sealed
from rootward.core.signature import verifies

_V2 = der.integer(1)
_AKI = der.oid("2.5.29.35")
_NUMBER = der.oid("2.5.29.20")
_IDP = der.oid("2.5.29.28")
_READ_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


class BadCrl(ValueError):
    """A CRL that must not be used; `reasons` are sentences, all of them."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__(" ".join(reasons))


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


def draft_crl(
    issuer: Issuer,
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Entries | Iterable[Entry | bytes],
    distribution_point: str | None = None,
) -> CrlDraft:
    """A full CRL of `issuer`, ready to be linted and signed.

    Many entries come as `Entries`, which hold them encoded; the draft has a copy. `distribution_point` is the URI of a
    critical issuingDistributionPoint. ValueError for a number below 1 or above 20 octets, and what `encode_entry`
    raises.
    """
    if not 0 < number < 1 << (8 * MAX_SERIAL - 1):
        raise ValueError("a CRL number is positive and has at most 20 octets")
    written = entries if isinstance(entries, Entries) else Entries(entries)
    algorithm = issuer.signature.identifier
    tbs = _sequence(
        _V2,
        algorithm,
        issuer.name_der,
        der.time(this_update),
        der.time(next_update),
        *((der.head(der.SEQUENCE, len(written.content)), written.content) if written.count else ()),  # 5.1.2.6
        _extensions(issuer, number, distribution_point),
    )
    return CrlDraft._make(
        issuer_key_id=issuer.key_id,
        number=number,
        this_update=this_update,
        next_update=next_update,
        entries=written.count,
        distribution_point=distribution_point,
        tbs=tbs,
        algorithm=algorithm,
    )


def _sequence(*parts: bytes | bytearray) -> bytes:
    """As der.sequence, with one copy of each part and none of the whole: one of them may be a million entries."""
    return b"".join((der.head(der.SEQUENCE, sum(map(len, parts))), *parts))


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


def read_draft(tbs: bytes, issuer: Issuer) -> CrlDraft:
    """A full CRL's draft from a TBS that somebody else made, for `lint_crl` to judge; BadCrl where it is not of the
    form. Nothing of it is believed: the lint writes everything but the entries anew and compares.
    """
    try:
        parts = _split(tbs, der.only(tbs, der.SEQUENCE))
        number = _read_number(parts.extensions)
        begin, end = _read_time(parts.this_update), _read_time(parts.next_update)
        entries = 0 if parts.revoked is None else count_entries(tbs, parts.revoked)
    except (
        ValueError,
        IndexError,
    ) as error:  # a DerError is a ValueError; IndexError: a part that must be there is not
        raise BadCrl(f"The CRL is not one of ours in form: {error}.") from error
    return CrlDraft._make(
        issuer_key_id=issuer.key_id,
        number=number,
        this_update=begin,
        next_update=end,
        entries=entries,
        distribution_point=None,
        tbs=tbs,
        algorithm=parts.algorithm,
    )


def drafted_serials(draft: CrlDraft) -> tuple[set[bytes], set[bytes]]:
    """(every serial, those on hold) of a draft that passed its lint."""
    revoked = _split(draft.tbs, der.only(draft.tbs, der.SEQUENCE)).revoked
    return (set(), set()) if revoked is None else read_serials(draft.tbs, revoked)


def _read_number(extensions: bytes) -> int:
    for extension in der.children(der.children(extensions)[0].whole):
        parts = der.children(extension.whole)
        if parts[0].whole == _NUMBER:
            return der.read_integer(der.children(der.sequence(parts[-1].content))[0].content)
    raise der.DerError("it has no number")


def _read_time(encoded: bytes) -> datetime:
    """A Time (RFC 5280 5.1.2.4) that is as der.time writes it; ValueError otherwise."""
    digits = encoded[2:].decode("ascii")
    if encoded[0] == der.UTC_TIME:
        digits = ("20" if digits < "5" else "19") + digits
    moment = datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    if der.time(moment) != encoded:
        raise ValueError("a time is not written as it must be")
    return moment


def finish_crl(draft: CrlDraft, signature: bytes) -> bytes:
    """The CRL, DER: the draft's TBS, its algorithm and the signature over exactly that TBS."""
    return _sequence(draft.tbs, draft.algorithm, der.bit_string(signature))


class _Tbs(NamedTuple):
    """The fields of a TBSCertList (5.1.2), each its whole element; `revoked` is where the list stands, if it does."""

    version: bytes
    algorithm: bytes
    issuer: bytes
    this_update: bytes
    next_update: bytes
    extensions: bytes
    revoked: der.Item | None


def _split(data: bytes, tbs: der.Item) -> _Tbs:
    """The fields of the TBS that stands at `tbs` in `data`; no more of it is copied than these."""
    parts = list(der.items(data, tbs))
    revoked = parts.pop(5) if len(parts) == 7 else None
    if len(parts) != 6:
        raise der.DerError("it does not have the fields of a version 2 CRL")
    version, algorithm, issuer, this_update, next_update, extensions = (der.whole(data, part) for part in parts)
    return _Tbs(version, algorithm, issuer, this_update, next_update, extensions, revoked)


def lint_crl(draft: CrlDraft, issuer: Issuer) -> list[Reason]:
    """Everything that is wrong with the bytes that would be signed (I-09, I-24), read anew; empty when nothing is."""
    try:
        found = list(_lint(draft, issuer, _split(draft.tbs, der.only(draft.tbs, der.SEQUENCE))))
    except der.DerError as error:
        found = [f"The TBS cannot be read: {error}."]
    return [Reason("RW-LINT", text, "crl") for text in found]


def _lint(draft: CrlDraft, issuer: Issuer, tbs: _Tbs) -> Iterator[str]:
    certificate = issuer.certificate
    if tbs.version != _V2:
        yield "The version is not v2."
    if not tbs.algorithm == draft.algorithm == issuer.signature.identifier:
        yield "The signature algorithm is not the one by which the issuer signs."
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
        yield from lint_entries(draft.tbs, tbs.revoked, count=draft.entries, this_update=draft.this_update)
    elif draft.entries:
        yield "The list of revoked certificates is missing."


def _signs_crls(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return False


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
        outer = list(der.items(data, der.only(data, der.SEQUENCE)))
        if len(outer) != 3 or outer[0].tag != der.SEQUENCE:
            raise der.DerError("it does not have the three parts of a CertificateList")
        tbs, named = _split(data, outer[0]), der.whole(data, outer[1])
    except der.DerError as error:
        raise BadCrl("The CRL is not one of ours in form.") from error
    reasons = []
    if tbs.issuer != issuer.name_der:
        reasons.append("The issuer's name is another one.")
    signed = memoryview(data)[outer[0].start : outer[0].end]
    # By any algorithm of such a key: an authority imported from elsewhere may have signed in its other way before.
    if named != tbs.algorithm or not verifies(issuer.key, crl.list.signature, signed, algorithm=named):
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
