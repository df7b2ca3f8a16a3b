"""Reading everything at one moment, on a connection of its own: for exports, backups and checks that take long.

It needs no lock of ours: on SQLite another process may be the server at the same time. What SQLite before 3.51.3 cannot
take is two connections that write or checkpoint at once, and this one (`mode=ro`) does neither: it commits nothing, so
it never checkpoints by itself, and the checkpoint of the last connection to close wants an exclusive lock on a file
that it has not opened for writing. After a crash it may rebuild the WAL's index, shared memory, under SQLite's
own locks, as whoever comes first does. While it reads, the WAL cannot begin anew: it grows by what is written.
Nobody's changes are seen after it began.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine, make_url

from rootward.core.problems import Problem, shown
from rootward.store.errors import translating

_POSTGRES = "SET TIME ZONE 'UTC'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '1h'"


@contextmanager
def snapshot(url: str, *, home: Path | None = None) -> Iterator[Connection]:
    """A read-only connection to the database at `url`, as `open_database` takes it, for the `with` block.

    It may be handed from thread to thread, one at a time. Problem RW-STORE where there is no such database.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with _sqlite((home or Path()) / str(parsed.database)) as conn:
            yield conn
        return
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        isolation_level="REPEATABLE READ",
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "rootward-snapshot"},
    )
    with translating, engine.connect() as conn:
        conn.exec_driver_sql("SET TRANSACTION READ ONLY")
        conn.exec_driver_sql(_POSTGRES)
        yield conn


@contextmanager
def _sqlite(path: Path) -> Iterator[Connection]:
    def connect() -> sqlite3.Connection:
        driver = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5, isolation_level=None, check_same_thread=False
        )
        driver.execute("PRAGMA cache_size = -16384").close()
        return driver

    if not path.is_file():
        raise Problem("RW-STORE", f"{shown(str(path), 400)} is no database.")
    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    with translating, engine.connect() as conn:
        conn.exec_driver_sql("BEGIN")
        yield conn
