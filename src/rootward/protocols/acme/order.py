"""One order: found for its account, its status, and the order object (RFC 8555 7.1.3, 7.1.6)."""

from __future__ import annotations

import random
from typing import Final

from sqlalchemy import Connection

from rootward.core.acme import AuthorizationStatus, OrderStatus, authorization_status, order_status
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.documents import encode, order_document
from rootward.protocols.acme.problems import nothing_here
from rootward.protocols.acme.replacing import replaces_of
from rootward.store import authorizations, orders
from rootward.store.orders import Order

RETRY_AFTER: Final = 3  # seconds, while a certificate is made or a person has to agree; certbot gives up after 90


async def own_order(call: Call, id: str) -> Order:
    """The account's order of this id; another's is as good as none (I-48)."""
    found = await call.inst.db.look(lambda conn: orders.by_id(conn, id))
    if found is None or found.account != call.account.id:
        raise nothing_here()
    return found


async def status_of(call: Call, order: Order) -> OrderStatus:
    """RFC 8555 7.1.6."""
    if order.finalized_at is not None or order.settled_at is not None:
        return order_status(order.facts, (), call.inst.clock())
    proofs = await proofs_of(call, order)
    return order_status(order.facts, proofs, call.inst.clock())


async def proofs_of(call: Call, order: Order) -> list[AuthorizationStatus]:
    """The states of its authorizations."""
    now = call.inst.clock()

    def read(conn: Connection) -> list[AuthorizationStatus]:
        found = [authorizations.by_id(conn, id) for id in order.authorization_ids]
        return ["invalid" if one is None else authorization_status(one.facts, now) for one in found]

    return await call.inst.db.look(read)


async def answer(call: Call, order: Order, *, status: int = 200) -> Answer:
    """The order object, with Location, and with Retry-After while it is worked on."""
    return await answer_as(call, order, await status_of(call, order), status=status)


async def answer_as(call: Call, order: Order, state: OrderStatus, *, status: int) -> Answer:
    """`answer` where the order's status is known already."""
    base = call.url("/acme")
    headers = [(b"location", f"{base}/order/{order.id}".encode())]
    if state == "processing":
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    document = order_document(order, state, base, replaces=await replaces_of(call.inst, order))
    if call.settings.chaos:
        random.shuffle(document["authorizations"])  # clients must not rely on their order
    return Answer(status, encode(document), tuple(headers))
