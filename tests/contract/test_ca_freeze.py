"""Freezing: what has returned is not followed by an intent, in whatever process; status goes on; who may."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from rootward.ca import freeze
from rootward.ca.access import Caller, Principal
from rootward.ca.issue import issue
from rootward.ca.publish import publish
from rootward.ca.revoke import revoke
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.core.roles import Grant, Role
from rootward.store import authorities, certificates
from rootward.store.errors import Constraint
from rootward.store.failpoint import Injected, armed
from tests.support.store import intent
from tests.support.world import ISSUING, OFFICER, REQUESTER, World, ask, issued, once, opened, refused

ADMIN = Grant(Role.ADMIN)
ISSUERS = 8
FAR = 2_000  # issuances of one issuer: more than a freeze ever lets through


async def issue_until_refused(of: World, began: Callable[[], None]) -> str:
    """Certificates, one after the other, until there is a refusal; its code."""
    for _ in range(FAR):
        try:
            await of.issue(f"n{secrets.token_hex(8)}.internal")
        except Problem as problem:
            return problem.code
        began()
    return "none"


async def freeze_under_load(worlds: list[World]) -> None:
    """Eight issuers over these processes; frozen by the last one once each has issued."""
    left = [3 * ISSUERS]
    busy = asyncio.Event()

    def began() -> None:
        left[0] -= 1
        if left[0] == 0:
            busy.set()

    issuers = [asyncio.create_task(issue_until_refused(worlds[n % len(worlds)], began)) for n in range(ISSUERS)]
    await busy.wait()
    await freeze.freeze_by(worlds[-1].inst, ISSUING, "a test", worlds[-1].admin)
    then = {row.id for row in await worlds[0].rows()}
    assert await asyncio.gather(*issuers) == ["RW-FROZEN"] * ISSUERS
    assert {row.id for row in await worlds[0].rows()} == then
    assert not [row for row in await worlds[0].rows() if row.issued_at is None]  # what was intended came to its end


@pytest.mark.invariant("I-02")
async def test_no_intent_follows_a_freeze_among_eight_issuers(lab: World) -> None:
    await freeze_under_load([lab])


@pytest.mark.invariant("I-02")
def test_no_intent_follows_a_freeze_by_another_replica(postgres_lab: World) -> None:
    with opened(postgres_lab.url, postgres_lab.inst.keys, postgres_lab.token) as other:
        asyncio.run(freeze_under_load([postgres_lab, other]))
        assert postgres_lab.inst.authority(ISSUING).frozen_at is None  # it was never told, and did not need to be


async def test_what_was_frozen_between_the_look_and_the_intent_says_so(lab: World) -> None:
    """The statement itself sees it; a key that was claimed with it is free again."""
    standing = await lab.inst.db.look(lambda conn: authorities.frozen(conn, ISSUING))
    wanted = ask()
    original = lab.inst.new_serial

    def frozen_just_now() -> object:
        lab.inst.db.write_sync(authorities.freeze(ISSUING, at=lab.clock()))
        return original()

    assert not standing
    lab.inst.new_serial = frozen_just_now  # type: ignore[method-assign,assignment]  # the last thing before the intent
    assert await refused(issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted))) == "RW-FROZEN"
    lab.inst.new_serial = original  # type: ignore[method-assign]  # as it was
    assert not [event for event in await lab.events("issue.intended") if event.certificate is None]
    await freeze.unfreeze_by(lab.inst, ISSUING, None, lab.admin)
    issued(await issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted)))


async def until_lock(of: World, *, granted: bool) -> None:
    """Until somebody has, or waits for, the lock that an intent and a freeze take."""
    found = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = :granted")
    for _ in range(2_000):
        if await of.inst.db.read(lambda conn: conn.execute(found, {"granted": granted}).scalar_one()):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("nobody came")


def held(work: Callable[[Connection], None], go: threading.Event) -> Callable[[Connection], None]:
    """`work` in a transaction that stays open until `go`."""

    def transaction(conn: Connection) -> None:
        work(conn)
        assert go.wait(30)

    return transaction


async def test_a_freeze_waits_for_an_intent_that_is_being_written(postgres_lab: World) -> None:
    lab, go = postgres_lab, threading.Event()
    values = intent(lab.inst.db.lease)
    first = asyncio.create_task(lab.inst.db.write(held(certificates.intend_while_open(values).run, go)))
    await until_lock(lab, granted=True)
    second = asyncio.create_task(freeze.freeze(lab.inst, ISSUING, "a test", lab.admin))
    await until_lock(lab, granted=False)
    assert not second.done()
    go.set()
    await asyncio.gather(first, second)
    assert await lab.row(values["id"])


async def test_an_intent_that_began_before_a_freeze_committed_is_refused(postgres_lab: World) -> None:
    """Its statement's snapshot is older than the freeze, and must not decide."""
    lab, go = postgres_lab, threading.Event()

    def apply(conn: Connection) -> None:
        authorities.wait_for_intents(conn, ISSUING)
        authorities.freeze(ISSUING, at=lab.clock()).run(conn)

    first = asyncio.create_task(lab.inst.db.write(held(apply, go)))
    await until_lock(lab, granted=True)
    values = intent(lab.inst.db.lease)
    second = asyncio.create_task(lab.inst.db.write(certificates.intend_while_open(values)))
    await until_lock(lab, granted=False)
    go.set()
    await first
    with pytest.raises(Constraint):
        await second


