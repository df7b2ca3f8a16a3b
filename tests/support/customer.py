"""An ACME client as people run them: what it knows is on its disk, and after any interruption it goes on from what it
finds there, with the same account, order and key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from rootward.core.problems import Problem
from tests.support.acme import Client, Door, Reply, b64, jwk_of, thumbprint

TRIES = 5  # of a nonce that is refused


@dataclass(frozen=True)
class Kept:
    """A client's disk: its account's key and the CSR (DER), the name that it is about, and the URLs of account and
    order once it was told them. `profile` is whose directory it uses.
    """

    name: str
    key: bytes
    csr: bytes
    profile: str = "server"
    kid: str | None = None
    order: str | None = None

    @property
    def private(self) -> Any:
        return load_der_private_key(self.key, None)

    @property
    def thumbprint(self) -> str:
        return thumbprint(jwk_of(self.private))

    @cached_property
    def key_id(self) -> str:
        """As the inventory calls the certificate's key."""
        digest = hashes.Hash(hashes.SHA256())
        spki = x509.load_der_x509_csr(self.csr).public_key()
        digest.update(spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return digest.finalize().hex()


def new_csr(*names: str) -> bytes:
    """A CSR with a key of its own, DER."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def new_disk(name: str, profile: str = "server") -> Kept:
    """The disk of a client that has not begun, with keys of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    stored = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Kept(name, stored, new_csr(name), profile)


async def no_turn() -> None:
    """Somebody else does the server's background work."""
    await asyncio.sleep(0.05)


@dataclass
class Customer:
    """A client at work. `say` gets its disk each time that it writes it; `turn` is awaited while it waits for the
    server. What is answered 5xx is a Problem RW-STORE: the client's next start goes on from its disk.
    """

    wire: Door
    disk: Kept
    say: Callable[[Kept], object] = lambda _kept: None
    turn: Callable[[], Awaitable[object]] = no_turn
    polls: int = 60
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.wire, key=self.disk.private, directory=self.disk.profile, kid=self.disk.kid)

    async def post(self, url: str, payload: object = "", *, jwk: bool = False) -> Reply:
        """An answer that is one."""
        for _ in range(TRIES):
            reply = await self.client.post(url, payload, jwk=jwk)
            if reply.status >= 500:
                raise Problem("RW-STORE", reply.json["detail"])
            if reply.status < 400 or reply.problem != "badNonce":
                return reply
        raise AssertionError(f"{TRIES} fresh nonces were refused")

    async def good(self, url: str, payload: object = "", *, jwk: bool = False) -> Reply:
        """One that says yes."""
        reply = await self.post(url, payload, jwk=jwk)
        assert reply.status < 400, reply.body
        return reply

    async def registered(self, **payload: Any) -> str:
        """Its account's URL."""
        if self.disk.kid is None:
            reply = await self.good("new-account", payload, jwk=True)
            self._write(kid=reply.headers["location"])
            self.client.kid = self.disk.kid
        assert self.disk.kid is not None
        return self.disk.kid

    async def ordered(self) -> str:
        """Its order's URL."""
        if self.disk.order is None:
            identifier = {"type": "dns", "value": self.disk.name}
            reply = await self.good("new-order", {"identifiers": [identifier]})
            self._write(order=reply.headers["location"])
        assert self.disk.order is not None
        return self.disk.order

    async def pursue(self, *until: str) -> Reply:
        """The order once it is valid, or in one of these states; from wherever it stands."""
        await self.registered()
        url = await self.ordered()
        for _ in range(self.polls):
            order = await self.good(url)
            state = order.json["status"]
            if state in {"valid", *until}:
                return order
            if state == "pending":
                await self._prove(order.json["authorizations"])
            elif state == "ready":
                await self.good(order.json["finalize"], {"csr": b64(self.disk.csr)})
            elif state == "processing":
                await self.turn()
            else:
                raise AssertionError(f"the order is {state}: {order.body!r}")
        raise AssertionError(f"the order is stuck: {order.body!r}")

    async def chain(self) -> list[x509.Certificate]:
        """The certificate and its chain, once the order is valid."""
        order = await self.pursue()
        reply = await self.good(order.json["certificate"])
        return x509.load_pem_x509_certificates(reply.body)

    async def _prove(self, urls: list[str]) -> None:
        """Choose http-01 for what is pending and has no challenge under way, then wait a little."""
        for url in urls:
            found = await self.good(url)
            (challenge,) = [one for one in found.json["challenges"] if one["type"] == "http-01"]
            if (found.json["status"], challenge["status"]) == ("pending", "pending"):
                await self.good(challenge["url"], {})
        await self.turn()

    def _write(self, **news: str) -> None:
        self.disk = replace(self.disk, **news)
        self.say(self.disk)
