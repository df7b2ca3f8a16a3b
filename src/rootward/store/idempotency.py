"""Idempotency keys of REST's writes: what a principal asked under a key, and what came of it. Kept for a day."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import idempotency as table

_c = table.c


class Entry(msgspec.Struct, frozen=True):
    """`digest` is the SHA-256 of method, path and body. Neither `certificate` nor `request`: it is under way, or
    failed.
    """

    principal: str
    key: str
    digest: bytes
    created_at: datetime
    certificate: str | None
    request: str | None
    answer: str | None = None


_ALL = tuple(_c[name] for name in Entry.__struct_fields__)
_mine = (_c.principal == bindparam("who"), _c.key == bindparam("which"))
_GET = Look(select(*_ALL).where(*_mine))
_INSERT = insert(table)
_SETTLE = update(table).where(*_mine).values(certificate=bindparam("made"), request=bindparam("parked"))
_DROP = delete(table).where(*_mine)
_FORGET = delete(table).where(_c.created_at < bindparam("moment"))


def get(conn: Connection, principal: str, key: str) -> Entry | None:
    """What the principal used that key for."""
    row = _GET.one(conn, {"who": principal, "which": key})
    return None if row is None else Entry(*row)


def put(principal: str, key: str, *, digest: bytes, at: datetime) -> Rows:
    """Taken where the principal used that key before."""
    return Rows.one(_INSERT, {"principal": principal, "key": key, "digest": digest, "created_at": at})


def settle(principal: str, key: str, *, certificate: str | None = None, request: str | None = None) -> Rows:
    """What it led to: a certificate's id or a request's."""
    return Rows.one(_SETTLE, {"who": principal, "which": key, "made": certificate, "parked": request})


def drop(principal: str, key: str) -> Rows:
    """It came to nothing, so that the key may be used anew."""
    return Rows.one(_DROP, {"who": principal, "which": key}, expect=None)


def forget(before: datetime) -> Rows:
    """Drop everything older; for a job."""
    return Rows.one(_FORGET, {"moment": before}, expect=None)


_CLAIM = insert(table)
_POINT = (
    update(table)
    .where(*_mine, _c.certificate.is_not_distinct_from(bindparam("was")))
    .values(certificate=bindparam("made"))
)


def claim(
    principal: str, key: str, *, digest: bytes, at: datetime, certificate: str | None = None, request: str | None = None
) -> Rows:
    """The key and what it leads to, with the rows of that. Taken where the principal used the key before."""
    values = {"principal": principal, "key": key, "digest": digest, "created_at": at}
    return Rows.one(_CLAIM, {**values, "certificate": certificate, "request": request})


def point(principal: str, key: str, *, certificate: str, was: str | None) -> Rows:
    """From an attempt that came to nothing (None: from a request) to the next one. Lost where somebody else was
    first.
    """
    return Rows.one(_POINT, {"who": principal, "which": key, "made": certificate, "was": was})


_ANSWER = update(table).where(*_mine).values(answer=bindparam("said"))


def answered(principal: str, key: str, *, answer: str) -> Rows:
    """What was answered (JSON), to be said again to the same request."""
    return Rows.one(_ANSWER, {"who": principal, "which": key, "said": answer})
