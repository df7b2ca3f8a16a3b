"""Databases for tests, and rows to put into them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rootward.store import certificates, events
from rootward.store.db import Database, Rows, open_database
from rootward.store.ids import new_id
from rootward.store.migrations import migrate
from tests.support.postgres import Postgres

DIALECTS = ["sqlite", "postgresql"]
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def fresh_url(dialect: str, folder: Path, postgres: Postgres) -> str:
    """The URL of an empty database of `dialect`."""
    return f"sqlite:///{folder}/test.db" if dialect == "sqlite" else postgres.url()


def prepare(url: str) -> None:
    """Make the tables."""
    db = open_database(url)
    try:
        db.write_sync(migrate)
    finally:
        db.close()


@contextmanager
def fresh(dialect: str, folder: Path, postgres: Postgres) -> Iterator[Database]:
    """An open database with its tables, which is gone afterwards."""
    url = postgres.url(prepare) if dialect == "postgresql" else fresh_url(dialect, folder, postgres)
    if dialect == "sqlite":
        prepare(url)
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()
        if dialect == "postgresql":
            postgres.drop(url)


def intent(lease: str = "lease", **changes: Any) -> dict[str, Any]:
    """Values of one intent, as `certificates.intend` takes them."""
    return {
        "id": new_id(),
        "issuer": 1,
        "serial": secrets.token_bytes(16),
        "authority": "issuing",
        "profile": "server",
        "profile_version": 1,
        "tbs": b"\x30\x03\x02\x01\x05",
        "algorithm": bytes.fromhex("300a06082a8648ce3d040302"),
        "key_id": secrets.token_hex(32),
        "subject": "CN=a.internal",
        "names": ("dns:a.internal",),
        "not_before": NOW,
        "not_after": NOW + 30 * DAY,
        "owner": None,
        "requester": "p-1",
        "request_id": "r-1",
        "lease": lease,
        "intended_at": NOW,
    } | changes


def issued(db: Database, **changes: Any) -> str:
    """Put an issued certificate into the database; returns its id."""
    values = intent(db.lease, **changes)
    db.write_sync(certificates.intend(values))
    db.write_sync(complete(values["id"], db.lease))
    return str(values["id"])


def complete(id: str, lease: str) -> Rows:
    """The rows that make an intent a certificate."""
    sha256 = secrets.token_hex(32)
    return certificates.complete(id, signature=b"signature", sha256=sha256, issued_at=NOW, lease=lease)


def event(kind: str = "test.happened", **changes: Any) -> Rows:
    """The row of an event."""
    return events.record(kind, **({"actor": "p-1", "request_id": "r-1", "at": NOW} | changes))
