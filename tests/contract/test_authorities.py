"""From an empty home to an installation, and every later authority: asked for, certified in a ceremony, revoked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from rootward.ca import acts, authorities, certified, compromise, ending, freeze, own, publish, results
from rootward.ca.access import Caller, Principal, authenticate, new_token
from rootward.ca.certified import Certified as Made
from rootward.ca.founding import FOUNDER, Beginning
from rootward.ca.installation import SINGLE_TIER, Installation
from rootward.ca.issue import issue
from rootward.ca.revoke import revoke, revoke_by_serial
from rootward.core import paperwork
from rootward.core.crl import parse_crl
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.issuer import MAX_CHAIN
from rootward.core.paperwork import Certified, SignedCrl
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from rootward.keys import NotSigned, SignatureUnknown, check_fits
from rootward.store import authorities as store
from rootward.store import certificates, events, facts
from rootward.store import paperwork as papers
from rootward.store.db import Database
from rootward.store.failpoint import armed
from tests.support.authority import DAY, NOW, Authority, key_usage
from tests.support.installation import PKI_URL, SEALER, memory_keys
from tests.support.room import ANNA, BEN, Room, root_spec, spec
from tests.support.world import ask, issued, refused


@dataclass
class Site:
    """An installation that began as an empty home, and the room where its root is."""

    inst: Installation
    room: Room
    admin: Caller = FOUNDER

    async def create(self, name: str, parent: str | None = "root", **more: Any) -> bytes:
        """A new authority is asked for; the file that travels."""
        await authorities.create(self.inst, spec(name, **more), parent, "memory", self.admin)
        return (await authorities.request(self.inst, name))[1].body

    async def bring(self, *made: Certified | SignedCrl, signers: Any = (), **changes: Any) -> None:
        """A result with these comes back and is taken in."""
        result = self.room.result(*made)
        vouched = self.room.vouched(result, *signers, **changes)
        await results.take_in(self.inst, result, paperwork.write(result), vouched, self.admin)

    async def found(self) -> None:
        """Root and issuing authority, by a first ceremony."""
        request = await self.create("issuing")
        root = self.room.make(root_spec())
        result = self.room.result(root, self.room.certify(request), self.room.crl("root"))
        token, digest = new_token()
        await results.take_in(
            self.inst,
            result,
            paperwork.write(result),
            self.room.vouched(result),
            FOUNDER,
            beginning=Beginning(digest),
        )
        self.admin = Caller(await authenticate(self.inst, token), "req_admin")

    async def kinds(self) -> list[str]:
        """All events, oldest first."""
        found = await self.inst.db.read(lambda conn: events.page(conn, after=0, limit=10_000))
        return [event.kind for event in found]


def opened(db: Database, keys: Any = None) -> Installation:
    """A process of the installation in this store."""
    return Installation(
        db=db, keys=keys or memory_keys(), sealer=SEALER, pki_url=PKI_URL, external_url="https://localhost:8443"
    )


@pytest.fixture
def site(db: Database) -> Site:
    """Nothing is founded yet."""
    return Site(opened(db), Room())


def reasons(caught: pytest.ExceptionInfo[Problem]) -> str:
    return " ".join(reason.detail for reason in caught.value.reasons)


async def test_an_empty_home_is_founded_by_its_first_result(site: Site) -> None:
    await site.found()
    inst = site.inst
    assert {name: one.state for name, one in inst.authorities.items()} == {"root": "offline", "issuing": "active"}
    assert await publish.current_crl(inst, "root") is not None
    assert await publish.current_crl(inst, "issuing") is not None
    made = issued(await issue(inst, ask(), site.admin))
    assert made.authority == "issuing"
    fact = await inst.db.read(lambda conn: facts.get(conn, "installation.founded"))
    assert fact is not None
    assert fact.data == ""  # no lab
    assert await results.participants(inst) == dict([ANNA, BEN])
    kinds = await site.kinds()
    assert kinds[:2] == ["authority.requested", "authority.certified"]
    assert {"ceremony.imported", "installation.founded", "crl.published"} <= set(kinds)


@pytest.mark.parametrize("error", [NotSigned("not now"), SignatureUnknown("gone")], ids=["not signed", "unknown"])
async def test_a_key_that_does_not_sign_yet_holds_no_founding_up(site: Site, error: Exception) -> None:
    """As with a signer that does not have the certificate yet: its first CRL comes later, from the worker."""

    def away(*_: object) -> bytes:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "sign", away)
        await site.found()
    assert site.inst.authority("issuing").state == "active"
    assert await publish.current_crl(site.inst, "issuing") is None
    await publish.publish(site.inst, site.inst.authority("issuing"))
    assert await publish.current_crl(site.inst, "issuing") is not None


async def test_somebody_elses_root_founds_an_empty_home(site: Site) -> None:
    request = await site.create("issuing", parent=None)
    root = site.room.make(root_spec("corp"))
    made = site.room.certify(request, by="corp")
    chain = (made.certificate + root.certificate).encode()
    beginning = Beginning(new_token()[1])
    names = await authorities.install(site.inst, "issuing", chain, ["corp"], FOUNDER, beginning=beginning)
    assert names == ["corp", "issuing"]
    assert site.inst.authority("corp").settings.external
    assert await publish.current_crl(site.inst, "issuing") is not None
    assert "installation.founded" in await site.kinds()


async def test_a_later_authority_is_live_at_once_and_in_other_processes(site: Site) -> None:
    await site.found()
    other = opened(site.inst.db, site.inst.keys)
    await other.load_authorities()
    own.register(other)
    request = await site.create("issuing-2", key_algorithm=KeyAlgorithm.P384)
    assert "issuing-2" not in site.inst.authorities
    await site.bring(site.room.certify(request))
    assert site.inst.authority("issuing-2").state == "active"
    assert await publish.current_crl(site.inst, "issuing-2") is not None
    assert await certified.learn_new(other) == ["issuing-2"]
    assert await certified.learn_new(other) == []
    assert other.authority("issuing-2").key is not None
    assert "ocsp:issuing-2" in other.own_profiles


async def test_an_online_parent_certifies_once_a_second_person_agrees(site: Site) -> None:
    request = await site.create("issuing", path_length=1)
    root = site.room.make(root_spec())
    result = site.room.result(root, site.room.certify(request), site.room.crl("root"))
    token, digest = new_token()
    vouched = site.room.vouched(result)
    await results.take_in(site.inst, result, paperwork.write(result), vouched, FOUNDER, beginning=Beginning(digest))
    site.admin = Caller(await authenticate(site.inst, token), "req_admin")
    made = await authorities.create(site.inst, spec("below", lifetime="1y"), "issuing", "memory", site.admin)
    assert await authorities.settle(site.inst) == []
    proposal = await authorities.proposal(site.inst, made, site.admin)
    assert proposal is not None
    await acts.approve(site.inst, proposal.id, None, site.admin)  # the single person at first
    assert await authorities.settle(site.inst) == ["below"]
    assert await authorities.settle(site.inst) == []
    below = site.inst.authority("below")
    assert (below.state, len(below.issuer.chain)) == ("active", 3)
    assert await publish.current_crl(site.inst, "below") is not None
    # One person alone revokes it by no other door: it would go on issuing.
    serial = below.issuer.serial
    row = await site.inst.db.read(lambda conn: certificates.by_serial(conn, site.inst.authority("issuing").n, serial))
    assert row is not None
    for alone in (
        revoke(site.inst, row.id, RevocationReason.SUPERSEDED, site.admin),
        revoke_by_serial(site.inst, "issuing", serial, RevocationReason.SUPERSEDED, site.admin),
    ):
        assert await refused(alone) == "RW-CONFLICT"
    told = site.inst.process.told
    with armed("store.write:fail_persisted:1"):
        assert await refused(ending.revoke(site.inst, "below", RevocationReason.SUPERSEDED, site.admin)) == "RW-STORE"
    assert site.inst.process.told > told  # an OCSP answer that is kept is old by it
    await freeze.look_again(site.inst)
    assert site.inst.authority("below").state == "retired"


async def test_three_tiers_come_in_one_result(site: Site) -> None:
    request = await site.create("issuing", parent="policy")
    root = site.room.make(root_spec())
    policy = site.room.make(spec("policy", "issuing", path_length=1, lifetime="8y"), by="root")
    made = [root, Certified("policy", "policy", policy.certificate), site.room.certify(request)]
    result = site.room.result(*made, site.room.crl("root"), site.room.crl("policy"))
    await results.take_in(
        site.inst,
        result,
        paperwork.write(result),
        site.room.vouched(result),
        FOUNDER,
        beginning=Beginning(new_token()[1]),
    )
    assert [one.subject for one in site.inst.authority("issuing").issuer.chain[1:]] == [
        site.room.issuers["policy"].certificate.subject,
        site.room.issuers["root"].certificate.subject,
    ]
    assert site.inst.authority("policy").kind == "policy"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "issuing"}, "RW-CONFLICT"),
        ({"name": "ocsp-x"}, "RW-FIELD"),
        ({"name": "No"}, "RW-FIELD"),
        ({"kind": "root"}, "RW-CEREMONY"),
        ({"lifetime": "x"}, "RW-VALIDITY"),
        ({"path_length": 7}, "RW-CEREMONY"),
        ({"common_name": ""}, "RW-CSR-SUBJECT"),
    ],
)
async def test_what_cannot_become_an_authority_leaves_no_key(site: Site, changes: dict[str, Any], code: str) -> None:
    await site.found()
    before = site.inst.keys.list()
    wanted = AuthoritySpec(**{"name": "new", "kind": "issuing", "common_name": "New", **changes})
    assert await refused(authorities.create(site.inst, wanted, "root", "memory", site.admin)) == code
    assert site.inst.keys.list() == before
    assert await authorities.waiting(site.inst) == ()


async def test_who_is_no_system_admin_asks_for_nothing(site: Site) -> None:
    await site.found()
    other = Caller(Principal("p", "person", "eve", (Grant(Role.ADMIN), Grant(Role.OFFICER))), "req_eve")
    result = site.room.result()
    vouched = site.room.vouched(result)
    for wanted in (
        authorities.create(site.inst, spec("x"), "root", "memory", other),
        authorities.withdraw(site.inst, "x", other),
        authorities.install(site.inst, "x", b"", (), other),
        results.take_in(site.inst, result, b"", vouched, other),
    ):
        assert await refused(wanted) == "RW-FORBIDDEN"


async def test_a_store_that_could_not_sign_its_crl_is_refused(site: Site) -> None:
    await site.found()

    class Small:
        name = "small"
        algorithms = frozenset({KeyAlgorithm.ED25519})

        def max_message_of(self, _algorithm: KeyAlgorithm) -> int:
            return 4096

    small: Any = Small()
    for algorithm in (KeyAlgorithm.ED25519, KeyAlgorithm.P256):
        with pytest.raises(Problem) as caught:
            check_fits(small, algorithm)
        assert caught.value.code == "RW-KEY-TYPE"
    assert await refused(authorities.create(site.inst, spec("x"), "root", "nowhere", site.admin)) == "RW-CONFIG"
    assert await refused(authorities.create(site.inst, spec("x"), "nobody", "memory", site.admin)) == "RW-NOT-FOUND"


async def test_what_was_withdrawn_is_answered_no_more(site: Site) -> None:
    await site.found()
    request = await site.create("issuing-2")
    await authorities.withdraw(site.inst, "issuing-2", site.admin)
    assert [label for label, _ in site.inst.keys.list() if label == "issuing-2"] == []
    with pytest.raises(Problem) as caught:
        await site.bring(site.room.certify(request))
    assert "was withdrawn" in reasons(caught)
    await site.create("issuing-2")  # the name is free again
    with pytest.raises(Problem) as caught:
        await site.bring(site.room.certify(request))
    assert "issuing-2" not in site.inst.authorities


async def test_a_result_comes_in_once(site: Site) -> None:
    await site.found()
    request = await site.create("issuing-2")
    result = site.room.result(site.room.certify(request))
    data, vouched = paperwork.write(result), site.room.vouched(result)
    await results.take_in(site.inst, result, data, vouched, site.admin)
    assert await refused(results.take_in(site.inst, result, data, vouched, site.admin)) == "RW-CONFLICT"
    again = site.room.result(*result.certificates)  # the same certificate in another ceremony's clothes
    await results.take_in(site.inst, again, paperwork.write(again), site.room.vouched(again), site.admin)
    assert [row.title for row in await results.listed(site.inst, before=None, limit=9)] == ["A test's ceremony"] * 3
    other = site.room.certify(request)
    with pytest.raises(Problem) as caught:
        await site.bring(other)
    assert "already, with another certificate" in reasons(caught)


@pytest.mark.parametrize(
    ("signers", "why"),
    [
        ([ANNA], "It needs the signatures of 2"),
        ([ANNA, ("eve", "e" * 64)], "signed by 1 of the participants"),
        ([("eve", "e" * 64), ("mallory", "f" * 64)], "signed by 0 of the participants"),
        ([ANNA, ("ben", "a" * 64)], "It needs the signatures of 2"),
        ([ANNA, ("ben", "c" * 64)], "signed by 1 of the participants"),
    ],
)
async def test_only_known_participants_count(site: Site, signers: Any, why: str) -> None:
    await site.found()
    request = await site.create("issuing-2")
    with pytest.raises(Problem) as caught:
        await site.bring(site.room.certify(request), signers=signers)
    assert why in reasons(caught)


async def test_a_new_participant_comes_by_a_script_that_old_ones_signed(site: Site) -> None:
    await site.found()
    carl = ("carl", "c" * 64)
    await site.bring(participants=dict([ANNA, carl]))
    request = await site.create("issuing-2")
    await site.bring(site.room.certify(request), signers=[carl, BEN])
    assert set(await results.participants(site.inst)) == {"anna", "ben", "carl"}
    assert await refused(results.forget(site.inst, "dora", site.admin)) == "RW-NOT-FOUND"
    assert set(await results.forget(site.inst, "ben", site.admin)) == {"anna", "carl"}
    assert await refused(results.forget(site.inst, "anna", site.admin)) == "RW-CONFLICT"
    request = await site.create("issuing-3")
    with pytest.raises(Problem) as caught:
        await site.bring(site.room.certify(request), signers=[carl, BEN])
    assert "signed by 1 of the participants" in reasons(caught)


async def test_a_lab_result_is_for_labs(site: Site) -> None:
    await site.found()
    request = await site.create("issuing-2")
    with pytest.raises(Problem) as caught:
        await site.bring(site.room.certify(request), lab=True)
    assert "It is a lab's" in reasons(caught)


async def test_results_of_another_installation_or_of_other_words_are_refused(site: Site) -> None:
    await site.found()
    request = await site.create("issuing-2")
    good = site.room.certify(request)
    other = Room()
    other.make(root_spec())
    for wrong, why in (
        (Certified("issuing-2", "issuing", good.certificate, "somebody-elses"), "of another installation"),
        (Certified("issuing-2", "issuing", good.certificate), "answers no request of ours"),
        (Certified("issuing-3", "issuing", good.certificate, good.request), "is about issuing-2"),
        (site.room.certify(request, lifetime="6y"), "lasts longer"),
        (site.room.certify(request, common_name="Eve"), "Its subject is"),
        (site.room.certify(request, path_length=1), "Its path length is 1"),
        (other.certify(request), "no authority that is known here has signed it"),
        (Certified("issuing-2", "issuing", "-----BEGIN", good.request), "cannot be read"),
        (Certified("root-2", "root", good.certificate), "it did not sign itself"),
    ):
        with pytest.raises(Problem) as caught:
            await site.bring(wrong)
        assert why in reasons(caught), reasons(caught)
        assert "issuing-2" not in site.inst.authorities
    key = memory_keys().generate("x", KeyAlgorithm.P256)
    swapped = site.room._sign(spec("issuing-2"), key.public, "root", None)
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = swapped.public_bytes(Encoding.PEM).decode()
    with pytest.raises(Problem) as caught:
        await site.bring(Certified("issuing-2", "issuing", pem, good.request))
    assert "for another key" in reasons(caught)
    asked = paperwork.read(request, paperwork.Request)
    with pytest.raises(Problem) as caught:  # a list that would close the request for the authority
        await site.bring(site.room.crl("root", request=asked.id))
    assert "not about a CRL of root" in reasons(caught)
    await site.bring(good)


@pytest.mark.invariant("I-16", "I-22")
async def test_a_revoked_authority_issues_nothing_and_stands_in_the_next_crl_of_its_parent(site: Site) -> None:
    await site.found()
    inst = site.inst
    before = issued(await issue(inst, ask(), site.admin))
    await ending.revoke(inst, "issuing", RevocationReason.CA_COMPROMISE, site.admin)
    assert await refused(issue(inst, ask(), site.admin)) == "RW-FROZEN"
    assert inst.authority("issuing").state == "retired"
    asked = await ending.crl_request(inst, "root", site.admin)
    assert (await ending.crl_request(inst, "root", site.admin)).id == asked.id  # nothing has changed
    with pytest.raises(Problem) as caught:  # one that forgets it
        await site.bring(site.room.crl("root"))
    assert "which is revoked here" in reasons(caught)
    await site.bring(site.room.answer_crl(asked.body))
    current = await publish.current_crl(inst, "root")
    assert current is not None
    serial = inst.authority("issuing").issuer.serial
    found = parse_crl(current.der).revoked(serial)
    assert found is not None
    assert found.reason is RevocationReason.CA_COMPROMISE
    with pytest.raises(Problem) as caught:  # an old list again
        await site.bring(site.room.answer_crl(asked.body))
    assert "number" in reasons(caught)
    assert (await publish.publish(inst, inst.authority("issuing"))).number  # its own CRL goes on
    assert before.issuer == inst.authority("issuing").n
    done = await inst.db.read(lambda conn: papers.request(conn, asked.id))
    assert done is not None
    assert done.answered_at is not None
    assert await refused(ending.revoke(inst, "root", RevocationReason.CA_COMPROMISE, site.admin)) == "RW-CONFLICT"
    with pytest.raises(Problem) as caught:
        await ending.revoke(inst, "issuing", RevocationReason.SUPERSEDED, site.admin)
    assert caught.value.code == "RW-ALREADY-REVOKED"


@pytest.mark.invariant("I-22")
async def test_what_a_ceremony_revoked_is_revoked_here_too(site: Site) -> None:
    """An authority whose certificate its parent's list has issues nothing more, whoever decided that."""
    from rootward.core.crl_entries import Entry

    await site.found()
    inst = site.inst
    serial = inst.authority("issuing").issuer.serial
    entry = Entry(serial, site.inst.clock(), RevocationReason.SUPERSEDED)
    number = (await publish.current_crl(inst, "root")).number + 1  # type: ignore[union-attr]  # there is one
    await site.bring(site.room.crl("root", number, (entry,)))
    under = await inst.db.read(lambda conn: publish.must_list(conn, inst.authority("root")))
    assert [(one.serial, one.reason) for one in under] == [(serial.hex(), "superseded")]
    assert await refused(issue(inst, ask(), site.admin)) == "RW-FROZEN"
    assert (await publish.publish(inst, inst.authority("issuing"))).number  # its own CRL goes on
    assert (await site.kinds()).count("authority.retired") == 1
    assert inst.authority("issuing").state == "retired"


