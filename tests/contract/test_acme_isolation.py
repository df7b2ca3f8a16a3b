"""Two accounts against every address of each other's (I-48), on each kind of store: whatever is sent, the answer is to
the octet that of an address where nothing is, and nothing happens.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from rootward.protocols.acme.routes import ROUTES
from rootward.store.schema_acme import accounts, authorizations, orders
from tests.support.acme import Client, Reply, b64, flattened, jwk_of, new_key
from tests.support.orders import NOTHING, Acme, acme, csr_for, der, finalize, new_order, refused
from tests.support.world import World

HERE = "https://localhost:8443/acme"


def told(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of an answer but its nonce and its request's id."""
    id = reply.headers["x-request-id"].encode()
    kept = [one for one in reply.header_list if one[0] not in ("replay-nonce", "x-request-id")]
    return reply.status, kept, reply.body.replace(id, b"")


async def stored(lab: World) -> list[Any]:
    """Every row of the door's, and everything that has happened."""

    def read(conn: Any) -> list[Any]:
        return [
            tuple(row)
            for table in (accounts, orders, authorizations)
            for row in conn.execute(select(table).order_by(table.c.n))
        ]

    return [await lab.inst.db.read(read), await lab.counts(), len(await lab.rows())]


async def owned(door: Acme, client: Client) -> dict[str, str]:
    """One address of each kind that is this account's, by the route that it is of."""
    valid = await door.obtain(client, "a.internal")
    ready = await door.ready(client, "b.internal")
    pending = await door.order(client, "c.internal")
    authorization = pending["authorizations"][0]
    challenge = (await client.post(authorization)).json["challenges"][0]["url"]
    return {
        "account/{id}": client.kid or "",
        "account/{id}/orders": f"{client.kid}/orders",
        "order/{id}": ready["url"],
        "order/{id}/finalize": ready["finalize"],
        "authz/{id}": authorization,
        "challenge/{id}/{type}": challenge,
        "certificate/{id}": valid["certificate"],
        "certificate/{id}/{n}": f"{valid['certificate']}/1",
    }


PAYLOADS: tuple[object, ...] = (
    *("", {}, {"status": "deactivated"}, {"contact": ["mailto:x@a.internal"]}, {"csr": "MIIB"}, {"csr": "!"}),
    *({"status": 5}, [], b"{", b"null"),
)


def elsewhere(url: str) -> str:
    """The same address for an id that nothing has."""
    parts = url.split("/")
    (at,) = [n for n, part in enumerate(parts) if len(part) == len(NOTHING)]
    return "/".join([*parts[:at], NOTHING, *parts[at + 1 :]])


@pytest.mark.invariant("I-48")
async def test_every_address_of_another_account(lab: World) -> None:
    async with acme(lab) as door:
        ann, bob = await door.client(), await door.client()
        theirs = {client.kid: await owned(door, client) for client in (ann, bob)}
        wanted = {route.path for route in ROUTES if "{id}" in route.path}
        before = await stored(lab)
        for client, other in ((ann, bob), (bob, ann)):
            assert theirs[other.kid].keys() == wanted  # a new route with an id is here or fails
            for path, url in theirs[other.kid].items():
                payloads = [*PAYLOADS, {"csr": b64(csr_for({"identifiers": [{"type": "dns", "value": "b.internal"}]}))}]
                for payload in payloads:
                    found, nothing = await client.post(url, payload), await client.post(elsewhere(url), payload)
                    assert told(found) == told(nothing), (path, payload)
                    assert found.problem == "malformed"
                    assert found.status in (400, 404), (path, payload)
                    assert {found.status} == {404} or payload != "" or path.endswith("finalize"), (path, payload)
        assert await stored(lab) == before
        for client in (ann, bob):
            for path, url in theirs[client.kid].items():
                if not path.endswith(("finalize", "{n}")):
                    assert (await client.post(url)).status == 200, path
        assert (await finalize(ann, (await ann.post(theirs[ann.kid]["order/{id}"])).json)).json["status"] == "valid"


@pytest.mark.invariant("I-48")
async def test_the_address_of_another_account_signed_by_a_key_alone(lab: World) -> None:
    """A jwk says nothing of whose an order is, not even where it is the account's own key."""
    async with acme(lab) as door:
        ann = await door.client()
        for url in (await owned(door, ann)).values():
            refused(await ann.post(url, jwk=True), "malformed", 400)


@pytest.mark.invariant("I-48")
async def test_the_kid_of_another_account(lab: World) -> None:
    """Whose key does not verify is nobody."""
    async with acme(lab) as door:
        ann, bob = await door.client(), await door.client()
        for url in (await owned(door, ann)).values():
            refused(await bob.post(url, header={"kid": ann.kid}), "malformed", 400)


@pytest.mark.invariant("I-48", "I-51")
async def test_a_key_change_in_the_name_of_another_account(lab: World) -> None:
    async with acme(lab) as door:
        ann, bob = await door.client(), await door.client()
        url, key = ann.path("key-change"), new_key()
        before = await stored(lab)
        answers = []
        for account in (bob.kid, f"{HERE}/account/{NOTHING}"):
            for old in (ann.key, bob.key):
                said = {"account": account, "oldKey": jwk_of(old)}
                inner = flattened(key, {"alg": "ES256", "jwk": jwk_of(key), "url": url}, said)
                answers.append(told(await ann.post(url, inner)))
        assert len({str(one) for one in answers}) == 1
        assert answers[0][0] == 400
        assert await stored(lab) == before


@pytest.mark.invariant("I-48")
async def test_the_certificate_of_another_account(lab: World) -> None:
    """What a certificate is, everybody may know; to revoke it is not theirs (198), and neither is what it replaces."""
    async with acme(lab) as door:
        ann, bob = await door.client(), await door.client()
        order = await door.obtain(ann, "a.internal")
        leaf = der(await door.certificate(ann, order))
        before = await stored(lab)
        refused(await bob.post("revoke-cert", {"certificate": b64(leaf)}), "unauthorized", 403)
        refused(await bob.post("revoke-cert", {"certificate": b64(leaf)}, jwk=True), "unauthorized", 403)
        assert await stored(lab) == before
        cursor = order["url"].rpartition("/")[2]
        answers = {str(told(await bob.post(f"{bob.kid}/orders?cursor={one}"))) for one in (cursor, NOTHING)}
        assert len(answers) == 1


@pytest.mark.invariant("I-48")
async def test_ids_are_not_to_be_guessed(lab: World) -> None:
    """128 random bits each, and a token of 256; none of them is another one's."""
    async with acme(lab) as door:
        client = await door.client()
        seen: set[str] = set()
        for n in range(20):
            reply = await new_order(client, f"n{n}.internal", f"m{n}.internal")
            for url in (reply.headers["location"], *reply.json["authorizations"]):
                seen.add(url.rpartition("/")[2])
        assert len(seen) == 60
        assert {len(id) for id in seen} == {22}
        for at in range(21):  # no position is the same in all of them
            assert len({id[at] for id in seen}) > 5
