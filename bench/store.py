"""What the store's part of an issuance costs: both commits (intent and done, each with its event), in groups.

`python bench/store.py [postgresql-url]` prints microseconds per issuance, and what a status look-up takes. Not a test.
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

from rootward.store import certificates, events
from rootward.store.db import Database, open_database
from rootward.store.ids import new_id
from rootward.store.migrations import migrate

NOW = datetime.now(UTC).replace(microsecond=0)
TBS = os.urandom(620)
ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")


async def issue(db: Database) -> bytes:
    """One issuance's two commits."""
    id = new_id()
    serial = secrets.token_bytes(16)
    request = secrets.token_hex(8)
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
        "request_id": request,
        "lease": db.lease,
        "intended_at": NOW,
    }
    event = {"actor": "p-1", "authority": "issuing", "certificate": id, "request_id": request, "at": NOW}
    data = {"profile": "server", "version": 1, "names": [f"dns:{name}"], "serial": serial.hex()}
    await db.write(certificates.intend(values) + events.record("issue.intended", data=data, **event))  # type: ignore[arg-type]  # a bench
    done = certificates.complete(
        id, signature=os.urandom(71), sha256=secrets.token_hex(32), issued_at=NOW, lease=db.lease
    )
    await db.write(done + events.record("issue.done", data=data, **event))  # type: ignore[arg-type]  # a bench
    return serial


async def measure(db: Database, together: int, seconds: float) -> tuple[float, list[bytes]]:
    """Microseconds per issuance with `together` askers at a time, and the serials that were made."""
    serials: list[bytes] = []
    end = time.perf_counter() + seconds

    async def ask() -> None:
        while time.perf_counter() < end:
            serials.append(await issue(db))

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(together)))
    return (time.perf_counter() - start) / len(serials) * 1e6, serials


async def look(db: Database, serials: list[bytes]) -> float:
    """Median microseconds of one status look-up."""
    times = []
    for serial in serials[:5000]:
        start = time.perf_counter()
        await db.look(lambda conn, serial=serial: certificates.status_of(conn, 1, serial))  # type: ignore[misc]  # a bench
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    """Run against a fresh SQLite file, or the empty PostgreSQL database of the URL."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        db = open_database(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/bench.db")
        db.write_sync(migrate)
        print(f"{db.dialect}, SQLite {sqlite3.sqlite_version}")
        for together in (1, 8, 32, 64):
            cost, serials = asyncio.run(measure(db, together, 3))
            print(f"{together:3d} together: {cost:7.0f} µs an issuance")
        print(f"status look-up: {asyncio.run(look(db, serials)):.1f} µs")
        db.close()


if __name__ == "__main__":
    main()
