"""Authorities, their CA certificates (issuers) and their CRLs.

A CRL's number is claimed first and burnt by a crash; it only rises, per issuer and scope (I-17). A CRL is kept only
while its number is above every kept one (I-18), and the current one is the one with the highest number.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, text, update

from rootward.store.errors import Lost
from rootward.store.rows import Look, Rows
from rootward.store.schema import authorities as table
from rootward.store.schema import crl_numbers, crls, issuers


class Authority(msgspec.Struct, frozen=True):
    """`kind` is "root", "policy" or "issuing"; `settings` JSON, `spec` too (core/authority.py), None where it came
    before there were any. `frozen_at`: it issues nothing now; `retired_at`: never again.

    `compromised_at`: its key is in other hands; it is retired then, too. `successor` takes its place, and by
    `waves_until` all holders are told to renew.
    """

    name: str
    kind: str
    parent: str | None
    settings: str
    created_at: datetime
    frozen_at: datetime | None
    retired_at: datetime | None
    successor: str | None = None
    compromised_at: datetime | None = None
    waves_until: datetime | None = None
    spec: str | None = None
    destroyed_at: datetime | None = None  # its key is no more


class Pending(msgspec.Struct, frozen=True):
    """An authority that has a key and no certificate yet. `spec` is a core.hierarchy.AuthoritySpec as JSON, `csr` DER,
    `key_id` the SHA-256 of its SPKI, `backend` the store of its key. `parent` is None while that one is not here.
    """

    name: str
    kind: str
    parent: str | None
    settings: str
    created_at: datetime
    spec: str
    backend: str
    key_id: str
    csr: bytes
    requested_at: datetime


class IssuerRow(msgspec.Struct, frozen=True):
    """One CA certificate (`certificate`, DER) of an authority; `backend` None means that its key is offline."""

    n: int
    authority: str
    key_id: str
    certificate: bytes
    backend: str | None
    created_at: datetime


class Crl(msgspec.Struct, frozen=True):
    """`entries` is their count, `watermark` the revocations that it has seen, `der` the CRL."""

    issuer: int
    scope: str
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    watermark: int
    der: bytes


class CrlHead(msgspec.Struct, frozen=True):
    """A CRL but its bytes; fields as in `Crl`."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    watermark: int


_AUTHORITY = tuple(table.c[name] for name in Authority.__struct_fields__)
_ISSUER = tuple(issuers.c[name] for name in IssuerRow.__struct_fields__)
_CRL = tuple(crls.c[name] for name in Crl.__struct_fields__)

_INSERT = insert(table)
_PENDING = tuple(table.c[name] for name in Pending.__struct_fields__)
_uncertified = ~exists().where(issuers.c.authority == table.c.name)
_ALL_PENDING = Look(
    select(*_PENDING).where(table.c.requested_at.is_not(None), _uncertified).order_by(table.c.created_at, table.c.name)
)
_ONE_PENDING = Look(
    select(*_PENDING).where(table.c.name == bindparam("which"), table.c.requested_at.is_not(None), _uncertified)
)
_PARENT = update(table).where(table.c.name == bindparam("which")).values(parent=bindparam("above"))
_DROP = delete(table).where(table.c.name == bindparam("which"), table.c.requested_at.is_not(None), _uncertified)
_LAST_ISSUER = Look(select(func.max(issuers.c.n)))
_INSERT_ISSUER = insert(issuers)
_BY_NAME = Look(select(*_AUTHORITY).where(table.c.name == bindparam("which")))
_ALL = Look(select(*_AUTHORITY).order_by(table.c.created_at, table.c.name))
_FREEZE = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.frozen_at.is_(None))
    .values(frozen_at=bindparam("at"))
)
_THAW = update(table).where(table.c.name == bindparam("which"), table.c.frozen_at.is_not(None)).values(frozen_at=None)
_RETIRE = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.retired_at.is_(None))
    .values(retired_at=bindparam("at"))
)
_DESTROY = (
    update(table)
    .where(table.c.name == bindparam("which"), table.c.destroyed_at.is_(None))
    .values(destroyed_at=bindparam("at"), retired_at=func.coalesce(table.c.retired_at, bindparam("at")))
)
_ISSUERS = Look(select(*_ISSUER).order_by(issuers.c.n))
_ISSUERS_OF = Look(select(*_ISSUER).where(issuers.c.authority == bindparam("of")).order_by(issuers.c.n))
_ISSUER_BY_KEY = Look(select(*_ISSUER).where(issuers.c.key_id == bindparam("key")))
_FROZEN = Look(select(table.c.frozen_at, table.c.retired_at).where(table.c.name == bindparam("which")))

# What rootward_may_issue takes shared (migration 0005).
_QUIET = text("SELECT pg_advisory_xact_lock(1382445690, hashtext(:which))")

