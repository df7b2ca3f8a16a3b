"""How far an authority that stops is replaced: what is counted, who has not done it yet, and when it is over.

A count takes its time where there are many certificates. So whoever looks every few seconds reads the last one, which a
job keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from rootward.ca.installation import Installation
from rootward.ca.succession import ENDED
from rootward.core.problems import Problem
from rootward.store import authorities, facts, replacement
from rootward.store.replacement import Counts, Left
from rootward.store.rows import UNFENCED, Rows

_UNREPLACED = "authority.unreplaced:"  # a fact for each compromised authority, with how many there are


@dataclass(frozen=True)
class Replacement:
    """`since` is when it stopped, `waves_until` by when everybody is told to renew."""

    authority: str
    successor: str | None
    since: datetime
    waves_until: datetime | None
    compromised: bool
    counts: Counts


async def report(
    inst: Installation, name: str, *, after: int | None, limit: int
) -> tuple[Replacement, tuple[Left, ...]]:
    """The counts, and a page of certificates that are not replaced. RW-NOT-FOUND; RW-CONFLICT where it has not stopped
    and nothing is to take its place.
    """
    known, now = inst.authority(name).name, inst.clock()

    def read(conn: Connection) -> tuple[Replacement, tuple[Left, ...]] | None:
        row = authorities.by_name(conn, known)
        since = None if row is None else row.compromised_at or row.retired_at
        if row is None or (since is None and row.successor is None):
            return None
        after_it = followers(conn, row)
        found = replacement.counts(conn, known, after_it, since=since or now, now=now)
        rest = replacement.left(conn, known, after_it, now=now, after=after, limit=limit)
        stopped = row.compromised_at is not None
        return Replacement(known, row.successor, since or now, row.waves_until, stopped, found), rest

    told = await inst.db.read(read)
    if told is None:
        raise Problem("RW-CONFLICT", f"{known} has not stopped, and nothing takes its place: there is no report.")
    return told


def followers(conn: Connection, row: authorities.Authority) -> tuple[str, ...]:
    """What takes its place, and what takes the place of that."""
    found: list[str] = []
    at: authorities.Authority | None = row
    while at is not None and at.successor is not None and at.successor not in found:
        found.append(at.successor)
        at = authorities.by_name(conn, at.successor)
    return tuple(found)


async def recount(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Count again what is not replaced of each compromised authority, until it has ended; a job of the worker. Where
    the counts are the same nothing is written.
    """
    now = inst.clock()
    before, counted = await inst.db.read(lambda conn: (outstanding(conn), _counted(conn, now)))
    if before == counted:
        return

    def write(conn: Connection) -> None:
        fence.run(conn)
        for name in before.keys() - counted.keys():
            facts.forget(_UNREPLACED + name).run(conn)
        for name, count in counted.items():
            facts.put(_UNREPLACED + name, at=now, data=str(count)).run(conn)

    await inst.db.write(write)


def _counted(conn: Connection, now: datetime) -> dict[str, int]:
    counted = {
        row.name: replacement.counts(conn, row.name, followers(conn, row), since=row.compromised_at, now=now).remaining
        for row in authorities.list(conn)
        if row.compromised_at is not None and facts.get(conn, ENDED + row.name) is None
    }
    return {name: count for name, count in counted.items() if count}


def outstanding(conn: Connection) -> dict[str, int]:
    """How many certificates of each compromised authority were not replaced when they were counted last; those with
    none are not in it.
    """
    stopped = [row.name for row in authorities.list(conn) if row.compromised_at is not None]
    found = {name: facts.get(conn, _UNREPLACED + name) for name in stopped}
    return {name: int(fact.data) for name, fact in found.items() if fact is not None}
