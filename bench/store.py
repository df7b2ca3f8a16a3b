"""What the store's part of an issuance costs: both commits (intent and done, each with its event), in groups.

`python bench/store.py [postgresql-url]` prints microseconds per issuance beside what the driver alone takes for the
same statements (SQLite, groups of 32, one thread), and what a status look-up takes. Ratios, not a test: the disk
decides the rest.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import sqlite as sqlite_dialect

from rootward.store import authorities, certificates, events
from rootward.store.db import Database, Rows, open_database
from rootward.store.ids import new_id
from rootward.store.migrations import migrate
from rootward.store.rows import _Compiled  # the statements as the store compiles them

NOW = datetime.now(UTC).replace(microsecond=0)
TBS = os.urandom(620)
ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
SECONDS = 3


def both(lease: str) -> tuple[bytes, Rows, Rows]:
    """A serial, and the rows of one issuance's two commits."""
    id = new_id()
    serial = secrets.token_bytes(16)
    name = f"host-{id[:8]}.internal"
    values = {
        "id": id,
        "issuer": 1,
        "serial": serial,
        "authority": "issuing",
        "profile": "server",
        "profile_version": 1,
        "tbs": TBS,
        "algorithm": ALGORITHM,
        "key_id": secrets.token_hex(32),
        "subject": f"CN={name}",
        "names": (f"dns:{name}",),
        "not_before": NOW,
        "not_after": NOW + timedelta(days=30),
        "owner": "team-a",
        "requester": "p-1",
        "request_id": id,
        "lease": lease,
        "intended_at": NOW,
    }
    data = {"profile": "server", "version": 1, "names": [f"dns:{name}"], "serial": serial.hex()}
    event: dict[str, Any] = {
        "actor": "p-1",
        "authority": "issuing",
        "certificate": id,
        "request_id": id,
        "at": NOW,
        "data": data,
    }
    done = certificates.complete(id, signature=os.urandom(71), sha256=secrets.token_hex(32), issued_at=NOW, lease=lease)
    intended = certificates.intend_while_open(values) + events.record("issue.intended", **event)
    return serial, intended, done + events.record("issue.done", **event)


def prepare(db: Database) -> None:
    """Make the tables, and the authority that issues."""
    db.write_sync(migrate)
    db.write_sync(authorities.add("issuing", "issuing", parent=None, settings="{}", at=NOW))


async def through_the_store(db: Database, together: int) -> tuple[float, list[bytes]]:
    """Microseconds per issuance with `together` askers at a time, and the serials that were made."""
    serials: list[bytes] = []
    end = time.perf_counter() + SECONDS

    async def ask() -> None:
        while time.perf_counter() < end:
            serial, intended, done = both(db.lease)
            await db.write(intended)
            await db.write(done)
            serials.append(serial)

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(together)))
    return (time.perf_counter() - start) / len(serials) * 1e6, serials


def through_the_driver(path: str, together: int) -> float:
    """Microseconds per issuance with nothing between the statements and sqlite3 but `executemany`."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA synchronous=FULL")
    dialect = sqlite_dialect.dialect()
    count = 0
    start = time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        group = [both("lease")[1:] for _ in range(together)]
        for commit in zip(*group, strict=True):
            conn.execute("BEGIN IMMEDIATE")
            for steps in zip(*(rows.steps for rows in commit), strict=True):
                compiled = _Compiled(steps[0][0], tuple(steps[0][1]), dialect)
                conn.executemany(compiled.sql, [compiled.bind(values) for _, values, _ in steps])
            conn.execute("COMMIT")
        count += together
    spent = time.perf_counter() - start
    conn.close()
    return spent / count * 1e6


async def look(db: Database, serials: list[bytes]) -> float:
    """Median microseconds of one status look-up."""
    times = []
    for serial in serials[:5000]:
        start = time.perf_counter()
        await db.look(lambda conn, serial=serial: certificates.status_of(conn, 1, serial))  # type: ignore[misc]  # a bench
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    """Run against fresh SQLite files here, or the empty PostgreSQL database of the URL."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        db = open_database(
            sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] != "--short" else f"sqlite:///{folder}/bench.db"
        )
        prepare(db)
        print(db.dialect)
        for together in (1, 8, 32, 64):
            cost, serials = asyncio.run(through_the_store(db, together))
            print(f"{together:3d} together: {cost:7.0f} µs an issuance")
        print(f"status look-up: {asyncio.run(look(db, serials)):.1f} µs")
        db.close()
        if db.dialect == "sqlite":
            plain = open_database(f"sqlite:///{folder}/plain.db")
            prepare(plain)
            plain.close()
            print(f"sqlite3 alone, groups of 32: {through_the_driver(f'{folder}/plain.db', 32):.0f} µs an issuance")


if __name__ == "__main__":
    main()
