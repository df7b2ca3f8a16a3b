"""renewalInfo (RFC 9773 4): when a certificate should be renewed. Open to everybody, and signed by nobody."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from rootward.ca.installation import Authority, Installation
from rootward.core.ari import Window, past, read_id, window
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.core.waves import wave
from rootward.protocols.acme.call import Answer, Visit
from rootward.protocols.acme.documents import encode
from rootward.protocols.acme.problems import AcmeError, nothing_here
from rootward.protocols.acme.replacing import authority_of
from rootward.store import authorities, certificates
from rootward.store.certificates import Certificate

RETRY_AFTER = 6 * 3600  # seconds between two looks of a client; a revocation is seen that late
# While its authority is being replaced (RFC 9773 4.3.1: small values are answered to sooner, and cost more). Below a
# minute it would count for nothing (4.3.2).
RETRY_SOON = 600
_MOST_LOAD = 20_000


async def renewal_info(visit: Visit, where: dict[str, str]) -> Answer:
    """The suggested window. AcmeError malformed, 404, for what names no certificate of ours."""
    try:
        key_identifier, serial = read_id(where["certificate"])
    except Problem as problem:
        raise AcmeError("malformed", problem.detail, status=404) from None
    inst = visit.inst
    authority = authority_of(inst, key_identifier)
    found, row = (None, None) if authority is None else await _find(inst, authority, serial)
    if authority is None or found is None or row is None:
        raise AcmeError("malformed", "There is no such certificate.", status=404)
    suggested, why = await _window(inst, authority, found, row)
    body: dict[str, object] = {"suggestedWindow": {"start": rfc3339(suggested.start), "end": rfc3339(suggested.end)}}
    if why is not None:
        body["explanationURL"] = visit.url(f"/acme/why/{why}")
    again = RETRY_AFTER if row.waves_until is None else RETRY_SOON
    return Answer(200, encode(body), ((b"retry-after", b"%d" % again),))


async def _find(
    inst: Installation, authority: Authority, serial: bytes
) -> tuple[Certificate | None, authorities.Authority | None]:
    """The certificate, and its authority as the store has it: this process or another one may have stopped it."""

    def read(conn: Connection) -> tuple[Certificate | None, authorities.Authority | None]:
        found = certificates.by_serial(conn, authority.n, serial)
        known = found if found is not None and found.issued_at is not None else None
        return known, authorities.by_name(conn, authority.name)

    return await inst.db.look(read)


async def _window(
    inst: Installation, authority: Authority, found: Certificate, row: authorities.Authority
) -> tuple[Window, str | None]:
    """The window, and why it is moved: `revoked`, or `replaced` where the authority stops. Nothing is written when it
    does: when each certificate's turn is follows from the authority's row.
    """
    now: datetime = inst.clock()
    if found.revoked_at is not None:
        return past(now), "revoked"
    began = row.compromised_at or row.retired_at
    if began is not None and row.waves_until is None:
        return past(now), "replaced"
    seed = bytes.fromhex(found.sha256 or "") or found.serial
    if began is not None:
        # How many end together is not counted: now all of them ask.
        normal = window(found.not_before, found.not_after, load=0, seed=seed)
        return wave(began, row.waves_until, seed=seed, normal=normal) or past(now), "replaced"
    hour = found.not_after.replace(minute=0, second=0)

    def read(conn: Connection) -> int:
        return certificates.ending_between(conn, authority.n, hour, hour + timedelta(hours=1), most=_MOST_LOAD)

    load = await inst.db.read(read)
    return window(found.not_before, found.not_after, load=load, seed=seed), None


async def explain(_visit: Visit, where: dict[str, str]) -> Answer:
    """What stands at an explanationURL, for people."""
    text = WHY.get(where["why"])
    if text is None:
        raise nothing_here()
    return Answer(200, text.encode(), media_type="text/plain; charset=utf-8")


WHY = {
    "revoked": "This certificate was revoked: renew it now.\n",
    "replaced": "The authority that issued this certificate is being replaced: renew it now.\n",
}
