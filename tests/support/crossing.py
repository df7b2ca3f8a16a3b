"""Certificates by other people's CAs for our authorities."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rootward.ca.installation import Installation
from tests.support.authority import DAY, NOW, Authority, key_usage


def crossed(
    inst: Installation, by: Authority, *, of: str = "issuing", path_length: int | None = None, usages: Any = None
) -> x509.Certificate:
    """A certificate by somebody else's CA for one of our authorities, with its name constraints."""
    own = inst.authority(of).issuer.certificate
    kept = (x509.SubjectKeyIdentifier, x509.NameConstraints)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(by.name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(True, path_length), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    for extension in own.extensions:
        if isinstance(extension.value, kept):
            builder = builder.add_extension(extension.value, extension.critical)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(by.key, hashes.SHA256())
