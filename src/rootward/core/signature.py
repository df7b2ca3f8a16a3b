"""How each kind of key signs: the AlgorithmIdentifier, and what `cryptography` calls it.

One table for certificates, CRLs, OCSP answers and CSRs, because what stands in the TBS must be what the key then does
(RFC 5280 4.1.1.2). RSA signs with PKCS#1 v1.5: relying parties all read it (RFC 8017); RFC 5758 and 8410 and 9881
name the others.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from rootward.core.pubkey import KeyAlgorithm, PublicKey

PublicKeyType = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)


class Signature(NamedTuple):
    """`identifier` is the DER AlgorithmIdentifier; `hash` is None where the algorithm hashes by itself."""

    identifier: bytes
    hash: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None


def _identifier(tail: str) -> bytes:
    return bytes.fromhex(tail)


_RSA_SHA256 = Signature(_identifier("300d06092a864886f70d01010b0500"), hashes.SHA256())

SIGNATURES: dict[KeyAlgorithm, Signature] = {
    KeyAlgorithm.RSA_2048: _RSA_SHA256,
    KeyAlgorithm.RSA_3072: _RSA_SHA256,
    KeyAlgorithm.RSA_4096: _RSA_SHA256,
    KeyAlgorithm.P256: Signature(_identifier("300a06082a8648ce3d040302"), hashes.SHA256()),
    KeyAlgorithm.P384: Signature(_identifier("300a06082a8648ce3d040303"), hashes.SHA384()),
    KeyAlgorithm.P521: Signature(_identifier("300a06082a8648ce3d040304"), hashes.SHA512()),
    KeyAlgorithm.ED25519: Signature(_identifier("300506032b6570"), None),
    KeyAlgorithm.ML_DSA_44: Signature(_identifier("300b0609608648016503040311"), None),
    KeyAlgorithm.ML_DSA_65: Signature(_identifier("300b0609608648016503040312"), None),
    KeyAlgorithm.ML_DSA_87: Signature(_identifier("300b0609608648016503040313"), None),
}


def verifies(public_key: PublicKey, signature: bytes, tbs: bytes) -> bool:
    """Whether `signature` over `tbs` is `public_key`'s, by the algorithm that `SIGNATURES` gives that key."""
    key, digest = public_key.key, SIGNATURES[public_key.algorithm].hash
    try:
        if isinstance(key, rsa.RSAPublicKey) and digest is not None:
            key.verify(signature, tbs, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, tbs, ec.ECDSA(digest))
        elif not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            key.verify(signature, tbs)
        else:
            return False
    except InvalidSignature:
        return False
    return True