@pytest.mark.invariant("I-36")
@pytest.mark.parametrize("kind", ["root", "policy", "issuing"])
async def test_a_root_with_an_online_key_is_loaded_by_no_row(site: Site, kind: str) -> None:
    await site.found()
    inst = site.inst
    change = text("UPDATE authorities SET kind = :kind WHERE name = 'root'").bindparams(kind=kind)
    await inst.db.write(lambda conn: conn.execute(change))
    await inst.db.write(
        lambda conn: conn.execute(text("UPDATE issuers SET backend = 'memory' WHERE authority = 'root'"))
    )
    await inst.db.write(facts.put_once(SINGLE_TIER, at=inst.clock()))
    again = opened(inst.db, inst.keys)
    assert await refused(again.load_authorities()) == "RW-CEREMONY"


@pytest.mark.invariant("I-46")
async def test_no_chain_is_longer_than_what_is_loaded(site: Site) -> None:
    """A root that is cut off would forbid nothing any more."""
    inst = site.inst
    outer = x509.NameConstraints(None, [x509.DNSName("evil.internal")])
    above = Authority("CA 1", path_length=20, extensions=[(outer, True)])
    made = [Made("ca1", "root", None, above.certificate)]
    for n in range(2, MAX_CHAIN + 2):
        above = Authority(f"CA {n}", above, path_length=20)
        made.append(Made(f"ca{n}", "policy", f"ca{n - 1}", above.certificate))
    for one in made[:-1]:
        await inst.db.write(partial(certified.keep, inst=inst, one=one, caller=FOUNDER))
    await certified.begin(inst)
    lowest = inst.authority(f"ca{MAX_CHAIN}").issuer
    assert (len(lowest.chain), lowest.constraints) == (MAX_CHAIN, (outer,))
    with pytest.raises(Problem) as caught:
        await inst.db.write(partial(certified.keep, inst=inst, one=made[-1], caller=FOUNDER))
    assert caught.value.code == "RW-CONFLICT"
    last = made[-1]
    rows = store.add(last.name, last.kind, parent=last.parent, settings="{}", at=inst.clock())
    der = last.certificate.public_bytes(Encoding.DER)
    rows += store.add_issuer(last.name, key_id=last.key_id, certificate=der, backend=None, at=inst.clock())
    await inst.db.write(rows)  # by whoever wrote it
    assert await refused(opened(inst.db, inst.keys).load_authorities()) == "RW-CEREMONY"


