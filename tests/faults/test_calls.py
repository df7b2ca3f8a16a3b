"""Each write to the store, by scene and in its order, once failing without an effect and once although it took effect
(the answer to the COMMIT was lost). Whoever asked is told to come again, the books agree at every moment, and asking
again ends where it should.

A scene prepares something of its own, then acts; its writes are counted in a run where nothing fails. The kill loop
does the same with eight clients at work, to each call that those get to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import (
    acts,
    audit,
    authorities,
    clock,
    compromise,
    cross,
    ending,
    freeze,
    people,
    profiles,
    proposals,
    succession,
    trouble,
)
from rootward.ca.adopt import Arriving, adopt
from rootward.ca.approve import approve, deny
from rootward.ca.founding import first_profiles
from rootward.ca.issue import Pending
from rootward.ca.publish import publish
from rootward.ca.reconcile import reconcile
from rootward.ca.revoke import release, revoke, revoke_by_serial
from rootward.ca.sequence import note_head, settle
from rootward.core.authority import AuthoritySpec
from rootward.core.problems import Problem, Reason
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Role
from rootward.fleet import blocklist
from rootward.fleet.calendar import remind
from rootward.fleet.imports import import_certificates
from rootward.fleet.replacement import recount
from rootward.keys.incoming import Incoming
from rootward.store import authorities as authority_rows
from rootward.store import db, facts, failpoint, jobs
from rootward.store import succession as later
from rootward.store.failpoint import Injected, armed
from rootward.store.proposals import Proposal
from rootward.worker import JOBS, Worker
from tests.faults.loop.calls import CALLS, ELSEWHERE, SOURCE, calls
from tests.faults.scenes import attempt, park, wish
from tests.support.authority import Authority
from tests.support.crossing import crossed
from tests.support.faults import AUTHORITY, Home, Open, books, opened
from tests.support.second import add_recorded, add_second

Act = Callable[[], Awaitable[object]]
Scene = Callable[[Open, Home], Awaitable[Act]]
# What somebody is told whose first try took effect after all.
DONE_BEFORE = {"RW-APPROVAL", "RW-NOT-HELD", "RW-CONFLICT", "RW-NOT-FOUND"}
NEVER = 1_000_000
YEAR = timedelta(days=365)


async def issued(made: Open) -> str:
    done = await attempt(made, wish())
    assert not isinstance(done, Pending)
    return done.certificate.id


async def issuing(made: Open, _home: Home) -> Act:
    wanted = wish("keyed")
    return lambda: attempt(made, wanted)


async def parking(made: Open, _home: Home) -> Act:
    wanted = wish("approved")
    return lambda: attempt(made, wanted)


async def parking_again(made: Open, _home: Home) -> Act:
    wanted = wish("named")
    await attempt(made, wanted)
    other = type(wanted)(wanted.kind, wanted.csr, wanted.key + "-2")
    return lambda: attempt(made, other)


async def approving(made: Open, _home: Home) -> Act:
    wanted = wish("approved")
    request = await park(made, wanted)
    assert request is not None

    return lambda: approve(made.inst, request, None, made.admin)


async def denying(made: Open, _home: Home) -> Act:
    request = await park(made, wish("approved"))
    assert request is not None
    return lambda: deny(made.inst, request, None, made.admin)


async def using_a_yes(made: Open, _home: Home) -> Act:
    wanted = wish("named")
    parked = await attempt(made, wanted)
    assert isinstance(parked, Pending)
    await approve(made.inst, parked.request.id, None, made.admin)
    return lambda: attempt(made, wanted)


async def revoking(made: Open, _home: Home) -> Act:
    id = await issued(made)
    return lambda: revoke(made.inst, id, RevocationReason.KEY_COMPROMISE, made.admin)


async def revoking_by_serial(made: Open, _home: Home) -> Act:
    done = await attempt(made, wish())
    assert not isinstance(done, Pending)
    serial = done.certificate.serial
    return lambda: revoke_by_serial(made.inst, AUTHORITY, serial, RevocationReason.SUPERSEDED, made.admin)


async def holding(made: Open, _home: Home) -> Act:
    id = await issued(made)
    return lambda: revoke(made.inst, id, RevocationReason.CERTIFICATE_HOLD, made.admin)


async def releasing(made: Open, _home: Home) -> Act:
    id = await issued(made)
    await revoke(made.inst, id, RevocationReason.CERTIFICATE_HOLD, made.admin)
    return lambda: release(made.inst, id, made.admin)


async def publishing(made: Open, _home: Home) -> Act:
    return lambda: publish(made.inst, made.inst.authority(AUTHORITY))


async def publishing_before_the_start(made: Open, _home: Home) -> Act:
    worker = Worker(made.inst, shared={"publish": JOBS["publish"]})

    async def never() -> bool:
        return False

    async def act() -> None:
        await made.inst.db.write(lambda conn: jobs.break_leases(but="nobody", now=db.clock(conn)).run(conn))
        await worker.begin("publish", never)

    return act


async def reconciling(made: Open, _home: Home) -> Act:
    with armed("issue.signed:fail"), suppress(Injected):
        await attempt(made, wish())
    return lambda: reconcile(made.inst)


async def renewing_responders(made: Open, home: Home) -> Act:
    for path in (home.folder / "keys").glob(f"ocsp-{AUTHORITY}-*.key"):
        path.unlink()
    return made.responder.renew


async def adding_people(made: Open, _home: Home) -> Act:
    name = f"p-{os.urandom(6).hex()}"
    return lambda: people.create_person(made.inst, name, made.admin)


async def granting(made: Open, _home: Home) -> Act:
    person = await people.create_person(made.inst, f"p-{os.urandom(6).hex()}", made.admin)
    how = {"principal_id": person.id, "role": Role.AUDITOR, "authority": None, "profile": None}
    return lambda: people.create_grant(made.inst, caller=made.admin, **how)


async def making_tokens(made: Open, _home: Home) -> Act:
    me = made.admin.principal.id
    hour = timedelta(hours=1)
    return lambda: people.create_token(
        made.inst, principal_id=me, label="t", lifetime=hour, scopes=None, caller=made.admin
    )


async def disabling(made: Open, _home: Home) -> Act:
    person = await people.create_person(made.inst, f"p-{os.urandom(6).hex()}", made.admin)
    return lambda: people.disable_person(made.inst, person.id, made.admin)


async def making_profiles(made: Open, _home: Home) -> Act:
    profile = msgspec.structs.replace(first_profiles(AUTHORITY)[0], name=f"p-{os.urandom(6).hex()}")
    return lambda: profiles.create(made.inst, profile, made.admin)


async def retiring_profiles(made: Open, _home: Home) -> Act:
    profile = msgspec.structs.replace(first_profiles(AUTHORITY)[0], name=f"p-{os.urandom(6).hex()}")
    await profiles.create(made.inst, profile, made.admin)
    return lambda: profiles.retire(made.inst, profile.name, made.admin)


async def blocking_keys(made: Open, _home: Home) -> Act:
    key = os.urandom(32).hex()
    return lambda: blocklist.add(made.inst, [(key, "known")], made.admin)


async def importing(made: Open, _home: Home) -> Act:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, os.urandom(6).hex())])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + YEAR)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    return lambda: import_certificates(made.inst, lambda: der, password=None, owner=None, labels={}, caller=made.admin)


async def filling(made: Open, _home: Home) -> Act:
    """The certificate of a serial that a CA's list had when that came."""
    name = f"old-{os.urandom(6).hex()}"
    root = Authority(f"Root of {name}")
    old = Authority(name, root, path_length=0)
    chain, parents = (old.certificate, root.certificate), (f"root-{name}",)
    came = Arriving(name, chain, key=Incoming(old.key, ()), parents=parents, crl=old.crl(4711))
    await adopt(made.inst, came, made.admin)
    der = old.leaf("b.internal", serial=4711).public_bytes(Encoding.DER)
    return lambda: import_certificates(made.inst, lambda: der, password=None, owner=None, labels={}, caller=made.admin)


