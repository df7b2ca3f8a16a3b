"""One ACME door behind several servers on one PostgreSQL: a nonce of one is good at the other, once; what was begun at
one ends at the other; what is taken away at one is gone at the other with the answer that says so; and a server that
was paused while it looked at a name changes nothing when it wakes up. Real processes, real sockets.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select

from rootward.ca import bindings
from rootward.ca.approve import approve
from rootward.core.revocation import Good, Revoked
from rootward.store.db import open_database
from rootward.store.schema_acme import authorizations, orders
from tests.faults.orders import judged, request_of
from tests.support.acme import Client, Reply, algorithm_of, b64, bound, flattened, jwk_of, new_key
from tests.support.customer import Customer, Kept, new_disk
from tests.support.faults import CAREFUL, Founder, Home, opened, over
from tests.support.proofs import Proofs
from tests.support.remote import Remote
from tests.support.replicas import SECONDS, Replica, replicas

URL = "https://localhost:8443"  # what clients call all of them
TURNS = 10


@dataclass
class Town:
    """Two servers of one home, and where their clients prove names."""

    home: Home
    first: Replica
    second: Replica
    proofs: Proofs

    @asynccontextmanager
    async def doors(self) -> AsyncIterator[tuple[Remote, Remote]]:
        """Both doors."""
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(Remote(self.first, URL))
            there = await stack.enter_async_context(Remote(self.second, URL))
            yield here, there

    def disk(self, profile: str = "server") -> Kept:
        """A client's that has not begun; its name is its own."""
        disk = new_disk(f"n{os.urandom(8).hex()}.internal", profile)
        self.proofs.own(disk.name, disk.thumbprint)
        return disk


def at(one: Customer, door: Remote) -> Customer:
    """The same client, with what it knows, at another door."""
    return Customer(door, one.disk, polls=SECONDS * 20)


def new(town: Town, door: Remote, profile: str = "server") -> Customer:
    """A new client at a door."""
    return Customer(door, town.disk(profile), polls=SECONDS * 20)


def settings(proofs: Proofs) -> dict[str, object]:
    """Of each replica."""
    return {"external_url": URL, **proofs.ports.settings}


