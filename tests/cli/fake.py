"""A small server with the REST contract's shapes, TLS and a real CA of its own, for tests of the command line alone."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.authority import PEM, Authority

TOKEN = "rw_test_token"


@contextmanager
def serve(
    answer: Callable[[BaseHTTPRequestHandler, bytes], tuple[int, bytes, dict[str, str]] | None],
    context: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """A threaded server on a free loopback port; an `answer` of None closes the connection without one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            pass

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            made = answer(self, body)
            if made is None:
                self.close_connection = True
                return
            status, content, headers = made
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815  # the base class looks for these names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Fake:
    """The state of the made-up Rootward; tests set `approval`, `refuse`, `lose` and `lists`, and read `seen`."""

    root: Authority
    issuing: Authority
    port: int = 0
    approval: bool = False
    refuse: dict[str, Any] | None = None
    lose: int = 0  # so many answers to POST /certificates are lost after the certificate was made
    wrong_key: bool = False
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"proposals": []})
    bodies: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)  # of those bodies, where it is not 200
    problems: dict[str, tuple[int, str]] = field(default_factory=dict)  # by path, or by path and method
    seen: list[tuple[str, str, Any]] = field(default_factory=list)
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]] | None:
        parts = urlsplit(handler.path)
        value = json.loads(body) if body else None
        self.seen.append((handler.command, handler.path, value))
        if handler.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._problem(401, "RW-UNAUTHENTICATED", "No valid credentials")
        if parts.path == "/api/v1/certificates" and handler.command == "POST":
            return self._issue(value, handler.headers["idempotency-key"])
        path = parts.path.removeprefix("/api/v1/")
        noun, _, rest = path.partition("/")
        for place in (path, f"{path} {handler.command}"):
            if place in self.problems:
                return self._problem(*self.problems[place], "That is refused")
        if path in self.bodies:
            return self._json(self.statuses.get(path, 200), self.bodies[path])
        if noun in self.lists and not rest and handler.command == "GET":
            return self._page(self.lists[noun], {key: found[0] for key, found in parse_qs(parts.query).items()})
        if noun == "certificates" and rest.partition("/")[0] in self.certificates:
            certificate = self.certificates[rest.partition("/")[0]]
            if rest.endswith("/revoke"):
                certificate |= {"status": "revoked", "reason": value.get("reason", "unspecified")}
            return self._json(200, certificate)
        if noun == "requests" and rest.partition("/")[0] in self.requests:
            return self._json(200, self._decided(rest.partition("/")[0], rest.partition("/")[2]))
        return self._problem(404, "RW-NOT-FOUND", "There is no such thing")

    def _issue(self, body: dict[str, Any], idempotency_key: str) -> tuple[int, bytes, dict[str, str]] | None:
        if self.refuse is not None:
            return self._json(self.refuse["status"], self.refuse, kind="application/problem+json")
        if idempotency_key not in self.keys:
            if self.approval:
                made = {"id": "req-1", "status": "waiting", "certificate_id": None, "reasons": []}
                self.requests["req-1"] = {**made, "body": body}
                self.keys[idempotency_key] = 202, made
            else:
                self.keys[idempotency_key] = 201, self.make(body)
        if self.lose:
            self.lose -= 1
            return None
        status, value = self.keys[idempotency_key]
        return self._json(status, value)

    def make(self, body: dict[str, Any]) -> dict[str, Any]:
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        public = ec.generate_private_key(ec.SECP256R1()).public_key() if self.wrong_key else csr.public_key()
        made = self.issuing.issue(public, names, subject=csr.subject)
        id = f"c{len(self.certificates) + 1}"
        self.certificates[id] = {
            "id": id,
            "serial": f"{made.serial_number:040x}",
            "status": "active",
            "profile": body["profile"],
            "authority": "issuing",
            "names": [f"{'ip' if isinstance(one, x509.IPAddress) else 'dns'}:{one.value}" for one in names],
            "not_before": "2026-01-01T00:00:00Z",
            "not_after": "2027-01-01T00:00:00Z",
            "sha256": made.fingerprint(hashes.SHA256()).hex(),
            "owner": body.get("owner"),
            "labels": body.get("labels", {}),
            "certificate": made.public_bytes(PEM).decode(),
            "chain": self.issuing.pem,
            "key_algorithm": "p256",
        }
        return self.certificates[id]

    def _decided(self, id: str, verb: str) -> dict[str, Any]:
        request = self.requests[id]
        if verb == "approve":
            certificate = self.make(request["body"])
            request |= {"status": "issued", "certificate_id": certificate["id"]}
        elif verb == "deny":
            request |= {"status": "denied", "reasons": [{"code": "RW-APPROVAL", "field": None, "detail": "Not today."}]}
        return {key: value for key, value in request.items() if key != "body"}

    def _page(self, items: list[dict[str, Any]], query: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        start, size = int(query.get("cursor", 0)), int(query.get("limit", 50))
        rest = start + size < len(items)
        return self._json(
            200, {"items": items[start : start + size], "next_cursor": str(start + size) if rest else None}
        )

    def _json(self, status: int, value: object, kind: str = "application/json") -> tuple[int, bytes, dict[str, str]]:
        return status, json.dumps(value).encode(), {"content-type": kind}

    def _problem(self, status: int, code: str, title: str) -> tuple[int, bytes, dict[str, str]]:
        reasons = [{"code": code, "field": None, "detail": f"{title}."}]
        body = {
            "type": "x",
            "title": title,
            "status": status,
            "detail": title,
            "code": code,
            "request_id": "r-1",
            "reasons": reasons,
        }
        return self._json(status, body, kind="application/problem+json")


LOCAL = x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")


def tls_context(authority: Authority, folder: Path, names: tuple[x509.GeneralName, ...] = LOCAL) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(key.public_key(), list(names))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(PEM, *form))
    (folder / "tls.pem").write_text(certificate.public_bytes(PEM).decode() + authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    return context
