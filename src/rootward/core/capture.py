"""The exact bytes that a builder would have signed, without any private key.

`cryptography`'s builders only hand a TBS to a private key's `sign`. A capture key is of that key's type, keeps what it
is given and answers with a constant, so what is linted, stored and shown is what is signed later: nothing is built
twice (RFC 5280 4.1 and 5.1, RFC 2986 4). `assemble` then puts the real signature in its place.
"""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from rootward.core.pubkey import CryptoKey, KeyAlgorithm
from rootward.core.signature import RsaSignature, signature_of

Builder = x509.CertificateBuilder | x509.CertificateSigningRequestBuilder | x509.CertificateRevocationListBuilder

_CONSTANT = bytes(8)


class _Capture:
    """What every capture key does: keep the TBS, and name the public key where a CSR asks for it."""

    def __init__(self, public: CryptoKey | None) -> None:
        self._public = public
        self.tbs: bytes | None = None

    def sign(self, data: Any, *_how: Any, **_more: Any) -> bytes:
        self.tbs = bytes(data)
        return _CONSTANT

    def public_key(self) -> Any:
        if self._public is None:
            raise TypeError("a CSR's draft needs the public key")
        return self._public

    def _refuse(self, *_args: Any, **_more: Any) -> NoReturn:
        raise TypeError("a capture key has no private part")

    @property
    def key_size(self) -> NoReturn:
        self._refuse()

    @property
    def curve(self) -> NoReturn:
        self._refuse()

    private_bytes = private_bytes_raw = private_numbers = decrypt = exchange = sign_mu = _refuse
    __copy__ = __deepcopy__ = _refuse


class _Rsa(_Capture, rsa.RSAPrivateKey):
    pass


class _Ec(_Capture, ec.EllipticCurvePrivateKey):
    pass


class _Ed25519(_Capture, ed25519.Ed25519PrivateKey):
    pass


class _MlDsa44(_Capture, mldsa.MLDSA44PrivateKey):
    pass


class _MlDsa65(_Capture, mldsa.MLDSA65PrivateKey):
    pass


class _MlDsa87(_Capture, mldsa.MLDSA87PrivateKey):
    pass


_CaptureKey = _Rsa | _Ec | _Ed25519 | _MlDsa44 | _MlDsa65 | _MlDsa87
_CAPTURES: dict[KeyAlgorithm, type[_CaptureKey]] = {
    KeyAlgorithm.RSA_2048: _Rsa,
    KeyAlgorithm.RSA_3072: _Rsa,
    KeyAlgorithm.RSA_4096: _Rsa,
    KeyAlgorithm.P256: _Ec,
    KeyAlgorithm.P384: _Ec,
    KeyAlgorithm.P521: _Ec,
    KeyAlgorithm.BRAINPOOL_P256R1: _Ec,
    KeyAlgorithm.BRAINPOOL_P384R1: _Ec,
    KeyAlgorithm.BRAINPOOL_P512R1: _Ec,
    KeyAlgorithm.ED25519: _Ed25519,
    KeyAlgorithm.ML_DSA_44: _MlDsa44,
    KeyAlgorithm.ML_DSA_65: _MlDsa65,
    KeyAlgorithm.ML_DSA_87: _MlDsa87,
}


def capture_tbs(
    builder: Builder,
    algorithm: KeyAlgorithm,
    *,
    public_key: CryptoKey | None = None,
    rsa_signature: RsaSignature = "pkcs1",
) -> tuple[bytes, bytes]:
    """The DER to be signed and the DER AlgorithmIdentifier that belongs beside it, for a signer's key of `algorithm`,
    which signs as `rsa_signature` says if it is RSA.

    `public_key` is needed for a CSR only, whose TBS holds it. What the builder itself refuses (a missing field) is its
    ValueError.
    """
    signature = signature_of(algorithm, rsa_signature)
    key = _CAPTURES[algorithm](public_key)
    if signature.pss is None:
        builder.sign(key, signature.hash)
    else:
        builder.sign(key, signature.hash, rsa_padding=signature.pss)
    if key.tbs is None:
        raise TypeError(f"{type(builder).__name__} signed nothing")
    return key.tbs, signature.identifier


def assemble(tbs: bytes, algorithm_identifier: bytes, signature: bytes) -> bytes:
    """The DER of a certificate, CSR or CRL: SEQUENCE { tbs, AlgorithmIdentifier, BIT STRING of the signature }."""
    bits = b"\x03" + _length(len(signature) + 1) + b"\x00" + signature
    return b"\x30" + _length(len(tbs) + len(algorithm_identifier) + len(bits)) + tbs + algorithm_identifier + bits


def _length(size: int) -> bytes:
    """DER's definite length (X.690 8.1.3)."""
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
