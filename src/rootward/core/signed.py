"""Whether a signature on a certificate, CRL or OCSP answer of anybody's is good, by whatever algorithm it names.

`signature.py` is about our own keys; this is the relying party's side: RSA (PKCS#1 v1.5 and PSS), ECDSA, Ed25519,
Ed448 and ML-DSA, from SHA-224 on. What is broken (MD5, SHA-1: RFC 9155, CA/B BR 7.1.3.2) or too small (RSA below 2048
bits, NIST SP 800-131A) is refused with its reason. Pure.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa

from rootward.core import der

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # a verification with a larger key can be made to take seconds
_DER = serialization.Encoding.DER
_WEAK = (hashes.MD5, hashes.SHA1)
_CURVES = (
    *(ec.SECP256R1, ec.SECP384R1, ec.SECP521R1),
    *(ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1),
)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)

Parameters = padding.PSS | padding.PKCS1v15 | ec.ECDSA | None
Signed = x509.Certificate | x509.CertificateRevocationList


def signature_fault(signed: Signed, issuer: x509.Certificate) -> str | None:
    """Why `signed` is not well signed with `issuer`'s key, as a clause such as "it uses SHA-1"; None if it is."""
    fault = algorithm_fault(signed)
    if fault is not None:
        return fault
    tbs = signed.tbs_certificate_bytes if isinstance(signed, x509.Certificate) else signed.tbs_certlist_bytes
    parameters, digest = signed.signature_algorithm_parameters, signed.signature_hash_algorithm
    return bytes_fault(tbs, signed.signature, issuer, parameters=parameters, digest=digest)


def is_issued_by(signed: Signed, issuer: x509.Certificate) -> bool:
    """Whether `signed` names `issuer` as its issuer and is well signed with that one's key."""
    return signed.issuer == issuer.subject and signature_fault(signed, issuer) is None


def algorithm_fault(signed: Signed) -> str | None:
    """As `signature_fault`, as far as it can be said without the issuer."""
    try:
        fault = _form_fault(signed) if isinstance(signed, x509.Certificate) else None
        if fault is not None:
            return fault
        _ = signed.signature_algorithm_parameters
        return _digest_fault(signed.signature_hash_algorithm)
    except _UNREADABLE:
        return "its algorithm is not one that is accepted"


def _digest_fault(digest: hashes.HashAlgorithm | None) -> str | None:
    if isinstance(digest, _WEAK):
        return f"it uses {digest.name.upper().replace('SHA1', 'SHA-1')}, which is broken"
    return None


def bytes_fault(
    tbs: bytes,
    signature: bytes,
    issuer: x509.Certificate,
    *,
    parameters: Parameters,
    digest: hashes.HashAlgorithm | None,
) -> str | None:
    """As `signature_fault`, for bytes whose algorithm has been read already."""
    fault = _digest_fault(digest)
    if fault is not None:
        return fault
    try:
        key = issuer.public_key()
    except _UNREADABLE:
        return "the issuer's key is not of a kind that is accepted"
    try:
        match key:
            case rsa.RSAPublicKey():
                if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                    return f"the issuer's RSA key has {key.key_size} bits"
                if digest is None or not isinstance(parameters, padding.PSS | padding.PKCS1v15):
                    return "its algorithm does not go with the issuer's RSA key"
                key.verify(signature, tbs, parameters, digest)
            case ec.EllipticCurvePublicKey():
                if not isinstance(key.curve, _CURVES):
                    return f"the issuer's curve {key.curve.name} is not accepted"
                if digest is None or not isinstance(parameters, ec.ECDSA):
                    return "its algorithm does not go with the issuer's elliptic-curve key"
                key.verify(signature, tbs, parameters)
            case (
                ed25519.Ed25519PublicKey()
                | ed448.Ed448PublicKey()
                | mldsa.MLDSA44PublicKey()
                | mldsa.MLDSA65PublicKey()
                | mldsa.MLDSA87PublicKey()
            ):
                key.verify(signature, tbs)
            case _:
                return "the issuer's key is not of a kind that is accepted"
    except InvalidSignature:
        return "the signature is wrong"
    except _UNREADABLE:
        return "the signature cannot be read"
    return None


def _form_fault(certificate: x509.Certificate) -> str | None:
    try:
        outer = der.children(certificate.public_bytes(_DER))
        inner = der.children(outer[0].whole)
    except der.DerError as error:
        raise ValueError("not DER") from error
    at = 2 if inner and inner[0].tag == 0xA0 else 1  # [0] version comes first where it is not v1
    if len(outer) != 3 or len(inner) <= at or inner[at].whole != outer[1].whole:
        return "the algorithm inside is not the one outside (RFC 5280 4.1.1.2)"
    if not outer[2].content.startswith(b"\0"):  # the same with another hash: CVE-2014-8275
        return "its signature is not of whole octets"
    return None
