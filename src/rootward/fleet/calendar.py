"""The calendar of what only people can renew: CRLs, certificates and keys of authorities whose key is offline, and
certificates and keys of all others. It counts down in events (90, 30, 7 and 1 days before, and when it is over), once
each, and the request file for the next CRL is there by itself from the first of these on, and as soon as something is
revoked that the CRL does not list: whoever revoked it may have died before asking.

What was told is a fact of the store, so that neither a restart nor another replica tells it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from rootward.ca.access import SYSTEM, system_caller
from rootward.ca.ending import crl_request, takes_requests
from rootward.ca.installation import Authority, Installation
from rootward.ca.publish import is_behind
from rootward.core import calendar
from rootward.core.calendar import Due
from rootward.core.times import rfc3339
from rootward.fleet.keylife import lifetimes
from rootward.store import authorities, events, facts
from rootward.store.rows import UNFENCED, Rows

log = structlog.get_logger()


async def dates(inst: Installation) -> list[Due]:
    """Every due date, the nearest first; of an authority that is over, its CRL's alone."""
    return await inst.db.read(lambda conn: read_dates(conn, inst))


def read_dates(conn: Connection, inst: Installation) -> list[Due]:
    """See `dates`."""
    return sorted(due for authority in inst.authorities.values() for due in _dates(conn, inst, authority))


def _dates(conn: Connection, inst: Installation, authority: Authority) -> Iterator[Due]:
    if authority.destroyed_at is not None:
        return  # nothing can be renewed with a key that is no more
    crl = None if authority.backend is not None else authorities.crl_head(conn, authority.n)
    found = calendar.dates(
        authority.name,
        crl=None if crl is None else (crl.this_update, crl.next_update),
        validity=(authority.issuer.not_before, authority.issuer.not_after),
        longest=longest(conn, inst, authority),
    )
    yield from (due for due in found if authority.retired_at is None or due.what == "crl")


def longest(conn: Connection, inst: Installation, authority: Authority) -> timedelta:
    """The longest lifetime of what this authority certifies: the most that its profiles give, and the authorities below
    it as they are.
    """
    below = [
        other.issuer.not_after - other.issuer.not_before
        for other in inst.authorities.values()
        if len(other.issuer.chain) > 1 and other.issuer.chain[1] == authority.issuer.certificate
    ]
    return max([*lifetimes(conn, authority), *below], default=timedelta())


async def remind(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Say what has come near since it was last looked at; a job of the worker. An hour without news writes nothing."""
    now = inst.clock()

    def tell(conn: Connection) -> list[tuple[Due, int]]:
        fence.run(conn)
        told = list(_news(conn, inst, now))
        for due, stage in told:
            facts.put(_fact(due), at=now, data=_said(due, stage)).run(conn)
            events.record(
                "ceremony.due",
                actor=SYSTEM,
                authority=due.authority,
                request_id="system:calendar",
                data={"what": due.what, "at": rfc3339(due.at), "days": stage},
                at=now,
            ).run(conn)
        return told

    if await inst.db.read(lambda conn: list(_news(conn, inst, now))):
        for due, stage in await inst.db.write(tell):
            say = log.error if stage <= min(calendar.COUNT_DOWN) else log.warning
            say("ceremony.due", authority=due.authority, what=due.what, at=rfc3339(due.at), days=stage)
    for name in await inst.db.read(lambda conn: list(_lists_to_ask_for(conn, inst, now))):
        await crl_request(inst, name, system_caller("calendar"))


def _lists_to_ask_for(conn: Connection, inst: Installation, now: datetime) -> Iterator[str]:
    """The offline authorities of ours whose CRL ends soon, or lists less than is revoked."""
    ending = {due.authority for due in read_dates(conn, inst) if due.what == "crl" and due.stage(now) is not None}
    for one in inst.authorities.values():
        if takes_requests(one) and (one.name in ending or is_behind(conn, one)):
            yield one.name


def _news(conn: Connection, inst: Installation, now: datetime) -> Iterator[tuple[Due, int]]:
    for due in read_dates(conn, inst):
        stage, before = due.stage(now), facts.get(conn, _fact(due))
        if stage is not None and (before is None or before.data != _said(due, stage)):
            yield due, stage


def _fact(due: Due) -> str:
    return f"due.{due.authority}.{due.what}"


def _said(due: Due, stage: int) -> str:
    return f"{rfc3339(due.at)} {stage}"