async def test_a_group_of_intents_with_one_that_is_frozen(lab: World) -> None:
    """Only that one is refused, wherever they are written together."""
    good = [certificates.intend_while_open(intent(lab.inst.db.lease)) for _ in range(8)]
    bad = certificates.intend_while_open(intent(lab.inst.db.lease, authority="nobody"))
    answers = certificates.intend_while_open(intent(lab.inst.db.lease, authority="nobody"), answers=True)
    done = await asyncio.gather(*(lab.inst.db.write(one) for one in [*good, bad, answers]), return_exceptions=True)
    assert [type(one) for one in done] == [type(None)] * 8 + [Constraint, type(None)]


@pytest.mark.invariant("I-25")
async def test_status_goes_on_for_longer_than_a_responder_lives(lab: World) -> None:
    row = await lab.issue()
    assert (await freeze.freeze_by(lab.inst, ISSUING, "a test", lab.admin)).state == "frozen"
    for _ in range(3):
        lab.clock.move(timedelta(hours=30))
        await lab.responder.renew()
        assert await lab.status(row.serial) == Good()
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    assert await lab.status(row.serial) == Revoked(lab.clock(), RevocationReason.SUPERSEDED)
    assert (await publish(lab.inst, lab.inst.authority(ISSUING))).entries == 1
    for name in lab.inst.own_profiles:
        if not name.startswith("ocsp:"):
            assert await refused(issue(lab.inst, ask(profile=name), lab.admin)) == "RW-PROFILE"
    assert {one.profile for one in await lab.rows() if one.intended_at > row.intended_at} == {"ocsp-responder"}


async def test_again_is_the_same_answer_and_no_second_event(lab: World) -> None:
    for _ in range(2):
        assert (await freeze.freeze_by(lab.inst, ISSUING, "why", lab.admin)).state == "frozen"
    for _ in range(2):
        assert (await freeze.unfreeze_by(lab.inst, ISSUING, None, lab.admin)).state == "active"
    told = [(event.kind, event.values(), event.authority) for event in await lab.events("authority.frozen")]
    assert told == [("authority.frozen", {"reason": "why"}, ISSUING)]
    assert [event.values() for event in await lab.events("authority.unfrozen")] == [{"reason": None}]
    await lab.issue()


async def test_officers_freeze_and_admins_unfreeze(lab: World) -> None:
    roles = {"officer": OFFICER, "admin": ADMIN, "requester": REQUESTER, "elsewhere": Grant(Role.OFFICER, "other")}
    who = {name: Caller(Principal(name, "person", name, (grant,)), "req_test") for name, grant in roles.items()}
    for name in ("requester", "elsewhere"):
        assert await refused(freeze.freeze_by(lab.inst, ISSUING, "no", who[name])) == "RW-FORBIDDEN"
    for name in ("officer", "admin"):
        await freeze.freeze_by(lab.inst, ISSUING, name, who[name])
        for other in ("requester", "elsewhere", "officer"):
            assert await refused(freeze.unfreeze_by(lab.inst, ISSUING, "no", who[other])) == "RW-FORBIDDEN"
        await freeze.unfreeze_by(lab.inst, ISSUING, "mended", who["admin"])
    assert await refused(freeze.freeze_by(lab.inst, "nobody", "no", lab.admin)) == "RW-NOT-FOUND"


async def test_unfrozen_by_another_process(lab: World) -> None:
    """Nobody goes on refusing by what it once knew."""
    await freeze.freeze_by(lab.inst, ISSUING, "a test", lab.admin)
    await lab.inst.db.write(authorities.thaw(ISSUING))
    await lab.issue()
    await freeze.look_again(lab.inst)
    assert lab.inst.authority(ISSUING).state == "active"


@pytest.mark.invariant("I-02")
async def test_it_stops_here_also_where_the_store_cannot_be_told(lab: World) -> None:
    with armed("store.write.before-commit:fail"), pytest.raises((Injected, Problem)):
        await freeze.freeze(lab.inst, ISSUING, "signed wrongly", lab.admin)
    assert not await lab.inst.db.read(lambda conn: authorities.frozen(conn, ISSUING))
    assert await refused(lab.issue()) == "RW-FROZEN"
    await freeze.unfreeze_by(lab.inst, ISSUING, "mended", lab.admin)
    await lab.issue()
