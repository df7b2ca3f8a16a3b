"""How each kind of key signs: the AlgorithmIdentifier, and what `cryptography` calls it.

One table for certificates, CRLs, OCSP answers and CSRs, because what stands in the TBS must be what the key then does
(RFC 5280 4.1.1.2). RSA signs with PKCS#1 v1.5, which relying parties all read, or with PSS where an authority's
specification or a profile says so (RFC 8017 8.1, RFC 4055 3); RFC 5758, 8410 and 9881 name the others. What a draft's
AlgorithmIdentifier names is how it is signed and verified: `by_identifier`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from rootward.core import der
from rootward.core.pubkey import KeyAlgorithm, PublicKey

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
RsaSignature = Literal["pkcs1", "pss"]
RSA = frozenset({KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096})


class Signature(NamedTuple):
    """`identifier` is the DER AlgorithmIdentifier; `hash` is None where the algorithm hashes by itself; `pss` the
    padding where it is RSA-PSS.

    `arguments` follow the message in `cryptography`'s `sign` and `verify`; made once, because making them costs as much
    as some signatures.
    """

    identifier: bytes
    hash: Hash | None
    arguments: tuple[Any, ...]
    pss: padding.PSS | None = None


def _rsa(identifier: str, digest: Hash) -> Signature:
    return Signature(bytes.fromhex(identifier), digest, (padding.PKCS1v15(), digest))


def _pss(digest_oid: str, digest: Hash) -> Signature:
    """RSASSA-PSS with one digest throughout and a salt as long as it, all written out (RFC 4055 3.1): nothing depends
    on the key's size, and what a default means is nobody's guess.
    """
    inner = der.sequence(der.oid(digest_oid), der.null())
    parameters = der.sequence(
        der.explicit(0, inner),
        der.explicit(1, der.sequence(der.oid("1.2.840.113549.1.1.8"), inner)),
        der.explicit(2, der.integer(digest.digest_size)),
    )
    how = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    return Signature(der.sequence(der.oid("1.2.840.113549.1.1.10"), parameters), digest, (how, digest), how)


def _ec(identifier: str, digest: Hash) -> Signature:
    return Signature(bytes.fromhex(identifier), digest, (ec.ECDSA(digest),))


def _pure(identifier: str) -> Signature:
    return Signature(bytes.fromhex(identifier), None, ())


_RSA_SHA256 = _rsa("300d06092a864886f70d01010b0500", hashes.SHA256())
_PSS_SHA256 = _pss("2.16.840.1.101.3.4.2.1", hashes.SHA256())
_EC_SHA256 = _ec("300a06082a8648ce3d040302", hashes.SHA256())
_EC_SHA384 = _ec("300a06082a8648ce3d040303", hashes.SHA384())
_EC_SHA512 = _ec("300a06082a8648ce3d040304", hashes.SHA512())

# How each key signs where nothing else is said.
SIGNATURES: dict[KeyAlgorithm, Signature] = {
    KeyAlgorithm.RSA_2048: _RSA_SHA256,
    KeyAlgorithm.RSA_3072: _RSA_SHA256,
    KeyAlgorithm.RSA_4096: _RSA_SHA256,
    KeyAlgorithm.P256: _EC_SHA256,
    KeyAlgorithm.P384: _EC_SHA384,
    KeyAlgorithm.P521: _EC_SHA512,
    KeyAlgorithm.BRAINPOOL_P256R1: _EC_SHA256,
    KeyAlgorithm.BRAINPOOL_P384R1: _EC_SHA384,
    KeyAlgorithm.BRAINPOOL_P512R1: _EC_SHA512,
    KeyAlgorithm.ED25519: _pure("300506032b6570"),
    KeyAlgorithm.ML_DSA_44: _pure("300b0609608648016503040311"),
    KeyAlgorithm.ML_DSA_65: _pure("300b0609608648016503040312"),
    KeyAlgorithm.ML_DSA_87: _pure("300b0609608648016503040313"),
}


def signature_of(algorithm: KeyAlgorithm, rsa_signature: RsaSignature = "pkcs1") -> Signature:
    """How a key of `algorithm` signs; `rsa_signature` says it for RSA keys and changes nothing for others."""
    return _PSS_SHA256 if rsa_signature == "pss" and algorithm in RSA else SIGNATURES[algorithm]


def by_identifier(algorithm: KeyAlgorithm, identifier: bytes | None) -> Signature | None:
    """The way in which a key of `algorithm` signs what names this AlgorithmIdentifier (DER; None: its usual one). None
    where such a key does not sign so.
    """
    usual = SIGNATURES[algorithm]
    if identifier is None or identifier == usual.identifier:
        return usual
    return _PSS_SHA256 if algorithm in RSA and identifier == _PSS_SHA256.identifier else None


def verifies(
    public_key: PublicKey, signature: bytes, tbs: bytes | memoryview, *, algorithm: bytes | None = None
) -> bool:
    """Whether `signature` over `tbs` is `public_key`'s, by the AlgorithmIdentifier `algorithm` (DER; None: the usual
    one of that key). False, too, for an identifier by which our keys never sign.
    """
    how = by_identifier(public_key.algorithm, algorithm)
    if how is None:
        return False
    key: Any = public_key.key
    try:
        key.verify(signature, tbs, *how.arguments)
    except InvalidSignature:
        return False
    return True
