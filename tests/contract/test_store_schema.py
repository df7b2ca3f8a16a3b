"""Migrations: what they make is what `schema` says, and a program knows which schema it can serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from rootward.core.problems import Problem
from rootward.store import facts, migrations
from rootward.store.db import Database, open_database
from rootward.store.migrations import NEWEST, OLDEST, check_schema, migrate, version_of
from rootward.store.schema import metadata
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, fresh_url

SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))


@pytest.fixture(params=DIALECTS)
def empty(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    """An open database without tables."""
    database = open_database(fresh_url(request.param, tmp_path, postgres))
    yield database
    database.close()


def set_version(db: Database, version: str) -> None:
    """Let the database say that it is of `version`."""
    db.write_sync(
        lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version}).rowcount
    )


def test_the_migrations_make_what_the_schema_says(db: Database) -> None:
    def compare(conn: Connection) -> list[Any]:
        def ours(_object: object, name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
            return not (name or "").startswith("certificate_search")

        context = MigrationContext.configure(conn, opts={"include_object": ours})
        return compare_metadata(context, metadata)

    assert db.read_sync(compare) == []


def test_both_ends_of_the_range_are_versions() -> None:
    known = [script.revision for script in SCRIPTS.walk_revisions()]
    assert SCRIPTS.get_heads() == [NEWEST]
    assert OLDEST in known
    assert known == sorted(known, reverse=True)  # versions compare as text


def test_migrating_twice_changes_nothing(db: Database) -> None:
    before = db.read_sync(lambda conn: facts.get(conn, "instance.id"))
    db.write_sync(migrate)
    assert db.read_sync(lambda conn: facts.get(conn, "instance.id")) == before
    assert before is not None
    assert len(before.data) == 32
    assert db.read_sync(version_of) == NEWEST


@pytest.mark.invariant("I-61")
def test_an_empty_database_is_not_served(empty: Database) -> None:
    with pytest.raises(Problem) as caught:
        empty.read_sync(check_schema)
    assert caught.value.code == "RW-SCHEMA"
    empty.write_sync(migrate)
    empty.read_sync(check_schema)


@pytest.mark.invariant("I-61")
def test_a_schema_that_is_too_old_is_not_served(db: Database) -> None:
    set_version(db, "0000")
    with pytest.raises(Problem, match="0000") as caught:
        db.read_sync(check_schema)
    assert caught.value.code == "RW-SCHEMA"


@pytest.mark.invariant("I-61", "I-64")
def test_a_newer_schema_is_served_where_it_says_that_we_can(db: Database) -> None:
    set_version(db, "9000")
    db.read_sync(check_schema)  # it only expanded: it still says that the first version can serve it
    db.write_sync(migrate)
    assert db.read_sync(version_of) == "9000"
    db.write_sync(
        lambda conn: conn.execute(text("UPDATE facts SET data = '9000' WHERE name = 'schema.serves'")).rowcount
    )
    for work in (check_schema, migrate):
        with pytest.raises(Problem, match="newer program") as caught:
            db.write_sync(work)
        assert caught.value.code == "RW-SCHEMA"


def test_a_migration_that_fails_leaves_nothing(empty: Database) -> None:
    def fail(conn: Connection) -> None:
        migrate(conn)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        empty.write_sync(fail)
    assert empty.read_sync(lambda conn: inspect(conn).get_table_names()) == []
    empty.write_sync(migrate)
    empty.read_sync(check_schema)


def test_replicas_that_start_together_migrate_once(postgres: Postgres) -> None:
    db = open_database(postgres.url())

    async def start() -> None:
        await asyncio.gather(*(db.write(migrate) for _ in range(6)))

    asyncio.run(start())
    db.read_sync(check_schema)
    db.close()
