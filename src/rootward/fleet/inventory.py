"""Finding certificates: the documented filters over a million rows without reading them all.

One filter drives, by its index; the others are checked on the rows that it gives and are written so that no planner
takes their index instead (`coalesce` hides a column from it) and sorts. Where one of several filters leaves few rows,
they are fetched by their numbers and sorted, so that no other is gone along past a million rows to find them. Pages go
on from the last row's place (keyset), never by counting. Newest first, but where expiry is asked for: then in the order
of expiry, the latest first among the expired.

Only certificates are found: an intent that is open or failed is none. Status is derived here in SQL exactly as
`Certificate.status` derives it from one row: the first that holds of orphan, revoked, held, expired, active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    column,
    func,
    join,
    literal,
    literal_column,
    not_,
    select,
    table,
    tuple_,
    union_all,
)

from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.store.certificates import COLUMNS, COUNTS, HOLD, Certificate, Status, from_row
from rootward.store.schema import Moment, certificates
from rootward.store.search import matching

STATUSES: tuple[Status, ...] = ("active", "expired", "revoked", "held", "orphan")
SOURCES = ("issued", "imported", "discovered")
SHORTEST = 3  # characters of `q`: what a trigram index can look up

_c = certificates.c
_FINAL = tuple(
    reason.value
    for reason in RevocationReason
    if reason not in (RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL)
)
_hidden_not_after: ColumnElement[Any] = func.coalesce(_c.not_after, literal_column("0"))
_SEARCHES = {
    "sqlite": table("certificate_search", column("rowid", BigInteger), column("text", Text)),
    "postgresql": table("certificate_search", column("n", BigInteger), column("text", Text)),
}
_PLACES = {"sqlite": _SEARCHES["sqlite"].c.rowid, "postgresql": _SEARCHES["postgresql"].c.n}
_PLAIN = ("owner", "profile", "authority", "source")
FEW = 1000
_LAST_TIME = 253_402_300_799  # the year 9999 ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What to find; None does not filter. Times are aware UTC.

    `q` is a literal part of a name, of 3 characters or more. `visible` are the authorities whose certificates may be
    seen; None for all of them, and for what belongs to none.
    """

    q: str | None = None
    status: Status | None = None
    source: str | None = None
    owner: str | None = None
    authority: str | None = None
    profile: str | None = None
    expires_before: datetime | None = None
    expires_after: datetime | None = None
    visible: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.q is not None and len(self.q) < SHORTEST:
            raise Problem("RW-QUERY", f"q has {SHORTEST} characters or more.", field="q")

    @property
    def by_expiry(self) -> bool:
        """Whether the order is that of expiry; then a position has two numbers: Unix seconds and `n`, else only `n`."""
        expiry = self.expires_before or self.expires_after or self.status in ("active", "expired")
        return bool(expiry) and self.q is None

    @property
    def position_length(self) -> int:
        return 2 if self.by_expiry else 1


@dataclass(frozen=True, slots=True)
class Found:
    """One page, and the position of its last item where there is more."""

    certificates: list[Certificate]
    after: tuple[int, ...] | None


def search(
    conn: Connection, filters: Filters, *, now: datetime, limit: int, after: tuple[int, ...] | None = None
) -> Found:
    """At most `limit` certificates past the position `after` (`filters.position_length` numbers)."""
    if filters.visible is not None and not filters.visible:
        return Found([], None)
    few = _few(conn, filters)
    if few is not None:
        statement = _among(few, filters, now=now, limit=limit + 1, after=after, dialect=conn.dialect.name)
    else:
        statement = query(filters, now=now, limit=limit + 1, after=after, dialect=conn.dialect.name)
    found = [from_row(row) for row in conn.execute(statement)]
    if len(found) <= limit:
        return Found(found, None)
    last = found[limit - 1]
    position = (int(last.not_after.timestamp()), last.n) if filters.by_expiry else (last.n,)
    return Found(found[:limit], position)


