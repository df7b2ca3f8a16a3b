"""Cross-signed certificates of authorities: asked for, taken in, listed, taken out of use.

What makes one good is `core/cross.py`, judged when it comes: a profile that is made later may give usages that it does
not allow, and it ends when it ends. Who may take one in or out of use is an admin of the authority. What an offline
authority of ours shall sign is asked of its ceremony, by a system-admin, as for a new authority: it widens whom that
one's relying parties trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import paper
from rootward.ca.access import Caller, require
from rootward.ca.authorities import refuse_single_tier, require_system_admin
from rootward.ca.installation import Authority, Installation
from rootward.ca.paper import CROSS
from rootward.core import der
from rootward.core.above import room_below
from rootward.core.authority import AuthoritySpec
from rootward.core.capture import assemble
from rootward.core.cross import Below, CrossChain, foresee, read_cross
from rootward.core.issuer import Issuer
from rootward.core.paperwork import CrossSign
from rootward.core.planning import draft_cross
from rootward.core.problems import Problem, shown
from rootward.core.profile import Profile, usage_oid
from rootward.core.renewal import spec_of
from rootward.core.roles import Role
from rootward.core.signed import is_issued_by
from rootward.core.times import rfc3339, show_duration
from rootward.store import authorities, certificates, events, profiles
from rootward.store import cross as rows
from rootward.store import paperwork as papers
from rootward.store.cross import Cross
from rootward.store.errors import Lost, Taken
from rootward.store.ids import new_id
from rootward.store.paperwork import Asked
from rootward.store.rows import Rows

MOST = 8  # of one authority: every ACME download names all of them
_SOON = timedelta(days=30)  # a ceremony that is held so long after it was asked for still fits


async def ask(inst: Installation, name: str, by: str, caller: Caller) -> Asked:
    """Ask the ceremony of the offline authority `by` for a certificate of the authority `name` that says what its own
    says, for as long as both last. What would be refused in the ceremony or when its result comes is refused now.

    Problems: RW-FORBIDDEN, RW-NOT-FOUND, RW-CONFLICT, RW-VALIDITY, RW-CROSS, and those of `plan_authority`.
    """
    require_system_admin(caller)
    await refuse_single_tier(inst)
    now, id = inst.clock(), new_id()
    own, signer = inst.authority(name), _signer(inst, name, by, now)
    below = await _below(inst, own.issuer)
    spec = _spec(own, signer, below, now)
    draft = draft_cross(spec, own.issuer.certificate, signer.issuer, inst.new_serial(), now)
    unsigned = x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, b"\x00"))
    foresee((unsigned, *signer.issuer.chain), own.issuer, below)
    wanted = CrossSign(by, spec, own.issuer.certificate.public_bytes(Encoding.PEM).decode())

    def write(conn: Connection) -> Asked | None:
        if _open(conn, name, by) is not None:
            detail = f"{by} is asked for one of {name} already: rootward ca cross withdraw takes that back."
            raise Problem("RW-CONFLICT", detail)
        _check_room(conn, name)
        _check_alive(conn, name)
        work = paper.ask(conn, inst, id, wanted, subject=name, caller=caller, at=now)
        work += _event("authority.cross-requested", name, {"by": by, "request": id}, caller, now)
        work.run(conn)
        return papers.request(conn, id)

    return _request(await inst.db.write(write))


async def withdraw(inst: Installation, name: str, by: str, caller: Caller) -> Asked:
    """Take back what `ask` asked for: a result that answers it all the same is refused. Problems: RW-FORBIDDEN,
    RW-NOT-FOUND.
    """
    require_system_admin(caller)
    now = inst.clock()

    def apply(conn: Connection) -> Asked | None:
        asked = _request(_open(conn, name, by))
        paper.take_back_cross(asked, caller, now).run(conn)
        return papers.request(conn, asked.id)

    return _request(await inst.db.write(apply))


def _check_alive(conn: Connection, name: str, chain: Sequence[x509.Certificate] = ()) -> None:
    """Problem RW-CONFLICT where the authority is compromised or its key destroyed, or one of ours that signed its
    certificate or one of this chain has revoked that, also by a CRL alone.
    """
    own = x509.load_der_x509_certificate(authorities.list_issuers(conn, name)[-1].certificate)
    for issuer in authorities.list_issuers(conn):
        above = x509.load_der_x509_certificate(issuer.certificate)
        signed = [one for one in (own, *chain) if is_issued_by(one, above)]
        if signed or issuer.authority == name:  # from the root down, as whoever ends it: what is on its way counts
            authorities.wait_for_intents(conn, issuer.authority)
        for one in signed:
            row = certificates.by_serial(conn, issuer.n, der.children(one.tbs_certificate_bytes)[1].content)
            if row is not None and row.revoked_at is not None:
                what = f"The certificate of {name}" if one is own else "A certificate of this chain"
                detail = f"{what} is revoked by {issuer.authority}: it leads nobody anywhere."
                raise Problem("RW-CONFLICT", detail, field=None if one is own else "chain")
    there = authorities.by_name(conn, name)
    if there is not None and (there.compromised_at is not None or there.destroyed_at is not None):
        why = "is compromised" if there.compromised_at is not None else "has no key any more"
        raise Problem("RW-CONFLICT", f"{name} {why}: nobody is to be led to it any more.")


def _signer(inst: Installation, name: str, by: str, now: datetime) -> Authority:
    """The offline authority that shall sign."""
    if by == name:
        raise Problem("RW-CONFLICT", f"{name} is to be certified by another authority, not by itself.", field="by")
    found = inst.authorities.get(by)
    if found is None:
        raise Problem("RW-NOT-FOUND", f"There is no authority {shown(by)}.", field="by")
    if why := _why_not(found, inst.authority(name), now):
        raise Problem("RW-CONFLICT", why, field="by")
    return found


def _why_not(signer: Authority, own: Authority, now: datetime) -> str | None:
    by = signer.name
    if signer.settings.external:
        return f"{by} is somebody else's: have it certify {own.name} there, and then rootward ca cross add."
    if signer.destroyed_at is not None:
        return f"The key of {by} was destroyed: it signs nothing any more."
    if signer.backend is not None:
        return f"{by} is online, and cross-signed certificates come from ceremonies of offline authorities."
    if signer.state != "offline":
        return f"{by} is {signer.state}: it certifies no authorities."
    if signer.issuer.not_after <= now:
        return f"The certificate of {by} ended at {rfc3339(signer.issuer.not_after)}."
    if signer.issuer.certificate in own.issuer.chain[1:2]:
        return f"{by} is the usual issuer of {own.name} already."
    return None


def _spec(own: Authority, signer: Authority, below: Below, now: datetime) -> AuthoritySpec:
    """What the certificate of `own` says, as far as it fits under `signer`: a root that leaves room for as many CAs as
    it has itself has one less to give, and that is enough while what is below `own` is not as deep.
    """
    kind: Literal["policy", "issuing"] = "issuing" if own.kind == "issuing" else "policy"
    spec = spec_of(own.issuer.certificate, own.name, kind)
    length, room = spec.path_length, room_below(signer.issuer.chain)
    if room is not None and (length is None or length > room):
        length = max(room, below.depth, 0 if kind == "issuing" else 1)
    end = min(own.issuer.not_after, signer.issuer.not_after)
    left = end - now
    days = (left - min(_SOON, left / 10)).days
    if days < 1:
        detail = f"{own.name} or {signer.name} ends at {rfc3339(end)}: there is no time left for it."
        raise Problem("RW-VALIDITY", detail, field="by")
    return msgspec.structs.replace(spec, path_length=length, lifetime=show_duration(timedelta(days=days)))


def _open(conn: Connection, name: str, by: str) -> Asked | None:
    """The request that waits."""
    wanted = (CROSS, name, by)
    return next((one for one in papers.open_requests(conn) if (one.kind, one.subject, one.authority) == wanted), None)


def _request(found: Asked | None) -> Asked:
    if found is None:
        raise Problem("RW-NOT-FOUND", "No such cross-signed certificate is asked for.")
    return found


async def listed(inst: Installation, authority: str) -> list[Cross]:
    """Those of an authority that are in use, the oldest first. Problem RW-NOT-FOUND."""
    name = inst.authority(authority).name
    return await inst.db.read(lambda conn: rows.of(conn, name))


async def add(inst: Installation, authority: str, chain_pem: bytes, caller: Caller) -> Cross:
    """Take a chain in (PEM, the cross-signed certificate first), also one that was removed before.

    Problems: RW-NOT-FOUND, RW-FORBIDDEN, those of `read_cross`, and RW-CONFLICT where it is in use already, there are
    too many, or nobody is to be led there any more.
    """
    name = inst.authority(authority).name
    require(caller.principal, Role.ADMIN, authority=name)
    chain, now = await read(inst, inst.authority(name).issuer, chain_pem), inst.clock()
    try:
        return await inst.db.write(lambda conn: keep(conn, name, chain, caller, now))
    except (Taken, Lost):  # somebody else, at this very moment
        raise _there() from None


async def read(inst: Installation, issuer: Issuer, chain_pem: bytes) -> CrossChain:
    """The chain (PEM), where it is one for this authority, which may be about to become one; Problems as `add`."""
    return read_cross(chain_pem, issuer, await _below(inst, issuer), now=inst.clock())


def keep(conn: Connection, authority: str, chain: CrossChain, caller: Caller, at: datetime) -> Cross:
    """Write it down with its event, in the caller's transaction. Problem RW-CONFLICT; Taken and Lost where somebody
    else does the same.
    """
    before = rows.by_hash(conn, chain.sha256)
    if before is not None and before.removed_at is None:
        raise _there()
    _check_alive(conn, authority, chain.certificates)
    _check_room(conn, authority)
    change = rows.add if before is None else rows.put_back
    change(authority, chain=chain.pem(), sha256=chain.sha256, at=at).run(conn)
    _event("authority.cross-added", authority, {"sha256": chain.sha256}, caller, at).run(conn)
    return _known(rows.by_hash(conn, chain.sha256))


async def remove(inst: Installation, authority: str, sha256: str, caller: Caller) -> Cross:
    """Take it out of use. Problems: RW-NOT-FOUND (also where it was not in use), RW-FORBIDDEN."""
    name = inst.authority(authority).name
    require(caller.principal, Role.ADMIN, authority=name)
    now = inst.clock()

    def apply(conn: Connection) -> Cross | None:
        before = rows.by_hash(conn, sha256)
        if before is None or before.authority != name:
            return None
        rows.remove(sha256, at=now).run(conn)
        _event("authority.cross-removed", name, {"sha256": sha256}, caller, now).run(conn)
        return rows.by_hash(conn, sha256)

    try:
        return _known(await inst.db.write(apply))
    except Lost:
        return _known(None)


async def _below(inst: Installation, issuer: Issuer) -> Below:
    """How deep the CAs below it go, and what the profiles of it and of them give now: their chains lead through it."""
    depths = {
        other.name: depth
        for other in inst.authorities.values()
        for depth, certificate in enumerate(other.issuer.chain)
        if certificate == issuer.certificate
    }
    found = await inst.db.read(profiles.list)
    bodies = [
        msgspec.json.decode(row.body, type=Profile)
        for row in found
        if row.authority in depths and row.retired_at is None
    ]
    usages = {profile.name: frozenset(map(usage_oid, profile.extended_key_usage)) for profile in bodies}
    return Below(max(depths.values(), default=0), usages)


def _check_room(conn: Connection, authority: str) -> None:
    if len(rows.of(conn, authority)) >= MOST:
        raise Problem("RW-CONFLICT", f"{authority} has {MOST} cross-signed certificates; remove one first.")


def _event(kind: str, name: str, data: Mapping[str, object], caller: Caller, at: datetime) -> Rows:
    return events.record(
        kind, actor=caller.principal.id, authority=name, request_id=caller.request_id, data=data, at=at
    )


def _there() -> Problem:
    return Problem("RW-CONFLICT", "This cross-signed certificate is in use already.", field="chain")


def _known(found: Cross | None) -> Cross:
    if found is None:
        raise Problem("RW-NOT-FOUND", "The authority uses no such cross-signed certificate.")
    return found
