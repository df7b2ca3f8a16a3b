"""What travels to ceremonies and back: requests to offline authorities (the file as it goes out), and the ceremonies
whose results were taken in (the file as it came). A request is open until a ceremony answers it or it is withdrawn.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from rootward.store.rows import Look, Rows
from rootward.store.schema import ceremonies, offline_requests

_r, _h = offline_requests.c, ceremonies.c


class Asked(msgspec.Struct, frozen=True):
    """A request. `authority` is whose key is to sign, `kind` a tag of `core.paperwork.Wanted`, `subject` what it is
    about: the authority to be certified, or the one whose CRL it is. `body` is the file.
    """

    n: int
    id: str
    authority: str
    kind: str
    subject: str
    body: bytes
    made_by: str
    made_at: datetime
    answered_at: datetime | None
    ceremony: str | None
    withdrawn_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.answered_at is None and self.withdrawn_at is None


class Held(msgspec.Struct, frozen=True):
    """A ceremony whose result was taken in, without the file. `lab` is 1 where nobody watched."""

    n: int
    id: str
    script_sha256: str
    transcript_sha256: str
    title: str
    lab: int
    held_at: datetime
    imported_at: datetime
    imported_by: str


_ASKED = tuple(_r[name] for name in Asked.__struct_fields__)
_HELD = tuple(_h[name] for name in Held.__struct_fields__)
_ASK = insert(offline_requests)
_BY_ID = Look(select(*_ASKED).where(_r.id == bindparam("which")))
_OPEN = (_r.answered_at.is_(None), _r.withdrawn_at.is_(None))
_ALL_OPEN = Look(select(*_ASKED).where(*_OPEN).order_by(_r.n))
_ALL_ASKED = Look(select(*_ASKED).order_by(_r.n))
_LATEST = Look(
    select(*_ASKED).where(_r.kind == bindparam("what"), _r.subject == bindparam("whose")).order_by(_r.n.desc()).limit(1)
)
_ANSWER = (
    update(offline_requests)
    .where(_r.id == bindparam("which"), *_OPEN)
    .values(answered_at=bindparam("at"), ceremony=bindparam("held"))
)
_WITHDRAW = (
    update(offline_requests)
    .where(_r.kind == bindparam("what"), _r.subject == bindparam("whose"), _r.authority == bindparam("signer"), *_OPEN)
    .values(withdrawn_at=bindparam("at"))
)
_HOLD = insert(ceremonies)
_CEREMONY = Look(select(*_HELD).where(_h.id == bindparam("which")))
_CEREMONIES = Look(select(*_HELD).where(_h.n < bindparam("before")).order_by(_h.n.desc()).limit(bindparam("most")))
_RESULT = Look(select(_h.result).where(_h.id == bindparam("which")))


def ask(id: str, *, authority: str, kind: str, subject: str, body: bytes, made_by: str, at: datetime) -> Rows:
    """A new request; one of the same kind about the same subject, to the same authority, is withdrawn."""
    values: dict[str, object] = {"id": id, "authority": authority, "kind": kind, "subject": subject, "body": body}
    return withdraw(kind, subject, authority, at=at) + Rows.one(_ASK, {**values, "made_by": made_by, "made_at": at})


def request(conn: Connection, id: str) -> Asked | None:
    """The request of that id, open or not."""
    row = _BY_ID.one(conn, {"which": id})
    return None if row is None else Asked(*row)


def open_requests(conn: Connection) -> tuple[Asked, ...]:
    """Every request that nobody has answered or withdrawn, oldest first."""
    return tuple(Asked(*row) for row in _ALL_OPEN.all(conn, {}))


def all_requests(conn: Connection) -> tuple[Asked, ...]:
    """Every request there ever was, oldest first: a few each year."""
    return tuple(Asked(*row) for row in _ALL_ASKED.all(conn, {}))


def latest(conn: Connection, kind: str, subject: str) -> Asked | None:
    """The newest request of that kind about that subject, open or not."""
    row = _LATEST.one(conn, {"what": kind, "whose": subject})
    return None if row is None else Asked(*row)


def answer(id: str, *, ceremony: str | None, at: datetime) -> Rows:
    """It was answered, by the ceremony of that id, or by none of ours. Lost where it is not open."""
    return Rows.one(_ANSWER, {"which": id, "held": ceremony, "at": at})


def withdraw(kind: str, subject: str, authority: str, *, at: datetime) -> Rows:
    """That authority shall not answer it any more; nothing where there is none."""
    return Rows.one(_WITHDRAW, {"what": kind, "whose": subject, "signer": authority, "at": at}, expect=None)


def hold(
    id: str,
    *,
    script_sha256: str,
    transcript_sha256: str,
    title: str,
    lab: bool,
    held_at: datetime,
    at: datetime,
    by: str,
    result: bytes,
) -> Rows:
    """A ceremony whose result (the file) is taken in. Taken where its transcript was taken in before."""
    values: dict[str, object] = {
        "id": id,
        "script_sha256": script_sha256,
        "transcript_sha256": transcript_sha256,
        "title": title,
    }
    values |= {"lab": int(lab), "held_at": held_at, "imported_at": at, "imported_by": by, "result": result}
    return Rows.one(_HOLD, values)


def ceremony(conn: Connection, id: str) -> Held | None:
    """The ceremony of that id."""
    row = _CEREMONY.one(conn, {"which": id})
    return None if row is None else Held(*row)


def list(conn: Connection, *, before: int | None = None, limit: int = 50) -> tuple[Held, ...]:
    """Newest first; `before` is the `n` of the last one of the page before."""
    rows = _CEREMONIES.all(conn, {"before": (1 << 62) if before is None else before, "most": limit})
    return tuple(Held(*row) for row in rows)


def result(conn: Connection, id: str) -> bytes | None:
    """The result file of a ceremony, as it came."""
    row = _RESULT.one(conn, {"which": id})
    return None if row is None else bytes(row[0])
