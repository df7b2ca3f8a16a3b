"""Group commit: one thread that owns SQLite's one writing connection, and shares each transaction among those who wait
for it.

Writes that are ready together are one transaction and one fsync. When any of them fails, the group is rolled back and
played again one by one, each in a savepoint of its own, so that a failure hits nobody but its own asker. Work is
therefore called more than once at times and must have no effect outside the database. A write that was handed over
happens, whether or not its asker still waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy import Connection

from rootward.core.problems import Problem
from rootward.store.errors import translated
from rootward.store.failpoint import failpoint
from rootward.store.rows import Rows, run, run_together

Work = Rows | Callable[[Connection], Any]

MOST_TOGETHER = 64
MOST_WAITING = 1024


class _Item:
    """One write on its way: the work, who waits for it (an event loop, or a thread where there is none), and how it
    went.
    """

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop | None) -> None:
        self.work = work
        self.loop = loop
        self.future: Any = concurrent.futures.Future() if loop is None else loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Owns `conn`, a connection in the driver's autocommit mode, from now on."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._driver: Any = conn.connection.dbapi_connection
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work) -> Any:
        return await self._put(_Item(work, asyncio.get_running_loop())).future

    def write_sync(self, work: Work) -> Any:
        return self._put(_Item(work, None)).future.result()

    def close(self) -> None:
        """Do what was handed over, then stop and close the connection."""
        self._queue.put(None)
        self._thread.join()
        self._conn.close()
        late = list(iter(self._next, None))
        for item in late:
            item.error = Problem("RW-UNAVAILABLE", "The server is shutting down.", retry_after=5)
        _deliver(late)

    def _next(self) -> _Item | None:
        """The next item if it is there already."""
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def _put(self, item: _Item) -> _Item:
        if self._queue.qsize() >= MOST_WAITING:
            raise Problem("RW-UNAVAILABLE", "Too much waits to be written. Try again in a moment.", retry_after=1)
        self._queue.put(item)
        return item

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            while len(group) < MOST_TOGETHER and not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    self._queue.put(None)  # the end comes after this group
                    break
                group.append(item)
            self._commit(group)
            _deliver(group)

    def _commit(self, group: list[_Item]) -> None:
        """Every item of `group` has its result, and it is durable, or its error."""
        try:
            self._driver.execute("BEGIN IMMEDIATE")
            try:
                self._play_together(group)
            except Exception:  # noqa: BLE001 - whose fault it was comes out when they are played alone
                self._rollback()
                self._driver.execute("BEGIN IMMEDIATE")
                for item in group:
                    self._play_alone(item)
            failpoint("store.write.before-commit")
            self._driver.execute("COMMIT")
            failpoint("store.write.after-commit")
        except Exception as error:  # noqa: BLE001 - nothing is lost: everyone who waits gets it
            self._rollback()
            shared = translated(error)
            for item in group:
                item.error = item.error or shared

    def _rollback(self) -> None:
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")

    def _play_together(self, group: list[_Item]) -> None:
        rows = [item.work for item in group if isinstance(item.work, Rows)]
        if len(rows) == 1:
            rows[0].run(self._conn)
        elif rows:
            run_together(self._conn, rows)
        for item in group:
            item.result = item.error = None
            if not isinstance(item.work, Rows):
                self._play_alone(item)

    def _play_alone(self, item: _Item) -> None:
        """In a savepoint. Raises only where the whole transaction is gone, such as on a full disk."""
        item.result = item.error = None
        self._driver.execute("SAVEPOINT one")
        try:
            item.result = run(item.work, self._conn)
        except Exception as error:
            if not self._driver.in_transaction:
                raise
            self._driver.execute("ROLLBACK TO one")
            item.error = translated(error)
        self._driver.execute("RELEASE one")  # fails where a function committed by itself


def _deliver(group: list[_Item]) -> None:
    """Wake up those who wait: one call into each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for item in group:
        if item.loop is not None:
            loops.setdefault(item.loop, []).append(item)
        elif item.error is not None:
            item.future.set_exception(item.error)
        else:
            item.future.set_result(item.result)
    for loop, items in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, items)
        except RuntimeError:
            continue  # that loop is closed: nobody waits there any more


def _settle(items: list[_Item]) -> None:
    for item in items:
        if item.future.done():
            continue  # its asker went away
        if item.error is not None:
            item.future.set_exception(item.error)
        else:
            item.future.set_result(item.result)
