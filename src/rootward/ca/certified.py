"""An authority becomes one: its certificate is written down, and every process learns of it.

The same for all, whether a founding, a ceremony's result, somebody else's root or an import brought the certificate.
What it must be was checked before; in here is one transaction's part of the work, and what follows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import filing, own, publish
from rootward.ca.access import Caller
from rootward.ca.filing import Filer
from rootward.ca.installation import AuthoritySettings, Installation
from rootward.core import der
from rootward.core.foreign import read_foreign
from rootward.core.issuer import MAX_CHAIN
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import check_name
from rootward.core.pubkey import certificate_key
from rootward.keys import NotSigned, SignatureUnknown
from rootward.store import authorities, certificates, events
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id

log = structlog.get_logger()


@dataclass(frozen=True)
class Certified:
    """An authority and its certificate. `parent` is the name of the authority that signed it, None for a root;
    `backend` the store of its key, None where that is offline.
    """

    name: str
    kind: str
    parent: str | None
    certificate: x509.Certificate
    backend: str | None = None
    settings: AuthoritySettings = field(default_factory=AuthoritySettings)

    @property
    def key_id(self) -> str:
        """SHA-256 of its SPKI, hex."""
        return certificate_key(self.certificate).id


def named(inst: Installation, above: Sequence[x509.Certificate], parents: Sequence[str]) -> tuple[str, list[Certified]]:
    """What somebody else's CAs are called here, nearest first: the name of the nearest one, and those that are new.

    `parents` are the names of the new ones in this order. Problem RW-FIELD where one has no name or a wrong one.
    """
    known = {one.issuer.key_id: one.name for one in inst.authorities.values()}
    wanted = list(parents)
    names: list[str] = []
    reasons: list[Reason] = []
    for certificate in above:
        name = known.get(certificate_key(certificate).id)
        if name is None and not wanted:
            who = shown(certificate.subject.rfc4514_string())
            reasons.append(Reason("RW-FIELD", f"{who} is new here: say under which name it is kept.", "parents"))
        elif name is None:
            check_name(wanted[0], field="parents", code="RW-FIELD")
            name = wanted.pop(0)
        names.append(name or "")
    if wanted:
        reasons.append(Reason("RW-FIELD", f"There is nothing in the chain for the name {shown(wanted[0])}.", "parents"))
    if reasons:
        raise Problem.of(reasons)
    fresh = [
        Certified(
            name,
            "root" if certificate.issuer == certificate.subject else "policy",
            None if certificate is above[-1] else names[place + 1],
            certificate,
            settings=AuthoritySettings(external=True),
        )
        for place, (name, certificate) in enumerate(zip(names, above, strict=True))
        if certificate_key(certificate).id not in known
    ]
    return names[0], fresh


def check_free(conn: Connection, made: Sequence[Certified]) -> None:
    """Problem RW-CONFLICT where a name or a key of these is an authority's already, its parent has revoked it, or its
    serial is another one's. Who waits under its name is itself, if the key is the same.
    """
    for one in made:
        waits, there = authorities.pending_by_name(conn, one.name), authorities.by_name(conn, one.name)
        if there is not None and (waits is None or waits.key_id != one.key_id):
            raise _taken("name", one)
        if authorities.issuer_by_key(conn, one.key_id) is not None:
            raise _taken("key", one)
        _check_serial(conn, one)


def _check_serial(conn: Connection, one: Certified) -> None:
    """A parent's CRL may have come before what it lists (I-22)."""
    above = () if one.parent is None else authorities.list_issuers(conn, one.parent)
    found = certificates.by_serial(conn, above[-1].n, _serial(one.certificate)) if above else None
    if found is not None and found.revoked_at is not None:
        raise Problem("RW-CONFLICT", f"The certificate of {one.name} is revoked by {one.parent} already.")
    # A hold that was released before its certificate came has left a row with its serial alone.
    if found is not None and not found.is_bare and found.der != one.certificate.public_bytes(Encoding.DER):
        raise Problem("RW-CONFLICT", f"The serial of {one.name} is that of another certificate by {one.parent}.")


def _serial(certificate: x509.Certificate) -> bytes:
    return der.children(certificate.tbs_certificate_bytes)[1].content


def _taken(what: str, one: Certified) -> Problem:
    return Problem("RW-CONFLICT", f"The {what} of {one.name} is that of an authority here already.")


def _check_above(conn: Connection, one: Certified) -> None:
    """Problem RW-CONFLICT where the parent has stopped for good, as the store knows it now, or the chain would be too
    long.
    """
    parents = {row.name: row for row in authorities.list(conn)}
    if one.parent is not None and parents[one.parent].retired_at is not None:
        raise stopped(one.parent, compromised=parents[one.parent].compromised_at is not None)
    length, at = 1, one.parent
    while at is not None:
        length, at = length + 1, parents[at].parent
    if length > MAX_CHAIN:
        raise Problem("RW-CONFLICT", f"There would be {length} certificates from {one.name} to its root: too many.")


