"""Cross-signed certificates of our own authorities by our own offline ones: asked for, made in a ceremony, taken in and
offered; and every request and every result that is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

from rootward.ca import acts, authorities, compromise, cross, destruction, ending, freeze, publish, results
from rootward.ca.access import Caller, Principal, new_token
from rootward.ca.founding import FOUNDER, Beginning
from rootward.ca.installation import SINGLE_TIER
from rootward.ca.issue import issue
from rootward.ca.revoke import HOLD, revoke_in
from rootward.cli.ceremony_plan import Wishes, draft_script
from rootward.core import paperwork
from rootward.core.authority import AuthoritySpec, Constraints
from rootward.core.chain import verify_chain
from rootward.core.crl_entries import Entry
from rootward.core.minutes import read_transcript
from rootward.core.paperwork import Certified, CrossSign, Request, Result, SignCrl
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from rootward.core.script import CrossSign as CrossStep
from rootward.core.script import Input, read_script, sha256_of
from rootward.protocols.acme.download import chains_of
from rootward.store import certificates, facts
from rootward.store import paperwork as papers
from rootward.store.db import Database
from rootward.store.schema import authorities as table
from rootward.store.schema import certificates as inventory
from tests.contract.test_authorities import Site, opened, reasons
from tests.support.ceremonies import Held, MemoryKeys, hold, public_hex, signed_by
from tests.support.postgres import Postgres
from tests.support.rest import Api, rest
from tests.support.room import Room, root_spec, spec
from tests.support.second import add_recorded
from tests.support.store import DIALECTS, fresh_url
from tests.support.world import ask as asked_of
from tests.support.world import issued, refused

YEAR = timedelta(days=365)


@pytest.fixture
def site(db: Database) -> Site:
    return Site(opened(db), Room())


async def two_roots(site: Site, **more: Any) -> None:
    """The installation with its root, and another one with an issuing authority of its own."""
    await site.found()
    root = site.room.make(root_spec("root-2", **more))
    await site.bring(root, site.room.crl("root-2"))
    await site.bring(site.room.certify(await site.create("issuing-2", "root-2")))


async def asks(site: Site, name: str = "root-2", by: str = "root") -> bytes:
    return (await cross.ask(site.inst, name, by, site.admin)).body


def certificate(made: Certified) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate.encode())


def path_length(one: x509.Certificate) -> int | None:
    return one.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


async def said(awaitable: Any) -> str:
    """All that is wrong with it."""
    with pytest.raises(Problem) as caught:
        await awaitable
    return reasons(caught)


# ── What is asked ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_roots_ask_for_each_other_and_whoever_trusts_one_believes_both(site: Site) -> None:
    await two_roots(site)
    inst = site.inst
    made = [site.room.cross(await asks(site)), site.room.cross(await asks(site, "root", "root-2"))]
    open_now = await inst.db.read(papers.open_requests)
    assert [(one.kind, one.authority, one.subject) for one in open_now] == [
        ("cross", "root", "root-2"),
        ("cross", "root-2", "root"),
    ]
    await site.bring(*made)
    assert await inst.db.read(papers.open_requests) == ()
    roots = {name: inst.authority(name).issuer.certificate for name in ("root", "root-2")}
    row = issued(await issue(inst, asked_of(), site.admin))
    assert row.der is not None
    leaf = x509.load_der_x509_certificate(row.der)
    for one, name in zip(made, ("root-2", "root"), strict=True):
        (listed,) = await cross.listed(inst, name)
        assert x509.load_pem_x509_certificate(listed.chain) == certificate(one)
        assert path_length(certificate(one)) == 1  # each allows 2 CAs below it, and this is one of them
        assert certificate(one).not_valid_after_utc <= min(two.not_valid_after_utc for two in roots.values())
    usual, other = await chains_of(inst, inst.authority("issuing"))
    chain = x509.load_pem_x509_certificates(other.encode())
    assert verify_chain(leaf, chain, [roots["root-2"]], now=inst.clock(), purpose="server").ok
    assert not verify_chain(leaf, chain[:1], [roots["root-2"]], now=inst.clock()).ok
    assert x509.load_pem_x509_certificates(usual.encode()) == chain[:1]
    kinds = await site.kinds()
    assert [kinds.count(f"authority.cross-{what}") for what in ("requested", "added", "withdrawn")] == [2, 2, 0]


async def test_what_is_asked_is_what_the_certificate_says(site: Site) -> None:
    await site.found()
    await site.bring(site.room.make(root_spec("root-2")), site.room.crl("root-2"))
    wanted = {
        "country": "DE",
        "lifetime": "3y",
        "permitted": Constraints(dns=("internal",), ip=("10.0.0.0/8",)),
        "extended_key_usage": ("server_auth",),
        "uris": ("spiffe://mesh.internal",),
    }
    await site.bring(site.room.certify(await site.create("mesh", "root-2", **wanted)))
    body = await asks(site, "mesh")
    request = paperwork.read(body, Request)
    assert isinstance(request.wanted, CrossSign)
    own, by = (site.inst.authority(name).issuer for name in ("mesh", "root"))
    assert (request.wanted.by, request.issuer, request.pki_url) == ("root", by.pem(), site.inst.pki_url)
    assert request.wanted.certificate == own.pem()
    assert request.wanted.spec.lifetime == "1064d"  # a month for the ceremony to be held in
    made = site.room.cross(body)
    kept = (x509.AuthorityKeyIdentifier, x509.CRLDistributionPoints, x509.AuthorityInformationAccess)
    own_says, says = (
        {one.oid: one for one in found.extensions if not isinstance(one.value, kept)}
        for found in (own.certificate, certificate(made))
    )
    assert says == own_says
    assert certificate(made).subject == own.certificate.subject
    await site.bring(made)
    found = await site.inst.db.read(
        lambda conn: certificates.by_key(conn, own.key_id)  # the inventory has both
    )
    assert {(one.authority, one.subject) for one in found} == {
        ("root", own.certificate.subject.rfc4514_string()),
        ("root-2", own.certificate.subject.rfc4514_string()),
    }


async def test_its_end_in_a_crl_does_not_end_the_authority(site: Site) -> None:
    """It is one of two ways to the authority; the other one stays."""
    await two_roots(site)
    made = certificate(site.room.cross(await asks(site, "issuing-2", "root")))
    pem = made.public_bytes(Encoding.PEM).decode()
    asked = (await site.inst.db.read(papers.open_requests))[0]
    await site.bring(Certified("issuing-2", "cross", pem, asked.id))
    serial = made.serial_number.to_bytes(20, "big")
    last = await publish.current_crl(site.inst, "root")
    assert last is not None
    await site.bring(
        site.room.crl("root", last.number + 1, (Entry(serial, site.inst.clock(), RevocationReason.SUPERSEDED),))
    )
    under = await site.inst.db.read(lambda conn: publish.must_list(conn, site.inst.authority("root")))
    assert [one.serial for one in under] == [serial.hex()]
    assert site.inst.authority("issuing-2").state == "active"


async def test_whoever_certified_a_compromised_key_is_asked_for_a_crl_that_says_so(site: Site) -> None:
    await two_roots(site)
    inst = site.inst
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made)
    again = await asks(site, "issuing-2", "root")  # a longer one, which must not be signed any more
    proposal = await compromise.propose(inst, "issuing-2", None, None, None, site.admin)
    await acts.approve(inst, proposal.id, None, site.admin)
    waiting = await inst.db.read(papers.open_requests)
    assert [one.kind for one in waiting] == ["crl", "crl"]
    assert "was withdrawn" in await said(site.bring(site.room.cross(again)))
    asked = {one.authority: one for one in waiting}
    assert asked.keys() == {"root", "root-2"}
    serials = {"root": certificate(made), "root-2": inst.authority("issuing-2").issuer.certificate}
    for name, one in asked.items():
        wanted = paperwork.read(one.body, Request).wanted
        assert isinstance(wanted, SignCrl)
        number = serials[name].serial_number
        assert [(entry.serial, entry.reason) for entry in wanted.entries] == [
            (number.to_bytes(20, "big").hex(), "cACompromise")
        ]
    assert inst.authority("issuing").state == "active"


@pytest.mark.parametrize("removed", [False, True])
async def test_a_further_certificate_that_no_inventory_has_is_revoked_with_its_key(site: Site, removed: bool) -> None:
    """As an older version kept it, and as `ca cross add` does; one that is out of use leads relying parties there."""
    await two_roots(site)
    inst = site.inst
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await cross.withdraw(inst, "issuing-2", "root", site.admin)
    added = await cross.add(
        inst, "issuing-2", (made.certificate + inst.authority("root").issuer.pem()).encode(), site.admin
    )
    if removed:
        await cross.remove(inst, "issuing-2", added.sha256, site.admin)
    proposal = await compromise.propose(inst, "issuing-2", None, None, None, site.admin)
    await acts.approve(inst, proposal.id, None, site.admin)
    wanted = [paperwork.read(one.body, Request).wanted for one in await inst.db.read(papers.open_requests)]
    (mine,) = [one for one in wanted if isinstance(one, SignCrl) and one.by == "root"]
    serial = certificate(made).serial_number.to_bytes(20, "big")
    assert [(one.serial, one.reason) for one in mine.entries] == [(serial.hex(), "cACompromise")]


async def test_a_hold_is_no_end_of_a_compromised_key(site: Site) -> None:
    await two_roots(site)
    inst = site.inst
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made)
    held = []
    for name, one in (("root", certificate(made)), ("root-2", inst.authority("issuing-2").issuer.certificate)):
        n, serial = inst.authority(name).n, one.serial_number.to_bytes(20, "big")
        row = await inst.db.read(lambda conn, n=n, serial=serial: certificates.by_serial(conn, n, serial))
        assert row is not None
        await inst.db.write(lambda conn, id=row.id: revoke_in(conn, id, HOLD, site.admin, inst.clock()))
        held.append(row.id)
    proposal = await compromise.propose(inst, "issuing-2", None, None, None, site.admin)
    await acts.approve(inst, proposal.id, None, site.admin)
    for id in held:
        row = await inst.db.read(lambda conn, id=id: certificates.by_id(conn, id))
        assert row is not None
        assert row.reason == "cACompromise"


async def test_nobody_is_led_to_what_is_revoked(site: Site) -> None:
    await two_roots(site)
    waiting = await asks(site, "issuing-2", "root")
    await ending.revoke(site.inst, "issuing-2", RevocationReason.SUPERSEDED, site.admin)
    assert "was withdrawn" in await said(site.bring(site.room.cross(waiting)))
    assert "is revoked" in await said(cross.ask(site.inst, "issuing-2", "root", site.admin))
    assert (await site.kinds()).count("authority.cross-withdrawn") == 1


async def test_of_one_that_is_asked_for_already_and_what_is_taken_back(site: Site) -> None:
    await two_roots(site)
    inst, admin = site.inst, site.admin
    first = await asks(site)
    other = await asks(site, "root", "root-2")
    assert "is asked for one of root-2 already" in await said(cross.ask(inst, "root-2", "root", admin))
    gone = await cross.withdraw(inst, "root-2", "root", admin)
    assert (gone.body, gone.is_open, gone.withdrawn_at is not None) == (first, False, True)
    assert await refused(cross.withdraw(inst, "root-2", "root", admin)) == "RW-NOT-FOUND"
    for name, by in (("nobody", "root"), ("root-2", "nobody"), ("root", "root")):
        assert await refused(cross.withdraw(inst, name, by, admin)) == "RW-NOT-FOUND"
    assert "was withdrawn" in await said(site.bring(site.room.cross(first)))
    again = await asks(site)
    assert again != first
    await site.bring(site.room.cross(again), site.room.cross(other))
    assert (await site.kinds()).count("authority.cross-withdrawn") == 1


async def test_what_a_destroyed_key_was_asked_for_is_taken_back(site: Site) -> None:
    await two_roots(site)
    await asks(site)
    await asks(site, "root", "root-2")
    root = site.room.issuers["root"]
    last = await publish.current_crl(site.inst, "root")
    assert last is not None
    await site.bring(
        site.room.crl("root", last.number + 1, lifetime=11 * YEAR),
        destroyed=frozenset({root.key_id}),
    )
    assert site.inst.authority("root").destroyed_at is not None
    assert await site.inst.db.read(papers.open_requests) == ()
    assert (await site.kinds()).count("authority.cross-withdrawn") == 2


async def test_what_is_asked_about_a_destroyed_key_is_taken_back(site: Site) -> None:
    await two_roots(site)
    retired = update(table).where(table.c.name == "issuing-2").values(retired_at=site.inst.clock())
    await site.inst.db.write(lambda conn: conn.execute(retired))
    await freeze.look_again(site.inst)
    await asks(site, "issuing-2", "root")
    proposal = await destruction.propose(site.inst, "issuing-2", False, site.admin)
    await acts.approve(site.inst, proposal.id, None, site.admin)
    assert site.inst.authority("issuing-2").destroyed_at is not None
    assert await site.inst.db.read(papers.open_requests) == ()


@pytest.mark.invariant("I-22")
async def test_nobody_is_led_to_what_a_list_has_revoked(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    last, told = await publish.current_crl(site.inst, "root-2"), site.inst.process.told
    assert last is not None
    serial = site.inst.authority("issuing-2").issuer.serial
    await site.bring(
        site.room.crl("root-2", last.number + 1, (Entry(serial, site.inst.clock(), RevocationReason.SUPERSEDED),))
    )
    assert site.inst.process.told > told  # answers that are kept are of before
    assert "was withdrawn" in await said(site.bring(made))
    assert "The certificate of issuing-2 is revoked" in await said(
        site.bring(msgspec.structs.replace(made, request=""))
    )
    assert await cross.listed(site.inst, "issuing-2") == []


@pytest.mark.invariant("I-16", "I-22")
async def test_what_its_signer_has_revoked_already_is_not_taken_into_use(site: Site) -> None:
    """The list came before the certificate."""
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    serial = certificate(made).serial_number.to_bytes(20, "big")
    last = await publish.current_crl(site.inst, "root")
    assert last is not None
    await site.bring(
        site.room.crl("root", last.number + 1, (Entry(serial, site.inst.clock(), RevocationReason.SUPERSEDED),))
    )
    assert "is revoked by root already" in await said(site.bring(made))
    assert await cross.listed(site.inst, "issuing-2") == []


async def test_a_further_certificate_has_a_serial_of_its_own(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    same = update(inventory).where(inventory.c.key_id == site.inst.authority("issuing").issuer.key_id)
    serial = certificate(made).serial_number.to_bytes(20, "big")
    await site.inst.db.write(lambda conn: conn.execute(same.values(serial=serial)))
    assert "is that of another certificate by root" in await said(site.bring(made))


async def test_who_may(site: Site) -> None:
    await two_roots(site)
    others = tuple(Grant(role) for role in (Role.ADMIN, Role.OFFICER, Role.APPROVER))
    eve = Caller(Principal("p", "person", "eve", others), "req_eve")
    assert await refused(cross.ask(site.inst, "root-2", "root", eve)) == "RW-FORBIDDEN"
    await asks(site)
    assert await refused(cross.withdraw(site.inst, "root-2", "root", eve)) == "RW-FORBIDDEN"
    assert (await site.kinds()).count("authority.cross-requested") == 1


# ── What is refused before anybody walks to a ceremony ──────────────────────────────────────────────────────────────


async def test_who_cannot_be_asked(site: Site) -> None:
    await two_roots(site)
    inst, admin = site.inst, site.admin
    corp = site.room.make(root_spec("corp"))
    body = await site.create("partner", None)
    chain = (site.room.certify(body, by="corp").certificate + corp.certificate).encode()
    await authorities.install(inst, "partner", chain, ["corp"], admin)
    for name, by, code, why in (
        ("nobody", "root", "RW-NOT-FOUND", "no such authority"),
        ("root-2", "nobody", "RW-NOT-FOUND", "There is no authority"),
        ("root-2", "' OR 1=1 --", "RW-NOT-FOUND", "There is no authority"),
        ("root", "root", "RW-CONFLICT", "not by itself"),
        ("issuing", "issuing", "RW-CONFLICT", "not by itself"),
        ("root-2", "issuing", "RW-CONFLICT", "issuing is online"),
        ("issuing", "root", "RW-CONFLICT", "usual issuer of issuing already"),
        ("issuing", "corp", "RW-CONFLICT", "somebody else's"),
    ):
        assert await refused(cross.ask(inst, name, by, admin)) == code, (name, by)
        assert why in await said(cross.ask(inst, name, by, admin)), (name, by)
    before = await site.kinds()
    assert "authority.cross-requested" not in before
    assert await inst.db.read(papers.open_requests) == ()


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("retired_at", "root is retired"),
        ("compromised_at", "root is compromised"),
        ("frozen_at", "root is frozen"),
        ("destroyed_at", "was destroyed"),
    ],
)
async def test_whose_key_is_not_what_it_was_certifies_nothing(site: Site, column: str, why: str) -> None:
    await two_roots(site)
    change = update(table).where(table.c.name == "root").values({column: site.inst.clock()})
    await site.inst.db.write(lambda conn: conn.execute(change))
    inst = opened(site.inst.db, site.inst.keys)
    await inst.load_authorities()
    assert why in await said(cross.ask(inst, "root-2", "root", site.admin))
    if column in ("compromised_at", "destroyed_at"):
        assert "nobody is to be led to it" in await said(cross.ask(inst, "root", "root-2", site.admin))
    else:
        assert await cross.ask(inst, "root", "root-2", site.admin)


async def test_what_has_ended_or_is_about_to(site: Site) -> None:
    await two_roots(site, lifetime="9y")
    now = site.inst.clock()
    for moved, name, by, why in (
        (9 * YEAR + timedelta(days=1), "root", "root-2", "The certificate of root-2 ended at"),
        (9 * YEAR + timedelta(days=1), "root-2", "root", "no time left"),
        (9 * YEAR - timedelta(hours=12), "root-2", "root", "no time left"),
        (9 * YEAR - timedelta(hours=12), "root", "root-2", "no time left"),
    ):
        site.inst.clock = lambda moved=moved: now + moved  # type: ignore[misc]  # the loop's own
        assert why in await said(cross.ask(site.inst, name, by, site.admin))
    site.inst.clock = lambda: now + 9 * YEAR - timedelta(days=10)
    request = paperwork.read(await asks(site), Request)
    assert isinstance(request.wanted, CrossSign)
    assert request.wanted.spec.lifetime == "8d"


async def test_there_is_room_for_what_is_below(site: Site) -> None:
    """A root that allows one CA below it certifies issuing ones, and no root that certifies any."""
    await two_roots(site, path_length=1)
    assert "allows 1 CAs below it, and there would be 2" in await said(
        cross.ask(site.inst, "root", "root-2", site.admin)
    )
    assert path_length(certificate(site.room.cross(await asks(site)))) == 1
    assert path_length(certificate(site.room.cross(await asks(site, "issuing", "root-2")))) == 0


async def test_a_limit_comes_from_the_one_that_has_one(site: Site) -> None:
    await two_roots(site, path_length=None)
    assert path_length(certificate(site.room.cross(await asks(site)))) == 1
    assert path_length(certificate(site.room.cross(await asks(site, "root", "root-2")))) == 2


async def test_under_a_policy_authority_the_whole_chain_comes_along(site: Site) -> None:
    await two_roots(site)
    policy = site.room.make(spec("policy", "policy", path_length=1, lifetime="8y"), by="root-2")
    await site.bring(policy, site.room.crl("policy"))
    await site.bring(site.room.cross(await asks(site, "issuing", "policy")))
    (listed,) = await cross.listed(site.inst, "issuing")
    assert x509.load_pem_x509_certificates(listed.chain)[1:] == [certificate(policy)]
    detail = await said(cross.ask(site.inst, "issuing-2", "policy", site.admin))
    assert "is of the usual chain" in detail
    assert "is that of a CA above" in await said(cross.ask(site.inst, "root-2", "policy", site.admin))


async def test_what_would_narrow_what_is_issued_is_refused_at_once(site: Site) -> None:
    await two_roots(site)
    for name, limits, why in (
        ("narrow", {"permitted": Constraints(dns=("lan",))}, "is not limited so"),
        ("clients", {"extended_key_usage": ("client_auth",)}, "limited to some extended key usages"),
    ):
        wanted = spec(name, "policy", path_length=1, lifetime="8y", **limits)
        await site.bring(site.room.make(wanted, by="root-2"), site.room.crl(name))
        assert why in await said(cross.ask(site.inst, "issuing", name, site.admin))


async def test_only_so_many(site: Site) -> None:
    await two_roots(site)
    await site.bring(site.room.cross(await asks(site)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross, "MOST", 1)
        assert "remove one first" in await said(cross.ask(site.inst, "root-2", "root", site.admin))


async def test_a_single_tier_lab_stays_one(site: Site) -> None:
    await two_roots(site)
    await site.inst.db.write(facts.put_once(SINGLE_TIER, at=site.inst.clock()))
    assert "single-tier lab" in await said(cross.ask(site.inst, "root-2", "root", site.admin))


# ── What comes back ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_results_that_are_not_what_was_asked_are_refused(site: Site) -> None:
    await two_roots(site)
    third = site.room.make(root_spec("root-3"))
    await site.bring(third, site.room.crl("root-3"))
    request = await asks(site)
    good = site.room.cross(request)
    other = Room()
    other.make(root_spec())  # another root of the same name
    for wrong, why in (
        (Certified("root-2", "cross", good.certificate, "somebody-elses"), "of another installation"),
        (Certified("root", "cross", good.certificate, good.request), "is about root-2"),
        (Certified("nobody", "cross", good.certificate, good.request), "no authority"),
        (other.cross(request), "no authority that is known here has signed it"),
        (Certified("root-2", "cross", other.cross(request).certificate), "no authority that is known here has signed"),
        (Certified("root-2", "cross", third.certificate), "has not the very subject"),
        (site.room.cross(request, by="root-3"), "root was asked for the certificate of root-2, and root-3 has signed"),
        (site.room.cross(request, lifetime="1y"), "does not say what was asked for"),
        (site.room.cross(request, path_length=0, kind="issuing"), "does not say what was asked for"),
        (site.room.cross(request, permitted=Constraints(dns=("lan",))), "does not say what was asked for"),
        (Certified("root-2", "cross", "-----BEGIN", good.request), "cannot be read"),
        (forged(good), "no authority that is known here has signed it"),
        (Certified("root-2", "policy", good.certificate, good.request), "already, with another certificate"),
    ):
        assert why in await said(site.bring(wrong)), why
    body = await site.create("issuing-3")
    asked = paperwork.read(body, Request)
    assert "is about issuing-3" in await said(site.bring(Certified("root-2", "cross", good.certificate, asked.id)))
    assert await cross.listed(site.inst, "root-2") == []
    await site.bring(good)
    assert "was answered at" in await said(site.bring(site.room.cross(request)))
    assert len(await cross.listed(site.inst, "root-2")) == 1
    assert "is in use already" in await said(site.bring(Certified("root-2", "cross", good.certificate)))


def forged(good: Certified) -> Certified:
    """The same with another signature."""
    data = certificate(good).public_bytes(Encoding.DER)
    broken = x509.load_der_x509_certificate(data[:-1] + bytes([data[-1] ^ 1]))
    return msgspec.structs.replace(good, certificate=broken.public_bytes(Encoding.PEM).decode())


@pytest.mark.parametrize("name", ["root", "root-2"])
async def test_who_was_compromised_meanwhile(site: Site, name: str) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site))
    change = update(table).where(table.c.name == name).values(compromised_at=site.inst.clock())
    await site.inst.db.write(lambda conn: conn.execute(change))
    site.inst = opened(site.inst.db, site.inst.keys)
    await site.inst.load_authorities()
    assert f"{name} is compromised" in await said(site.bring(made))


# ── The whole way, with real scripts ────────────────────────────────────────────────────────────────────────────────


@dataclass
class Ceremonies:
    """A ceremony's room with keys of its own, and an installation whose root is there."""

    site: Site
    keys: MemoryKeys

    def plan(self, *requests: bytes, root: str | None = None, under: str | None = None) -> bytes:
        """The draft that `rootward ceremony plan` writes."""
        there = None if under is None else (under, self.site.inst.authority(under).issuer.pem())
        wishes = Wishes(
            title=None,
            org=f"The {root}",
            lab=False,
            at=self.site.inst.clock(),
            pki_url=self.site.inst.pki_url,
            root=root,
            under=there,
            people=[("master", f"Ada={public_hex('Ada')}"), ("witness", f"Bob={public_hex('Bob')}")],
            threshold=0,
            token=None,
            folder=None,
            algorithm=KeyAlgorithm.P256,
            crl=False,
            crl_lifetime="365d",
        )
        return draft_script(wishes, [(Path(f"{at}.json"), data) for at, data in enumerate(requests)], "x.yaml")

    def hold(self, script: bytes, *requests: bytes) -> Held:
        """Held and signed by both."""
        found = hold(
            read_script(script), {sha256_of(one): one for one in requests}, here=("Ada", "Bob"), keys=self.keys
        )
        found.result = signed_by(found, "Ada", "Bob")
        return found

    async def bring(self, result: Result | bytes, beginning: Beginning | None = None) -> None:
        data = result if isinstance(result, bytes) else paperwork.write(result)
        await results.import_result(self.site.inst, data, self.site.admin, beginning=beginning)

    async def carry(self, *requests: bytes, root: str | None = None, under: str | None = None) -> Held:
        """Planned, held, brought back."""
        held = self.hold(self.plan(*requests, root=root, under=under), *requests)
        await self.bring(held.result)
        return held


