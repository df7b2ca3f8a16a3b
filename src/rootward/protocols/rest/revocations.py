"""`/revocations`: revoke by serial and authority, or every certificate of a public key."""

from __future__ import annotations

import hashlib
import re

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from rootward.ca import revoke as revoking
from rootward.core.problems import Problem
from rootward.core.revocation import parse_reason
from rootward.protocols.rest.certificate import CertificateBody, short
from rootward.protocols.rest.operation import Answer, Call, Line, Operation, Reason
from rootward.protocols.rest.routing import SERIAL

_SERIAL = re.compile(SERIAL)
_LARGEST = 16 * 1024  # characters of PEM: an RSA key of 16,384 bits has 3,000


class RevocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `serial` (hex) with `authority`, or `public_key` (PEM); `reason` is a name of RFC 5280 5.3.1."""

    reason: Reason
    serial: str | None = None
    authority: Line | None = None
    public_key: str | None = None


class Revoked(msgspec.Struct, frozen=True):
    """What is revoked now, one item for each match."""

    items: list[CertificateBody]


async def revoke(call: Call) -> Answer:
    """Every match, revoked; all or nothing."""
    body: RevocationBody = call.body
    reason = parse_reason(body.reason, field="reason")
    if body.public_key is not None and body.serial is None and body.authority is None:
        done = await revoking.revoke_by_key(call.inst, _key_id(body.public_key), reason, call.caller)
    elif body.public_key is None and body.serial is not None and body.authority is not None:
        if not _SERIAL.fullmatch(body.serial):
            raise Problem("RW-FIELD", "A serial is 2 to 40 lower-case hex digits, an even number.", field="serial")
        serial = bytes.fromhex(body.serial)
        done = await revoking.revoke_by_serial(call.inst, body.authority, serial, reason, call.caller)
    else:
        raise Problem("RW-FIELD", "Name serial and authority, or public_key alone.", field="serial")
    now = call.inst.clock()
    return Answer(Revoked([short(call.inst, one, now) for one in done]))


def _key_id(pem: str) -> str:
    """SHA-256 of the SubjectPublicKeyInfo in a PEM, hex. Weak keys are read as well: those need revoking most."""
    try:
        if len(pem) > _LARGEST:
            raise ValueError
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Problem("RW-FIELD", "public_key is not a PEM public key that can be read.", field="public_key") from None
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


OPERATIONS = (
    Operation(
        name="revokeMany",
        urgent=True,
        method="POST",
        path="/revocations",
        handler=revoke,
        summary="Revoke by serial and authority, or every certificate of a public key.",
        body=RevocationBody,
        result=Revoked,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-NOT-FOUND", "RW-ALREADY-REVOKED", "RW-CONFLICT"),
    ),
)
