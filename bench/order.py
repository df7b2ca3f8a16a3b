"""An ACME client that does as little as it can: keep-alive connections, raw bytes, ES256 by `cryptography`; for load.

It takes the nonce of each answer for its next request, and polls without regard to Retry-After: after 10 milliseconds,
20 more, 40 more, and then every 80; what is measured is the server, not its wish to be asked less often. An order that
is valid in the answer to finalize is asked for once more all the same, as most clients do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from bench.validating import ZONE

PAUSES = (0.01, 0.02, 0.04)
_LONGEST = 0.08
_POLLS = 400  # and then the server is stuck
_ES256 = ec.ECDSA(hashes.SHA256())


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An account's key (P-256), which says who it is and signs."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32)), "y": b64(point.y.to_bytes(32))}
        self.thumbprint = b64(hashlib.sha256(json.dumps(self.jwk, separators=(",", ":")).encode()).digest())

    def sign(self, header: str, payload: str) -> bytes:
        """A flattened JWS (RFC 7515 7.2.2) over two JSON texts."""
        protected, content = b64(header.encode()), b64(payload.encode())
        r, s = decode_dss_signature(self._key.sign(f"{protected}.{content}".encode(), _ES256))
        signature = b64(r.to_bytes(32) + s.to_bytes(32))
        return f'{{"protected":"{protected}","payload":"{content}","signature":"{signature}"}}'.encode()


class Answer:
    """A whole answer: its status, its head in lower case but for the values, its body."""

    __slots__ = ("_head", "body", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        self.status, self._head, self.body = int(head[9:12]), head, body

    def header(self, name: bytes) -> str:
        at = self._head.lower().find(b"\r\n" + name + b":")
        if at < 0:
            raise AssertionError(f"no {name.decode()} in {self._head!r} {self.body!r}")
        return self._head[at + len(name) + 3 : self._head.find(b"\r\n", at + 2)].strip().decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Wire(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP one
        self._waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._buffer, self._headless = b"", False

    async def ask(self, request: bytes, *, headless: bool = False) -> Answer:
        if self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._waiter, self._headless = asyncio.get_running_loop().create_future(), headless
        self._transport.write(request)
        return await self._waiter

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n") + 2
        if end < 2:
            return
        head, body = self._buffer[:end], self._buffer[end + 2 :]
        whole = b"" if self._headless else _body(head.lower(), body)
        if whole is not None:
            self._buffer = b""
            self._waiter.set_result(Answer(head, whole))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionResetError("the server closed the connection"))

    @property
    def is_closed(self) -> bool:
        return self._transport.is_closing()


def _body(head: bytes, body: bytes) -> bytes | None:
    """The body, or None while some of it is missing. Chunks as pebble sends them: no trailers."""
    if (at := head.find(b"\r\ncontent-length:")) >= 0:
        return body if len(body) >= int(head[at + 17 : head.find(b"\r", at + 2)]) else None
    if b"\r\ntransfer-encoding: chunked" not in head:
        return b""
    if not body.endswith(b"\r\n0\r\n\r\n"):
        return None
    pieces = []
    while size := int(body[: (end := body.find(b"\r\n"))], 16):
        pieces.append(body[end + 2 : end + 2 + size])
        body = body[end + 4 + size :]
    return b"".join(pieces)


class Gate:
    """Requests of one kind pass together, never those of two kinds: pebble needs it (bench/pebble.py)."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds, self._kind, self._inside = kinds, "", 0
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def passing(self, kind: str) -> AsyncIterator[None]:
        if kind not in self._kinds:
            yield
            return
        if self._inside and (kind != self._kind or self._waiting):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((kind, turn))
            await turn
        else:
            self._kind, self._inside = kind, self._inside + 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside and self._waiting:
                self._kind = self._waiting[0][0]
                ours = [turn for kind, turn in self._waiting if kind == self._kind]
                self._waiting = [one for one in self._waiting if one[0] != self._kind]
                self._inside = len(ours)
                for turn in ours:
                    turn.set_result(None)


