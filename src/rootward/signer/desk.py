"""Orders to replies: decided by what is pinned, written down, and only then signed.

One `Desk` for the process. Everything but the key's own work and a CRL's entries happens on the event loop, so that
what is counted and what is decided cannot come apart; CRLs come one after the other.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from rootward.ca.sign import WrongSignature, sign_soon
from rootward.core import grounds as words
from rootward.core.crl import drafted_serials
from rootward.core.pinned import CODE, Pinned, Spent, compare, decide, decide_crl, is_own, judge
from rootward.core.problems import Problem
from rootward.core.times import whole_second
from rootward.keys import NotSigned, SignatureUnknown
from rootward.signer.home import Held
from rootward.signer.journal import Entry, Full, Journal

log = structlog.get_logger()
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
REFUSALS: Final = 120  # a minute that are written down one by one; whoever floods must not fill the disk


@dataclass
class Counts:
    """When one key signed: certificates and CRLs of the last hour, and our own certificates of the last day."""

    certificate: deque[datetime] = field(default_factory=deque)
    crl: deque[datetime] = field(default_factory=deque)
    own: deque[datetime] = field(default_factory=deque)

    def spent(self, now: datetime) -> Spent:
        """How many there are by now."""
        for times, span in ((self.certificate, HOUR), (self.crl, HOUR), (self.own, DAY)):
            while times and times[0] <= now - span:
                times.popleft()
        return Spent(len(self.certificate), len(self.own), len(self.crl))

    def add(self, kind: str, at: datetime) -> None:
        """One more of this kind of the journal's."""
        times: deque[datetime] = getattr(self, kind)
        times.append(at)


class Desk:
    """`held` are the keys by their id; it is replaced as a whole when the pinned files change."""

    def __init__(self, held: Mapping[str, Held], journal: Journal, clock: Callable[[], datetime] | None = None) -> None:
        self.held = held
        self._journal = journal
        self._clock = clock or (lambda: whole_second(datetime.now(UTC)))
        self._counts: dict[str, Counts] = {}
        self._crls = asyncio.Lock()
        self._refusals: deque[datetime] = deque()
        self._silent = 0

    async def answer(self, order: words.Order, peer: int, crl: Callable[[int], Awaitable[bytes]]) -> words.Reply:
        """The reply to an order of this peer (user id). `crl` reads the octets that follow its order.

        What `crl` raises is raised: then the stream is of no use any more.
        """
        if isinstance(order, words.ListKeys):
            return words.HeldKeys(
                tuple(words.HeldKey(one.authority.name, one.key.public.spki, one.csr) for one in self.held.values())
            )
        if isinstance(order, words.SignCertificate):
            serial = order.grounds.serial[:32].hex()
            return await self._guarded(self._certificate(order, peer), order.key, serial, peer, order.tbs)
        async with self._crls:
            tbs = await crl(order.size)
            return await self._guarded(self._crl(order.key, tbs, peer), order.key, "CRL", peer, tbs)

    async def _guarded(self, work: Awaitable[words.Reply], key: str, what: str, peer: int, tbs: bytes) -> words.Reply:
        """Whatever was raised as a reply, written down."""
        try:
            return await work
        except Problem as problem:
            reply: words.Reply = words.refusal_of(problem)
            kind, why = "refused", problem.detail
        except NotSigned as error:
            reply = words.Failed(True, f"the key does not sign: {error}")
            kind, why = "failed", str(error)
        except (SignatureUnknown, WrongSignature) as error:
            reply = words.Failed(False, f"the key did not answer rightly: {error}")
            kind, why = "failed", str(error)
        except Full as error:
            log.error("signer.journal", why=str(error))
            return words.Failed(True, str(error))
        await self._note(kind, key, what, peer, tbs, why)
        return reply

    async def _note(self, kind: str, key: str, what: str, peer: int, tbs: bytes, why: str) -> None:
        now = self._clock()
        while self._refusals and self._refusals[0] <= now - timedelta(minutes=1):
            self._refusals.popleft()
        if len(self._refusals) >= REFUSALS:
            self._silent += 1
            return
        self._refusals.append(now)
        if self._silent:
            why, self._silent = f"{why} (and {self._silent} others before it)", 0
        log.warning("signer.refused", kind=kind, key=key[:16], what=what, peer=peer, why=why)
        digest = hashlib.sha256(tbs).digest()
        try:
            await self._journal.note(Entry(kind, now, key[:64], what, digest, peer, why[:2000]))
        except Full as error:
            log.error("signer.journal", why=str(error))  # nothing was signed, and nothing will be while it is so

    def _held(self, key: str) -> tuple[Held, Pinned]:
        found = self.held.get(key)
        if found is None:
            raise Problem(CODE, "The signer has no such key.")
        if found.pinned is None:
            name = found.authority.name
            raise Problem(
                CODE, f"{name} has no certificate on the signer's host yet. Run there: rootward signer install {name}."
            )
        return found, found.pinned

    def count(self) -> None:
        """Read what was signed in the last day, before the first order comes. A key that is made later has signed
        nothing yet.
        """
        for key in self.held:
            counts = self._counts[key] = Counts()
            for kind, at in self._journal.spent(key, self._clock() - DAY):
                counts.add(kind, at)

    def _spent(self, key: str) -> Counts:
        return self._counts.setdefault(key, Counts())

    async def _certificate(self, order: words.SignCertificate, peer: int) -> words.Reply:
        (held, pinned), now = self._held(order.key), self._clock()
        counts = self._spent(order.key)
        draft = decide(pinned, order, counts.spent(now), now)
        kind = "own" if is_own(order.grounds.profile) else "certificate"
        counts.add(kind, now)  # before it is written, so that no two orders take the same last place
        profile = f"{order.grounds.profile} {order.grounds.version}"
        digest = hashlib.sha256(draft.tbs).digest()
        entry = Entry(kind, now, order.key, draft.serial.hex(), digest, peer, profile)
        if not await self._journal.sign_certificate(entry, draft.serial, draft.not_after):
            raise Problem(CODE, "This serial was signed before, and no serial is signed twice.")
        return words.Signed(await sign_soon(held.key, held.key.public, draft))

    async def _crl(self, key: str, tbs: bytes, peer: int) -> words.Reply:
        (held, pinned), now = self._held(key), self._clock()
        counts = self._spent(key)
        draft = await asyncio.to_thread(decide_crl, pinned, tbs, counts.spent(now), now)
        listed, on_hold = await asyncio.to_thread(drafted_serials, draft)
        final, on_hold_before, past = await self._journal.remembered(key)
        change = await asyncio.to_thread(compare, listed, on_hold, final, on_hold_before)
        del listed, on_hold, final, on_hold_before
        # What its administrator let go of is over, whenever its certificate ends.
        let_go = change.forgotten & pinned.let_go
        ends = await self._journal.ends(key, change.forgotten)
        judge(draft, change, ends | dict.fromkeys(let_go), past, now)
        expired = len(change.forgotten) - len(let_go)
        why = f"{draft.entries} entries, {len(change.released)} released, {expired} expired, {len(let_go)} let go"
        for word, serials in (("released", change.released), ("let go", let_go)):
            if serials:
                why += f"; {word} {', '.join(sorted(serial.hex() for serial in serials)[:20])}"
        entry = Entry(
            "crl",
            now,
            key,
            str(draft.number),
            hashlib.sha256(tbs).digest(),
            peer,
            why,
        )
        counts.add("crl", now)
        await self._journal.sign_crl(entry, draft.number, draft.this_update, change)
        return words.Signed(await sign_soon(held.key, held.key.public, draft))
