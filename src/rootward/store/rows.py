"""Statements that are compiled once and run without SQLAlchemy's execution layer in between.

`Rows` is what a caller hands to `Database.write`: statements in order, each with its values and the number of rows it
must touch. `Look` is a SELECT of a hot path. Both take module-level statements only: a statement is known by its
identity, so that those of a group that are equal run as one `executemany`. No statement here may have a list parameter
(`IN`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Connection, Select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.expression import Executable
from sqlalchemy.types import TypeEngine

from rootward.store.errors import READ_ONLY, Lost
from rootward.store.schema import Moment

Values = Mapping[str, Any]
_Convert = Callable[[Any], Any] | None
_KEPT = 1024  # compiled statements; more means that somebody builds them on the fly


def _binder(kind: TypeEngine[Any], dialect: Dialect) -> _Convert:
    # Moment's own function: SQLAlchemy would put three more calls around each time, and a row has many.
    return Moment.seconds if isinstance(kind, Moment) else kind.dialect_impl(dialect).bind_processor(dialect)


def _reader(kind: TypeEngine[Any], dialect: Dialect) -> _Convert:
    return Moment.moment if isinstance(kind, Moment) else kind.dialect_impl(dialect).result_processor(dialect, None)


class _Compiled:
    """SQL text for one dialect, statement and set of value names, and how the values go in."""

    def __init__(self, statement: Executable, names: tuple[str, ...], dialect: Dialect) -> None:
        self.statement = statement  # kept alive: the cache knows it by its id
        compiled: Any = statement.compile(  # type: ignore[attr-defined]  # every statement we take is a ClauseElement
            dialect=dialect, column_keys=list(names), for_executemany=True
        )
        self.sql = str(compiled)
        self.positional: bool = compiled.positional
        order: Iterable[str] = compiled.positiontup if compiled.positional else compiled.binds
        given = frozenset(names)
        if not given <= set(order):
            raise TypeError(f"the statement has no place for {', '.join(sorted(given - set(order)))}")
        self._plan: list[tuple[str, bool, _Convert, Any]] = []
        for name in order:
            bind = compiled.binds[name]
            convert = _binder(bind.type, dialect)
            if name not in given and bind.required:
                raise TypeError(f"the statement needs a value for {name}")
            fixed = None if name in given else bind.effective_value
            if name not in given and convert is not None:
                fixed = convert(fixed)
            self._plan.append((name, name in given, convert, fixed))
        self.results: list[_Convert] = []
        if isinstance(statement, Select):
            columns = statement.selected_columns
            self.results = [_reader(c.type, dialect) for c in columns]
        self.converts = any(self.results)

    def bind(self, values: Values) -> Any:
        """The values as the driver takes them: a tuple, or a dictionary where the dialect names its parameters."""
        row = [
            (fixed if not given else values[name] if convert is None else convert(values[name]))
            for name, given, convert, fixed in self._plan
        ]
        return tuple(row) if self.positional else dict(zip((step[0] for step in self._plan), row, strict=True))

    def result(self, row: Any) -> tuple[Any, ...]:
        if not self.converts:
            return tuple(row)
        return tuple(v if f is None else f(v) for f, v in zip(self.results, row, strict=True))


_cache: dict[tuple[int, tuple[str, ...], str], _Compiled] = {}


def _compiled(statement: Executable, names: tuple[str, ...], dialect: Dialect) -> _Compiled:
    key = (id(statement), names, dialect.name)
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= _KEPT:
            _cache.clear()
        found = _cache[key] = _Compiled(statement, names, dialect)
    return found


def _execute(conn: Connection, compiled: _Compiled, values: Values) -> Any:
    """A cursor with `rowcount`, `fetchone` and `fetchall`, from the driver itself: what SQLAlchemy puts around a result
    costs more than the statement.

    Where PostgreSQL's connection broke, or leads to what is a standby by now, SQLAlchemy has to find out: it gives up
    the whole pool then, because the others lead there too, and says so in the error that it raises.
    """
    driver: Any = conn.connection.dbapi_connection
    try:
        return driver.execute(compiled.sql, compiled.bind(values))
    except psycopg.Error as error:
        if error.sqlstate == READ_ONLY:
            driver.close()
        if driver.closed:
            conn.exec_driver_sql("SELECT 1")
        raise


class Rows:
    """Statements to run in order in one transaction: (statement, values, rows that it must touch, or None for any
    number).

    A statement that expects a row must name it by something unique: in a group, only the sum of the rows touched is
    compared.
    """

    __slots__ = ("steps",)

    def __init__(self, steps: tuple[tuple[Executable, Values, int | None], ...] = ()) -> None:
        self.steps = steps

    @classmethod
    def one(cls, statement: Executable, values: Values, *, expect: int | None = 1) -> Rows:
        return cls(((statement, values, expect),))

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.steps + other.steps)

    def __repr__(self) -> str:
        return f"Rows of {len(self.steps)}"  # never the values: they may be personal

    def run(self, conn: Connection) -> None:
        """Run inside the caller's transaction. Raises Lost where a statement touched another number of rows."""
        for statement, values, expect in self.steps:
            compiled = _compiled(statement, tuple(values), conn.dialect)
            touched = _execute(conn, compiled, values).rowcount
            if expect is not None and touched != expect:
                raise Lost(f"{touched} rows instead of {expect}")


UNFENCED = Rows()  # of whoever holds no lease


def run(work: Rows | Callable[[Connection], Any], conn: Connection) -> Any:
    """Do one write in the caller's transaction; what a function returns, None for Rows."""
    if isinstance(work, Rows):
        work.run(conn)
        return None
    return work(conn)


def run_together(conn: Connection, group: list[Rows]) -> None:
    """All of `group` on a SQLite connection, equal statements as one `executemany`; the order inside each Rows is kept.

    Raises Lost or the driver's error without saying whose fault it was: the caller rolls back and plays them one by
    one.
    """
    driver: Any = conn.connection.dbapi_connection
    dialect = conn.dialect
    for depth in range(max(len(rows.steps) for rows in group)):
        batches: dict[tuple[int, tuple[str, ...], bool], list[tuple[Executable, Values, int | None]]] = {}
        for rows in group:
            if depth < len(rows.steps):
                step = rows.steps[depth]
                batches.setdefault((id(step[0]), tuple(step[1]), step[2] is None), []).append(step)
        for (_, names, free), steps in batches.items():
            compiled = _compiled(steps[0][0], names, dialect)
            cursor = driver.executemany(compiled.sql, [compiled.bind(values) for _, values, _ in steps])
            expected = 0 if free else sum(expect or 0 for _, _, expect in steps)
            if not free and cursor.rowcount != expected:
                raise Lost(f"{cursor.rowcount} rows instead of {expected}")


class Look:
    """A SELECT that is asked often. Rows come as plain tuples, times as aware UTC."""

    __slots__ = ("_statement",)

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        self._statement = statement

    def one(self, conn: Connection, values: Values) -> tuple[Any, ...] | None:
        """The first row, or None. The statement says LIMIT 1 or asks for something unique."""
        compiled = _compiled(self._statement, tuple(values), conn.dialect)
        found = _execute(conn, compiled, values)
        row = found.fetchone()
        found.close()
        return None if row is None else compiled.result(row)

    def all(self, conn: Connection, values: Values) -> list[tuple[Any, ...]]:
        """All rows."""
        compiled = _compiled(self._statement, tuple(values), conn.dialect)
        return [compiled.result(row) for row in _execute(conn, compiled, values).fetchall()]
