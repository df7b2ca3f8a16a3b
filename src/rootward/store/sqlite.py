"""SQLite: one process, one writing connection, every other one read-only.

SQLite before 3.51.3 can damage a WAL database when two connections write or checkpoint at once, so one process holds
the database by an exclusive lock on `<database>.lock`, and in it one connection writes and checkpoints. Durable means
WAL with `synchronous=FULL` (I-01): each commit is flushed before anybody is told. The driver's own transactions are
off; `group` begins them IMMEDIATE.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine

from rootward.core.problems import Problem, shown
from rootward.store.errors import translating
from rootward.store.group import MOST_WAITING, Work, Writer
from rootward.store.reserve import Reserve, is_full

T = TypeVar("T")
READERS = 4

# recursive_triggers: without it, a REPLACE deletes rows past the triggers that forbid it.
_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA recursive_triggers=ON",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-65536",
)
_READER = ("PRAGMA query_only=ON", "PRAGMA cache_size=-16384")
_PROOF = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}


class Sqlite:
    """The engine behind `Database` for `sqlite://`. Opening takes the lock; `close` gives it back."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reserve = Reserve(path.parent)
        self._lock = _take_lock(path)
        self._local = threading.local()
        self._kept: list[Connection] = []
        self._mutex = threading.Lock()
        self._waiting = 0  # reads that were handed over and are not done
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        try:
            writing = self._open_writer(self.reserve.give_back)
        except BaseException:
            self._pool.shutdown()
            os.close(self._lock)
            raise
        self._writer = Writer(writing, make_room=self.reserve.give_back)

    async def write(self, work: Work) -> Any:
        return await self._writer.write(work)

    def write_sync(self, work: Work) -> Any:
        return self._writer.write_sync(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """`read_sync` in a thread; Problem RW-UNAVAILABLE where too much waits."""
        if self._waiting >= MOST_WAITING:
            raise Problem("RW-UNAVAILABLE", "Too much waits to be read. Try again in a moment.", retry_after=1)
        with self._mutex:
            self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self.read_sync, work)
        finally:
            with self._mutex:
                self._waiting -= 1

    def read_sync(self, work: Callable[[Connection], T]) -> T:
        """`work` on this thread's read-only connection, everything from one snapshot."""
        conn = self._reader()
        driver: Any = conn.connection.dbapi_connection
        with translating:
            driver.execute("BEGIN")
            try:
                return work(conn)
            finally:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")

    async def look(self, work: Callable[[Connection], T]) -> T:
        """`work` on this very thread, without a transaction: a look-up takes less than a change of threads."""
        with translating:
            return work(self._reader())

    status = look  # there is no queue that it could wait in

    def waiting(self) -> dict[str, int]:
        return {"write": self._writer.waiting, "read": self._waiting, "status": 0}

    def close(self) -> None:
        """Finish what was handed over, close every connection, give the lock back."""
        self._pool.shutdown()
        for conn in self._kept:
            conn.close()
        self._kept.clear()
        self._writer.close()  # the last one to close: it puts the whole WAL into the database
        os.close(self._lock)

    def _reader(self) -> Connection:
        conn: Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            conn = self._local.conn = self._connect("ro", _READER)
            self._kept.append(conn)
        return conn

    def _open_writer(self, make_room: Callable[[], bool]) -> Connection:
        # Made here, so that the file (and its WAL, which takes its mode) is never open to others.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        conn: Connection | None = None
        try:
            conn = self._connect("rw", _WRITER)
            driver: Any = conn.connection.dbapi_connection
            proof = {name: driver.execute(f"PRAGMA {name}").fetchone()[0] for name in _PROOF}
        except Exception as error:
            if conn is not None:
                conn.close()
            if is_full(error) and make_room():  # what must go on goes on with the reserve
                return self._open_writer(lambda: False)
            detail = f"{shown(str(self._path))} cannot be opened as a database: {shown(str(error))}."
            raise Problem("RW-STORE", detail) from error
        if proof != _PROOF:
            conn.close()
            raise Problem("RW-STORE", f"SQLite would not be durable here: {proof} instead of {_PROOF}.")
        return conn

    def _connect(self, mode: str, pragmas: tuple[str, ...]) -> Connection:
        def connect() -> sqlite3.Connection:
            # check_same_thread off: `close` closes the readers of other threads, after they ended.
            driver = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode={mode}",
                uri=True,
                timeout=5,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            for pragma in pragmas:
                driver.execute(pragma).close()
            return driver

        return create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True).connect()


def _take_lock(path: Path) -> int:
    """The descriptor that holds the exclusive lock, which ends with this process, however it ends."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Problem("RW-STORE", f"{shown(str(lock))} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise Problem(
            "RW-HOME",
            f"Another process (pid {holder}) has the database {shown(str(path))} open. Stop it, or talk to it instead.",
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle
