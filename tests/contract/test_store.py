"""What `Database` promises, on both dialects."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, insert, select, text, update

from rootward.core.problems import Problem
from rootward.store import certificates, events, facts, watermark
from rootward.store.db import Constraint, Database, Look, Lost, Rows, Taken, clock, open_database
from rootward.store.failpoint import Injected, armed, failpoint
from rootward.store.group import MOST_TOGETHER, MOST_WAITING
from rootward.store.migrations import migrate
from rootward.store.schema import facts as facts_table
from tests.support.postgres import Postgres
from tests.support.store import NOW, complete, event, intent, prepare


def names(db: Database) -> set[str]:
    """The names of all facts that a test stated."""
    query = text("SELECT name FROM facts WHERE name NOT LIKE '%.%'")
    return set(db.read_sync(lambda conn: conn.execute(query).scalars().all()))


def fact(name: str) -> Rows:
    """The row of a fact that must be new."""
    return Rows.one(_NEW, {"name": name, "at": NOW, "data": ""})


_NEW = insert(facts_table)
_CHANGE = update(facts_table).where(facts_table.c.name == bindparam("which")).values(data=bindparam("body"))


async def all_of(db: Database, *works: Any) -> list[Any]:
    """Hand over all works at once and wait for all; an error stands in the place of its result."""
    return await asyncio.gather(*(db.write(work) for work in works), return_exceptions=True)


def test_a_write_is_there_once_it_returned(db: Database) -> None:
    db.write_sync(fact("one"))
    assert names(db) == {"one"}


def test_a_function_gives_back_its_value(db: Database) -> None:
    def write(conn: Connection) -> str:
        fact("one").run(conn)
        return "written"

    assert asyncio.run(db.write(write)) == "written"
    assert asyncio.run(db.read(lambda conn: facts.get(conn, "one"))) is not None
    assert asyncio.run(db.look(lambda conn: facts.get(conn, "one"))) is not None


def test_rows_are_whole_or_not_at_all(db: Database) -> None:
    with pytest.raises(Taken):
        db.write_sync(fact("one") + fact("two") + fact("one"))
    assert names(db) == set()


def test_a_function_that_fails_leaves_nothing(db: Database) -> None:
    def fail(conn: Connection) -> None:
        fact("one").run(conn)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        db.write_sync(fail)
    assert names(db) == set()


def test_one_failure_in_a_group_hits_nobody_else(db: Database) -> None:
    db.write_sync(fact("taken"))

    def fail(conn: Connection) -> None:
        fact("fails").run(conn)
        raise ValueError("no")

    works = [fact(f"n{i}") for i in range(20)]
    works[7:7] = [fact("taken"), fail, Rows.one(_CHANGE, {"which": "absent", "body": "x"})]  # type: ignore[list-item]  # mixed on purpose
    results = asyncio.run(all_of(db, *works))
    errors = [result for result in results if result is not None]
    assert [type(error) for error in errors] == [Taken, ValueError, Lost]
    assert [results.index(error) for error in errors] == [7, 8, 9]
    assert names(db) == {"taken", *(f"n{i}" for i in range(20))}


def test_a_row_that_is_not_as_expected_is_lost(db: Database) -> None:
    db.write_sync(fact("one"))
    db.write_sync(Rows.one(_CHANGE, {"which": "one", "body": "x"}))
    with pytest.raises(Lost):
        db.write_sync(fact("two") + Rows.one(_CHANGE, {"which": "absent", "body": "x"}))
    db.write_sync(Rows.one(_CHANGE, {"which": "absent", "body": "x"}, expect=None))
    assert names(db) == {"one"}


def test_what_is_taken_is_named_alike_on_both(db: Database) -> None:
    db.write_sync(fact("one"))
    with pytest.raises(Taken) as caught:
        db.write_sync(fact("one"))
    assert (caught.value.table, caught.value.columns) == ("facts", ("name",))


def test_other_constraints_are_not_taken(db: Database) -> None:
    with pytest.raises(Constraint) as caught:
        db.write_sync(Rows.one(_NEW, {"name": "one", "at": None, "data": ""}))
    assert not isinstance(caught.value, Taken)


@pytest.mark.invariant("I-03")
def test_a_serial_is_used_once_per_issuer_whatever_became_of_it(db: Database) -> None:
    first = intent(db.lease)
    db.write_sync(certificates.intend(first))
    db.write_sync(certificates.fail(first["id"], at=NOW, lease=db.lease))
    with pytest.raises(Taken) as caught:
        db.write_sync(certificates.intend(intent(db.lease, serial=first["serial"])))
    assert (caught.value.table, caught.value.columns) == ("certificates", ("serial", "issuer"))
    db.write_sync(certificates.intend(intent(db.lease, serial=first["serial"], issuer=2)))


@pytest.mark.invariant("I-03")
def test_askers_that_draw_the_same_serial_get_it_once(db: Database) -> None:
    same = [certificates.intend(intent(db.lease, serial=b"\x01" * 16)) + event() for _ in range(16)]
    other = [certificates.intend(intent(db.lease)) + event() for _ in range(16)]
    results = asyncio.run(all_of(db, *(work for pair in zip(same, other, strict=True) for work in pair)))
    assert sum(isinstance(result, Taken) for result in results) == 15
    assert sum(result is None for result in results) == 17
    assert len(db.read_sync(lambda conn: events.list(conn, events.Filters(), limit=99))) == 17


@pytest.mark.invariant("I-57")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = 'changed'",
        "UPDATE events SET leaf = 5 WHERE leaf = 0",
        "UPDATE events SET leaf = 5, kind = 'other' WHERE leaf IS NULL",
        "UPDATE events SET leaf = NULL WHERE leaf = 0",
        "DELETE FROM events",
    ],
)
def test_events_are_append_only(db: Database, statement: str) -> None:
    db.write_sync(event() + event())
    first, _ = db.read_sync(lambda conn: events.unsequenced(conn, 10))
    db.write_sync(lambda conn: events.place(conn, [first.n], [b"h"], first=0))
    before = db.read_sync(lambda conn: events.list(conn, events.Filters()))
    with pytest.raises(Constraint, match="append-only"):
        db.write_sync(lambda conn: conn.execute(text(statement)).rowcount)
    assert db.read_sync(lambda conn: events.list(conn, events.Filters())) == before


@pytest.mark.invariant("I-57")
def test_an_event_cannot_be_replaced(db: Database) -> None:
    replace = {
        "sqlite": "REPLACE INTO events (n, at, kind, actor, request_id, data) VALUES (1, 0, 'x', 'x', 'x', '')",
        "postgresql": "TRUNCATE events",
    }
    db.write_sync(event())
    with pytest.raises(Constraint, match="append-only"):
        db.write_sync(lambda conn: conn.execute(text(replace[db.dialect])).rowcount)


@pytest.mark.invariant("I-68")
def test_a_time_without_a_zone_is_refused(db: Database) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="zone"):
        db.write_sync(facts.put("one", at=naive))
    with pytest.raises(ValueError, match="zone"):
        db.write_sync(lambda conn: conn.execute(insert(facts_table), {"name": "x", "at": naive, "data": ""}).rowcount)
    db.write_sync(facts.put("one", at=NOW))
    stated = db.read_sync(lambda conn: facts.get(conn, "one"))
    assert stated is not None
    assert stated.at == NOW
    assert stated.at.utcoffset() is not None


def test_the_clock_is_the_databases(db: Database) -> None:
    now = db.read_sync(clock)
    assert now.utcoffset() is not None
    assert now.microsecond == 0


def test_reads_cannot_write(db: Database) -> None:
    def write(conn: Connection) -> None:
        fact("one").run(conn)

    with pytest.raises(Problem) as caught:
        db.read_sync(write)
    assert caught.value.code == "RW-STORE"
    with pytest.raises(Problem):
        asyncio.run(db.look(write))
    assert names(db) == set()


def test_wrong_sql_is_not_blamed_on_the_store(db: Database) -> None:
    with pytest.raises(Exception, match="nowhere") as caught:
        db.write_sync(lambda conn: conn.execute(text("SELECT * FROM nowhere")).all())
    assert not isinstance(caught.value, Problem)


def test_many_askers_are_all_served(db: Database) -> None:
    async def ask(i: int) -> None:
        await db.write(fact(f"n{i}"))
        assert await db.look(lambda conn: facts.get(conn, f"n{i}")) is not None

    async def ask_all() -> None:
        await asyncio.gather(*(ask(i) for i in range(3 * MOST_TOGETHER)))

    asyncio.run(ask_all())
    assert len(names(db)) == 3 * MOST_TOGETHER


def test_an_asker_who_left_does_not_stop_the_others(db: Database) -> None:
    async def ask() -> None:
        tasks = [asyncio.create_task(db.write(fact(f"n{i}"))) for i in range(8)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 1

    asyncio.run(ask())
    assert names(db) >= {f"n{i}" for i in range(8) if i != 3}


def test_a_full_queue_says_so_at_once(db: Database) -> None:
    gate = threading.Event()
    blockers = 1 if db.dialect == "sqlite" else 16
    at_work = threading.Barrier(blockers + 1)

    def block(_conn: Connection) -> None:
        at_work.wait(60)
        gate.wait(60)

    async def ask() -> list[Any]:
        held = [asyncio.create_task(db.write(block)) for _ in range(blockers)]
        await asyncio.to_thread(at_work.wait, 60)  # so that nothing behind them moves
        works = [asyncio.create_task(db.write(fact(f"n{i}"))) for i in range(MOST_WAITING + 50)]
        await asyncio.sleep(0)  # each of them is handed over or refused
        gate.set()
        results = await asyncio.gather(*works, return_exceptions=True)
        await asyncio.gather(*held)
        return results

    results = asyncio.run(ask())
    refused = [result for result in results if isinstance(result, Problem)]
    assert 50 <= len(refused) <= 50 + blockers
    assert {(problem.code, problem.retry_after) for problem in refused} == {("RW-UNAVAILABLE", 1)}
    assert len(names(db)) == len(results) - len(refused)


def test_a_failing_commit_reaches_everyone_in_it(db: Database) -> None:
    with armed("store.write.before-commit:fail:2"):
        db.write_sync(fact("one"))
        with pytest.raises(Problem) as caught:
            db.write_sync(fact("two"))
        db.write_sync(fact("three"))
    assert caught.value.code == "RW-STORE"
    assert caught.value.retry_after == 5
    assert names(db) == {"one", "three"}


def test_a_commit_may_persist_and_yet_fail(db: Database) -> None:
    with armed("store.write.after-commit:fail"), pytest.raises(Problem) as caught:
        db.write_sync(fact("one"))
    assert caught.value.code == "RW-STORE"
    assert names(db) == {"one"}


@pytest.mark.parametrize(("mode", "there"), [("fail", set()), ("fail_persisted", {"one"})])
def test_a_write_fails_without_an_effect_or_with_one(db: Database, mode: str, there: set[str]) -> None:
    with armed(f"store.write:{mode}:1"):
        with pytest.raises(Problem) as caught:
            db.write_sync(fact("one"))
        assert caught.value.code == "RW-STORE"
        assert names(db) == there
        db.write_sync(fact("two"))
    assert names(db) == {*there, "two"}


@pytest.mark.parametrize(
    "wrong", ["issue.nowhere:kill", "store.write:kill", "issue.signed:fail_persisted", "issue.signed"]
)
def test_a_failpoint_that_is_none_stops_the_start(wrong: str) -> None:
    command = [sys.executable, "-c", "import rootward.store.failpoint"]
    done = subprocess.run(command, env={**os.environ, "FAILPOINT": wrong}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError: FAILPOINT" in done.stderr


def test_failpoints_do_nothing_unless_armed() -> None:
    failpoint("issue.signed")
    with armed("issue.signed:fail:2,issue.stored:fail"):
        failpoint("issue.signed")
        with pytest.raises(Injected, match=r"issue\.signed"):
            failpoint("issue.signed")
        with pytest.raises(Injected, match=r"issue\.stored"):
            failpoint("issue.stored")
    failpoint("issue.stored")
    with pytest.raises(ValueError, match="FAILPOINT"), armed("issue.signed:explode"):
        pass


def test_a_statement_takes_no_unknown_or_missing_value(db: Database) -> None:
    look = Look(select(facts_table.c.data).where(facts_table.c.name == bindparam("which")))
    with pytest.raises(TypeError, match="other"):
        db.read_sync(lambda conn: look.one(conn, {"which": "a", "other": "b"}))
    with pytest.raises(TypeError, match="which"):
        db.read_sync(lambda conn: look.one(conn, {}))


def test_rows_never_show_their_values() -> None:
    assert "secret" not in repr(fact("secret") + fact("secret"))


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "nonsense", "oracle://h/x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Problem) as caught:
        open_database(url)
    assert caught.value.code == "RW-CONFIG"


def test_a_second_opener_of_a_sqlite_file_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    first = open_database(url)
    with pytest.raises(Problem, match=rf"pid {os.getpid()}\b") as caught:
        open_database(url)
    assert caught.value.code == "RW-HOME"
    first.close()
    open_database(url).close()


def test_sqlite_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    db = open_database("sqlite:///a.db", home=tmp_path)
    db.write_sync(migrate)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert {"a.db", "a.db-wal", "a.db.lock"} <= set(made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    db.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db.lock"]


@pytest.mark.invariant("I-01")
def test_sqlite_is_durable_and_only_one_connection_writes(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path}/a.db")

    def pragmas(conn: Connection) -> tuple[Any, ...]:
        names = ("journal_mode", "synchronous", "query_only", "foreign_keys")
        return tuple(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names)

    assert db.write_sync(pragmas) == ("wal", 2, 0, 1)
    assert db.read_sync(pragmas)[2] == 1
    assert asyncio.run(db.look(pragmas))[2] == 1
    db.close()


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("this is not a database, and it is longer than a header would be" * 20)
    with pytest.raises(Problem) as caught:
        open_database(f"sqlite:///{path}")
    assert caught.value.code == "RW-STORE"
    path.unlink()
    open_database(f"sqlite:///{path}").close()  # the lock was given back


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        open_database(f"sqlite:///{tmp_path}/absent/a.db")
    assert caught.value.code == "RW-STORE"


def test_a_closed_database_takes_nothing_more(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path}/a.db")
    db.write_sync(migrate)
    db.close()
    db.close()
    with pytest.raises(Problem) as caught:
        db.write_sync(fact("one"))
    assert caught.value.code == "RW-UNAVAILABLE"


@pytest.mark.invariant("I-01")
def test_postgresql_commits_synchronously(postgres: Postgres) -> None:
    db = open_database(postgres.url(prepare))
    show = text("SHOW synchronous_commit")
    assert db.write_sync(lambda conn: conn.execute(show).scalar_one()) == "on"
    db.close()


def test_a_postgresql_that_does_not_answer_is_a_problem(postgres: Postgres) -> None:
    url = postgres.url().replace(f":{postgres.port}/", ":1/")
    with pytest.raises(Problem) as caught:
        open_database(url)
    assert caught.value.code == "RW-STORE"
    password = url.split(":")[2].split("@")[0]
    assert password not in str(caught.value)


def test_a_paused_process_changes_nothing_when_it_wakes_up(db: Database) -> None:
    values = intent("the-paused-one")
    db.write_sync(certificates.intend(values))
    db.write_sync(certificates.orphan(values["id"], at=NOW, lease="the-paused-one"))
    with pytest.raises(Lost):
        db.write_sync(complete(values["id"], "the-paused-one") + event("issue.done"))
    assert db.read_sync(lambda conn: events.list(conn, events.Filters())) == ()
    assert db.read_sync(watermark.watermark) == 1