@pytest.mark.invariant("I-36")
@pytest.mark.parametrize("place", [1, 2], ids=["the root", "another one above"])
async def test_no_certificate_of_somebody_else_has_the_name_of_a_ca_above(site: Site, place: int) -> None:
    """Named as the root is, it would be taken for a root with an online key, by every start from then on."""
    tiers = [Authority("Corp Root CA")]
    tiers.insert(0, Authority("Corp Policy CA", tiers[0]))
    named = tiers[-place].name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    wanted = AuthoritySpec("issuing", "issuing", str(named))
    await authorities.create(site.inst, wanted, None, "memory", FOUNDER)
    pending, _ = await authorities.request(site.inst, "issuing")
    mine = parse_csr(x509.load_der_x509_csr(pending.csr).public_bytes(Encoding.PEM)).public_key
    made = (
        x509.CertificateBuilder()
        .subject_name(tiers[-place].name)
        .issuer_name(tiers[0].name)
        .public_key(mine.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(mine.identifier), critical=False)
        .sign(tiers[0].key, hashes.SHA256())
    )
    chain = "".join([made.public_bytes(Encoding.PEM).decode(), *(one.pem for one in tiers)]).encode()
    with pytest.raises(Problem) as caught:
        await authorities.install(site.inst, "issuing", chain, ["policy", "corp"], FOUNDER)
    assert "is that of a CA above" in reasons(caught)
    await opened(site.inst.db, site.inst.keys).load_authorities()


