"""What the store does when things break: processes that die, full disks, servers that go away, deadlocks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from rootward.core.problems import Problem
from rootward.store import facts
from rootward.store.db import Database, open_database
from rootward.store.migrations import migrate
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, NOW, fresh_url, prepare

# Writes in parallel, and says each name once its write returned: what was said must be there after the kill.
ASKER = """
import asyncio, os, sys
from datetime import UTC, datetime
from rootward.store import facts
from rootward.store.db import open_database

db = open_database(sys.argv[1])

async def ask(who):
    for i in range(10_000):
        now = datetime.now(UTC)
        await db.write(facts.put(f"{who}-{i}", at=now) + facts.put(f"{who}-{i}-too", at=now))
        os.write(1, f"{who}-{i}\\n".encode())

async def all():
    await asyncio.gather(*(ask(who) for who in range(8)))

asyncio.run(all())
"""

HOLDER = """
import sys
from rootward.store.db import open_database
db = open_database(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def stated(db: Database) -> set[str]:
    """The names of all facts but those of the migration."""
    query = text("SELECT name FROM facts WHERE name NOT LIKE '%.%'")
    return set(db.read_sync(lambda conn: conn.execute(query).scalars().all()))


def run(script: str, url: str, failpoint: str = "") -> subprocess.Popen[bytes]:
    """Start a process of ours; it ends with its pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", script, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"FAILPOINT": failpoint},
    )


@pytest.mark.invariant("I-01")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("where", ["store.write.before-commit", "store.write.after-commit"])
def test_a_kill_loses_nothing_that_was_confirmed(tmp_path: Path, postgres: Postgres, dialect: str, where: str) -> None:
    url = fresh_url(dialect, tmp_path, postgres)
    prepare(url)
    with run(ASKER, url, f"{where}:kill:40") as asker:
        said, _ = asker.communicate(timeout=60)
    assert asker.returncode == -signal.SIGKILL
    confirmed = set(said.decode().split())
    assert confirmed
    db = open_database(url)
    found = stated(db)
    db.close()
    assert confirmed <= found
    assert {f"{name}-too" for name in found if not name.endswith("-too")} <= found  # each write is whole


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    prepare(url)
    with run(HOLDER, url) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(Problem, match=rf"pid {holder.pid}\b") as caught:
            open_database(url)
        assert caught.value.code == "RW-HOME"
        holder.kill()
        holder.wait()
    open_database(url).close()  # the lock ends with its process, however it ends


def test_a_full_disk_stops_writes_and_nothing_else(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path}/a.db")
    db.write_sync(migrate)
    db.write_sync(facts.put("before", at=NOW))

    def limit(pages: int) -> Any:
        return lambda conn: conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar_one()

    db.write_sync(limit(db.read_sync(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())))

    async def ask() -> list[Any]:
        big = "x" * 100_000
        works = [facts.put(f"n{i}", at=NOW, data=big if i == 5 else "") for i in range(12)]
        return await asyncio.gather(*(db.write(work) for work in works), return_exceptions=True)

    results = asyncio.run(ask())
    problem = results[5]
    assert isinstance(problem, Problem)
    assert (problem.code, problem.retry_after) == ("RW-STORE", 5)
    kept = {f"n{i}" for i, result in enumerate(results) if result is None}
    assert stated(db) == {"before"} | kept
    db.write_sync(limit(1 << 30))
    db.write_sync(facts.put("after", at=NOW))
    assert stated(db) == {"before", "after"} | kept
    db.close()


def test_a_function_that_commits_by_itself_is_found_out(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path}/a.db")
    db.write_sync(migrate)
    with pytest.raises(Exception, match="savepoint"):
        db.write_sync(lambda conn: conn.exec_driver_sql("COMMIT").rowcount)
    db.write_sync(facts.put("after", at=NOW))
    assert stated(db) == {"after"}
    db.close()


def test_the_store_comes_back_with_its_server(postgres: Postgres) -> None:
    db = open_database(postgres.url(prepare))

    async def ask(count: int) -> None:
        await asyncio.gather(*(db.write(facts.put(f"n{i}", at=NOW)) for i in range(count)))
        await asyncio.gather(*(db.look(lambda conn: facts.get(conn, "n1")) for i in range(count)))

    asyncio.run(ask(32))
    postgres.stop()
    for work in (db.write(facts.put("off", at=NOW)), db.look(lambda conn: facts.get(conn, "n1"))):
        with pytest.raises(Problem) as caught:
            asyncio.run(work)
        assert (caught.value.code, caught.value.retry_after) == ("RW-STORE", 5)
    postgres.start()
    asyncio.run(ask(32))
    postgres.restart()
    asyncio.run(ask(32))  # connections that broke meanwhile are not the askers' trouble
    assert "off" not in stated(db)
    db.close()


def test_a_deadlock_is_played_again(postgres: Postgres) -> None:
    db = open_database(postgres.url(prepare))
    db.write_sync(facts.put("a", at=NOW) + facts.put("b", at=NOW))
    both = threading.Barrier(2)
    plays: list[str] = []

    def cross(first: str, second: str) -> Any:
        def work(conn: Connection) -> None:
            plays.append(first)
            facts.put(first, at=NOW, data=f"by {first}").run(conn)
            if plays.count(first) == 1:
                both.wait(30)
            facts.put(second, at=NOW, data=f"by {first}").run(conn)

        return work

    async def ask() -> None:
        await asyncio.gather(db.write(cross("a", "b")), db.write(cross("b", "a")))

    asyncio.run(ask())
    assert len(plays) >= 3
    found = [db.read_sync(lambda conn, name=name: facts.get(conn, name)) for name in ("a", "b")]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].data == found[1].data  # whoever came last wrote both
    db.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
@pytest.mark.invariant("I-01")
def test_a_server_that_is_not_durable_is_refused(setting: str, postgres: Postgres) -> None:
    postgres.stop()
    config = postgres.directory / "data" / "postgresql.conf"
    before = config.read_text()
    config.write_text(before + f"\n{setting} = off\n")
    try:
        postgres.start()
        with pytest.raises(Problem, match=setting) as caught:
            open_database(postgres.url())
        assert caught.value.code == "RW-STORE"
    finally:
        config.write_text(before)
        postgres.restart()