class Client:
    """One account on one connection; `number` is its place among those whose challenges are answered.

    `posts` says how many POSTs each step took, over all orders. Any answer that was not expected is an AssertionError.
    """

    def __init__(
        self, directory: str, trust: ssl.SSLContext, key: Key, number: int, *, gate: Gate | None = None
    ) -> None:
        self._directory, self._trust, self.key, self.number, self._gate = directory, trust, key, number, gate
        self._host = urlsplit(directory).netloc
        self._nonce = ""
        self._kid = ""
        self.posts: dict[str, int] = {}

    async def start(self) -> None:
        """Connect, and register, or find the account that there is."""
        await self._connect()
        path = urlsplit(self._directory).path
        found = (await self._wire.ask(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())).json()
        self._new_order = found["newOrder"]
        path = urlsplit(found["newNonce"]).path
        asked = f"HEAD {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        self._nonce = (await self._wire.ask(asked, headless=True)).header(b"replay-nonce")
        payload = json.dumps({"termsOfServiceAgreed": True, "contact": [f"mailto:a{self.number}@{ZONE}"]})
        self._kid = (await self.post("new-account", found["newAccount"], payload, 200, 201)).header(b"location")

    async def _connect(self) -> None:
        parts = urlsplit(self._directory)
        _, self._wire = await asyncio.get_running_loop().create_connection(
            Wire, "127.0.0.1", parts.port, ssl=self._trust, server_hostname=parts.hostname
        )

    async def wake(self) -> None:
        """Connect again where the server has closed a connection that was idle."""
        if self._wire.is_closed:
            await self._connect()

    async def post(self, step: str, url: str, payload: str = "", *statuses: int) -> Answer:
        """One POST; without a payload POST-as-GET (RFC 8555 6.3)."""
        who = f'"kid":"{self._kid}"' if self._kid else f'"jwk":{json.dumps(self.key.jwk)}'
        body = self.key.sign(f'{{"alg":"ES256",{who},"nonce":"{self._nonce}","url":"{url}"}}', payload)
        head = f"POST {urlsplit(url).path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/jose+json\r\n"
        answer = await self._wire.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if answer.status not in (statuses or (200,)):
            raise AssertionError(f"{step} {url}: {answer.status} {answer.body!r}")
        self._nonce = answer.header(b"replay-nonce")
        self.posts[step] = self.posts.get(step, 0) + 1
        return answer

    async def _gated(self, step: str, url: str, payload: str = "", *statuses: int) -> Answer:
        if self._gate is None:
            return await self.post(step, url, payload, *statuses)
        async with self._gate.passing(step.removesuffix(" poll")):
            return await self.post(step, url, payload, *statuses)

    async def order(self, name: str, csr: str) -> bytes:
        """From newOrder to the chain in PEM. `csr` is DER in base64url."""
        payload = f'{{"identifiers":[{{"type":"dns","value":"{name}"}}]}}'
        made = await self._gated("new-order", self._new_order, payload, 201)
        order, where = made.json(), made.header(b"location")
        authorization = order["authorizations"][0]
        found = (await self._gated("authorization", authorization)).json()
        challenge = next(one for one in found["challenges"] if one["type"] == "http-01")
        await self.post("challenge", challenge["url"], "{}")
        await self._until_valid("authorization poll", authorization)
        asked = (await self.post("finalize", order["finalize"], f'{{"csr":"{csr}"}}')).json()
        done = await self._until_valid("order poll", where, at_once=asked["status"] == "valid")
        return (await self.post("certificate", done["certificate"])).body

    async def _until_valid(self, step: str, url: str, *, at_once: bool = False) -> Any:
        for attempt in range(_POLLS):
            if attempt or not at_once:
                await asyncio.sleep(PAUSES[attempt] if attempt < len(PAUSES) else _LONGEST)
            found = (await self._gated(step, url)).json()
            if found["status"] == "valid":
                return found
            if found["status"] not in ("pending", "processing", "ready"):
                raise AssertionError(f"{step}: {found}")
        raise AssertionError(f"{step}: still {found}")


class Supply:
    """Names and CSRs that nobody had before, made ahead of the load: the client's share is not what is measured."""

    def __init__(self) -> None:
        self._made: dict[int, list[tuple[str, str]]] = {}
        self._count = 0

    def make(self, accounts: int, each: int) -> None:
        """At least `each` for each of the accounts."""
        for account in range(accounts):
            have = self._made.setdefault(account, [])
            while len(have) < each:
                self._count += 1
                have.append(_asked(f"h{self._count}.a{account}.{ZONE}"))

    def of(self, account: int) -> Iterator[tuple[str, str]]:
        """Those of an account; each is given once."""
        have = self._made[account]
        while have:
            yield have.pop()


def _asked(name: str) -> tuple[str, str]:
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return name, b64(csr.public_bytes(Encoding.DER))


async def load(clients: list[Client], supply: Supply, seconds: float) -> tuple[list[float], float]:
    """How long each order took, and how long it was in all. Each client makes one order after the other."""
    times: list[float] = []
    for client in clients:
        await client.wake()
    end = time.perf_counter() + seconds

    async def one(client: Client) -> None:
        name, chain = "", b""
        for name, csr in supply.of(client.number):
            begin = time.perf_counter()
            chain = await client.order(name, csr)
            times.append(time.perf_counter() - begin)
            if time.perf_counter() > end:
                break
        found = x509.load_pem_x509_certificate(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if found.value.get_values_for_type(x509.DNSName) != [name]:
            raise AssertionError(f"not the certificate of {name}")

    begin = time.perf_counter()
    await asyncio.gather(*(one(client) for client in clients))
    return times, time.perf_counter() - begin
