"""The certificate of a valid order, with its chain (RFC 8555 7.4.2). Where a CA above it has a cross-signed certificate
too, the other chains are linked as alternates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca.installation import Authority, Installation
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.problems import nothing_here
from rootward.protocols.pem import certificate_pem, chain_pem
from rootward.store import certificates, cross, orders
from rootward.store.certificates import Certificate
from rootward.store.orders import Order

MEDIA_TYPE = "application/pem-certificate-chain"


async def certificate(call: Call, where: dict[str, str]) -> Answer:
    """The chain of that number, the usual one first; each answer links all others."""
    call.require_get()
    order, found = await call.inst.db.look(lambda conn: _issued(conn, where["id"]))
    if order is None or order.account != call.account.id or order.settled_at is None or order.error is not None:
        raise nothing_here()
    authority = None if found is None else call.inst.by_issuer(found.issuer)
    if found is None or found.der is None or authority is None:
        raise nothing_here()
    chains = await chains_of(call.inst, authority)
    if call.settings.chaos:
        random.Random(order.id).shuffle(chains)  # noqa: S311  # a test mode: clients must not rely on an order
    number = where.get("n", "0")
    if not number.isascii() or not number.isdigit() or str(int(number[:4])) != number or int(number) >= len(chains):
        raise nothing_here()
    at = int(number)
    base = call.url(f"/acme/certificate/{order.id}")
    links = tuple(
        (b"link", f'<{base if n == 0 else f"{base}/{n}"}>;rel="alternate"'.encode())
        for n in range(len(chains))
        if n != at
    )
    return Answer(200, (certificate_pem(found.der) + chains[at]).encode(), links, MEDIA_TYPE)


def _issued(conn: Connection, id: str) -> tuple[Order | None, Certificate | None]:
    """The order of this id, whoever's it is, and its certificate."""
    order = orders.by_id(conn, id)
    if order is None or order.certificate is None:
        return order, None
    return order, certificates.by_id(conn, order.certificate)


async def chains_of(inst: Installation, authority: Authority) -> list[str]:
    """What can follow a certificate of this authority, as PEM without roots: its own chain, then one through each
    cross-signed certificate of an authority of that chain, as long as that one is valid.
    """
    own = authority.issuer.chain
    known = {one.issuer.der: one.name for one in inst.authorities.values()}
    names = [known.get(link.public_bytes(Encoding.DER)) for link in own]
    found = await inst.db.look(lambda conn: _crossed(conn, names))
    usual = chain_pem(own, root=False)
    now = inst.clock()
    return [usual, *(chain_pem(own[:depth], root=True) + chain for depth, chain in found if now <= _end(chain))]


@lru_cache(maxsize=64)
def _end(chain: str) -> datetime:
    """When the first certificate of a chain ends."""
    return x509.load_pem_x509_certificate(chain.encode()).not_valid_after_utc


def _crossed(conn: Connection, names: Sequence[str | None]) -> list[tuple[int, str]]:
    """(how many of the usual links go before it, the chain) of each cross-signed certificate of these authorities."""
    return [
        (depth, one.chain.decode())
        for depth, name in enumerate(names)
        if name is not None
        for one in cross.of(conn, name)
    ]
