"""Group commit on SQLite's one writing connection: writes that wait together share one transaction and one fsync.

Plain rows are written on the event loop's own thread, because two threads that both need the interpreter's lock for
each small statement cost more than the statements; only the COMMIT, which waits for the disk, goes to a thread. A group
is gathered for as long as the loop's other tasks add to it, 5 ms at most: a busy server commits by the dozen, an idle
one at once. Functions, which may take long, run in the thread whole.

When any of a group fails, the group is rolled back and played again one by one, each in a savepoint of its own, so that
a failure hits nobody but its own asker. Where the disk is full, the reserve is given back and the group is played
again. Work is therefore called more than once at times and must have no effect
outside the database. A write that was handed over happens, whether or not its asker still waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from rootward.core.problems import Problem
from rootward.store.errors import translated
from rootward.store.failpoint import failpoint
from rootward.store.reserve import is_full
from rootward.store.rows import Rows, run, run_together

Work = Rows | Callable[[Connection], Any]

MOST_TOGETHER = 64
GATHER_SECONDS = 0.005
MOST_WAITING = 1024  # writes, reads or status look-ups that may wait; more get RW-UNAVAILABLE


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


class _State(enum.Enum):
    """IDLE: nothing to do. GATHERING: a loop will serve the queue in a moment. SERVING: the connection is in use."""

    IDLE = enum.auto()
    GATHERING = enum.auto()
    SERVING = enum.auto()


class Writer:
    """Owns `conn`, a connection in the driver's autocommit mode, from now on.

    Only who made the state SERVING touches the connection. While it is GATHERING, whoever cannot wait for that loop (a
    thread without one, another loop when that one has stopped) may serve instead.
    """

    def __init__(self, conn: Connection, *, make_room: Callable[[], bool] = lambda: False) -> None:
        self._conn = conn
        self._make_room = make_room
        self._made_room = False
        self._driver: Any = conn.connection.dbapi_connection
        self._mutex = threading.Lock()  # for the four below, never held while the database works
        self._queue: deque[_Item] = deque()
        self._state = _State.IDLE
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that gathers
        self._closed = False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="store-writer")

    async def write(self, work: Work) -> Any:
        """What a function returns, None for Rows, once it is durable; its own error, or the whole group's."""
        loop = asyncio.get_running_loop()
        item = _Item(work, loop)
        with self._mutex:
            self._add(item)
            idle = self._state is _State.IDLE
            if idle or (self._state is _State.GATHERING and not self._gatherer_runs()):
                self._state, self._loop = _State.GATHERING, loop
                loop.call_soon(self._gather, loop, len(self._queue), loop.time())
        return await item.future

    def write_sync(self, work: Work) -> Any:
        """As `write`, for a thread without an event loop."""
        item = _Item(work, None)
        with self._mutex:
            self._add(item)
            mine = self._state is not _State.SERVING
            if mine:
                self._state = _State.SERVING
        if mine:
            self._drain()
        return item.future.result()

    def close(self) -> None:
        """Do what was handed over, then stop and close the connection."""
        with self._mutex:
            self._closed = True
        self._thread.shutdown()
        self._drain()  # what a loop would have gone on with
        self._conn.close()

    @property
    def waiting(self) -> int:
        """Writes that nobody has begun yet."""
        return len(self._queue)

    def _add(self, item: _Item) -> None:
        if self._closed:
            raise Problem("RW-UNAVAILABLE", "The server is shutting down.", retry_after=5)
        if len(self._queue) >= MOST_WAITING:
            raise Problem("RW-UNAVAILABLE", "Too much waits to be written. Try again in a moment.", retry_after=1)
        self._queue.append(item)

    def _gatherer_runs(self) -> bool:
        return self._loop is not None and self._loop.is_running()

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int, since: float) -> None:
        """Serve the queue once a turn of the loop has added nothing to it, or it is long or old enough."""
        with self._mutex:
            if self._state is not _State.GATHERING or self._loop is not loop:
                return  # somebody else served it
            waiting = len(self._queue)
            if before < waiting < MOST_TOGETHER and loop.time() - since < GATHER_SECONDS:
                loop.call_soon(self._gather, loop, waiting, since)
                return
            self._state = _State.SERVING
        group = self._take()
        if not group:
            return
        finish = self._commit
        if all(isinstance(item.work, Rows) for item in group):
            self._play(group)
            finish = self._end
        try:
            self._thread.submit(self._then, finish, group, loop)
        except RuntimeError:  # `close` came between: the thread is gone, and the transaction is ended here
            finish(group)
            _deliver(group)

    def _take(self) -> list[_Item]:
        """The next group; none, and the connection is free."""
        with self._mutex:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_TOGETHER))]
            if not group:
                self._state = _State.IDLE
            return group

    def _drain(self) -> None:
        """Serve the queue to its end on this thread."""
        while group := self._take():
            self._commit(group)
            _deliver(group)

    def _then(self, finish: Callable[[list[_Item]], None], group: list[_Item], loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: end the group, then give the rest of the queue back to the loop, or serve it where that one
        is closed.
        """
        finish(group)
        with self._mutex:
            self._state, self._loop = (_State.GATHERING if self._queue else _State.IDLE), loop
        try:
            loop.call_soon_threadsafe(self._after, group, loop)
        except RuntimeError:
            _deliver(group)
            with self._mutex:
                if self._state is not _State.GATHERING:
                    return
                self._state = _State.SERVING
            self._drain()

    def _after(self, group: list[_Item], loop: asyncio.AbstractEventLoop) -> None:
        _deliver(group, here=loop)
        loop.call_soon(self._gather, loop, 0, loop.time())

    def _commit(self, group: list[_Item]) -> None:
        """Every item of `group` has its result, and it is durable, or its error."""
        self._play(group)
        self._end(group)

    def _play(self, group: list[_Item]) -> None:
        """Everything but the COMMIT. Where the transaction itself is gone, every item has that error."""
        try:
            self._driver.execute("BEGIN IMMEDIATE")
            try:
                self._play_together(group)
            except Exception:  # noqa: BLE001 - whose fault it was comes out when they are played alone
                self._rollback()
                self._driver.execute("BEGIN IMMEDIATE")
                for item in group:
                    self._play_alone(item)
        except Exception as error:  # noqa: BLE001 - nothing is lost: everyone who waits gets it
            self._give_up(group, error)

    def _end(self, group: list[_Item]) -> None:
        """COMMIT what was played, if there is a transaction."""
        if not self._driver.in_transaction:
            return
        try:
            failpoint("store.write.before-commit")
            self._driver.execute("COMMIT")
            failpoint("store.write.after-commit")
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(group, error)

    def _give_up(self, group: list[_Item], error: Exception) -> None:
        self._rollback()
        if self._made_room or self._makes_room(error):
            self._made_room = False
            self._commit(group)
            return
        shared = translated(error)
        for item in group:
            item.error = item.error or shared

    def _makes_room(self, error: Exception) -> bool:
        """Whether it failed for want of room and there is some now: a COMMIT that found none did not happen."""
        if is_full(error) and self._make_room():
            self._made_room = True
        return self._made_room

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
        """In a savepoint. Raises only where the whole transaction is gone, or there is room now that there was not."""
        item.result = item.error = None
        self._driver.execute("SAVEPOINT one")
        try:
            item.result = run(item.work, self._conn)
        except Exception as error:
            if not self._driver.in_transaction or self._makes_room(error):
                raise
            self._driver.execute("ROLLBACK TO one")
            item.error = translated(error)
        self._driver.execute("RELEASE one")  # fails where a function committed by itself


def _deliver(group: list[_Item], here: asyncio.AbstractEventLoop | None = None) -> None:
    """Wake up those who wait: at once those of the loop `here` that this runs on, one call into each other loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for item in group:
        if item.loop is not None:
            loops.setdefault(item.loop, []).append(item)
        else:
            _settle([item])
    for loop, items in loops.items():
        if loop is here:
            _settle(items)
            continue
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
