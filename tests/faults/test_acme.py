"""kill -9 between any two steps of an ACME order, then a restart: the client goes on with the same account, order and
key, the order is valid in the end or invalid with a reason, and there is one living certificate.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum

import pytest

from rootward.ca.approve import approve, deny
from rootward.ca.reconcile import reconcile
from rootward.core.revocation import Good, Revoked
from rootward.keys import NotSigned, SignatureUnknown
from rootward.protocols.acme.issuing import PAUSE
from tests.faults import orders
from tests.faults.orders import customer, disk_of, judged, order_of, request_of
from tests.support.acme import b64
from tests.support.customer import Kept, new_disk
from tests.support.faults import CAREFUL, Home, Open, Play, killed, listed, opened, status, trapped, watch
from tests.support.proofs import Proofs


class Left(Enum):
    """What an order has of its certificate when the process dies."""

    NOTHING = 0
    INTENT = 1
    CERTIFICATE = 2


BEFORE = [
    "acme.order-stored",
    "acme.claimed",
    "acme.validated",
    "acme.validation-stored",
    "acme.finalize",
]
ISSUING = [
    ("issue.drafted", Left.NOTHING),
    ("issue.admitted", Left.NOTHING),
    ("issue.intended", Left.INTENT),
    ("key.asked", Left.INTENT),
    ("key.answered", Left.INTENT),
    ("issue.signed", Left.INTENT),
    ("issue.stored", Left.CERTIFICATE),
]
WHOLE = [(place, Left.NOTHING) for place in BEFORE] + ISSUING + [("acme.finalized", Left.CERTIFICATE)]
MOST_WRITES = 40


@pytest.fixture(scope="module")
def proofs() -> Iterator[Proofs]:
    """Where names are proved."""
    with Proofs() as made:
        yield made


def new(proofs: Proofs, profile: str = "server") -> Kept:
    """A client whose name is its own."""
    disk = new_disk(f"n{os.urandom(8).hex()}.internal", profile)
    proofs.owners[disk.name] = disk.thumbprint
    return disk


async def goes_on(made: Open, disk: Kept, proofs: Proofs, left: Left) -> Kept:
    """From here on the client comes to its end, and what the dead process left of a certificate is as it should be."""
    one = customer(made, disk, proofs.ports)
    chain = await one.chain()
    assert await one.chain() == chain
    assert disk.order in (None, one.disk.order)
    living, before = await judged(made, one.disk)
    assert chain[0].serial_number == int.from_bytes(living.serial, "big")
    assert await status(made, living.serial) == Good()
    if left is Left.INTENT:
        (orphan,) = before
        assert orphan.orphaned_at is not None
        assert isinstance(await status(made, orphan.serial), Revoked)
        assert orphan.serial in await listed(made)
    else:
        assert before == []
    return one.disk


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-50")
@pytest.mark.parametrize(("place", "left"), WHOLE, ids=[place for place, _ in WHOLE])
def test_an_order_whose_server_was_killed_goes_on(home: Home, proofs: Proofs, place: str, left: Left) -> None:
    disk = new(proofs)
    said = killed(home, orders.pursue, disk, proofs.ports, traps=f"{place}:kill")
    assert "valid" not in said
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            await goes_on(made, disk_of(said, disk), proofs, left)

    asyncio.run(after())


@pytest.mark.timeout(600)
@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-50")
@pytest.mark.parametrize("where", ["store.write.before-commit", "store.write.after-commit"])
def test_an_order_killed_at_each_of_its_commits_goes_on(home: Home, proofs: Proofs, where: str) -> None:
    orphans = 0

    async def after(disk: Kept) -> int:
        async with opened(home) as made:
            one = customer(made, disk, proofs.ports)
            await one.chain()
            return len((await judged(made, one.disk))[1])

    for number in range(1, MOST_WRITES):
        disk = new(proofs)
        with Play(home, orders.pursue, disk, proofs.ports, traps=f"{where}:kill:{number}") as play:
            ended = play.end()
        home.lapse()
        orphans += asyncio.run(after(disk_of(play.said, disk)))
        if ended == 0:
            break  # it had no more commits
        assert ended == -signal.SIGKILL, play.said
    assert 8 <= number < MOST_WRITES
    assert orphans == 1  # after the intent's commit, or before its end's


# ── where a person must agree ─────────────────────────────────────────────────────────────────────────────────────


async def prepared(home: Home, disk: Kept, proofs: Proofs, *, agreed: bool) -> Kept:
    """An order that waited for a person, who has decided."""
    async with opened(home, serving=False) as made:
        one = customer(made, disk, proofs.ports)
        await one.pursue("processing")
        decide = approve if agreed else deny
        await decide(made.inst, await request_of(made, one.disk), "because", made.admin)
        return one.disk


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-42")
@pytest.mark.parametrize("place", ["park.asked", "park.stored", "acme.finalized"])
def test_an_order_that_is_killed_when_it_begins_to_wait(home: Home, proofs: Proofs, place: str) -> None:
    disk = new(proofs, CAREFUL)
    said = killed(home, orders.pursue, disk, proofs.ports, "processing", traps=f"{place}:kill")
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            one = customer(made, disk_of(said, disk), proofs.ports)
            order = await one.pursue("processing")
            assert order.headers["retry-after"]
            await approve(made.inst, await request_of(made, one.disk), None, made.admin)
            await goes_on(made, one.disk, proofs, Left.NOTHING)

    asyncio.run(after())


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-42")
@pytest.mark.parametrize(("place", "left"), ISSUING, ids=[place for place, _ in ISSUING])
def test_an_order_that_was_agreed_to_is_carried_on_after_a_kill(
    home: Home, proofs: Proofs, place: str, left: Left
) -> None:
    disk = asyncio.run(prepared(home, new(proofs, CAREFUL), proofs, agreed=True))
    assert killed(home, orders.ask, disk, proofs.ports, traps=f"{place}:kill") == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            await goes_on(made, disk, proofs, left)

    asyncio.run(after())


@pytest.mark.invariant("I-50")
@pytest.mark.parametrize("place", ["acme.refused", "store.write.before-commit", "store.write.after-commit"])
def test_an_order_that_was_decided_against_is_invalid_whenever_it_is_killed(
    home: Home, proofs: Proofs, place: str
) -> None:
    disk = asyncio.run(prepared(home, new(proofs, CAREFUL), proofs, agreed=False))
    assert killed(home, orders.ask, disk, proofs.ports, traps=f"{place}:kill:1") == []

    async def after() -> None:
        async with opened(home) as made:
            one = customer(made, disk, proofs.ports)
            for _ in range(2):
                order = await one.good(disk.order or "")
                assert (order.json["status"], order.json["error"]["type"]) == (
                    "invalid",
                    "urn:ietf:params:acme:error:unauthorized",
                )
                assert "because" in order.json["error"]["detail"]
            assert (await order_of(made, disk)).certificate is None

    asyncio.run(after())


# ── a look at a name ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-53")
@pytest.mark.parametrize("place", ["acme.claimed", "acme.validated"])
def test_a_look_that_died_is_taken_up_without_its_client(home: Home, proofs: Proofs, place: str) -> None:
    """Its client only asks how it stands."""
    disk = new(proofs)
    said = killed(home, orders.pursue, disk, proofs.ports, traps=f"{place}:kill")
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            one = customer(made, disk_of(said, disk), proofs.ports)
            order = await one.good(one.disk.order or "")
            (name,) = order.json["authorizations"]
            assert (await one.good(name)).json["status"] == "pending"
            await one.turn()
            assert (await one.good(name)).json["status"] == "valid"
            assert (await one.good(one.disk.order or "")).json["status"] == "ready"

    asyncio.run(after())


@pytest.mark.invariant("I-53")
def test_a_name_that_is_no_longer_its_clients_is_invalid_after_a_kill(home: Home, proofs: Proofs) -> None:
    """The look of the dead process proved it, and nobody knows: what counts is the look that is stored."""
    disk = new(proofs)
    said = killed(home, orders.pursue, disk, proofs.ports, traps="acme.validated:kill")
    del proofs.owners[disk.name]
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            one = customer(made, disk_of(said, disk), proofs.ports)
            await one.turn()
            assert (await one.good(one.disk.order or "")).json["status"] == "invalid"

    asyncio.run(after())


# ── a key that does not sign ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-47")
@pytest.mark.parametrize("error", [NotSigned, SignatureUnknown])
def test_an_order_whose_key_is_away_is_carried_on_when_it_is_back(
    home: Home, proofs: Proofs, error: type[Exception]
) -> None:
    """Whoever asks for the order hears that it is processing, and each try is one attempt."""

    def away(_tbs: bytes, _sign: object) -> bytes:
        raise error("away")

    async def main() -> None:
        async with opened(home) as made:
            one = customer(made, new(proofs), proofs.ports)
            order = await one.pursue("ready")
            real, passed = made.inst.clock, timedelta()
            made.inst.clock = lambda: real() + passed
            watch(made.inst, away)
            reply = await one.client.post(order.json["finalize"], {"csr": b64(one.disk.csr)})
            for _ in range(2):
                assert (reply.status, reply.json["status"]) == (200, "processing"), reply.body
                await reconcile(made.inst)
                passed += PAUSE
                reply = await one.client.post(one.disk.order or "")
            await reconcile(made.inst)
            passed += PAUSE
            watch(made.inst, trapped)
            await one.chain()
            living, before = await judged(made, one.disk)
            assert len(before) == 3
            assert all((row.orphaned_at is not None) == (error is SignatureUnknown) for row in before)
            assert await status(made, living.serial) == Good()

    asyncio.run(main())
