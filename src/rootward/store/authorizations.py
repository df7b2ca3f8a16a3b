"""ACME authorizations with their one challenge that was chosen: facts only; `core.acme` derives the states.

Validating is durable work: an authorization whose challenge was chosen has a time of its next try until it is valid or
failed, and whoever tries holds a lease, which runs out by the database's clock. The end of a try is a compare-and-set
on that lease: a process that was paused, or a client that took its authorization back meanwhile, changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from rootward.core.acme import AuthorizationFacts
from rootward.store.rows import Look, Rows
from rootward.store.schema_acme import authorizations as table

_c = table.c


class Authorization(msgspec.Struct, frozen=True):
    """One row; columns as in `schema_acme.authorizations`. `error` is a JSON problem document."""

    n: int
    id: str
    account: str
    name: str
    wildcard: int
    token: str
    created_at: datetime
    expires_at: datetime
    offered: str
    challenge: str | None
    chosen_at: datetime | None
    thumbprint: str | None
    tries: int
    next_try_at: datetime | None
    lease: str | None
    lease_until: datetime | None
    error: str | None
    validated_at: datetime | None
    failed_at: datetime | None
    deactivated_at: datetime | None

    @property
    def types(self) -> list[str]:
        """The challenges from which its client chooses."""
        return msgspec.json.decode(self.offered, type=list[str])

    @property
    def facts(self) -> AuthorizationFacts:
        """What its status follows from."""
        return AuthorizationFacts(
            self.expires_at, self.challenge, self.validated_at, self.failed_at, self.deactivated_at
        )


_ALL = tuple(_c[name] for name in Authorization.__struct_fields__)
_INSERT = insert(table)
_BY_ID = Look(select(*_ALL).where(_c.id == bindparam("which")))
_REUSABLE = Look(
    select(*_ALL)
    .where(
        _c.account == bindparam("whose"),
        _c.name == bindparam("what"),
        _c.wildcard == bindparam("star"),
        _c.validated_at.is_not(None),
        _c.deactivated_at.is_(None),
        _c.validated_at > bindparam("since"),
        _c.expires_at > bindparam("until"),
    )
    .order_by(_c.expires_at.desc())
    .limit(1)
)
_NTH_FAILURE = Look(
    select(_c.failed_at)
    .where(_c.account == bindparam("whose"), _c.failed_at.is_not(None))
    .order_by(_c.failed_at.desc())
    .limit(1)
    .offset(bindparam("skipped"))
)
_undecided = (_c.validated_at.is_(None), _c.failed_at.is_(None), _c.deactivated_at.is_(None))
_CHOOSE = (
    update(table)
    .where(_c.id == bindparam("which"), _c.challenge.is_(None), _c.expires_at > bindparam("moment"), *_undecided)
    .values(
        challenge=bindparam("kind"),
        chosen_at=bindparam("moment"),
        thumbprint=bindparam("print"),
        next_try_at=bindparam("moment"),
        lease=bindparam("holder"),
        lease_until=bindparam("end"),
    )
)
_free = (_c.next_try_at <= bindparam("moment"), _c.lease.is_(None) | (_c.lease_until <= bindparam("moment")))
_DUE = Look(select(*_ALL).where(*_free).order_by(_c.next_try_at).limit(bindparam("most")))
_CLAIM = (
    update(table)
    .where(_c.id == bindparam("which"), *_free, *_undecided)
    .values(lease=bindparam("holder"), lease_until=bindparam("end"))
)
_tried = (_c.id == bindparam("which"), _c.lease == bindparam("holder"), _c.tries == bindparam("before"), *_undecided)
_end: dict[str, Any] = {"tries": bindparam("before") + 1, "lease": None, "lease_until": None}
_VALID = (
    update(table)
    .where(*_tried)
    .values(**_end, next_try_at=None, validated_at=bindparam("moment"), expires_at=bindparam("until"), error=None)
)
_AGAIN = update(table).where(*_tried).values(**_end, next_try_at=bindparam("again"), error=bindparam("why"))
_FAILED = (
    update(table).where(*_tried).values(**_end, next_try_at=None, failed_at=bindparam("moment"), error=bindparam("why"))
)
_LAPSE = update(table).where(*_tried).values(**_end, next_try_at=None)
_SOONER = (
    update(table)
    .where(_c.id == bindparam("which"), _c.next_try_at > bindparam("moment"), *_undecided)
    .values(next_try_at=bindparam("moment"))
)
_DEACTIVATE = (
    update(table)
    .where(_c.id == bindparam("which"), _c.deactivated_at.is_(None), _c.failed_at.is_(None))
    .values(deactivated_at=bindparam("moment"), next_try_at=None, lease=None, lease_until=None)
)
_STOP = (
    update(table)
    .where(_c.account == bindparam("whose"), _c.next_try_at.is_not(None))
    .values(next_try_at=None, lease=None, lease_until=None, deactivated_at=bindparam("moment"))
)
_GIVE_BACK = (
    update(table)
    .where(_c.next_try_at.is_not(None), _c.lease == bindparam("holder"))
    .values(lease=None, lease_until=None)
)
_BREAK = (
    update(table)
    .where(_c.next_try_at.is_not(None), _c.lease.is_not(None), _c.lease != bindparam("holder"))
    .values(lease=None, lease_until=None)
)


class New(msgspec.Struct, frozen=True):
    """What an authorization begins with. `name` is without the wildcard's star, `offered` are challenge types."""

    id: str
    account: str
    name: str
    wildcard: bool
    token: str
    offered: tuple[str, ...]
    created_at: datetime
    expires_at: datetime


