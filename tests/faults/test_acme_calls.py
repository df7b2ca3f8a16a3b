"""Each write of the ACME door, by scene and in its order, once failing without an effect and once although it took
effect: the client is told to come again, the books agree at every moment, and coming again ends where it should.

As in `test_calls.py`, whose scenes are those of the core; here each one also says what must be so in the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete, func, select, update

from rootward.ca import accounts, bindings
from rootward.ca.approve import approve, deny
from rootward.ca.reconcile import reconcile
from rootward.core.problems import Problem
from rootward.protocols.acme.nonces import KEY
from rootward.store import failpoint
from rootward.store.failpoint import armed
from rootward.store.schema import certificates, events, facts
from rootward.store.schema_acme import accounts as account_rows
from rootward.store.schema_acme import authorizations
from rootward.store.schema_acme import bindings as binding_rows
from tests.faults.orders import customer, judged, order_of, request_of, turn
from tests.faults.test_calls import goes_through, writes_of
from tests.support.acme import Client, Wire, algorithm_of, b64, bound, flattened, jwk_of, new_key
from tests.support.customer import Customer, new_disk
from tests.support.faults import CAREFUL, Home, Open, books, opened
from tests.support.proofs import Proofs

Act = Callable[[], Awaitable[object]]
ENDED = "The account was ended by its own client. Register a new one, with a new key."


@dataclass(frozen=True)
class Scene:
    """Something to do, which may be done again, and what must be so after that."""

    act: Act
    check: Act


Make = Callable[[Open, Proofs], Awaitable[Scene]]


@pytest.fixture(scope="module")
def proofs() -> Iterator[Proofs]:
    """Where names are proved."""
    with Proofs() as made:
        yield made


def new(made: Open, proofs: Proofs, profile: str = "server") -> Customer:
    """A client with a name of its own; when it waits, leases have run out."""
    disk = new_disk(f"n{os.urandom(8).hex()}.internal", profile)
    proofs.owners[disk.name] = disk.thumbprint
    one = customer(made, disk, proofs.ports)
    one.turn = partial(later, one.wire)
    return one


async def later(wire: Wire) -> None:
    """The server's background work, once what it does now has ended and the leases of what came to nothing are over."""
    await asyncio.gather(*wire.validator._tasks, return_exceptions=True)
    held = authorizations.c.lease.is_not(None)
    if await wire.inst.db.read(lambda conn: conn.execute(select(func.count()).where(held)).scalar_one()):
        over = update(authorizations).where(held).values(lease_until=wire.inst.clock())
        await wire.inst.db.write(lambda conn: conn.execute(over).rowcount)
    await reconcile(wire.inst)
    await turn(wire)


async def count(made: Open, *where: Any) -> int:
    """Rows that are so."""
    found = await made.inst.db.read(lambda conn: conn.execute(select(func.count()).where(*where)).scalar_one())
    return int(found)


