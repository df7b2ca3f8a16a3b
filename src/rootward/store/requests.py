"""Asks that wait for a person. Each step is a compare-and-set on facts, so that two approvers, or an approver and the
clock, cannot both win; `Parked.status` follows from the facts. There is one open request for one `binding`, however
often it is asked (Taken).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, bindparam, exists, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import requests as table

_FIXED = (
    *("id", "principal", "authority", "profile", "profile_version", "names", "binds", "binding", "plan"),
    *("summary", "ask", "created_at", "expires_at"),
)
Status = Literal["waiting", "approved", "denied", "expired", "issued", "failed"]

_c = table.c


class Parked(msgspec.Struct, frozen=True):
    """One row; columns as in `schema.requests`. `names`, `summary`, `ask` and `reasons` are JSON. `asked_by` is the
    person who asked in the place of `principal`, None where that asked itself.
    """

    n: int
    id: str
    principal: str
    authority: str
    profile: str
    profile_version: int
    names: str
    binds: str
    binding: str
    plan: str
    summary: str
    ask: str
    created_at: datetime
    expires_at: datetime
    approved_at: datetime | None
    approved_by: str | None
    denied_at: datetime | None
    denied_by: str | None
    comment: str | None
    used_at: datetime | None
    certificate: str | None
    failed_at: datetime | None
    reasons: str | None
    closed_at: datetime | None
    asked_by: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256, hex, over the columns that never change: what was asked for, and what a yes is bound to. Not over
        `asked_by`, which came later: that is the actor of `request.parked`.
        """
        return hashlib.sha256(msgspec.json.encode([getattr(self, name) for name in _FIXED])).hexdigest()

    def status(self, now: datetime) -> Status:
        """The first that holds of denied, failed, issued, expired, approved, waiting."""
        if self.denied_at is not None:
            return "denied"
        if self.failed_at is not None:
            return "failed"
        if self.used_at is not None:
            return "issued"
        if self.expires_at <= now or self.closed_at is not None:
            return "expired"
        return "waiting" if self.approved_at is None else "approved"


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What `list` keeps; None keeps all. `principal`: what it asked for, for itself or in the place of another."""

    status: Status | None = None
    principal: str | None = None
    authority: str | None = None
    profile: str | None = None


_ALL = tuple(_c[name] for name in Parked.__struct_fields__)
_INSERT = insert(table)
_BY_ID = Look(select(*_ALL).where(_c.id == bindparam("which")))
_BY_BINDING = Look(select(*_ALL).where(_c.binding == bindparam("what"), _c.closed_at.is_(None)))
_undecided = (_c.closed_at.is_(None), _c.approved_at.is_(None), _c.denied_at.is_(None))
_APPROVE = (
    update(table)
    .where(_c.id == bindparam("which"), *_undecided, _c.expires_at > bindparam("moment"))
    .values(approved_at=bindparam("moment"), approved_by=bindparam("by"), comment=bindparam("said"))
)
_DENY = (
    update(table)
    .where(_c.id == bindparam("which"), *_undecided, _c.expires_at > bindparam("moment"))
    .values(
        denied_at=bindparam("moment"),
        denied_by=bindparam("by"),
        comment=bindparam("said"),
        closed_at=bindparam("moment"),
    )
)
_approved = (_c.approved_at.is_not(None), _c.used_at.is_(None), _c.closed_at.is_(None))
_USE = (
    update(table)
    .where(_c.id == bindparam("which"), *_approved, _c.expires_at > bindparam("moment"))
    .values(used_at=bindparam("moment"), certificate=bindparam("made"), closed_at=bindparam("moment"))
)
_other = table.alias()
_GIVE_BACK = (
    update(table)
    .where(
        _c.certificate == bindparam("made"),
        _c.used_at.is_not(None),
        _c.failed_at.is_(None),
        _c.expires_at > bindparam("moment"),
        ~exists().where(_other.c.binding == _c.binding, _other.c.closed_at.is_(None)),
    )
    .values(used_at=None, closed_at=None)
)
_FAIL = (
    update(table)
    .where(_c.id == bindparam("which"), _c.failed_at.is_(None), _c.denied_at.is_(None))
    .values(failed_at=bindparam("moment"), reasons=bindparam("why"), closed_at=bindparam("moment"))
)
_CLOSE = update(table).where(_c.id == bindparam("which"), _c.closed_at.is_(None)).values(closed_at=bindparam("moment"))
_EXPIRE = (
    update(table)
    .where(_c.closed_at.is_(None), _c.expires_at <= bindparam("moment"))
    .values(closed_at=bindparam("moment"))
)
_EXPIRE_ONE = (
    update(table)
    .where(_c.closed_at.is_(None), _c.expires_at <= bindparam("moment"), _c.binding == bindparam("what"))
    .values(closed_at=bindparam("moment"))
)


def park(values: Mapping[str, Any]) -> Rows:
    """A new request, by column. An expired one of its binding is closed first; Taken where one is open."""
    old = Rows.one(_EXPIRE_ONE, {"what": values["binding"], "moment": values["created_at"]}, expect=None)
    return old + Rows.one(_INSERT, dict(values))


def by_id(conn: Connection, id: str) -> Parked | None:
    """Closed ones too."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Parked(*row)


