"""What a CRL out of a ceremony brings besides the revocation, in its transaction, on each kind of store: an authority's
own certificate in it ends the authority, and a cross-signed one leads nobody there any more.
"""

from __future__ import annotations

import base64
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, delete, update

from rootward.ca import acts, adopt, aftermath, compromise, cross, ending, filing, publish, revoke
from rootward.ca.access import SYSTEM
from rootward.ca.recall import recall
from rootward.core.capture import assemble
from rootward.core.crl import parse_crl
from rootward.core.crl_entries import Entry
from rootward.core.foreign import read_foreign
from rootward.core.paperwork import SignedCrl
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.protocols.acme.download import chains_of
from rootward.store import authorities, certificates, events
from rootward.store import paperwork as papers
from rootward.store.certificates import Certificate
from rootward.store.db import Database
from rootward.store.events import Event
from rootward.store.proposals import Proposal
from rootward.store.schema import authorities as table
from rootward.store.schema import certificates as inventory
from tests.contract.test_authorities import Site, opened
from tests.contract.test_crossing import asks, certificate, said, two_roots
from tests.contract.test_filing import beside, differences
from tests.support.room import Room, now, spec
from tests.support.world import refused

SUPERSEDED, HOLD = RevocationReason.SUPERSEDED, RevocationReason.CERTIFICATE_HOLD


@pytest.fixture
def site(db: Database) -> Site:
    return Site(opened(db), Room())


async def told(site: Site, kind: str, authority: str | None = None) -> list[Event]:
    """The events of that kind, the oldest first."""
    wanted = events.Filters(kind=kind, authority=authority)
    return [*await site.inst.db.read(lambda conn: events.list(conn, wanted, limit=1000))][::-1]


async def lists(site: Site, by: str, *serials: bytes, reason: RevocationReason = SUPERSEDED) -> SignedCrl:
    """The next CRL of an offline authority."""
    last = await publish.current_crl(site.inst, by)
    assert last is not None
    return site.room.crl(by, last.number + 1, tuple(Entry(one, site.inst.clock(), reason) for one in serials))


def serial(one: x509.Certificate) -> bytes:
    return one.serial_number.to_bytes(20, "big")


async def row_of(site: Site, by: str, number: bytes) -> Certificate:
    n = site.inst.authority(by).n
    found = await site.inst.db.read(lambda conn: certificates.by_serial(conn, n, number))
    assert found is not None
    return found


# ── An authority's own certificate ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-22", "I-56")
async def test_an_authority_that_its_parents_list_has_is_revoked_as_by_two_people(site: Site) -> None:
    await two_roots(site)
    await asks(site, "issuing-2", "root")
    await asks(site, "root", "root-2")
    mine = site.inst.authority("issuing-2").issuer.serial
    await site.bring(await lists(site, "root-2", mine))
    assert site.inst.authority("issuing-2").state == "retired"
    (event,) = await told(site, "authority.revoked")
    assert event.authority == "issuing-2"
    assert event.actor == site.admin.principal.id
    assert event.values() == {"reason": "superseded", "serial": mine.hex(), "parent": "root-2"}
    (taken_back,) = await told(site, "authority.cross-withdrawn")
    assert (taken_back.authority, taken_back.values()["by"]) == ("issuing-2", "root")
    assert [one.subject for one in await site.inst.db.read(papers.open_requests)] == ["root"]  # of two who go on
    await site.bring(await lists(site, "root-2", mine))
    assert [len(await told(site, f"authority.{what}")) for what in ("revoked", "cross-withdrawn", "retired")] == [1] * 3
    assert await site.inst.db.read(differences) == []


@pytest.mark.invariant("I-22")
async def test_what_a_revoked_authority_was_asked_to_sign_is_taken_back(site: Site) -> None:
    await two_roots(site)
    policy = site.room.make(spec("policy", "policy", path_length=1, lifetime="8y"), by="root-2")
    await site.bring(policy, site.room.crl("policy"))
    await asks(site, "issuing", "policy")
    await site.bring(await lists(site, "root-2", serial(certificate(policy))))
    assert [one.authority for one in await told(site, "authority.revoked")] == ["policy"]
    assert await site.inst.db.read(papers.open_requests) == ()


