"""What the doubles of the cloud key services share: keys, a script of what goes wrong next, and a journal of every
signature that was really made. The journal is the ground truth that the books are held against.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rootward.core.pubkey import KeyAlgorithm
from rootward.keys.backend import generate_private

HASHES: dict[str, Any] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def spki(private: Any) -> bytes:
    """A key's SubjectPublicKeyInfo."""
    found: bytes = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def sign_digest(private: Any, digest: bytes, bits: str, *, pss: bool = False) -> bytes:
    """A signature over a hash that somebody else made."""
    hashed = Prehashed(HASHES[bits])
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(digest, ec.ECDSA(hashed))
    how: Any = padding.PSS(padding.MGF1(HASHES[bits]), HASHES[bits].digest_size) if pss else padding.PKCS1v15()
    signature: bytes = private.sign(digest, how, hashed)
    return signature


def tls_pair(name: str) -> tuple[bytes, bytes]:
    """A key and a certificate of its own for a name or address, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A key service for tests")])
    now = datetime.now(UTC)
    san: x509.GeneralName = x509.DNSName(name)
    with contextlib.suppress(ValueError):
        san = x509.IPAddress(ipaddress.ip_address(name))
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, made.public_bytes(Encoding.PEM)


@dataclass
class Script:
    """`faults` are taken by the calls that sign, the oldest first; without any they do as they should. `asked` names
    every call that came, `made` has what each signature that was made is over: a hash, mu, or the message itself.
    """

    faults: deque[str] = field(default_factory=deque)
    asked: list[str] = field(default_factory=list)
    made: list[bytes] = field(default_factory=list)
    away: bool = False  # every call is refused as by a service that is down
    released: threading.Event = field(default_factory=threading.Event)  # ends what hangs

    def fault(self) -> str:
        """What this signature's call is to suffer; empty: nothing."""
        return self.faults.popleft() if self.faults else ""

    def count(self, call: str) -> int:
        """How often it came."""
        return self.asked.count(call)

    def signed(self, tbs: bytes) -> bool:
        """Whether some key here signed these bytes, in whatever form they came."""
        digests = [hashlib.new(name, tbs).digest() for name in ("sha256", "sha384", "sha512")]
        return any(one in self.made for one in (tbs, *digests))


@dataclass
class Stored:
    """A key over there."""

    name: str
    private: Any
    algorithm: KeyAlgorithm
    facts: dict[str, Any] = field(default_factory=dict)


def new(name: str, algorithm: KeyAlgorithm, **facts: Any) -> Stored:
    """A new one."""
    return Stored(name, generate_private(algorithm), algorithm, facts)


class Broken(Exception):
    """The connection ends here, without a word."""


class Handler(BaseHTTPRequestHandler):
    """One request: `server.answer(handler, body)` gives status, JSON or bytes, and headers; it may raise Broken."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: else each reply waits for an acknowledgement

    def log_message(self, *_: Any) -> None:
        """Nothing to standard error."""

    def _serve(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, reply, headers = server.answer(self, body)
        except Broken:
            self.close_connection = True
            return
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        if "Content-Length" in headers:
            self.close_connection = True  # a reply that is cut off

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 -- the base's words


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that are kept open; their threads see the end and go."""
        for request in list(self.open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what is tested."""


@contextmanager
def serving(answer: Any, *, wrap: Any = None) -> Iterator[int]:
    """An HTTP server on 127.0.0.1 while the block runs; its port. `wrap` puts TLS around its socket."""
    server: Any = _Server(("127.0.0.1", 0), Handler)
    server.answer = answer
    if wrap is not None:
        server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()
