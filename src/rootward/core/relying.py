"""What a relying party learns about revocation: where to ask, what a CRL says, what an OCSP answer says.

RFC 5280 6.3 for full CRLs, RFC 6960 3.2 for OCSP, RFC 9608 for certificates that need neither. The caller fetches;
the bytes come in here with `now`. What proves nothing is `Inconclusive`, with every reason: it never counts as good.
Pure. Left out, so inconclusive: delta and indirect CRLs, CRLs for some reasons only, attribute certificates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ObjectIdentifier

from rootward.core import der
from rootward.core.constraints import name_key
from rootward.core.issuer import Issuer
from rootward.core.links import UNREADABLE
from rootward.core.ocsp_request import CertId, OcspError, cert_id_for, request_for
from rootward.core.ocsp_response import BadResponse, check_response, parse_response
from rootward.core.problems import Problem, shown
from rootward.core.revocation import Good, RevocationReason, Revoked, Status
from rootward.core.signed import signature_fault
from rootward.core.times import rfc3339

NO_REV_AVAIL = ObjectIdentifier("2.5.29.56")


class Inconclusive(Exception):
    """A CRL or an OCSP answer that says nothing about the certificate; `reasons` are sentences, all of them."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__(" ".join(reasons))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a certificate says its status is found. `crl` and `ocsp` are its `http://` addresses, in order; `unused`
    the others (RFC 5280 8 warns of https here: to fetch it one would have to verify a certificate).
    """

    crl: tuple[str, ...]
    ocsp: tuple[str, ...]
    unused: tuple[str, ...]
    no_rev_avail: bool


def sources_of(certificate: x509.Certificate) -> Sources:
    """The addresses in the certificate's CDP and AIA extensions; none where they cannot be read."""
    crl: list[str] = []
    ocsp: list[str] = []
    none = False
    try:
        extensions = list(certificate.extensions)
    except UNREADABLE:
        extensions = []
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.CRLDistributionPoints):
            crl += [
                url for point in value if point.reasons is None and point.crl_issuer is None for url in _urls(point)
            ]
        elif isinstance(value, x509.AuthorityInformationAccess):
            ocsp += [
                access.access_location.value
                for access in value
                if access.access_method == AuthorityInformationAccessOID.OCSP
                and isinstance(access.access_location, x509.UniformResourceIdentifier)
            ]
        none = none or extension.oid == NO_REV_AVAIL
    http = [tuple(url for url in urls if url.lower().startswith("http://")) for urls in (crl, ocsp)]
    unused = tuple(url for url in (*crl, *ocsp) if not url.lower().startswith("http://"))
    # noRevAvail is for end entities only, and in a CA's certificate it must not count (RFC 9608 4)
    return Sources(http[0], http[1], unused, no_rev_avail=none and not _is_ca(certificate))


def _urls(point: x509.DistributionPoint) -> list[str]:
    return [name.value for name in point.full_name or () if isinstance(name, x509.UniformResourceIdentifier)]


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def crl_status(data: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime) -> Status:
    """What this DER CRL says of `certificate`, which `issuer` signed: `Good` or `Revoked`. Inconclusive otherwise."""
    try:
        crl = x509.load_der_x509_crl(data)
        extensions = list(crl.extensions)
    except UNREADABLE:
        raise Inconclusive("The CRL cannot be read.") from None
    reasons = [*_crl_faults(crl, issuer, now)]
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint):
            reasons += _scope_faults(value, certificate)
        elif isinstance(value, x509.DeltaCRLIndicator):
            reasons.append("It is a delta CRL.")
        elif extension.critical and not isinstance(value, x509.CRLNumber | x509.AuthorityKeyIdentifier):
            reasons.append(f"It has the critical extension {extension.oid.dotted_string}, which is not known here.")
    if reasons:
        raise Inconclusive(*reasons)
    try:
        entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if entry is None:
            return Good()
        return Revoked(entry.revocation_date_utc, _reason(entry))
    except UNREADABLE:
        raise Inconclusive("Its entry for the certificate cannot be read.") from None


