"""The schema's versions, and which of them this code can serve.

Expand first, contract a release later, so that version N and N+1 of the program run side by side on one database: a
database may be newer than this code as long as it says itself (the fact `schema.serves`, which a contracting migration
raises) that code of our age can still serve it. Every step runs in the one transaction of `migrate`, on both dialects.
"""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect

from rootward.core.problems import Problem, shown

OLDEST = "0009"  # the oldest schema that this code serves
NEWEST = "0009"  # the schema that `migrate` makes

_ONE_AT_A_TIME = threading.Lock()  # Alembic keeps its context in module globals
_ADVISORY_LOCK = 0x526F6F74  # "Root": replicas that start together migrate one after the other


def migrate(conn: Connection, to: str = NEWEST) -> None:
    """Bring the tables to `NEWEST`, from nothing or from any older version. For `Database.write` or `write_sync`.

    `to` is an older version, for a restore: it puts rows in as they were, and then migrates them.

    Nothing happens where they are there already, or newer. Raises Problem RW-SCHEMA where they are too new for this
    code, or where PostgreSQL lacks the extension pg_trgm.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
        conn.exec_driver_sql("SET LOCAL lock_timeout = 0")
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    version = version_of(conn)
    if version is not None and version > NEWEST:
        check_schema(conn)
        return
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = conn
    with _ONE_AT_A_TIME:
        command.upgrade(config, to)


def check_schema(conn: Connection) -> None:
    """Raise Problem RW-SCHEMA unless this code can serve the tables as they are (I-61)."""
    version = version_of(conn)
    if version is None:
        raise Problem("RW-SCHEMA", "The database has no tables yet: it was not set up.")
    if version < OLDEST:
        raise Problem(
            "RW-SCHEMA",
            f"The database's tables are of version {shown(version)}; this program needs {OLDEST}. Migrate them first.",
        )
    if version > NEWEST and _serves(conn) > NEWEST:
        raise Problem(
            "RW-SCHEMA",
            f"The database's tables are of version {shown(version)}; this program knows {NEWEST}. Use a newer program.",
        )


def version_of(conn: Connection) -> str | None:
    """The version of the tables, such as "0001"; None for an empty database."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    version: str | None = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return version


def _serves(conn: Connection) -> str:
    found = conn.exec_driver_sql("SELECT data FROM facts WHERE name = 'schema.serves'").scalar_one_or_none()
    return "9999" if found is None else str(found)
