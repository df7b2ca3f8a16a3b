"""What is measured of an installation, in one read: the ground of `doctor`, of the gauges in `/metrics` and of alarms.

Nothing here judges: `health` does, from these values alone. The read is bounded whatever the number of certificates:
single rows, and counts over partial indexes that hold what should not be there. Times are the database's or this
machine's as each field says; spans are computed by whoever needs them, at one `now`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from rootward.ca import agree, approve
from rootward.ca.clock import LAST
from rootward.ca.installation import DESTROYING, Installation
from rootward.ca.trouble import KEY, LINT
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.fleet import replacement
from rootward.fleet.keylife import certifies_until
from rootward.store import authorities, certificates, events, facts, heads, jobs, migrations, people
from rootward.store.authorities import CrlHead
from rootward.store.certificates import Open
from rootward.store.db import clock
from rootward.store.facts import Fact
from rootward.store.schema import certificates as table

DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
COUNTED = 10_000  # events without a leaf are counted no further


@dataclass(frozen=True, slots=True)
class Vitals:
    """`crls` are by the authority's name; `troubled` are facts by name. `disk` are bytes, None where the database is
    elsewhere.
    """

    now: datetime  # by this machine
    theirs: datetime  # by the database
    last_reading: datetime | None
    durable: dict[str, str]
    schema: str | None
    schema_problem: str | None
    frozen: dict[str, datetime]
    crls: dict[str, CrlHead]
    open: Open
    orphans: int
    approvers: int
    second_person: bool
    jobs: tuple[jobs.Job, ...]
    troubled: dict[str, Fact]
    unsequenced: int
    unsequenced_since: datetime | None
    log_size: int | None
    log_at: datetime | None
    disk: int | None
    waiting: dict[str, int] = field(default_factory=dict)
    periods: dict[str, datetime] = field(default_factory=dict)  # until when each authority can certify, by its name
    unreplaced: dict[str, int] = field(default_factory=dict)  # certificates of compromised authorities


async def measure(inst: Installation) -> Vitals:
    """Read it all now. Problem RW-STORE where the store is away."""
    now = inst.clock()
    waiting = inst.db.waiting()
    return await inst.db.read(lambda conn: _read(conn, inst, now, waiting))


def _read(conn: Connection, inst: Installation, now: datetime, waiting: dict[str, int]) -> Vitals:
    crls = {}
    for authority in inst.authorities.values():
        head = authorities.crl_head(conn, authority.n)
        if head is not None:
            crls[authority.name] = head
    stored = {row.name: row.frozen_at for row in authorities.list(conn)}
    frozen = {name: at for name, at in stored.items() if at is not None}
    # what this process froze holds also where the store could not be written
    frozen |= {one.name: one.frozen_at for one in inst.authorities.values() if one.frozen_at is not None}
    last = facts.get(conn, LAST)
    names = [LINT, agree.MISMATCH, *(KEY + name for name in inst.authorities)]
    names += [DESTROYING + name for name in inst.authorities]
    found = {name: facts.get(conn, name) for name in names}
    problem = None
    try:
        migrations.check_schema(conn)
    except Problem as error:
        problem = error.detail
    newest = heads.newest_signed(conn)
    unsequenced, since = events.unsequenced_count(conn, most=COUNTED)
    return Vitals(
        now=now,
        theirs=clock(conn),
        last_reading=None if last is None else last.at,
        durable=_durable(conn),
        schema=migrations.version_of(conn),
        schema_problem=problem,
        frozen=frozen,
        crls=crls,
        open=certificates.open_summary(conn, but=tuple(inst.process.in_flight)),
        orphans=conn.execute(select(func.count()).where(table.c.orphaned_at.is_not(None))).scalar_one(),
        approvers=len(people.holders(conn, Role.APPROVER.value)),
        second_person=facts.get(conn, approve.SECOND_PERSON) is not None,
        jobs=jobs.list(conn),
        troubled={name: fact for name, fact in found.items() if fact is not None},
        unsequenced=unsequenced,
        unsequenced_since=since,
        log_size=None if newest is None else newest.size,
        log_at=None if newest is None else newest.at,
        disk=_free(conn),
        waiting=waiting,
        periods={name: certifies_until(conn, one) for name, one in inst.authorities.items()},
        unreplaced=replacement.outstanding(conn),
    )


def _durable(conn: Connection) -> dict[str, str]:
    """PostgreSQL's settings that make a commit durable; none where it is SQLite, which proved it at the start."""
    if conn.dialect.name == "sqlite":
        return {}
    return {name: str(conn.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in DURABLE}


def _free(conn: Connection) -> int | None:
    """Free bytes where the database is, as far as it is on this machine and has a file."""
    if conn.dialect.name != "sqlite":
        return None
    name = conn.exec_driver_sql("PRAGMA database_list").one()[2]
    return shutil.disk_usage(Path(name).parent).free if name else None