async def freezing(made: Open, _home: Home) -> Act:
    await freeze.unfreeze_by(made.inst, AUTHORITY, None, made.admin)
    return lambda: freeze.freeze_by(made.inst, AUTHORITY, "a drill", made.admin)


async def unfreezing(made: Open, _home: Home) -> Act:
    await freeze.freeze_by(made.inst, AUTHORITY, "a drill", made.admin)
    return lambda: freeze.unfreeze_by(made.inst, AUTHORITY, None, made.admin)


async def crossing(made: Open, _home: Home) -> Act:
    pem = crossed(made.inst, Authority(f"Root {os.urandom(6).hex()}")).public_bytes(Encoding.PEM)
    return lambda: cross.add(made.inst, AUTHORITY, pem, made.admin)


async def uncrossing(made: Open, _home: Home) -> Act:
    pem = crossed(made.inst, Authority(f"Root {os.urandom(6).hex()}")).public_bytes(Encoding.PEM)
    added = await cross.add(made.inst, AUTHORITY, pem, made.admin)
    return lambda: cross.remove(made.inst, AUTHORITY, added.sha256, made.admin)


async def sequencing(made: Open, _home: Home) -> Act:
    await issued(made)
    return lambda: settle(made.inst)


async def saying_the_head(made: Open, _home: Home) -> Act:
    await issued(made)
    await settle(made.inst)
    return lambda: note_head(made.inst)


