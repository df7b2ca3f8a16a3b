"""Profiles: each version is a row that never changes, kept as JSON text that `core.profile` reads."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import profiles as table

_c = table.c


class ProfileRow(msgspec.Struct, frozen=True):
    """One version; `body` is JSON. `retired_at`, on the last version: the profile issues no more."""

    name: str
    version: int
    authority: str
    body: str
    created_at: datetime
    created_by: str
    retired_at: datetime | None


_ALL = tuple(_c[name] for name in ProfileRow.__struct_fields__)
_INSERT = insert(table)
_LAST = Look(select(*_ALL).where(_c.name == bindparam("which")).order_by(_c.version.desc()).limit(1))
_AT = Look(select(*_ALL).where(_c.name == bindparam("which"), _c.version == bindparam("number")))
_VERSIONS = Look(select(*_ALL).where(_c.name == bindparam("which")).order_by(_c.version.desc()))
_newest = select(_c.name, func.max(_c.version).label("version")).group_by(_c.name).subquery()
_LIST = Look(
    select(*_ALL).join(_newest, and_(_newest.c.name == _c.name, _newest.c.version == _c.version)).order_by(_c.name)
)
_RETIRE = (
    update(table)
    .where(_c.name == bindparam("which"), _c.version == bindparam("number"), _c.retired_at.is_(None))
    .values(retired_at=bindparam("at"))
)


def put(conn: Connection, name: str, *, authority: str, body: str, at: datetime, by: str) -> int:
    """A new version; returns its number, from 1. Taken where somebody else made one at the same moment."""
    last = _LAST.one(conn, {"which": name})
    version = 1 if last is None else ProfileRow(*last).version + 1
    values = {
        "name": name,
        "version": version,
        "authority": authority,
        "body": body,
        "created_at": at,
        "created_by": by,
    }
    Rows.one(_INSERT, values).run(conn)
    return version


def current(conn: Connection, name: str) -> tuple[int, str] | None:
    """(version, body) that issues now; None where there is no such profile or it is retired."""
    row = latest(conn, name)
    return None if row is None or row.retired_at is not None else (row.version, row.body)


def latest(conn: Connection, name: str) -> ProfileRow | None:
    """The last version, retired or not."""
    row = _LAST.one(conn, {"which": name})
    return None if row is None else ProfileRow(*row)


def at_version(conn: Connection, name: str, version: int) -> ProfileRow | None:
    """One version, whether or not the profile still issues."""
    row = _AT.one(conn, {"which": name, "number": version})
    return None if row is None else ProfileRow(*row)


def versions(conn: Connection, name: str) -> tuple[ProfileRow, ...]:
    """All versions, newest first."""
    return tuple(ProfileRow(*row) for row in _VERSIONS.all(conn, {"which": name}))


def list(conn: Connection) -> tuple[ProfileRow, ...]:
    """The last version of each profile, by name, retired ones included."""
    return tuple(ProfileRow(*row) for row in _LIST.all(conn, {}))


def retire(name: str, version: int, *, at: datetime) -> Rows:
    """The profile issues no more. Lost where `version` is not there or retired already."""
    return Rows.one(_RETIRE, {"which": name, "number": version, "at": at})
