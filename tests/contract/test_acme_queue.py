"""The many of one account: of each the first few are due, and nobody queues without end (RFC 8555 6.6)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rootward.protocols.acme import limits
from rootward.store import authorizations
from rootward.store.rows import Rows
from tests.support.acme import Client, Wire
from tests.support.world import World


async def test_the_queue_of_one_account_stands_in_nobodys_way(lab: World) -> None:
    """Of each account the first few are due; and one account cannot queue without end (RFC 8555 6.6)."""
    now = lab.clock()

    def new(n: int, account: str, since: int) -> Rows:
        at = now - timedelta(seconds=since)
        id = f"{account}{n:019}"
        row = authorizations.New(
            id, account, f"dns:{n}.internal", False, "t", ("http-01",), at, now + timedelta(days=1)
        )
        return authorizations.add(row) + authorizations.choose(
            id, challenge="http-01", thumbprint="x", at=at, lease=None, lease_until=None
        )

    for n in range(400):
        await lab.inst.db.write(new(n, "ann", 100))
    await lab.inst.db.write(new(0, "bob", 1))
    due = await lab.inst.db.read(
        lambda conn: authorizations.due(conn, now=now + timedelta(days=400), each=16, limit=256)
    )
    assert [one.account for one in due] == ["ann"] * 16 + ["bob"]
    counts = await lab.inst.db.look(
        lambda conn: [authorizations.trying(conn, name, most=300) for name in ("ann", "bob", "nobody")]
    )
    assert counts == [300, 1, 0]


async def test_who_has_too_many_being_looked_at_is_told_when_to_come_back(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AT_ONCE", 0)
    client = Client(Wire.of(lab.inst))
    await client.register()
    order = (await client.post("new-order", {"identifiers": [{"type": "dns", "value": "a.internal"}]})).json
    challenge = (await client.post(order["authorizations"][0])).json["challenges"][0]
    reply = await client.post(challenge["url"], {})
    assert (reply.status, reply.problem, reply.headers["retry-after"]) == (429, "rateLimited", "10")
    assert (await client.post(challenge["url"])).json["status"] == "pending"
