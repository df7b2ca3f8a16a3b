"""A CA that was elsewhere comes here, on each kind of store: what would forget a revocation is refused, and where it is
refused nothing stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import adopt, authorities, ending, publish, revoke
from rootward.ca.access import new_token
from rootward.ca.adopt import Arriving
from rootward.ca.founding import FOUNDER
from rootward.ca.installation import Installation
from rootward.ca.results import Beginning
from rootward.core import der, paperwork
from rootward.core.authority import AuthoritySpec
from rootward.core.crl import parse_crl
from rootward.core.crl_entries import Entry
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.fleet import calendar
from rootward.keys.incoming import Incoming
from rootward.store import certificates
from rootward.store.db import Database
from tests.contract.test_authorities import Site, opened
from tests.support.room import Room, now, root_spec
from tests.support.tiers import Tier, issuing, root
from tests.support.world import refused

SERIAL = 0x4142434445
USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
CAS = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
REASONS = frozenset({x509.ReasonFlags.key_compromise})
SOME = x509.IssuingDistributionPoint(None, None, False, False, REASONS, False, False)
OTHERS = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
HERE = x509.IssuingDistributionPoint(
    [x509.UniformResourceIdentifier("http://pki.test/a.crl")], None, False, False, None, False, False
)


@pytest.fixture
def site(db: Database) -> Site:
    """Nothing is founded yet."""
    return Site(opened(db), Room())


def old_ca(name: str = "old") -> Tier:
    return issuing(root("old-root"), name)


def list_of(
    tier: Tier,
    *extensions: x509.ExtensionType,
    serials: Sequence[int] = (SERIAL,),
    number: int = 7,
    reason: x509.ReasonFlags | None = None,
) -> bytes:
    """Its CRL with these entries."""
    at = now() - timedelta(hours=1)
    builder = x509.CertificateRevocationListBuilder().issuer_name(tier.certificate.subject).last_update(at)
    builder = builder.next_update(at + timedelta(days=7))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at - timedelta(days=30))
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    for one in (x509.CRLNumber(number), *extensions):
        builder = builder.add_extension(one, critical=not isinstance(one, x509.CRLNumber))
    return builder.sign(tier.key._private, hashes.SHA256()).public_bytes(Encoding.DER)


def arriving(tier: Tier, name: str = "old", **more: Any) -> Arriving:
    values: dict[str, Any] = {"crl": list_of(tier), "parents": ("old-root",), **more}
    return Arriving(name, tier.issuer.chain, key=Incoming(tier.key._private, ()), **values)


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("extension", [x509.DeltaCRLIndicator(3), USERS, CAS, SOME, OTHERS, UNKNOWN])
async def test_a_list_that_leaves_something_out_is_refused(db: Database, extension: x509.ExtensionType) -> None:
    inst, tier = opened(db), old_ca()
    with pytest.raises(Problem) as caught:
        await adopt.adopt(inst, arriving(tier, crl=list_of(tier, extension)), FOUNDER)
    assert [(one.code, one.field) for one in caught.value.reasons] == [("RW-CERTIFICATE", "crl")]
    assert inst.keys.list() == opened(db).keys.list()


@pytest.mark.invariant("I-16")
async def test_a_full_list_with_its_own_address_is_taken(db: Database) -> None:
    inst, tier = opened(db), old_ca()
    beginning = Beginning(new_token()[1])
    done = await adopt.adopt(inst, arriving(tier, crl=list_of(tier, HERE)), FOUNDER, beginning=beginning)
    assert (done.revoked, done.unknown) == (1, 1)
    current = await publish.current_crl(inst, "old")
    assert current is not None
    assert parse_crl(current.der).revoked(SERIAL.to_bytes(5, "big")) is not None


async def listed(inst: Installation, name: str) -> set[int]:
    current = await publish.current_crl(inst, name)
    assert current is not None
    return {int.from_bytes(one.serial, "big") for one in parse_crl(current.der)}


@pytest.mark.invariant("I-16", "I-17")
@pytest.mark.parametrize("number", [7, 20261125000000, 1 << 61])
async def test_a_roots_list_is_served_and_the_next_one_follows_it(site: Site, number: int) -> None:
    await site.found()
    inst, tier = site.inst, root("old-root")
    crl = list_of(tier, HERE, number=number)
    done = await adopt.adopt(inst, Arriving("old-root", tier.issuer.chain, crl=crl), site.admin)
    assert (done.revoked, done.unknown) == (1, 1)
    served = await publish.current_crl(inst, "old-root")
    assert served is not None
    assert (served.der, served.number) == (crl, number)
    assert [due.at for due in await calendar.dates(inst) if (due.authority, due.what) == ("old-root", "crl")] == [
        served.next_update
    ]
    site.room.keys["old-root"], site.room.issuers["old-root"] = tier.key, inst.authority("old-root").issuer
    with pytest.raises(Problem, match="which is revoked here"):
        await site.bring(site.room.crl("old-root", number + 1))
    asked = await ending.crl_request(inst, "old-root", site.admin)
    wanted = paperwork.read(asked.body, paperwork.Request).wanted
    assert isinstance(wanted, paperwork.SignCrl)
    assert wanted.number > number
    entry = Entry(SERIAL.to_bytes(5, "big"), now(), RevocationReason.SUPERSEDED)
    with pytest.raises(Problem, match="The CRL number is not above the last one"):
        await site.bring(site.room.crl("old-root", number, (entry,)))
    await site.bring(site.room.answer_crl(asked.body))
    assert await listed(inst, "old-root") == {SERIAL}


async def test_a_list_that_could_not_be_served_is_refused(site: Site) -> None:
    await site.found()
    tier = root("old-root")
    site.inst.clock = lambda: now() - timedelta(days=1)
    with pytest.raises(Problem) as caught:
        await adopt.adopt(site.inst, Arriving("old-root", tier.issuer.chain, crl=list_of(tier)), site.admin)
    assert ("RW-CERTIFICATE", "crl") in [(one.code, one.field) for one in caught.value.reasons]


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("kind", ["root", "issuing"])
async def test_a_newer_list_may_follow(site: Site, kind: str) -> None:
    """The CA went on elsewhere until it was here: what it revoked meanwhile is revoked, and nothing is taken back."""
    await site.found()
    inst, tier = site.inst, root("old-root") if kind == "root" else old_ca()
    came = Arriving("old", tier.issuer.chain) if kind == "root" else arriving(tier)
    await adopt.adopt(inst, replace(came, crl=list_of(tier, serials=(5,))), site.admin)
    newer = replace(came, crl=list_of(tier, serials=(5, SERIAL), number=1 << 60))
    done = await adopt.adopt(inst, newer, site.admin)
    assert (done.authorities, done.revoked, done.unknown) == ((), 1, 1)
    assert (await adopt.adopt(inst, newer, site.admin)).revoked == 0
    if kind == "root":
        assert await listed(inst, "old") == {5}  # a ceremony makes the next one
        asked = await ending.crl_request(inst, "old", site.admin)
        site.room.keys["old"], site.room.issuers["old"] = tier.key, inst.authority("old").issuer
        await site.bring(site.room.answer_crl(asked.body))
    else:
        await publish.publish(inst, inst.authority("old"))
    assert await listed(inst, "old") == {5, SERIAL}
    current = await publish.current_crl(inst, "old")
    assert current is not None
    assert current.number > 1 << 60


async def test_a_hold_that_was_released_here_stays_so_when_the_same_list_comes_again(db: Database) -> None:
    inst, tier = opened(db), old_ca()
    crl = list_of(tier, reason=x509.ReasonFlags.certificate_hold)
    came, beginning = arriving(tier, crl=crl), Beginning(new_token()[1])
    assert (await adopt.adopt(inst, came, FOUNDER, beginning=beginning)).revoked == 1
    n, serial = inst.authority("old").n, SERIAL.to_bytes(5, "big")
    row = await db.read(lambda conn: certificates.by_serial(conn, n, serial))
    assert row is not None
    await revoke.release(inst, row.id, FOUNDER)
    assert (await adopt.adopt(inst, came, FOUNDER)).revoked == 0
    later = list_of(tier, number=1 << 60, reason=x509.ReasonFlags.certificate_hold)
    assert (await adopt.adopt(inst, replace(came, crl=later), FOUNDER)).revoked == 1


@pytest.mark.invariant("I-16")
async def test_a_serial_that_is_there_twice_is_there(db: Database) -> None:
    inst, tier = opened(db), old_ca()
    crl, beginning = list_of(tier, serials=(SERIAL, SERIAL)), Beginning(new_token()[1])
    done = await adopt.adopt(inst, arriving(tier, crl=crl), FOUNDER, beginning=beginning)
    assert (done.revoked, done.unknown) == (1, 1)
    assert await listed(inst, "old") == {SERIAL}


@pytest.mark.parametrize("octets", [b"\0", b"\xff"], ids=["zero", "negative"])
async def test_a_serial_that_no_list_of_ours_could_have_is_refused(db: Database, octets: bytes) -> None:
    inst, tier = opened(db), old_ca()
    good = x509.load_der_x509_crl(list_of(tier, serials=(5,)))
    tbs = good.tbs_certlist_bytes.replace(b"\x02\x01\x05\x17", b"\x02\x01" + octets + b"\x17")
    signature = tier.key._private.sign(tbs, ec.ECDSA(hashes.SHA256()))
    crl = der.sequence(tbs, der.children(good.public_bytes(Encoding.DER))[1].whole, der.bit_string(signature))
    with pytest.raises(Problem) as caught:
        await adopt.adopt(inst, arriving(tier, crl=crl), FOUNDER)
    assert "a serial that is none" in caught.value.detail


@pytest.mark.invariant("I-22")
async def test_a_ca_that_its_root_has_revoked_does_not_come(site: Site) -> None:
    await site.found()
    tier = old_ca()
    crl = list_of(root("old-root"), serials=(tier.certificate.serial_number,))
    await adopt.adopt(site.inst, Arriving("old-root", tier.issuer.chain[1:], crl=crl), site.admin)
    before = site.inst.keys.list()
    assert await refused(adopt.adopt(site.inst, arriving(tier, parents=()), site.admin)) == "RW-CONFLICT"
    assert site.inst.keys.list() == before


@pytest.mark.invariant("I-38")
@pytest.mark.parametrize("label", ["rootward-tls", "log", "ocsp-old"])
async def test_no_cas_key_is_filed_as_one_of_our_own(db: Database, label: str) -> None:
    inst = opened(db)
    before = inst.keys.list()
    assert await refused(adopt.adopt(inst, arriving(old_ca(), label=label), FOUNDER)) == "RW-FIELD"
    assert inst.keys.list() == before


async def test_a_name_that_is_taken_is_refused_and_the_key_stays_outside(site: Site) -> None:
    await site.found()
    before, tier = site.inst.keys.list(), old_ca("taken")
    assert await refused(adopt.adopt(site.inst, arriving(tier, "issuing"), site.admin)) == "RW-CONFLICT"
    assert await refused(adopt.adopt(site.inst, arriving(tier, parents=("root",)), site.admin)) == "RW-CONFLICT"
    await site.create("waiting")
    fresh = site.inst.keys.list()
    assert await refused(adopt.adopt(site.inst, arriving(tier, "waiting"), site.admin)) == "RW-CONFLICT"
    assert site.inst.keys.list() == fresh
    assert len(fresh) == len(before) + 1


@pytest.mark.parametrize("parent", ["root", "issuing", "waiting", "mine"])
async def test_somebody_elses_ca_gets_no_name_that_is_taken(site: Site, parent: str) -> None:
    """Neither an authority's, nor that of one that waits: it would lose its key and its request."""
    await site.found()
    spec = AuthoritySpec("mine", "issuing", "Test mine", organization="Test")
    await authorities.create(site.inst, spec, None, "memory", site.admin)
    await site.create("waiting")
    other = Room()
    other.make(root_spec("theirs"))
    request = (await authorities.request(site.inst, "mine"))[1].body
    chain = other.certify(request, by="theirs").certificate + other.issuers["theirs"].pem()
    assert await refused(authorities.install(site.inst, "mine", chain.encode(), (parent,), site.admin)) == "RW-CONFLICT"
    assert {one.name for one in await authorities.waiting(site.inst)} == {"mine", "waiting"}
    assert await authorities.install(site.inst, "mine", chain.encode(), ("theirs",), site.admin) == ["theirs", "mine"]
