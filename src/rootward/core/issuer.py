"""An authority as the pure core sees it: its certificate, its chain and the addresses that go into what it signs. No
key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from rootward.core import der
from rootward.core.pubkey import PublicKey, certificate_key
from rootward.core.signature import RsaSignature, Signature, signature_of

# Certificate policy of single-tier labs (X.667: an arc of a UUID): their root has it, and so has all that it signs.
LAB_POLICY = "2.25.263865961453661437771894427292656117079"
MAX_CHAIN = 8  # certificates of CAs, from an authority's own to its root's


def is_lab(certificate: x509.Certificate) -> bool:
    """Whether this is the root of a single-tier lab: its key is online, and it says so for good."""
    try:
        policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return False
    return any(policy.policy_identifier.dotted_string == LAB_POLICY for policy in policies)


@dataclass(frozen=True)
class Issuer:
    """One certificate of an authority and what follows from it.

    `authority` is its name; `chain` begins with `certificate` itself and ends with the root's. `pki_url` (no slash at
    its end) is where its CRL, OCSP and issuer certificate are found; it is baked into what it signs. `online` is
    False for a root whose key no server ever holds: then there is no OCSP for what it signed. `rsa_signature` is how
    an RSA key of it signs CRLs and certificates of CAs; profiles say it for all others.
    """

    authority: str
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    pki_url: str
    online: bool = True
    rsa_signature: RsaSignature = "pkcs1"

    @cached_property
    def key(self) -> PublicKey:
        return certificate_key(self.certificate)

    @cached_property
    def signature(self) -> Signature:
        """How its CRLs and the certificates of CAs under it are signed."""
        return signature_of(self.key.algorithm, self.rsa_signature)

    @cached_property
    def key_id(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hex: what everything about this issuer is filed under (I-23)."""
        return self.key.id

    @cached_property
    def serial(self) -> bytes:
        """Of its certificate, the DER content octets."""
        return der.integer(self.certificate.serial_number)[2:]

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def name_der(self) -> bytes:
        """The subject Name's DER, as it stands as issuer in everything that it signs."""
        return self.certificate.subject.public_bytes()

    @cached_property
    def not_before(self) -> datetime:
        return self.certificate.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @cached_property
    def subject_key_id(self) -> bytes:
        return self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    @cached_property
    def key_bits(self) -> bytes:
        """The subjectPublicKey BIT STRING's content: what OCSP's issuerKeyHash is over (RFC 6960 4.1.1)."""
        return self.key.bits

    @property
    def crl_url(self) -> str:
        return f"{self.pki_url}/crl/{self.authority}.crl"

    @property
    def ocsp_url(self) -> str:
        return f"{self.pki_url}/ocsp/{self.authority}"

    @property
    def issuer_url(self) -> str:
        return f"{self.pki_url}/ca/{self.authority}.cer"

    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @cached_property
    def is_lab(self) -> bool:
        """Whether it is a single-tier lab's root, or under one: then all that it signs says so."""
        return any(map(is_lab, self.chain))

    @cached_property
    def constraints(self) -> tuple[x509.NameConstraints, ...]:
        """The name constraints of every CA in the chain, the root's own excepted where it has none (RFC 5280 6.1)."""
        found = []
        for certificate in self.chain:
            try:
                found.append(certificate.extensions.get_extension_for_class(x509.NameConstraints).value)
            except x509.ExtensionNotFound:
                continue
        return tuple(found)
