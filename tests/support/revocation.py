"""An issuer, its OCSP responder and their keys, made in memory for tests of CRLs and OCSP answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootward.core.issuer import Issuer
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.core.signature import SIGNATURES

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SERIAL = bytes.fromhex("40a1b2c3d4e5f60718293a4b5c6d7e8f90")

_MAKERS = {
    KeyAlgorithm.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyAlgorithm.RSA_2048: lambda: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
}


@dataclass(frozen=True, eq=False)
class Signer:
    """A certificate and the private key that goes with it."""

    private: Any
    certificate: x509.Certificate

    @property
    def key(self) -> PublicKey:
        return public_key_of(self.private.public_key())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def sign(self, tbs: bytes) -> bytes:
        """As a backend of ours signs: with what `SIGNATURES` says of the key."""
        digest = SIGNATURES[self.key.algorithm].hash
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(tbs, padding.PKCS1v15(), digest)
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(tbs, ec.ECDSA(digest))
        return self.private.sign(tbs)


def issuer_of(signer: Signer) -> Issuer:
    """The signer's certificate as the core sees an authority."""
    return Issuer("issuing", signer.certificate, (signer.certificate,), "http://pki.test")


@cache
def make_ca(
    name: str = "Test CA", algorithm: KeyAlgorithm = KeyAlgorithm.P256, *, crl_sign: bool = True, days: int = 365
) -> Signer:
    """A self-signed CA; the same one for the same arguments."""
    private = _MAKERS[algorithm]()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(subject, subject, private.public_key(), days).serial_number(x509.random_serial_number())
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier(public_key_of(private.public_key()).identifier), critical=False
    )
    digest = SIGNATURES[public_key_of(private.public_key()).algorithm].hash
    return Signer(private, builder.sign(private, digest))


def make_leaf(
    ca: Signer, *, serial: bytes = SERIAL, days: int = 30, extensions: tuple[x509.ExtensionType, ...] = ()
) -> Signer:
    """A certificate that the CA issued, with a P-256 key of its own."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"leaf {serial.hex()}")])
    builder = _builder(ca.certificate.subject, subject, private.public_key(), days)
    builder = builder.serial_number(int.from_bytes(serial, "big"))
    key = x509.AuthorityKeyIdentifier(issuer_of(ca).subject_key_id, None, None)
    for extension in (key, x509.SubjectKeyIdentifier(b"\x5b" * 20), *extensions):
        builder = builder.add_extension(extension, critical=False)
    return Signer(private, builder.sign(ca.private, SIGNATURES[ca.key.algorithm].hash))


def make_responder(ca: Signer, *, days: int = 30, nocheck: bool = True, purpose: bool = True) -> Signer:
    """A delegated OCSP responder of the CA (RFC 6960 4.2.2.2)."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING if purpose else ExtendedKeyUsageOID.CLIENT_AUTH])
    extensions = (usage, x509.OCSPNoCheck()) if nocheck else (usage,)
    return make_leaf(ca, serial=b"\x51", days=days, extensions=extensions)


def _builder(issuer: x509.Name, subject: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=days))
    )
