"""Certificates as a client shows them for tls-alpn-01 (RFC 8737), right ones and wrong ones: any extensions at all."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rootward.core import der

KEY = ec.generate_private_key(ec.SECP256R1())
_ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))
AUTHORIZATION = b"token.thumbprint"
DIGEST = hashlib.sha256(AUTHORIZATION).digest()


def extension(oid: str, value: bytes, *, critical: bool | None = None) -> bytes:
    """An Extension; `critical` None leaves the BOOLEAN out, False writes it (which DER forbids)."""
    flag = b"" if critical is None else der.boolean(critical)
    return der.sequence(der.oid(oid), flag, der.octet_string(value))


def alt_names(*names: bytes) -> bytes:
    """A subjectAltName of whole GeneralNames."""
    return extension("2.5.29.17", der.sequence(*names))


def dns(name: str) -> bytes:
    """A dNSName."""
    return der.implicit(2, name.encode())


def ip(address: str) -> bytes:
    """An iPAddress."""
    return der.implicit(7, ip_address(address).packed)


def identifier(digest: bytes = DIGEST, *, critical: bool | None = True) -> bytes:
    """An acmeIdentifier of an OCTET STRING with the digest."""
    return extension("1.3.6.1.5.5.7.1.31", der.octet_string(digest), critical=critical)


def certificate(*extensions: bytes) -> bytes:
    """A self-signed certificate of KEY in DER with exactly these extensions, good for a day."""
    name = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.utf8_string("challenge"))))
    now = datetime.now(UTC).replace(microsecond=0)
    tbs = der.sequence(
        der.explicit(0, der.integer(2)),
        der.integer(1),
        _ECDSA_SHA256,
        name,
        der.sequence(der.time(now - timedelta(hours=1)), der.time(now + timedelta(days=1))),
        name,
        KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        *([der.explicit(3, der.sequence(*extensions))] if extensions else []),
    )
    return der.sequence(tbs, _ECDSA_SHA256, der.bit_string(KEY.sign(tbs, ec.ECDSA(hashes.SHA256()))))


def server_context(folder: Path, *certificates: bytes, alpn: str | None = "acme-tls/1") -> ssl.SSLContext:
    """A server's context that shows these certificates, the first one with KEY."""
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, certificates))
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (folder / "chain.pem").write_text(chain + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem")
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context
