"""From a ready order to its certificate (RFC 8555 7.4), on each kind of store."""

from __future__ import annotations

from tests.support.orders import acme, csr_for, finalize, refused
from tests.support.world import World


async def test_an_order_from_beginning_to_end(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal", "b.internal")
        assert order["status"] == "pending"
        refused(await finalize(client, order), "orderNotReady", 403)
        assert await door.prove(client, order) == ["valid", "valid"]
        assert (await client.post(order["url"])).json["status"] == "ready"
        csr = csr_for(order)
        done = await finalize(client, order, csr)
        assert (done.status, done.json["status"]) == (200, "valid")
        assert done.headers["location"] == order["url"]
        leaf = await door.certificate(client, done.json)
        assert leaf.public_bytes
        (row,) = [row for row in await lab.rows() if row.profile == "server"]
        assert row.names == ("dns:a.internal", "dns:b.internal")