def stopped(parent: str, *, compromised: bool) -> Problem:
    """RW-CONFLICT: it is retired, or compromised, and nothing becomes an authority under it any more."""
    why = "compromised" if compromised else "retired"
    return Problem("RW-CONFLICT", f"{parent} is {why}: it is no parent of another authority any more.", field="parent")


def keep(conn: Connection, inst: Installation, one: Certified, caller: Caller) -> None:
    """Write it down with its event: the authority (new, or the one that waits under this name), its CA certificate, and
    that certificate in the inventory like every other. The parent must be there.

    Problem RW-CONFLICT as of `check_free` and `_check_above`; Taken where somebody else does the same at this moment.
    """
    check_free(conn, [one])
    _check_above(conn, one)
    now = inst.clock()
    settings = msgspec.json.encode(one.settings).decode()
    data = one.certificate.public_bytes(Encoding.DER)
    if authorities.by_name(conn, one.name) is None:
        authorities.add(one.name, one.kind, parent=one.parent, settings=settings, at=now).run(conn)
    elif one.parent is not None:
        authorities.put_parent(one.name, one.parent).run(conn)
    authorities.add_issuer(one.name, key_id=one.key_id, certificate=data, backend=one.backend, at=now).run(conn)
    into_inventory(conn, inst, one, caller)


def keep_further(conn: Connection, inst: Installation, one: Certified, caller: Caller) -> None:
    """A further certificate of an authority, into the inventory. Problem RW-CONFLICT where its signer has revoked it
    already, or its serial is another one's.
    """
    _check_serial(conn, one)
    into_inventory(conn, inst, one, caller)


def into_inventory(conn: Connection, inst: Installation, one: Certified, caller: Caller) -> None:
    """A certificate of an authority in the inventory, like every other, with the event; also a further one, by another
    authority, whose CRL can have it then.
    """
    issuer = authorities.list_issuers(conn, one.name if one.parent is None else one.parent)[-1]
    certificate, now, id = one.certificate, inst.clock(), new_id()
    data = certificate.public_bytes(Encoding.DER)
    _, algorithm, _ = der.children(data)
    serial = _serial(certificate)
    sha256 = hashlib.sha256(data).hexdigest()
    said = {"serial": serial.hex(), "issuer": issuer.authority, "issuer_key": issuer.key_id, "sha256": sha256}

    def tell(id: str | None) -> None:
        events.record(
            "authority.certified",
            actor=caller.principal.id,
            authority=one.name,
            certificate=id,
            request_id=caller.request_id,
            at=now,
            data=said,
        ).run(conn)

    there = certificates.by_serial(conn, issuer.n, serial)
    if there is not None:
        if there.is_bare:
            filing.file(conn, issuer, read_foreign(data), Filer(caller, now, inst.db.lease))
        tell(None)  # it is there, with events of its own: an online parent issued it, or it was no authority here then
        return
    row = {
        "id": id,
        "issuer": issuer.n,
        "serial": serial,
        "authority": issuer.authority,
        "tbs": certificate.tbs_certificate_bytes,
        "algorithm": algorithm.whole,
        "key_id": one.key_id,
        "subject": certificate.subject.rfc4514_string(),
        "names": [],
        "not_before": certificate.not_valid_before_utc,
        "not_after": certificate.not_valid_after_utc,
        "requester": caller.principal.id,
        "request_id": caller.request_id,
        "lease": inst.db.lease,
        "intended_at": now,
    }
    certificates.intend(row).run(conn)
    certificates.complete(id, signature=certificate.signature, sha256=sha256, issued_at=now, lease=inst.db.lease).run(
        conn
    )
    tell(id)


async def learn_new(inst: Installation) -> list[str]:
    """Take up the authorities that were certified since this process looked; their names. A local job of every process,
    and what an import ends with: profiles and doors know them from here on.
    """
    if await inst.db.look(authorities.last_issuer) <= max((one.n for one in inst.authorities.values()), default=0):
        return []
    fresh = await inst.load_new()
    if any(one.key is not None for one in inst.authorities.values()):
        own.register(inst)
        log.info("authority.learned", authorities=fresh)
    return fresh


async def begin(inst: Installation) -> None:
    """What a new authority needs before anybody relies on it: a CRL and an OCSP responder. Both also come by the
    worker, within seconds; so what fails here is logged, and tried again there.
    """
    failpoint("authority.certified")
    await learn_new(inst)
    for authority in list(inst.authorities.values()):
        if authority.key is not None and await publish.current_crl(inst, authority.name) is None:
            try:
                await publish.publish(inst, authority)
            except (Problem, NotSigned, SignatureUnknown) as error:
                log.warning("authority.begin", authority=authority.name, error=str(error))
    if inst.process.renew_responders is not None:
        try:
            await inst.process.renew_responders()
        except Problem as problem:
            log.warning("authority.begin", error=str(problem))