_CLAIM = text(
    """
    INSERT INTO crl_numbers (issuer, scope, number) VALUES (:issuer, :scope, :least)
    ON CONFLICT (issuer, scope) DO UPDATE SET number =
        CASE WHEN crl_numbers.number >= excluded.number THEN crl_numbers.number + 1 ELSE excluded.number END
    RETURNING number
    """
)
_LOCK = (
    select(crl_numbers.c.number)
    .where(crl_numbers.c.issuer == bindparam("of"), crl_numbers.c.scope == bindparam("what"))
    .with_for_update()
)
_HIGHEST = Look(
    select(func.max(crls.c.number), func.max(crls.c.watermark)).where(
        crls.c.issuer == bindparam("of"), crls.c.scope == bindparam("what")
    )
)
_RAISE = text(
    """
    UPDATE crl_numbers SET number = :least
    WHERE number < :least AND issuer IN (SELECT n FROM issuers WHERE backend IS NOT NULL)
    """
)
_CLAIM_OF = Look(
    select(crl_numbers.c.number).where(
        crl_numbers.c.issuer == bindparam("of"), crl_numbers.c.scope == bindparam("what")
    )
)
_CLAIMED = Look(select(crl_numbers.c.issuer, crl_numbers.c.scope, crl_numbers.c.number))
_INSERT_CRL = insert(crls)
_CURRENT = Look(
    select(*_CRL)
    .where(crls.c.issuer == bindparam("of"), crls.c.scope == bindparam("what"))
    .order_by(crls.c.number.desc())
    .limit(1)
)
_UPDATES = Look(
    select(crls.c.this_update)
    .where(crls.c.issuer == bindparam("of"), crls.c.scope == bindparam("what"))
    .order_by(crls.c.number.desc())
    .limit(bindparam("most"))
)


_HEAD = Look(
    select(*(crls.c[name] for name in CrlHead.__struct_fields__))
    .where(crls.c.issuer == bindparam("of"), crls.c.scope == bindparam("what"))
    .order_by(crls.c.number.desc())
    .limit(1)
)


def add(name: str, kind: str, *, parent: str | None, settings: str, at: datetime) -> Rows:
    """A new authority. Taken where the name is. A parent must be there."""
    return Rows.one(_INSERT, {"name": name, "kind": kind, "parent": parent, "settings": settings, "created_at": at})


def add_issuer(authority: str, *, key_id: str, certificate: bytes, backend: str | None, at: datetime) -> Rows:
    """A CA certificate of an authority. Taken where its key is known already."""
    return Rows.one(
        _INSERT_ISSUER,
        {"authority": authority, "key_id": key_id, "certificate": certificate, "backend": backend, "created_at": at},
    )


def request(
    name: str,
    kind: str,
    *,
    parent: str | None,
    settings: str,
    spec: str,
    backend: str,
    key_id: str,
    csr: bytes,
    at: datetime,
) -> Rows:
    """An authority that waits for its certificate (`Pending`). Taken where the name is."""
    values: dict[str, object] = {"name": name, "kind": kind, "parent": parent, "settings": settings, "created_at": at}
    values |= {"spec": spec, "backend": backend, "key_id": key_id, "csr": csr, "requested_at": at}
    return Rows.one(_INSERT, values)


def pending(conn: Connection) -> tuple[Pending, ...]:
    """Those that wait for their certificates, oldest first."""
    return tuple(Pending(*row) for row in _ALL_PENDING.all(conn, {}))


def pending_by_name(conn: Connection, name: str) -> Pending | None:
    """The one of that name, where it waits."""
    row = _ONE_PENDING.one(conn, {"which": name})
    return None if row is None else Pending(*row)


def put_parent(name: str, parent: str) -> Rows:
    """Who certified it. Lost where there is no such authority."""
    return Rows.one(_PARENT, {"which": name, "above": parent})


def give_up(name: str) -> Rows:
    """Forget an authority that waits for its certificate: its name is free again. Lost where it does not wait."""
    return Rows.one(_DROP, {"which": name})


def last_issuer(conn: Connection) -> int:
    """The `n` of the newest CA certificate, 0 where there is none: it rises whenever an authority is certified."""
    row = _LAST_ISSUER.one(conn, {})
    return 0 if row is None or row[0] is None else int(row[0])


def by_name(conn: Connection, name: str) -> Authority | None:
    """Retired ones too."""
    row = _BY_NAME.one(conn, {"which": name})
    return None if row is None else Authority(*row)


def list(conn: Connection) -> tuple[Authority, ...]:
    """All, oldest first."""
    return tuple(Authority(*row) for row in _ALL.all(conn, {}))


def list_issuers(conn: Connection, authority: str | None = None) -> tuple[IssuerRow, ...]:
    """The CA certificates of one authority, or of all, oldest first."""
    rows = _ISSUERS.all(conn, {}) if authority is None else _ISSUERS_OF.all(conn, {"of": authority})
    return tuple(IssuerRow(*row) for row in rows)


def issuer_by_key(conn: Connection, key_id: str) -> IssuerRow | None:
    """The CA certificate of that public key (SHA-256 of its SPKI, hex)."""
    row = _ISSUER_BY_KEY.one(conn, {"key": key_id})
    return None if row is None else IssuerRow(*row)