def query(filters: Filters, *, now: datetime, limit: int, after: tuple[int, ...] | None, dialect: str) -> Select[Any]:
    """The statement behind `search` where no filter leaves few rows."""
    wanted = select(*COLUMNS)
    if filters.by_expiry:
        return _by_expiry(wanted, filters, now, after).limit(limit)
    driver = _driver(filters)
    conditions = _conditions(filters, now, driver)
    if filters.q is not None:
        place = _PLACES[dialect]
        conditions.append(_matches(filters.q, dialect))
        if after is not None:
            conditions.append(place < after[0])
        joined = join(_SEARCHES[dialect], certificates, _c.n == place)
        return wanted.select_from(joined).where(*conditions).order_by(place.desc()).limit(limit)
    if after is not None:
        conditions.append(_c.n < after[0])
    if driver == "revoked":
        return _revoked(wanted, conditions, limit)
    return wanted.where(*conditions).order_by(_c.n.desc()).limit(limit)


def _few(conn: Connection, filters: Filters) -> list[int] | None:
    """The numbers of all rows that one of several filters leaves, where they are few. Each look reads its index and no
    row, and no more of it than that.
    """
    alone = _alone(filters)
    several = filters.q is not None or filters.status in ("active", "expired") or filters.visible is not None
    if len(alone) + several < 2:
        return None
    for condition in alone:
        found = list(conn.execute(select(_c.n).where(condition).limit(FEW + 1)).scalars())
        if len(found) <= FEW:
            return found
    return None


