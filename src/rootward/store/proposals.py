"""What needs two people and is no certificate. Each step is a compare-and-set on facts, so that two approvers, or an
approver and the clock, cannot both win; `Proposal.status` follows from the facts. There is one open proposal for one
`digest`, however often it is made (Taken), and it is carried out once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import proposals as table

Status = Literal["waiting", "approved", "denied", "expired", "done", "failed"]
STATUSES: tuple[Status, ...] = ("waiting", "approved", "denied", "expired", "done", "failed")

_c = table.c


class Proposal(msgspec.Struct, frozen=True):
    """One row. `body` is JSON: what is done, whole; `digest` the SHA-256, hex, of kind, authority and body.
    `comment` is that of the last decision.
    """

    n: int
    id: str
    kind: str
    authority: str
    body: str
    digest: str
    proposed_by: str
    proposed_at: datetime
    expires_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    denied_by: str | None
    denied_at: datetime | None
    comment: str | None
    done_at: datetime | None
    failure: str | None
    closed_at: datetime | None

    def status(self, now: datetime) -> Status:
        """The first that holds of denied, done, failed, expired, approved (and not carried out yet), waiting."""
        if self.denied_at is not None:
            return "denied"
        if self.done_at is not None:
            return "done"
        if self.failure is not None:
            return "failed"
        if self.expires_at <= now or self.closed_at is not None:
            return "expired"
        return "waiting" if self.approved_at is None else "approved"

    @property
    def authorities(self) -> tuple[str, ...]:
        """Those that a yes decides about: its own, and the one that is to take its place."""
        successor = self.values().get("successor")
        return (self.authority,) if successor is None else (self.authority, successor)

    def values(self) -> dict[str, Any]:
        """`body` as Python values."""
        values: dict[str, Any] = msgspec.json.decode(self.body)
        return values


_ALL = tuple(_c[name] for name in Proposal.__struct_fields__)
_INSERT = insert(table)
_BY_ID = Look(select(*_ALL).where(_c.id == bindparam("which")))
_OPEN = Look(select(*_ALL).where(_c.digest == bindparam("what"), _c.closed_at.is_(None)))
_APPROVE = (
    update(table)
    .where(
        _c.id == bindparam("which"),
        _c.closed_at.is_(None),
        _c.approved_at.is_(None),
        _c.expires_at > bindparam("moment"),
    )
    .values(approved_at=bindparam("moment"), approved_by=bindparam("by"), comment=bindparam("said"))
)
_DENY = (
    update(table)
    .where(_c.id == bindparam("which"), _c.closed_at.is_(None))
    .values(
        denied_at=bindparam("moment"),
        denied_by=bindparam("by"),
        comment=bindparam("said"),
        closed_at=bindparam("moment"),
    )
)
_agreed = (_c.closed_at.is_(None), _c.approved_at.is_not(None))
_DONE = (
    update(table)
    .where(_c.id == bindparam("which"), *_agreed, _c.expires_at > bindparam("moment"))
    .values(done_at=bindparam("moment"), closed_at=bindparam("moment"))
)
_STILL_AGREED = (
    update(table)
    .where(_c.id == bindparam("which"), *_agreed, _c.expires_at > bindparam("moment"))
    .values(approved_at=_c.approved_at)
)
_FAIL = (
    update(table)
    .where(_c.id == bindparam("which"), *_agreed)
    .values(failure=bindparam("why"), closed_at=bindparam("moment"))
)
_EXPIRE_ONE = (
    update(table)
    .where(_c.closed_at.is_(None), _c.expires_at <= bindparam("moment"), _c.digest == bindparam("what"))
    .values(closed_at=bindparam("moment"))
)


def add(values: Mapping[str, Any]) -> Rows:
    """A new proposal, by column. An expired one of its digest is closed first; Taken where one is open."""
    old = Rows.one(_EXPIRE_ONE, {"what": values["digest"], "moment": values["proposed_at"]}, expect=None)
    return old + Rows.one(_INSERT, dict(values))


def by_id(conn: Connection, id: str) -> Proposal | None:
    """Closed ones too."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Proposal(*row)


def open_by_digest(conn: Connection, digest: str) -> Proposal | None:
    """The one of that digest that is not closed; it may have expired a moment ago."""
    row = _OPEN.one(conn, {"what": digest})
    return None if row is None else Proposal(*row)


def approve(id: str, *, by: str, at: datetime, comment: str | None) -> Rows:
    """Lost where it was decided, closed or expired meanwhile."""
    return Rows.one(_APPROVE, {"which": id, "moment": at, "by": by, "said": comment})


def deny(id: str, *, by: str, at: datetime, comment: str | None) -> Rows:
    """Agreed to or not, it is not to be done any more. Lost where it is closed."""
    return Rows.one(_DENY, {"which": id, "moment": at, "by": by, "said": comment})


def done(id: str, *, at: datetime) -> Rows:
    """It is carried out, with its effect. Lost where it was before, or is not agreed to, or has expired."""
    return Rows.one(_DONE, {"which": id, "moment": at})


def still_agreed(id: str, *, at: datetime) -> Rows:
    """It is agreed to, and nobody denies it before the end of this transaction. Lost where it is not, or expired."""
    return Rows.one(_STILL_AGREED, {"which": id, "moment": at})


def fail(id: str, *, at: datetime, why: str) -> Rows:
    """What was agreed to cannot be done any more."""
    return Rows.one(_FAIL, {"which": id, "moment": at, "why": why})


def list(
    conn: Connection, *, status: Status, now: datetime, after: int | None = None, limit: int = 50
) -> tuple[Proposal, ...]:
    """Newest first; `after` is the `n` of the last one of the page before."""
    query = select(*_ALL).where(*_with(status, now)).order_by(_c.n.desc()).limit(limit)
    if after is not None:
        query = query.where(_c.n < after)
    return tuple(Proposal(*row) for row in conn.execute(query))


def _with(status: Status, now: datetime) -> tuple[Any, ...]:
    """`Proposal.status` as conditions."""
    if status == "denied":
        return (_c.denied_at.is_not(None),)
    if status == "done":
        return (_c.done_at.is_not(None),)
    if status == "failed":
        return (_c.failure.is_not(None),)
    if status == "expired":
        over = (_c.expires_at <= now) | _c.closed_at.is_not(None)
        return (_c.denied_at.is_(None), _c.done_at.is_(None), _c.failure.is_(None), over)
    undecided = _c.approved_at.is_(None) if status == "waiting" else _c.approved_at.is_not(None)
    return (_c.closed_at.is_(None), _c.expires_at > now, undecided)
