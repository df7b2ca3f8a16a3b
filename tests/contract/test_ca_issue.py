"""The road of an issuance, on both stores: what is written down, who is refused, and what asking again gives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509

from rootward.ca import freeze, profiles
from rootward.ca.access import Caller, Principal, system_caller
from rootward.ca.issue import Ask, Idempotency, issue
from rootward.ca.publish import publish
from rootward.ca.revoke import revoke
from rootward.core.capture import assemble
from rootward.core.crl import parse_crl
from rootward.core.csr import parse_csr
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.problems import Problem
from rootward.core.profile import Condition, DnsRules, Lifetime, NameRules, Profile
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, RevocationReason, Unknown
from rootward.core.roles import Grant, Role
from rootward.fleet import health
from rootward.keys import sign_tbs
from rootward.store import blocked
from rootward.store import profiles as profile_rows
from rootward.store.certificates import Certificate
from rootward.store.events import Event
from tests.support.world import ISSUING, OFFICER, REQUESTER, World, ask, issued, new_key, once, refused


def bare(row: Certificate) -> Certificate:
    """Without the place in the table, which whoever has just written a row does not know."""
    return msgspec.structs.replace(row, n=0)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


# ── What is written down ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-01", "I-02", "I-56")
async def test_an_issuance_is_a_row_and_two_events(lab: World) -> None:
    wanted = ask("a.internal", owner="ops", labels={"team": "x"}, lifetime=timedelta(days=7))
    outcome = await issue(lab.inst, wanted, lab.admin)
    row = issued(outcome)
    authority = lab.inst.authority(ISSUING)
    assert row == bare(await lab.row(row.id))
    assert (row.issuer, row.authority, row.profile, row.profile_version) == (authority.n, ISSUING, "server", 1)
    assert (row.owner, row.labels, row.requester) == ("ops", {"team": "x"}, lab.admin.principal.id)
    assert (row.names, row.request_id, row.key_id) == (("dns:a.internal",), "req_admin", wanted.csr.public_key.id)
    assert (row.intended_at, row.issued_at, row.failed_at, row.orphaned_at, row.revoked_at) == (
        lab.clock(),
        lab.clock(),
        None,
        None,
        None,
    )
    assert row.der is not None
    made = x509.load_der_x509_certificate(row.der)
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (row.not_before, row.not_after)
    assert row.not_after - row.not_before + timedelta(seconds=1) == timedelta(days=7)
    assert int.from_bytes(row.serial, "big") == made.serial_number
    assert row.der == assemble(row.tbs, row.algorithm, made.signature)
    intended, done = await lab.events(certificate=row.id)
    assert kinds([intended, done]) == ["issue.intended", "issue.done"]
    for event in (intended, done):
        assert (event.actor, event.authority, event.request_id) == (lab.admin.principal.id, ISSUING, "req_admin")
    assert intended.values()["serial"] == row.serial.hex()
    assert (intended.values()["version"], intended.values()["key"]) == (1, row.key_id)
    assert done.values() == {"sha256": row.sha256}
    assert outcome.issuer.certificate == authority.issuer.certificate  # type: ignore[union-attr]  # `issued` said so
    assert await lab.status(row.serial) == Good()


async def test_a_refusal_leaves_nothing(lab: World) -> None:
    before = (len(await lab.rows()), await lab.counts())
    assert await refused(issue(lab.inst, ask("a.example"), lab.admin)) == "RW-NAME-PERMITTED"
    assert await refused(issue(lab.inst, ask(profile="none"), lab.admin)) == "RW-PROFILE"
    assert await refused(issue(lab.inst, ask(replaces="nothing"), lab.admin)) == "RW-REPLACES"
    assert await refused(issue(lab.inst, ask(lifetime=timedelta(days=91)), lab.admin)) == "RW-VALIDITY"
    assert (len(await lab.rows()), await lab.counts()) == before


async def test_what_the_profile_and_the_store_have_against_it_is_told_at_once(lab: World) -> None:
    key = new_key()
    await lab.issue("a.internal", key=key, caller=await lab.person("mia", REQUESTER))
    with pytest.raises(Problem) as caught:
        await issue(lab.inst, ask("a.example", key=key, replaces="x", lifetime=timedelta(days=365)), lab.admin)
    assert [reason.code for reason in caught.value.reasons] == [
        "RW-KEY-IN-USE",
        "RW-REPLACES",
        "RW-NAME-PERMITTED",
        "RW-VALIDITY",
    ]


async def test_many_at_once(lab: World) -> None:
    count = 200 if lab.dialect == "sqlite" else 60
    rows = await asyncio.gather(*(lab.issue(f"n{number}.internal") for number in range(count)))
    assert len({row.serial for row in rows}) == len({row.id for row in rows}) == count
    stored = {row.id: row for row in await lab.rows()}
    assert all(bare(stored[row.id]) == row for row in rows)
    counted = await lab.counts()
    assert counted["issue.intended"] == counted["issue.done"] == count + 1  # and the responder's own


# ── The profile as it stands (I-14) ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-14")
async def test_a_new_version_is_used_and_named_at_once(lab: World) -> None:
    made = await lab.profile("web", lifetime=Lifetime("20d", "20d"))
    first = await lab.issue(profile="web")
    await profiles.update(lab.inst, msgspec.structs.replace(made, lifetime=Lifetime("10d", "10d")), lab.admin)
    second = await lab.issue(profile="web")
    for row, version, days in ((first, 1, 20), (second, 2, 10)):
        assert row.profile_version == version
        assert row.not_after - row.not_before + timedelta(seconds=1) == timedelta(days=days)
        (event,) = await lab.events("issue.intended", certificate=row.id)
        assert (event.values()["version"], event.values()["lifetime"]) == (version, days * 86400)
    narrow = msgspec.structs.replace(made, names=NameRules(dns=DnsRules(allow=("b.internal",))))
    await profiles.update(lab.inst, narrow, lab.admin)
    assert await refused(issue(lab.inst, ask(profile="web"), lab.admin)) == "RW-NAME-PERMITTED"


@pytest.mark.invariant("I-14")
async def test_a_version_that_changes_under_many_asks_is_never_mixed(lab: World) -> None:
    made = await lab.profile("web", lifetime=Lifetime("20d", "20d"))

    async def change() -> None:
        for days in range(2, 8):
            changed = msgspec.structs.replace(made, lifetime=Lifetime(f"{days}d", f"{days}d"))
            await profiles.update(lab.inst, changed, lab.admin)

    asks = (lab.issue(f"n{number}.internal", profile="web") for number in range(40))
    rows = [row for row in await asyncio.gather(change(), *asks) if row is not None]
    days = {1: 20} | {days: days for days in range(2, 8)}
    for row in rows:
        assert row.not_after - row.not_before + timedelta(seconds=1) == timedelta(days=days[row.profile_version or 0])


async def test_a_retired_profile_issues_no_more(lab: World) -> None:
    made = await lab.profile("web")
    before = await lab.issue(profile="web")
    await profiles.retire(lab.inst, "web", lab.admin)
    assert await refused(issue(lab.inst, ask(profile="web"), lab.admin)) == "RW-PROFILE"
    assert await lab.status(before.serial) == Good()
    await profiles.update(lab.inst, made, lab.admin)
    assert (await lab.issue(profile="web")).profile_version == 2


@pytest.mark.invariant("I-25")
async def test_a_frozen_authority_issues_nothing_and_goes_on_with_its_status(lab: World) -> None:
    row = await lab.issue()
    await freeze.freeze(lab.inst, ISSUING, "to test it", lab.admin)
    with pytest.raises(Problem, match=rf"RW-FROZEN.*frozen since 20.*rootward ca unfreeze {ISSUING}"):
        await issue(lab.inst, ask(), lab.admin)
    assert (await lab.events("authority.frozen"))[-1].values() == {"reason": "to test it"}
    lab.clock.move(timedelta(hours=25))  # half of a responder's life
    await lab.responder.renew()
    assert await lab.status(row.serial) == Good()
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    assert (await publish(lab.inst, lab.inst.authority(ISSUING))).entries == 1
    assert await refused(lab.issue(profile="client")) == "RW-FROZEN"


@pytest.mark.invariant("I-61", "I-25")
async def test_a_halted_installation_issues_nothing_and_goes_on_with_its_status(lab: World) -> None:
    row = await lab.issue()
    lab.inst.process.halted["clock"] = Problem("RW-CLOCK", "The clock is behind.")
    assert await refused(lab.issue()) == "RW-CLOCK"
    assert (await lab.rows())[-1].id == row.id
    halted = [check for check in await health.checks(lab.inst) if check.name == "halted.clock"]
    assert [check.state for check in halted] == ["error"]
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    crl = await publish(lab.inst, lab.inst.authority(ISSUING))
    assert row.serial in {entry.serial for entry in parse_crl(crl.der)}
    lab.clock.move(timedelta(hours=25))  # past half of the responder's life
    await lab.responder.renew()
    own = [one for one in await lab.rows() if one.profile == "ocsp-responder"]
    assert len(own) == 2
    assert await lab.status(row.serial) != Good()
    del lab.inst.process.halted["clock"]
    await lab.issue()


async def test_another_process_sees_the_freeze_in_the_store(lab: World) -> None:
    kept = dict(lab.inst.authorities)
    await freeze.freeze(lab.inst, ISSUING, "elsewhere", lab.admin)
    lab.inst.authorities.update(kept)  # as a process that has not read it again
    assert await refused(issue(lab.inst, ask(), lab.admin)) == "RW-FROZEN"


# ── Who may ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-43", "I-45")
async def test_only_a_requester_of_that_profile_may_ask(lab: World) -> None:
    grants = {
        "nobody": [],
        "others": [Grant(Role.REQUESTER, "root")],
        "profile": [Grant(Role.REQUESTER, ISSUING, "client")],
        "every-role-but": [Grant(role) for role in Role if role not in (Role.REQUESTER, Role.SYSTEM_ADMIN)],
    }
    for name, held in grants.items():
        caller = await lab.person(name, *held)
        assert await refused(issue(lab.inst, ask(), caller)) == "RW-FORBIDDEN", name
    for name, grant in {"one": Grant(Role.REQUESTER, ISSUING, "server"), "all": Grant(Role.REQUESTER, ISSUING)}.items():
        assert (await lab.issue(caller=await lab.person(name, grant))).requester


@pytest.mark.invariant("I-32", "I-45")
async def test_the_profiles_of_our_own_certificates_are_nobodys(lab: World) -> None:
    request = parse_csr(_own_csr(lab))
    for name in lab.inst.own_profiles:
        assert await refused(issue(lab.inst, Ask(name, request), lab.admin)) == "RW-PROFILE"
    for name in ("ocsp-responder", "rootward-tls", "", "server\n", "SERVER", "server' OR 1=1"):
        assert await refused(issue(lab.inst, Ask(name, request), lab.admin)) == "RW-PROFILE"
    (row,) = [row for row in await lab.rows() if row.profile == "ocsp-responder"]
    assert row.requester == system_caller("x").principal.id


def _own_csr(lab: World) -> bytes:
    """A request of a key of the backend's, for no names."""
    key = lab.inst.keys.generate("own", KeyAlgorithm.P256)
    draft = draft_csr(key.public)
    return finish_csr(draft, sign_tbs(key, draft.tbs))


