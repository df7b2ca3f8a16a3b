"""How a plan becomes DER: extensions in their order, the parts that all certificates of a profile share built once.

Making extensions is what costs, so a `Template` keeps a builder for each combination of usages that occurs. Sources:
RFC 5280 4.2, RFC 6960 4.2.2.2.1 (nocheck), RFC 7633 (must-staple), RFC 9608 (noRevAvail), RFC 5480 3, 8410 5 and 9881
5 (usages by key).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ObjectIdentifier

from rootward.core import der
from rootward.core.capture import capture_tbs
from rootward.core.issuer import LAB_POLICY, Issuer
from rootward.core.names import Name, to_general_name
from rootward.core.profile import Profile
from rootward.core.pubkey import BRAINPOOL, KeyAlgorithm, PublicKey
from rootward.core.signature import RSA

NO_REV_AVAIL = ObjectIdentifier("2.5.29.56")
_EC = frozenset({KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.P521}) | BRAINPOOL


class _Kept(NamedTuple):
    extensions: tuple[x509.Extension[x509.ExtensionType], ...]
    encoded: tuple[bytes, ...]


class Template:
    """The constant parts of the certificates of one profile's version under one issuer."""

    def __init__(self, profile: Profile, issuer: Issuer, extended_key_usage: tuple[ObjectIdentifier, ...]) -> None:
        self._profile, self._issuer, self._extended_key_usage = profile, issuer, extended_key_usage
        self._kept: dict[tuple[tuple[str, ...], bool], _Kept] = {}

    def tbs(
        self,
        *,
        subject: tuple[tuple[str, str], ...],
        names: tuple[Name, ...],
        key: PublicKey,
        key_usage: tuple[str, ...],
        must_staple: bool,
        serial: int,
        begin: datetime,
        end: datetime,
    ) -> tuple[bytes, bytes]:
        """(TBS, AlgorithmIdentifier), both DER. `core/lint.py` reads them back before anything is signed."""
        kept = self._keep(key_usage, must_staple)
        identifier = x509.SubjectKeyIdentifier(key.identifier)
        extensions = [*kept.extensions, x509.Extension(identifier.oid, critical=False, value=identifier)]
        if names:
            alternative = x509.SubjectAlternativeName([to_general_name(name) for name in names])
            # RFC 5280 4.2.1.6: critical where the subject is empty.
            extensions.append(x509.Extension(alternative.oid, critical=not subject, value=alternative))
        # All at once: the builder's own steps copy it nine times, and what they check is checked by the lint, byte for
        # byte. It wants times in UTC without their zone.
        builder = x509.CertificateBuilder(
            self._issuer.certificate.subject,
            subject_name(subject),
            key.key,
            serial,
            begin.astimezone(UTC).replace(tzinfo=None),
            end.astimezone(UTC).replace(tzinfo=None),
            extensions,
        )
        return capture_tbs(builder, self._issuer.key.algorithm, rsa_signature=self._profile.rsa_signature)

    def constant(self, key_usage: tuple[str, ...], must_staple: bool) -> tuple[bytes, ...]:
        """The DER, in order, of every Extension but the subject's own two (key identifier, alternative names)."""
        return self._keep(key_usage, must_staple).encoded

    def _keep(self, key_usage: tuple[str, ...], must_staple: bool) -> _Kept:
        found = self._kept.get((key_usage, must_staple))
        if found is None:
            extensions: list[x509.Extension[x509.ExtensionType]] = []
            encoded = []
            for value, critical in self._make(key_usage, must_staple):
                # As bytes, so that the builder does not encode the same values for every certificate.
                body = value.public_bytes()
                extensions.append(x509.Extension(value.oid, critical, x509.UnrecognizedExtension(value.oid, body)))
                encoded.append(encoded_extension(value.oid.dotted_string, critical, body))
            found = self._kept[key_usage, must_staple] = _Kept(tuple(extensions), tuple(encoded))
        return found

    def _make(self, key_usage: tuple[str, ...], must_staple: bool) -> list[tuple[x509.ExtensionType, bool]]:
        revocation, issuer = self._profile.revocation, self._issuer
        made: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (key_usage_extension(key_usage), True),
            (x509.AuthorityKeyIdentifier(issuer.subject_key_id, None, None), False),
        ]
        if self._extended_key_usage:
            made.append((x509.ExtendedKeyUsage(self._extended_key_usage), False))
        policies = self._profile.policies
        if issuer.is_lab and LAB_POLICY not in policies:
            policies = (*policies, LAB_POLICY)  # whatever the profile says
        if policies:
            made.append((policies_extension(policies), False))
        if revocation.crl:
            made.append((crl_extension(issuer.crl_url), False))
        access = access_extension(
            ocsp=issuer.ocsp_url if revocation.ocsp else None,
            issuer=issuer.issuer_url if revocation.issuer else None,
        )
        if access is not None:
            made.append((access, False))
        if revocation.no_rev_avail:
            made.append((x509.UnrecognizedExtension(NO_REV_AVAIL, b"\x05\x00"), False))
        if must_staple:
            made.append((x509.TLSFeature([x509.TLSFeatureType.status_request]), False))
        if ExtendedKeyUsageOID.OCSP_SIGNING in self._extended_key_usage:
            made.append((x509.OCSPNoCheck(), False))
        return made


