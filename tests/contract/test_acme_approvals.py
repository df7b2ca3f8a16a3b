"""Orders for which a person must agree first, on each kind of store: `processing` until it is decided, one certificate
for one yes (I-42), and never for a key whose client gave up.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rootward.ca import profiles
from rootward.ca.approve import approve, deny
from rootward.core.profile import Acme as AcmeRules
from rootward.core.profile import Approval, Profile
from rootward.keys import NotSigned
from rootward.protocols.acme import issuing
from rootward.store import requests
from rootward.store.certificates import Certificate
from rootward.store.failpoint import armed
from rootward.store.requests import Filters, Parked
from tests.support.acme import Client, Reply, b64
from tests.support.faults import books, watch
from tests.support.orders import Acme, Json, acme, csr_for, der, finalize, refused
from tests.support.world import APPROVER, World
from tests.support.world import refused as code_of

UNAUTHORIZED = "urn:ietf:params:acme:error:unauthorized"


async def careful(lab: World, **changes: Any) -> Profile:
    """A profile that wants a yes."""
    return await lab.profile("careful", **{"approval": Approval("always", expires="3d"), **changes})


async def parked(lab: World) -> list[Parked]:
    """All requests, the oldest first."""
    now = lab.clock()
    return [*reversed(await lab.inst.db.read(lambda conn: requests.list(conn, Filters(), now=now)))]


async def made(lab: World) -> list[Certificate]:
    return [row for row in await lab.rows() if row.profile == "careful"]


async def waiting(door: Acme, client: Client, *names: str) -> Json:
    """An order that waits for a person."""
    order = await door.ready(client, *(names or ("a.internal",)))
    reply = await finalize(client, order)
    waits(reply)
    return order


def waits(reply: Reply) -> None:
    assert (reply.status, reply.json["status"]) == (200, "processing"), reply
    assert int(reply.headers["retry-after"]) > 0
    assert "certificate" not in reply.json
    assert "error" not in reply.json


def ended(reply: Reply, why: str) -> None:
    """The order is invalid, and says so for good."""
    assert (reply.status, reply.json["status"]) == (200, "invalid"), reply
    assert reply.json["error"]["type"] == UNAUTHORIZED
    assert why in reply.json["error"]["detail"]
    assert "retry-after" not in reply.headers


async def yes(lab: World, which: int = -1) -> Parked:
    return await approve(lab.inst, (await parked(lab))[which].id, None, lab.admin)


@pytest.mark.invariant("I-42")
async def test_an_order_waits_until_a_person_agrees(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await door.ready(client, "a.internal")
        csr = csr_for(order)
        waits(await finalize(client, order, csr))
        for _ in range(2):
            waits(await client.post(order["url"]))
        waits(await finalize(client, order, csr))
        (request,) = await parked(lab)
        assert (request.status(lab.clock()), request.binds) == ("waiting", "names")
        assert request.principal == (client.kid or "").rpartition("/")[2]
        await yes(lab)
        assert await made(lab) == []  # by the client's asking alone
        done = await client.post(order["url"])
        assert (done.status, done.json["status"]) == (200, "valid")
        (row,) = await made(lab)
        assert der(await door.certificate(client, done.json)) == row.der
        (request,) = await parked(lab)
        assert (request.status(lab.clock()), request.certificate) == ("issued", row.id)
        await books(lab.inst)


@pytest.mark.invariant("I-42")
async def test_a_client_that_did_not_wait_comes_with_a_new_order_and_key(lab: World) -> None:
    """certbot's way: one request for both, the yes goes to the order whose client is there, and to no other."""
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        abandoned, order = await waiting(door, client), await waiting(door, client)
        assert len(await parked(lab)) == 1
        await yes(lab)
        assert (await client.post(order["url"])).json["status"] == "valid"
        ended(await client.post(abandoned["url"]), "another order")
        assert len(await made(lab)) == 1
        assert len(await parked(lab)) == 1
        refused(await finalize(client, abandoned), "orderNotReady", 403)
        later = await waiting(door, client)  # the yes is used up
        assert len(await parked(lab)) == 2
        await yes(lab)
        assert (await client.post(later["url"])).json["status"] == "valid"
        assert len(await made(lab)) == 2