def open_by_binding(conn: Connection, binding: str) -> Parked | None:
    """The one request of that binding that is not closed; it may have expired a moment ago."""
    row = _BY_BINDING.one(conn, {"what": binding})
    return None if row is None else Parked(*row)


def approve(id: str, *, by: str, at: datetime, comment: str | None = None) -> Rows:
    """Lost where it was decided, closed or expired meanwhile."""
    return Rows.one(_APPROVE, {"which": id, "moment": at, "by": by, "said": comment})


def deny(id: str, *, by: str, at: datetime, comment: str | None = None) -> Rows:
    """Lost where it was decided, closed or expired meanwhile."""
    return Rows.one(_DENY, {"which": id, "moment": at, "by": by, "said": comment})


def use(id: str, *, certificate: str, at: datetime) -> Rows:
    """The approval goes into a certificate's intent, with its rows. Lost where it is used up or expired."""
    return Rows.one(_USE, {"which": id, "moment": at, "made": certificate})


def give_back(certificate: str, *, at: datetime) -> Rows:
    """The attempt `certificate` came to nothing: the yes that it used stands again, unless the same was parked anew.

    It goes on naming the attempt, so that the next one can say what it is the retry of.
    """
    return Rows.one(_GIVE_BACK, {"made": certificate, "moment": at}, expect=None)


def fail(id: str, *, at: datetime, reasons: str) -> Rows:
    """What was approved could not be issued. `reasons` is JSON."""
    return Rows.one(_FAIL, {"which": id, "moment": at, "why": reasons})


def close(id: str, *, at: datetime) -> Rows:
    """Take it off the table undecided, such as by its asker. Lost where it is closed already."""
    return Rows.one(_CLOSE, {"which": id, "moment": at})


def expire(*, now: datetime) -> Rows:
    """Close everything that expired; for a job."""
    return Rows.one(_EXPIRE, {"moment": now}, expect=None)


def list(
    conn: Connection, filters: Filters, *, now: datetime, after: int | None = None, limit: int = 50
) -> tuple[Parked, ...]:
    """Newest first; `after` is the `n` of the last one of the page before."""
    query = select(*_ALL).order_by(_c.n.desc()).limit(limit)
    if after is not None:
        query = query.where(_c.n < after)
    if filters.principal is not None:
        query = query.where((_c.principal == filters.principal) | (_c.asked_by == filters.principal))
    if filters.authority is not None:
        query = query.where(_c.authority == filters.authority)
    if filters.profile is not None:
        query = query.where(_c.profile == filters.profile)
    if filters.status is not None:
        query = query.where(*_with(filters.status, now))
    return tuple(Parked(*row) for row in conn.execute(query))


def _with(status: Status, now: datetime) -> tuple[Any, ...]:
    """`Parked.status` as conditions."""
    if status == "denied":
        return (_c.denied_at.is_not(None),)
    if status == "failed":
        return (_c.failed_at.is_not(None), _c.denied_at.is_(None))
    over = (_c.denied_at.is_(None), _c.failed_at.is_(None))
    if status == "issued":
        return (*over, _c.used_at.is_not(None))
    if status == "expired":
        return (*over, _c.used_at.is_(None), (_c.expires_at <= now) | _c.closed_at.is_not(None))
    undecided = _c.approved_at.is_(None) if status == "waiting" else _c.approved_at.is_not(None)
    return (_c.closed_at.is_(None), _c.expires_at > now, undecided)
