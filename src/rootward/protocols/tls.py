"""TLS of the listeners: contexts from a chain and a private key held in memory, and changing them while connections are
open.

A change of certificate or of client roots is a new `SSLContext` for every connection accepted from then on; open
connections keep theirs. A context is never changed in place: `load_cert_chain` leaves the old chain of another key
type, and roots cannot be taken out of a live context. A new context also has an empty session cache, so that no
resumption brings an old peer certificate back. TLS 1.2 (RFC 5246) and 1.3 (RFC 8446).
"""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

ServerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: an expired client certificate reaches the door, which says so in its own words
NO_CHECK_TIME: Final = 0x200000
CIPHERS_12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsIdentity:
    """What one TLS listener shows (its chain and key) and whom it lets in. `context` is for the next connection."""

    def __init__(
        self, chain_pem: str, key: ServerKey, *, client_roots: Sequence[x509.Certificate] | None = None
    ) -> None:
        """`chain_pem` begins with the server's certificate. `client_roots` None: never asks for a client certificate;
        else one is optional, and must chain to one of them. ssl.SSLError when chain and key do not belong together.
        """
        self._chain_pem = chain_pem
        self._key = key
        self._client_roots = client_roots
        self.context = server_context(chain_pem, key, client_roots=client_roots)

    def replace(self, chain_pem: str, key: ServerKey) -> None:
        """New connections get this certificate. ssl.SSLError, and no change, when chain and key do not fit."""
        self.context = server_context(chain_pem, key, client_roots=self._client_roots)
        self._chain_pem, self._key = chain_pem, key

    def replace_roots(self, client_roots: Sequence[x509.Certificate]) -> None:
        """New connections are let in by these. ValueError on a listener that asks for no client certificate."""
        if self._client_roots is None:
            raise ValueError("this listener asks for no client certificate")
        self.context = server_context(self._chain_pem, self._key, client_roots=client_roots)
        self._client_roots = client_roots

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own certificate, as new connections see it."""
        return x509.load_pem_x509_certificate(self._chain_pem.encode())


def server_context(
    chain_pem: str, key: ServerKey, *, client_roots: Sequence[x509.Certificate] | None = None
) -> ssl.SSLContext:
    """A server's context. The key goes to OpenSSL through a file in memory, encrypted: its plain form never has a name
    or a page that could be swapped out as a file's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= (
        ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.num_tickets = 0
    context.set_ciphers(CIPHERS_12)
    context.set_alpn_protocols(["http/1.1"])
    password = secrets.token_bytes(32).hex()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
    # OpenSSL's loader reads files, never bytes
    handle = os.memfd_create("tls", os.MFD_CLOEXEC)
    with os.fdopen(handle, "wb") as file:
        file.write(pem + chain_pem.encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=password)
    if client_roots is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= NO_CHECK_TIME
        context.load_verify_locations(cadata="".join(root.public_bytes(Encoding.PEM).decode() for root in client_roots))
    return context
