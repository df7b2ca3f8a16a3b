"""What a verification is made of: `Link`, a certificate read once, and `Step`, one check with its outcome for people.

Nothing here raises for what is wrong with a certificate: a link that cannot be read says so in `fault`. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from rootward.core.constraints import DirectoryName, name_key
from rootward.core.problems import shown

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_E = TypeVar("_E", bound=x509.ExtensionType)


class State(enum.StrEnum):
    """How a check ended; `SKIPPED` says nothing against the certificate."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One check: what it is about (`path`, `signature`, `validity`, …), how it ended, and a sentence for people."""

    name: str
    state: State
    detail: str


class Link:
    """A certificate with what a verification needs of it. `fault` is a sentence where it cannot be read, else None."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.certificate = certificate
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.fault: str | None = None
        self.subject: DirectoryName | None = None
        self.issuer: DirectoryName | None = None
        self.key = b""
        self.extensions: tuple[x509.Extension[x509.ExtensionType], ...] = ()
        try:
            self.subject, self.issuer = name_key(certificate.subject), name_key(certificate.issuer)
            self.key = certificate.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self.extensions = tuple(certificate.extensions)
        except UNREADABLE as error:
            self.fault = f"{self.title} cannot be read: {shown(str(error), 120)}."

    @cached_property
    def title(self) -> str:
        return title_of(self.certificate)

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer

    def find(self, kind: type[_E]) -> _E | None:
        """The value of the extension of this kind, or None."""
        for extension in self.extensions:
            if isinstance(extension.value, kind):
                return extension.value
        return None


def title_of(certificate: x509.Certificate) -> str:
    """What people call a certificate, quoted and escaped: its common name, else its first name, else its subject or
    serial.
    """
    try:
        for item in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            return shown(str(item.value), 60)
        if certificate.subject.rdns:
            return shown(certificate.subject.rfc4514_string(), 60)
        for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value:
            return shown(str(name.value), 60)
    except (*UNREADABLE, x509.ExtensionNotFound):
        pass  # then it is called by its number
    return f"the certificate {certificate.serial_number:x}"