@pytest.mark.invariant("I-22")
async def test_nothing_becomes_an_authority_under_one_that_has_stopped(site: Site) -> None:
    """Neither in its place, nor by a certificate that was asked for before."""
    await site.found()
    inst, admin = site.inst, site.admin
    asked = await site.create("two")
    await ending.revoke(inst, "issuing", RevocationReason.CA_COMPROMISE, admin)
    for successor in ("two", "issuing"):
        assert await refused(compromise.propose(inst, "root", successor, None, None, admin)) == "RW-CONFLICT"
    stolen = await compromise.propose(inst, "root", None, "the safe was opened", None, admin)
    await acts.approve(inst, stolen.id, None, admin)
    for _ in range(2):
        assert await refused(site.bring(site.room.certify(asked))) == "RW-CONFLICT"
    assert "two" not in inst.authorities
    assert await refused(authorities.create(inst, spec("three"), "root", "memory", admin)) == "RW-CONFLICT"
    await authorities.withdraw(inst, "two", admin)


@pytest.mark.invariant("I-22")
async def test_somebody_elses_root_that_is_compromised_certifies_no_other(site: Site) -> None:
    root = site.room.make(root_spec("corp"))
    chains = {}
    for name in ("issuing", "two"):
        made = site.room.certify(await site.create(name, parent=None), by="corp")
        chains[name] = (made.certificate + root.certificate).encode()
    token, digest = new_token()
    beginning = Beginning(digest)
    await authorities.install(site.inst, "issuing", chains["issuing"], ["corp"], FOUNDER, beginning=beginning)
    admin = Caller(await authenticate(site.inst, token), "req_admin")
    for name in ("issuing", "corp"):
        made = await compromise.propose(site.inst, name, None, "stolen", None, admin)
        await acts.approve(site.inst, made.id, None, admin)
    assert await refused(authorities.install(site.inst, "two", chains["two"], [], admin)) == "RW-CONFLICT"
    assert "two" not in site.inst.authorities