@pytest.fixture
def offline(site: Site) -> Ceremonies:
    return Ceremonies(site, MemoryKeys())


async def founded(offline: Ceremonies) -> None:
    """Two roots, one after the other."""
    site = offline.site
    request = await site.create("issuing")
    held = offline.hold(offline.plan(request, root="root"), request)
    await offline.bring(held.result, Beginning(new_token()[1]))
    assert site.admin is FOUNDER
    await offline.carry(root="root-2")


async def test_a_request_is_planned_held_verified_and_taken_in(offline: Ceremonies) -> None:
    await founded(offline)
    site = offline.site
    for name, by in (("root-2", "root"), ("root", "root-2")):
        body = await asks(site, name, by)
        script = offline.plan(body, under=by)
        (step,) = read_script(script).steps
        assert isinstance(step, CrossStep)
        assert step.request == Input("0.json", sha256_of(body))
        held = offline.hold(script, body)
        assert [one.name for one in read_transcript(held.result.transcript).inputs] == ["0.json"]
        assert held.result.certificates[0].request == paperwork.read(body, Request).id
        await offline.bring(held.result)
        (listed,) = await cross.listed(site.inst, name)
        assert listed.chain.decode() == held.result.certificates[0].certificate
        assert await refused(offline.bring(held.result)) == "RW-CONFLICT"  # once more
    assert len(await chains_of(site.inst, site.inst.authority("issuing"))) == 2