@pytest.fixture(scope="module")
def town(founder: Founder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Two that run."""
    folder = tmp_path_factory.mktemp("town")
    with Proofs() as proofs, founder.home("postgresql", folder) as home:
        how = {"settings": settings(proofs)}
        with replicas(home, folder, load(home), **how) as (first, second):
            yield Town(home, first, second, proofs)


@pytest.fixture
def asleep(postgres_home: Home, tmp_path: Path) -> Iterator[Town]:
    """Two that do not run yet."""
    with Proofs() as proofs:
        inst = load(postgres_home)
        first, second = (
            Replica(postgres_home, tmp_path / name, inst, settings=settings(proofs)) for name in ("first", "second")
        )
        try:
            yield Town(postgres_home, first, second, proofs)
        finally:
            first.kill()
            second.kill()


def load(home: Home) -> Any:
    """The installation, for its authorities' certificates."""

    async def main() -> Any:
        async with opened(home, serving=False) as made:
            return made.inst

    return asyncio.run(main())


def is_bad_nonce(reply: Reply) -> bool:
    return reply.status == 400 and reply.problem == "badNonce"


def row(home: Home, table: Any, id: str) -> dict[str, Any]:
    """A row as it is stored."""
    db = open_database(home.url)
    try:
        which = select(table).where(table.c.id == id)
        return dict(db.read_sync(lambda conn: conn.execute(which).one())._mapping)
    finally:
        db.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    for _ in range(SECONDS * 20):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not come")


# ── nonces (I-47) ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-47")
def test_a_nonce_of_one_is_good_at_the_other_and_once(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for here, there in (doors, doors[::-1]):
                one, other = new(town, here), new(town, there)
                kid = await one.registered()
                other.client = replace(one.client, wire=there)
                nonce = await one.client.nonce()
                assert (await other.client.post(kid, header={"nonce": nonce})).status == 200
                for client in (other.client, one.client):
                    again = await client.post(kid, header={"nonce": nonce})
                    assert is_bad_nonce(again)
                    assert again.headers["replay-nonce"] != nonce
                assert (await other.client.post(kid, header={"nonce": again.headers["replay-nonce"]})).status == 200

    asyncio.run(main())


@pytest.mark.invariant("I-47")
def test_one_request_at_both_at_once_counts_once(town: Town) -> None:
    """Byte by byte the same, as somebody who overheard it would send it."""

    async def main() -> None:
        async with town.doors() as (here, there):
            one = new(town, here)
            kid = await one.registered()
            for _ in range(TURNS):
                url = one.client.path("new-order")
                header = await one.client.header(url)
                body = flattened(one.client.key, header, {"identifiers": [{"type": "dns", "value": one.disk.name}]})
                raw = str(body).replace("'", '"').encode()
                both = await asyncio.gather(
                    *(Client(door, kid=kid).post(url, raw=raw) for door in (here, there) for _ in range(2))
                )
                assert sorted(reply.status for reply in both) == [201, 400, 400, 400]
                assert sum(is_bad_nonce(reply) for reply in both) == 3
            listed = await one.good(f"{kid}/orders")
            assert len(listed.json["orders"]) == TURNS

    asyncio.run(main())


# ── orders (I-50) ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-50")
def test_what_was_begun_at_one_ends_at_the_other(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for here, there in (doors, doors[::-1]):
                one = new(town, here)
                await one.pursue("ready")  # proved by this one
                one = at(one, there)
                await one.pursue()  # finalized by the other
                one = at(one, here)
                chain = await one.chain()
                leaf = b64(chain[0].public_bytes(Encoding.DER))
                serial = chain[0].serial_number.to_bytes(20).lstrip(b"\0")
                assert here.replica.status(serial) == there.replica.status(serial) == Good()
                assert (await at(one, there).post("revoke-cert", {"certificate": leaf})).status == 200
                assert (await one.post("revoke-cert", {"certificate": leaf})).problem == "alreadyRevoked"
                assert isinstance(there.replica.status(serial), Revoked)
                await asyncio.sleep(1.0)  # I-30
                assert isinstance(here.replica.status(serial), Revoked)

    asyncio.run(main())


@pytest.mark.invariant("I-50")
def test_fifty_finalizes_at_both_give_one_certificate(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as (here, there):
            one = new(town, here)
            order = await one.pursue("ready")
            url, payload = order.json["finalize"], {"csr": b64(one.disk.csr)}

            async def finalize(door: Remote) -> Reply:
                return await at(one, door).good(url, payload)

            replies = await asyncio.gather(*(finalize(door) for door in (here, there) for _ in range(25)))
            assert {reply.json["status"] for reply in replies} <= {"processing", "valid"}
            await one.chain()
        async with opened(town.home, serving=False) as made:
            _, before = await judged(made, one.disk)
            assert before == []

    asyncio.run(main())


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-42")
def test_one_yes_asked_for_at_both_at_once_gives_one_certificate(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as (here, there):
            one = new(town, here, CAREFUL)
            await one.pursue("processing")
            async with opened(town.home, serving=False) as made:
                await approve(made.inst, await request_of(made, one.disk), None, made.admin)

                async def ask(door: Remote) -> str:
                    return str((await at(one, door).good(one.disk.order or "")).json["status"])

                states = await asyncio.gather(*(ask(door) for door in (here, there) for _ in range(5)))
                assert set(states) <= {"processing", "valid"}
                await one.chain()
                _, before = await judged(made, one.disk)
                assert before == []

    asyncio.run(main())


# ── accounts (I-48, I-51, I-52) ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-48")
def test_an_account_that_was_deactivated_at_one_is_refused_by_the_other_at_once(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for here, there in (doors, doors[::-1]):
                one = new(town, here)
                kid = await one.registered()
                other = at(one, there)
                assert (await other.good(kid)).json["status"] == "valid"
                assert (await one.good(kid, {"status": "deactivated"})).json["status"] == "deactivated"
                for url in (kid, other.client.path("new-order"), f"{kid}/orders"):
                    reply = await other.post(url)
                    assert (reply.status, reply.problem) == (401, "unauthorized")

    asyncio.run(main())


@pytest.mark.invariant("I-49")
def test_a_proof_that_was_taken_back_at_one_is_none_at_the_other_at_once(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as (here, there):
            one = new(town, here)
            order = await one.pursue("ready")
            (proof,) = order.json["authorizations"]
            await one.good(proof, {"status": "deactivated"})
            other = at(one, there)
            reply = await other.post(order.json["finalize"], {"csr": b64(one.disk.csr)})
            assert (reply.status, reply.problem) == (403, "orderNotReady")
            assert (await other.good(one.disk.order or "")).json["status"] == "invalid"

    asyncio.run(main())


def change(client: Client, key: Any) -> dict[str, str]:
    """The inner JWS of a keyChange (RFC 8555 7.3.5)."""
    url = client.path("key-change")
    header = {"alg": algorithm_of(key), "jwk": jwk_of(key), "url": url}
    return flattened(key, header, {"account": client.kid, "oldKey": jwk_of(client.key)})


async def knows(door: Remote, kid: str, key: Any) -> bool:
    """Whether the account goes by this key there."""
    reply = await Client(door, key=key, kid=kid).post(kid)
    assert reply.status in (200, 400), reply.body
    return reply.status == 200


@pytest.mark.invariant("I-51")
def test_a_key_that_was_changed_at_one_works_at_the_other_at_once_and_the_old_one_nowhere(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for here, there in (doors, doors[::-1]):
                one = new(town, here)
                kid, old, key = await one.registered(), one.client.key, new_key()
                assert await knows(there, kid, old)
                await one.good("key-change", change(one.client, key))
                assert [await knows(door, kid, key) for door in (there, here)] == [True, True]
                assert [await knows(door, kid, old) for door in (there, here)] == [False, False]

    asyncio.run(main())


@pytest.mark.invariant("I-51")
def test_of_two_changes_of_a_key_at_once_one_counts(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for _ in range(TURNS):
                one = new(town, doors[0])
                kid, keys = await one.registered(), [new_key(), new_key()]

                async def swap(door: Remote, key: Any, old: Client = one.client, kid: str = kid) -> Reply:
                    client = Client(door, key=old.key, kid=kid, directory=old.directory)
                    return await client.post("key-change", change(client, key))

                replies = await asyncio.gather(*map(swap, doors, keys))
                assert sum(reply.status == 200 for reply in replies) == 1
                for door in doors:
                    assert [await knows(door, kid, key) for key in keys] == [reply.status == 200 for reply in replies]
                    assert not await knows(door, kid, one.client.key)

    asyncio.run(main())


@pytest.mark.invariant("I-52")
def test_a_binding_for_one_account_makes_one_at_both_at_once(town: Town) -> None:
    async def main() -> None:
        async with town.doors() as doors:
            for _ in range(TURNS):
                async with opened(town.home, serving=False) as made:
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

                async def register(door: Remote, kid: str = binding.id, secret: bytes = secret) -> Reply:
                    client = Client(door, directory="server")
                    proof = bound(kid, secret, jwk_of(client.key), client.path("new-account"))
                    return await client.register(externalAccountBinding=proof)

                replies = await asyncio.gather(*(register(door) for door in doors for _ in range(2)))
                assert sorted(reply.status for reply in replies) == [201, 403, 403, 403]

    asyncio.run(main())


# ── a server that dies or sleeps while it looks at a name (I-53) ──────────────────────────────────────────────────


@dataclass
class Looking:
    """A client whose challenge was chosen at a server that sleeps or is dead by now. `asking` is its request there."""

    one: Customer
    proof: str
    asking: asyncio.Task[Any]

    @property
    def id(self) -> str:
        """Of the authorization."""
        return self.proof.rpartition("/")[2]


async def look(town: Town, here: Remote, traps: str) -> Looking:
    """Choose the challenge at the first server, which steps into a trap then."""
    town.first.start(traps)
    one = new(town, here)
    order = await one.pursue("pending")
    (proof,) = order.json["authorizations"]
    (challenge,) = [kind for kind in (await one.good(proof)).json["challenges"] if kind["type"] == "http-01"]
    return Looking(one, proof, asyncio.create_task(one.client.post(challenge["url"], {})))


@pytest.mark.invariant("I-53")
@pytest.mark.parametrize("where", ["acme.claimed", "acme.validated"])
def test_a_name_that_a_dead_server_looked_at_is_proved_by_the_other(asleep: Town, where: str) -> None:
    async def main() -> None:
        async with asleep.doors() as (here, there):
            begun = await look(asleep, here, f"{where}:kill:1")
            await asyncio.gather(begun.asking, return_exceptions=True)
            asleep.second.start()
            other = at(begun.one, there)
            assert (await other.good(begun.proof)).json["status"] == "pending"
            asleep.home.lapse()
            await other.chain()
        async with opened(asleep.home, serving=False) as made:
            await judged(made, other.disk)

    asyncio.run(main())


@pytest.mark.invariant("I-53")
@pytest.mark.invariant("I-64")
def test_a_server_that_is_stopped_hands_its_looks_over(asleep: Town) -> None:
    """By SIGTERM, while the one who is asked takes his time: nobody waits for a lease to run out."""

    async def main() -> None:
        async with asleep.doors() as (here, there):
            asleep.first.start()
            asleep.second.start()
            one = new(asleep, here)
            order = await one.pursue("pending")
            (proof,) = order.json["authorizations"]
            (challenge,) = [kind for kind in (await one.good(proof)).json["challenges"] if kind["type"] == "http-01"]
            asleep.proofs.slow[one.disk.name] = threading.Event()
            await one.good(challenge["url"], {})
            await until(lambda: asleep.proofs.looks[one.disk.name] == 1)
            before = row(asleep.home, authorizations, proof.rpartition("/")[2])["lease"]
            assert before is not None
            await asyncio.to_thread(asleep.first.stop)
            assert row(asleep.home, authorizations, proof.rpartition("/")[2])["lease"] != before
            asleep.proofs.slow.pop(one.disk.name).set()
            await at(one, there).chain()

    asyncio.run(main())


@pytest.mark.invariant("I-49")
@pytest.mark.invariant("I-53")
@pytest.mark.parametrize("where", ["acme.claimed", "acme.validated"])
@pytest.mark.parametrize("end", ["valid", "invalid", "deactivated"])
def test_a_paused_server_that_wakes_up_changes_nothing(asleep: Town, where: str, end: str) -> None:
    """What it found, or finds now, is the contrary of what the other found meanwhile, or its client took it back."""

    async def main() -> None:
        async with asleep.doors() as (here, there):
            proofs = asleep.proofs
            begun = await look(asleep, here, f"{where}:stop:1")
            disk = begun.one.disk
            if (end, where) == ("valid", "acme.validated"):
                proofs.own(disk.name, None)  # before the request goes out: this is what the paused one finds
            await asyncio.to_thread(asleep.first.until_stopped)
            proofs.own(disk.name, disk.thumbprint if end == "valid" else None)
            if end == "deactivated":
                proofs.own(disk.name, disk.thumbprint)
            await asyncio.to_thread(over, asleep.home.url)
            asleep.second.start()
            other = at(begun.one, there)
            if end == "deactivated":
                await other.good(begun.proof, {"status": "deactivated"})
            asleep.home.lapse()
            await until(lambda: row(asleep.home, authorizations, begun.id)["next_try_at"] is None)
            assert (await other.good(begun.proof)).json["status"] == end
            before = row(asleep.home, authorizations, begun.id)
            proofs.own(disk.name, disk.thumbprint if end == "invalid" else None)
            looks = proofs.looks[disk.name]
            asleep.first.go_on()
            reply = await begun.asking
            # 503: it was away for longer than a request waits for the store.
            assert reply.status in (200, 401, 503), reply.body
            if where == "acme.claimed":
                await until(lambda: proofs.looks[disk.name] > looks)  # it looks now
            await new(asleep, here).chain()  # whatever it had in hand is written by then
            assert row(asleep.home, authorizations, begun.id) == before
            assert (await other.good(begun.proof)).json["status"] == end
            wanted = {"valid": "ready", "invalid": "invalid", "deactivated": "invalid"}[end]
            assert (await other.good(disk.order or "")).json["status"] == wanted
            assert row(asleep.home, orders, (disk.order or "").rpartition("/")[2])["settled_at"] is None
            said = asleep.first.said()
            assert "Traceback" not in said
            assert "acme.validation-broke" not in said

    asyncio.run(main())