@pytest.mark.invariant("I-44")
async def test_names_from_the_identity_are_the_askers_own(lab: World) -> None:
    await lab.profile("me", names=NameRules("identity", ("dns:{name}.people.internal",)))
    wanted = Ask("me", parse_csr(_own_csr(lab)))
    mia = await lab.person("mia", REQUESTER)
    assert issued(await issue(lab.inst, wanted, mia)).names == ("dns:mia.people.internal",)
    dotted = await lab.person("a.b", REQUESTER)
    assert await refused(issue(lab.inst, Ask("me", parse_csr(_own_csr(lab))), dotted)) == "RW-NAME"


async def test_a_condition_that_cannot_be_evaluated_is_a_refusal(lab: World) -> None:
    await lab.profile("web", conditions=(Condition("names[9] == 'x'", "Nine names."),))
    assert await refused(issue(lab.inst, ask(profile="web"), lab.admin)) == "RW-CONDITION"


# ── Keys (I-12) ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-12")
async def test_a_key_belongs_to_whoever_had_it_certified_first(lab: World) -> None:
    """37."""
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", REQUESTER)
    key = new_key()
    first = await lab.issue("a.internal", key=key, caller=mia)
    assert (await lab.issue("b.internal", key=key, caller=mia)).key_id == first.key_id
    assert await refused(issue(lab.inst, ask("c.internal", key=key), bob)) == "RW-KEY-IN-USE"
    await lab.profile("shared", key_reuse="any")
    assert (await lab.issue("c.internal", key=key, caller=bob, profile="shared")).key_id == first.key_id