@pytest.mark.invariant("I-37")
async def test_every_change_to_a_result_is_found(offline: Ceremonies) -> None:
    await founded(offline)
    body = await asks(offline.site)
    held = offline.hold(offline.plan(body, under="root"), body)
    result = held.result
    (made,) = result.certificates
    change = msgspec.structs.replace
    data = paperwork.write(result)
    for wrong, why in (
        (change(result, certificates=(change(made, request=""),)), "another request than the script's"),
        (change(result, certificates=(change(made, request="x"),)), "another request than the script's"),
        (change(result, certificates=(change(made, authority="root"),)), "something else"),
        (change(result, certificates=(change(made, kind="policy"),)), "something else"),
        (change(result, certificates=(forged(made),)), "signature is not the issuer's"),
        (change(result, certificates=()), "exactly the certificates"),
        (change(result, script=result.script.replace("lifetime: ", "lifetime:  ")), "another script"),
        (change(result, transcript=result.transcript.replace("0.json", "1.json")), "signature of Ada is not over"),
        (change(result, signatures=result.signatures[:1]), "2 are needed"),
        (data.replace(b"cross", b"crosS"), "is no result file"),
    ):
        assert why in await said(offline.bring(wrong)), why
    await offline.bring(result)


@pytest.mark.invariant("I-37")
async def test_a_step_signs_for_its_own_request_alone(offline: Ceremonies) -> None:
    """The file is pinned by its hash, and is about this certificate and this signer."""
    await founded(offline)
    site = offline.site
    one, other = await asks(site), await asks(site, "root", "root-2")
    script = offline.plan(one, under="root")
    changed = one.replace(b'"lifetime": "', b'"lifetime": "1')
    for text, files, why in (
        (script, (other,), "is not there"),
        (script, (changed,), "is not there"),
        (script.replace(sha256_of(one).encode(), sha256_of(other).encode()), (other,), "does not ask root"),
    ):
        with pytest.raises(Problem, match=why):
            offline.hold(text, *files)
    twin = msgspec.structs.replace(paperwork.read(one, Request))
    assert isinstance(twin.wanted, CrossSign)
    own = site.inst.authority("issuing").issuer.pem()
    twin = msgspec.structs.replace(twin, wanted=msgspec.structs.replace(twin.wanted, certificate=own))
    about = paperwork.write(twin)
    with pytest.raises(Problem, match="about another certificate"):
        offline.hold(script.replace(sha256_of(one).encode(), sha256_of(about).encode()), about)
    bare = await site.create("issuing-2")
    with pytest.raises(Problem, match="does not ask root"):
        offline.hold(script.replace(sha256_of(one).encode(), sha256_of(bare).encode()), bare)


