"""CAs of other systems under an online authority, on each kind of store: proposed, agreed to by a second person,
certified by the one road, and nothing of the CSR but its key in the certificate.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootward.ca import acts, attempt, authorities, ending, freeze, proposals, revoke, single, subordinate
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.asked import Issued
from rootward.ca.reconcile import reconcile
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from rootward.fleet.books import differences
from rootward.keys import Key, NotSigned
from rootward.store import authorities as authority_rows
from rootward.store import events
from rootward.store.certificates import Certificate
from rootward.store.db import Database
from rootward.store.failpoint import Injected, armed
from rootward.store.proposals import Proposal
from tests.contract.test_authorities import opened
from tests.support.authority import key_usage
from tests.support.rest import Door
from tests.support.tiers import Tier, online
from tests.support.world import APPROVER, OFFICER, World, new_key, refused

SPEC = AuthoritySpec("mesh", "issuing", "The Mesh CA", lifetime="1y", uris=("spiffe://mesh.internal",))


def request(key: Any = None) -> bytes:
    """What SPIRE and AD CS ask for, all in one CSR."""
    text = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "Evil Root"), x509.NameAttribute(NameOID.COUNTRY_NAME, "US")]
    )
    version = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.21.1"), b"\x02\x01\x00")
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(text)
        .add_extension(x509.BasicConstraints(True, 9), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True, digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://other.internal")]), critical=False
        )
        .add_extension(version, critical=True)
    )
    return builder.sign(key or new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


async def tier(lab: World) -> Tier:
    """An online authority that may certify CAs."""
    return await online(lab.inst, lab.inst.keys, lab.admin)


async def propose(lab: World, csr: bytes, caller: Caller | None = None, **changes: Any) -> Proposal:
    spec = msgspec.structs.replace(SPEC, **changes)
    made = await subordinate.propose(lab.inst, "tier", spec, csr, caller or lab.admin)
    assert isinstance(made, Proposal)
    return made


async def certified(lab: World, csr: bytes, **changes: Any) -> Certificate:
    spec = msgspec.structs.replace(SPEC, **changes)
    made = await subordinate.propose(lab.inst, "tier", spec, csr, lab.admin)
    assert isinstance(made, Issued)
    return made.certificate


@pytest.mark.invariant("I-11", "I-40", "I-42", "I-46")
async def test_what_two_people_agree_to_is_certified(lab: World) -> None:
    above = await tier(lab)
    bob = await lab.person("bob", APPROVER)
    csr = request()
    made = await propose(lab, csr)
    assert (await propose(lab, csr)).id == made.id
    assert not [row for row in await lab.rows() if row.profile is None and "Mesh" in row.subject]
    assert (await acts.approve(lab.inst, made.id, None, bob)).status(lab.clock()) == "done"
    row = await certified(lab, csr)
    assert row.der is not None
    certificate = x509.load_der_x509_certificate(row.der)
    certificate.verify_directly_issued_by(above.certificate)
    assert certificate.subject.rfc4514_string() == "CN=The Mesh CA"
    found = {type(one.value): one.value for one in certificate.extensions}
    assert found[x509.BasicConstraints] == x509.BasicConstraints(True, 0)
    assert found[x509.SubjectAlternativeName] == x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier("spiffe://mesh.internal")]
    )
    assert x509.ExtendedKeyUsage not in found
    assert x509.UnrecognizedExtension not in found
    assert found[x509.KeyUsage] == key_usage(key_cert_sign=True, crl_sign=True)
    # The audit log tells of it as of any other certificate, and the row says nothing else.
    facts = await lab.inst.db.read(
        lambda conn: [one for one in events.page(conn, after=0, limit=10_000) if one.certificate == row.id]
    )
    issuers = await lab.inst.db.read(lambda conn: {one.n: one.key_id for one in authority_rows.list_issuers(conn)})
    assert list(differences(row, facts, issuers)) == []
    assert [fact.kind for fact in facts] == ["issue.intended", "issue.done"]
    assert facts[0].values()["proposal"] == made.id
    effect = (await lab.events("proposal.carried-out"))[0].values()["effect"]
    assert effect == {"certificate": row.id}


async def test_it_says_what_was_asked_for_and_what_is_given(lab: World) -> None:
    await tier(lab)
    lines = {
        line["what"]: (line["asked"], line["given"]) for line in (await propose(lab, request())).values()["compared"]
    }
    assert lines["subject"] == ('"CN=Evil Root,C=US"', "CN=The Mesh CA")
    assert lines["path length"] == ("9", "0")
    assert lines["names"] == ('"uri:spiffe://other.internal"', "uri:spiffe://mesh.internal")
    assert lines["key usage"] == ("crl_sign, digital_signature, key_cert_sign", "key_cert_sign, crl_sign")
    assert lines["extended key usage"] == ('"2.5.29.37.0"', "nothing")
    assert "1.3.6.1.4.1.311.21.1" in lines["what nobody gets"][0]  # it is critical


@pytest.mark.invariant("I-42", "I-43")
async def test_who_may(lab: World) -> None:
    await tier(lab)
    for name, grant in (("o", Grant(Role.OFFICER)), ("a", Grant(Role.ADMIN, "issuing")), ("r", Grant(Role.REQUESTER))):
        assert await refused(propose(lab, request(), await lab.person(name, grant))) == "RW-FORBIDDEN"
    ada = await lab.person("ada", Grant(Role.ADMIN, "tier"), APPROVER)
    await lab.person("bob", APPROVER)
    made = await propose(lab, request(), ada)
    assert await refused(acts.approve(lab.inst, made.id, None, ada)) == "RW-SAME-PERSON"


@pytest.mark.invariant("I-46")
async def test_what_is_refused_before_anybody_is_asked(lab: World) -> None:
    await tier(lab)
    csr = request()
    assert await refused(propose(lab, csr, path_length=1)) == "RW-CEREMONY"
    assert await refused(propose(lab, csr, lifetime="9y")) == "RW-VALIDITY"
    assert await refused(propose(lab, csr, common_name="The Tier CA")) == "RW-CSR-SUBJECT"
    assert await refused(propose(lab, csr[:-80] + b"\n")) == "RW-CSR-MALFORMED"
    assert await refused(subordinate.propose(lab.inst, "tier-root", SPEC, csr, lab.admin)) == "RW-CONFLICT"
    assert await refused(subordinate.propose(lab.inst, "issuing", SPEC, csr, lab.admin)) == "RW-CEREMONY"
    assert await refused(subordinate.propose(lab.inst, "none", SPEC, csr, lab.admin)) == "RW-NOT-FOUND"
    key = new_key()
    await lab.issue("a.internal", key=key)
    assert await refused(propose(lab, request(key))) == "RW-KEY-IN-USE"
    await freeze.freeze_by(lab.inst, "tier", None, lab.admin)
    assert await refused(propose(lab, csr)) == "RW-FROZEN"
    assert (await lab.counts())["proposal.made"] == 0


@pytest.mark.invariant("I-38")
async def test_a_signer_process_certifies_no_ca(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nothing to decide by but profiles: said before anybody agrees to it."""
    await tier(lab)
    monkeypatch.setattr(Key, "decides", True)
    assert await refused(propose(lab, request())) == "RW-CONFLICT"


