"""What the store knows that bears on one ask, in one statement: it is on the road of every issuance."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, and_, bindparam, exists, func, or_, select

from rootward.store.certificates import COUNTS
from rootward.store.rows import Look
from rootward.store.schema import authorities, blocked_keys, certificates, idempotency, profiles, watermark


class Before(NamedTuple):
    """What this idempotency key was used for; at most one of `certificate` and `request` is set."""

    digest: bytes
    certificate: str | None
    request: str | None


class Standing(NamedTuple):
    """`version` None: no such profile. `frozen`: its authority issues nothing. `blocked`: why the key is, or None.

    `others`: the key is in a certificate of another requester. `before` None: the idempotency key is new, or there is
    none.
    """

    version: int | None
    retired: bool
    authority: str | None
    frozen: bool
    blocked: str | None
    others: bool
    before: Before | None


_newest = select(func.max(profiles.c.version)).where(profiles.c.name == bindparam("profile")).scalar_subquery()
# Of ours: what others certified is no claim to a key. (Hidden from the planner, which has an index for it.)
_same_key = and_(certificates.c.key_id == bindparam("key"), func.coalesce(certificates.c.source, "") == "issued")
_LOOK = Look(
    select(
        profiles.c.version,
        profiles.c.retired_at,
        profiles.c.authority,
        or_(authorities.c.frozen_at.is_not(None), authorities.c.retired_at.is_not(None)),
        blocked_keys.c.why,
        # Two ranges instead of one "not equal", so that a key with many certificates of its own costs no more.
        or_(
            exists().where(_same_key, certificates.c.requester < bindparam("who"), COUNTS),
            exists().where(_same_key, certificates.c.requester > bindparam("who"), COUNTS),
        ),
        idempotency.c.digest,
        idempotency.c.certificate,
        idempotency.c.request,
    )
    .select_from(watermark)  # the one row that is always there
    .outerjoin(profiles, and_(profiles.c.name == bindparam("profile"), profiles.c.version == _newest))
    .outerjoin(authorities, authorities.c.name == profiles.c.authority)
    .outerjoin(blocked_keys, blocked_keys.c.key_id == bindparam("key"))
    .outerjoin(
        idempotency, and_(idempotency.c.principal == bindparam("who"), idempotency.c.key == bindparam("idempotency"))
    )
    .where(watermark.c.one == 1)
)


def standing(conn: Connection, *, profile: str, key_id: str, requester: str, idempotency_key: str | None) -> Standing:
    """`requester` is the asking principal's id."""
    values = {"profile": profile, "key": key_id, "who": requester, "idempotency": idempotency_key or ""}
    row = _LOOK.one(conn, values)
    if row is None:
        raise LookupError("the watermark's row is missing")
    version, retired, authority, frozen, blocked, others, digest, certificate, request = row
    before = None if digest is None else Before(bytes(digest), certificate, request)
    return Standing(version, retired is not None, authority, bool(frozen), blocked, bool(others), before)