def add(new: New) -> Rows:
    """One for which the client has yet to choose a challenge."""
    return Rows.one(_INSERT, _row(new) | {"challenge": None, "chosen_at": None, "validated_at": None})


def add_preauthorized(new: New) -> Rows:
    """One for which nothing is asked, because the account's binding says that the name is its own."""
    at = new.created_at
    return Rows.one(_INSERT, _row(new) | {"challenge": "preauthorized", "chosen_at": at, "validated_at": at})


def _row(new: New) -> dict[str, Any]:
    row = msgspec.structs.asdict(new)
    return row | {"wildcard": int(new.wildcard), "offered": msgspec.json.encode(new.offered).decode()}


def by_id(conn: Connection, id: str) -> Authorization | None:
    """The authorization of this id, whoever's it is."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Authorization(*row)


def reusable(
    conn: Connection, account: str, name: str, *, wildcard: bool, since: datetime, until: datetime
) -> Authorization | None:
    """A valid one of the same account, name and wildcard flag (I-49), proved after `since` and good beyond `until`."""
    values = {"whose": account, "what": name, "star": int(wildcard), "since": since, "until": until}
    row = _REUSABLE.one(conn, values)
    return None if row is None else Authorization(*row)


def nth_newest_failure(conn: Connection, account: str, n: int) -> datetime | None:
    """When the n-th newest of the account's authorizations failed; None where fewer did."""
    row = _NTH_FAILURE.one(conn, {"whose": account, "skipped": n - 1})
    return None if row is None else row[0]


def choose(
    id: str, *, challenge: str, thumbprint: str, at: datetime, lease: str | None, lease_until: datetime | None
) -> Rows:
    """The client chose its challenge, with the account's key of this thumbprint (RFC 8555 8.3: the key authorization
    is that of the response). With a lease, this process tries at once; else whoever comes first. Lost where one was
    chosen before.
    """
    chosen = {"which": id, "kind": challenge, "print": thumbprint, "moment": at}
    return Rows.one(_CHOOSE, chosen | {"holder": lease, "end": lease_until})


def due(conn: Connection, *, now: datetime, limit: int) -> list[Authorization]:
    """Those to be tried now which nobody holds, the longest due first."""
    return [Authorization(*row) for row in _DUE.all(conn, {"moment": now, "most": limit})]


def claim(id: str, *, lease: str, now: datetime, lease_until: datetime) -> Rows:
    """This process tries. Lost where somebody else does, or nothing is due."""
    return Rows.one(_CLAIM, {"which": id, "holder": lease, "moment": now, "end": lease_until})


def valid(id: str, *, tries: int, lease: str, at: datetime, expires_at: datetime) -> Rows:
    """The try that followed on `tries` others proved it. Lost where the lease is somebody else's, or it was taken
    back.
    """
    return Rows.one(_VALID, {"which": id, "before": tries, "holder": lease, "moment": at, "until": expires_at})


def again(id: str, *, tries: int, lease: str, at: datetime, error: str) -> Rows:
    """The try failed, and there is another one at `at`. `error` is a JSON problem document."""
    return Rows.one(_AGAIN, {"which": id, "before": tries, "holder": lease, "again": at, "why": error})


def failed(id: str, *, tries: int, lease: str, at: datetime, error: str) -> Rows:
    """The last try failed."""
    return Rows.one(_FAILED, {"which": id, "before": tries, "holder": lease, "moment": at, "why": error})


def lapse(id: str, *, tries: int, lease: str) -> Rows:
    """It expired before it was proved: no more tries, and `expired` for good."""
    return Rows.one(_LAPSE, {"which": id, "before": tries, "holder": lease})


def sooner(id: str, *, at: datetime) -> Rows:
    """The client asks for the next try now (RFC 8555 8.2)."""
    return Rows.one(_SOONER, {"which": id, "moment": at}, expect=None)


def deactivate(id: str, *, at: datetime) -> Rows:
    """The client takes it back. Lost where it is deactivated already, or failed."""
    return Rows.one(_DEACTIVATE, {"which": id, "moment": at})


def stop_account(account: str, *, at: datetime) -> Rows:
    """No more tries for an account that was deactivated."""
    return Rows.one(_STOP, {"whose": account, "moment": at}, expect=None)


def give_back(lease: str) -> Rows:
    """A process that ends tries no more: whoever comes first goes on."""
    return Rows.one(_GIVE_BACK, {"holder": lease}, expect=None)


def break_leases(*, but: str) -> Rows:
    """For SQLite at the start, where the lock file proves that every other process is dead."""
    return Rows.one(_BREAK, {"holder": but}, expect=None)
