"""What an operator should look at: `rootward doctor` and `GET /api/v1/doctor`, as values.

Every check says what it found; where that is not ok it also says what to do. A check that cannot be done is an error of
its own and never hides the others. Nothing here changes anything.
"""

from __future__ import annotations

import ipaddress
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, select

from rootward.ca import approve, own
from rootward.ca.installation import Authority, Installation
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.core.times import rfc3339, show_duration
from rootward.store import authorities, certificates, facts, jobs, migrations, people
from rootward.store.db import clock
from rootward.store.schema import certificates as table

State = Literal["ok", "warning", "error"]
SAFE_SQLITE = (3, 51, 3)  # before it, two connections that write or checkpoint can damage a WAL database
SKEW = timedelta(seconds=5)
COUNT_DOWN = (90, 30, 7, 1)  # days before an offline authority's CRL or an authority itself ends
OPEN_INTENT = timedelta(minutes=2)
SPARE = 64 * 1024 * 1024  # bytes that revoking needs when issuing has stopped (I-25)
PLENTY = 1024 * 1024 * 1024
LATE_JOB = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `mend` is what to do, None where the state is ok."""

    name: str
    state: State
    detail: str
    mend: str | None = None


async def checks(inst: Installation) -> list[Check]:
    """Every check, in one fixed order."""
    now = inst.clock()

    def read(conn: Connection) -> list[Check]:
        found = _store(conn, now) + _schema(conn)
        for authority in inst.authorities.values():
            found.append(_authority_expiry(authority, now))
            found.append(_crl(authority, authorities.current_crl(conn, authority.n), now))
            if authority.key is not None:
                what = f"The OCSP responder of {authority.name}"
                found.append(_own(conn, f"responder.{authority.name}", what, authority.name, "ocsp-responder", now))
        tls = own.tls_authority(inst).name if any(one.key is not None for one in inst.authorities.values()) else ""
        found.append(_own(conn, "tls", "The server's own TLS", tls, own.TLS, now))
        return [*found, *_intents(conn, inst, now), *_people(conn), *_jobs(conn, now), *_disk(_folder(conn))]

    try:
        stored = await inst.db.read(read)
    except Problem as problem:
        mend = "See that the database runs and is reachable."
        stored = [Check("store", "error", problem.detail, mend)]
    return [*stored, *_halted(inst), *_keys(inst), *_addresses(inst)]


def _halted(inst: Installation) -> list[Check]:
    """What stops all issuing; nothing where nothing does."""
    mend = "Nothing is issued until this is mended; revocation, CRLs and OCSP go on."
    return [Check(f"halted.{name}", "error", problem.detail, mend) for name, problem in inst.halted.items()]


def _store(conn: Connection, now: datetime) -> list[Check]:
    theirs = clock(conn)
    skew = abs(theirs - now)
    found = [
        Check("clock", "ok", f"The database's clock and this machine's differ by {int(skew.total_seconds())} s.")
        if skew <= SKEW
        else Check(
            "clock",
            "error",
            f"This machine's clock says {rfc3339(now)}, the database's {rfc3339(theirs)}.",
            "Set both by NTP: certificates, CRLs and leases depend on the time.",
        )
    ]
    if conn.dialect.name == "sqlite":
        found.append(_sqlite(sqlite3.sqlite_version_info))
    else:
        found.append(_postgres(conn))
    return found


def _sqlite(version: tuple[int, ...]) -> Check:
    says = f"SQLite {'.'.join(map(str, version))}; every commit is on disk before it is told."
    if version < SAFE_SQLITE:
        says += " Versions before 3.51.3 can damage a database that two connections write to; here one does."
    return Check("store", "ok", says)


def _postgres(conn: Connection) -> Check:
    wanted = ("fsync", "full_page_writes", "synchronous_commit")
    found = {name: str(conn.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in wanted}
    off = [name for name in wanted if found[name] == "off"]
    if off:
        said = ", ".join(f"{name} = {found[name]}" for name in off)
        return Check("store", "error", f"PostgreSQL may lose what was acknowledged: {said}.", "Turn these settings on.")
    return Check("store", "ok", "PostgreSQL; every commit is on disk before it is told.")


def _schema(conn: Connection) -> list[Check]:
    try:
        migrations.check_schema(conn)
    except Problem as problem:
        return [Check("schema", "error", problem.detail, "Run the program's version that fits, or migrate.")]
    return [Check("schema", "ok", f"The tables are of version {migrations.version_of(conn)}.")]


def ending(name: str, what: str, end: datetime, now: datetime, *, days: Sequence[int], mend: str) -> Check:
    """A check of something that ends: an error once it has ended or the last of `days` is reached, a warning from
    the first on.
    """
    left = end - now
    if left <= timedelta():
        return Check(name, "error", f"{what} ended {rfc3339(end)}.", mend)
    reached = [day for day in days if left <= timedelta(days=day)]
    if not reached:
        return Check(name, "ok", f"{what} lasts until {rfc3339(end)}.")
    state: State = "error" if min(reached) == min(days) else "warning"
    return Check(name, state, f"{what} ends {rfc3339(end)}, in less than {_days(min(reached))}.", mend)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _authority_expiry(authority: Authority, now: datetime) -> Check:
    return ending(
        f"authority.{authority.name}",
        f"The certificate of the authority {authority.name}",
        authority.issuer.certificate.not_valid_after_utc,
        now,
        days=(365, *COUNT_DOWN),
        mend="Plan the ceremony for its successor: clients need its root or intermediate before this day.",
    )


def _crl(authority: Authority, crl: authorities.Crl | None, now: datetime) -> Check:
    name, what = f"crl.{authority.name}", f"The CRL of {authority.name}"
    if crl is None:
        mend = (
            "Hold a ceremony for it."
            if authority.key is None
            else "See whether the worker runs; see the job's failure."
        )
        return Check(name, "error", f"{what} is not there.", mend)
    if authority.key is None:
        return ending(
            name, what, crl.next_update, now, days=COUNT_DOWN, mend="Hold a ceremony that makes the next CRL."
        )
    lasts = crl.next_update - crl.this_update
    mend = "See whether the worker runs and the authority's key is reachable; see the job's failure."
    if now >= crl.next_update:
        return Check(name, "error", f"{what} ended {rfc3339(crl.next_update)}.", mend)
    if now >= crl.this_update + lasts * 3 / 4:
        return Check(name, "warning", f"{what} is past three quarters of its life.", mend)
    return Check(name, "ok", f"{what} has number {crl.number} and lasts until {rfc3339(crl.next_update)}.")


def _own(conn: Connection, name: str, what: str, authority: str, profile: str, now: datetime) -> Check:
    """How long the newest living certificate lasts that the installation issued to itself under that profile."""
    query = (
        select(func.max(table.c.not_after))
        .where(table.c.authority == authority, table.c.profile == profile, table.c.issued_at.is_not(None))
        .where(table.c.revoked_at.is_(None))
    )
    end = conn.execute(query).scalar_one_or_none()
    mend = "See whether the worker runs: it renews this certificate at half of its life."
    if end is None:
        return Check(name, "warning", f"{what} has no certificate yet.", mend)
    if end <= now:
        return Check(name, "error", f"{what}: its certificate ended {rfc3339(end)}.", mend)
    return Check(name, "ok", f"{what}: its certificate lasts until {rfc3339(end)}.")


def _intents(conn: Connection, inst: Installation, now: datetime) -> list[Check]:
    stale = [
        row
        for row in certificates.open_intents(conn, limit=1000)
        if row.id not in inst.in_flight and now - row.intended_at > OPEN_INTENT
    ]
    orphans = conn.execute(select(func.count()).where(table.c.orphaned_at.is_not(None))).scalar_one()
    return [
        Check("intents", "ok", "No issuance was left half done.")
        if not stale
        else Check(
            "intents",
            "warning",
            f"{len(stale)} issuances were begun and have no end, the oldest at {rfc3339(stale[0].intended_at)}.",
            "See whether the worker runs: it closes them as orphans.",
        ),
        Check("orphans", "ok", "There are no orphans.")
        if not orphans
        else Check(
            "orphans",
            "warning",
            f"{orphans} certificates may have been signed and lost. They count as issued and are revoked.",
            "Look at them (status orphan) and find out what ended the process at these times.",
        ),
    ]


def _people(conn: Connection) -> list[Check]:
    approvers = people.holders(conn, Role.APPROVER.value)
    if facts.get(conn, approve.SECOND_PERSON) is None and len(approvers) < 2:
        return [
            Check(
                "single-person",
                "warning",
                "Only one person has ever held the role approver, and so approves alone what the same person asks for.",
                "Give the role approver to a second person. From then on nobody approves their own requests.",
            )
        ]
    if len(approvers) < 2:
        detail = "Fewer than two people hold the role approver: what the one asks for, nobody can approve."
        return [Check("single-person", "warning", detail, "Give the role approver to a second person.")]
    return [Check("single-person", "ok", f"{len(approvers)} people hold the role approver.")]


def _jobs(conn: Connection, now: datetime) -> list[Check]:
    found = []
    for job in jobs.list(conn):
        name = f"job.{job.name}"
        if job.failure is not None:
            mend = "The server's log has the traceback (job.failed). The job is tried again by itself."
            found.append(Check(name, "error", f"The job {job.name} fails.", mend))
        elif now - job.due_at > LATE_JOB:
            late = show_duration(timedelta(seconds=int((now - job.due_at).total_seconds())))
            found.append(Check(name, "error", f"The job {job.name} is {late} late.", "See whether a worker runs."))
        else:
            found.append(Check(name, "ok", f"The job {job.name} went well."))
    return found


def _keys(inst: Installation) -> list[Check]:
    """Whether the key of each online authority is there and is the one of its certificate."""
    found = []
    for authority in inst.authorities.values():
        name = f"key.{authority.name}"
        if authority.key is None:
            found.append(Check(name, "ok", f"The key of {authority.name} is offline, as it should be."))
            continue
        try:
            key = inst.keys.load(authority.name, authority.issuer.key_id)
        except Problem as problem:
            found.append(Check(name, "error", problem.detail, "Bring the key back from its backup before a restart."))
            continue
        if key.public.id != authority.issuer.key_id:
            mend = "Do not issue: find out who changed the key."
            found.append(Check(name, "error", f"The key of {authority.name} is not its certificate's.", mend))
        else:
            found.append(Check(name, "ok", f"The key of {authority.name} is the one of its certificate."))
        if authority.frozen_at is not None:
            since = rfc3339(authority.frozen_at)
            mend = "The event authority.frozen says why; thaw it once the cause is gone."
            found.append(Check(f"frozen.{authority.name}", "error", f"{authority.name} is frozen since {since}.", mend))
    return found


def _addresses(inst: Installation) -> list[Check]:
    """An address that only this machine can reach is of use in a lab only: `pki_url` goes into every certificate."""
    found = []
    for name, url in (("pki_url", inst.pki_url), ("external_url", inst.external_url)):
        if not is_loopback(url):
            found.append(Check(name, "ok", f"{name} is {url}."))
        elif inst.lab:
            found.append(Check(name, "ok", f"{name} is {url}: this machine only, which will do for a lab."))
        else:
            mend = f"Set {name} in rootward.toml to an address that the clients reach, then renew what was issued."
            found.append(Check(name, "error", f"{name} is {url}: nobody but this machine can reach it.", mend))
    return found


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine itself (RFC 6761 6.3)."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _folder(conn: Connection) -> Path | None:
    """Where the database is, as far as it is on this machine and has a file."""
    if conn.dialect.name != "sqlite":
        return None
    name = conn.exec_driver_sql("PRAGMA database_list").one()[2]
    return Path(name).parent if name else None


def _disk(path: Path | None) -> list[Check]:
    if path is None:
        return []
    free = shutil.disk_usage(path).free
    shown = f"{free // (1024 * 1024)} MiB are free where the database is."
    if free < SPARE:
        return [Check("disk", "error", shown, "Make room now: when it is full, nothing can be issued or revoked.")]
    if free < PLENTY:
        return [Check("disk", "warning", shown, "Make room: below 64 MiB issuing is in danger.")]
    return [Check("disk", "ok", shown)]