@pytest.mark.invariant("I-42")
async def test_an_order_that_is_finalized_after_the_yes(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        abandoned = await waiting(door, client)
        await yes(lab)
        fresh = await door.ready(client, "a.internal")
        assert (await finalize(client, fresh)).json["status"] == "valid"
        ended(await client.post(abandoned["url"]), "another order")
        assert len(await made(lab)) == 1


@pytest.mark.invariant("I-42", "I-50")
async def test_many_looks_at_once_after_the_yes(lab: World) -> None:
    """At two orders under one yes: one certificate. The other order is over; or, where its look came between the yes
    and its use, it waits for a yes of its own.
    """
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        orders = [await waiting(door, client), await waiting(door, client)]
        await yes(lab)
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in range(30)]
        client.nonces.clear()
        replies = await asyncio.gather(
            *(client.post(orders[n % 2]["url"], header={"nonce": nonce}) for n, nonce in enumerate(nonces))
        )
        assert {reply.status for reply in replies} == {200}
        states = sorted([(await client.post(order["url"])).json["status"] for order in orders])
        asked = [one.status(lab.clock()) for one in await parked(lab)]
        assert (states, asked) in (
            (["invalid", "valid"], ["issued"]),
            (["processing", "valid"], ["issued", "waiting"]),
        )
        assert len([row for row in await made(lab) if row.issued_at is not None]) == 1
        await books(lab.inst)


@pytest.mark.invariant("I-42")
async def test_two_orders_that_are_finalized_at_once_under_one_yes(lab: World) -> None:
    """One gets it; the other one waits for a yes of its own."""
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        await waiting(door, client)
        await yes(lab)
        orders = [await door.ready(client, "a.internal") for _ in range(2)]
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in orders]
        client.nonces.clear()
        replies = await asyncio.gather(
            *(
                client.post(order["finalize"], {"csr": b64(csr_for(order))}, header={"nonce": nonce})
                for order, nonce in zip(orders, nonces, strict=True)
            )
        )
        assert sorted(reply.json["status"] for reply in replies) == ["processing", "valid"]
        assert len(await made(lab)) == 1
        assert [one.status(lab.clock()) for one in await parked(lab)] == ["issued", "waiting"]
        await yes(lab)
        for order in orders:
            assert (await client.post(order["url"])).json["status"] == "valid"
        assert len(await made(lab)) == 2


async def test_a_no(lab: World) -> None:
    """The order is invalid with the reason, and so is every other one that waited; the same may be asked anew."""
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        first, second = await waiting(door, client), await waiting(door, client)
        (request,) = await parked(lab)
        await deny(lab.inst, request.id, "We have one already.", lab.admin)
        for order in (first, second):
            ended(await client.post(order["url"]), "We have one already.")
            same = (await client.post(order["url"])).json
            assert same == (await client.post(order["url"])).json
        assert await made(lab) == []
        third = await waiting(door, client)
        await deny(lab.inst, (await parked(lab))[-1].id, None, lab.admin)
        ended(await client.post(third["url"]), "A person decided against this certificate.")
        assert len(await parked(lab)) == 2


