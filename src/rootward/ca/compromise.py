"""When an authority's key is in other hands: it issues nothing more, at once and in every process; another one takes
its place; and everybody who has a certificate of it is told to get another one, in waves that the issuing half can
carry. One transaction, under the yes of two people.

Its CRL and OCSP go on. What that key signs proves nothing any more, but relying parties ask for it until its
certificate is on its parent's CRL, and a list that is missing would stop them where nobody attacks. Trust files stay as
they are: the root is the same.

Of a root, or any authority with others below it, it can be said only when those are replaced, by people, as the runbook
has it. Then the root leaves the bundle that is given to relying parties.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import certified, ending, freeze, own, paper, proposals
from rootward.ca.access import Caller, require_officer
from rootward.ca.certified import Certified
from rootward.ca.installation import Authority, Installation
from rootward.ca.revoke import HOLD, revoke_in
from rootward.ca.succession import NOTHING, check_successor, check_waiting, hand_over, longest_of, written
from rootward.core.der import children
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.core.signed import signature_fault
from rootward.core.times import rfc3339
from rootward.core.waves import span
from rootward.store import authorities, blocked, certificates, events, succession
from rootward.store import cross as crosses
from rootward.store.failpoint import failpoint
from rootward.store.proposals import Proposal

COMPROMISE: Final = "ca.compromise"


async def propose(
    inst: Installation, name: str, successor: str | None, reason: str | None, waves: str | None, caller: Caller
) -> Proposal:
    """Say that the key of `name` is in other hands. `waves` is how long its holders may take to renew, at most. A
    `successor` that waits for its certificate takes over when it has it.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-FIELD; RW-CONFLICT where it is known already, or the successor issues
    nothing, is of another kind, or is or will be below it; RW-CEREMONY for what cannot be replaced from here.
    """
    old = inst.authority(name)
    require_officer(caller.principal, old.name)
    _check(inst, old)
    longest_of(waves)
    await _check_next(inst, old, successor)
    body = {"successor": successor, "reason": reason, "waves": waves}
    return await proposals.propose(inst, COMPROMISE, old.name, body, caller)


async def carry_out(inst: Installation, proposal: Proposal, caller: Caller) -> None:
    """The act."""
    await freeze.look_again(inst)
    old, body = inst.authority(proposal.authority), proposal.values()
    _check(inst, old)
    successor, longest, now = body["successor"], longest_of(body["waves"]), inst.clock()
    waiting = await _check_next(inst, old, successor)
    parent = ending.parent_of(inst, old)

    def apply(conn: Connection) -> tuple[str, ...]:
        if parent is not None:  # from the root down, as whoever revokes
            authorities.wait_for_intents(conn, parent.name)
        authorities.wait_for_intents(conn, old.name)
        held = succession.holdings(conn, old.name, now)
        count = sum(one.certificates for one in held)
        until = now + span(count, longest=longest)
        succession.compromise(old.name, at=now, waves_until=until).run(conn)
        handed = NOTHING
        if successor is not None:
            succession.follow(old.name, successor).run(conn)
        if successor is not None and not waiting:
            handed = hand_over(conn, inst, old.name, successor, caller, now)
        blocked.add(old.issuer.key_id, why=RevocationReason.CA_COMPROMISE.value, at=now).run(conn)
        marked = _mark(conn, old, parent, caller, now)
        crossed = _mark_crossed(conn, inst, old, caller, now)
        paper.give_up_crosses(conn, old.name, caller, now)
        said: dict[str, object] = {
            "reason": body["reason"],
            "successor": successor,
            "certificates": count,
            "waves_until": rfc3339(until),
            "parent": None if parent is None else parent.name,
            "revoked": marked,
            **handed.values(),
        }
        _record(conn, "authority.compromised", old.name, caller, now, said)
        for one in held:
            told: dict[str, object] = {
                "owner": one.owner,
                "certificates": one.certificates,
                "last": rfc3339(one.last),
                "until": rfc3339(until),
                "successor": successor,
            }
            _record(conn, "certificate.replace-now", old.name, caller, now, told)
        proposals.carried_out(proposal, caller, now, said).run(conn)
        return crossed

    failpoint("compromise.checked")
    try:
        crossed = await written(inst, apply)
    finally:
        inst.process.told += (
            1  # its certificate was revoked, where its parent is here; also where it seems to have failed
        )
    failpoint("compromise.stored")
    await freeze.look_again(inst)
    own.register(inst)
    for signer in (*(() if parent is None else (parent.name,)), *crossed):
        if ending.takes_requests(inst.authority(signer)):
            await ending.crl_request(inst, signer, caller)  # for the next ceremony of whoever certified it


def _mark(conn: Connection, old: Authority, parent: Authority | None, caller: Caller, at: datetime) -> bool:
    """Revoke the certificate of `old` in our books; False where its parent is somebody else's, who must do it."""
    if parent is None or parent.settings.external:
        return False
    row = certificates.by_serial(conn, parent.n, old.issuer.serial)
    if row is not None and row.revoked_at is None:
        ending.mark_revoked(conn, old, parent, RevocationReason.CA_COMPROMISE, caller, at)
    elif row is not None and row.reason == HOLD:
        revoke_in(conn, row.id, RevocationReason.CA_COMPROMISE, caller, at)
    return row is not None


