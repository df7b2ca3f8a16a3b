"""CRLs: one full CRL for each online authority, its number always rising (I-17), made anew at half of its life and as
soon as there is a revocation that it does not know (I-15, I-19). The root's comes from its ceremony and is only
checked and kept here.

An entry stays until two lifetimes of a CRL after its certificate has expired, so that several CRLs still show it (RFC
5280 3.3 asks for one; I-21).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection

from rootward.ca import freeze, trouble
from rootward.ca.access import SYSTEM, Caller, system_caller
from rootward.ca.clock import TOLERANCE, trusted
from rootward.ca.filing import Filer, recall
from rootward.ca.installation import Authority, Installation
from rootward.ca.sign import WrongSignature, sign
from rootward.core.crl import BadCrl, CrlDraft, check_crl, draft_crl, finish_crl, lint_crl, parse_crl
from rootward.core.crl import Crl as ParsedCrl
from rootward.core.crl_entries import Entries
from rootward.core.paperwork import Revoked
from rootward.core.problems import Problem, Reason
from rootward.core.revocation import RevocationReason
from rootward.keys import NotSigned, SignatureUnknown
from rootward.store import authorities, certificates, events
from rootward.store.authorities import Crl
from rootward.store.errors import Lost
from rootward.store.failpoint import failpoint
from rootward.store.listed import listed
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()
FULL = "full"
LONG = 20_000  # entries; a tenth of a second is what they take
KEPT = 3  # the newest one is served; the ones before are kept for whoever asks what was said when


async def publish_due(inst: Installation, fence: Rows = UNFENCED) -> int:
    """Make each CRL that is due; gives how many were made. `fence` goes into each write of the job's holder (I-62).

    One that fails leaves the last good one in place, holds up no other authority's, and is raised at the end, so that
    it is tried again. Lost where the job has become another process's.
    """
    made, failures = 0, list[Exception]()
    for authority in list(inst.authorities.values()):
        try:
            if authority.key is not None and await _is_due(inst, authority):
                await publish(inst, authority, fence)
                made += 1
        except Lost:
            raise  # the job is somebody else's by now, and so are the other authorities
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised once the others have theirs
            failures.append(error)
    if failures:
        raise failures[0]
    return made


async def ready(inst: Installation) -> bool:
    """Whether a server may begin to serve: every online authority has a CRL that says all there is to say, or one that
    is valid and so long that the next one takes seconds. That one the job makes, well within the promise.
    """
    for authority in inst.authorities.values():
        if authority.key is not None and not await _is_long(inst, authority) and await _is_due(inst, authority):
            return False
    return True


async def _is_long(inst: Installation, authority: Authority) -> bool:
    head = await inst.db.read(lambda conn: authorities.crl_head(conn, authority.n))
    now = inst.clock()
    return head is not None and head.entries >= LONG and head.this_update - TOLERANCE <= now < head.next_update


async def _is_due(inst: Installation, authority: Authority) -> bool:
    def compare(conn: Connection) -> bool:
        current = authorities.crl_head(conn, authority.n)
        if current is None or current.watermark < certificates.watermark(conn):
            return True
        now, begin = inst.clock(), current.this_update
        # One from the future is of no use: a clock that ran ahead was put right.
        return now < begin - TOLERANCE or now >= begin + (current.next_update - begin) / 2

    return await inst.db.read(compare)


async def publish(inst: Installation, authority: Authority, fence: Rows = UNFENCED) -> Crl:
    """Build, lint, sign, check and store a full CRL of an online authority."""
    if authority.key is None:
        raise Problem(
            "RW-KEY-UNAVAILABLE", f"The authority {authority.name} is offline; its CRL comes from a ceremony."
        )
    issuer = authority.issuer

    def claim(conn: Connection) -> tuple[int, datetime]:
        fence.run(conn)
        # The time is taken after the claim, so that numbers and times rise together.
        least = int(inst.clock().timestamp() * 1000)
        return authorities.claim_number(conn, authority.n, FULL, at_least=least), inst.clock()

    number, now = await inst.db.write(claim)
    failpoint("crl.claimed")
    next_update = min(now + authority.crl_lifetime, issuer.certificate.not_valid_after_utc)

    def collect(conn: Connection) -> tuple[int, Entries]:
        # The count is read first: a revocation that comes between the two is listed and makes the next CRL due, never
        # the reverse.
        seen, entries = certificates.watermark(conn), Entries()
        known = _expired_before(conn, authority, now)
        for rows in listed(conn, authority.n, not_after_from=known - 2 * authority.crl_lifetime):
            entries.add(rows, latest=int(now.timestamp()))
        return seen, entries

    def draft_and_lint(entries: Entries) -> tuple[CrlDraft, list[Reason]]:
        made = draft_crl(issuer, number=number, this_update=now, next_update=next_update, entries=entries)
        return made, lint_crl(made, issuer)

    # A list may have a million entries: each step is in a thread, so that answers and issuances go on beside it.
    seen, written = await inst.db.read(collect)
    failpoint("crl.collected")
    draft, findings = await asyncio.to_thread(draft_and_lint, written)
    del written
    if findings:
        await trouble.lint_failed(inst, "crl", findings, system_caller("crl"), authority=authority.name)
        raise Problem.of(findings)
    failpoint("crl.drafted")
    try:
        signature = await asyncio.to_thread(sign, authority.key, issuer.key, draft)
    except WrongSignature as error:
        await freeze.freeze(inst, authority.name, str(error), system_caller("crl"))
        raise
    except (NotSigned, SignatureUnknown) as error:
        await inst.db.write(trouble.key_failed(authority.name, type(error).__name__, at=inst.clock()))
        raise
    der = await asyncio.to_thread(finish_crl, draft, signature)
    failpoint("crl.signed")
    crl = Crl(authority.n, FULL, number, now, next_update, draft.entries, seen, der)
    del draft
    await _store(inst, authority, crl, SYSTEM, fence)
    inst.process.crls[authority.n] = crl
    failpoint("crl.published")
    log.info("crl.published", authority=authority.name, number=number, entries=crl.entries, bytes=len(der))
    return crl


def _expired_before(conn: Connection, authority: Authority, now: datetime) -> datetime:
    """What expired before this may be left out, two lifetimes later (I-21).

    A clock that leapt ahead makes nothing expire: what counts is the older of the two CRLs before this one, so that two
    consecutive CRLs, dated after a certificate's end, have shown its entry before it goes. Without two there is no such
    evidence. While the clock is in doubt, what it showed when it last was not counts as well.
    """
    shown = authorities.last_updates(conn, authority.n, FULL, count=2)
    if len(shown) < 2:
        return authority.issuer.certificate.not_valid_before_utc
    return min(now, *shown, *([] if (last := trusted(conn)) is None else [last]))


def offered(authority: Authority, der: bytes) -> Crl:
    """A CRL that was made elsewhere for an offline authority. Problem RW-CEREMONY where it cannot be one; that it may
    be published is the matter of `check_offered`.
    """
    try:
        parsed = parse_crl(der)
    except BadCrl as error:
        raise Problem("RW-CEREMONY", f"The CRL of {authority.name}: {error}") from None
    if parsed.number is None or parsed.next_update is None:
        raise Problem("RW-CEREMONY", f"The CRL of {authority.name} has no number or no nextUpdate.")
    return Crl(authority.n, FULL, parsed.number, parsed.this_update, parsed.next_update, len(parsed.list), 0, der)


def must_list(conn: Connection, authority: Authority) -> tuple[Revoked, ...]:
    """Everything that the next CRL of an offline authority must list, also what has expired: what is revoked here, and
    what its current CRL lists (I-16). Only a hold that was released here may go.
    """
    begin = authority.issuer.certificate.not_valid_before_utc
    found: dict[bytes, Revoked] = {}
    for rows in listed(conn, authority.n, not_after_from=begin):
        for serial, at, reason in rows:
            found[serial] = Revoked(serial.hex(), datetime.fromtimestamp(at, UTC), reason)
    current = authorities.current_crl(conn, authority.n)
    for entry in () if current is None else parse_crl(current.der):
        held, here = entry.reason is RevocationReason.CERTIFICATE_HOLD, found.get(entry.serial)
        if here is not None:
            stays = not held and here.reason == RevocationReason.CERTIFICATE_HOLD
        else:
            row = certificates.by_serial(conn, authority.n, entry.serial) if held else None
            stays = row is None or row.revoked_at is not None
        if stays and entry.reason is not RevocationReason.REMOVE_FROM_CRL:
            found[entry.serial] = Revoked(entry.serial.hex(), entry.revoked_at, entry.reason.value)
    return tuple(found.values())


def is_behind(conn: Connection, authority: Authority) -> bool:
    """Whether the current CRL of an offline authority lacks something that its next one must list."""
    current = authorities.current_crl(conn, authority.n)
    wanted = must_list(conn, authority)
    return bool(wanted) and (current is None or any(_lacking(parse_crl(current.der), wanted)))


def _lacking(crl: ParsedCrl, wanted: Iterable[Revoked]) -> Iterator[str]:
    for one in wanted:
        told = crl.revoked(bytes.fromhex(one.serial))
        if told is None or told.reason is RevocationReason.REMOVE_FROM_CRL:
            yield f"It does not list the serial {one.serial}, which is revoked here."
        elif told.reason is RevocationReason.CERTIFICATE_HOLD and one.reason != told.reason:
            yield f"It has the serial {one.serial} on hold, which is revoked here for good."


def check_offered(conn: Connection, authority: Authority, crl: Crl, *, now: datetime) -> None:
    """Problem RW-CEREMONY, with every reason, where that CRL must not take the current one's place: it is not well
    signed, not newer, over, or it forgets what is revoked here or was listed before (I-16, I-18).
    """
    try:
        check_crl(crl.der, authority.issuer, now=now, last_number=_number_before(conn, authority, crl))
        reasons = []
    except BadCrl as error:
        reasons = list(error.reasons)
    reasons += _lacking(parse_crl(crl.der), must_list(conn, authority))
    if reasons:
        raise Problem.of([Reason("RW-CEREMONY", f"The CRL of {authority.name}: {reason}") for reason in reasons])


def _number_before(conn: Connection, authority: Authority, crl: Crl) -> int | None:
    """Above which number it must be. A restore that has read this very CRL has claimed its number."""
    last, current = authorities.last_number(conn, crl.issuer), authorities.current_crl(conn, crl.issuer)
    claimed = authorities.crl_numbers_claimed(conn).get((crl.issuer, FULL))
    known = current is None or current.number < crl.number or current.der == crl.der
    return crl.number - 1 if authority.key is None and known and last == claimed == crl.number else last


async def accept(inst: Installation, authority: Authority, der: bytes, caller: Caller) -> None:
    """Take over a CRL that a ceremony made for an offline authority; Problem RW-CEREMONY where it must not be published
    (I-18).
    """
    await inst.db.write(lambda conn: take(conn, inst, authority, der, caller))


def take(conn: Connection, inst: Installation, authority: Authority, der: bytes, caller: Caller) -> None:
    """As `accept`, in the caller's transaction. What the CRL lists is revoked here too; the current one comes again
    where a restore has kept it, and changes nothing.
    """
    # PostgreSQL: of two at one moment, the second is held against what the first has listed.
    authorities.wait_for_intents(conn, authority.name)
    crl, now = offered(authority, der), inst.clock()
    check_offered(conn, authority, crl, now=now)
    if authorities.current_number(conn, authority.n) == crl.number:
        return
    keep(conn, authority.name, crl, actor=caller.principal.id, at=now)
    issuer = authorities.list_issuers(conn, authority.name)[-1]
    recall(conn, issuer, parse_crl(der), Filer(caller, now, inst.db.lease))


async def _store(inst: Installation, authority: Authority, crl: Crl, actor: str, fence: Rows) -> None:
    last = await inst.db.read(lambda conn: authorities.current_number(conn, authority.n))
    if last is not None and last >= crl.number:
        raise Lost(f"CRL {crl.number} is not newer than {last}: somebody else has published since")
    # Before the transaction, which others wait for; in there the number is compared once more.
    await asyncio.to_thread(check_crl, crl.der, authority.issuer, now=inst.clock(), last_number=last)

    def store(conn: Connection) -> None:
        fence.run(conn)
        keep(conn, authority.name, crl, actor=actor, at=inst.clock())

    await inst.db.write(store)


def keep(conn: Connection, authority: str, crl: Crl, *, actor: str, at: datetime) -> None:
    """The CRL and its event, in the caller's transaction; Lost where a newer one is there. It was checked before."""
    authorities.put_crl(conn, crl)
    authorities.prune_crls(conn, crl.issuer, FULL, keep=KEPT)
    events.record(
        "crl.published",
        actor=actor,
        authority=authority,
        request_id="system:crl",
        data={"number": crl.number, "entries": crl.entries},
        at=at,
    ).run(conn)


async def current_crl(inst: Installation, authority: str) -> Crl | None:
    """The newest full CRL of this authority; None where there is none. Every door reads it here, so none goes
    backwards.

    Only its number is read each time: the bytes are kept, so that a thousand slow readers of a list of 40 MB hold one
    copy of it.
    """
    n = inst.authority(authority).n

    def newer(conn: Connection) -> Crl | None:
        number, kept = authorities.current_number(conn, n), inst.process.crls.get(n)
        return kept if kept is not None and kept.number == number else authorities.current_crl(conn, n)

    found = await inst.db.status(newer)
    kept = inst.process.crls.get(n)
    if found is not None and (kept is None or kept.number != found.number):
        inst.process.crls[n] = found
    return found
