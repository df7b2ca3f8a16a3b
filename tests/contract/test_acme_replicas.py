"""Two replicas of one installation on one PostgreSQL, each with a door of its own: what one hands out the other takes,
once; what is changed at one, the other sees at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.support.acme import Client, Reply, Wire, flattened, jwk_of, new_key
from tests.support.world import World, opened


@pytest.fixture
def doors(postgres_lab: World) -> Iterator[list[Wire]]:
    """The same installation, open twice."""
    first = postgres_lab.inst
    with opened(postgres_lab.url, first.keys, postgres_lab.token) as other:
        yield [Wire.of(first), Wire.of(other.inst)]


async def roll(client: Client, wire: Wire, new: object) -> Reply:
    """keyChange at one of the doors."""
    url = client.path("key-change")
    payload = {"account": client.kid, "oldKey": jwk_of(client.key)}
    inner = flattened(new, {"alg": "ES256", "jwk": jwk_of(new), "url": url}, payload)
    return await Client(wire, key=client.key, kid=client.kid).post("key-change", inner)


@pytest.mark.invariant("I-47")
async def test_a_nonce_of_one_is_taken_once_by_either(doors: list[Wire]) -> None:
    ann = Client(doors[0])
    assert (await ann.register()).status == 201
    there = Client(doors[1], key=ann.key, kid=ann.kid)
    url = ann.kid or ""
    for giver, taker in ((ann, there), (there, ann)):
        nonce = (await giver.get("new-nonce")).headers["replay-nonce"]
        assert (await taker.post(url, header={"nonce": nonce})).status == 200
        for one in (giver, taker):
            assert (await one.post(url, header={"nonce": nonce})).problem == "badNonce"


@pytest.mark.invariant("I-47")
@pytest.mark.parametrize("payload", ["", {"contact": ["mailto:a@b.test"]}])
async def test_one_nonce_at_both_at_once(postgres_lab: World, doors: list[Wire], payload: object) -> None:
    ann = Client(doors[0])
    await ann.register()
    raw = json.dumps(flattened(ann.key, await ann.header(ann.kid or ""), payload)).encode()
    clients = [Client(door, key=ann.key, kid=ann.kid) for door in doors]
    replies = await asyncio.gather(*(clients[n % 2].post(ann.kid or "", raw=raw) for n in range(100)))
    assert [reply.status for reply in replies].count(200) == 1
    assert {reply.problem for reply in replies if reply.status != 200} == {"badNonce"}
    assert (await postgres_lab.counts())["acme.account-updated"] == (0 if payload == "" else 1)


@pytest.mark.invariant("I-51")
async def test_one_key_at_both_at_once_makes_one_account(postgres_lab: World, doors: list[Wire]) -> None:
    key = new_key()
    replies = await asyncio.gather(*(Client(doors[n % 2], key=key).register() for n in range(20)))
    assert sorted(reply.status for reply in replies) == [200] * 19 + [201]
    assert len({reply.headers["location"] for reply in replies}) == 1
    assert (await postgres_lab.counts())["acme.account-created"] == 1


@pytest.mark.invariant("I-51")
async def test_a_key_change_at_both_at_once(doors: list[Wire]) -> None:
    ann, keys = Client(doors[0]), [new_key() for _ in range(10)]
    await ann.register()
    replies = await asyncio.gather(*(roll(ann, doors[n % 2], key) for n, key in enumerate(keys)))
    won = [key for key, reply in zip(keys, replies, strict=True) if reply.status == 200]
    assert len(won) == 1
    for door in doors:
        works = [
            key
            for key in (ann.key, *keys)
            if (await Client(door, key=key, kid=ann.kid).post(ann.kid or "")).status == 200
        ]
        assert works == won


@pytest.mark.invariant("I-49")
async def test_what_ends_at_one_has_ended_at_the_other(doors: list[Wire]) -> None:
    ann = Client(doors[0])
    await ann.register()
    there = Client(doors[1], key=ann.key, kid=ann.kid)
    assert (await there.post(ann.kid or "")).status == 200
    await ann.post(ann.kid or "", {"status": "deactivated"})
    reply = await there.post(ann.kid or "")
    assert (reply.problem, reply.status) == ("unauthorized", 401)