async def test_a_hold_that_becomes_final_is_said_once(site: Site) -> None:
    await two_roots(site)
    mine = site.inst.authority("issuing-2").issuer.serial
    await site.bring(await lists(site, "root-2", mine, reason=HOLD))
    await site.bring(await lists(site, "root-2", mine))
    assert [one.values()["reason"] for one in await told(site, "authority.revoked")] == ["certificateHold"]
    assert (await row_of(site, "root-2", mine)).reason == "superseded"


async def test_two_people_say_it_once_and_their_parents_list_no_more(site: Site) -> None:
    await two_roots(site)
    await ending.revoke(site.inst, "issuing-2", SUPERSEDED, site.admin)
    mine = site.inst.authority("issuing-2").issuer.serial
    await site.bring(await lists(site, "root-2", mine))
    (event,) = await told(site, "authority.revoked")
    assert event.values() == {"reason": "superseded", "serial": mine.hex(), "parent": "root-2"}
    assert len(await told(site, "authority.retired")) == 1


@pytest.mark.invariant("I-56")
async def test_a_list_that_is_refused_says_nothing(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    other = await lists(site, "root-2", site.inst.authority("issuing-2").issuer.serial)
    twice = site.room.crl("root", 1)  # not above the last one
    with pytest.raises(Problem):
        await site.bring(made, other, twice)
    assert await told(site, "authority.revoked") == []
    assert site.inst.authority("issuing-2").state == "active"
    assert [one.subject for one in await site.inst.db.read(papers.open_requests)] == ["issuing-2"]


@pytest.mark.invariant("I-22")
async def test_its_cross_certificate_and_its_end_in_one_result(site: Site) -> None:
    """What answers its request answers it; the list that ends it must not be held up."""
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made, await lists(site, "root-2", site.inst.authority("issuing-2").issuer.serial))
    assert site.inst.authority("issuing-2").state == "retired"
    assert len(await told(site, "authority.revoked")) == 1
    assert await told(site, "authority.cross-withdrawn") == []
    assert await site.inst.db.read(papers.open_requests) == ()
    assert (await row_of(site, "root", serial(certificate(made)))).revoked_at is None
    assert await site.inst.db.read(differences) == []


@pytest.mark.invariant("I-22")
async def test_a_restore_says_it_too(site: Site) -> None:
    await two_roots(site)
    await asks(site, "issuing-2", "root")
    crl = base64.b64decode((await lists(site, "root-2", site.inst.authority("issuing-2").issuer.serial)).crl)
    for _ in range(2):
        await site.inst.db.write(lambda conn: recall(conn, crl, at=site.inst.clock()))
    assert [one.actor for one in await told(site, "authority.revoked")] == [SYSTEM]
    assert await site.inst.db.read(papers.open_requests) == ()


async def known_by_its_serial(site: Site) -> bytes:
    """An authority `third` under root-2 of whose certificate the inventory has the serial alone, as an older version
    left it where a hold was released before that came; the serial.
    """
    await two_roots(site)
    made = site.room.certify(await site.create("third", "root-2"))
    number = serial(certificate(made))
    await site.bring(await lists(site, "root-2", number, reason=HOLD))
    await revoke.release(site.inst, (await row_of(site, "root-2", number)).id, site.admin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filing, "file", lambda *_: ("", False))
        await site.bring(made)
    assert (await row_of(site, "root-2", number)).is_bare
    return number


async def has_ended(site: Site, number: bytes) -> bool:
    """Whether `third` has, once, and its row is filled and revoked."""
    row = await row_of(site, "root-2", number)
    assert row.der == site.inst.authority("third").issuer.der
    assert row.reason == "superseded"
    assert [one.authority for one in await told(site, "authority.revoked")] == ["third"]
    assert await site.inst.db.read(differences) == []
    return site.inst.authority("third").state == "retired"


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize("road", ["two people", "list"])
async def test_an_authority_that_is_known_by_its_serial_ends_too(site: Site, road: str) -> None:
    number = await known_by_its_serial(site)
    for _ in range(2):
        if road == "list":
            await site.bring(await lists(site, "root-2", number))
        else:
            await ending.revoke(site.inst, "third", SUPERSEDED, site.admin)
        assert await has_ended(site, number)


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize("road", ["two people", "list"])
async def test_what_an_older_version_did_not_end_ends_when_it_is_said_again(site: Site, road: str) -> None:
    number = await known_by_its_serial(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filing, "_ours", lambda *_: {})
        await site.bring(await lists(site, "root-2", number))
    assert site.inst.authority("third").state == "active"
    if road == "list":
        await site.bring(await lists(site, "root-2", number))
    else:
        proposal = await ending.propose(site.inst, "third", SUPERSEDED, site.admin)
        assert isinstance(proposal, Proposal)
        await ending.revoke(site.inst, "third", SUPERSEDED, site.admin)
    assert await has_ended(site, number)


