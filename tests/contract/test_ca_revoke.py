"""Revoking, holding and releasing on both stores: final is final, seen at once, and done by whoever may."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from rootward.ca import revoke as revoking
from rootward.ca.access import Caller
from rootward.ca.publish import publish, publish_due
from rootward.ca.revoke import release, revoke, revoke_by_key, revoke_by_serial
from rootward.core.crl import parse_crl
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.core.roles import Grant, Role
from rootward.store import blocked, certificates
from rootward.store.certificates import Certificate
from rootward.store.failpoint import armed
from tests.support import store
from tests.support.world import APPROVER, ISSUING, OFFICER, REQUESTER, World, new_key, refused

Reason = RevocationReason
HOLD = Reason.CERTIFICATE_HOLD
FINAL = [reason for reason in Reason if reason not in (HOLD, Reason.REMOVE_FROM_CRL)]


async def listed(lab: World) -> dict[bytes, str]:
    """Serial and reason of every entry of a CRL made now."""
    crl = await publish(lab.inst, lab.inst.authority(ISSUING))
    return {entry.serial: entry.reason.value for entry in parse_crl(crl.der)}


@pytest.mark.invariant("I-15", "I-16", "I-24", "I-56")
async def test_every_reason_and_its_way_into_crl_and_ocsp(lab: World) -> None:
    rows = {reason: await lab.issue(f"r{number}.internal") for number, reason in enumerate(FINAL)}
    for reason, row in rows.items():
        assert await lab.status(row.serial) == Good()
        done = await revoke(lab.inst, row.id, reason, lab.admin)
        assert (done.reason, done.revoked_at, done.status(lab.clock())) == (reason.value, lab.clock(), "revoked")
        assert await lab.status(row.serial) == Revoked(lab.clock(), reason)
        (event,) = await lab.events("certificate.revoked", certificate=row.id)
        assert (event.actor, event.authority, event.request_id) == (lab.admin.principal.id, ISSUING, "req_admin")
        assert event.values() == {"serial": row.serial.hex(), "reason": reason.value}
    assert await listed(lab) == {row.serial: reason.value for reason, row in rows.items()}


@pytest.mark.invariant("I-16")
async def test_revoked_is_final(lab: World) -> None:
    row = await lab.issue()
    first = await revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin)
    lab.clock.move(timedelta(hours=1))
    assert await revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin) == first  # again: nothing changes
    for other in (Reason.UNSPECIFIED, Reason.KEY_COMPROMISE, HOLD):
        assert await refused(revoke(lab.inst, row.id, other, lab.admin)) == "RW-ALREADY-REVOKED"
    assert await refused(release(lab.inst, row.id, lab.admin)) == "RW-NOT-HELD"
    assert await lab.row(row.id) == first
    assert (await lab.counts())["certificate.revoked"] == 1


@pytest.mark.invariant("I-16", "I-30")
async def test_hold_release_hold_revoke(lab: World) -> None:
    row = await lab.issue()
    assert await refused(release(lab.inst, row.id, lab.admin)) == "RW-NOT-HELD"
    steps: list[tuple[str, Any]] = [
        ("hold", HOLD),
        ("release", None),
        ("hold", HOLD),
        ("again", HOLD),
        ("end", Reason.SUPERSEDED),
    ]
    for title, reason in steps:
        lab.clock.move(timedelta(seconds=30))
        if reason is None:
            done = await release(lab.inst, row.id, lab.admin)
            assert (done.revoked_at, done.reason, done.status(lab.clock())) == (None, None, "active")
            assert await lab.status(row.serial) == Good()
            assert await listed(lab) == {}
            continue
        done = await revoke(lab.inst, row.id, reason, lab.admin)
        since = lab.clock() - timedelta(seconds=30) if title == "again" else lab.clock()
        assert (done.revoked_at, done.reason) == (since, reason.value)
        assert await lab.status(row.serial) == Revoked(since, reason)
        assert await listed(lab) == {row.serial: reason.value}
    assert await refused(release(lab.inst, row.id, lab.admin)) == "RW-NOT-HELD"
    counted = await lab.counts()
    assert [counted[f"certificate.{what}"] for what in ("held", "released", "revoked")] == [2, 1, 1]


async def test_a_key_is_blocked_by_its_compromise_alone(lab: World) -> None:
    for reason in [*FINAL, HOLD]:
        row = await lab.issue()
        await revoke(lab.inst, row.id, reason, lab.admin)
        known = await lab.inst.db.read(lambda conn, id=row.key_id: blocked.contains(conn, id))
        assert known is (reason is Reason.KEY_COMPROMISE)
    held = await lab.issue()
    await revoke(lab.inst, held.id, HOLD, lab.admin)
    await revoke(lab.inst, held.id, Reason.KEY_COMPROMISE, lab.admin)
    assert await lab.inst.db.read(lambda conn: blocked.contains(conn, held.key_id))


@pytest.mark.invariant("I-43")
async def test_who_may(lab: World) -> None:
    mia = await lab.person("mia", REQUESTER)
    may: dict[str, list[Grant]] = {
        "officer": [OFFICER],
        "here": [Grant(Role.OFFICER, ISSUING)],
    }
    may_not = {
        "nobody": [],
        "requester": [REQUESTER],
        "elsewhere": [Grant(Role.OFFICER, "root")],
        "profile": [Grant(Role.OFFICER, ISSUING, "server")],
        "rest": [Grant(role) for role in Role if role not in (Role.OFFICER, Role.SYSTEM_ADMIN)],
        "approver": [APPROVER],
    }
    row = await lab.issue(caller=mia)
    for name, grants in may_not.items():
        caller = await lab.person(name, *grants)
        for reason in (Reason.SUPERSEDED, HOLD):
            assert await refused(revoke(lab.inst, row.id, reason, caller)) == "RW-FORBIDDEN", name
        assert await refused(revoke_by_serial(lab.inst, ISSUING, row.serial, HOLD, caller)) == "RW-FORBIDDEN"
        assert await refused(revoke_by_key(lab.inst, row.key_id, HOLD, caller)) == "RW-FORBIDDEN"
    for name, grants in may.items():
        caller = await lab.person(name, *grants)
        assert (await revoke(lab.inst, row.id, HOLD, caller)).reason == HOLD
        assert (await release(lab.inst, row.id, caller)).reason is None


async def test_the_asker_may_revoke_and_hold_but_not_release(lab: World) -> None:
    mia = await lab.person("mia", Grant(Role.REQUESTER, ISSUING, "server"))
    row = await lab.issue(caller=mia)
    assert (await revoke(lab.inst, row.id, HOLD, mia)).reason == HOLD
    assert await refused(release(lab.inst, row.id, mia)) == "RW-FORBIDDEN"
    assert (await revoke(lab.inst, row.id, Reason.CESSATION_OF_OPERATION, mia)).reason == "cessationOfOperation"
    other = await lab.issue("b.internal", caller=mia)
    gone = Caller(type(mia.principal)(mia.principal.id, "person", "mia", ()), "req_gone")
    assert await refused(revoke(lab.inst, other.id, HOLD, gone)) == "RW-FORBIDDEN"


async def test_what_is_not_there_or_not_ours_to_revoke(lab: World) -> None:
    for id in ("", "x", "' OR 1=1 --", "0" * 36):
        assert await refused(revoke(lab.inst, id, HOLD, lab.admin)) == "RW-NOT-FOUND"
        assert await refused(release(lab.inst, id, lab.admin)) == "RW-NOT-FOUND"
    root, issuing = [row for row in await lab.rows() if row.authority == "root"]
    for row in (root, issuing):  # signed by the root, whose CRL comes from a ceremony
        assert await refused(revoke(lab.inst, row.id, Reason.CA_COMPROMISE, lab.admin)) == "RW-CONFLICT"
        assert await refused(revoke_by_serial(lab.inst, "root", row.serial, HOLD, lab.admin)) == "RW-CONFLICT"
        assert await refused(revoke_by_key(lab.inst, row.key_id, HOLD, lab.admin)) == "RW-CONFLICT"


async def test_by_serial(lab: World) -> None:
    row, other = await lab.issue(), await lab.issue("b.internal")
    for authority, serial in ((ISSUING, b"\x01"), (ISSUING, b""), (ISSUING, other.serial[:-1]), ("root", row.serial)):
        call = revoke_by_serial(lab.inst, authority, serial, Reason.SUPERSEDED, lab.admin)
        assert await refused(call) == "RW-NOT-FOUND"
    assert await refused(revoke_by_serial(lab.inst, "none", row.serial, HOLD, lab.admin)) == "RW-NOT-FOUND"
    (done,) = await revoke_by_serial(lab.inst, ISSUING, row.serial, Reason.SUPERSEDED, lab.admin)
    assert (done.id, done.reason) == (row.id, "superseded")
    assert (await revoke_by_serial(lab.inst, ISSUING, row.serial, Reason.SUPERSEDED, lab.admin)) == [done]
    again = revoke_by_serial(lab.inst, ISSUING, row.serial, Reason.UNSPECIFIED, lab.admin)
    assert await refused(again) == "RW-ALREADY-REVOKED"
    assert (await lab.row(other.id)).revoked_at is None


@pytest.mark.invariant("I-26")
async def test_by_key_is_every_certificate_of_it(lab: World) -> None:
    key, mia = new_key(), await lab.person("mia", REQUESTER)
    rows = [await lab.issue(f"n{number}.internal", key=key, caller=mia) for number in range(4)]
    other = await lab.issue("other.internal", caller=mia)
    assert await refused(revoke_by_key(lab.inst, "0" * 64, HOLD, lab.admin)) == "RW-NOT-FOUND"
    await revoke(lab.inst, rows[0].id, Reason.SUPERSEDED, lab.admin)
    await revoke(lab.inst, rows[1].id, HOLD, lab.admin)
    done = await revoke_by_key(lab.inst, rows[0].key_id, Reason.KEY_COMPROMISE, mia)
    # What was revoked for good before stays as it is, and keeps none of the others alive.
    assert [row.reason for row in done] == ["superseded", *["keyCompromise"] * 3]
    assert {row.id for row in done} == {row.id for row in rows}
    assert (await lab.row(other.id)).revoked_at is None
    assert await lab.inst.db.read(lambda conn: blocked.contains(conn, rows[0].key_id))
    assert len(await listed(lab)) == 4


@pytest.mark.invariant("I-26")
async def test_by_key_goes_on_where_it_was_cut_off(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoking, "BATCH", 3)
    key, mia = new_key(), await lab.person("mia", REQUESTER)
    rows = [await lab.issue(f"n{number}.internal", key=key, caller=mia) for number in range(10)]
    before = len(await lab.events())
    with armed("store.write.before-commit:fail:3"), pytest.raises(Problem):
        await revoke_by_key(lab.inst, rows[0].key_id, Reason.SUPERSEDED, lab.admin)
    revoked = [row.id for row in rows if (await lab.row(row.id)).revoked_at is not None]
    assert len(revoked) == 6
    done = await revoke_by_key(lab.inst, rows[0].key_id, Reason.SUPERSEDED, lab.admin)
    assert {row.id for row in done} == {row.id for row in rows}
    told = [event.certificate for event in (await lab.events())[before:]]
    assert sorted(told) == sorted(row.id for row in rows)  # each once
    again = await revoke_by_key(lab.inst, rows[0].key_id, Reason.SUPERSEDED, lab.admin)
    assert len(again) == 10


@pytest.mark.invariant("I-26")
async def test_by_key_is_every_certificate_of_it_however_many(lab: World) -> None:
    """More than a page of anything; put into the store directly, because issuing them takes too long."""
    first = await lab.issue()
    count = 1500

    def fill(conn: Connection) -> None:
        row = certificates.by_id(conn, first.id)
        assert row is not None
        for number in range(count):
            copied = store.intent(
                id=f"copy-{number}", issuer=row.issuer, key_id=row.key_id, lease="x", requester="nobody"
            )
            certificates.intend(copied).run(conn)
            store.complete(copied["id"], "x").run(conn)

    await lab.inst.db.write(fill)
    done = await revoke_by_key(lab.inst, first.key_id, Reason.SUPERSEDED, lab.admin)
    assert len(done) == count + 1
    assert all(row.reason == "superseded" for row in done)


async def test_by_key_is_all_or_nothing_where_rights_are_missing(lab: World) -> None:
    await lab.profile("shared", key_reuse="any")
    key = new_key()
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", REQUESTER)
    rows = [await lab.issue(profile="shared", key=key, caller=caller) for caller in (mia, bob)]
    assert await refused(revoke_by_key(lab.inst, rows[0].key_id, Reason.KEY_COMPROMISE, mia)) == "RW-FORBIDDEN"
    assert [(await lab.row(row.id)).revoked_at for row in rows] == [None, None]
    assert len(await revoke_by_key(lab.inst, rows[0].key_id, Reason.KEY_COMPROMISE, lab.admin)) == 2


async def _either(call: Any) -> Certificate | str:
    try:
        made: Certificate = await call
    except Problem as problem:
        return problem.code
    return made


@pytest.mark.invariant("I-16")
async def test_many_revocations_at_once_are_one(lab: World) -> None:
    for number in range(4):
        row = await lab.issue(f"n{number}.internal")
        done = await asyncio.gather(*(revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin) for _ in range(8)))
        assert {one.reason for one in done} == {"superseded"}
        assert len(await lab.events("certificate.revoked", certificate=row.id)) == 1
        row = await lab.issue(f"m{number}.internal")
        reasons = [Reason.SUPERSEDED, Reason.UNSPECIFIED, Reason.AFFILIATION_CHANGED] * 2
        told = await asyncio.gather(*(_either(revoke(lab.inst, row.id, reason, lab.admin)) for reason in reasons))
        final = await lab.row(row.id)
        won = [one for one in told if isinstance(one, Certificate)]
        assert {one.reason for one in won} == {final.reason}
        assert {one for one in told if isinstance(one, str)} == {"RW-ALREADY-REVOKED"}
        assert len(await lab.events("certificate.revoked", certificate=row.id)) == 1


@pytest.mark.invariant("I-16")
async def test_release_and_revocation_at_once_end_in_one_of_both(lab: World) -> None:
    for number in range(4):
        row = await lab.issue(f"n{number}.internal")
        await revoke(lab.inst, row.id, HOLD, lab.admin)
        calls = [release(lab.inst, row.id, lab.admin), revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin)]
        released, revoked = await asyncio.gather(*(_either(call) for call in calls))
        final = await lab.row(row.id)
        assert isinstance(revoked, Certificate)  # from hold or from released: it is revoked
        assert final.reason == "superseded"
        assert isinstance(released, Certificate) or released == "RW-NOT-HELD"


@pytest.mark.invariant("I-15")
async def test_a_revocation_makes_the_next_crl_due(lab: World) -> None:
    assert await publish_due(lab.inst) == 1
    assert await publish_due(lab.inst) == 0
    row = await lab.issue()
    assert await publish_due(lab.inst) == 0
    for step in ("hold", "release", "end"):
        lab.clock.move(timedelta(seconds=1))  # two CRLs never share a second
        if step == "release":
            await release(lab.inst, row.id, lab.admin)
        else:
            await revoke(lab.inst, row.id, HOLD if step == "hold" else Reason.SUPERSEDED, lab.admin)
        assert await publish_due(lab.inst) == 1
        assert await publish_due(lab.inst) == 0