@pytest.mark.invariant("I-12")
async def test_an_authoritys_key_is_never_certified(lab: World) -> None:
    """36: a CSR by the CA's own key, and by the responder's, whatever the profile says of reuse."""
    await lab.profile("shared", key_reuse="any")
    authority = lab.inst.authority(ISSUING)
    assert authority.key is not None
    draft = draft_csr(authority.key.public, names=ask().csr.names)
    asked = Ask("shared", parse_csr(finish_csr(draft, sign_tbs(authority.key, draft.tbs))))
    with pytest.raises(Problem) as caught:
        await issue(lab.inst, asked, lab.admin)
    assert {reason.code for reason in caught.value.reasons} == {"RW-KEY-BLOCKED"}
    ((label, id),) = [entry for entry in lab.inst.keys.list() if entry[0] == f"ocsp-{ISSUING}"]
    own = lab.inst.keys.load(label, id)
    draft = draft_csr(own.public, names=ask().csr.names)
    asked = Ask("server", parse_csr(finish_csr(draft, sign_tbs(own, draft.tbs))))
    assert await refused(issue(lab.inst, asked, lab.admin)) == "RW-KEY-IN-USE"


@pytest.mark.invariant("I-12")
async def test_a_blocked_key_is_refused_everywhere(lab: World) -> None:
    """26; also where it was blocked by a revocation for keyCompromise, and only for that."""
    planted, stolen, old = new_key(), new_key(), new_key()
    wanted = ask(key=planted)
    await lab.inst.db.write(blocked.add(wanted.csr.public_key.id, why="a list", at=lab.clock()))
    assert await refused(issue(lab.inst, wanted, lab.admin)) == "RW-KEY-BLOCKED"
    row = await lab.issue(key=stolen)
    await revoke(lab.inst, row.id, RevocationReason.KEY_COMPROMISE, lab.admin)
    for caller in (lab.admin, await lab.person("mia", REQUESTER)):
        assert await refused(issue(lab.inst, ask("b.internal", key=stolen), caller)) == "RW-KEY-BLOCKED"
    row = await lab.issue(key=old)
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    assert await lab.issue("b.internal", key=old)


