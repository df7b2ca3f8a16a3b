"""One authority takes the place of another, and ends, on each kind of store."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from rootward.ca import acts, compromise, ending, people, profiles, publish, succession
from rootward.ca import authorities as making
from rootward.ca.access import Caller, authenticate, find_principal
from rootward.ca.approve import approve
from rootward.ca.issue import issue
from rootward.ca.revoke import revoke
from rootward.core.authority import AuthoritySpec
from rootward.core.profile import Approval
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, RevocationReason
from rootward.core.roles import Grant, Role
from rootward.store import authorities
from rootward.store.db import Database
from tests.contract.test_authorities import Site, opened
from tests.support.room import Room, spec
from tests.support.second import add_second
from tests.support.world import APPROVER, ISSUING, World, ask, issued, pending, refused

NEW = "second"


@pytest.fixture
def site(db: Database) -> Site:
    """A home that is not founded yet, and the room of its ceremonies."""
    return Site(opened(db), Room())


async def succeeded(lab: World, old: str = ISSUING, new: str = NEW) -> Caller:
    """`new` takes the place of `old`; who agreed."""
    await add_second(lab.inst, new)
    bob = await lab.person("bob", APPROVER)
    made = await succession.propose(lab.inst, old, new, lab.admin)
    done = await acts.approve(lab.inst, made.id, None, bob)
    assert done.status(lab.clock()) == "done"
    return bob


async def retired(lab: World, bob: Caller, waves: str | None = None) -> None:
    made = await succession.propose_retirement(lab.inst, ISSUING, waves, lab.admin)
    await acts.approve(lab.inst, made.id, None, bob)


async def test_profiles_issue_from_the_new_one_and_what_was_issued_stays(lab: World) -> None:
    old = await lab.issue()
    bob = await succeeded(lab)
    assert bob.principal.name == "bob"
    new = await lab.issue(replaces=old.id)
    assert (new.authority, new.replaces, new.profile_version) == (NEW, old.id, 2)
    assert lab.inst.by_issuer(old.issuer) is lab.inst.authority(ISSUING)
    await lab.responder.renew()
    assert await lab.status(old.serial) == Good()
    await revoke(lab.inst, old.id, RevocationReason.SUPERSEDED, lab.admin)
    told = (await lab.events("authority.succeeded"))[0].values()
    assert (told["successor"], sorted(told["profiles"])) == (NEW, ["client", "device", "peer", "server", "short"])
    assert (await lab.counts())["profile.moved"] == 5
    assert lab.inst.authority(ISSUING).successor == NEW


@pytest.mark.invariant("I-43")
async def test_roles_and_scopes_go_over_and_nothing_else_does(lab: World) -> None:
    await lab.profile("careful", approval=Approval("always"))
    on_old = await lab.person("on-old", Grant(Role.REQUESTER, ISSUING, "careful"))
    nobody = await lab.person("nobody", Grant(Role.REQUESTER, "root"))
    _, everything = await people.create_token(
        lab.inst,
        principal_id=lab.admin.principal.id,
        label="narrow",
        lifetime=timedelta(days=1),
        scopes=(Grant(Role.REQUESTER, ISSUING, "server"),),
        caller=lab.admin,
    )
    parked = pending(await issue(lab.inst, ask(profile="careful"), on_old))
    bob = await succeeded(lab)
    found = await find_principal(lab.inst, on_old.principal.id)
    assert found is not None
    assert {grant.authority for grant in found.grants} == {ISSUING, NEW}
    assert {(grant.role, grant.profile) for grant in found.grants} == {(Role.REQUESTER, "careful")}
    other = await find_principal(lab.inst, nobody.principal.id)
    assert other is not None
    assert {grant.authority for grant in other.grants} == {"root"}
    cut = await authenticate(lab.inst, everything)
    assert {grant.authority for grant in cut.grants} == {ISSUING, NEW}
    assert (await lab.issue(caller=Caller(cut, "req_cut"))).authority == NEW
    # what waited for a yes under the old one is asked anew: another authority would sign it
    assert await refused(approve(lab.inst, parked.id, None, bob)) == "RW-APPROVAL"
    again = pending(await issue(lab.inst, ask(profile="careful"), Caller(found, "req_again")))
    assert again.authority == NEW


@pytest.mark.invariant("I-43")
async def test_what_is_given_on_the_old_one_later_stays_there(lab: World) -> None:
    """Two people agreed to what there was. Who may give roles on the old one gives nothing on the new one."""
    bob = await succeeded(lab)
    late = await lab.person("late", Grant(Role.ADMIN, ISSUING))
    await lab.profile("later")
    await succession.settle(lab.inst)
    found = await find_principal(lab.inst, late.principal.id)
    assert found is not None
    assert {grant.authority for grant in found.grants} == {ISSUING}
    assert (await lab.issue(profile="later")).authority == ISSUING
    await profiles.retire(lab.inst, "later", lab.admin)
    await retired(lab, bob)
    base = await profiles.current(lab.inst, "server")
    assert base is not None
    for name, change in (("latest", profiles.create), ("later", profiles.update)):
        wanted = msgspec.structs.replace(base[1], name=name, authority=ISSUING)
        assert await refused(change(lab.inst, wanted, late)) == "RW-CONFLICT"


@pytest.mark.invariant("I-43")
@pytest.mark.parametrize("kind", ["succeed", "compromise"])
async def test_those_of_one_authority_alone_give_themselves_nothing_on_another(lab: World, kind: str) -> None:
    """An admin and an approver of the old one would have all their roles on the successor."""
    inst = lab.inst
    await add_second(inst, NEW)
    admin = await lab.person("alma", Grant(Role.ADMIN, ISSUING))
    here = await lab.person("here", Grant(Role.APPROVER, ISSUING))
    both = await lab.person("both", Grant(Role.APPROVER, ISSUING), Grant(Role.APPROVER, NEW))
    if kind == "succeed":
        assert await refused(succession.propose(inst, ISSUING, NEW, admin)) == "RW-FORBIDDEN"
        made = await succession.propose(inst, ISSUING, NEW, lab.admin)
    else:  # whoever finds out may say so at once
        made = await compromise.propose(inst, ISSUING, NEW, "stolen", None, admin)
    assert await refused(acts.approve(inst, made.id, None, here)) == "RW-FORBIDDEN"
    assert (await acts.approve(inst, made.id, None, both)).status(lab.clock()) == "done"


async def test_what_cannot_follow(lab: World) -> None:
    await add_second(lab.inst, NEW)
    inst, admin = lab.inst, lab.admin
    for name, successor, code in (
        (ISSUING, "nobody", "RW-NOT-FOUND"),
        ("nobody", NEW, "RW-NOT-FOUND"),
        (ISSUING, ISSUING, "RW-CONFLICT"),
        (ISSUING, "root", "RW-CONFLICT"),
        ("root", ISSUING, "RW-CONFLICT"),
    ):
        assert await refused(succession.propose(inst, name, successor, admin)) == code
    officer = await lab.person("olga", Grant(Role.OFFICER, ISSUING))
    assert await refused(succession.propose(inst, ISSUING, NEW, officer)) == "RW-FORBIDDEN"
    await inst.db.write(authorities.freeze(NEW, at=lab.clock()))
    inst.learn(await inst.db.read(authorities.list))
    assert await refused(succession.propose(inst, ISSUING, NEW, admin)) == "RW-CONFLICT"


async def test_a_profile_changed_between_the_proposal_and_the_yes_goes_over_as_it_is_then(lab: World) -> None:
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    made = await succession.propose(lab.inst, ISSUING, NEW, lab.admin)
    await lab.profile("later")
    await acts.approve(lab.inst, made.id, None, bob)
    assert (await lab.issue(profile="later")).authority == NEW
    assert await profiles.current(lab.inst, "later") is not None


@pytest.mark.invariant("I-22")
async def test_retired_it_signs_crls_and_answers_until_its_last_certificate_is_over(lab: World) -> None:
    old = await lab.issue()
    assert await refused(succession.propose_retirement(lab.inst, ISSUING, None, lab.admin)) == "RW-CONFLICT"
    bob = await succeeded(lab)
    for waves in ("soon", "0", "99d", "1y"):
        assert await refused(succession.propose_retirement(lab.inst, ISSUING, waves, lab.admin)) == "RW-FIELD"
    await retired(lab, bob)
    assert lab.inst.authority(ISSUING).state == "retired"
    assert (await lab.events("authority.retired"))[0].values()["certificates"] == 1
    await succession.settle(lab.inst)
    assert (await lab.counts())["authority.ended"] == 0
    await lab.responder.renew()
    assert await lab.status(old.serial) == Good()
    assert await refused(succession.propose_retirement(lab.inst, ISSUING, None, lab.admin)) == "RW-CONFLICT"
    lab.clock.move(timedelta(days=200))
    for _ in range(2):
        await succession.settle(lab.inst)
    assert (await lab.counts())["authority.ended"] == 1


# ── A new key ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_key_is_a_new_authority_that_two_people_let_follow(site: Site) -> None:
    await site.found()
    inst, admin = site.inst, site.admin
    old = issued(await issue(inst, ask(), admin))
    pending = await succession.renew(inst, "issuing", "issuing-2", "", admin)
    assert (pending.parent, pending.backend) == ("root", inst.keys.name)
    assert await refused(succession.propose(inst, "issuing", "issuing-2", admin)) == "RW-NOT-FOUND"
    await site.bring(site.room.certify((await making.request(inst, "issuing-2"))[1].body))
    made = await succession.propose(inst, "issuing", "issuing-2", admin)
    await acts.approve(inst, made.id, None, admin)  # the single person at first
    new = issued(await issue(inst, ask(replaces=old.id), admin))
    assert (new.authority, new.replaces) == ("issuing-2", old.id)
    subjects = {inst.authority(name).issuer.certificate.subject for name in ("issuing", "issuing-2")}
    assert len(subjects) == 2
    for name, code in (("root", "RW-CONFLICT"), ("nobody", "RW-NOT-FOUND")):
        assert await refused(succession.renew(inst, name, "issuing-3", "", admin)) == code
    assert await refused(succession.renew(inst, "issuing", "issuing-2", "", admin)) == "RW-CONFLICT"


async def test_a_new_key_has_the_whole_specification_of_the_old_one(site: Site) -> None:
    """Also what is in no certificate of its own, as how it signs."""
    await site.found()
    more = {"key_algorithm": KeyAlgorithm.RSA_2048, "rsa_signature": "pss", "uris": ("spiffe://mesh.internal",)}
    await site.bring(site.room.certify(await site.create("mesh", **more)))
    pending = await succession.renew(site.inst, "mesh", "mesh-2", "", site.admin)
    asked = msgspec.json.decode(pending.spec, type=AuthoritySpec)
    assert asked == msgspec.structs.replace(spec("mesh", **more), name="mesh-2", common_name="Test mesh 2")


async def test_one_that_waits_for_its_certificate_takes_over_when_it_has_it(site: Site) -> None:
    """The yes to a compromise covers it: nobody has to be asked again in the middle of the night."""
    await site.found()
    inst, admin = site.inst, site.admin
    await succession.renew(inst, "issuing", "issuing-2", "", admin)
    made = await compromise.propose(inst, "issuing", "issuing-2", "stolen", None, admin)
    await acts.approve(inst, made.id, None, admin)
    assert (inst.authority("issuing").state, inst.authority("issuing").successor) == ("compromised", "issuing-2")
    await succession.settle(inst)
    assert await refused(issue(inst, ask(), admin)) == "RW-FROZEN"
    await site.bring(site.room.certify((await making.request(inst, "issuing-2"))[1].body))
    await succession.settle(inst)
    assert issued(await issue(inst, ask(), admin)).authority == "issuing-2"
    crl = site.room.answer_crl((await ending.crl_request(inst, "root", admin)).body)
    await site.bring(crl)  # the root's next CRL names the old one
    assert (await publish.current_crl(inst, "root")) is not None