async def test_an_authority_ends_whichever_signature_of_its_certificate_is_kept(site: Site) -> None:
    number = await known_by_its_serial(site)
    own = site.inst.authority("third").issuer.certificate
    other = x509.load_pem_x509_certificate(signed_again(site, own, "root-2").encode()).public_bytes(Encoding.DER)
    filer = filing.Filer(site.admin, now(), "")

    def came(conn: Connection) -> tuple[str, bool]:
        return filing.file(conn, authorities.list_issuers(conn, "root-2")[-1], read_foreign(other), filer)

    await site.inst.db.write(came)
    await ending.revoke(site.inst, "third", SUPERSEDED, site.admin)
    assert (await row_of(site, "root-2", number)).der == other
    assert site.inst.authority("third").state == "retired"


# ── A cross-signed certificate ──────────────────────────────────────────────────────────────────────────────────────


async def offered(site: Site, name: str) -> int:
    """How many chains there are beside the usual one."""
    return len(await chains_of(site.inst, site.inst.authority(name))) - 1


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("reason", [SUPERSEDED, RevocationReason.KEY_COMPROMISE, HOLD])
async def test_a_cross_certificate_and_the_list_that_has_it_in_one_result(site: Site, reason: RevocationReason) -> None:
    """It is filed, revoked, and leads nobody anywhere."""
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made, await lists(site, "root", serial(certificate(made)), reason=reason))
    row = await row_of(site, "root", serial(certificate(made)))
    assert (row.der, row.reason) == (certificate(made).public_bytes(Encoding.DER), reason.value)
    assert row.revoked_at is not None
    assert await cross.listed(site.inst, "issuing-2") == []
    assert await offered(site, "issuing-2") == 0
    assert await site.inst.db.read(papers.open_requests) == ()
    assert site.inst.authority("issuing-2").state == "active"  # its own certificate is another one
    assert await told(site, "authority.revoked") == []
    assert [one.serial for one in await must_list(site, "root")] == [serial(certificate(made)).hex()]
    assert await site.inst.db.read(differences) == []


async def must_list(site: Site, name: str) -> tuple[publish.Revoked, ...]:
    return await site.inst.db.read(lambda conn: publish.must_list(conn, site.inst.authority(name)))


@pytest.mark.invariant("I-16")
async def test_a_list_that_comes_later_takes_it_out_of_use(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made)
    (kept,) = await cross.listed(site.inst, "issuing-2")
    assert await offered(site, "issuing-2") == 1
    for _ in range(2):
        await site.bring(await lists(site, "root", serial(certificate(made))))
        assert (await cross.listed(site.inst, "issuing-2"), await offered(site, "issuing-2")) == ([], 0)
    (event,) = await told(site, "authority.cross-removed")
    assert (event.authority, event.values()) == ("issuing-2", {"sha256": kept.sha256})


@pytest.mark.invariant("I-16")
async def test_what_is_revoked_is_not_put_to_use_again(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made, await lists(site, "root", serial(certificate(made))))
    chain = (made.certificate + site.inst.authority("root").issuer.pem()).encode()
    assert await refused(cross.add(site.inst, "issuing-2", chain, site.admin)) == "RW-CONFLICT"
    # Also where the serial is all that is known of it.
    bare = delete(inventory).where(inventory.c.serial == serial(certificate(made)))
    await site.inst.db.write(lambda conn: conn.execute(bare).rowcount)
    await site.bring(await lists(site, "root", serial(certificate(made))))
    assert "is revoked by root" in await said(cross.add(site.inst, "issuing-2", chain, site.admin))
    assert await cross.listed(site.inst, "issuing-2") == []


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("before", [None, HOLD])
async def test_a_list_has_one_that_came_by_another_way_than_a_result(
    site: Site, before: RevocationReason | None
) -> None:
    """`ca cross add` puts it into use, and not into the inventory, where its serial may be."""
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await cross.withdraw(site.inst, "issuing-2", "root", site.admin)
    chain = (made.certificate + site.inst.authority("root").issuer.pem()).encode()
    if before is not None:
        await site.bring(await lists(site, "root", serial(certificate(made)), reason=before))
        await revoke.release(site.inst, (await row_of(site, "root", serial(certificate(made)))).id, site.admin)
    await cross.add(site.inst, "issuing-2", chain, site.admin)
    assert await offered(site, "issuing-2") == 1
    await site.bring(await lists(site, "root", serial(certificate(made))))
    assert (await cross.listed(site.inst, "issuing-2"), await offered(site, "issuing-2")) == ([], 0)
    row = await row_of(site, "root", serial(certificate(made)))
    assert (row.der, row.reason) == (certificate(made).public_bytes(Encoding.DER), "superseded")
    assert await site.inst.db.read(differences) == []


