"""Where `tools/fill.py` puts its rows: past `Database`, in bulk, with the indexes made afterwards; on SQLite without
waiting for the disk, since whoever loses power here fills again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

TABLES = ("certificates", "events", "acme_accounts", "acme_orders", "acme_authorizations")  # that are filled


class Store(Protocol):
    """Where rows go, in bulk. `first` gives the highest `n` of a table."""

    def highest(self, table: str) -> int: ...
    def put(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None: ...
    def run(self, sql: str, values: Sequence[Any] = ()) -> None: ...
    def one(self, sql: str) -> Any: ...
    def all(self, sql: str) -> list[tuple[Any, ...]]: ...
    def index_names(self, rows: Iterable[tuple[int, str]]) -> None: ...


class _Sqlite:
    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def highest(self, table: str) -> int:
        return int(self._conn.execute(f"SELECT coalesce(max(n), 0) FROM {table}").fetchone()[0])  # noqa: S608  # our own table

    def put(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        self._conn.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)  # noqa: S608  # our own table

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._conn.execute(sql, values)

    def one(self, sql: str) -> Any:
        return self._conn.execute(sql).fetchone()

    def all(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._conn.execute(sql).fetchall())

    def index_names(self, rows: Iterable[tuple[int, str]]) -> None:
        self._conn.executemany("INSERT INTO certificate_search (rowid, text) VALUES (?, ?)", rows)


class _Postgres:
    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def highest(self, table: str) -> int:
        return int(self._conn.execute(f"SELECT coalesce(max(n), 0) FROM {table}").fetchone()[0])  # noqa: S608  # our own table

    def put(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        with self._conn.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._conn.execute(sql.replace("?", "%s"), values)

    def one(self, sql: str) -> Any:
        return self._conn.execute(sql).fetchone()

    def all(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._conn.execute(sql).fetchall())

    def index_names(self, rows: Iterable[tuple[int, str]]) -> None:
        self.put("certificate_search", ("n", "text"), list(rows))


def _in(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


@contextmanager
def sqlite(path: Path) -> Iterator[Store]:
    with path.with_name(path.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is being served
        conn = sqlite3.connect(path, isolation_level=None)
        for pragma in ("synchronous=OFF", "cache_size=-524288", "temp_store=MEMORY", "wal_autocheckpoint=20000"):
            conn.execute(f"PRAGMA {pragma}")
        found = conn.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN "  # noqa: S608  # our own tables
            f"({_in(TABLES)})"
        ).fetchall()
        conn.execute("BEGIN IMMEDIATE")
        for name, _ in found:
            conn.execute(f"DROP INDEX {name}")
        yield _Sqlite(conn)
        for _, sql in found:
            conn.execute(sql)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        conn.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def postgres(url: str) -> Iterator[Store]:
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=False) as conn:
        conn.execute("SET LOCAL synchronous_commit = off")
        conn.execute("SET LOCAL maintenance_work_mem = '512MB'")
        found = conn.execute(
            "SELECT i.indexname, i.indexdef FROM pg_indexes i "  # noqa: S608  # our own tables
            "LEFT JOIN pg_constraint c ON c.conname = i.indexname "
            "WHERE i.schemaname = current_schema() AND c.conname IS NULL "
            f"AND i.tablename IN ({_in(TABLES)}, 'certificate_search')"
        ).fetchall()
        for name, _ in found:
            conn.execute(f"DROP INDEX {name}")
        yield _Postgres(conn)
        for table in TABLES:
            conn.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'n'), greatest((SELECT max(n) FROM {table}), 1))"  # noqa: S608  # our own tables
            )
        for _, sql in found:
            conn.execute(sql)
        conn.commit()
        conn.autocommit = True
        for table in (*TABLES, "certificate_search"):
            conn.execute(f"VACUUM ANALYZE {table}")
