"""Background work as leased rows (I-62). A lease runs out by the database's clock, and each one has a higher fence.

Whoever claimed a job adds `fenced` to each write that it does as its holder: the write is Lost once somebody else has
claimed the job, so a process that was paused and wakes up can do no harm. A claim moves `due_at` to the lease's end, so
that the job of a process that died comes up again; `set_due` in the meantime puts it earlier, and `done` heeds that: a
wake-up is never lost.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, bindparam, case, or_, select, text, update

from rootward.store.errors import Lost
from rootward.store.rows import Look, Rows
from rootward.store.schema import Moment
from rootward.store.schema import jobs as table

_c = table.c
LONGEST = timedelta(minutes=10)  # no lease is longer


class Job(msgspec.Struct, frozen=True):
    """`failure` is what went wrong the last time, None where it went well."""

    name: str
    due_at: datetime
    lease: str | None
    lease_until: datetime | None
    fence: int
    done_at: datetime | None
    failure: str | None


_ALL = tuple(_c[name] for name in Job.__struct_fields__)
# A lease that would last for long is of a clock that ran ahead and was put right.
_free = or_(_c.lease.is_(None), _c.lease_until <= bindparam("moment"), _c.lease_until > bindparam("horizon"))
_mine = (_c.name == bindparam("which"), _c.fence == bindparam("token"), _c.lease.is_not(None))

_ENSURE = text(
    "INSERT INTO jobs (name, due_at, fence) VALUES (:name, :due_at, 0) ON CONFLICT (name) DO NOTHING"
).bindparams(bindparam("due_at", type_=Moment))
_LIST = Look(select(*_ALL).order_by(_c.name))
_GET = Look(select(*_ALL).where(_c.name == bindparam("which")))
_DUE = Look(select(*_ALL).where(_c.due_at <= bindparam("moment"), _free).order_by(_c.due_at, _c.name))
_CLAIM = (
    update(table)
    .where(_c.name == bindparam("which"), _c.due_at <= bindparam("moment"), _free)
    .values(lease=bindparam("holder"), lease_until=bindparam("end"), due_at=bindparam("end"), fence=_c.fence + 1)
)
_RENEW = (
    update(table)
    .where(*_mine)
    .values(
        due_at=case((_c.due_at < _c.lease_until, _c.due_at), else_=bindparam("end", type_=Moment)),
        lease_until=bindparam("end"),
    )
)
_BREAK = (
    update(table)
    .where(_c.lease.is_not(None), _c.lease != bindparam("holder"))
    .values(due_at=case((_c.due_at < _c.lease_until, _c.due_at), else_=bindparam("moment", type_=Moment)), lease=None)
    .values(lease_until=None)
)
_FENCED = update(table).where(*_mine).values(fence=_c.fence)
_next = case(
    ((_c.due_at < _c.lease_until) & (_c.due_at < bindparam("again", type_=Moment)), _c.due_at),
    else_=bindparam("again", type_=Moment),
)
_DONE = (
    update(table)
    .where(*_mine)
    .values(due_at=_next, lease=None, lease_until=None, done_at=bindparam("moment"), failure=None)
)
_FAILED = update(table).where(*_mine).values(due_at=_next, lease=None, lease_until=None, failure=bindparam("why"))
_SET_DUE = (
    update(table).where(_c.name == bindparam("which"), _c.due_at > bindparam("at")).values(due_at=bindparam("at"))
)


def ensure(name: str, *, due_at: datetime) -> Rows:
    """The job is there; due at `due_at` if it is new."""
    return Rows.one(_ENSURE, {"name": name, "due_at": due_at}, expect=None)


def list(conn: Connection) -> tuple[Job, ...]:
    """All, by name."""
    return tuple(Job(*row) for row in _LIST.all(conn, {}))


def get(conn: Connection, name: str) -> Job | None:
    """The job of that name."""
    row = _GET.one(conn, {"which": name})
    return None if row is None else Job(*row)


def break_leases(*, but: str, now: datetime) -> Rows:
    """Every lease but this process's own is over, and its job due: for SQLite, where the lock file proves that there is
    no other process.
    """
    return Rows.one(_BREAK, {"holder": but, "moment": now}, expect=None)


def due(conn: Connection, now: datetime) -> tuple[Job, ...]:
    """Jobs to claim now, the longest due first. `now` by `db.clock`."""
    return tuple(Job(*row) for row in _DUE.all(conn, {"moment": now, "horizon": now + LONGEST}))


def claim(conn: Connection, name: str, *, lease: str, now: datetime, until: datetime) -> int | None:
    """The fence of the new lease; None where the job is not due or somebody else's. `now` by `db.clock`."""
    values = {"which": name, "moment": now, "holder": lease, "end": until, "horizon": now + LONGEST}
    try:
        Rows.one(_CLAIM, values).run(conn)
    except Lost:
        return None
    found = get(conn, name)
    return None if found is None else found.fence


def renew(name: str, *, fence: int, until: datetime) -> Rows:
    """Keep the lease longer. Lost where it is somebody else's by now."""
    return Rows.one(_RENEW, {"which": name, "token": fence, "end": until})


def fenced(name: str, *, fence: int) -> Rows:
    """For the rows of a holder's write: Lost where the job is somebody else's by now."""
    return Rows.one(_FENCED, {"which": name, "token": fence})


def done(name: str, *, fence: int, at: datetime, again: datetime) -> Rows:
    """It went well; due next at `again`, or sooner where somebody asked for it meanwhile. Lost where it is somebody
    else's by now.
    """
    return Rows.one(_DONE, {"which": name, "token": fence, "moment": at, "again": again})


def failed(name: str, *, fence: int, failure: str, again: datetime) -> Rows:
    """It did not go well; due next at `again`. Lost where it is somebody else's by now."""
    return Rows.one(_FAILED, {"which": name, "token": fence, "why": failure, "again": again})


def set_due(name: str, *, at: datetime) -> Rows:
    """Let the job be due at `at` at the latest: a wake-up, for the rows of what causes it."""
    return Rows.one(_SET_DUE, {"which": name, "at": at}, expect=None)
