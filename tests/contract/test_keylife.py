"""The life of keys on each kind of store: states, another KEK, what was done by hand, and the end."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootward.ca import acts, bindings, compromise, destruction, freeze, proposals, records, rewrap, secret, succession
from rootward.ca.access import Caller
from rootward.ca.installation import DESTROYING
from rootward.ca.process import KekChange
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.fleet import calendar, keylife
from rootward.fleet.health import checks
from rootward.home import begin_kek_change
from rootward.keys import BACKENDS, KeySettings, Ring, Sealer, create_kek_file, disk, ring
from rootward.store import facts
from rootward.store.failpoint import Injected, armed
from rootward.store.proposals import Proposal
from tests.support.second import add_second
from tests.support.world import APPROVER, ISSUING, World, refused

NEW = "second"


async def state_of(lab: World, name: str) -> str:
    found = await lab.inst.db.read(lambda conn: list(keylife.read_keys(conn, lab.inst)))
    (state,) = [one.state.value for one in found if one.authority == name]
    return state


async def over(lab: World) -> Caller:
    """`issuing` is retired, and `second` has taken its place; who agrees to things."""
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    made = await succession.propose(lab.inst, ISSUING, NEW, lab.admin)
    await acts.approve(lab.inst, made.id, None, bob)
    made = await succession.propose_retirement(lab.inst, ISSUING, None, lab.admin)
    await acts.approve(lab.inst, made.id, None, bob)
    return bob


async def proposed(lab: World, *, compromised: bool = False) -> Proposal:
    return await destruction.propose(lab.inst, ISSUING, compromised, lab.admin)


# ── states ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_goes_through_its_states(lab: World) -> None:
    assert [await state_of(lab, name) for name in ("root", ISSUING)] == ["active", "active"]
    bob = await over(lab)
    assert [await state_of(lab, name) for name in (ISSUING, NEW)] == ["deactivated", "active"]
    made = await proposed(lab)
    await acts.approve(lab.inst, made.id, None, bob)
    assert await state_of(lab, ISSUING) == "destroyed"


async def test_a_cryptoperiod_ends_with_the_last_profile_that_can_issue(lab: World) -> None:
    """As `Policy.check_period` refuses: the shortest profile goes on the longest."""
    authority = lab.inst.authority(ISSUING)
    end = await lab.inst.db.read(lambda conn: keylife.certifies_until(conn, authority))
    assert end < authority.issuer.not_after
    lab.clock.move(end - lab.clock())
    assert await state_of(lab, ISSUING) == "active"
    lab.clock.move(timedelta(seconds=1))
    assert await state_of(lab, ISSUING) == "deactivated"
    found = {check.name: check for check in await checks(lab.inst)}
    assert found[f"period.{ISSUING}"].state == "error"
    assert "ca renew" in str(found[f"period.{ISSUING}"].mend)


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_that_is_needed_is_not_destroyed(lab: World) -> None:
    with pytest.raises(Problem, match="Retire it first") as caught:
        await proposed(lab)
    assert caught.value.code == "RW-CONFLICT"
    with pytest.raises(Problem, match="a ceremony destroys it"):
        await destruction.propose(lab.inst, "root", False, lab.admin)
    row = await lab.issue()
    bob = await over(lab)
    with pytest.raises(Problem, match="needs its CRL until then"):
        await proposed(lab)
    with pytest.raises(Problem, match="not compromised"):
        await proposed(lab, compromised=True)
    assert await refused(destruction.propose(lab.inst, ISSUING, False, bob)) == "RW-FORBIDDEN"
    assert await refused(destruction.propose(lab.inst, "nobody", False, lab.admin)) == "RW-NOT-FOUND"
    lab.clock.move(row.not_after - lab.clock() + timedelta(seconds=1))
    await proposed(lab)


@pytest.mark.invariant("I-56")
async def test_two_people_destroy_a_key_and_the_record_says_so(lab: World) -> None:
    bob = await over(lab)
    authority = lab.inst.authority(ISSUING)
    assert (ISSUING, authority.issuer.key_id) in lab.inst.keys.list()
    made = await proposed(lab)
    assert lab.inst.authority(ISSUING).key is not None
    done = await acts.approve(lab.inst, made.id, None, bob)
    assert done.status(lab.clock()) == "done"
    assert (ISSUING, authority.issuer.key_id) not in lab.inst.keys.list()
    (said,) = await lab.events("key.destroyed")
    values = said.values()
    assert (said.authority, values["key"], values["backend"]) == (ISSUING, authority.issuer.key_id, "memory")
    assert values["by"] == [lab.admin.principal.id, bob.principal.id]
    assert values["how"] == "forgotten"
    # As this process has it, and as the next one will.
    for _ in range(2):
        gone = lab.inst.authority(ISSUING)
        assert (gone.key, gone.state) == (None, "retired")
        assert gone.destroyed_at == lab.clock()
        await lab.inst.load_authorities()
    with pytest.raises(Problem, match="was destroyed"):
        await proposed(lab)
    found = {check.name: check for check in await checks(lab.inst)}
    assert found[f"key.{ISSUING}"].state == "ok"
    assert "destroyed" in found[f"key.{ISSUING}"].detail
    assert not {f"crl.{ISSUING}", f"authority.{ISSUING}"} & found.keys()
    assert ISSUING not in {due.authority for due in await calendar.dates(lab.inst)}
    await lab.responder.renew()
    assert (await lab.issue()).authority == NEW


@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("place", ["key.destroying", "key.destroyed"])
async def test_one_that_was_cut_off_is_carried_out_by_the_same_yes(lab: World, place: str) -> None:
    bob = await over(lab)
    key_id = lab.inst.authority(ISSUING).issuer.key_id
    made = await proposed(lab)
    with armed(f"{place}:fail"), pytest.raises(Injected):
        await acts.approve(lab.inst, made.id, None, bob)
    assert ((ISSUING, key_id) in lab.inst.keys.list()) is (place == "key.destroying")
    await lab.inst.load_authorities()  # the next start, whether the key is there or not
    assert lab.inst.authority(ISSUING).key is None
    assert await state_of(lab, ISSUING) == "deactivated"
    found = {check.name: check for check in await checks(lab.inst)}
    assert found[f"destroying.{ISSUING}"].state == "error"
    with pytest.raises(Problem, match="It has begun"):
        await proposals.deny(lab.inst, made.id, None, lab.admin)
    done = await acts.approve(lab.inst, made.id, None, bob)
    assert done.status(lab.clock()) == "done"
    assert await state_of(lab, ISSUING) == "destroyed"
    counts = await lab.counts()
    assert (counts["key.destruction-begun"], counts["key.destroyed"]) == (1, 1)
    assert await lab.inst.db.read(lambda conn: facts.get(conn, DESTROYING + ISSUING)) is None


@pytest.mark.invariant("I-42")
async def test_a_yes_that_is_taken_back_at_the_last_moment_destroys_nothing(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await over(lab)
    made, check = await proposed(lab), destruction._check

    async def meanwhile(*arguments: Any) -> None:
        await check(*arguments)
        await proposals.deny(lab.inst, made.id, None, lab.admin)

    monkeypatch.setattr(destruction, "_check", meanwhile)
    assert await refused(acts.approve(lab.inst, made.id, None, bob)) == "RW-CONFLICT"
    assert (ISSUING, lab.inst.authority(ISSUING).issuer.key_id) in lab.inst.keys.list()
    assert "key.destruction-begun" not in await lab.counts()


async def test_the_key_of_a_compromised_one_may_go_before(lab: World) -> None:
    await lab.issue()
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    made = await compromise.propose(lab.inst, ISSUING, NEW, None, None, lab.admin)
    await acts.approve(lab.inst, made.id, None, bob)
    assert await state_of(lab, ISSUING) == "compromised"
    with pytest.raises(Problem, match="--compromised"):
        await proposed(lab)
    made = await proposed(lab, compromised=True)
    await acts.approve(lab.inst, made.id, None, bob)
    assert await state_of(lab, ISSUING) == "destroyed"


async def test_another_process_learns_of_it(lab: World) -> None:
    bob = await over(lab)
    before = lab.inst.authority(ISSUING)
    made = await proposed(lab)
    await acts.approve(lab.inst, made.id, None, bob)
    lab.inst.authorities[ISSUING] = before  # as one that runs beside has it
    await freeze.look_again(lab.inst)
    assert lab.inst.authority(ISSUING).key is None


# ── another KEK ───────────────────────────────────────────────────────────────────────────────────────────────────


async def bound(lab: World) -> None:
    await bindings.create(
        lab.inst,
        profile="server",
        owner="team",
        names=(".internal",),
        preauthorized=(),
        uses=1,
        lifetime=timedelta(days=1),
        caller=lab.admin,
    )


@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("place", ["kek.files-sealed", "kek.secrets-sealed", "store.write.before-commit:fail:2", ""])
async def test_a_change_of_the_kek_comes_to_its_end_once(lab: World, tmp_path: Path, place: str) -> None:
    kek, folder = tmp_path / "kek", tmp_path / "keys"
    create_kek_file(kek)
    opener = Ring(lambda: ring.beside(kek))
    lab.inst.sealer = Sealer(opener)
    await bound(lab)
    await secret.shared(lab.inst, "acme.nonce-key")
    files = BACKENDS["file"](KeySettings(folder=folder, kek=opener))
    key = files.generate("some", KeyAlgorithm.P256)
    change = begin_kek_change(kek)
    assert not await rewrap.is_done(lab.inst, folder, change)
    if place:
        trap = place if ":" in place else f"{place}:fail"
        with armed(trap), pytest.raises((Injected, Problem)):
            await rewrap.rewrap(lab.inst, folder, change)
        assert files.load("some", key.public.id).public == key.public
        assert len(await secret.shared(lab.inst, "acme.nonce-key")) == 32
    await bound(lab)  # while it goes on
    done = await rewrap.rewrap(lab.inst, folder, change)
    assert (done.files, done.stored) == (1, 3)
    assert (done.old, done.new) == (change.old.id, change.new.id)
    assert await rewrap.rewrap(lab.inst, folder, change) == done
    assert await rewrap.is_done(lab.inst, folder, change)
    (told,) = await lab.events("kek.rewrapped")
    assert told.values()["old"] == change.old.id
    ring.finish(kek, change)
    lab.inst.sealer = Sealer(Ring(lambda: ring.beside(kek)))
    assert len(await secret.shared(lab.inst, "acme.nonce-key")) == 32
    assert await lab.inst.db.read(lambda conn: secret.left(conn, new=Sealer(change.new))) == 0


async def test_doctor_says_how_a_change_goes(lab: World) -> None:
    async def kek() -> tuple[str, str]:
        (found,) = [check for check in await checks(lab.inst) if check.name == "kek"]
        return found.state, found.detail

    assert (await kek())[0] == "ok"
    lab.inst.process.kek = KekChange("a" * 16, "b" * 16, lab.clock())
    assert (await kek())[0] == "ok"
    assert "is being changed" in (await kek())[1]
    lab.clock.move(timedelta(days=1, seconds=1))
    assert (await kek())[0] == "warning"
    lab.inst.process.kek = dataclasses.replace(lab.inst.process.kek, over=True)
    assert (await kek()) == ("warning", f"Nothing needs the key-encryption key {'a' * 16} any more.")


# ── what was done by hand ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-56")
async def test_a_record_becomes_one_event(lab: World, tmp_path: Path) -> None:
    for kind in ("key.backup-begun", "key.backed-up"):
        records.keep(tmp_path, kind, ISSUING, key="ce" * 32, file="out", user="ada", at=lab.clock())
    with armed("record.stored:fail"), pytest.raises(Injected):
        await records.take_in(lab.inst, tmp_path)
    await records.take_in(lab.inst, tmp_path)
    await records.take_in(lab.inst, tmp_path)
    assert list((tmp_path / records.FOLDER).iterdir()) == []
    (told,) = await lab.events("key.backed-up")
    assert (told.authority, told.values()["user"], told.values()["key"]) == (ISSUING, "ada", "ce" * 32)
    assert len(await lab.events("key.backup-begun")) == 1


async def test_what_is_no_record_is_named(lab: World, tmp_path: Path) -> None:
    folder = tmp_path / records.FOLDER
    folder.mkdir(mode=0o700)
    disk.write_new(folder / "x.json", msgspec.json.encode({"kind": "certificate.revoked"}), mode=0o600)
    with pytest.raises(Problem, match=r"x\.json\" is no record"):
        await records.take_in(lab.inst, tmp_path)
    (folder / "x.json").unlink()
    (folder / "y.json").write_text("{}")
    (folder / "y.json").chmod(0o666)
    with pytest.raises(Problem, match="RW-HOME"):
        await records.take_in(lab.inst, tmp_path)
    assert await asyncio.to_thread(lambda: sorted(path.name for path in folder.iterdir())) == ["y.json"]
