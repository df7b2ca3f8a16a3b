"""Things that are true once and for all of this installation, by name: its id, the second person, the last clock
reading.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, delete, select, text

from rootward.store.rows import Look, Rows
from rootward.store.schema import Moment, facts


class Fact(msgspec.Struct, frozen=True):
    """A fact: since when, and what belongs to it."""

    name: str
    at: datetime
    data: str


_GET = Look(select(facts.c.name, facts.c.at, facts.c.data).where(facts.c.name == bindparam("fact")))
_ONCE = text("INSERT INTO facts (name, at, data) VALUES (:name, :at, :data) ON CONFLICT (name) DO NOTHING").bindparams(
    bindparam("at", type_=Moment)
)
_PUT = text(
    "INSERT INTO facts (name, at, data) VALUES (:name, :at, :data) "
    "ON CONFLICT (name) DO UPDATE SET at = excluded.at, data = excluded.data"
).bindparams(bindparam("at", type_=Moment))

_FORGET = delete(facts).where(facts.c.name == bindparam("fact"))


def get(conn: Connection, name: str) -> Fact | None:
    """The fact of that name; None where it was never stated."""
    row = _GET.one(conn, {"fact": name})
    return None if row is None else Fact(*row)


def put_once(name: str, *, at: datetime, data: str = "") -> Rows:
    """State a fact for good; where it is stated already, it stays as it is."""
    return Rows.one(_ONCE, {"name": name, "at": at, "data": data}, expect=None)


def put(name: str, *, at: datetime, data: str = "") -> Rows:
    """State a fact, in place of what was stated before."""
    return Rows.one(_PUT, {"name": name, "at": at, "data": data})


def forget(name: str) -> Rows:
    """It is true no longer; nothing where it was not stated."""
    return Rows.one(_FORGET, {"fact": name}, expect=None)
