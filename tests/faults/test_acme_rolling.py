"""Replicas restarted one after the other while ACME clients order behind a load balancer: no order is lost, none gives
two certificates, and what was under way at the one that goes is ended by the other.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootward.core.problems import Problem
from tests.faults.orders import judged
from tests.faults.test_acme_replicas import URL, Town, load, settings
from tests.support.customer import Customer, Kept
from tests.support.faults import Home, opened
from tests.support.postgres import Postgres
from tests.support.proofs import Proofs
from tests.support.remote import Remote
from tests.support.replicas import SECONDS, replicas

CLIENTS = 4
EACH = 6  # orders that must come between two blows


@pytest.fixture
def town(postgres_home: Home, tmp_path: Path) -> Iterator[Town]:
    """Two that run."""
    with Proofs() as proofs:
        how: dict[str, Any] = {"settings": settings(proofs)}
        with replicas(postgres_home, tmp_path, load(postgres_home), **how) as (first, second):
            yield Town(postgres_home, first, second, proofs)


@dataclass
class Load:
    """Clients that order until `over`, each time a new name; `done` are the disks of those that have what they want."""

    town: Town
    over: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[Kept] = field(default_factory=list)

    async def client(self, number: int) -> None:
        """One of them; at each failure it goes to the other door."""
        async with self.town.doors() as doors:
            turns = itertools.cycle(doors[number % 2 :] + doors[: number % 2])
            while not self.over.is_set():
                one = Customer(next(turns), self.town.disk(), polls=SECONDS * 20)
                await self.obtain(one, turns)
                self.done.append(one.disk)

    async def obtain(self, one: Customer, turns: Iterator[Remote]) -> None:
        for _ in range(SECONDS * 20):
            try:
                await one.chain()
            except (httpx.TransportError, Problem):
                one.wire = one.client.wire = next(turns)
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError(f"{one.disk.name} gets nothing")

    async def more(self, working: asyncio.Task[Any]) -> None:
        """Wait for some more certificates."""
        goal = len(self.done) + EACH
        while len(self.done) < goal:
            assert not working.done(), working
            await asyncio.sleep(0.05)


async def under_load(town: Town, blows: list[Callable[[], object]]) -> None:
    """Strike a blow after the other; every order that was begun has its one certificate in the end."""
    orders = Load(town)
    async with AsyncExitStack() as stack:
        group = asyncio.gather(*(orders.client(number) for number in range(CLIENTS)))
        working = asyncio.ensure_future(group)
        stack.callback(working.cancel)
        for blow in blows:
            await orders.more(working)
            await asyncio.to_thread(blow)
        await orders.more(working)
        orders.over.set()
        await working
    async with opened(town.home, serving=False) as made:
        for disk in orders.done:
            await judged(made, disk)


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-50")
@pytest.mark.invariant("I-64")
def test_orders_while_replicas_are_restarted_one_after_the_other(town: Town) -> None:
    both = (town.first, town.second)
    asyncio.run(under_load(town, [blow for one in both for blow in (one.stop, one.start)]))


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-50")
def test_orders_while_replicas_die(town: Town) -> None:
    """What a dead one holds is free when its leases have run out."""

    def die(which: int) -> None:
        one = (town.first, town.second)[which]
        one.kill()
        town.home.lapse()
        one.start()

    asyncio.run(under_load(town, [lambda: die(0), lambda: die(1), lambda: die(0)]))


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-47")
@pytest.mark.invariant("I-50")
def test_orders_while_the_database_is_restarted_at_once(town: Town, postgres: Postgres) -> None:
    """Without a checkpoint: it recovers from its log. Nobody restarts the servers."""

    def restart() -> None:
        postgres.restart(immediate=True)
        town.home.lapse()

    asyncio.run(under_load(town, [restart, restart]))


def test_what_clients_call_the_replicas_is_one_name(town: Town) -> None:
    """Else no order could go on at the other: the url in each signature is checked (RFC 8555 6.4)."""

    async def main() -> None:
        for one in (town.first, town.second):
            async with Remote(one, URL) as door:
                directory = await door.send("GET", f"{URL}/acme/directory")
                assert directory.json["newOrder"] == f"{URL}/acme/new-order"

    asyncio.run(main())
