"""The first tables, as they were on the day they were frozen: their SQL lies beside this file, one for each dialect."""

from __future__ import annotations

import secrets
from pathlib import Path

import sqlalchemy.exc
from alembic import op
from sqlalchemy import Connection, text

from rootward.core.problems import Problem
from rootward.store.db import clock

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_FIXED = ("n", "at", "kind", "actor", "authority", "certificate", "request_id", "data")

_UNCHANGED = " AND ".join(f'OLD."{name}" IS NOT DISTINCT FROM NEW."{name}"' for name in _FIXED)

# Events are append-only (I-57): their place in the audit tree is the one thing that comes later, once.
_SQLITE = (
    "CREATE VIRTUAL TABLE certificate_search USING fts5(text, tokenize = 'trigram')",
    f"""
    CREATE TRIGGER events_append_only_update BEFORE UPDATE ON events
    WHEN NOT (OLD.leaf IS NULL AND NEW.leaf IS NOT NULL AND {_UNCHANGED})
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    """
    CREATE TRIGGER events_append_only_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
)
_POSTGRESQL = (
    "CREATE TABLE certificate_search (n bigint PRIMARY KEY, text text NOT NULL)",
    "CREATE INDEX certificate_search_text ON certificate_search USING gin (text gin_trgm_ops)",
    f"""
    CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.leaf IS NULL AND NEW.leaf IS NOT NULL AND {_UNCHANGED} THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'integrity_constraint_violation', TABLE = 'events';
    END $$
    """,
    """
    CREATE TRIGGER events_append_only_rows BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_append_only()
    """,
    """
    CREATE TRIGGER events_append_only_all BEFORE TRUNCATE ON events
    EXECUTE FUNCTION events_append_only()
    """,
)


def upgrade() -> None:
    """Make all tables, the search index, the triggers, and the first facts."""
    conn = op.get_bind()
    for statement in Path(__file__).with_name(f"0001.{conn.dialect.name}.sql").read_text().split(";\n"):
        if statement.strip():
            conn.exec_driver_sql(statement)
    if conn.dialect.name == "postgresql":
        _trigrams(conn)
    for statement in _SQLITE if conn.dialect.name == "sqlite" else _POSTGRESQL:
        conn.exec_driver_sql(statement)
    now = int(clock(conn).timestamp())
    fact = text("INSERT INTO facts (name, at, data) VALUES (:name, :at, :data)")
    conn.execute(text("INSERT INTO watermark (one, revocations) VALUES (1, 0)"))
    conn.execute(fact, {"name": "schema.serves", "at": now, "data": revision})
    conn.execute(fact, {"name": "instance.id", "at": now, "data": secrets.token_hex(16)})


def _trigrams(conn: Connection) -> None:
    try:
        conn.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except sqlalchemy.exc.DBAPIError as error:
        raise Problem(
            "RW-SCHEMA",
            "PostgreSQL's extension pg_trgm (package postgresql-contrib) cannot be created. Install it, "
            "or let the database's owner run: CREATE EXTENSION pg_trgm",
        ) from error