async def test_a_ceremony_with_another_root_of_that_name_is_refused(offline: Ceremonies) -> None:
    """The script has a certificate for `root`; that it is the installation's is looked at when the result comes."""
    await founded(offline)
    body = await asks(offline.site)
    room, false = Room(), MemoryKeys()
    key = false.make("root", KeyAlgorithm.P256)
    wanted = AuthoritySpec("root", "root", "The root Root CA", "The root", lifetime="10y", path_length=2)
    room.keys["root"] = key
    twin = room._sign(wanted, key.public, None, None).public_bytes(Encoding.PEM).decode()
    real = offline.site.inst.authority("root").issuer.pem()
    script = offline.plan(body, under="root").decode()
    pad = "      "
    lines = "\n".join(pad + line for line in real.splitlines())
    assert lines in script
    script = script.replace(lines, "\n".join(pad + line for line in twin.splitlines()))
    elsewhere = Ceremonies(offline.site, false)
    held = elsewhere.hold(script.encode(), body)
    assert "no authority that is known here has signed it" in await said(offline.bring(held.result))


async def test_a_ceremony_that_comes_too_late_signs_nothing(offline: Ceremonies) -> None:
    await founded(offline)
    body = await asks(offline.site)
    now = offline.site.inst.clock()
    offline.site.inst.clock = lambda: now + timedelta(days=29)
    assert offline.hold(offline.plan(body, under="root"), body)
    offline.site.inst.clock = lambda: now + timedelta(days=32)
    with pytest.raises(Problem, match="ends before"):
        offline.hold(offline.plan(body, under="root"), body)


