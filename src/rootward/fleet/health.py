"""What an operator should look at: `rootward doctor` and `GET /api/v1/doctor`, as values. These checks are the alarms
(I-67): the metric `rootward_check` is made of them, so that doctor, metrics and alerts cannot disagree.

A check says what it found; where that is not ok it also says what to do. One that cannot be done is an error of its own
and never hides the others. Nothing here changes anything. All are in this one file of 400 lines and more, because each
is a few sentences.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from rootward.ca import freeze, own
from rootward.ca.agree import MISMATCH
from rootward.ca.clock import TOLERANCE
from rootward.ca.installation import Authority, Installation
from rootward.ca.trouble import KEY, KEY_LASTS, LINT, OCSP_LASTS
from rootward.ca.trouble import LASTS as LINT_LASTS
from rootward.core.calendar import COUNT_DOWN, stages
from rootward.core.problems import Problem
from rootward.core.times import rfc3339, show_duration
from rootward.core.words import count
from rootward.fleet import health_keys
from rootward.fleet.check import Check, State
from rootward.fleet.vitals import DURABLE, Vitals, measure
from rootward.store.authorities import CrlHead
from rootward.store.db import MOST_WAITING
from rootward.store.facts import Fact

SAFE_SQLITE = (3, 51, 3)  # before it, two connections that write or checkpoint can damage a WAL database
SKEW = timedelta(seconds=5)
OPEN_INTENT = timedelta(minutes=2)
UNSEQUENCED = timedelta(minutes=1)
SPARE = 64 * 1024 * 1024  # bytes that revoking needs when issuing has stopped (I-25)
PLENTY = 1024 * 1024 * 1024
LATE_JOB = timedelta(minutes=10)
_MEND_KEY = "Bring the key back from its backup before a restart."
_MEND_STORE = "See [keys.NAME] in rootward.toml."
_MEND_KEYS = {
    "RW-KEY-UNAVAILABLE": "Bring its token or service back: issuing goes on by itself then. CRLs last until their end.",
    "RW-KEY-EXTRACTABLE": "Do not issue with it: make a new authority, and retire this one.",
    "RW-KEY-MISMATCH": "Do not issue: find out who changed the key.",
}
_MEND_JOB = "The server's log has the traceback (job.failed). The job is tried again by itself."


async def checks(inst: Installation) -> list[Check]:
    """Every check, in one fixed order."""
    try:
        await freeze.look_again(inst)
        stored = judge(inst, await measure(inst))
    except Problem as problem:
        stored = [away(problem)]
    return [*stored, *await of_this_process(inst)]


def away(problem: Problem) -> Check:
    """The store could not be read, so that nothing in it could be judged."""
    return Check("store", "error", problem.detail, "See that the database runs and is reachable.")


async def of_this_process(inst: Installation) -> list[Check]:
    """Every check that needs no store. Keys are loaded in a thread: some live in a device."""
    return [*_halted(inst), *await asyncio.to_thread(_keys, inst), *_addresses(inst)]


def _halted(inst: Installation) -> list[Check]:
    """What stops all issuing; nothing where nothing does."""
    mend = "Nothing is issued until this is mended; revocation, CRLs and OCSP go on."
    return [Check(f"halted.{name}", "error", problem.detail, mend) for name, problem in inst.process.halts().items()]


def judge(inst: Installation, found: Vitals) -> list[Check]:
    """Every check that needs nothing but what was measured, and what this process knows of itself."""
    now = found.now
    result = [*_clock(found), _store(found), _schema(found)]
    for authority in inst.authorities.values():
        if authority.destroyed_at is not None:
            continue  # it is over, and nothing of it can be mended
        result += [_authority_expiry(authority, now), _crl(authority, found.crls.get(authority.name), now)]
        if authority.kind == "root" and authority.key is not None:
            detail = "This is a single-tier lab: the root's key is online, and all that it signs says so."
            mend = "Never rely on it. For anything real: rootward init, a new home, and a root that stays offline."
            result.append(Check("single-tier", "warning", detail, mend))
        if authority.key is not None:
            what = f"The OCSP responder of {authority.name}"
            result.append(
                _own(f"responder.{authority.name}", what, inst.process.own_ends.get(f"ocsp-{authority.name}"), now)
            )
            result.append(_ocsp(authority, inst.process.troubles.get(f"ocsp.{authority.name}"), now))
            result.append(_signs(authority, found.troubled.get(KEY + authority.name), now))
        if authority.name in found.unreplaced:
            left = count(found.unreplaced[authority.name], "certificate")
            detail = f"{authority.name} is compromised, and {left} of it not replaced yet."
            mend = f"rootward ca report {authority.name} says whose they are."
            result.append(Check(f"compromised.{authority.name}", "warning", detail, mend))
        if authority.name in found.frozen:
            since = rfc3339(found.frozen[authority.name])
            mend = (
                "rootward audit list --kind authority.frozen says why. "
                f"Once the cause is gone: rootward ca unfreeze {authority.name}"
            )
            detail = f"{authority.name} is frozen since {since}."
            result.append(Check(f"frozen.{authority.name}", "error", detail, mend))
        elif authority.name in inst.process.stopped:
            detail = f"{authority.name} issues nothing in this process, and the store could not be told so."
            mend = f"Tell it, once it answers: rootward ca freeze {authority.name}"
            result.append(Check(f"frozen.{authority.name}", "error", detail, mend))
    for authority, end in health_keys.of_periods(inst, found):
        what = f"The cryptoperiod of the key of {authority.name}"
        mend = "It issues nothing after that: rootward ca renew makes what takes its place."
        result.append(ending(f"period.{authority.name}", what, end, now, days=COUNT_DOWN, mend=mend))
    result += [*health_keys.of_destructions(inst, found), health_keys.of_kek(inst, now)]
    result.append(_own("tls", "The server's own TLS", inst.process.own_ends.get(own.TLS), now))
    result += [
        *_intents(found),
        *_log(inst, found),
        _lint(found),
        _agree(found),
        _people(found),
        *_jobs(found),
        *_local(inst),
    ]
    return [*result, _queue(found), *_disk(found.disk)]


def _clock(found: Vitals) -> list[Check]:
    skew = abs(found.theirs - found.now)
    behind = timedelta() if found.last_reading is None else found.last_reading - found.now
    return [
        Check("clock", "ok", f"The database's clock and this machine's differ by {int(skew.total_seconds())} s.")
        if skew <= SKEW
        else Check(
            "clock",
            "error",
            f"This machine's clock says {rfc3339(found.now)}, the database's {rfc3339(found.theirs)}.",
            "Set both by NTP: certificates, CRLs and leases depend on the time.",
        ),
        Check("clock.last", "ok", "The clock is not behind its last reading.")
        if behind <= TOLERANCE
        else Check(
            "clock.last",
            "error",
            f"The clock says {rfc3339(found.now)}, but this installation already ran {int(behind.total_seconds())} s "
            "later than that.",
            "Set the clock right. If it ran ahead then and is right now: rootward doctor --accept-clock",
        ),
    ]


def _store(found: Vitals) -> Check:
    if not found.durable:
        return _sqlite(sqlite3.sqlite_version_info)
    off = [name for name in DURABLE if found.durable[name] == "off"]
    if off:
        said = ", ".join(f"{name} = {found.durable[name]}" for name in off)
        return Check("store", "error", f"PostgreSQL may lose what was acknowledged: {said}.", "Turn these settings on.")
    return Check("store", "ok", "PostgreSQL; every commit is on disk before it is told.")


def _sqlite(version: tuple[int, ...]) -> Check:
    says = f"SQLite {'.'.join(map(str, version))}; every commit is on disk before it is told."
    if version < SAFE_SQLITE:
        says += " Versions before 3.51.3 can damage a database that two connections write to; here one does."
    return Check("store", "ok", says)


def _schema(found: Vitals) -> Check:
    if found.schema_problem is not None:
        return Check("schema", "error", found.schema_problem, "Run the program's version that fits, or migrate.")
    return Check("schema", "ok", f"The tables are of version {found.schema}.")


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
    return Check(name, state, f"{what} ends {rfc3339(end)}, in less than {count(min(reached), 'day')}.", mend)


def _authority_expiry(authority: Authority, now: datetime) -> Check:
    return ending(
        f"authority.{authority.name}",
        f"The certificate of the authority {authority.name}",
        authority.issuer.certificate.not_valid_after_utc,
        now,
        days=(365, *COUNT_DOWN),
        mend="Plan the ceremony for its successor: clients need its root or intermediate before this day.",
    )


def _crl(authority: Authority, crl: CrlHead | None, now: datetime) -> Check:
    name, what = f"crl.{authority.name}", f"The CRL of {authority.name}"
    if authority.settings.external:
        return Check(name, "ok", f"{what} is its owner's to publish.")
    if crl is None:
        mend = (
            "Hold a ceremony for it."
            if authority.key is None
            else "See whether the worker runs; see the job's failure."
        )
        return Check(name, "error", f"{what} is not there.", mend)
    if authority.key is None:
        return ending(
            name,
            what,
            crl.next_update,
            now,
            days=stages(crl.next_update - crl.this_update) or COUNT_DOWN[-1:],
            mend="Hold a ceremony that makes the next CRL; rootward ceremony due says which.",
        )
    lasts = crl.next_update - crl.this_update
    mend = "See whether the worker runs and the authority's key is reachable; see the job's failure."
    if now >= crl.next_update:
        return Check(name, "error", f"{what} ended {rfc3339(crl.next_update)}.", mend)
    if now >= crl.this_update + lasts * 3 / 4:
        return Check(name, "warning", f"{what} is past three quarters of its life.", mend)
    return Check(name, "ok", f"{what} has number {crl.number} and lasts until {rfc3339(crl.next_update)}.")


def _own(name: str, what: str, end: datetime | None, now: datetime) -> Check:
    """How long the certificate lasts that this process shows of itself."""
    mend = "See whether the worker runs: it renews this certificate at half of its life."
    if end is None:
        return Check(name, "warning", f"{what} has no certificate yet.", mend)
    if end <= now:
        return Check(name, "error", f"{what}: its certificate ended {rfc3339(end)}.", mend)
    return Check(name, "ok", f"{what}: its certificate lasts until {rfc3339(end)}.")


def _ocsp(authority: Authority, trouble: tuple[datetime, str] | None, now: datetime) -> Check:
    """Whether this process could make every OCSP answer lately."""
    name = f"ocsp.{authority.name}"
    if trouble is None or now - trouble[0] > OCSP_LASTS:
        return Check(name, "ok", f"OCSP for {authority.name} is answered.")
    mend = "The server's log says more (ocsp.key, ocsp.lint, ocsp.responder-expired)."
    return Check(
        name, "error", f"OCSP for {authority.name} was not answered at {rfc3339(trouble[0])}: {trouble[1]}", mend
    )


def _signs(authority: Authority, fact: Fact | None, now: datetime) -> Check:
    name = f"signs.{authority.name}"
    if fact is None or now - fact.at > KEY_LASTS:
        return Check(name, "ok", f"The key of {authority.name} signs.")
    mend = "See that the key's device or file is reachable; issue.failed and issue.orphaned name what was lost."
    detail = f"The key of {authority.name} did not sign at {rfc3339(fact.at)} ({fact.data})."
    return Check(name, "error", detail, mend)


def _intents(found: Vitals) -> list[Check]:
    open, oldest = found.open, found.open.stale_oldest
    return [
        Check("intents", "ok", "No issuance was left half done.")
        if oldest is None or found.now - oldest <= OPEN_INTENT
        else Check(
            "intents",
            "warning",
            f"Begun and without an end: {count(open.stale, 'issuance')}, the oldest at {rfc3339(oldest)}.",
            "See whether the worker runs: it closes them as orphans.",
        ),
        Check("orphans", "ok", "There are no orphans.")
        if not found.orphans
        else Check(
            "orphans",
            "warning",
            f"{count(found.orphans, 'certificate')} may have been signed and lost: revoked, and counted as issued.",
            "Look at them (status orphan) and find out what ended the process at these times.",
        ),
    ]


def _log(inst: Installation, found: Vitals) -> list[Check]:
    """Whether the audit tree takes events in, and whether this host's witness, the head in its file, goes on with it.
    Nothing where this process has no log.
    """
    if inst.log is None:
        return []
    since, kept = found.unsequenced_since, inst.log.kept
    result = [
        Check("log", "ok", f"The audit log has {count(found.log_size or 0, 'event')} in its tree.")
        if since is None or found.now - since <= UNSEQUENCED
        else Check(
            "log",
            "error",
            f"Without a place in the audit tree: {count(found.unsequenced, 'event')}, the oldest of {rfc3339(since)}.",
            "See whether the worker runs and the log's key signs; see the failure of the job sequence.",
        )
    ]
    behind = (found.log_size or 0) - (0 if kept is None else kept.size)
    late = found.log_at is not None and found.now - found.log_at > UNSEQUENCED
    if inst.log.folder is not None and behind > 0 and late:
        detail = f"The head in {inst.log.folder / 'checkpoint'} is {count(behind, 'event')} behind the store's."
        result.append(
            Check("log.file", "error", detail, "See that the file can be written, and the job log's failure.")
        )
    elif inst.log.folder is not None:
        result.append(Check("log.file", "ok", "The newest head of the audit log is kept on this host too."))
    return result


def _lint(found: Vitals) -> Check:
    fact = found.troubled.get(LINT)
    if fact is None or found.now - fact.at > LINT_LASTS:
        return Check("lint", "ok", "Everything that was drafted lately passed its lints.")
    mend = "This is a mistake of the program or of a profile: nothing was signed. Report it with the event lint.failed."
    return Check("lint", "error", f"A draft failed its lints at {rfc3339(fact.at)}: {fact.data}", mend)


def _agree(found: Vitals) -> Check:
    fact = found.troubled.get(MISMATCH)
    if fact is None or not fact.data:
        return Check("agree", "ok", "CRL, OCSP and inventory agreed the last time they were compared.")
    mend = "The event status.mismatch names the certificate: revoke it again, and find out who changed the database."
    detail = f"CRL, OCSP and inventory do not agree about certificates since {rfc3339(fact.at)}."
    return Check("agree", "error", detail, mend)


def _people(found: Vitals) -> Check:
    if not found.second_person and found.approvers < 2:
        return Check(
            "single-person",
            "warning",
            "Only one person has ever held the role approver, and so approves alone what the same person asks for.",
            "Give the role approver to a second person. From then on nobody approves their own requests.",
        )
    if found.approvers < 2:
        detail = "Fewer than two people hold the role approver: what the one asks for, nobody can approve."
        return Check("single-person", "warning", detail, "Give the role approver to a second person.")
    return Check("single-person", "ok", f"{found.approvers} people hold the role approver.")


def _jobs(found: Vitals) -> list[Check]:
    result = []
    for job in found.jobs:
        name = f"job.{job.name}"
        late = found.theirs - job.due_at
        if job.failure is not None:
            result.append(Check(name, "error", f"The job {job.name} fails.", _MEND_JOB))
        elif late > LATE_JOB:
            shown = show_duration(timedelta(seconds=int(late.total_seconds())))
            result.append(Check(name, "error", f"The job {job.name} is {shown} late.", "See whether a worker runs."))
        else:
            result.append(Check(name, "ok", f"The job {job.name} went well."))
    return result


def _local(inst: Installation) -> list[Check]:
    """Jobs of this process alone: renewals of its own certificates among them."""
    return [
        Check(f"job.{name}", "error", f"The job {name} of this server fails: {why}", _MEND_JOB)
        for name, why in sorted(inst.process.failing.items())
    ]


def _queue(found: Vitals) -> Check:
    name, most = max(found.waiting.items(), key=lambda item: item[1], default=("write", 0))
    if most < MOST_WAITING // 2:
        return Check("queue", "ok", "Nothing waits long for the store.")
    state: State = "error" if most >= MOST_WAITING * 9 // 10 else "warning"
    mend = "See whether the disk or the database is slow. At 1,024 more are refused with 503."
    return Check("queue", state, f"{most} pieces of work wait for the store ({name}).", mend)


def _keys(inst: Installation) -> list[Check]:
    """Whether each key store answers, and the key of each online authority is there and is its certificate's."""
    found = []
    for authority in inst.authorities.values():
        name = f"key.{authority.name}"
        if authority.destroyed_at is not None:
            since = rfc3339(authority.destroyed_at)
            found.append(Check(name, "ok", f"The key of {authority.name} was destroyed {since}."))
            continue
        if authority.key is None:
            found.append(Check(name, "ok", f"The key of {authority.name} is offline, as it should be."))
            continue
        try:
            key = inst.key_store(authority.backend or "").load(authority.key_label, authority.issuer.key_id)
        except Problem as problem:
            found.append(Check(name, "error", problem.detail, _MEND_KEYS.get(problem.code, _MEND_KEY)))
            continue
        if key.public.id != authority.issuer.key_id:
            mend = "Do not issue: find out who changed the key."
            found.append(Check(name, "error", f"The key of {authority.name} is not its certificate's.", mend))
        else:
            found.append(Check(name, "ok", f"The key of {authority.name} is the one of its certificate."))
    for store, backend in inst.stores.items():
        try:
            there = len(backend.list())
        except Problem as problem:
            found.append(Check(f"store.{store}", "error", problem.detail, _MEND_KEYS.get(problem.code, _MEND_STORE)))
        else:
            found.append(Check(f"store.{store}", "ok", f"The key store {store} answers: {count(there, 'key')}."))
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


def _disk(free: int | None) -> list[Check]:
    if free is None:
        return []
    shown = f"{free // (1024 * 1024)} MiB are free where the database is."
    if free < SPARE:
        return [Check("disk", "error", shown, "Make room now: when it is full, nothing can be issued or revoked.")]
    if free < PLENTY:
        return [Check("disk", "warning", shown, "Make room: below 64 MiB issuing is in danger.")]
    return [Check("disk", "ok", shown)]
