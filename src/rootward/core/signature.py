"""How each kind of key signs: the AlgorithmIdentifier, and what `cryptography` calls it.

One table for certificates, CRLs, OCSP answers and CSRs, because what stands in the TBS must be what the key then does
(RFC 5280 4.1.1.2). RSA signs with PKCS#1 v1.5: relying parties all read it (RFC 8017); RFC 5758 and 8410 and 9881
name the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from rootward.core.pubkey import KeyAlgorithm, PublicKey

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class Signature(NamedTuple):
    """`identifier` is the DER AlgorithmIdentifier; `hash` is None where the algorithm hashes by itself.

    `arguments` follow the message in `cryptography`'s `sign` and `verify`; made once, because making them costs as much
    as some signatures.
    """

    identifier: bytes
    hash: Hash | None
    arguments: tuple[Any, ...]


def _rsa(identifier: str, digest: Hash) -> Signature:
    return Signature(bytes.fromhex(identifier), digest, (padding.PKCS1v15(), digest))


def _ec(identifier: str, digest: Hash) -> Signature:
    return Signature(bytes.fromhex(identifier), digest, (ec.ECDSA(digest),))


def _pure(identifier: str) -> Signature:
    return Signature(bytes.fromhex(identifier), None, ())


_RSA_SHA256 = _rsa("300d06092a864886f70d01010b0500", hashes.SHA256())

SIGNATURES: dict[KeyAlgorithm, Signature] = {
    KeyAlgorithm.RSA_2048: _RSA_SHA256,
    KeyAlgorithm.RSA_3072: _RSA_SHA256,
    KeyAlgorithm.RSA_4096: _RSA_SHA256,
    KeyAlgorithm.P256: _ec("300a06082a8648ce3d040302", hashes.SHA256()),
    KeyAlgorithm.P384: _ec("300a06082a8648ce3d040303", hashes.SHA384()),
    KeyAlgorithm.P521: _ec("300a06082a8648ce3d040304", hashes.SHA512()),
    KeyAlgorithm.ED25519: _pure("300506032b6570"),
    KeyAlgorithm.ML_DSA_44: _pure("300b0609608648016503040311"),
    KeyAlgorithm.ML_DSA_65: _pure("300b0609608648016503040312"),
    KeyAlgorithm.ML_DSA_87: _pure("300b0609608648016503040313"),
}


def verifies(public_key: PublicKey, signature: bytes, tbs: bytes | memoryview) -> bool:
    """Whether `signature` over `tbs` is `public_key`'s, by the algorithm that `SIGNATURES` gives that key."""
    key: Any = public_key.key
    try:
        key.verify(signature, tbs, *SIGNATURES[public_key.algorithm].arguments)
    except InvalidSignature:
        return False
    return True
