"""DER to PEM (RFC 7468) without a parser in between: 64 characters a line, a line feed at the end."""

from __future__ import annotations

from binascii import b2a_base64
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization

_BEGIN = "-----BEGIN CERTIFICATE-----\n"
_END = "\n-----END CERTIFICATE-----\n"


def certificate_pem(der: bytes) -> str:
    """A DER certificate as PEM."""
    text = b2a_base64(der, newline=False).decode("ascii")
    return _BEGIN + "\n".join([text[at : at + 64] for at in range(0, len(text), 64)]) + _END


@lru_cache(maxsize=256)
def chain_pem(chain: tuple[x509.Certificate, ...], *, root: bool) -> str:
    """A chain that ends with its root as PEM, one certificate after the other; without the root unless `root`."""
    kept = chain if root else tuple(link for link in chain if link.subject != link.issuer)
    return "".join(certificate_pem(link.public_bytes(serialization.Encoding.DER)) for link in kept)