async def _check_next(inst: Installation, old: Authority, successor: str | None) -> bool:
    """Whether the successor waits for its certificate. Problems as of `check_successor`."""
    if successor is None:
        return False
    waiting = await check_waiting(inst, old, successor)
    if not waiting:
        await check_successor(inst, old, successor)
    return waiting


def _mark_crossed(
    conn: Connection, inst: Installation, old: Authority, caller: Caller, at: datetime
) -> tuple[str, ...]:
    """Revoke in our books what other authorities of ours certified of that key (`cross.py`); their names."""
    for kept in crosses.ever(conn, old.name):
        _file(conn, inst, old, x509.load_pem_x509_certificates(kept.chain)[0], caller)
    signers: list[str] = []
    for row in certificates.by_key(conn, old.issuer.key_id):
        alive = row.revoked_at is None or row.reason == HOLD
        if row.profile is None and alive and row.authority and row.der != old.issuer.der:
            revoke_in(conn, row.id, RevocationReason.CA_COMPROMISE, caller, at)
            signers.append(row.authority)
    return tuple(dict.fromkeys(signers))


def _file(conn: Connection, inst: Installation, old: Authority, one: x509.Certificate, caller: Caller) -> None:
    """A further certificate into the inventory, if an authority of ours signed it: it may have come by another way than
    as a ceremony's result.
    """
    serial = children(one.tbs_certificate_bytes)[1].content
    for signer in inst.authorities.values():
        above = signer.issuer
        if not signer.settings.external and above.name_der == one.issuer.public_bytes():
            there = certificates.by_serial(conn, signer.n, serial)
            if (there is None or there.is_bare) and signature_fault(one, above.certificate) is None:
                certified.into_inventory(conn, inst, Certified(old.name, "cross", signer.name, one), caller)


def _check(inst: Installation, old: Authority) -> None:
    if old.compromised_at is not None:
        raise Problem("RW-CONFLICT", f"{old.name} is known as compromised since {rfc3339(old.compromised_at)}.")
    below = sorted(
        one.name
        for one in inst.authorities.values()
        if one.name != old.name and one.retired_at is None and old.issuer.certificate in one.issuer.chain
    )
    if below:
        raise Problem(
            "RW-CEREMONY",
            f"{old.name} has authorities below it that are not replaced: {', '.join(below)}. Nothing here can replace "
            "what it stands for: freeze each of them, hold a ceremony for new ones that do not lead to it, and say of "
            "each that it is compromised, with its successor. Then say it of this one. "
            "docs/runbooks/root-compromise.md has the steps.",
        )


def _record(conn: Connection, kind: str, authority: str, caller: Caller, at: datetime, data: dict[str, object]) -> None:
    events.record(
        kind, actor=caller.principal.id, authority=authority, request_id=caller.request_id, data=data, at=at
    ).run(conn)