async def exporting(made: Open, _home: Home) -> Act:
    return lambda: audit.begin_export(made.inst, made.admin)


async def noting_the_clock(made: Open, _home: Home) -> Act:
    return lambda: clock.note_clock(made.inst)


async def accepting_the_clock(made: Open, _home: Home) -> Act:
    return lambda: clock.accept_clock(made.inst)


async def telling_of_lints(made: Open, _home: Home) -> Act:
    why = [Reason("RW-LINT", "a test", None)]
    return lambda: trouble.lint_failed(made.inst, "crl", why, made.admin, authority=AUTHORITY)


async def second(made: Open) -> str:
    """The name of a new authority, from which one profile issues."""
    name = f"ca-{os.urandom(6).hex()}"
    await add_second(made.inst, name, root=f"root-{name}")
    profile = msgspec.structs.replace(first_profiles(AUTHORITY)[0], name=f"p-{name}", authority=name)
    await profiles.create(made.inst, profile, made.admin)
    return name


async def proposing(made: Open, _home: Home) -> Act:
    body = {"successor": os.urandom(6).hex()}
    return lambda: proposals.propose(made.inst, succession.SUCCEED, AUTHORITY, body, made.admin)


async def refusing_a_proposal(made: Open, _home: Home) -> Act:
    body = {"successor": os.urandom(6).hex()}
    proposed = await proposals.propose(made.inst, succession.SUCCEED, AUTHORITY, body, made.admin)
    return lambda: proposals.deny(made.inst, proposed.id, None, made.admin)


async def agreeing_to_nothing(made: Open, _home: Home) -> Act:
    """What was proposed cannot be done any more."""
    body = {"successor": os.urandom(6).hex()}
    proposed = await proposals.propose(made.inst, succession.SUCCEED, AUTHORITY, body, made.admin)

    async def act() -> None:
        try:
            await acts.approve(made.inst, proposed.id, None, made.admin)
        except Problem as problem:
            if problem.code not in ("RW-NOT-FOUND", "RW-APPROVAL"):
                raise

    return act


async def compromising(made: Open, _home: Home) -> Act:
    old, new = await second(made), await second(made)
    proposed = await compromise.propose(made.inst, old, new, "stolen", None, made.admin)
    return lambda: acts.approve(made.inst, proposed.id, None, made.admin)


async def taking_over_later(made: Open, _home: Home) -> Act:
    old = await second(made)
    proposed = await compromise.propose(made.inst, old, None, "stolen", None, made.admin)
    await acts.approve(made.inst, proposed.id, None, made.admin)
    await made.inst.db.write(later.follow(old, await second(made)))
    return lambda: succession.settle(made.inst)


async def counting_what_is_not_replaced(made: Open, _home: Home) -> Act:
    """There was one, and it was the last."""
    old = await second(made)
    proposed = await compromise.propose(made.inst, old, None, "stolen", None, made.admin)
    await acts.approve(made.inst, proposed.id, None, made.admin)
    await made.inst.db.write(facts.put(f"authority.unreplaced:{old}", at=made.inst.clock(), data="1"))
    return lambda: recount(made.inst)


def below() -> AuthoritySpec:
    name = f"b{os.urandom(6).hex()}"
    return AuthoritySpec(name=name, kind="issuing", common_name=f"Test {name}", lifetime="1y")


async def asking_for_an_authority(made: Open, _home: Home) -> Act:
    spec = below()
    return lambda: authorities.create(made.inst, spec, "root", made.inst.keys.name, made.admin)


async def giving_an_authority_up(made: Open, _home: Home) -> Act:
    name = (await authorities.create(made.inst, below(), "root", made.inst.keys.name, made.admin)).name
    return lambda: authorities.withdraw(made.inst, name, made.admin)