# ── REST ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    with rest(fresh_url(request.param, tmp_path_factory.mktemp("rest"), postgres)) as made:
        yield made


URL = "/api/v1/authorities/other/cross-certificates/requests"


def test_rest_asks_and_takes_back(api: Api) -> None:
    api.run(add_recorded(api.inst, "other", root="other-root"))
    _, auditor = api.person("crossing-auditor", {"role": "auditor", "authority": None})
    assert api.call("POST", URL, {"by": "root"}, token=auditor).code == "RW-FORBIDDEN"
    assert api.call("POST", URL + "/withdraw", {"by": "root"}, token=auditor).code == "RW-FORBIDDEN"
    made = api.call("POST", URL, {"by": "root"})
    assert made.status == 201, made.body
    assert (made.json["kind"], made.json["authority"], made.json["subject"]) == ("cross", "root", "other")
    assert (made.json["state"], made.json["csr"]) == ("open", None)
    assert sha256_of(made.json["file"].encode()) == made.json["sha256"]
    waiting = api.call("GET", "/api/v1/ceremony-requests").json["items"]
    assert made.json in waiting
    assert api.call("POST", URL, {"by": "root"}).code == "RW-CONFLICT"
    gone = api.call("POST", URL + "/withdraw", {"by": "root"})
    assert (gone.status, gone.json["state"], gone.json["id"]) == (200, "withdrawn", made.json["id"])
    assert api.call("POST", URL + "/withdraw", {"by": "root"}).code == "RW-NOT-FOUND"
    for body, status, code in (
        ({}, 422, "RW-FIELD"),
        ({"by": 1}, 422, "RW-FIELD"),
        ({"by": ""}, 422, "RW-FIELD"),
        ({"by": "root", "x": 1}, 422, "RW-FIELD"),
        ({"by": "nobody"}, 404, "RW-NOT-FOUND"),
        ({"by": "issuing"}, 409, "RW-CONFLICT"),
    ):
        reply = api.call("POST", URL, body)
        assert (reply.status, reply.code) == (status, code), body
    assert api.call("POST", "/api/v1/authorities/nobody/cross-certificates/requests", {"by": "root"}).status == 404
