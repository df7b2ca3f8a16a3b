"""Certificates that an authority of ours signed and this installation did not issue: into the inventory, under that
authority. They come by an import, from a ceremony, or are known by a CRL alone.

Nothing that a CRL lists is forgotten (I-16): where the certificate is not at hand, its serial alone stands in the
inventory, revoked, and every later CRL of that authority lists it. When the certificate comes, that row is filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import aftermath
from rootward.ca.access import Caller
from rootward.ca.revoke import HOLD, revoke_in
from rootward.core.crl import Crl
from rootward.core.foreign import Foreign, read_foreign
from rootward.core.revocation import RevocationReason
from rootward.core.signed import is_issued_by
from rootward.core.times import rfc3339
from rootward.store import authorities, certificates, events
from rootward.store import cross as crosses
from rootward.store.authorities import IssuerRow
from rootward.store.certificates import Certificate
from rootward.store.ids import new_id


@dataclass(frozen=True)
class Filer:
    """Who files, when, and in the process of which lease."""

    caller: Caller
    at: datetime
    lease: str


@dataclass(frozen=True)
class Recalled:
    """What a CRL had to say: how many of its entries were revoked here for it, and of how many of these only the serial
    is known.
    """

    revoked: int = 0
    unknown: int = 0


def file(conn: Connection, issuer: IssuerRow, found: Foreign, by: Filer) -> tuple[str, bool]:
    """A certificate that this issuer signed, which was verified, into the inventory; its id, and whether it is new, or
    only its serial was there. In the caller's transaction; Lost where another one fills that row at this moment.
    """
    row = certificates.by_serial(conn, issuer.n, found.serial)
    if row is None:
        return _row(conn, issuer, found.serial, _known(found), by), True
    return row.id, row.is_bare and _fill(conn, issuer, row, found, by)


def _fill(conn: Connection, issuer: IssuerRow, row: Certificate, found: Foreign, by: Filer) -> bool:
    """The certificate of a serial that a CRL had; what its revocation brings comes now. One that has ended fills
    nothing: the row would leave the CRL, and where the CA used the serial twice, the other one lives.
    """
    if found.not_after < by.at:
        return False
    filled = certificates.fill(conn, row, _known(found))
    _tell(conn, "certificate.filled", issuer, row.id, {"serial": row.serial_hex, "sha256": filled.sha256}, by)
    if filled.revoked_at is not None:
        aftermath.follow(conn, row, filled, by.caller, by.at)
    return True


def recall(
    conn: Connection,
    issuer: IssuerRow,
    listed: Crl,
    by: Filer,
    there: Mapping[bytes, Foreign] | None = None,
    *,
    newer: bool = True,
) -> Recalled:
    """Revoke here what a CRL of this issuer lists, in the caller's transaction, now and for the reason that the list
    has; what is revoked already stays as it is, but for a hold that is final there: left a hold, it could be released.

    `there` are certificates that come with it, by their serials; what authorities and their cross-signed chains have is
    known, and what its revocation brings is done where it was not. Where the list is not `newer` than what is here, a
    hold that was released here stays so. An intent of before is left to the reconciler, which revokes it.
    """
    # PostgreSQL: who takes a chain into use (`cross.keep`) comes before, or sees what is revoked here.
    authorities.wait_for_intents(conn, issuer.authority)
    revoked = unknown = 0
    ours = _ours(conn, issuer)
    known = {**ours, **(there or {})}
    for entry in listed:
        if entry.reason is RevocationReason.REMOVE_FROM_CRL:
            continue
        row = certificates.by_serial(conn, issuer.n, entry.serial)
        if row is not None and row.revoked_at is not None and (row.reason != HOLD or entry.reason is HOLD):
            if entry.serial in ours:
                _make_good(conn, issuer, row, ours[entry.serial], by)
            continue
        id = None if row is None else row.id
        if id is not None and entry.reason is HOLD and not newer and _was_released(conn, id):
            continue
        if id is None:
            if certificates.is_used(conn, issuer.n, entry.serial):
                continue
            found = known.get(entry.serial)
            id = _row(conn, issuer, entry.serial, _unknown(issuer) if found is None else _known(found), by)
            unknown += found is None
        elif row is not None and row.is_bare and entry.serial in known:
            _fill(conn, issuer, row, known[entry.serial], by)
        revoke_in(conn, id, entry.reason, by.caller, by.at)
        revoked += 1
    return Recalled(revoked, unknown)


def _ours(conn: Connection, issuer: IssuerRow) -> dict[bytes, Foreign]:
    """What this issuer signed of the authorities here and of their cross-signed chains, by serials. These come by `ca
    cross add` too, and of those a list may have left the serial alone: the inventory need not have them.
    """
    above = x509.load_der_x509_certificate(issuer.certificate)
    own = [x509.load_der_x509_certificate(one.certificate) for one in authorities.list_issuers(conn)]
    links = [link for one in crosses.every(conn) for link in x509.load_pem_x509_certificates(one.chain)]
    mine = [one for one in (*links, *own) if is_issued_by(one, above)]
    read = [read_foreign(one.public_bytes(Encoding.DER)) for one in mine]
    return {found.serial: found for found in read}


def _make_good(conn: Connection, issuer: IssuerRow, row: Certificate, found: Foreign, by: Filer) -> None:
    """What the revocation of before should have brought: it was written by a version that did less."""
    if row.is_bare:
        _fill(conn, issuer, row, found, by)
    else:
        aftermath.follow(conn, row, row, by.caller, by.at)


def _was_released(conn: Connection, id: str) -> bool:
    return bool(events.list(conn, events.Filters(certificate=id, kind="certificate.released"), limit=1))


def _known(found: Foreign) -> dict[str, Any]:
    return {
        "tbs": found.tbs,
        "algorithm": found.algorithm,
        "signature": found.signature,
        "sha256": found.sha256,
        "key_id": found.key_id,
        "subject": found.subject,
        "names": found.names,
        "not_before": found.not_before,
        "not_after": found.not_after,
    }


def _unknown(issuer: IssuerRow) -> dict[str, Any]:
    """A certificate of which there is only its serial. It stays listed for as long as its CA signs CRLs: nobody knows
    when it ends.
    """
    certificate = x509.load_der_x509_certificate(issuer.certificate)
    return {
        "tbs": b"",
        "algorithm": b"",
        "signature": None,
        "sha256": None,
        "key_id": "",
        "subject": "",
        "names": (),
        "not_before": certificate.not_valid_before_utc,
        "not_after": certificate.not_valid_after_utc,
    }


def _row(conn: Connection, issuer: IssuerRow, serial: bytes, values: dict[str, Any], by: Filer) -> str:
    id = new_id()
    certificates.add(
        {
            "id": id,
            "issuer": issuer.n,
            "serial": serial,
            "authority": issuer.authority,
            "requester": by.caller.principal.id,
            "request_id": by.caller.request_id,
            "lease": by.lease,
            "intended_at": by.at,
            "issued_at": by.at,
            **values,
        }
    ).run(conn)
    said = {"serial": serial.hex(), "sha256": values["sha256"]}
    if not values["tbs"]:  # no DER says how long it stays listed
        said |= {name: rfc3339(values[name]) for name in ("not_before", "not_after")}
    _tell(conn, "certificate.adopted", issuer, id, said, by)
    return id


def _tell(conn: Connection, kind: str, issuer: IssuerRow, id: str, said: Mapping[str, object], by: Filer) -> None:
    events.record(
        kind,
        actor=by.caller.principal.id,
        authority=issuer.authority,
        certificate=id,
        request_id=by.caller.request_id,
        data={"issuer": issuer.authority, "issuer_key": issuer.key_id, **said},
        at=by.at,
    ).run(conn)
