"""The one way into the database: `write`, `read` and `look`, and nothing is written before it is durable (I-01).

A `write` is a `Rows` or a function that takes the connection; both are one transaction, whole or not at all, and return
after the commit is on disk. Functions may run more than once (a group played again, a deadlock), so they touch nothing
but the connection. Store functions take a Connection, return frozen values, and never commit.

Failures: Problem RW-STORE (the store is away, full or too slow) and RW-UNAVAILABLE (too much waits); `Taken`, `Lost`
and `Constraint` of `errors`. An RW-STORE of a write leaves open whether it happened, as any failing COMMIT does:
whoever needs to know looks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import sqlalchemy.exc
from sqlalchemy import Connection, make_url

from rootward.core.problems import Problem
from rootward.store.errors import Constraint, Lost, Taken
from rootward.store.group import MOST_WAITING
from rootward.store.rows import Look, Rows
from rootward.store.snapshot import snapshot

__all__ = ["MOST_WAITING", "Constraint", "Database", "Look", "Lost", "Rows", "Taken", "clock", "open_database"]

T = TypeVar("T")


class Database:
    """An open database; made by `open_database`, given back by `close`.

    `dialect` is "sqlite" or "postgresql". `lease` names this process among those that hold intents and jobs: random,
    new at each start.
    """

    def __init__(self, engine: Any, source: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._open_engine = engine
        self._source = source
        self._closed = False
        self.dialect: str = engine.dialect
        self.lease = secrets.token_hex(16)

    @overload
    async def write(self, work: Rows) -> None: ...
    @overload
    async def write(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Any) -> Any:
        """Run `work` in one transaction and wait until it is durable. A function's return value comes back."""
        return await self._engine.write(work)

    @overload
    def write_sync(self, work: Rows) -> None: ...
    @overload
    def write_sync(self, work: Callable[[Connection], T]) -> T: ...
    def write_sync(self, work: Any) -> Any:
        """`write` for commands and tests without an event loop; never inside one."""
        return self._engine.write_sync(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` read-only, in another thread."""
        result: T = await self._engine.read(work)
        return result

    def read_sync(self, work: Callable[[Connection], T]) -> T:
        """`read` for commands and tests without an event loop."""
        result: T = self._engine.read_sync(work)
        return result

    async def look(self, work: Callable[[Connection], T]) -> T:
        """`read` for one quick look-up by a key: on SQLite at once, on this thread. Read results to their end inside
        `work`.
        """
        result: T = await self._engine.look(work)
        return result

    async def status(self, work: Callable[[Connection], T]) -> T:
        """`look` for those who ask for a CRL or an OCSP answer: on PostgreSQL in threads and on connections of its own,
        so that it waits for nothing else (I-65).
        """
        result: T = await self._engine.status(work)
        return result

    def waiting(self) -> dict[str, int]:
        """How much was handed over and is not done yet, by queue: `write`, `read`, `status`."""
        found: dict[str, int] = self._engine.waiting()
        return found

    def snapshot(self) -> AbstractContextManager[Connection]:
        """A read-only connection of its own that sees one moment (store/snapshot.py), for what takes long."""
        return self._source()

    def keep_reserve(self) -> None:
        """Hold room on the disk for what must go on when it is full; on PostgreSQL the disk is the operator's."""
        if self.dialect == "sqlite":
            self._engine.reserve.keep()

    def is_low(self) -> bool:
        """Whether so little room is left on the disk that nothing should be written that can wait."""
        return self.dialect == "sqlite" and not self._closed and bool(self._open_engine.reserve.is_low())

    def close(self) -> None:
        """Finish what was handed over and let go of the database. Further calls do nothing."""
        if not self._closed:
            self._closed = True
            self._open_engine.close()

    @property
    def _engine(self) -> Any:
        if self._closed:
            raise Problem("RW-UNAVAILABLE", "The server is shutting down.", retry_after=5)
        return self._open_engine


def open_database(url: str, *, home: Path | None = None) -> Database:
    """Open `sqlite:///path` (a relative path is below `home`) or `postgresql+psycopg://…`.

    An empty SQLite file is made where there is none; the schema is the business of `migrations`. Raises Problem RW-HOME
    where another process has the SQLite database open, RW-STORE where it cannot be opened or would not be durable,
    RW-CONFIG for another kind of URL.
    """
    try:
        parsed = make_url(url)
        dialect = parsed.get_backend_name()
    except sqlalchemy.exc.ArgumentError as error:
        raise Problem("RW-CONFIG", "The database URL cannot be read.", field="database.url") from error
    if dialect == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        from rootward.store.sqlite import Sqlite

        return Database(Sqlite((home or Path()) / str(parsed.database)), partial(snapshot, url, home=home))
    if dialect == "postgresql":
        from rootward.store.postgres import Postgres

        return Database(Postgres(parsed.set(drivername="postgresql+psycopg")), partial(snapshot, url))
    raise Problem(
        "RW-CONFIG",
        "The database URL is sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.",
        field="database.url",
    )


def clock(conn: Connection) -> datetime:
    """The database's clock, in whole seconds: what leases run out by, whatever the clocks of the processes say."""
    sql = (
        "SELECT unixepoch()"
        if conn.dialect.name == "sqlite"
        else "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint"
    )
    return datetime.fromtimestamp(conn.exec_driver_sql(sql).scalar_one(), UTC)