async def test_those_of_a_compromised_key_are_out_of_use(site: Site) -> None:
    await two_roots(site)
    await site.bring(site.room.cross(await asks(site, "issuing-2", "root")))
    proposal = await compromise.propose(site.inst, "issuing-2", None, None, None, site.admin)
    await acts.approve(site.inst, proposal.id, None, site.admin)
    assert await cross.listed(site.inst, "issuing-2") == []
    assert len(await told(site, "authority.cross-removed")) == 1


async def test_a_hold_that_is_over_may_be_used_again(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made, await lists(site, "root", serial(certificate(made)), reason=HOLD))
    chain = (made.certificate + site.inst.authority("root").issuer.pem()).encode()
    assert await refused(cross.add(site.inst, "issuing-2", chain, site.admin)) == "RW-CONFLICT"
    await revoke.release(site.inst, (await row_of(site, "root", serial(certificate(made)))).id, site.admin)
    await cross.add(site.inst, "issuing-2", chain, site.admin)
    assert await offered(site, "issuing-2") == 1


@pytest.mark.invariant("I-16")
async def test_those_that_were_revoked_before_and_stayed_in_use_go_with_the_next_list(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aftermath, "_out_of_use", lambda *_: None)
        await site.bring(await lists(site, "root", serial(certificate(made))))
    assert await offered(site, "issuing-2") == 1
    before = await row_of(site, "root", serial(certificate(made)))
    await site.bring(await lists(site, "root", serial(certificate(made))))
    assert (await cross.listed(site.inst, "issuing-2"), await offered(site, "issuing-2")) == ([], 0)
    assert await row_of(site, "root", serial(certificate(made))) == before
    assert await site.inst.db.read(differences) == []


def signed_again(site: Site, one: x509.Certificate, by: str) -> str:
    """The same certificate with another signature, which is as good."""
    key, digest = site.room.keys[by]._private, one.signature_hash_algorithm  # type: ignore[attr-defined]  # a test's own
    signature = key.sign(one.tbs_certificate_bytes, ec.ECDSA(digest))
    assert signature != one.signature
    algorithm = read_foreign(one.public_bytes(Encoding.DER)).algorithm
    made = x509.load_der_x509_certificate(assemble(one.tbs_certificate_bytes, algorithm, signature))
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.invariant("I-16")
async def test_with_another_signature_it_is_the_same_one(site: Site) -> None:
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await site.bring(made)
    chain = (signed_again(site, certificate(made), "root") + site.inst.authority("root").issuer.pem()).encode()
    await cross.add(site.inst, "issuing-2", chain, site.admin)
    await site.bring(await lists(site, "root", serial(certificate(made))))
    assert (await cross.listed(site.inst, "issuing-2"), await offered(site, "issuing-2")) == ([], 0)
    assert await refused(cross.add(site.inst, "issuing-2", chain, site.admin)) == "RW-CONFLICT"


async def under_policy(site: Site) -> tuple[bytes, bytes]:
    """The serial of `policy`, which is under root-2, and the chain (PEM) that leads over it to `issuing`."""
    await two_roots(site)
    policy = site.room.make(spec("policy", "policy", path_length=1, lifetime="8y"), by="root-2")
    await site.bring(policy, site.room.crl("policy"))
    made = site.room.cross(await asks(site, "issuing", "policy"))
    await cross.withdraw(site.inst, "issuing", "policy", site.admin)
    return serial(certificate(policy)), (made.certificate + policy.certificate).encode()


