"""A certificate authority in memory, for tests of what relying parties make of what it signs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def key_usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


class Authority:
    """A CA with a key in memory."""

    def __init__(self, common: str, parent: Authority | None = None, **options: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(common)
        self.parent = parent
        above = parent or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(above.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(options.get("start", NOW - DAY))
            .not_valid_after(options.get("end", NOW + 365 * DAY))
            .add_extension(x509.BasicConstraints(True, options.get("path_length")), critical=True)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        for extension, critical in options.get("extensions", ()):
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign(above.key, options.get("hash", hashes.SHA256()))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(PEM).decode()

    def issue(self, public_key: Any, names: list[x509.GeneralName], **options: Any) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(options.get("subject", name("")))
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(options.get("serial", x509.random_serial_number()))
            .not_valid_before(options.get("start", NOW - DAY))
            .not_valid_after(options.get("end", NOW + 30 * DAY))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        usages = options.get("usages", [ExtendedKeyUsageOID.SERVER_AUTH])
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if options.get("crl"):
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(options["crl"])], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        if options.get("ocsp"):
            location = x509.UniformResourceIdentifier(options["ocsp"])
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        for extension, critical in options.get("extensions", ()):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, options.get("hash", hashes.SHA256()))

    def leaf(self, *names: str, **options: Any) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        return self.issue(key.public_key(), [x509.DNSName(text) for text in names], **options)

    def crl(self, *revoked: int, start: dt.datetime = NOW - DAY, end: dt.datetime = NOW + DAY) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(start).next_update(end)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY)
            reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
            builder = builder.add_revoked_certificate(entry.add_extension(reason, False).build())
        return builder.add_extension(x509.CRLNumber(1), False).sign(self.key, hashes.SHA256()).public_bytes(DER)
