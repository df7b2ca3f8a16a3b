"""What PostgreSQL does to us, and that each is a clear 503 from which the store recovers by itself (F5)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from rootward.core.problems import Kind, Problem
from rootward.store import facts
from rootward.store import postgres as engine
from rootward.store.db import Database, open_database
from tests.support.postgres import Postgres
from tests.support.store import NOW, prepare

END_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rootward'"


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Database]:
    made = open_database(postgres.url(prepare))
    yield made
    made.close()


def name_of(db: Database) -> str:
    return str(db.read_sync(lambda conn: conn.exec_driver_sql("SELECT current_database()").scalar_one()))


def refused(work: Any) -> None:
    """A clear refusal, which says when to ask again."""
    with pytest.raises(Problem) as caught:
        asyncio.run(work)
    assert (caught.value.code, caught.value.kind, caught.value.retry_after) == ("RW-STORE", Kind.UNAVAILABLE, 5)


def works(db: Database) -> None:
    """Writes and reads again."""
    db.write_sync(facts.put("after", at=NOW))
    assert db.read_sync(lambda conn: facts.get(conn, "after")) is not None


def test_a_statement_that_takes_too_long(db: Database) -> None:
    def slow(conn: Connection) -> None:
        facts.put("slow", at=NOW).run(conn)
        conn.execute(text("SET LOCAL statement_timeout = '50ms'"))
        conn.execute(text("SELECT pg_sleep(20)"))

    refused(db.write(slow))
    assert db.read_sync(lambda conn: facts.get(conn, "slow")) is None
    works(db)


def test_a_serialization_failure_is_played_again(db: Database) -> None:
    db.write_sync(facts.put("shared", at=NOW, data="0"))
    first = threading.Barrier(2)
    plays: list[int] = []

    def add(conn: Connection) -> None:
        plays.append(1)
        conn.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        found = facts.get(conn, "shared")
        assert found is not None
        if len(plays) <= 2:
            first.wait(30)
        facts.put("shared", at=NOW, data=str(int(found.data) + 1)).run(conn)

    async def both() -> None:
        await asyncio.gather(db.write(add), db.write(add))

    asyncio.run(both())
    found = db.read_sync(lambda conn: facts.get(conn, "shared"))
    assert found is not None
    assert found.data == "2"
    assert len(plays) >= 3


def test_a_primary_that_becomes_read_only_under_us(db: Database, postgres: Postgres) -> None:
    """25006, as a connection has it that was opened before a failover; after it, the pool goes to the new one."""
    works(db)
    name = name_of(db)
    with postgres._admin() as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        admin.execute(END_OURS)
    refused(db.write(facts.put("off", at=NOW)))
    with postgres._admin() as admin:
        admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    works(db)  # no connection of then is used again
    assert db.read_sync(lambda conn: facts.get(conn, "off")) is None


@pytest.mark.invariant("I-33")
def test_a_standby_is_not_spoken_to(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the start nor when the pool connects anew: what it says is old."""
    url = postgres.url(prepare)
    db = open_database(url)
    real = psycopg.Connection.execute

    def standby(self: Any, query: Any, *more: Any, **options: Any) -> Any:
        if query == "SELECT pg_is_in_recovery()":
            query = "SELECT true"
        return real(self, query, *more, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", standby)
    with pytest.raises(Problem, match="is a standby"):
        open_database(url)
    with postgres._admin() as admin:
        admin.execute(END_OURS)
    refused(db.look(lambda conn: facts.get(conn, "x")))
    refused(db.write(facts.put("x", at=NOW)))
    monkeypatch.undo()
    works(db)
    db.close()


def test_a_transaction_that_the_server_ended_meanwhile_is_refused(db: Database) -> None:
    """This process was stopped within it, and hears of it at its COMMIT; the driver calls that a mistake of ours."""

    def away(conn: Connection) -> None:
        facts.put("late", at=NOW).run(conn)
        conn.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        pid = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        ours = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid").bindparams(pid=pid)
        while db.read_sync(lambda other: other.execute(ours).scalar_one()):
            continue

    refused(db.write(away))
    works(db)
    assert db.read_sync(lambda conn: facts.get(conn, "late")) is None


def test_a_server_that_hangs_is_waited_for_no_longer_than_that(
    db: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(db)
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.3)
    postgres.pause()
    try:
        refused(db.look(lambda conn: facts.get(conn, "after")))
        refused(db.write(facts.put("late", at=NOW)))
    finally:
        postgres.go_on()
    monkeypatch.undo()
    works(db)


def test_askers_that_go_away_are_not_counted_for_ever(db: Database) -> None:
    """More than may wait, each gone before its turn came."""
    hold = threading.Event()

    async def main() -> None:
        busy = [asyncio.create_task(db.write(lambda _conn: hold.wait(30))) for _ in range(engine.WRITERS)]
        await asyncio.sleep(0.1)
        for _ in range(3):
            tasks = [asyncio.create_task(db.write(facts.put("x", at=NOW))) for _ in range(500)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        hold.set()
        await asyncio.gather(*busy)
        await db.write(facts.put("after", at=NOW))

    asyncio.run(main())
    assert db.waiting()["write"] == 0