@pytest.mark.invariant("I-05", "I-07", "I-40")
async def test_a_crash_and_a_key_that_does_not_sign(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The yes stands until there is a certificate; what was begun and not ended is an orphan."""
    await tier(lab)
    csr = request()
    made = await propose(lab, csr)

    async def refuses(*_args: Any) -> bytes:
        raise NotSigned("busy")

    with monkeypatch.context() as patch:
        patch.setattr("rootward.ca.attempt.sign_soon", refuses)
        assert await refused(acts.approve(lab.inst, made.id, None, lab.admin)) == "RW-KEY-UNAVAILABLE"
    with armed("issue.signed:fail"), pytest.raises(Injected):
        await acts.approve(lab.inst, made.id, None, lab.admin)
    assert (await proposals.read(lab.inst, made.id)).status(lab.clock()) == "approved"
    assert (await acts.approve(lab.inst, made.id, None, lab.admin)).status(lab.clock()) == "done"
    rows = [row for row in await lab.rows() if "Mesh" in row.subject]
    assert [(row.failed_at is not None, row.issued_at is not None) for row in rows] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert (await certified(lab, csr)).id == rows[-1].id


@pytest.mark.invariant("I-07")
async def test_two_approvers_at_one_moment_make_one(lab: World) -> None:
    await tier(lab)
    bob, ann = await lab.person("bob", APPROVER), await lab.person("ann", APPROVER)
    made = await propose(lab, request())
    await asyncio.gather(
        *(acts.approve(lab.inst, made.id, None, who) for who in (bob, ann) * 3), return_exceptions=True
    )
    rows = [row for row in await lab.rows() if "Mesh" in row.subject]
    assert [row.status(lab.clock()) for row in rows if row.issued_at is not None] == ["active"]
    assert (await lab.counts())["proposal.carried-out"] == 1


@pytest.mark.invariant("I-14", "I-42")
async def test_a_yes_is_not_for_another_plan(lab: World) -> None:
    """The clock and the authority may move on; the plan may not."""
    await tier(lab)
    made = await propose(lab, request(), lifetime="4y")
    lab.clock.move(timedelta(days=6))
    assert (await acts.approve(lab.inst, made.id, None, lab.admin)).status(lab.clock()) == "done"
    again = await propose(lab, request())
    other = msgspec.json.encode({**again.values(), "plan": "0" * 64}, order="sorted").decode()
    changed = msgspec.structs.replace(again, body=other)
    assert await refused(subordinate.carry_out(lab.inst, changed, lab.admin)) == "RW-APPROVAL"


async def test_through_the_door(lab: World) -> None:
    await tier(lab)
    door, csr = Door(lab.inst, lab.token), request().decode()
    body = {"spec": msgspec.to_builtins(SPEC), "csr": csr}
    first = await door("POST", "/authorities/tier/subordinates", body)
    assert (first.status, first.json["kind"]) == (202, "ca.sign")
    assert first.headers["location"] == f"/api/v1/proposals/{first.json['id']}"
    assert (await door("POST", f"/proposals/{first.json['id']}/approve", {})).json["status"] == "done"
    done = await door("POST", "/authorities/tier/subordinates", body)
    assert (done.status, done.json["profile"], done.json["names"]) == (201, None, ["uri:spiffe://mesh.internal"])
    seen = await door("GET", f"/certificates/{done.json['id']}")
    assert seen.json["chain_state"] == {"valid": True, "reasons": []}
    revoked = await door("POST", f"/certificates/{done.json['id']}/revoke", {"reason": "cACompromise"})
    assert (revoked.status, revoked.json["status"]) == (200, "revoked")
    assert (await door("POST", "/authorities/tier/subordinates", {**body, "more": 1})).status == 422
    assert (await door("POST", "/authorities/tier/subordinates", {"spec": {}, "csr": csr})).status == 422
    assert (await door("POST", "/authorities/none/subordinates", body)).code == "RW-NOT-FOUND"


@pytest.mark.invariant("I-36")
async def test_a_single_tier_lab_gets_no_second_tier(db: Database) -> None:
    """Its root's key is online, so it could certify CAs that outlive the lab and do not say that they are a lab's."""
    inst = opened(db)
    value, digest = new_token()
    await single.found(inst, store="memory", organization="Test", domains=(), token_hash=digest)
    admin = Caller(await authenticate(inst, value), "req_admin")
    assert await refused(subordinate.propose(inst, "root", SPEC, request(), admin)) == "RW-CEREMONY"


@pytest.mark.invariant("I-22", "I-42")
async def test_an_authority_of_ours_is_not_revoked_by_one_person(lab: World) -> None:
    """Its certificate is in the inventory like every other; whoever revokes it there would end it alone, or worse,
    leave it issuing.
    """
    waits = await below_tier(lab)
    await acts.approve(lab.inst, waits.id, None, lab.admin)
    assert await authorities.settle(lab.inst) == ["below"]
    below = lab.inst.authority("below")
    row = next(one for one in await lab.rows() if one.der == below.issuer.der)
    reason, officer = RevocationReason.KEY_COMPROMISE, await lab.person("oscar", OFFICER)
    assert await refused(revoke.revoke(lab.inst, row.id, reason, officer)) == "RW-CONFLICT"
    assert await refused(revoke.revoke_by_serial(lab.inst, "tier", row.serial, reason, officer)) == "RW-CONFLICT"
    assert await refused(revoke.revoke_by_key(lab.inst, row.key_id, reason, officer)) == "RW-CONFLICT"
    made = await ending.propose(lab.inst, "below", reason, lab.admin)
    assert isinstance(made, Proposal)
    await acts.approve(lab.inst, made.id, None, await lab.person("bob", APPROVER))
    assert lab.inst.authority("below").state == "retired"


async def below_tier(lab: World) -> Proposal:
    """An authority of ours that waits for two people to have it certified by an online one."""
    await tier(lab)
    spec = AuthoritySpec("below", "issuing", "Below CA", lifetime="1y")
    made = await authorities.create(lab.inst, spec, "tier", "memory", lab.admin)
    waits = await authorities.proposal(lab.inst, made, lab.admin)
    assert waits is not None
    return waits


@pytest.mark.invariant("I-42")
async def test_what_is_withdrawn_is_not_certified_any_more(lab: World) -> None:
    """Else a second person would agree to a CA whose key is gone, or which nobody here wants."""
    waits = await below_tier(lab)
    await authorities.withdraw(lab.inst, "below", lab.admin)
    bob = await lab.person("bob", APPROVER)
    assert await refused(acts.approve(lab.inst, waits.id, None, bob)) == "RW-APPROVAL"
    assert (await proposals.read(lab.inst, waits.id)).status(lab.clock()) == "denied"
    assert not [row for row in await lab.rows() if "Below" in row.subject]


@pytest.mark.invariant("I-42")
async def test_what_is_certified_already_is_not_withdrawn(lab: World) -> None:
    waits = await below_tier(lab)
    await acts.approve(lab.inst, waits.id, None, lab.admin)
    assert await refused(authorities.withdraw(lab.inst, "below", lab.admin)) == "RW-CONFLICT"
    assert await authorities.settle(lab.inst) == ["below"]


@pytest.mark.invariant("I-22")
async def test_what_was_certified_by_one_that_stopped_since_is_no_authority(lab: World) -> None:
    waits = await below_tier(lab)
    await acts.approve(lab.inst, waits.id, None, lab.admin)
    await ending.revoke(lab.inst, "tier", RevocationReason.CA_COMPROMISE, lab.admin)
    assert await authorities.settle(lab.inst) == []
    assert "below" not in lab.inst.authorities
    await authorities.withdraw(lab.inst, "below", lab.admin)
    assert await authorities.waiting(lab.inst) == ()


@pytest.mark.invariant("I-05", "I-42")
async def test_withdrawn_while_it_is_signed_it_is_an_orphan(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = await below_tier(lab)
    sign_soon = attempt.sign_soon

    async def meanwhile(*arguments: Any) -> bytes:
        signature = await sign_soon(*arguments)
        await authorities.withdraw(lab.inst, "below", lab.admin)
        return signature

    monkeypatch.setattr("rootward.ca.attempt.sign_soon", meanwhile)
    assert await refused(acts.approve(lab.inst, waits.id, None, lab.admin)) == "RW-UNAVAILABLE"
    assert await reconcile(lab.inst) == 1
    (row,) = [row for row in await lab.rows() if "Below" in row.subject]
    assert row.orphaned_at is not None
