"""What an ACME client does in a process that is killed, and how its next start looks at what is left."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from sqlalchemy import select

from rootward.protocols.acme.call import Settings
from rootward.store import requests
from rootward.store.certificates import Certificate
from rootward.store.schema_acme import authorizations, orders
from tests.support.acme import Wire
from tests.support.customer import Customer, Kept
from tests.support.faults import CAREFUL, Open, Say, books
from tests.support.proofs import Ports


def customer(made: Open, disk: Kept, ports: Ports, say: Say = lambda _kept: None) -> Customer:
    """A client of this home's door, with the server's background work done when it waits."""
    wire = Wire.of(made.inst, Settings(accounts_per_hour=100_000), ways=ports.ways)
    return Customer(wire, disk, say=say, turn=partial(turn, wire))


async def turn(wire: Wire) -> None:
    """What the server does each second: take up what is due, here to its end."""
    await wire.validator.take_up(wire.inst)
    await asyncio.gather(*wire.validator._tasks)


async def pursue(made: Open, say: Say, disk: Kept, ports: Ports, *until: str) -> None:
    """Carry an order to its end; says the client's disk at each change of it, and at last the order's state."""
    order = await customer(made, disk, ports, say).pursue(*until)
    say(order.json["status"])


async def ask(made: Open, say: Say, disk: Kept, ports: Ports) -> None:
    """Look at the order once; says its state."""
    one = customer(made, disk, ports, say)
    say((await one.good(await one.ordered())).json["status"])


def disk_of(said: list[Any], before: Kept) -> Kept:
    """The client's disk as the dead process left it."""
    kept = [one for one in said if isinstance(one, Kept)]
    return kept[-1] if kept else before


async def judged(made: Open, disk: Kept) -> tuple[Certificate, list[Certificate]]:
    """The one living certificate of a valid order, and the attempts before it, which are orphans and lead to it; the
    books agree, and nothing of its account waits for anybody.
    """
    rows = await books(made.inst)
    mine = [row for row in rows.values() if row.key_id == disk.key_id]
    (living,) = [row for row in mine if row.issued_at is not None]
    assert living.status(made.inst.clock()) == "active"
    before, last = [], living
    while last.retry_of is not None:
        last = rows[last.retry_of]
        assert last.orphaned_at is not None or last.failed_at is not None
        before.append(last)
    assert len(mine) == 1 + len(before)
    order = await order_of(made, disk)
    assert (order.certificate, order.error) == (living.id, None)
    assert order.settled_at is not None
    account = (disk.kid or "").rpartition("/")[2]
    assert living.requester == account
    held = select(authorizations.c.id).where(
        authorizations.c.account == account,
        authorizations.c.next_try_at.is_not(None) | authorizations.c.lease.is_not(None),
    )
    assert await made.inst.db.read(lambda conn: conn.execute(held).all()) == []
    return living, before


async def order_of(made: Open, disk: Kept) -> Any:
    """The order's row."""
    which = select(orders).where(orders.c.id == (disk.order or "").rpartition("/")[2])
    return await made.inst.db.read(lambda conn: conn.execute(which).one())


async def request_of(made: Open, disk: Kept) -> str:
    """The one request that the order waits for."""
    waiting = requests.Filters(status="waiting", profile=CAREFUL)
    account, now = (disk.kid or "").rpartition("/")[2], made.inst.clock()
    found = await made.inst.db.read(lambda conn: requests.list(conn, waiting, now=now))
    (mine,) = [one for one in found if one.principal == account]
    return mine.id
