"""revokeCert (RFC 8555 7.6): by the account that got the certificate, by one that has proved all of its names, or by
whoever holds its private key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from rootward.ca.revoke import revoke_proven
from rootward.core.der import DerError
from rootward.core.foreign import read_foreign
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.documents import octets
from rootward.protocols.acme.problems import AcmeError
from rootward.store import authorizations, certificates
from rootward.store.certificates import Certificate

# RFC 5280 5.3.1; those that are about CAs, or that take back a revocation, nobody can ask for here.
_REASONS: Final = {
    0: RevocationReason.UNSPECIFIED,
    1: RevocationReason.KEY_COMPROMISE,
    3: RevocationReason.AFFILIATION_CHANGED,
    4: RevocationReason.SUPERSEDED,
    5: RevocationReason.CESSATION_OF_OPERATION,
    9: RevocationReason.PRIVILEGE_WITHDRAWN,
}


class Revoke(msgspec.Struct, frozen=True):
    """The payload: the certificate's DER in base64url, and a reason code."""

    certificate: str
    reason: Any = None


async def revoke_cert(call: Call, _where: dict[str, str]) -> Answer:
    """200 without a body, once; alreadyRevoked after that."""
    payload = call.decode(Revoke)
    data = octets(payload.certificate, "certificate")
    found = await _find(call, data)
    proof = await _entitled(call, found)
    reason = _reason(payload.reason, proof)
    if found.revoked_at is not None and found.reason != RevocationReason.CERTIFICATE_HOLD:
        raise AcmeError("alreadyRevoked", "The certificate is revoked already.")
    if found.not_after < call.inst.clock():
        raise AcmeError("malformed", "The certificate has expired: there is nothing left to revoke.")
    try:
        await revoke_proven(call.inst, found.id, reason, call.caller, proof=proof, also=call.nonce_rows())
        call.spent()
    except Problem as problem:
        if problem.code == "RW-ALREADY-REVOKED":
            raise AcmeError("alreadyRevoked", "The certificate is revoked already.") from None
        raise
    return Answer(200)


async def _find(call: Call, data: bytes) -> Certificate:
    """The row of exactly these bytes: one altered signature is another certificate, and none of ours."""
    try:
        given = read_foreign(data)
    except DerError:
        raise AcmeError("malformed", "certificate is not the DER of a certificate.") from None
    found = await call.inst.db.look(lambda conn: certificates.by_sha256(conn, given.sha256, serial=given.serial))
    if found is None or found.der != data or found.source != "issued" or call.inst.by_issuer(found.issuer) is None:
        raise AcmeError("malformed", "This is no certificate that this CA issued.", status=404)
    return found


async def _entitled(call: Call, found: Certificate) -> str:
    """What entitles the caller: "key", "account" or "authorizations"; AcmeError unauthorized where nothing does."""
    if call.who is None:
        if call.jwk.id != found.key_id:
            raise AcmeError("unauthorized", "The request is not signed with the certificate's key.", status=403)
        return "key"
    if found.requester == call.account.id:
        return "account"
    now = call.inst.clock()

    def read(conn: Connection) -> bool:
        for text in found.names:
            kind, _, value = text.partition(":")
            wildcard = value.startswith("*.")
            base = f"{kind}:{value.removeprefix('*.')}"
            valid = authorizations.reusable(
                conn, call.account.id, base, wildcard=wildcard, since=now - timedelta(days=365), until=now
            )
            if valid is None:
                return False
        return bool(found.names)

    if not await call.inst.db.look(read):
        raise AcmeError("unauthorized", "This account has no valid authorization for each of its names.", status=403)
    return "authorizations"


def _reason(given: Any, proof: str) -> RevocationReason:
    if given is None:
        return RevocationReason.UNSPECIFIED
    found = _REASONS.get(given) if isinstance(given, int) and not isinstance(given, bool) else None
    if found is None:
        raise AcmeError("badRevocationReason", f"The reasons are {', '.join(map(str, _REASONS))} (RFC 5280 5.3.1).")
    if found is RevocationReason.KEY_COMPROMISE and proof == "authorizations":
        # It would forbid a key to its holder, and a name does not entitle to that.
        detail = "That a key is compromised is for its holder or for the certificate's account to say."
        raise AcmeError("badRevocationReason", detail)
    return found
