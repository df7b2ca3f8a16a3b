"""A CA with 10,000 certificates held by as many ACME accounts is compromised: how long until every renewal window has
moved, and what the report of its replacement costs, on both stores.

The window of each certificate is asked for afterwards, as a client does, and must lie in the waves.
`python -m bench.compromise [--short]`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from bench.report import heading, median, row
from rootward.ca import acts, compromise, people
from rootward.ca.access import Caller, Principal
from rootward.core.ari import write_id
from rootward.core.roles import Grant, Role
from rootward.core.waves import span
from rootward.fleet import replacement
from rootward.store.schema import certificates, principals
from rootward.store.schema_acme import orders
from rootward.telemetry import configure_logging
from tests.support.acme import Client, Wire
from tests.support.installation import Lab, lab
from tests.support.postgres import Postgres
from tests.support.second import add_second
from tests.support.store import intent

PROMISE = 10.0
MANY, FEW = 10_000, 1_000
ROUNDS = 5


def main(many: int) -> None:
    configure_logging("console", "critical")
    heading(f"Compromise of a CA with {many:,} certificates of ACME accounts")
    row("what", "figure")
    with tempfile.TemporaryDirectory() as folder:
        _show("SQLite", asyncio.run(_measure(f"sqlite:///{folder}/bench.db", many)))
    with Postgres() as postgres:
        _show("PostgreSQL", asyncio.run(_measure(postgres.url(), many)))


def _show(store: str, found: dict[str, float]) -> None:
    row(f"{store}: from the yes until every window has moved", f"{found['yes']:.2f} s (promised: under {PROMISE:.0f})")
    row(f"{store}: each window asked for, one after the other", f"{found['window'] * 1e6:.0f} µs")
    row(f"{store}: the report, nothing replaced", f"{found['report'] * 1e3:.1f} ms")
    row(f"{store}: the report, a half replaced", f"{found['half'] * 1e3:.1f} ms")


async def _measure(url: str, many: int) -> dict[str, float]:
    async with lab(url) as made:
        inst = made.inst
        await add_second(inst)
        names = await inst.db.write(lambda conn: _fill(conn, made, many))
        bob = await people.create_person(inst, "bob", made.admin)
        await people.create_grant(
            inst, principal_id=bob.id, role=Role.APPROVER, authority=None, profile=None, caller=made.admin
        )
        second = Caller(Principal(bob.id, "person", "bob", (Grant(Role.APPROVER),)), "bench")
        proposal = await compromise.propose(inst, "issuing", "second", "a bench", None, made.admin)
        began = time.perf_counter()
        await acts.approve(inst, proposal.id, None, second)
        found = {"yes": time.perf_counter() - began}
        at, until = inst.clock(), inst.clock() + span(many)
        client = Client(Wire.of(inst))
        began = time.perf_counter()
        for name in names:
            start, end = await _window(client, name)
            if not (start <= until + timedelta(minutes=1) and (end <= at or start >= at - timedelta(minutes=1))):
                raise AssertionError(f"{start} to {end} is in no wave until {until}")
        found["window"] = (time.perf_counter() - began) / len(names)
        found["report"] = await _report(made, many)
        await inst.db.write(lambda conn: _fill(conn, made, many // 2, authority="second"))
        found["half"] = await _report(made, many - many // 2)
        return found


async def _window(client: Client, name: str) -> tuple[datetime, datetime]:
    reply = await client.get(f"https://localhost:8443/acme/renewal-info/{name}")
    suggested = reply.json["suggestedWindow"]
    return datetime.fromisoformat(suggested["start"]), datetime.fromisoformat(suggested["end"])


async def _report(made: Lab, remaining: int) -> float:
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        told, page = await replacement.report(made.inst, "issuing", after=None, limit=50)
        seconds.append(time.perf_counter() - began)
        if told.counts.remaining < remaining or len(page) != min(50, told.counts.remaining):
            raise AssertionError(told)
    return median(seconds)


def _fill(conn: Connection, made: Lab, many: int, *, authority: str = "issuing") -> list[str]:
    """So many certificates, each of an account of its own, whose last order was a while ago; their names in ARI."""
    inst, now, rows, accounts, ordered, names = made.inst, made.inst.clock(), [], [], [], []
    issuer = inst.authority(authority)
    for n in range(many):
        who, serial = f"acc{n:019}", b"\x01" + secrets.token_bytes(19)
        given: dict[str, Any] = intent(
            inst.db.lease,
            issuer=issuer.n,
            serial=serial,
            authority=authority,
            requester=who,
            names=msgspec.json.encode([f"dns:n{n}.internal"]).decode(),
            not_before=now - timedelta(days=1),
            not_after=now + timedelta(days=89),
            intended_at=now - timedelta(days=1),
        )
        done = {"signature": b"s", "sha256": secrets.token_hex(32), "issued_at": now - timedelta(days=1)}
        rows.append({"source": "issued", "labels": "{}", **given, **done})
        names.append(write_id(issuer.issuer.subject_key_id, serial))
        if authority == "issuing":
            accounts.append({"id": who, "kind": "account", "name": f"acme:{who}", "created_at": now})
            ordered.append(
                {
                    "id": secrets.token_hex(11),
                    "account": who,
                    "profile": "server",
                    "identifiers": "[]",
                    "authorizations": "[]",
                    "created_at": now - timedelta(days=1),
                    "expires_at": now,
                }
            )
    conn.execute(insert(certificates), rows)
    if accounts:
        conn.execute(insert(principals), accounts)
        conn.execute(insert(orders), ordered)
    return names


if __name__ == "__main__":
    main(FEW if "--short" in sys.argv[1:] else MANY)
