"""The whole store as rows, out of one consistent state and into empty tables: what a backup is made of.

Values are raw, as the database has them (whole Unix seconds, JSON texts, bytes), and the same on both dialects, so
that rows of one go into the other. What is made from other rows is left out: the search index, Alembic's version.

`snapshot` opens the database beside the server that has it (`store/snapshot.py` says why that is safe).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine, event, inspect, make_url

from rootward.core.problems import Problem, shown
from rootward.store import migrations
from rootward.store import snapshot as snapshots
from rootward.store.errors import translating
from rootward.store.schema import metadata

Row = tuple[Any, ...]

# What of a process that is gone must not hold up the one that comes: leases. And the search index is filled anew.
_ANEW: Final[dict[str, frozenset[str]]] = {
    "certificates": frozenset({"lease_until", "indexed_at"}),
    "jobs": frozenset({"lease", "lease_until"}),
}
_FETCH = 500
_SESSION = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronous_commit = on"


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """A connection whose reads all see one state of the database at `url`, whoever writes meanwhile.

    Problem RW-STORE where it cannot be read, RW-SCHEMA where its tables are newer than this program.
    """
    with snapshots.snapshot(url) as conn:
        version = migrations.version_of(conn)
        if version is None or version > migrations.NEWEST:
            raise Problem(
                "RW-SCHEMA",
                "The database has no tables yet: there is nothing to back up."
                if version is None
                else f"The database's tables are of version {shown(version)}; this program knows "
                f"{migrations.NEWEST} and would forget what it does not know. Use the newer program.",
            )
        yield conn


def tables(conn: Connection) -> list[tuple[str, list[str]]]:
    """Every table that is kept and its columns, as the database has them; one comes after those that it refers to."""
    found = inspect(conn)
    present = set(found.get_table_names())
    return [
        (str(table.name), [str(column["name"]) for column in found.get_columns(table.name)])
        for table in metadata.sorted_tables
        if table.name in present
    ]


def count(conn: Connection, table: str) -> int:
    """How many rows it has."""
    return int(conn.exec_driver_sql(f"SELECT count(*) FROM {_name(table)}").scalar_one())  # noqa: S608  # our own name


def rows(conn: Connection, table: str, columns: list[str]) -> Iterator[Row]:
    """The rows of a table by their key, a few hundred in memory at a time."""
    collate = ' COLLATE "C"' if conn.dialect.name == "postgresql" else ""
    key = ", ".join(
        _name(column.name) + (collate if column.type.python_type is str else "")
        for column in metadata.tables[table].primary_key.columns
    )
    sql = f"SELECT {', '.join(map(_name, columns))} FROM {_name(table)} ORDER BY {key}"  # noqa: S608  # our own names
    driver: Any = conn.connection.dbapi_connection
    if conn.dialect.name == "sqlite":
        cursor = driver.cursor()
        cursor.arraysize = _FETCH
        cursor.execute(sql)
    else:
        cursor = driver.cursor(name="rootward_dump", binary=True)
        cursor.itersize = _FETCH
        cursor.execute(sql)
    try:
        while found := cursor.fetchmany(_FETCH):
            yield from map(tuple, found)
    finally:
        cursor.close()


@contextmanager
def loading(url: str) -> Iterator[Connection]:
    """A connection to an empty database for `load`, in one transaction that is committed at the end of the block.

    A SQLite file is the caller's alone and no use to anybody before the end: it is made without a journal, and flushed
    by the caller. Problem RW-CONFLICT where there are tables of ours already.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        pragmas = ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-131072")
        engine = _sqlite(Path(str(parsed.database)), pragmas)
    else:
        engine = _postgres(url)
    with translating, engine.connect() as conn:
        if conn.dialect.name == "sqlite":
            conn.exec_driver_sql("BEGIN IMMEDIATE")
        ours = {*metadata.tables, "alembic_version", "certificate_search"}
        if ours & set(inspect(conn).get_table_names()):
            raise Problem(
                "RW-CONFLICT",
                "The database has tables of Rootward already. A backup is restored into an empty one only: make a new "
                "database, or drop this one if it is what a restore left that was cut off.",
            )
        yield conn  # where the block raises, the connection is closed, which rolls back
        conn.commit()


def load(conn: Connection, table: str, columns: list[str], found: Iterable[list[Row]]) -> None:
    """Put rows into an empty table, or in the place of what the migrations put there; `found` gives them in batches.

    Problem RW-BACKUP-DAMAGED for a table or column that the schema has not.
    """
    if columns != dict(tables(conn)).get(table):
        known = dict(tables(conn)).get(table, [])
        if set(columns) - set(known) or not columns:
            raise Problem("RW-BACKUP-DAMAGED", f"The backup's table {shown(table)} is none of its schema's.")
    anew = [at for at, column in enumerate(columns) if column in _ANEW.get(table, ())]
    batches = (_without(batch, anew) for batch in found) if anew else found
    into = f"{_name(table)} ({', '.join(map(_name, columns))})"
    if count(conn, table):
        conn.exec_driver_sql(f"DELETE FROM {_name(table)}")  # noqa: S608  # our own name
    driver: Any = conn.connection.dbapi_connection
    if conn.dialect.name == "sqlite":
        sql = f"INSERT INTO {into} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608  # our own names
        for batch in batches:
            driver.executemany(sql, batch)
    else:
        # One statement, so that rows may refer to later ones of their own table (authorities.parent).
        with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for batch in batches:
                for row in batch:
                    copy.write_row(row)


def settle(conn: Connection) -> None:
    """After the last row: every reference is there, and new rows get numbers above all that are loaded."""
    if conn.dialect.name == "sqlite":
        broken = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise Problem("RW-BACKUP-DAMAGED", f"A row of {shown(str(broken[0][0]))} refers to one that is not there.")
        return
    for name, columns in tables(conn):  # of the schema that is loaded, which may be an older one
        if "n" in columns:
            conn.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', 'n'), max(n)) "  # noqa: S608  # our own name
                f"FROM {_name(name)} HAVING max(n) IS NOT NULL"
            )


def _without(batch: list[Row], anew: list[int]) -> list[Row]:
    cleared = []
    for row in batch:
        values = list(row)
        for at in anew:
            values[at] = None
        cleared.append(tuple(values))
    return cleared


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sqlite(path: Path, pragmas: tuple[str, ...]) -> Any:
    def connect() -> sqlite3.Connection:
        driver = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rwc", uri=True, timeout=10, isolation_level=None, check_same_thread=False
        )
        for pragma in pragmas:
            driver.execute(pragma).close()
        return driver

    return create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)


def _postgres(url: str) -> Any:
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 10, "application_name": "rootward-backup"},
    )

    @event.listens_for(engine, "connect")
    def _prepare(driver: Any, _record: Any) -> None:
        autocommit, driver.autocommit = driver.autocommit, True
        driver.execute(_SESSION)
        driver.autocommit = autocommit

    return engine