async def said(made: Open, kind: str, text: str) -> int:
    """Events of this kind with this text in their data."""
    return await count(made, events.c.kind == kind, events.c.data.contains(text))


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def registering_with_a_binding(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    binding, secret = await bindings.create(
        made.inst,
        profile="server",
        owner="somebody",
        names=(),
        preauthorized=(),
        uses=1,
        lifetime=timedelta(hours=1),
        caller=made.admin,
    )
    url = one.client.path("new-account")
    proof = bound(binding.id, secret, json.dumps(jwk_of(one.client.key)).encode(), url)

    async def check() -> None:
        assert await count(made, account_rows.c.thumbprint == one.disk.thumbprint) == 1
        assert await count(made, binding_rows.c.id == binding.id, binding_rows.c.used == 1) == 1
        for kind in ("acme.account-created", "acme.binding-used"):
            assert await said(made, kind, binding.id) == 1
        await one.pursue()

    return Scene(partial(one.registered, externalAccountBinding=proof), check)


async def other_contacts(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    kid, wanted = await one.registered(), ["mailto:a@b.internal"]

    async def check() -> None:
        assert (await one.good(kid)).json["contact"] == wanted

    return Scene(partial(one.good, kid, {"contact": wanted}), check)


async def changing_its_key(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    kid, old, key, url = await one.registered(), one.client.key, new_key(), one.client.path("key-change")
    inner = flattened(
        key, {"alg": algorithm_of(key), "jwk": jwk_of(key), "url": url}, {"account": kid, "oldKey": jwk_of(old)}
    )

    async def act() -> None:
        """Where nobody said whether it was changed, the client finds out by which key it is known."""
        if await works(one.client, key):
            one.client.key = key
            return
        await one.good(url, inner)
        one.client.key = key

    async def check() -> None:
        assert await works(one.client, key)
        assert not await works(one.client, old)
        assert await said(made, "acme.key-changed", kid.rpartition("/")[2]) == 1

    return Scene(act, check)


async def works(client: Client, key: Any) -> bool:
    """Whether the account is known by this key."""
    asked = Client(client.wire, key=key, kid=client.kid)
    reply = await asked.post(client.kid or "")
    assert reply.status in (200, 400), reply.body
    return reply.status == 200


async def deactivating_the_account(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.pursue("ready")
    kid = await one.registered()

    async def act() -> None:
        reply = await one.post(kid, {"status": "deactivated"})
        assert reply.json.get("status") == "deactivated" or reply.json["detail"] == ENDED

    async def check() -> None:
        for url in (kid, one.disk.order or "", "new-order"):
            assert (await one.post(url)).json["detail"] == ENDED
        assert await said(made, "acme.account-deactivated", kid.rpartition("/")[2]) == 1

    return Scene(act, check)


async def disabling_the_account(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    id = (await one.registered()).rpartition("/")[2]

    async def check() -> None:
        assert (await one.post(one.disk.kid or "")).status == 401 or (await one.post(one.disk.kid or "")).status == 403
        assert await said(made, "acme.account-deactivated", id) == 1

    return Scene(lambda: accounts.disable(made.inst, id, made.admin), check)


async def making_a_binding(made: Open, _proofs: Proofs) -> Scene:
    owner = f"o-{os.urandom(6).hex()}"
    how = {"names": (), "preauthorized": (), "uses": 1, "lifetime": timedelta(hours=1), "profile": None}

    async def check() -> None:
        rows = await count(made, binding_rows.c.owner == owner)
        assert 1 <= rows <= 2  # the secret of the first was told to nobody
        assert await said(made, "acme.binding-created", owner) == rows

    return Scene(lambda: bindings.create(made.inst, owner=owner, caller=made.admin, **how), check)


async def revoking_a_binding(made: Open, _proofs: Proofs) -> Scene:
    made_one, _ = await bindings.create(
        made.inst,
        profile=None,
        owner="o",
        names=(),
        preauthorized=(),
        uses=1,
        lifetime=timedelta(hours=1),
        caller=made.admin,
    )

    async def check() -> None:
        assert await said(made, "acme.binding-revoked", made_one.id) == 1

    return Scene(lambda: bindings.revoke(made.inst, made_one.id, made.admin), check)


# ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def ordering(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.registered()

    async def check() -> None:
        await one.pursue()
        await judged(made, one.disk)

    return Scene(one.ordered, check)


async def proving(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.pursue("pending")

    async def check() -> None:
        account = (one.disk.kid or "").rpartition("/")[2]
        assert await said(made, "acme.authorization-valid", one.disk.name) == 1
        assert await count(made, authorizations.c.account == account, authorizations.c.lease.is_not(None)) == 0

    return Scene(partial(one.pursue, "ready"), check)


async def failing_to_prove(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.pursue("pending")
    del proofs.owners[one.disk.name]

    async def check() -> None:
        assert await said(made, "acme.authorization-invalid", one.disk.name) == 1

    return Scene(partial(one.pursue, "invalid"), check)


async def challenge_of(one: Customer) -> tuple[str, str]:
    """The URLs of the order's authorization and of what is to be done for it."""
    order = await one.pursue("pending")
    (url,) = order.json["authorizations"]
    (challenge,) = [kind for kind in (await one.good(url)).json["challenges"] if kind["type"] == "http-01"]
    return url, challenge["url"]


async def taking_up(made: Open, proofs: Proofs) -> Scene:
    """A look whose process is dead."""
    one = new(made, proofs)
    url, asked = await challenge_of(one)
    with armed("acme.claimed:fail"):
        await one.good(asked, {})
        await asyncio.gather(*one.wire.validator._tasks, return_exceptions=True)

    async def check() -> None:
        await later(one.wire)
        assert (await one.good(url)).json["status"] == "valid"
        assert await said(made, "acme.authorization-valid", one.disk.name) == 1

    return Scene(partial(later, one.wire), check)


async def handing_over(made: Open, proofs: Proofs) -> Scene:
    """A server that ends while it looks. What a scene before has left does not hold this one up."""
    for event in proofs.slow.values():
        event.set()
    proofs.slow.clear()
    one = new(made, proofs)
    url, asked = await challenge_of(one)
    open_again = proofs.slow[one.disk.name] = threading.Event()
    await one.good(asked, {})

    async def check() -> None:
        proofs.slow.pop(one.disk.name, None)
        open_again.set()
        await later(one.wire)
        assert (await one.good(url)).json["status"] == "valid"

    return Scene(one.wire.validator.close, check)


async def taking_a_proof_back(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    order = await one.pursue("ready")
    (url,) = order.json["authorizations"]

    async def act() -> None:
        reply = await one.post(url, {"status": "deactivated"})
        assert reply.json["status"] in ("deactivated", 400), reply.body

    async def check() -> None:
        assert (await one.good(url)).json["status"] == "deactivated"
        assert (await one.good(one.disk.order or "")).json["status"] == "invalid"

    return Scene(act, check)


async def finalizing(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.pursue("ready")

    async def check() -> None:
        await one.chain()
        await judged(made, one.disk)

    return Scene(one.pursue, check)


async def beginning_to_wait(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs, CAREFUL)
    await one.pursue("ready")

    async def check() -> None:
        await approve(made.inst, await request_of(made, one.disk), None, made.admin)
        await one.pursue()
        await judged(made, one.disk)

    return Scene(partial(one.pursue, "processing"), check)


async def carrying_on(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs, CAREFUL)
    await one.pursue("processing")
    await approve(made.inst, await request_of(made, one.disk), None, made.admin)

    async def check() -> None:
        await judged(made, one.disk)

    return Scene(one.pursue, check)


async def being_refused(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs, CAREFUL)
    await one.pursue("processing")
    await deny(made.inst, await request_of(made, one.disk), "because", made.admin)

    async def check() -> None:
        order = await one.good(one.disk.order or "")
        assert (order.json["status"], "because" in order.json["error"]["detail"]) == ("invalid", True)
        assert (await order_of(made, one.disk)).certificate is None

    return Scene(partial(one.pursue, "invalid"), check)


async def downloading(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    await one.pursue()

    async def check() -> None:
        await judged(made, one.disk)

    return Scene(one.chain, check)


async def revoking(made: Open, proofs: Proofs) -> Scene:
    one = new(made, proofs)
    leaf = (await one.chain())[0]
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 4}

    async def act() -> None:
        reply = await one.post("revoke-cert", payload)
        assert reply.status == 200 or reply.problem == "alreadyRevoked"

    async def check() -> None:
        (row,) = [row for row in (await books(made.inst)).values() if row.key_id == one.disk.key_id]
        assert row.reason == "superseded"
        assert await count(made, events.c.kind == "certificate.revoked", events.c.certificate == row.id) == 1
        assert await count(made, certificates.c.id == row.id, certificates.c.revoked_at.is_not(None)) == 1

    return Scene(act, check)


# ── nonces ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def making_the_key_of_nonces(made: Open, proofs: Proofs) -> Scene:
    """As at the first request that an installation ever gets."""
    key = delete(facts).where(facts.c.name == KEY)
    await made.inst.db.write(lambda conn: conn.execute(key).rowcount)
    one = new(made, proofs)

    async def act() -> None:
        reply = await one.client.get("new-nonce")
        if reply.status != 204:
            raise Problem("RW-STORE", reply.json["detail"])
        assert reply.headers["replay-nonce"]

    async def check() -> None:
        assert await count(made, facts.c.name == KEY) == 1
        await one.registered()
        nonce = await one.client.nonce()
        there = new(made, proofs)  # a door that reads the key from the store
        reply = await there.client.post("new-account", {}, jwk=True, header={"nonce": nonce})
        assert reply.status == 201

    return Scene(act, check)


SCENES: list[Make] = [
    registering_with_a_binding,
    other_contacts,
    changing_its_key,
    deactivating_the_account,
    disabling_the_account,
    making_a_binding,
    revoking_a_binding,
    ordering,
    proving,
    failing_to_prove,
    taking_up,
    handing_over,
    taking_a_proof_back,
    finalizing,
    beginning_to_wait,
    carrying_on,
    being_refused,
    downloading,
    revoking,
    making_the_key_of_nonces,
]


@pytest.mark.timeout(600)
@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-47")
@pytest.mark.invariant("I-50")
@pytest.mark.invariant("I-51")
@pytest.mark.invariant("I-52")
@pytest.mark.invariant("I-56")
@pytest.mark.invariant("I-58")
@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_each_write_of_a_scene_fails_in_both_ways(home: Home, proofs: Proofs, make: Make) -> None:
    async def played(made: Open, _home: Home) -> Act:
        return (await make(made, proofs)).act

    async def main() -> None:
        async with opened(home) as made:
            await new(made, proofs).client.nonce()  # their key is there from now on
            for mode in ("fail", "fail_persisted"):
                writes = await writes_of(made, home, played)
                assert writes > 0
                for number in range(1, writes + 1):
                    scene = await make(made, proofs)
                    with armed(f"store.write:{mode}:{number}"):
                        with suppress(Problem):
                            await scene.act()
                        (trap,) = [trap for trap in failpoint._traps.values() if trap.name.startswith("store.write")]
                        assert trap.times >= number, "the write was not made"
                    await reconcile(made.inst)
                    await books(made.inst)
                    await goes_through(made, scene.act)
                    await scene.check()
                    await books(made.inst)

    asyncio.run(main())
