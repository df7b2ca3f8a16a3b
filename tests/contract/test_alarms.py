"""Every alarm (I-67): silent in an installation that is well, and raised by its cause, on both stores; doctor and the
metric `rootward_check` say the same, because they are made of the same checks.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import generate_latest
from sqlalchemy import Connection, text, update

from rootward import telemetry
from rootward.ca import clock, freeze, issue, own, publish, revoke
from rootward.ca.agree import agree
from rootward.ca.process import KekChange
from rootward.ca.sequence import settle
from rootward.core.ocsp import OcspError
from rootward.core.problems import Problem, Reason
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from rootward.fleet import gauges as gauges_module
from rootward.fleet import health, replacement, vitals
from rootward.fleet.gauges import Gauges
from rootward.keys import Key
from rootward.store import certificates, facts, jobs, succession
from rootward.store import db as store
from rootward.store.db import MOST_WAITING
from rootward.store.schema import certificates as table
from rootward.worker import Job, Worker
from tests.support.store import event, intent
from tests.support.world import ISSUING, World, refused

Cause = Callable[[World, pytest.MonkeyPatch], Awaitable[object]]
HOUR = timedelta(hours=1)
CAUSES: dict[str, tuple[str, str | None, Cause]] = {}


def causes(check: str, state: str = "error") -> Callable[[Cause], Cause]:
    """What is wrapped makes the check go into that state."""

    def put(cause: Cause) -> Cause:
        CAUSES[f"{cause.__name__}: {check}"] = (check, state, cause)
        return cause

    return put


@causes("clock")
async def a_clock_that_is_wrong(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(HOUR)


@causes("clock.last")
async def a_clock_that_went_back(lab: World, _: pytest.MonkeyPatch) -> None:
    await clock.note_clock(lab.inst)
    lab.clock.move(-HOUR)


@causes("store")
async def a_store_that_is_away(lab: World, patch: pytest.MonkeyPatch) -> None:
    async def away(_work: object) -> None:
        raise Problem("RW-STORE", "The store is away.")

    patch.setattr(lab.inst.db, "read", away)


@causes("schema")
async def tables_of_another_version(lab: World, _: pytest.MonkeyPatch) -> None:
    await lab.inst.db.write(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '0000'")).rowcount)


@causes("authority.issuing")
async def an_authority_that_ends(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(timedelta(days=5 * 365))


@causes("period.issuing")
async def a_key_that_signs_no_longer(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(timedelta(days=5 * 365 - 1))


@causes("kek", "warning")
async def a_key_encryption_key_that_is_left(lab: World, patch: pytest.MonkeyPatch) -> None:
    over = KekChange(old="a" * 16, new="b" * 16, since=lab.clock.now, over=True)
    patch.setattr(lab.inst.process, "kek", over)


@causes("crl.issuing", "warning")
async def a_crl_that_is_late(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(19 * HOUR)


@causes("crl.issuing")
async def a_crl_that_ended(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(25 * HOUR)


@causes("crl.root", "warning")
async def an_offline_crl_that_wants_a_ceremony(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(timedelta(days=276))


@causes("responder.issuing")
async def a_responder_that_was_not_renewed(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(timedelta(days=3))


@causes("tls")
async def a_tls_certificate_that_was_not_renewed(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.clock.move(timedelta(days=31))


@causes("ocsp.issuing")
async def a_responder_whose_key_does_not_sign(lab: World, _: pytest.MonkeyPatch) -> None:
    row = await lab.issue()
    mine = lab.responder._own[ISSUING]
    broken = Key(ec.generate_private_key(ec.SECP256R1()), label="x", max_message=1)
    lab.responder._own[ISSUING] = dataclasses.replace(mine, key=broken)
    with pytest.raises(OcspError):
        await lab.status(row.serial)


@causes("ocsp.issuing")
async def a_responder_that_is_over(lab: World, _: pytest.MonkeyPatch) -> None:
    row = await lab.issue()
    lab.responder._own.clear()
    with pytest.raises(OcspError):
        await lab.status(row.serial)


@causes("signs.issuing")
async def a_key_that_does_not_sign(lab: World, _: pytest.MonkeyPatch) -> None:
    _break_key(lab)
    assert await refused(lab.issue()) == "RW-KEY-UNAVAILABLE"


@causes("signs.issuing")
async def a_key_that_signs_no_crl(lab: World, _: pytest.MonkeyPatch) -> None:
    _break_key(lab)
    with pytest.raises(Exception, match="can sign"):
        await publish.publish(lab.inst, lab.inst.authority(ISSUING))


@causes("frozen.issuing")
async def an_authority_that_is_frozen(lab: World, _: pytest.MonkeyPatch) -> None:
    kept = dict(lab.inst.authorities)
    await freeze.freeze(lab.inst, ISSUING, "a test", lab.admin)
    lab.inst.authorities = kept  # at another replica, which only the store tells


@causes("compromised.issuing", "warning")
async def certificates_of_a_compromised_authority(lab: World, _: pytest.MonkeyPatch) -> None:
    await lab.issue()
    await lab.inst.db.write(succession.compromise(ISSUING, at=lab.clock(), waves_until=lab.clock()))
    await replacement.recount(lab.inst)


@causes("halted.clock")
async def issuing_that_is_halted(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.inst.process.halted["clock"] = Problem("RW-CLOCK", "The clock is behind.")


@causes("intents", "warning")
async def an_issuance_without_an_end(lab: World, _: pytest.MonkeyPatch) -> None:
    await lab.inst.db.write(certificates.intend(intent("dead", intended_at=lab.clock() - HOUR, issuer=1)))


@causes("orphans", "warning")
async def an_orphan(lab: World, _: pytest.MonkeyPatch) -> None:
    row = intent("dead", intended_at=lab.clock(), issuer=1)
    await lab.inst.db.write(certificates.intend(row))
    await lab.inst.db.write(certificates.orphan(row["id"], at=lab.clock(), lease="dead"))


@causes("log")
async def events_that_get_no_place(lab: World, _: pytest.MonkeyPatch) -> None:
    await lab.inst.db.write(event(at=lab.clock()))
    lab.clock.move(timedelta(minutes=2))


@causes("log.file")
async def a_witness_that_is_not_written(lab: World, _: pytest.MonkeyPatch) -> None:
    await settle(lab.inst)
    assert lab.inst.log is not None
    lab.inst.log.folder, lab.inst.log.kept = Path("/nowhere"), None
    lab.clock.move(timedelta(minutes=2))


@causes("lint")
async def a_draft_that_fails_its_lints(lab: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(issue, "lint_certificate", lambda _draft, _plan: [Reason("RW-LINT", "for a test")])
    assert await refused(lab.issue()) == "RW-LINT"


@causes("lint")
async def a_crl_that_fails_its_lints(lab: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(publish, "lint_crl", lambda _draft, _issuer: [Reason("RW-LINT", "for a test")])
    assert await refused(publish.publish(lab.inst, lab.inst.authority(ISSUING))) == "RW-LINT"


@causes("agree")
async def a_revocation_that_was_taken_back_in_the_database(lab: World, _: pytest.MonkeyPatch) -> None:
    row = await lab.issue()
    await revoke.revoke(lab.inst, row.id, RevocationReason.KEY_COMPROMISE, lab.admin)
    lab.clock.move(timedelta(seconds=1))
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    assert await agree(lab.inst) == []
    forget = update(table).where(table.c.id == row.id).values(revoked_at=None, reason=None)
    await lab.inst.db.write(lambda conn: conn.execute(forget).rowcount)
    (found,) = await agree(lab.inst)
    assert (found.serial, found.inventory, found.crl) == (row.serial.hex(), "good", "revoked")


@causes("job.publish")
async def a_job_that_fails(lab: World, _: pytest.MonkeyPatch) -> None:
    async def fails(*_args: object) -> None:
        raise RuntimeError("for a test")

    await _work(lab, Worker(lab.inst, shared={"publish": Job(timedelta(hours=1), fails)}), lambda: _failed(lab))


@causes("job.index")
async def a_job_that_nobody_does(lab: World, _: pytest.MonkeyPatch) -> None:
    def late(conn: Connection) -> None:
        jobs.ensure("index", due_at=store.clock(conn) - HOUR).run(conn)

    await lab.inst.db.write(late)


@causes("job.responders")
async def a_renewal_that_fails(lab: World, _: pytest.MonkeyPatch) -> None:
    async def fails(*_args: object) -> None:
        raise Problem("RW-KEY-UNAVAILABLE", "for a test")

    worker = Worker(lab.inst, shared={}, local={"responders": Job(timedelta(hours=1), fails)})

    async def told() -> bool:
        return "responders" in lab.inst.process.failing

    await _work(lab, worker, told)


@causes("key.issuing")
async def a_key_that_is_gone(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.inst.keys.delete(ISSUING, lab.inst.authority(ISSUING).issuer.key_id)


@causes("queue")
async def a_store_that_cannot_keep_up(lab: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lab.inst.db, "waiting", lambda: {"write": MOST_WAITING - 1, "read": 0, "status": 0})


@causes("single-person", "warning")
async def an_approver_who_is_alone(lab: World, _: pytest.MonkeyPatch) -> None:
    await lab.inst.db.write(lambda conn: conn.execute(text("UPDATE grants SET removed_at = created_at")).rowcount)


@causes("pki_url")
@causes("external_url")
async def an_address_that_nobody_reaches(lab: World, _: pytest.MonkeyPatch) -> None:
    lab.inst.lab = False


@causes("disk")
async def a_full_disk(lab: World, patch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1024

    patch.setattr(vitals.shutil, "disk_usage", lambda _path: Usage)


@pytest.fixture
def well(lab: World) -> World:
    """An installation to which nothing is wrong."""

    async def complete() -> None:
        await publish.publish_due(lab.inst)
        await own.obtain(lab.inst, f"tls:{own.TLS}", own.TLS)
        await lab.person("second", Grant(Role.APPROVER))
        await settle(lab.inst)

    asyncio.run(complete())
    return lab


async def wrong(lab: World) -> dict[str, str]:
    """The checks that are not ok, by doctor; the metric must say the same of every one."""
    found = await health.checks(lab.inst)
    assert len({check.name for check in found}) == len(found)
    assert all((check.state == "ok") == (check.mend is None) for check in found)
    await Gauges(lab.inst).refresh()
    told = {
        line.split('"')[1]: float(line.rsplit(" ", 1)[1])
        for line in generate_latest(telemetry.METRICS).decode().splitlines()
        if line.startswith("rootward_check{")
    }
    assert told == {check.name: {"ok": 0, "warning": 1, "error": 2}[check.state] for check in found}
    return {check.name: check.state for check in found if check.state != "ok"}


@pytest.mark.invariant("I-67")
async def test_silence_where_all_is_well(well: World) -> None:
    assert await wrong(well) == {}


@pytest.mark.invariant("I-67")
@pytest.mark.parametrize("name", list(CAUSES))
async def test_an_alarm_for_each_cause(well: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    check, state, cause = CAUSES[name]
    if check == "disk" and well.dialect != "sqlite":
        state = None  # the disk of PostgreSQL is its operator's (I-25)
    await cause(well, monkeypatch)
    assert (await wrong(well)).get(check) == state


async def test_every_check_has_a_cause(well: World) -> None:
    families = {check.name.partition(".")[0] for check in await health.checks(well.inst)}
    caused = {check.partition(".")[0] for check, _, _ in CAUSES.values()}
    assert families <= caused
    assert {"compromised", "frozen", "halted"} <= caused  # they are there only while they are wrong


async def test_an_alarm_ends_with_its_cause(well: World) -> None:
    authority = well.inst.authorities[ISSUING]
    _break_key(well)
    assert await refused(well.issue()) == "RW-KEY-UNAVAILABLE"
    well.inst.authorities[ISSUING] = authority
    await settle(well.inst)
    assert await wrong(well) == {"signs.issuing": "error"}
    well.clock.move(timedelta(minutes=16))
    assert "signs.issuing" not in await wrong(well)


async def test_a_setting_that_loses_commits(well: World) -> None:
    found = await vitals.measure(well.inst)
    lax = dataclasses.replace(found, durable=dict.fromkeys(vitals.DURABLE, "off"))
    (check,) = [one for one in health.judge(well.inst, lax) if one.name == "store"]
    assert check.state == "error"


async def test_scrapes_share_one_read(well: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    async def counting(inst: Any) -> Any:
        reads.append(inst)
        return await vitals.measure(inst)

    monkeypatch.setattr(gauges_module, "measure", counting)
    now = [0.0]
    gauges = Gauges(well.inst, monotonic=lambda: now[0])
    await asyncio.gather(*(gauges.refresh() for _ in range(20)))
    assert len(reads) == 1
    now[0] = gauges_module.FRESH_SECONDS
    await gauges.refresh()
    assert len(reads) == 2


async def test_a_store_that_is_away_is_a_number_too(well: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await Gauges(well.inst).refresh()
    assert "rootward_store_up 1.0" in generate_latest(telemetry.METRICS).decode()
    await a_store_that_is_away(well, monkeypatch)
    await Gauges(well.inst).refresh()
    assert "rootward_store_up 0.0" in generate_latest(telemetry.METRICS).decode()


async def test_a_fact_is_not_forgotten_by_a_second_process(well: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_draft_that_fails_its_lints(well, monkeypatch)
    found = await well.inst.db.read(lambda conn: facts.get(conn, "lint.failed"))
    assert found is not None
    assert found.at == well.clock()
    assert [event.kind for event in await well.events("lint.failed")] == ["lint.failed"]


def _break_key(lab: World) -> None:
    authority = lab.inst.authorities[ISSUING]
    key = Key(ec.generate_private_key(ec.SECP256R1()), label=ISSUING, max_message=1)
    lab.inst.authorities[ISSUING] = dataclasses.replace(authority, key=key)


async def _work(lab: World, worker: Worker, done: Callable[[], Awaitable[bool]]) -> None:
    """Lets the worker work until something has happened."""
    worker.start()
    try:
        async with asyncio.timeout(20):
            while not await done():  # noqa: ASYNC110  # what is waited for is a row of the store
                await asyncio.sleep(0.02)
    finally:
        await worker.stop(5)


async def _failed(lab: World) -> bool:
    rows = await lab.inst.db.read(jobs.list)
    return any(row.failure is not None for row in rows)