def _alone(filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions that an index answers by itself; none of them leaves out what its filter would keep."""
    found: list[ColumnElement[bool]] = []
    if filters.status == "orphan":
        found.append(_c.orphaned_at.is_not(None))
    elif filters.status == "held":
        found.append(and_(_c.revoked_at.is_not(None), _c.reason == HOLD))
    elif filters.status == "revoked":
        found.append(_c.revoked_at.is_not(None))
    found += [_c[name] == value for name in _PLAIN if (value := getattr(filters, name)) is not None]
    times = []
    if filters.expires_before is not None:
        times.append(_c.not_after < filters.expires_before)
    if filters.expires_after is not None:
        times.append(_c.not_after > filters.expires_after)
    return [*found, and_(*times)] if times else found


def _among(
    few: list[int], filters: Filters, *, now: datetime, limit: int, after: tuple[int, ...] | None, dialect: str
) -> Select[Any]:
    """As `query`, of these rows alone: the database sorts them."""
    conditions = [_c.n.in_(few), *_conditions(filters, now, None)]
    wanted = select(*COLUMNS)
    if filters.q is not None:
        names = _SEARCHES[dialect]
        wanted = wanted.select_from(join(names, certificates, _c.n == _PLACES[dialect]))
        conditions.append(func.lower(names.c.text).contains(filters.q.lower(), autoescape=True))
    if filters.by_expiry:
        return _in_order_of_expiry(wanted, conditions, filters, after).limit(limit)
    if after is not None:
        conditions.append(_c.n < after[0])
    return wanted.where(*conditions).order_by(_c.n.desc()).limit(limit)


def _driver(filters: Filters) -> str | None:
    """The filter whose index is gone along: those that tend to leave the fewest rows first."""
    if filters.q is not None:
        return "q"
    if filters.owner is not None:
        return "owner"
    if filters.status in ("revoked", "held", "orphan"):
        return filters.status
    for name in ("profile", "authority", "source"):
        if getattr(filters, name) is not None:
            return name
    return None


def _by_expiry(wanted: Select[Any], filters: Filters, now: datetime, after: tuple[int, ...] | None) -> Select[Any]:
    return _in_order_of_expiry(wanted, _conditions(filters, now, "not_after"), filters, after)


def _in_order_of_expiry(
    wanted: Select[Any], conditions: list[ColumnElement[bool]], filters: Filters, after: tuple[int, ...] | None
) -> Select[Any]:
    latest_first = filters.status == "expired"
    place = tuple_(_c.not_after, _c.n)
    if after is not None:
        if not 0 <= after[0] <= _LAST_TIME:
            raise Problem("RW-QUERY", "The cursor is not one of this list.", field="cursor")
        here = tuple_(literal(datetime.fromtimestamp(after[0], UTC), Moment), literal(after[1]))
        conditions.append(place < here if latest_first else place > here)
    order = (_c.not_after.desc(), _c.n.desc()) if latest_first else (_c.not_after, _c.n)
    return wanted.where(*conditions).order_by(*order)


def _revoked(wanted: Select[Any], conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """The newest of each reason, then the newest of those: the index is by reason, and there are nine of them."""
    newest = (
        select(_c.n)
        .where(_c.revoked_at.is_not(None), _c.reason == reason, *conditions)
        .order_by(_c.n.desc())
        .limit(limit)
        for reason in _FINAL
    )
    merged = union_all(*(select(part.subquery().c.n) for part in newest))
    return wanted.where(_c.n.in_(merged)).order_by(_c.n.desc()).limit(limit)


def _matches(q: str, dialect: str) -> ColumnElement[bool]:
    """`q` as a literal part of the text: a quoted phrase for FTS5, an escaped pattern for ILIKE."""
    if dialect == "sqlite":
        return _SEARCHES[dialect].c.text.op("MATCH", is_comparison=True)(matching(q))
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return _SEARCHES[dialect].c.text.ilike(f"%{escaped}%", escape="\\")


def _conditions(filters: Filters, now: datetime, driver: str | None) -> list[ColumnElement[bool]]:
    """Every filter; only the driver's column is plain, so that only its index can be taken."""
    found: list[ColumnElement[bool]] = [COUNTS]
    for name in _PLAIN:
        value = getattr(filters, name)
        if value is not None:
            plain = name == driver or (name, driver) == ("owner", "not_after")  # one index has both
            found.append((_c[name] if plain else func.coalesce(_c[name], "")) == value)
    if filters.visible is not None:
        found.append(func.coalesce(_c.authority, "").in_(sorted(filters.visible)))
    not_after = _c.not_after if driver == "not_after" else _hidden_not_after
    if filters.expires_before is not None:
        found.append(not_after < filters.expires_before)
    if filters.expires_after is not None:
        found.append(not_after > filters.expires_after)
    if driver == "revoked":
        found.append(_c.orphaned_at.is_(None))  # the rest is said for each reason
    elif filters.status is not None:
        found.append(is_status(filters.status, now, not_after))
    return found


def is_status(status: Status, now: datetime, not_after: ColumnElement[Any] = _c.not_after) -> ColumnElement[bool]:
    """Whether a row has this status at `now`, as `Certificate.status` says it."""
    ours = _c.orphaned_at.is_(None)
    free = and_(ours, _c.revoked_at.is_(None))
    match status:
        case "orphan":
            return _c.orphaned_at.is_not(None)
        case "revoked":
            return and_(ours, _c.revoked_at.is_not(None), _c.reason != HOLD)
        case "held":
            return and_(ours, _c.revoked_at.is_not(None), _c.reason == HOLD)
        case "expired":
            return and_(free, not_after < now)
        case "active":
            return and_(free, not_(not_after < now))


def by_serial(conn: Connection, serial: bytes) -> list[Certificate]:
    """All certificates of a serial, whoever issued them, at most 100; those that were issued here first."""
    own = _c.issuer.desc()  # those of others have negative numbers
    rows = conn.execute(select(*COLUMNS).where(_c.serial == serial, COUNTS).order_by(own, _c.n).limit(100))
    return [from_row(row) for row in rows]


def replaced_by(conn: Connection, certificate: Certificate) -> str | None:
    """The id of the newest certificate that was issued in this one's place."""
    query = select(_c.id).where(_c.replaces == certificate.id, COUNTS).order_by(_c.n.desc()).limit(1)
    found: str | None = conn.execute(query).scalar_one_or_none()
    return found


def related(conn: Connection, certificate: Certificate, *, now: datetime, limit: int = 100) -> list[Certificate]:
    """Other live certificates of the same key or the same set of names, newest first, at most `limit` of each."""
    same_key = select(*COLUMNS).where(
        _c.key_id == certificate.key_id, COUNTS, is_status("active", now, _hidden_not_after), _c.n != certificate.n
    )
    found = [from_row(row) for row in conn.execute(same_key.order_by(_c.n.desc()).limit(limit))]
    longest = max((name.partition(":")[2] for name in certificate.names), key=len, default="")
    if len(longest) >= SHORTEST:
        names = set(certificate.names)
        same = search(conn, Filters(q=longest, status="active"), now=now, limit=limit).certificates
        found += [one for one in same if set(one.names) == names and one.n != certificate.n]
    return sorted({one.n: one for one in found}.values(), key=lambda one: -one.n)