async def revoking_an_authority(made: Open, _home: Home) -> Act:
    name = f"ca-{os.urandom(6).hex()}"
    await add_recorded(made.inst, name, root=f"root-{name}")
    proposed = await ending.propose(made.inst, name, RevocationReason.SUPERSEDED, made.admin)
    assert isinstance(proposed, Proposal)
    return lambda: acts.approve(made.inst, proposed.id, None, made.admin)


async def asking_for_a_crl(made: Open, _home: Home) -> Act:
    parent = ending.parent_of(made.inst, made.inst.authority(await second(made)))
    assert parent is not None
    return lambda: ending.crl_request(made.inst, parent.name, made.admin)


async def asking_for_a_cross_certificate(made: Open, _home: Home) -> Act:
    name = await second(made)
    return lambda: cross.ask(made.inst, name, "root", made.admin)


async def asking_no_more(made: Open, _home: Home) -> Act:
    name = await second(made)
    await cross.ask(made.inst, name, "root", made.admin)
    return lambda: cross.withdraw(made.inst, name, "root", made.admin)


async def counting_down(made: Open, _home: Home) -> Act:
    """The root's CRL comes near its end, and nobody was told."""
    n = made.inst.authority("root").n
    head = await made.inst.db.read(lambda conn: authority_rows.crl_head(conn, n))
    assert head is not None
    near = head.next_update - timedelta(days=89)
    made.inst.clock = lambda: near
    await made.inst.db.write(facts.forget("due.root.crl"))
    return lambda: remind(made.inst)


SCENES: list[Scene] = [
    counting_down,
    asking_for_an_authority,
    giving_an_authority_up,
    revoking_an_authority,
    asking_for_a_crl,
    asking_for_a_cross_certificate,
    asking_no_more,
    proposing,
    refusing_a_proposal,
    agreeing_to_nothing,
    compromising,
    taking_over_later,
    counting_what_is_not_replaced,
    issuing,
    parking,
    parking_again,
    approving,
    denying,
    using_a_yes,
    revoking,
    revoking_by_serial,
    holding,
    releasing,
    publishing,
    publishing_before_the_start,
    reconciling,
    renewing_responders,
    adding_people,
    granting,
    making_tokens,
    disabling,
    making_profiles,
    retiring_profiles,
    blocking_keys,
    importing,
    filling,
    unfreezing,
    freezing,
    crossing,
    uncrossing,
    sequencing,
    saying_the_head,
    exporting,
    noting_the_clock,
    accepting_the_clock,
    telling_of_lints,
]


async def writes_of(made: Open, home: Home, scene: Scene) -> int:
    """How many COMMITs the scene's act makes where nothing fails."""
    act = await scene(made, home)
    with armed(f"store.write:fail_persisted:{NEVER}"):
        await act()
        return failpoint._traps["store.write.after-commit"].times


async def goes_through(made: Open, act: Act) -> None:
    """What the failure left open is closed, and asking again ends well."""
    await reconcile(made.inst)
    for _ in range(3):
        try:
            await act()
        except Problem as problem:
            if problem.code in DONE_BEFORE:
                return
            if problem.code != "RW-IN-PROGRESS":
                raise
        else:
            return
    raise AssertionError("it never ends")


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-56")
@pytest.mark.invariant("I-58")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_each_write_of_a_scene_fails_in_both_ways(home: Home, scene: Scene) -> None:
    async def main() -> None:
        async with opened(home) as made:
            for mode in ("fail", "fail_persisted"):
                count = await writes_of(made, home, scene)
                assert count > 0
                for number in range(1, count + 1):
                    act = await scene(made, home)
                    with armed(f"store.write:{mode}:{number}"):
                        with suppress(Problem):
                            await act()
                        (trap,) = [trap for trap in failpoint._traps.values() if trap.name.startswith("store.write")]
                        assert trap.times >= number, "the write was not made"
                    await reconcile(made.inst)
                    await books(made.inst)
                    await goes_through(made, act)
                    await books(made.inst)
            if scene in (freezing, unfreezing):
                await freeze.unfreeze_by(made.inst, AUTHORITY, None, made.admin)

    asyncio.run(main())


def test_every_call_of_the_store_is_in_the_loop_or_named_here() -> None:
    assert calls(SOURCE) >= ELSEWHERE
    assert calls(SOURCE) == CALLS | ELSEWHERE
