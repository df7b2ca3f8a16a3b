"""renewalInfo (RFC 9773 4): when a certificate should be renewed. Open to everybody, and signed by nobody."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from rootward.ca.installation import Authority, Installation
from rootward.core.ari import Window, past, read_id, window
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.protocols.acme.call import Answer, Visit
from rootward.protocols.acme.documents import encode
from rootward.protocols.acme.problems import AcmeError, nothing_here
from rootward.protocols.acme.replacing import authority_of
from rootward.store import authorities, certificates
from rootward.store.certificates import Certificate

RETRY_AFTER = 6 * 3600  # seconds between two looks of a client; a revocation is seen that late
_MOST_LOAD = 20_000


async def renewal_info(visit: Visit, where: dict[str, str]) -> Answer:
    """The suggested window. AcmeError malformed, 404, for what names no certificate of ours."""
    try:
        key_identifier, serial = read_id(where["certificate"])
    except Problem as problem:
        raise AcmeError("malformed", problem.detail, status=404) from None
    inst = visit.inst
    authority = authority_of(inst, key_identifier)
    found, stopped = (None, False) if authority is None else await _find(inst, authority, serial)
    if authority is None or found is None:
        raise AcmeError("malformed", "There is no such certificate.", status=404)
    suggested, why = await _window(inst, authority, found, stopped=stopped)
    body: dict[str, object] = {"suggestedWindow": {"start": rfc3339(suggested.start), "end": rfc3339(suggested.end)}}
    if why is not None:
        body["explanationURL"] = visit.url(f"/acme/why/{why}")
    return Answer(200, encode(body), ((b"retry-after", b"%d" % RETRY_AFTER),))


async def _find(inst: Installation, authority: Authority, serial: bytes) -> tuple[Certificate | None, bool]:
    """The certificate, and whether its authority is retired: by this process or another one."""

    def read(conn: Connection) -> tuple[Certificate | None, bool]:
        row = authorities.by_name(conn, authority.name)
        found = certificates.by_serial(conn, authority.n, serial)
        known = found if found is not None and found.issued_at is not None else None
        return known, row is not None and row.retired_at is not None

    return await inst.db.look(read)


async def _window(
    inst: Installation, authority: Authority, found: Certificate, *, stopped: bool
) -> tuple[Window, str | None]:
    """The window, and why it is in the past: `revoked`, or `replaced` where the authority stops."""
    now: datetime = inst.clock()
    if found.revoked_at is not None:
        return past(now), "revoked"
    if stopped:
        return past(now), "replaced"
    hour = found.not_after.replace(minute=0, second=0)

    def read(conn: Connection) -> int:
        return certificates.ending_between(conn, authority.n, hour, hour + timedelta(hours=1), most=_MOST_LOAD)

    load = await inst.db.read(read)
    seed = bytes.fromhex(found.sha256 or "") or found.serial
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
