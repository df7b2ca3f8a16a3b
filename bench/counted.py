"""A server that writes down each SQL statement as it runs it: for counting, never for timing.

`python -m bench.counted FILE quickstart …` is `rootward quickstart …` with a line in FILE for each statement and each
COMMIT of a transaction that wrote. SQLAlchemy's events lead to every connection; the driver tells the statements,
because the store's hot path goes past SQLAlchemy. What SQLite does inside (triggers, the tables of the search index) is
no statement of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, Pool, event

from rootward.cli import main

_WRITES = ("INSERT", "UPDATE", "DELETE")
_STATEMENTS = ("SELECT", "WITH", *_WRITES)


def count(write: Callable[[str], None]) -> None:
    """Have `write` told `S` and the text of each statement, and `C` for each COMMIT."""
    wrote: set[int] = set()  # PostgreSQL's connections that have something to commit

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *rest: Any, **options: Any) -> Any:
            text = str(query).strip()
            if text.startswith(_STATEMENTS):
                write(f"S {text}")
            if text.startswith(_WRITES):
                wrote.add(id(self.connection))
            return super().execute(query, *rest, **options)

    def connected(driver: Any, _record: object) -> None:
        if isinstance(driver, psycopg.Connection):
            driver.cursor_factory = Cursor
        else:
            driver.set_trace_callback(traced)

    def traced(text: str) -> None:
        if text.startswith("COMMIT"):
            write("C")
        elif text.startswith(_STATEMENTS) and "certificate_search_" not in text:
            write(f"S {text}")

    def committed(conn: Connection) -> None:
        driver = id(conn.connection.dbapi_connection)
        if driver in wrote:
            wrote.discard(driver)
            write("C")

    event.listen(Pool, "connect", connected)
    event.listen(Engine, "commit", committed)


if __name__ == "__main__":
    log = open(sys.argv.pop(1), "a", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
    count(lambda line: print(line[:300].replace("\n", " "), file=log, flush=True))
    main()
