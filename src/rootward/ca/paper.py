"""What this installation asks of an offline authority: a file for its next ceremony, kept until that answers it, or it
is taken back.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.core import paperwork
from rootward.core.paperwork import Request, Wanted
from rootward.store import events, facts
from rootward.store import paperwork as papers
from rootward.store.paperwork import Asked
from rootward.store.rows import Rows

INSTANCE = "instance.id"  # the fact that names this installation
CERTIFY = "certify"
CRL = "crl"
CROSS = "cross"


def instance_of(conn: Connection) -> str:
    """The id of this installation's store; empty before it is founded."""
    fact = facts.get(conn, INSTANCE)
    return "" if fact is None else fact.data


def ask(
    conn: Connection, inst: Installation, id: str, wanted: Wanted, *, subject: str, caller: Caller, at: datetime
) -> Rows:
    """The request `id` about the authority `subject`, in place of one that is open and asks the same of the same."""
    signer = inst.authorities.get(wanted.by)
    request = Request(
        id=id,
        installation=instance_of(conn),
        made_at=at,
        pki_url=inst.pki_url,
        issuer="" if signer is None else signer.issuer.pem(),
        wanted=wanted,
    )
    return papers.ask(
        id,
        authority=wanted.by,
        kind=str(type(wanted).__struct_config__.tag),
        subject=subject,
        body=paperwork.write(request),
        made_by=caller.principal.id,
        at=at,
    )


def give_up_crosses(conn: Connection, name: str, caller: Caller, at: datetime) -> None:
    """Take back what is asked of that authority or about it for cross-signed certificates: it is at its end."""
    for asked in papers.open_requests(conn):
        if asked.kind == CROSS and name in (asked.subject, asked.authority):
            take_back_cross(asked, caller, at).run(conn)


def take_back_cross(asked: Asked, caller: Caller, at: datetime) -> Rows:
    """A cross-signed certificate is not asked for any more."""
    return papers.withdraw(CROSS, asked.subject, asked.authority, at=at) + events.record(
        "authority.cross-withdrawn",
        actor=caller.principal.id,
        authority=asked.subject,
        request_id=caller.request_id,
        data={"by": asked.authority, "request": asked.id},
        at=at,
    )