def encoded_extension(oid: str, critical: bool, value: bytes) -> bytes:
    """An Extension, DER (RFC 5280 4.1): written by our own hand, so that the builder's is compared with another one."""
    flag = der.boolean(True) if critical else b""
    return der.sequence(der.oid(oid), flag, der.octet_string(value))


@lru_cache(maxsize=64)
def subject_name(parts: tuple[tuple[str, str], ...]) -> x509.Name:
    """(dotted OID, value) pairs as a Name, one attribute a part."""
    return x509.Name([x509.NameAttribute(ObjectIdentifier(oid), value) for oid, value in parts])


@lru_cache(maxsize=64)
def subject_der(parts: tuple[tuple[str, str], ...]) -> bytes:
    """`subject_name`, DER."""
    return subject_name(parts).public_bytes()


def fits(usage: str, algorithm: KeyAlgorithm) -> bool:
    """Whether a key of this kind can do it: only RSA enciphers, only elliptic curves agree."""
    if usage in ("key_encipherment", "data_encipherment"):
        return algorithm in RSA
    if usage == "key_agreement":
        return algorithm in _EC
    return True


def key_usage_extension(usages: tuple[str, ...]) -> x509.KeyUsage:
    """A KeyUsage with exactly these bits."""
    return x509.KeyUsage(
        digital_signature="digital_signature" in usages,
        content_commitment="content_commitment" in usages,
        key_encipherment="key_encipherment" in usages,
        data_encipherment="data_encipherment" in usages,
        key_agreement="key_agreement" in usages,
        key_cert_sign="key_cert_sign" in usages,
        crl_sign="crl_sign" in usages,
        encipher_only=False,
        decipher_only=False,
    )


def policies_extension(oids: tuple[str, ...]) -> x509.CertificatePolicies:
    """Policies without qualifiers."""
    return x509.CertificatePolicies([x509.PolicyInformation(ObjectIdentifier(oid), None) for oid in oids])


def crl_extension(url: str) -> x509.CRLDistributionPoints:
    """One distribution point with one address."""
    return x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)])


def access_extension(*, ocsp: str | None, issuer: str | None) -> x509.AuthorityInformationAccess | None:
    """Authority information access; None where neither address is wanted."""
    kinds = ((AuthorityInformationAccessOID.OCSP, ocsp), (AuthorityInformationAccessOID.CA_ISSUERS, issuer))
    made = [x509.AccessDescription(oid, x509.UniformResourceIdentifier(url)) for oid, url in kinds if url is not None]
    return x509.AuthorityInformationAccess(made) if made else None
