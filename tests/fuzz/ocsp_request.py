"""An OCSP request in DER: what it asks for, or an `OcspError` with its status."""

from __future__ import annotations

from rootward.core.ocsp_request import OcspError, OcspStatus, parse_request

LARGEST = 20 * 1024
REFUSALS = (OcspStatus.MALFORMED, OcspStatus.UNAUTHORIZED)


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    try:
        request = parse_request(data)
    except OcspError as error:
        if error.status not in REFUSALS:
            raise AssertionError(error.status) from error
        return
    if not 1 <= len(request.cert_ids) <= 16:
        raise AssertionError("too many certificates")
    if any(cert_id.der not in data for cert_id in request.cert_ids):
        raise AssertionError("a CertID is answered that was not asked for")


def seeds() -> list[bytes]:
    """Good ones, and every bad one of the table."""
    from cryptography import x509

    from rootward.core.issuer import Issuer
    from rootward.core.ocsp_request import cert_id_for, request_for
    from tests.vectors.imports import REAL, real
    from tests.vectors.ocsp import BAD_OCSP

    certificate: x509.Certificate = real(REAL)[0]
    issuer = Issuer("any", certificate, (certificate,), "http://a.test")
    ids = [cert_id_for(issuer, b"\x42" * 16, "sha1"), cert_id_for(issuer, b"\x01", "sha256")]
    good = [request_for(ids[:1]), request_for(ids), request_for(ids, nonce=b"n" * 32)]
    return good + [bad.make() for bad in BAD_OCSP]