# ── Replacing ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_certificate_is_replaced_by_its_asker_or_an_officer(lab: World) -> None:
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", REQUESTER)
    officer = await lab.person("olga", REQUESTER, OFFICER)
    first = await lab.issue(caller=mia)
    assert (await lab.issue(caller=mia, replaces=first.id)).replaces == first.id
    assert (await lab.issue(caller=officer, replaces=first.id)).replaces == first.id
    assert await refused(issue(lab.inst, ask(replaces=first.id), bob)) == "RW-REPLACES"
    (root,) = [row for row in await lab.rows() if row.authority == "root" and row.subject.startswith("CN=Test Root")]
    for id in (root.id, "", "x", first.id.upper()):
        assert await refused(issue(lab.inst, ask(replaces=id), lab.admin)) == "RW-REPLACES"
    assert (await lab.row(first.id)).revoked_at is None  # replacing revokes nothing by itself


# ── Asking again (I-07) ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-07")
async def test_the_same_key_and_ask_give_the_same_certificate(lab: World) -> None:
    wanted = ask()
    first = issued(await issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted)))
    await profiles.retire(lab.inst, "server", lab.admin)  # whatever was configured since
    await freeze.freeze(lab.inst, ISSUING, "since", lab.admin)
    again = issued(await issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted)))
    assert bare(again) == first
    assert len([row for row in await lab.rows() if row.profile == "server"]) == 1


