"""A CA that was elsewhere comes here, on each kind of store: what would forget a revocation is refused, and where it is
refused nothing stays.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import adopt, authorities, publish
from rootward.ca.access import new_token
from rootward.ca.adopt import Arriving
from rootward.ca.founding import FOUNDER
from rootward.ca.results import Beginning
from rootward.core.authority import AuthoritySpec
from rootward.core.crl import parse_crl
from rootward.core.problems import Problem
from rootward.keys.incoming import Incoming
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


def list_of(tier: Tier, *extensions: x509.ExtensionType) -> bytes:
    """Its CRL with one entry."""
    at = now() - timedelta(hours=1)
    entry = x509.RevokedCertificateBuilder().serial_number(SERIAL).revocation_date(at - timedelta(days=30)).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(tier.certificate.subject).last_update(at)
    builder = builder.next_update(at + timedelta(days=7)).add_revoked_certificate(entry)
    for one in (x509.CRLNumber(7), *extensions):
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
