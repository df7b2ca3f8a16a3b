"""An authority's certificate is revoked: in our books at once, in its parent's CRL as soon as that can be signed.

Nothing is issued from then on by it, or by what is below it, in any process; their CRLs and OCSP go on until the last
of what they signed has expired (I-22). Where the parent is offline, the request for its next CRL is made here: a file
for the next ceremony, with everything that is revoked under that parent.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from rootward.ca import filing, freeze, paper, proposals
from rootward.ca.access import Caller, require_officer
from rootward.ca.filing import Filer
from rootward.ca.installation import Authority, Installation
from rootward.ca.paper import CRL
from rootward.ca.publish import must_list
from rootward.ca.revoke import revoke_in
from rootward.core import paperwork
from rootward.core.foreign import read_foreign
from rootward.core.paperwork import Request, SignCrl
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.core.times import show_duration
from rootward.store import authorities, certificates, events
from rootward.store import paperwork as papers
from rootward.store.certificates import Certificate
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.paperwork import Asked
from rootward.store.proposals import Proposal
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()

KIND = "ca.revoke"
FULL = "full"
_OFFLINE_CRL = timedelta(days=365)


async def propose(inst: Installation, name: str, reason: RevocationReason, caller: Caller) -> Authority | Proposal:
    """The authority, where exactly this was done before, else the proposal that a second person must agree to.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN; RW-CONFLICT for a root, which nobody revokes, a hold, and what somebody else's
    CA signed; RW-ALREADY-REVOKED.
    """
    authority = inst.authority(name)
    require_officer(caller.principal, name)
    parent = _revocable(inst, authority, reason)
    row = await inst.db.look(lambda conn: _own_row(conn, authority, parent, reason))
    if row.revoked_at is not None and not row.is_bare:
        return authority
    return await proposals.propose(inst, KIND, name, {"reason": reason.value}, caller)


async def carry_out(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """What was agreed to."""
    reason = RevocationReason(proposal.values()["reason"])
    await revoke(inst, proposal.authority, reason, caller, also=proposals.carried_out(proposal, caller, inst.clock()))


async def revoke(
    inst: Installation, name: str, reason: RevocationReason, caller: Caller, *, also: Rows = UNFENCED
) -> Certificate:
    """Revoke the certificate of the authority `name`, and stop it and all below it. Whoever calls this has made sure
    that it was agreed to; `also` is written with it. Problems as of `propose`, but RW-FORBIDDEN.
    """
    authority = inst.authority(name)
    parent = _revocable(inst, authority, reason)
    now = inst.clock()

    def apply(conn: Connection) -> Certificate:
        also.run(conn)
        return mark_revoked(conn, authority, parent, reason, caller, now)

    try:
        row = await inst.db.write(apply)
    finally:
        inst.process.told += 1  # also where it failed: it may have taken effect
    failpoint("authority.revoked")
    await freeze.look_again(inst)
    if takes_requests(parent):
        await crl_request(inst, parent.name, caller)
    return row


def _revocable(inst: Installation, authority: Authority, reason: RevocationReason) -> Authority:
    """The parent, whose CRL will have it."""
    parent = parent_of(inst, authority)
    if parent is None:
        detail = (
            "A root has no issuer that could revoke it: what trusts it must stop, and what is under it be replaced."
        )
        raise Problem("RW-CONFLICT", detail)
    if parent.settings.external:
        raise Problem("RW-CONFLICT", f"{parent.name} is somebody else's: ask them to revoke it, and freeze it here.")
    if reason is RevocationReason.CERTIFICATE_HOLD:
        raise Problem("RW-CONFLICT", "An authority is not put on hold: rootward ca freeze stops it for a while.")
    return parent


def mark_revoked(
    conn: Connection,
    authority: Authority,
    parent: Authority,
    reason: RevocationReason,
    caller: Caller,
    at: datetime,
) -> Certificate:
    """The authority's certificate is revoked in our books, in the caller's transaction. That ends it, and all below it
    (`aftermath.py`); so where only its serial is in them, its certificate comes first.
    """
    authorities.wait_for_intents(conn, parent.name)  # PostgreSQL: as `filing.recall`
    row = _own_row(conn, authority, parent, reason)
    if row.is_bare:
        signer, own = authorities.list_issuers(conn, parent.name)[-1], read_foreign(authority.issuer.der)
        filing.file(conn, signer, own, Filer(caller, at, lease=""))
    return revoke_in(conn, row.id, reason, caller, at)


def _own_row(conn: Connection, authority: Authority, parent: Authority, reason: RevocationReason) -> Certificate:
    """The authority's certificate in the inventory, not revoked for another reason."""
    row = certificates.by_serial(conn, parent.n, authority.issuer.serial)
    if row is None:
        raise Problem("RW-NOT-FOUND", f"The certificate of {authority.name} is not in the inventory.")
    if row.revoked_at is not None and row.reason != reason:
        raise Problem("RW-ALREADY-REVOKED", f"It is revoked already, with the reason {row.reason}.")
    return row


def parent_of(inst: Installation, authority: Authority) -> Authority | None:
    """Who signed its certificate; None for a root."""
    if len(authority.issuer.chain) < 2:
        return None
    above = authority.issuer.chain[1]
    return next((one for one in inst.authorities.values() if one.issuer.certificate == above), None)


def takes_requests(authority: Authority) -> bool:
    """Whether its CRL is made in ceremonies, when we ask for it: its key is offline, ours, and there."""
    return authority.backend is None and authority.destroyed_at is None and not authority.settings.external


async def crl_request(inst: Installation, name: str, caller: Caller) -> Asked:
    """Ask for the next CRL of the offline authority `name`: a request with all that is revoked under it, in place of
    one that is open. The same as before where nothing has changed.

    Problems: RW-NOT-FOUND; RW-CONFLICT for one that signs its CRL by itself, or is somebody else's.
    """
    authority = inst.authority(name)
    if authority.destroyed_at is not None:
        raise Problem("RW-CONFLICT", f"The key of {name} was destroyed: there is no CRL of it any more.")
    if not takes_requests(authority):
        raise Problem("RW-CONFLICT", f"{name} needs no ceremony for its CRL.")
    now, id = inst.clock(), new_id()

    def ask(conn: Connection) -> Asked | None:
        head = authorities.crl_head(conn, authority.n)
        entries = must_list(conn, authority)
        last = authorities.last_number(conn, authority.n) or 0
        before = papers.latest(conn, CRL, name)
        open_one = None if before is None or not before.is_open else _wanted(before)
        if open_one is not None and open_one.entries == entries and open_one.number > last:
            return before
        lifetime = _OFFLINE_CRL if head is None else head.next_update - head.this_update
        least = max(last + 1, int(now.timestamp() * 1000))
        wanted = SignCrl(name, authority.issuer.key_id, entries, least, show_duration(lifetime))
        work = paper.ask(conn, inst, id, wanted, subject=name, caller=caller, at=now)
        work += events.record(
            "crl.requested",
            actor=caller.principal.id,
            authority=name,
            request_id=caller.request_id,
            data={"request": id, "entries": len(entries), "number": least},
            at=now,
        )
        work.run(conn)
        return papers.request(conn, id)

    made = await inst.db.write(ask)
    if made is None:
        raise Problem("RW-NOT-FOUND", "There is no such request.")
    return made


def _wanted(asked: Asked) -> SignCrl:
    wanted = paperwork.read(asked.body, Request).wanted
    if not isinstance(wanted, SignCrl):
        raise Problem("RW-INTERNAL", "A request for a CRL asks for something else.")
    return wanted