@pytest.mark.invariant("I-16", "I-22")
@pytest.mark.parametrize("road", ["two people", "list"])
async def test_a_chain_leads_nowhere_once_one_above_is_revoked(site: Site, road: str) -> None:
    above, chain = await under_policy(site)
    await cross.add(site.inst, "issuing", chain, site.admin)
    assert await offered(site, "issuing") == 1
    if road == "list":
        await site.bring(await lists(site, "root-2", above))
    else:
        await ending.revoke(site.inst, "policy", SUPERSEDED, site.admin)
    assert (await cross.listed(site.inst, "issuing"), await offered(site, "issuing")) == ([], 0)
    assert len(await told(site, "authority.cross-removed")) == 1
    assert site.inst.authority("issuing").state == "active"
    assert "is revoked by root-2" in await said(cross.add(site.inst, "issuing", chain, site.admin))
    assert await cross.listed(site.inst, "issuing") == []


@pytest.mark.parametrize("column", ["compromised_at", "destroyed_at"])
async def test_nobody_is_led_to_an_authority_that_is_no_more(site: Site, column: str) -> None:
    _, chain = await under_policy(site)
    change = update(table).where(table.c.name == "issuing").values({column: site.inst.clock()})
    await site.inst.db.write(lambda conn: conn.execute(change).rowcount)
    assert "nobody is to be led to it" in await said(cross.add(site.inst, "issuing", chain, site.admin))
    assert await cross.listed(site.inst, "issuing") == []


async def test_nobody_is_led_to_an_authority_that_is_revoked(site: Site) -> None:
    _, chain = await under_policy(site)
    await ending.revoke(site.inst, "issuing", SUPERSEDED, site.admin)
    assert "The certificate of issuing is revoked" in await said(cross.add(site.inst, "issuing", chain, site.admin))


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("first", ["list", "add"])
@pytest.mark.parametrize("road", ["result", "restore", "import"])
async def test_of_a_list_and_what_it_has_at_one_moment_the_second_knows_the_first(
    postgres_db: Database, first: str, road: str
) -> None:
    db = postgres_db
    site = Site(opened(db), Room())
    await two_roots(site)
    made = site.room.cross(await asks(site, "issuing-2", "root"))
    await cross.withdraw(site.inst, "issuing-2", "root", site.admin)
    root = site.inst.authority("root")
    pem = (made.certificate + root.issuer.pem()).encode()
    chain = await cross.read(site.inst, site.inst.authority("issuing-2").issuer, pem)
    der = base64.b64decode((await lists(site, "root", serial(certificate(made)))).crl)
    roads = {
        "result": partial(publish.take, inst=site.inst, authority=root, der=der, caller=site.admin),
        "restore": partial(recall, data=der, at=now()),
        "import": partial(
            adopt._take_list, inst=site.inst, name="root", old=parse_crl(der), there={}, caller=site.admin
        ),
    }
    taking = roads[road]
    if first == "list":
        adding = partial(cross.add, site.inst, "issuing-2", pem, site.admin)
        with pytest.raises(Problem, match="is revoked by root"):
            await beside(taking, db, adding)
    else:
        keeping = partial(cross.keep, authority="issuing-2", chain=chain, caller=site.admin, at=now())
        await beside(keeping, db, partial(db.write, taking))
    assert await cross.listed(site.inst, "issuing-2") == []
    assert (await row_of(site, "root", serial(certificate(made)))).revoked_at is not None


@pytest.mark.invariant("I-16", "I-22")
@pytest.mark.parametrize("first", ["end", "add"])
@pytest.mark.parametrize("whose", ["policy", "issuing"])
async def test_of_an_end_and_a_chain_at_one_moment_the_second_knows_the_first(
    postgres_db: Database, first: str, whose: str
) -> None:
    """Whether it ends who is above in the chain, or who it leads to."""
    site = Site(opened(postgres_db), Room())
    _, pem = await under_policy(site)
    own, parent = site.inst.authority(whose), site.inst.authority("root-2" if whose == "policy" else "root")
    chain = await cross.read(site.inst, site.inst.authority("issuing").issuer, pem)
    act = (own, parent, SUPERSEDED, site.admin, now())
    if first == "end":
        adding = partial(cross.add, site.inst, "issuing", pem, site.admin)
        with pytest.raises(Problem, match="is revoked by"):
            await beside(lambda conn: ending.mark_revoked(conn, *act), postgres_db, adding)
    else:
        keeping = partial(cross.keep, authority="issuing", chain=chain, caller=site.admin, at=now())
        second = partial(postgres_db.write, lambda conn: ending.mark_revoked(conn, *act))
        await beside(keeping, postgres_db, second)
    assert len(await cross.listed(site.inst, "issuing")) == (first == "add" and whose == "issuing")
