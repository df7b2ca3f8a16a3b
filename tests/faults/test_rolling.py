"""Replicas that are restarted one after the other under load, and two versions of the program side by side: nothing is
lost, nothing is there twice, no client sees a CRL number go back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from rootward.core.problems import Problem
from rootward.core.revocation import Revoked
from rootward.store.db import open_database
from rootward.store.migrations import NEWEST, check_schema
from tests.support.faults import Home, books, opened
from tests.support.postgres import Postgres
from tests.support.replicas import CERTIFICATES, SECONDS, Balanced, Replica, replicas
from tests.support.rest import csr

CLIENTS = 8


@pytest.fixture
def pair(postgres_home: Home, tmp_path: Path) -> Iterator[tuple[Home, list[Replica]]]:
    """A home and two replicas that run."""

    async def load() -> object:
        async with opened(postgres_home, serving=False) as made:
            return made.inst

    with replicas(postgres_home, tmp_path, asyncio.run(load())) as made:  # type: ignore[arg-type]  # an Installation
        yield postgres_home, made


class Load:
    """Clients behind a round robin that issue, revoke every fourth, and look at the CRL, until `stop`."""

    def __init__(self, made: list[Replica]) -> None:
        self._made = made
        self._over = threading.Event()
        self.issued: dict[str, str] = {}  # the idempotency key, to the id that it got
        self.revoked: set[str] = set()
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._watch))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(3 * SECONDS)

    def more(self, count: int) -> None:
        """Wait for so many more certificates."""
        goal = len(self.issued) + count
        for _ in range(SECONDS * 50):
            if len(self.issued) >= goal or self.errors:
                return
            threading.Event().wait(0.02)
        raise AssertionError("the clients get nothing")

    def _run(self, number: int) -> None:
        try:
            with Balanced(self._made[number % 2 :] + self._made[: number % 2]) as client:
                self._ask(number, client)
        except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
            self.errors.append(error)

    def _ask(self, number: int, client: Balanced) -> None:
        for turn in range(100_000):
            if self._over.is_set():
                return
            key = f"client-{number}-{turn}"
            reply = client.post(CERTIFICATES, {"profile": "server", "csr": csr(f"n{number}.internal")}, key)
            assert reply.status_code == 201, reply.text
            self.issued[key] = reply.json()["id"]
            if turn % 4 == 0:
                path = f"{CERTIFICATES}/{self.issued[key]}/revoke"
                done = client.post(path, {"reason": "superseded"}, f"revoke-{key}")
                assert done.status_code == 200, done.text
                self.revoked.add(self.issued[key])

    def _watch(self) -> None:
        last = 0
        try:
            with Balanced(self._made) as client:
                while not self._over.wait(0.05):
                    number = client.crl()
                    assert number >= last
                    last = number
        except BaseException as error:  # noqa: BLE001  # as above
            self.errors.append(error)


def agree(home: Home, load: Load, made: list[Replica]) -> None:
    """What the clients were told is what the books say."""
    assert not load.errors, load.errors

    async def main() -> None:
        async with opened(home, serving=False) as there:
            rows = await books(there.inst)
        mine = {row.id: row for row in rows.values() if row.profile == "server"}
        live = {id for id, row in mine.items() if row.orphaned_at is None and row.failed_at is None}
        assert live == set(load.issued.values())  # none lost, none twice
        assert len(set(load.issued.values())) == len(load.issued)
        assert {id for id in live if mine[id].revoked_at is not None} == load.revoked
        for one in made:
            for id in list(load.revoked)[:20]:
                assert isinstance(one.status(mine[id].serial), Revoked)

    asyncio.run(main())


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-17")
@pytest.mark.invariant("I-64")
def test_replicas_restarted_one_after_the_other_under_load(pair: tuple[Home, list[Replica]]) -> None:
    home, made = pair
    with Load(made) as load:
        load.more(20)
        for one in made:
            one.stop()
            load.more(20)  # by the other one
            one.start()
            load.more(20)
    agree(home, load, made)


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-17")
def test_a_replica_that_dies_under_load(pair: tuple[Home, list[Replica]]) -> None:
    home, made = pair
    with Load(made) as load:
        for one in made:
            load.more(20)
            one.kill()
            # Who asked when it died is told to ask again until the lease of what it left open is over.
            home.lapse()
            one.start()
    agree(home, load, made)


@pytest.mark.invariant("I-33")
@pytest.mark.invariant("I-56")
def test_a_database_that_is_restarted_at_once_under_load(pair: tuple[Home, list[Replica]], postgres: Postgres) -> None:
    """Without a checkpoint: it recovers from its log. Nobody restarts the servers."""
    home, made = pair
    with Load(made) as load:
        for _ in range(2):
            load.more(20)
            postgres.restart(immediate=True)
            home.lapse()
        load.more(20)
    agree(home, load, made)


# ── N and N + 1 ───────────────────────────────────────────────────────────────────────────────────────────────────


def expand(conn: Connection) -> None:
    """What the next version's migration does first: room that this version does not know."""
    conn.execute(text("ALTER TABLE certificates ADD COLUMN colour TEXT NULL"))
    conn.execute(text("CREATE TABLE colours (name TEXT PRIMARY KEY)"))
    serves = "INSERT INTO facts (name, at, data) VALUES ('schema.serves', 0, :oldest)"
    conn.execute(text(serves + " ON CONFLICT (name) DO UPDATE SET data = :oldest"), {"oldest": NEWEST})
    conn.execute(text("UPDATE alembic_version SET version_num = '9000'"))


def contract(conn: Connection) -> None:
    """What it does a release later."""
    conn.execute(text("UPDATE facts SET data = '9000' WHERE name = 'schema.serves'"))


@pytest.mark.invariant("I-61")
@pytest.mark.invariant("I-64")
def test_two_versions_side_by_side(pair: tuple[Home, list[Replica]]) -> None:
    home, (first, second) = pair
    second.stop()
    db = open_database(home.url)
    try:
        with Load([first]) as load:
            load.more(10)
            db.write_sync(expand)  # under this version's feet
            load.more(10)
            second.start()  # this version, which meets the newer tables at its start
            load.more(10)
            coloured = text("UPDATE certificates SET colour = 'green' WHERE issued_at IS NOT NULL")
            db.write_sync(lambda conn: conn.execute(coloured).rowcount)  # the next version's own write
            load.more(10)
        agree(home, load, [first, second])
        db.write_sync(contract)
        with pytest.raises(Problem, match="Use a newer program") as caught:
            db.read_sync(check_schema)
        assert caught.value.code == "RW-SCHEMA"
        second.stop()
        with pytest.raises(AssertionError, match="Use a newer"):
            second.start()
    finally:
        db.close()
