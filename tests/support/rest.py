"""The REST door over a lab installation, called by hand-made ASGI scopes, so that a test decides every octet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.routing import Router

from rootward.protocols.rest.app import routes
from tests.support.installation import Lab, lab

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; the answer must be a whole problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.headers["cache-control"] == "no-store"
        found = self.json
        assert list(found) == ["type", "title", "status", "detail", "code", "request_id", "reasons"]
        assert found["status"] == self.status
        assert found["request_id"] == self.headers["x-request-id"]
        assert found["reasons"]
        assert all(list(reason) == ["code", "field", "detail"] for reason in found["reasons"])
        return str(found["code"])


class Api:
    """Calls the door. `token` is the administrator's; another one or None may be given to each call."""

    def __init__(self, app: Any, runner: asyncio.Runner, made: Lab) -> None:
        self._app, self._runner, self.lab = app, runner, made
        self.inst, self.token = made.inst, made.token

    def run(self, work: Any) -> Any:
        """A coroutine, on the installation's loop."""
        return self._runner.run(work)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        address: str = ADDRESS,
    ) -> Reply:
        """`path` goes out as it stands, `body` as JSON, `raw` as it is."""
        given = dict(headers or {})
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            given.setdefault("content-type", "application/json")
        given = {name: value for name, value in given.items() if value}
        if token is not None:
            given.setdefault("authorization", f"Bearer {token or self.token}")
        return self.scope(method, path, [(k.encode(), v.encode()) for k, v in given.items()], raw or b"", address)

    def scope(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes = b"",
        address: str = ADDRESS,
        extensions: dict[str, Any] | None = None,
    ) -> Reply:
        """One request by its raw parts."""
        return self.run(asked(self._app, method, path, headers, body, address, extensions))  # type: ignore[no-any-return]  # of a runner

    def issue(self, *names: str, profile: str = "server", **more: object) -> Any:
        """The body of a 201."""
        reply = self.call("POST", "/api/v1/certificates", {"profile": profile, "csr": csr(*names), **more})
        assert reply.status == 201, reply.body
        return reply.json

    def pages(self, path: str, **more: Any) -> list[Any]:
        """Every item of a list, page by page. `path` has a query already."""
        found: list[Any] = []
        cursor = ""
        while True:
            reply = self.call("GET", path + cursor, **more)
            assert reply.status == 200, reply.body
            found += reply.json["items"]
            if reply.json["next_cursor"] is None:
                return found
            cursor = f"&cursor={reply.json['next_cursor']}"

    def index(self) -> None:
        """Let the search take in every certificate."""
        from rootward.store import certificates

        self.inst.db.write_sync(lambda conn: certificates.index_names(conn, 10_000))

    def person(self, name: str, *grants: dict[str, object]) -> tuple[str, str]:
        """A new person with these grants: their id and a token of theirs."""
        made = self.call("POST", "/api/v1/principals", {"name": name})
        assert made.status == 201, made.body
        id = made.json["id"]
        for grant in grants:
            given = self.call("POST", "/api/v1/grants", {"principal": id, **grant})
            assert given.status == 201, given.body
        token = self.call(
            "POST", "/api/v1/tokens", {"label": name, "lifetime": "1d", "principal": id, "scopes": list(grants)}
        )
        assert token.status == 201, token.body
        return id, token.json["token"]


async def asked(
    app: Any,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes = b"",
    address: str = ADDRESS,
    extensions: dict[str, Any] | None = None,
) -> Reply:
    """One request by its raw parts."""
    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": bare,
        "raw_path": bare.encode("latin-1"),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": headers,
        "client": (address, 40000),
        "server": ("localhost", 8443),
        "extensions": extensions or {},
    }
    sent: list[Any] = []
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    names = [name for name, _ in start["headers"]]
    assert len(set(names)) == len(names), names
    content = b"".join(bytes(message.get("body", b"")) for message in sent[1:])
    return Reply(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)


class Door:
    """The REST door of an installation that is open already: paths are below `/api/v1`."""

    def __init__(self, inst: Any, token: str) -> None:
        self._app, self._token = Router(routes(inst)), token

    async def __call__(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Reply:
        headers = [(b"authorization", f"Bearer {token or self._token}".encode())]
        raw = b"" if body is None else json.dumps(body).encode()
        if raw:
            headers.append((b"content-type", b"application/json"))
        return await asked(self._app, method, f"/api/v1{path}", headers, raw)


def csr(*names: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A PEM CSR for these host names, with a fresh P-256 key if there is none."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


@contextmanager
def rest(url: str) -> Iterator[Api]:
    """The door over a fresh installation at an empty database."""
    with asyncio.Runner() as runner:
        context = lab(url)
        made = runner.run(context.__aenter__())
        try:
            yield Api(Router(routes(made.inst), redirect_slashes=False), runner, made)
        finally:
            runner.run(context.__aexit__(None, None, None))
