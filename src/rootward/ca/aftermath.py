"""What a revocation brings with it, in its transaction, whoever brought word of it: an officer, two people, or a CRL.

A compromised key gets no certificate again. An authority whose own certificate it is has ended, and all below it
(I-22); what is asked of it or about it in ceremonies is taken back. A chain of a cross-signed certificate that it is in
leads nobody anywhere any more.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import freeze, paper
from rootward.ca.access import Caller
from rootward.core.revocation import RevocationReason
from rootward.core.signed import is_issued_by
from rootward.store import authorities, blocked, events
from rootward.store import cross as crosses
from rootward.store.certificates import Certificate


def follow(conn: Connection, before: Certificate, row: Certificate, caller: Caller, at: datetime) -> None:
    """In the caller's transaction; `row` is revoked, and `before` is what it was. Of a hold that is final now, its
    authority's end was told before. Of a serial alone nothing is known: this comes when it is filled. Again, it does
    what was left undone.
    """
    if row.is_bare:
        return
    if row.reason == RevocationReason.KEY_COMPROMISE:
        blocked.add(row.key_id, why="keyCompromise", at=at).run(conn)
    if row.profile is not None:
        return  # no CA's
    _out_of_use(conn, row, caller, at)
    own = authorities.issuer_by_key(conn, row.key_id)
    if own is None or x509.load_der_x509_certificate(own.certificate).tbs_certificate_bytes != row.tbs:
        return
    if before.revoked_at is None or before.is_bare:
        events.record(
            "authority.revoked",
            actor=caller.principal.id,
            authority=own.authority,
            request_id=caller.request_id,
            data={"reason": row.reason, "serial": row.serial_hex, "parent": row.authority},
            at=at,
        ).run(conn)
        paper.give_up_crosses(conn, own.authority, caller, at)
    freeze.end(conn, own.authority, caller, at)


def _out_of_use(conn: Connection, row: Certificate, caller: Caller, at: datetime) -> None:
    """The chains that it is in: as an authority's further certificate, which goes out with what that one issued, or
    above one. Its issuer and serial are what is revoked: there may be several with other signatures.
    """
    used = [one for one in crosses.every(conn) if one.removed_at is None]
    signer = next((one for one in authorities.list_issuers(conn) if used and one.n == row.issuer), None)
    if signer is None:
        return
    above = x509.load_der_x509_certificate(signer.certificate)
    serial = int.from_bytes(row.serial, "big", signed=True)
    for found in used:
        links = x509.load_pem_x509_certificates(found.chain)
        if not any(one.serial_number == serial and is_issued_by(one, above) for one in links):
            continue
        crosses.remove(found.sha256, at=at).run(conn)
        events.record(
            "authority.cross-removed",
            actor=caller.principal.id,
            authority=found.authority,
            request_id=caller.request_id,
            data={"sha256": found.sha256},
            at=at,
        ).run(conn)