def _crl_faults(crl: x509.CertificateRevocationList, issuer: x509.Certificate, now: datetime) -> list[str]:
    reasons = []
    if name_key(crl.issuer) != name_key(issuer.subject):
        reasons.append(f"It is of another issuer, {shown(crl.issuer.rfc4514_string())}.")
    fault = signature_fault(crl, issuer)
    if fault is not None:
        reasons.append(f"It is not well signed: {fault}.")
    try:
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            reasons.append("Its issuer may not sign CRLs (key usage).")
    except x509.ExtensionNotFound:
        pass  # then the key is for anything (RFC 5280 4.2.1.3)
    if crl.last_update_utc > now:
        reasons.append(f"Its thisUpdate, {rfc3339(crl.last_update_utc)}, is in the future.")
    if crl.next_update_utc is None or crl.next_update_utc <= now:
        until = "none" if crl.next_update_utc is None else rfc3339(crl.next_update_utc)
        reasons.append(f"Its nextUpdate, {until}, is over.")
    return reasons


def _scope_faults(scope: x509.IssuingDistributionPoint, certificate: x509.Certificate) -> list[str]:
    """Why the CRL's scope does not take in this certificate (RFC 5280 6.3.3 b)."""
    ca = _is_ca(certificate)
    reasons = []
    if scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs:
        reasons.append("It is an indirect CRL, or one for some reasons or for attribute certificates only.")
    if scope.only_contains_user_certs and ca:
        reasons.append("It is for certificates of end entities only.")
    if scope.only_contains_ca_certs and not ca:
        reasons.append("It is for certificates of CAs only.")
    if scope.relative_name is not None:
        reasons.append("Its distribution point has a relative name, which is not evaluated here.")
    if scope.full_name is not None and not set(scope.full_name) & _points(certificate):
        reasons.append("Its distribution point is none of the certificate's.")
    return reasons


def _points(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return set()
    return {name for point in points for name in point.full_name or ()}


def _reason(entry: x509.RevokedCertificate) -> RevocationReason:
    """The reason in a CRL entry; a critical extension that is not known makes the CRL inconclusive (RFC 5280 5.3)."""
    reason = RevocationReason.UNSPECIFIED
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = RevocationReason(extension.value.reason.value)
        elif extension.critical:
            raise Inconclusive(f"An entry has the critical extension {extension.oid.dotted_string}.")
    return reason


@dataclass(frozen=True, slots=True)
class Question:
    """An OCSP question about one certificate: `request` is the DER to send."""

    request: bytes
    cert_id: CertId
    issuer: Issuer


def ocsp_question(certificate: x509.Certificate, issuer: x509.Certificate) -> Question:
    """What to ask a responder about `certificate`, which `issuer` signed; without a nonce, so that caches can answer.

    The CertID is by SHA-1, which every responder knows (RFC 5019 2.1.1); it protects nothing here.
    Inconclusive for an issuer's key of a type that is not known here.
    """
    asker = Issuer("", issuer, (issuer,), "")
    try:
        cert_id = cert_id_for(asker, der.integer(certificate.serial_number)[2:], "sha1")
    except Problem as problem:
        raise Inconclusive(f"The issuer's key is not one that can be asked about: {problem.detail}") from None
    return Question(request_for([cert_id]), cert_id, asker)


def ocsp_status(data: bytes, question: Question, *, now: datetime) -> Status:
    """What this DER OCSPResponse says to `question`: `Good`, `Revoked` or `Unknown`. Inconclusive otherwise."""
    try:
        return check_response(parse_response(data), cert_id=question.cert_id, issuer=question.issuer, now=now)
    except BadResponse as error:
        raise Inconclusive(*error.reasons) from None
    except OcspError as error:
        raise Inconclusive(f"The responder answers {error.status.value}.") from None
    except Problem as problem:
        raise Inconclusive(problem.detail) from None
