"""Connections that keep every byte that they see."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests.faults.loop.record import Journal
from tests.support.proofs import Proofs

SECONDS = 20.0


def _close_half_made(error: OSError) -> None:
    """Where a server dies between accepting and the handshake, `wrap_socket` (Python 3.11) raises and leaves a socket
    open that only its own frame knows.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = frame.f_locals.get("self")
        if isinstance(made, ssl.SSLSocket):
            made.close()


@dataclass(frozen=True)
class Reply:
    """A whole answer; names of headers in lower case."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """A problem's."""
        return str(self.json.get("code", "")) if self.status >= 400 else ""


@dataclass
class Town:
    """What all clients share: where the servers are and what they are called, who clients are, where names are proved,
    and what is known to be issued.
    """

    record: Path
    root: Path
    issuer: x509.Certificate
    tokens: Mapping[str, str]
    doors: list[dict[str, int]]
    external_url: str
    proofs: Proofs
    stopping: threading.Event = field(default_factory=threading.Event)
    favoured: str = ""
    known: list[int] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def context(self) -> ssl.SSLContext:
        """Trusts this root alone."""
        return ssl.create_default_context(cafile=str(self.root))


class _Tap(io.RawIOBase):
    """What a socket gives, with a copy."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.seen = bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size: int = self._sock.recv_into(buffer)
        self.seen += memoryview(buffer)[:size]
        return size

    def makefile(self, *_: object) -> io.BufferedReader:
        """As a socket, for http.client."""
        return io.BufferedReader(self)


class Wire:
    """One client's connections, and its journal."""

    def __init__(self, town: Town, name: str) -> None:
        self._town, self._name = town, name
        self._journal = Journal(town.record / f"wire-{name}.jsonl")
        self._context = town.context()
        self._open: dict[str, Any] = {}
        self.replica = 0

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        who: str = "",
        key: str = "",
        door: str = "https",
        kind: str = "application/json",
    ) -> Reply | None:
        """One exchange; None where there was no whole answer."""
        head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        head += [f"Content-Type: {kind}"] if body else []
        head += [f"Authorization: Bearer {self._town.tokens.get(who, who)}"] if who else []
        head += [f"Idempotency-Key: {key}"] if key else []
        data = "\r\n".join([*head, "", ""]).encode() + body
        try:
            sock = self._open.get(door) or self._connect(door)
        except OSError:
            self._turn()
            return None
        tap, reply, began = _Tap(sock), None, time.monotonic()
        try:
            sock.sendall(data)
            response = http.client.HTTPResponse(tap, method=method)
            response.begin()
            headers = tuple((name.lower(), value) for name, value in response.getheaders())
            reply = Reply(response.status, response.read(), headers)
            if response.will_close:
                self.close()
        except (OSError, http.client.HTTPException):
            reply = None
            self._turn()
        self._journal.put(
            client=self._name,
            began=began,
            ended=time.monotonic(),
            method=method,
            path=path,
            who=who if who in self._town.tokens else hashlib.sha256(who.encode()).hexdigest(),
            key=key,
            door=door,
            replica=self.replica,
            body=body,
            seen=bytes(tap.seen),
            whole=reply is not None,
        )
        return reply

    def close(self) -> None:
        """End the connections."""
        for sock in self._open.values():
            sock.close()
        self._open = {}

    def _connect(self, door: str) -> Any:
        doors = self._town.doors[self.replica % len(self._town.doors)]
        sock: Any = socket.create_connection(("127.0.0.1", doors[door]), SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door == "https":
            try:
                sock = self._context.wrap_socket(sock, server_hostname="localhost")
            except OSError as error:
                sock.close()
                _close_half_made(error)
                raise
        self._open[door] = sock
        return sock

    def _turn(self) -> None:
        """To the other replica, where there is one."""
        self.close()
        self.replica = (self.replica + 1) % len(self._town.doors)


OCSP_REQUEST = "application/ocsp-request"


def ocsp_request(issuer: x509.Certificate, serial: int) -> bytes:
    """A request for one serial of this issuer (SHA-256)."""
    name = hashlib.sha256(issuer.subject.public_bytes()).digest()
    spki = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key = hashlib.sha256(spki).digest()
    built = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, hashes.SHA256()).build()
    return built.public_bytes(Encoding.DER)