def wait_for_intents(conn: Connection, name: str) -> None:
    """Let the intents of this authority that are being written end, and make new ones wait for this transaction: it
    changes whether the authority may issue (`certificates.intend_while_open`). Of two that call it one waits for the
    other.

    SQLite writes one transaction after the other anyway.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(_QUIET, {"which": name}).all()


def freeze(name: str, *, at: datetime) -> Rows:
    """Lost where it is frozen already, or not there. In a transaction that has called `wait_for_intents`."""
    return Rows.one(_FREEZE, {"which": name, "at": at})


def thaw(name: str) -> Rows:
    """Lost where it is not frozen."""
    return Rows.one(_THAW, {"which": name})


def retire(name: str, *, at: datetime) -> Rows:
    """Lost where it is retired already, or not there."""
    return Rows.one(_RETIRE, {"which": name, "at": at})


def destroy(name: str, *, at: datetime) -> Rows:
    """Its key is no more: it never issues again. Lost where that is known already, or it is not there."""
    return Rows.one(_DESTROY, {"which": name, "at": at})


def frozen(conn: Connection, name: str) -> bool:
    """Whether the authority issues nothing now: frozen, retired, or not there at all."""
    row = _FROZEN.one(conn, {"which": name})
    return row is None or row[0] is not None or row[1] is not None


def claim_number(conn: Connection, issuer: int, scope: str, *, at_least: int) -> int:
    """The next CRL number of (issuer, scope): max(last + 1, at_least). It is gone once this is committed, whatever
    comes of it.
    """
    number: int = conn.execute(_CLAIM, {"issuer": issuer, "scope": scope, "least": at_least}).scalar_one()
    return number


def raise_numbers(at_least: int) -> Rows:
    """Let every CRL number that an online authority claims from now on be above `at_least`; none goes back. An offline
    one's comes from its ceremony, which may have been held before.
    """
    return Rows.one(_RAISE, {"least": at_least}, expect=None)


def crl_numbers_claimed(conn: Connection) -> dict[tuple[int, str], int]:
    """The last number claimed, by (issuer, scope)."""
    return {(issuer, scope): number for issuer, scope, number in _CLAIMED.all(conn, {})}


def put_crl(conn: Connection, crl: Crl) -> None:
    """Keep a CRL. Lost where its number is not above every one kept of its issuer and scope, or one of them knew of
    more revocations: what one list has shown, a later one must not have forgotten.
    """
    key = {"of": crl.issuer, "what": crl.scope}
    conn.execute(_LOCK, key).all()  # PostgreSQL: two replicas compare one after the other
    highest = _HIGHEST.one(conn, key)
    if highest is not None and highest[0] is not None and highest[0] >= crl.number:
        raise Lost(f"CRL {crl.number} is not newer than {highest[0]}")
    if highest is not None and highest[1] is not None and highest[1] > crl.watermark:
        raise Lost(f"CRL {crl.number} knows of fewer revocations than one before it")
    Rows.one(_INSERT_CRL, msgspec.structs.asdict(crl)).run(conn)


def current_crl(conn: Connection, issuer: int, scope: str = "full") -> Crl | None:
    """The CRL of (issuer, scope) with the highest number."""
    row = _CURRENT.one(conn, {"of": issuer, "what": scope})
    return None if row is None else Crl(*row)


def crl_head(conn: Connection, issuer: int, scope: str = "full") -> CrlHead | None:
    """`current_crl` without its bytes, which may be many."""
    row = _HEAD.one(conn, {"of": issuer, "what": scope})
    return None if row is None else CrlHead(*row)


def current_number(conn: Connection, issuer: int, scope: str = "full") -> int | None:
    """The number of `current_crl`, without its bytes."""
    row = _HIGHEST.one(conn, {"of": issuer, "what": scope})
    return None if row is None else row[0]


def last_number(conn: Connection, issuer: int, scope: str = "full") -> int | None:
    """The highest number of (issuer, scope) so far, claimed or of a CRL; None where there is none."""
    row = _CLAIM_OF.one(conn, {"of": issuer, "what": scope})
    numbers = (None if row is None else row[0], current_number(conn, issuer, scope))
    return max((number for number in numbers if number is not None), default=None)


def last_updates(conn: Connection, issuer: int, scope: str, *, count: int) -> tuple[datetime, ...]:
    """thisUpdate of the `count` newest CRLs of (issuer, scope), newest first; fewer where there are fewer."""
    rows = _UPDATES.all(conn, {"of": issuer, "what": scope, "most": count})
    return tuple(row[0] for row in rows)


def prune_crls(conn: Connection, issuer: int, scope: str, *, keep: int) -> int:
    """Delete all but the `keep` newest CRLs of (issuer, scope), at least one; returns how many went."""
    mine = (crls.c.issuer == issuer) & (crls.c.scope == scope)
    limit = select(crls.c.number).where(mine).order_by(crls.c.number.desc()).offset(max(keep, 1) - 1).limit(1)
    return conn.execute(delete(crls).where(mine, crls.c.number < limit.scalar_subquery())).rowcount