async def test_nobody_agrees_in_time(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        door.later(timedelta(days=3))
        ended(await client.post(order["url"]), "in time")
        again = await waiting(door, client)
        await yes(lab)
        door.later(timedelta(days=3))  # a yes is over then too
        ended(await client.post(again["url"]), "in time")
        assert await made(lab) == []


async def test_an_order_does_not_outlive_itself(lab: World) -> None:
    await careful(lab, approval=Approval("always", expires="30d"))
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await yes(lab)
        door.later(timedelta(days=7))
        reply = await client.post(order["url"])
        assert (reply.json["status"], reply.json["error"]["type"]) == (
            "invalid",
            "urn:ietf:params:acme:error:malformed",
        )
        order = await door.ready(client, "a.internal")
        assert (await finalize(client, order)).json["status"] == "valid"  # the yes stands


@pytest.mark.invariant("I-42")
async def test_a_yes_is_to_one_account_and_one_set_of_names(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client, other = await door.client("careful"), await door.client("careful")
        order = await waiting(door, client)
        await yes(lab)
        theirs = await waiting(door, other)
        more = await waiting(door, client, "a.internal", "b.internal")
        assert len(await parked(lab)) == 3
        assert await made(lab) == []
        for client_of, url in ((other, theirs["url"]), (client, more["url"])):
            waits(await client_of.post(url))
        assert (await client.post(order["url"])).json["status"] == "valid"


@pytest.mark.invariant("I-42", "I-14")
async def test_another_version_of_the_profile_wants_another_yes(lab: World) -> None:
    profile = await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await profiles.update(lab.inst, msgspec.structs.replace(profile, description="changed"), lab.admin)
        await yes(lab)
        waits(await client.post(order["url"]))
        assert [one.profile_version for one in await parked(lab)] == [1, 2]
        waits(await client.post(order["url"]))
        assert len(await parked(lab)) == 2
        await yes(lab)
        assert (await client.post(order["url"])).json["status"] == "valid"
        assert [row.profile_version for row in await made(lab)] == [2]


async def test_a_no_to_the_second_request_of_an_order_ends_it(lab: World) -> None:
    """It waits for the one that was parked last, and parks no third."""
    profile = await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await profiles.update(lab.inst, msgspec.structs.replace(profile, description="changed"), lab.admin)
        await yes(lab)
        waits(await client.post(order["url"]))
        await deny(lab.inst, (await parked(lab))[-1].id, "No.", lab.admin)
        ended(await client.post(order["url"]), "No.")
        assert len(await parked(lab)) == 2


@pytest.mark.parametrize("change", ["shut", "names"])
async def test_a_profile_that_no_longer_allows_it(lab: World, change: str) -> None:
    profile = await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await yes(lab)
        names = msgspec.structs.replace(profile.names, dns=msgspec.structs.replace(profile.names.dns, allow=(".test",)))
        changed = {"acme": AcmeRules("bound")} if change == "shut" else {"names": names}
        await profiles.update(lab.inst, msgspec.structs.replace(profile, **changed), lab.admin)
        reply = await client.post(order["url"])
        wanted = "unauthorized" if change == "shut" else "rejectedIdentifier"
        assert (reply.json["status"], reply.json["error"]["type"].rpartition(":")[2]) == ("invalid", wanted)
        assert await made(lab) == []


@pytest.mark.invariant("I-49", "I-42")
async def test_a_name_that_is_given_up_while_its_order_waits(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await client.post(order["authorizations"][0], {"status": "deactivated"})
        waits(await client.post(order["url"]))  # nothing is decided yet
        await yes(lab)
        ended(await client.post(order["url"]), "authorization")
        assert await made(lab) == []
        (request,) = await parked(lab)
        assert request.status(lab.clock()) == "approved"  # used up by nothing


async def test_an_account_that_ends_while_its_order_waits(lab: World) -> None:
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        assert (await client.post(client.kid or "", {"status": "deactivated"})).status == 200
        (request,) = await parked(lab)
        assert await code_of(approve(lab.inst, request.id, None, lab.admin)) == "RW-APPROVAL"
        refused(await client.post(order["url"]), "unauthorized", 401)
        assert await made(lab) == []


async def test_a_key_that_is_away_when_the_yes_has_come(lab: World) -> None:
    """The yes is given back, and goes into the next attempt of the same order."""

    def refuse(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("a test")

    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await waiting(door, client)
        await yes(lab)
        watch(lab.inst, refuse)
        waits(await client.post(order["url"]))
        waits(await client.post(order["url"]))
        assert len(await made(lab)) == 1
        watch(lab.inst, lambda _tbs, sign: sign())
        door.later(issuing.PAUSE)
        assert (await client.post(order["url"])).json["status"] == "valid"
        assert len(await parked(lab)) == 1
        failed, row = await made(lab)
        assert row.retry_of == failed.id
        await books(lab.inst)


@pytest.mark.parametrize(
    "traps", ["park.asked:fail", "park.stored:fail", "acme.finalized:fail", "store.write:fail:2", "store.write:fail:3"]
)
async def test_what_breaks_while_it_is_parked(lab: World, traps: str) -> None:
    """One request, whatever breaks; the order is ready, or waits."""
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await door.ready(client, "a.internal")
        csr = csr_for(order)
        with armed(traps):
            assert (await finalize(client, order, csr)).status in (500, 503)
        assert (await client.post(order["url"])).json["status"] in ("ready", "processing")
        waits(await finalize(client, order, csr))
        assert len(await parked(lab)) == 1
        await yes(lab)
        assert (await client.post(order["url"])).json["status"] == "valid"


async def test_a_used_nonce_parks_nothing(lab: World) -> None:
    """I-47: a request whose nonce cannot be used has no effect at all."""
    await careful(lab)
    async with acme(lab) as door:
        client = await door.client("careful")
        order = await door.ready(client, "a.internal")
        nonce = await client.nonce()
        assert (await client.post(order["url"], header={"nonce": nonce})).status == 200
        reply = await client.post(order["finalize"], {"csr": b64(csr_for(order))}, header={"nonce": nonce})
        refused(reply, "badNonce", 400)
        assert await parked(lab) == []
        assert (await client.post(order["url"])).json["status"] == "ready"


async def test_only_sensitive_names_need_a_person(lab: World) -> None:
    await careful(lab, approval=Approval("sensitive", sensitive=(".pay.internal",)))
    async with acme(lab) as door:
        client = await door.client("careful")
        assert (await finalize(client, await door.ready(client, "a.internal"))).json["status"] == "valid"
        await waiting(door, client, "a.pay.internal")
        assert len(await parked(lab)) == 1


@pytest.mark.invariant("I-42")
async def test_who_stands_behind_an_account_does_not_decide(lab: World) -> None:
    await careful(lab, acme=AcmeRules("bound"))
    owner = await lab.person("olga", APPROVER)
    async with acme(lab) as door:
        client = await door.bound(profile="careful", owner="olga")
        client.directory = "careful"
        order = await waiting(door, client)
        (request,) = await parked(lab)
        assert await code_of(approve(lab.inst, request.id, None, owner)) == "RW-SAME-PERSON"
        await approve(lab.inst, request.id, None, await lab.person("mia", APPROVER))
        assert (await client.post(order["url"])).json["status"] == "valid"
        (row,) = await made(lab)
        assert row.owner == "olga"
