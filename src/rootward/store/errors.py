"""What the store says when it cannot do what it was asked: its own words instead of two drivers' dialects of them.

A value that is there already is `Taken`; a row that is not as the statement expected is `Lost`; any other constraint is
`Constraint` (a mistake of ours: a missing value, a broken reference, a change of an event). A store that is away, full
or slow is the Problem RW-STORE. Everything else is no failure of the store and passes as it is.
"""

from __future__ import annotations

import re
import sqlite3

import psycopg
import sqlalchemy.exc
from sqlalchemy import UniqueConstraint

from rootward.core.problems import Problem
from rootward.store.failpoint import Injected
from rootward.store.schema import metadata

_SQLITE_UNIQUE = re.compile(r"UNIQUE constraint failed: (.+)")
_RETRY = frozenset({"40001", "40P01"})  # serialization failure, deadlock
READ_ONLY = "25006"  # the server became a standby under us
# Told to a COMMIT: the server had ended the transaction before, because this process was away for too long.
_ENDED = frozenset({"25P03", "25P04"})


class Lost(Exception):
    """A statement of a Rows did not find its row as it expected it: somebody else was first."""


class Constraint(Exception):
    """The database refused a write by a constraint or trigger; `table` is where, as far as the driver says."""

    def __init__(self, detail: str, *, table: str = "") -> None:
        self.table = table
        super().__init__(detail)


class Taken(Constraint):
    """A value that must be unique is there already, in `table` and its `columns`. The same words on both dialects."""

    def __init__(self, table: str, columns: tuple[str, ...]) -> None:
        self.columns = columns
        super().__init__(f"{table}({', '.join(columns)}) is taken", table=table)


def _unique_names() -> dict[str, tuple[str, tuple[str, ...]]]:
    """PostgreSQL's names of what must be unique, to (table, columns); its own names for unnamed ones."""
    names = {}
    for table in metadata.tables.values():
        names[f"{table.name}_pkey"] = (table.name, tuple(c.name for c in table.primary_key.columns))
        for constraint in table.constraints:
            if isinstance(constraint, UniqueConstraint):
                columns = tuple(c.name for c in constraint.columns)
                name = constraint.name or f"{table.name}_{'_'.join(columns)}_key"
                names[str(name)] = (table.name, columns)
        for index in table.indexes:
            if index.unique:
                names[str(index.name)] = (table.name, tuple(c.name for c in index.columns))
    return names


_UNIQUE_NAMES = _unique_names()


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's wrapper; the error itself where there is none."""
    if isinstance(error, sqlalchemy.exc.StatementError) and error.orig is not None:
        return error.orig
    return error


def translated(error: Exception) -> Exception:
    """The error to raise for `error`, in the store's words, its cause set; `error` itself, unwrapped, where it is not
    about the store.
    """
    ours = _translated(driver_error(error), error)
    if isinstance(ours, Constraint | Problem) and ours is not error:
        ours.__cause__ = error
    return ours


class _Translating:
    """`with translating:` lets errors out in the store's words."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            ours = translated(error)
            if ours is not error:
                raise ours from ours.__cause__


translating = _Translating()


def _translated(inner: BaseException, error: Exception) -> Exception:
    if isinstance(inner, sqlite3.IntegrityError):
        match = _SQLITE_UNIQUE.fullmatch(str(inner))
        if match is None:
            return Constraint(str(inner))
        table = match[1].split(".", 1)[0]
        return Taken(table, tuple(part.strip().removeprefix(f"{table}.") for part in match[1].split(",")))
    if isinstance(inner, psycopg.IntegrityError):
        name = inner.diag.constraint_name or ""
        table = inner.diag.table_name or ""
        if isinstance(inner, psycopg.errors.UniqueViolation):
            return Taken(*_UNIQUE_NAMES.get(name, (table, (name,))))
        return Constraint(inner.diag.message_primary or name, table=table)
    if _away(inner):
        return Problem("RW-STORE", "The store does not answer as it should. Try again in a moment.", retry_after=5)
    return inner if isinstance(inner, Exception) else error


def may_retry(error: Exception) -> bool:
    """Whether a PostgreSQL transaction that did not reach its COMMIT may simply be run again."""
    inner = driver_error(error)
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(inner, psycopg.Error) and inner.sqlstate in _RETRY


def _away(inner: BaseException) -> bool:
    if isinstance(inner, sqlite3.DatabaseError):
        # Primary code 1 is wrong SQL: our mistake. Its subclasses ProgrammingError and InterfaceError are ours too.
        code: int = getattr(inner, "sqlite_errorcode", 1)
        return code & 0xFF != 1 and not isinstance(inner, sqlite3.ProgrammingError)
    if isinstance(inner, psycopg.Error) and inner.sqlstate in {READ_ONLY, *_ENDED}:
        return True
    return isinstance(inner, psycopg.OperationalError | sqlalchemy.exc.TimeoutError | Injected)