@pytest.mark.invariant("I-07")
async def test_the_same_key_for_something_else_is_a_conflict(lab: World) -> None:
    """290."""
    wanted, other = ask(), ask()
    await issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted))
    assert await refused(issue(lab.inst, other, lab.admin, idempotency=once("k", other))) == "RW-IDEMPOTENCY"
    mia = await lab.person("mia", REQUESTER)
    mine = await issue(lab.inst, other, mia, idempotency=once("k", other))  # everybody has keys of their own
    assert issued(mine).requester == mia.principal.id


@pytest.mark.invariant("I-07")
async def test_one_key_twenty_times_at_once_is_one_certificate(lab: World) -> None:
    wanted = ask()

    async def one() -> str | None:
        try:
            return issued(await issue(lab.inst, wanted, lab.admin, idempotency=once("k", wanted))).id
        except Problem as problem:
            if (problem.code, problem.retry_after) != ("RW-IN-PROGRESS", 1):
                raise
            return None

    told = set(await asyncio.gather(*(one() for _ in range(20)))) - {None}
    rows = [row for row in await lab.rows() if row.profile == "server"]
    assert len(rows) == len(told) == 1
    assert {row.id for row in rows} == told == {await one()}
    assert (await lab.counts())["issue.intended"] == 2


@pytest.mark.invariant("I-07")
async def test_a_refused_ask_uses_up_nothing(lab: World) -> None:
    wanted = ask("a.example")
    key = Idempotency("k", bytes(32))
    assert await refused(issue(lab.inst, wanted, lab.admin, idempotency=key)) == "RW-NAME-PERMITTED"
    assert issued(await issue(lab.inst, ask(), lab.admin, idempotency=key))


@pytest.mark.invariant("I-03")
async def test_a_serial_that_repeats_is_never_signed(lab: World) -> None:
    drawn = [bytes(20), bytes(20), bytes(range(20))]
    lab.inst.random = lambda _size: drawn.pop(0)
    first = await lab.issue()
    assert await refused(issue(lab.inst, ask(), lab.admin)) == "RW-UNAVAILABLE"
    second = await lab.issue()
    assert first.serial != second.serial
    assert len([row for row in await lab.rows() if row.profile == "server"]) == 2


@pytest.mark.invariant("I-08")
async def test_an_authority_near_its_end_refuses_and_never_cuts(lab: World) -> None:
    """Each profile stops its longest lifetime before the authority's end: its cryptoperiod is over."""
    end = lab.inst.authority(ISSUING).issuer.not_after
    lab.clock.now = end - timedelta(days=90)
    row = await lab.issue(lifetime=timedelta(days=90))
    assert row.not_after - row.not_before + timedelta(seconds=1) == timedelta(days=90)
    lab.clock.now = end - timedelta(days=90) + timedelta(seconds=1)
    assert await refused(issue(lab.inst, ask(lifetime=timedelta(days=5)), lab.admin)) == "RW-VALIDITY"
    assert (await lab.issue(profile="short")).not_after < end
    lab.clock.now = end + timedelta(seconds=1)
    assert await refused(issue(lab.inst, ask(lifetime=timedelta(hours=1)), lab.admin)) == "RW-VALIDITY"


@pytest.mark.invariant("I-27")
async def test_nothing_is_good_before_it_is_issued(lab: World) -> None:
    row = await lab.issue()
    for serial in (b"\x01", bytes([0x40]) + bytes(19), row.serial[:-1] + bytes([row.serial[-1] ^ 1]), row.serial[1:]):
        if 0 < serial[0] < 0x80:
            assert await lab.status(serial) == Unknown()


def test_profiles_are_kept_as_they_were_written(lab: World) -> None:
    stored = lab.inst.db.read_sync(lambda conn: profile_rows.latest(conn, "server"))
    assert stored is not None
    assert msgspec.json.decode(stored.body, type=Profile).name == "server"


def test_a_principal_is_not_its_name() -> None:
    """Two of one name are two: what is compared is the id."""
    assert Caller(Principal("1", "person", "mia", ()), "r").principal != Principal("2", "person", "mia", ())
