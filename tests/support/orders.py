"""Orders from beginning to end through the ACME door of one installation, proved on loopback: a DNS server that has
127.0.0.1 for every name, and a web server that answers http-01 challenges.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dns.name
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import bindings
from rootward.egress import Egress, make_rules
from rootward.protocols.acme.app import Settings
from rootward.protocols.acme.challenges import Ways
from rootward.protocols.acme.validator import Validator
from tests.support.acme import Client, Reply, Wire, b64, bound, jwk_of, thumbprint, unb64
from tests.support.names import Names, Query
from tests.support.world import World, new_key
from tests.vectors.csr_parts import good_csr

Json = dict[str, Any]
NOTHING = "A" * 22  # an id that nothing has


@dataclass
class Web:
    """`pages` has the body of each path. `asked` is every path, in order; nothing is answered before `open` is set."""

    pages: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            self.reached.set()
            await self.open.wait()
            body = self.pages.get(path)
            status = b"404 Not Found" if body is None else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n%b" % (status, body or b""))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller thought better of it
        finally:
            writer.close()


class Lan(Names):
    """A name that was never set is this host, unless it begins with `_`."""

    def _fill(self, response: Query, name: dns.name.Name, kind: str) -> None:
        if not any(owner == name for owner, _ in self._records) and not name.labels[0].startswith(b"_"):
            self.set(name.to_text(), "A", ["127.0.0.1"])
        super()._fill(response, name, kind)


@dataclass
class Acme:
    """The door, and everything that its clients and its validations meet."""

    lab: World
    wire: Wire
    web: Web
    names: Lan
    clients: list[Client] = field(default_factory=list)

    def later(self, span: timedelta) -> None:
        """Move the clock; a nonce from before may be too old then."""
        self.lab.clock.move(span)
        for client in self.clients:
            client.nonces.clear()

    async def client(self, directory: str = "", **register: Any) -> Client:
        """One with an account."""
        made = Client(self.wire, directory=directory)
        reply = await made.register(**register)
        assert reply.status == 201, reply
        self.clients.append(made)
        return made

    async def bound(self, directory: str = "", *, owner: str = "team-web", **binding: Any) -> Client:
        """One whose account came with a binding."""
        made, secret = await bindings.create(
            self.lab.inst,
            **{
                "profile": None,
                "owner": owner,
                "names": (),
                "preauthorized": (),
                "uses": 1,
                "lifetime": timedelta(days=1),
                "caller": self.lab.admin,
                **binding,
            },
        )
        client = Client(self.wire, directory=directory)
        url = client.path("new-account")
        reply = await client.register(externalAccountBinding=bound(made.id, secret, jwk_of(client.key), url))
        assert reply.status == 201, reply
        self.clients.append(client)
        return client

    async def order(self, client: Client, *names: str, **fields: Any) -> Json:
        """A new order, with its URL as `url`."""
        reply = await new_order(client, *names, **fields)
        assert reply.status == 201, reply
        return reply.json | {"url": reply.headers["location"]}

    async def answer(self, client: Client, authorization: str, kind: str = "http-01") -> Reply:
        """Put up what is to be proved, and say so."""
        (challenge,) = [one for one in (await client.post(authorization)).json["challenges"] if one["type"] == kind]
        proof = f"{challenge['token']}.{thumbprint(jwk_of(client.key))}"
        self.web.pages[f"/.well-known/acme-challenge/{challenge['token']}"] = proof.encode()
        return await client.post(challenge["url"], {})

    async def prove(self, client: Client, order: Json) -> list[str]:
        """Prove what is pending; the states of the order's authorizations then."""
        for url in order["authorizations"]:
            if (await client.post(url)).json["status"] == "pending":
                assert (await self.answer(client, url)).status == 200
        await self.tried()
        return [(await client.post(url)).json["status"] for url in order["authorizations"]]

    async def tried(self) -> None:
        """Every try that has begun has come to its end."""
        await asyncio.gather(*self.wire.validator._tasks)

    async def ready(self, client: Client, *names: str, **fields: Any) -> Json:
        """An order that can be finalized."""
        order = await self.order(client, *names, **fields)
        assert set(await self.prove(client, order)) == {"valid"}
        return order

    async def obtain(self, client: Client, *names: str, key: Any = None, **fields: Any) -> Json:
        """A valid order."""
        order = await self.ready(client, *names, **fields)
        reply = await finalize(client, order, key=key)
        assert (reply.status, reply.json["status"]) == (200, "valid"), reply
        return reply.json | {"url": order["url"]}

    async def certificate(self, client: Client, order: Json) -> x509.Certificate:
        """The certificate of a valid order, and nothing but certificates with it."""
        reply = await client.post(order["certificate"])
        assert (reply.status, reply.headers["content-type"]) == (200, "application/pem-certificate-chain")
        leaf, issuer = x509.load_pem_x509_certificates(reply.body)
        leaf.verify_directly_issued_by(issuer)
        return leaf


@asynccontextmanager
async def acme(lab: World, settings: Settings | None = None) -> AsyncIterator[Acme]:
    """The door of a world, with ways to everything on loopback."""
    web = Web()
    web.open.set()
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    async with Lan() as names:
        egress = Egress(make_rules(("127.0.0.0/8",)), (names.address,))
        validator = Validator(lab.inst, Ways(egress, http01_port=web.port))
        try:
            yield Acme(lab, Wire.of(lab.inst, settings, validator=validator), web, names)
        finally:
            web.open.set()
            await validator.close()
            server.close()


def identifiers(names: Sequence[str]) -> list[dict[str, str]]:
    """`a.internal`, or `ip:127.0.0.1`."""
    split = [name.partition(":") for name in names]
    return [{"type": kind, "value": value} if colon else {"type": "dns", "value": kind} for kind, colon, value in split]


async def new_order(client: Client, *names: str, **fields: Any) -> Reply:
    return await client.post("new-order", {"identifiers": identifiers(names), **fields})


def csr_for(order: Json, key: Any = None) -> bytes:
    """The CSR of an order, by a new key unless one is given."""
    names = [f"{one['type']}:{one['value']}" for one in order["identifiers"]]
    return good_csr(names=names, key=key or new_key())


async def finalize(client: Client, order: Json, csr: bytes | None = None, *, key: Any = None) -> Reply:
    return await client.post(order["finalize"], {"csr": b64(csr or csr_for(order, key))})


def refused(reply: Reply, type: str, status: int) -> None:
    """It is that problem, with a nonce for the next try."""
    assert (reply.problem, reply.status) == (type, status), reply
    assert len(unb64(reply.headers["replay-nonce"])) == 40
    assert reply.links["index"]


def ari_id(certificate: x509.Certificate) -> str:
    """RFC 9773 4.1."""
    named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    number = certificate.serial_number
    return f"{b64(named or b'')}.{b64(number.to_bytes(number.bit_length() // 8 + 1))}"


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
