"""PostgreSQL: plain transactions, READ COMMITTED, in a pool of threads; any number of processes.

It shares its flushes among transactions by itself. What makes a commit durable (I-01) is set on each connection
(`synchronous_commit`) or checked at start (`fsync`, `full_page_writes`). Serialization failures, deadlocks and
connections that broke before the COMMIT are tried again, three times at most; a COMMIT that failed is never tried
again, because nobody knows whether it happened. A standby is never spoken to: each new connection is asked, and one
that became one under us takes the whole pool with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext

from rootward.core.problems import Problem
from rootward.store.errors import READ_ONLY, driver_error, may_retry, translating
from rootward.store.failpoint import failpoint
from rootward.store.group import MOST_WAITING
from rootward.store.rows import Rows, run

T = TypeVar("T")
Work = Rows | Callable[[Connection], Any]

WRITERS = 16
READERS = 8
STATUS_READERS = 4  # for CRL and OCSP alone, so that they never wait behind lists, exports and issuance (I-65)
TRIES = 4
ANSWER_SECONDS = 20.0  # a server that hangs without closing its connections: its own limits do not help then

# A process that is stopped within a transaction holds its locks; 15 s on it loses them, before anybody's lease is over.
_SESSION = (
    "SET synchronous_commit = on; SET statement_timeout = '10s'; SET lock_timeout = '5s'; "
    "SET idle_in_transaction_session_timeout = '15s'; SET TIME ZONE 'UTC'"
)
_CONNECT = {
    "connect_timeout": 5,
    "application_name": "rootward",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class _Threads:
    """A pool of threads that refuses work instead of letting it pile up."""

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._waiting = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise Problem("RW-UNAVAILABLE", "Too much waits for the store. Try again in a moment.", retry_after=1)
            self._waiting += 1
        try:
            doing = self._pool.submit(work)
        except RuntimeError:
            self._ended()
            raise
        # Also called where the asker went away before a thread took the work up: then it never begins.
        doing.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.wrap_future(doing)
        except TimeoutError:
            raise Problem("RW-STORE", "The store does not answer. Try again in a moment.", retry_after=5) from None

    def _ended(self, _doing: object = None) -> None:
        with self._lock:
            self._waiting -= 1

    @property
    def waiting(self) -> int:
        """How much was handed over and is not done."""
        return self._waiting

    def close(self) -> None:
        self._pool.shutdown()


class Postgres:
    """The engine behind `Database` for `postgresql+psycopg://`. Opening connects, and refuses a server that is not
    durable.
    """

    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        self._writing = _engine(url, WRITERS)
        self._reading = _engine(url, READERS, "; SET default_transaction_read_only = on")
        self._looking = self._reading.execution_options(isolation_level="AUTOCOMMIT")
        self._telling = _engine(url, STATUS_READERS, "; SET default_transaction_read_only = on").execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._writers = _Threads(WRITERS, "store-writer")
        self._readers = _Threads(READERS, "store-reader")
        self._tellers = _Threads(STATUS_READERS, "store-status")
        try:
            self._prove(url)
        except BaseException:
            self.close()
            raise

    async def write(self, work: Work) -> Any:
        return await self._writers.run(lambda: self.write_sync(work))

    def write_sync(self, work: Work) -> Any:
        with translating:
            left = TRIES
            while True:
                left -= 1
                committing = False
                try:
                    with self._writing.connect() as conn:
                        transaction = conn.begin()
                        result = run(work, conn)
                        failpoint("store.write.before-commit")
                        committing = True
                        transaction.commit()
                        failpoint("store.write.after-commit")
                        return result
                except Exception as error:
                    if committing or left == 0 or not may_retry(error):
                        raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._readers.run(lambda: _read(self._reading, work))

    def read_sync(self, work: Callable[[Connection], T]) -> T:
        return _read(self._reading, work)

    async def look(self, work: Callable[[Connection], T]) -> T:
        return await self._readers.run(lambda: _read(self._looking, work))

    async def status(self, work: Callable[[Connection], T]) -> T:
        return await self._tellers.run(lambda: _read(self._telling, work))

    def waiting(self) -> dict[str, int]:
        return {"write": self._writers.waiting, "read": self._readers.waiting, "status": self._tellers.waiting}

    def close(self) -> None:
        """Finish what was handed over and close every connection."""
        for threads in (self._writers, self._readers, self._tellers):
            threads.close()
        for engine in (self._writing, self._reading, self._telling):
            engine.dispose()

    def _prove(self, url: URL) -> None:
        where = f"PostgreSQL at {url.host or 'its socket'}:{url.port or 5432}"
        try:
            with self._writing.connect() as conn:
                found = {name: conn.exec_driver_sql(f"SHOW {name}").scalar_one() for name in _DURABLE}
        except Exception as error:
            if isinstance(driver_error(error), _Standby):
                raise Problem("RW-STORE", f"{where} is a standby: connect to the primary.") from error
            detail = f"{where} does not answer. Check the address, the user and its password, and that it runs."
            raise Problem("RW-STORE", detail, retry_after=5) from error
        if found != _DURABLE:
            raise Problem("RW-STORE", f"{where} would lose what it confirmed: {found} instead of {_DURABLE}.")


class _Standby(psycopg.OperationalError):
    """A connection led to a server that only follows another one."""


def _read(engine: Engine, work: Callable[[Connection], T]) -> T:
    with translating:
        left = TRIES
        while True:
            left -= 1
            try:
                with engine.connect() as conn:
                    return work(conn)
            except Exception as error:
                if left == 0 or not may_retry(error):
                    raise


def _engine(url: URL, size: int, more: str = "") -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        connect_args=_CONNECT,
    )

    @event.listens_for(engine, "connect")
    def _prepare(driver: Any, _record: Any) -> None:
        autocommit, driver.autocommit = driver.autocommit, True
        driver.execute(_SESSION + more)
        standby = driver.execute("SELECT pg_is_in_recovery()").fetchone()[0]
        driver.autocommit = autocommit
        if standby:  # what it says is old, and nobody knows by how much
            driver.close()
            raise _Standby("the server is a standby")

    @event.listens_for(engine, "handle_error")
    def _demoted(context: ExceptionContext) -> None:
        # The server became a standby under us: every pooled connection is to the wrong one now.
        if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
            context.is_disconnect = True

    return engine
