"""Revocations that the store has forgotten, taken from a CRL that this installation signed: after a restore from a
backup that is older. What was revoked stays revoked (I-16), and a list that was out there is not gone back behind
(I-17, I-18).

A CRL says less than the store did: what was revoked is revoked anew, now, for the reason that the list has; a hold that
became final takes that reason. Of what was issued after the backup there is the serial alone, which stays listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import Connection

from rootward.ca import filing
from rootward.ca.access import SYSTEM, system_caller
from rootward.ca.installation import settings_of
from rootward.ca.publish import FULL, keep
from rootward.core.crl import BadCrl, Crl, parse_crl
from rootward.core.problems import Problem
from rootward.store import authorities
from rootward.store.authorities import IssuerRow

_FULL = frozenset({ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER})  # what a CRL of ours has


@dataclass(frozen=True)
class Recalled:
    """What a CRL had to say: how many of its entries were revoked anew, and how many of these are of certificates that
    the store did not know.
    """

    authority: str
    number: int
    revoked: int
    unknown: int


def recall(conn: Connection, data: bytes, *, at: datetime) -> Recalled:
    """Revoke what the CRL (PEM or DER) lists, in the caller's transaction, with an event each; further CRL numbers are
    above its own.

    Problem RW-FIELD where it is no CRL with a number, or none that an authority of this installation signed.
    """
    crl = _parsed(data)
    issuer = _issuer(conn, crl)
    done = filing.recall(conn, issuer, crl, filing.Filer(system_caller("recall"), at, lease=""))
    if crl.number is not None:
        _go_on_above(conn, issuer, crl, crl.number, at)
    return Recalled(issuer.authority, crl.number or 0, done.revoked, done.unknown)


def _go_on_above(conn: Connection, issuer: IssuerRow, crl: Crl, number: int, at: datetime) -> None:
    """An offline authority's own full CRL is served until its ceremony makes the next one."""
    row, head = authorities.by_name(conn, issuer.authority), authorities.crl_head(conn, issuer.n)
    ours = issuer.backend is None and row is not None and not settings_of(row).external
    full = all(one.oid in _FULL for one in crl.list.extensions)
    if ours and full and crl.next_update is not None and (head is None or head.number < number):
        seen = 0 if head is None else head.watermark
        kept = authorities.Crl(issuer.n, FULL, number, crl.this_update, crl.next_update, len(crl), seen, crl.der)
        keep(conn, issuer.authority, kept, actor=SYSTEM, at=at)
    # Claimed too: so its ceremony's result is known to bring it once more (`publish.check_offered`).
    if not ours or authorities.crl_numbers_claimed(conn).get((issuer.n, FULL), 0) < number:
        authorities.claim_number(conn, issuer.n, FULL, at_least=number)


def _parsed(data: bytes) -> Crl:
    try:
        if data.lstrip().startswith(b"-----BEGIN X509 CRL-----"):
            from cryptography.hazmat.primitives.serialization import Encoding

            data = x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
        crl = parse_crl(data)
    except (BadCrl, ValueError) as error:
        raise _refused("This is no CRL.") from error
    if crl.number is None:
        raise _refused("The CRL has no number, so this installation has not made it.")
    return crl


def _issuer(conn: Connection, crl: Crl) -> IssuerRow:
    for row in authorities.list_issuers(conn):
        certificate = x509.load_der_x509_certificate(row.certificate)
        key = certificate.public_key()
        if certificate.subject == crl.list.issuer and crl.list.is_signature_valid(key):  # type: ignore[arg-type]  # ours are kinds that sign
            return row
    raise _refused("No authority of this installation has signed the CRL.")


def _refused(detail: str) -> Problem:
    return Problem("RW-FIELD", detail, field="--crl")
