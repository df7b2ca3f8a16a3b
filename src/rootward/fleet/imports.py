"""Certificates of others, taken into the inventory: read in a pool of their own, so that a big import keeps nobody
waiting, and written a few at a time, each with its event.

They are what they are: bytes, dates, names. None becomes an authority, none is trusted, and what is odd about one is
said. A certificate that we issued, or that was imported before, is known and stays as it is. One that an authority of
ours issued before it came here is filed under it where an admin of it brings it: then OCSP knows it. So is one of which
only its serial was known, by a CRL. Private keys are never kept; that one came is in the event `import.done`.

A row of others has no issuer of ours. In its place stands a negative number made of its own SHA-256, so that the one
constraint on (serial, issuer) means here: the same certificate twice. Others may use a serial as often as they like.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from sqlalchemy import Connection

from rootward.ca.access import Caller, Principal, require
from rootward.ca.adopt import is_from_before
from rootward.ca.filing import Filer, file
from rootward.ca.installation import Authority, Installation
from rootward.core import der
from rootward.core.foreign import Foreign, read_foreign
from rootward.core.problems import Problem, Reason
from rootward.core.roles import Role
from rootward.core.signature import verifies
from rootward.core.upload import Item, read_upload
from rootward.store import authorities, certificates, events
from rootward.store.errors import Lost, Taken
from rootward.store.ids import new_id
from rootward.store.rows import Rows

T = TypeVar("T")
Result = Literal["imported", "known", "refused", "odd"]

log = structlog.get_logger()

MOST_WAITING = 4  # uploads that are being read or wait for it
_TOGETHER = 50  # certificates read, and then written, at a time: a few milliseconds
_TRIES = 3


class Imported(msgspec.Struct, frozen=True):
    """What became of one item. `certificate_id` where it is in the inventory, `sha256` and `subject` where it could be
    read; `reasons` say why it was refused, or what is odd about it.
    """

    index: int
    result: Result
    certificate_id: str | None
    sha256: str | None
    subject: str | None
    reasons: tuple[Reason, ...]


class _Pool:
    """One thread for reading uploads, and a few that may wait for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="import")
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """`work` in the thread; RW-UNAVAILABLE where too many wait already."""
        if self._waiting >= MOST_WAITING:
            raise Problem("RW-UNAVAILABLE", "Other imports are under way. Try again in a moment.", retry_after=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


_POOL = _Pool()


async def in_pool(work: Callable[[], T]) -> T:
    """Something else that costs as much as an upload may, in the same pool."""
    return await _POOL.run(work)


def may_import(principal: Principal) -> None:
    """Problem RW-FORBIDDEN for all but officers and admins of every authority."""
    if not principal.holds(Role.ADMIN):
        require(principal, Role.OFFICER)


async def import_certificates(
    inst: Installation,
    content: Callable[[], bytes],
    *,
    password: str | None,
    owner: str | None,
    labels: Mapping[str, str],
    caller: Caller,
) -> list[Imported]:
    """A report on every item of `content`, in its order; for officers and admins of every authority.

    Problems: RW-FORBIDDEN; those of `core.upload`; where nothing in it is a certificate, all reasons as one.
    """
    may_import(caller.principal)
    items = await _POOL.run(lambda: read_upload(content(), password))
    run = _Import(inst, caller, owner, dict(labels), inst.clock())
    report: list[Imported] = []
    numbered = list(enumerate(items))
    for at in range(0, len(numbered), _TOGETHER):
        some = numbered[at : at + _TOGETHER]
        # A new task each time, so that the loop and other uploads get their turn in between.
        report += await run.take_in(await _POOL.run(lambda some=some: run.read(some)))  # type: ignore[misc]  # bound now
    counts = Counter[str](one.result for one in report)
    keys = sum(item.key for item in items)
    await inst.db.write(run.summary(counts, keys))
    if keys:
        log.warning("import.key-refused", keys=keys, actor=caller.principal.id)
    if counts["refused"] == len(report):
        raise Problem.of(list(dict.fromkeys(reason for one in report for reason in one.reasons))[:100])
    return report


class _Read(msgspec.Struct, frozen=True):
    """One item, read: a certificate with what is odd about it, or why it is none."""

    index: int
    found: Foreign | None
    reasons: tuple[Reason, ...]
    signer: Authority | None = None  # who signed it here, where the caller is an admin of that authority


class _Import:
    """One upload on its way into the inventory."""

    def __init__(
        self, inst: Installation, caller: Caller, owner: str | None, labels: dict[str, str], now: datetime
    ) -> None:
        self._inst, self._caller, self._now = inst, caller, now
        self._owner, self._labels = owner, labels
        self._authorities = [
            (one, one.issuer.certificate.subject.public_bytes(), one.issuer.certificate.subject.rfc4514_string())
            for one in inst.authorities.values()
        ]
        admin = caller.principal.holds
        self._theirs = {one.name for one in inst.authorities.values() if admin(Role.ADMIN, authority=one.name)}
        self._ours = {one.issuer.fingerprint(): one.name for one in inst.authorities.values()}

    def read(self, some: Sequence[tuple[int, Item]]) -> list[_Read]:
        """In the pool."""
        return [self._read(index, item) for index, item in some]

    def _read(self, index: int, item: Item) -> _Read:
        if item.refused is not None:
            return _Read(index, None, (item.refused,))
        try:
            found = read_foreign(item.der)
        except der.DerError as error:
            return _Read(index, None, (Reason("RW-IMPORT-ITEM", f"It is no certificate: {error}.", "content"),))
        named = (one for one, subject, _ in self._authorities if subject == found.issuer_der)
        signer = next((one for one in named if _signed_by(one, found)), None)
        mine = signer if signer is not None and signer.name in self._theirs else None
        return _Read(index, found, (*found.odd, *self._pretends(found, signer)), mine)

    def _pretends(self, found: Foreign, signer: Authority | None) -> list[Reason]:
        """Whether it takes an authority's name or key, or says that one of ours signed it."""
        reasons = []
        if found.sha256 in self._ours:
            return []
        for authority, subject, text in self._authorities:
            named = found.subject_der == subject or found.subject.casefold() == text.casefold()
            keyed = found.key_id == authority.issuer.key_id
            if named and not keyed:
                detail = f"It has the name of the authority {authority.name} and another key: it is not trusted."
                reasons.append(Reason("RW-IMPORT-ODD", detail, "subject"))
            elif keyed:
                detail = f"It has the key of the authority {authority.name} and is not its certificate."
                reasons.append(Reason("RW-IMPORT-ODD", detail, "subject"))
        if signer is not None:
            detail = f"The authority {signer.name} signed it: a signature that nobody may know of."
            reasons.append(Reason("RW-IMPORT-ODD", detail, "issuer"))
        return reasons

    async def take_in(self, some: list[_Read]) -> list[Imported]:
        """Into the store, those that are new."""
        for _ in range(_TRIES):
            try:
                return await self._inst.db.write(lambda conn: [self._one(conn, read) for read in some])
            except (Taken, Lost):  # another replica imports the same: it is known now
                continue
        raise Problem("RW-UNAVAILABLE", "The same is being imported elsewhere. Try again.", retry_after=1)

    def _one(self, conn: Connection, read: _Read) -> Imported:
        found = read.found
        if found is None:
            return Imported(read.index, "refused", None, None, None, read.reasons)
        if read.signer is not None and self._is_filed(conn, read.signer, found):
            issuer = authorities.list_issuers(conn, read.signer.name)[-1]
            id, new = file(conn, issuer, found, Filer(self._caller, self._now, self._inst.db.lease))
            return Imported(read.index, "imported" if new else "known", id, found.sha256, found.subject, ())
        known = self._known(conn, found)
        if known is not None:
            return Imported(read.index, "known", known or None, found.sha256, found.subject, ())
        id = new_id()
        self._rows(id, found, read.reasons).run(conn)
        result: Result = "odd" if read.reasons else "imported"
        return Imported(read.index, result, id, found.sha256, found.subject, read.reasons)

    def _is_filed(self, conn: Connection, signer: Authority, found: Foreign) -> bool:
        """Whether it belongs under its signer: it is from before that one came here, or its serial is known alone."""
        there = certificates.by_serial(conn, signer.n, found.serial)
        return is_from_before(signer, found) or (there is not None and there.is_bare)

    def _known(self, conn: Connection, found: Foreign) -> str | None:
        """The id of what is in the inventory already, "" for an authority's own certificate, or None."""
        row = certificates.by_sha256(conn, found.sha256, serial=found.serial)
        if row is not None:
            return row.id
        return "" if found.sha256 in self._ours else None

    def _rows(self, id: str, found: Foreign, odd: tuple[Reason, ...]) -> Rows:
        row: dict[str, Any] = {
            "id": id,
            "issuer": certificates.issuer_of_others(found.sha256),
            "serial": found.serial,
            "source": "imported",
            "authority": None,
            "tbs": found.der,
            "algorithm": found.algorithm,
            "sha256": found.sha256,
            "key_id": found.key_id,
            "subject": found.subject,
            "names": found.names,
            "not_before": found.not_before,
            "not_after": found.not_after,
            "owner": self._owner,
            "labels": self._labels,
            "requester": self._caller.principal.id,
            "request_id": self._caller.request_id,
            "lease": self._inst.db.lease,
            "intended_at": self._now,
            "issued_at": self._now,
        }
        data = {  # with what is not in its DER, so that the log shows a change of it (fleet/books.py)
            "sha256": found.sha256,
            "serial": found.serial.hex(),
            "owner": self._owner,
            "labels": self._labels,
            "odd": sorted({reason.field or "" for reason in odd}),
        }
        return certificates.add(row) + events.record(
            "certificate.imported",
            actor=self._caller.principal.id,
            certificate=id,
            request_id=self._caller.request_id,
            data=data,
            at=self._now,
        )

    def summary(self, counts: Mapping[str, int], keys: int) -> Rows:
        """The event that ends an import, whatever came of it."""
        return events.record(
            "import.done",
            actor=self._caller.principal.id,
            request_id=self._caller.request_id,
            data={**{name: counts[name] for name in ("imported", "known", "odd", "refused")}, "private_keys": keys},
            at=self._now,
        )


def _signed_by(authority: Authority, found: Foreign) -> bool:
    """Whether the signature is that of the authority's key, by the algorithm that it signs with."""
    try:
        return verifies(authority.issuer.key, found.signature, found.tbs, algorithm=found.algorithm)
    except (ValueError, UnsupportedAlgorithm):
        return False
