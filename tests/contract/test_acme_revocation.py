"""revokeCert (RFC 8555 7.6), on each kind of store: who may, with which reasons, and what it shows in; the table of bad
inputs, 196 to 202.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import revoke
from rootward.ca.freeze import freeze_by
from rootward.ca.publish import publish
from rootward.core.crl import parse_crl
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.core.times import rfc3339
from rootward.fleet.imports import import_certificates
from rootward.store.certificates import Certificate
from rootward.store.failpoint import armed
from tests.support.acme import Client, Reply, b64, new_key
from tests.support.authority import Authority
from tests.support.orders import Acme, acme, csr_for, der, finalize, refused
from tests.support.world import ISSUING, World
from tests.vectors.csr_parts import good_csr

ALLOWED = {
    None: RevocationReason.UNSPECIFIED,
    0: RevocationReason.UNSPECIFIED,
    1: RevocationReason.KEY_COMPROMISE,
    3: RevocationReason.AFFILIATION_CHANGED,
    4: RevocationReason.SUPERSEDED,
    5: RevocationReason.CESSATION_OF_OPERATION,
    9: RevocationReason.PRIVILEGE_WITHDRAWN,
}
# 197: those that RFC 5280 has for CAs, for CRLs alone or not at all, and what is no number.
DISALLOWED: tuple[Any, ...] = (2, 6, 7, 8, 10, 11, -1, 2**70, 1.0, 1.5, "1", "keyCompromise", True, False, [], [1], {})


async def obtained(door: Acme, client: Client, *names: str, key: Any = None) -> x509.Certificate:
    order = await door.obtain(client, *(names or ("a.internal",)), key=key)
    return await door.certificate(client, order)


async def ask(client: Client, certificate: x509.Certificate | bytes, reason: Any = None, **how: Any) -> Reply:
    data = certificate if isinstance(certificate, bytes) else der(certificate)
    payload = {"certificate": b64(data)} | ({} if reason is None else {"reason": reason})
    return await client.post("revoke-cert", payload, **how)


async def row_of(lab: World, certificate: x509.Certificate) -> Certificate:
    (row,) = [row for row in await lab.rows() if row.der == der(certificate)]
    return row


async def is_good(lab: World, certificate: x509.Certificate) -> bool:
    row = await row_of(lab, certificate)
    assert row.revoked_at is None
    return await lab.status(row.serial) == Good()


async def is_revoked(lab: World, certificate: x509.Certificate, reason: RevocationReason) -> Certificate:
    """In the inventory, in OCSP at once, and in the next CRL (I-15)."""
    row = await row_of(lab, certificate)
    assert (row.revoked_at, row.reason) == (lab.clock(), reason.value)
    assert await lab.status(row.serial) == Revoked(lab.clock(), reason)
    crl = await publish(lab.inst, lab.inst.authority(ISSUING))
    assert {entry.serial: entry.reason for entry in parse_crl(crl.der)}[row.serial] is reason
    return row


async def proof_of(lab: World, row: Certificate) -> tuple[str, object]:
    """Who did it, and by what right."""
    (event,) = await lab.events("certificate.revoked", certificate=row.id)
    return event.actor, event.values()["proof"]


@pytest.mark.invariant("I-15")
@pytest.mark.parametrize("reason", ALLOWED)
async def test_by_the_account_that_got_it(lab: World, reason: int | None) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        assert await is_good(lab, certificate)
        done = await ask(client, certificate, reason)
        assert (done.status, done.body) == (200, b"")
        assert done.headers["replay-nonce"]
        row = await is_revoked(lab, certificate, ALLOWED[reason])
        assert await proof_of(lab, row) == ((client.kid or "").rpartition("/")[2], "account")
        refused(await ask(client, certificate, reason), "alreadyRevoked", 400)  # 200
        refused(await ask(client, certificate, 4), "alreadyRevoked", 400)
        assert (await row_of(lab, certificate)) == row


async def test_197_reasons_that_nobody_may_give(lab: World) -> None:
    """With those that may be given (RFC 8555 7.6); a null is none."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        for reason in DISALLOWED:
            reply = await client.post("revoke-cert", {"certificate": b64(der(certificate)), "reason": reason})
            refused(reply, "badRevocationReason", 400)
            assert "0, 1, 3, 4, 5, 9" in reply.json["detail"]
        assert await is_good(lab, certificate)
        done = await client.post("revoke-cert", {"certificate": b64(der(certificate)), "reason": None})
        assert done.status == 200
        await is_revoked(lab, certificate, RevocationReason.UNSPECIFIED)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519", "RSA-2048"])
async def test_by_the_key_of_the_certificate(lab: World, kind: str) -> None:
    """Without an account; a key that is compromised is certified for nobody any more."""
    kinds = {"Ed25519": "ed25519", "RSA-2048": "rsa-2048"}
    async with acme(lab) as door:
        client = await door.client()
        key = new_key(kind)
        order = await door.ready(client, "a.internal")
        csr = good_csr(kinds.get(kind, "p256"), key=key)
        done = await finalize(client, order, csr)
        certificate = await door.certificate(client, done.json)
        holder = Client(door.wire, key=key)
        reply = await ask(holder, certificate, 1, jwk=True)
        assert (reply.status, reply.body) == (200, b"")
        row = await is_revoked(lab, certificate, RevocationReason.KEY_COMPROMISE)
        actor, proof = await proof_of(lab, row)
        assert (actor.startswith("acme-key:"), proof) == (True, "key")
        again = await door.ready(client, "a.internal")
        refused(await finalize(client, again, csr), "badCSR", 400)


async def test_198_by_another_account(lab: World) -> None:
    """Only one that holds valid authorizations for every name, with the wildcard's own."""
    async with acme(lab) as door:
        client, other = await door.client(), await door.client()
        certificate = await obtained(door, client, "a.internal", "b.internal")
        refused(await ask(other, certificate), "unauthorized", 403)
        await door.ready(other, "a.internal")
        refused(await ask(other, certificate), "unauthorized", 403)
        order = await door.ready(other, "b.internal")
        await other.post(order["authorizations"][0], {"status": "deactivated"})
        refused(await ask(other, certificate), "unauthorized", 403)
        await door.order(other, "b.internal")  # pending is not valid
        refused(await ask(other, certificate), "unauthorized", 403)
        await door.ready(other, "b.internal")
        refused(await ask(other, certificate, 1), "badRevocationReason", 400)  # a name does not entitle to that
        assert await is_good(lab, certificate)
        assert (await ask(other, certificate, 4)).status == 200
        row = await is_revoked(lab, certificate, RevocationReason.SUPERSEDED)
        assert await proof_of(lab, row) == ((other.kid or "").rpartition("/")[2], "authorizations")


async def test_by_another_account_whose_authorizations_are_over(lab: World) -> None:
    async with acme(lab) as door:
        other, client = await door.client(), await door.client()
        await door.ready(other, "a.internal")
        door.later(timedelta(days=29))
        certificate = await obtained(door, client)
        door.later(timedelta(days=1))
        refused(await ask(other, certificate), "unauthorized", 403)
        assert (await row_of(lab, certificate)).revoked_at is None


async def test_a_wildcard_is_not_its_base(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.bound(preauthorized=(".internal",))
        certificate = await obtained(door, client, "*.a.internal")
        other = await door.client()
        await door.ready(other, "a.internal")
        refused(await ask(other, certificate), "unauthorized", 403)
        owner = await door.bound(preauthorized=(".internal",))
        refused(await ask(owner, certificate), "unauthorized", 403)  # it has to have ordered the name
        await door.order(owner, "*.a.internal")
        assert (await ask(owner, certificate)).status == 200


async def test_by_a_key_that_is_not_the_certificates(lab: World) -> None:
    """Not even the key of its account, signing as a key alone (RFC 8555 7.6: the account signs by its kid)."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        for key in (new_key(), client.key):
            refused(await ask(Client(door.wire, key=key), certificate, jwk=True), "unauthorized", 403)
        assert await is_good(lab, certificate)


async def test_by_an_account_that_has_ended(lab: World) -> None:
    """Its certificates stay; the key of one goes on to be able to."""
    async with acme(lab) as door:
        client = await door.client()
        key = new_key()
        certificate = await obtained(door, client, key=key)
        await client.post(client.kid or "", {"status": "deactivated"})
        refused(await ask(client, certificate), "unauthorized", 401)
        assert await is_good(lab, certificate)
        assert (await ask(Client(door.wire, key=key), certificate, jwk=True)).status == 200


async def test_196_201_what_is_no_certificate_of_ours(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        data = der(certificate)
        other = Authority("Another")
        foreign = der(other.issue(certificate.public_key(), [x509.DNSName("a.internal")]))
        names = [x509.DNSName("a.internal")]
        twin = der(other.issue(certificate.public_key(), names, serial=certificate.serial_number))
        given: dict[str, Any] = {"password": None, "owner": None, "labels": {}, "caller": lab.admin}
        await import_certificates(lab.inst, lambda: foreign, **given)
        altered = bytearray(data)
        altered[-1] ^= 1
        cases: list[tuple[object, str, int]] = [
            ({}, "malformed", 400),
            ({"certificate": None}, "malformed", 400),
            ({"certificate": 5}, "malformed", 400),
            ({"certificate": b64(data) + "="}, "malformed", 400),
            ({"certificate": certificate.public_bytes(Encoding.PEM).decode()}, "malformed", 400),
            ({"certificate": b64(certificate.public_bytes(Encoding.PEM))}, "malformed", 400),
            ({"certificate": ""}, "malformed", 400),
            ({"certificate": b64(data[:-1])}, "malformed", 400),
            ({"certificate": b64(data + b"\0")}, "malformed", 400),
            (
                {"certificate": b64(csr_for({"identifiers": [{"type": "dns", "value": "a.internal"}]}))},
                "malformed",
                400,
            ),
            ("", "malformed", 400),
            ({"certificate": b64(bytes(altered))}, "malformed", 404),  # 201: another certificate, and none of ours
            ({"certificate": b64(foreign)}, "malformed", 404),
            ({"certificate": b64(twin)}, "malformed", 404),  # the same serial of another issuer
        ]
        before = await lab.counts()
        for payload, type, status in cases:
            refused(await client.post("revoke-cert", payload), type, status)
        for authority in lab.inst.authorities.values():
            refused(await ask(client, der(authority.issuer.certificate)), "unauthorized", 403)
        assert await lab.counts() == before
        assert await is_good(lab, certificate)


async def test_202_an_expired_certificate(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        end = lab.clock() + timedelta(hours=1)
        order = await door.obtain(client, "a.internal", notAfter=rfc3339(end))
        certificate = await door.certificate(client, order)
        door.later(timedelta(hours=1))
        assert await is_good(lab, certificate)
        door.later(timedelta(seconds=1))
        reply = await ask(client, certificate)
        refused(reply, "malformed", 400)
        assert "expired" in reply.json["detail"]
        assert (await row_of(lab, certificate)).revoked_at is None


async def test_one_that_is_on_hold(lab: World) -> None:
    """A hold is not the end: its account may make it one."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        await revoke.revoke(lab.inst, (await row_of(lab, certificate)).id, RevocationReason.CERTIFICATE_HOLD, lab.admin)
        assert (await ask(client, certificate, 5)).status == 200
        await is_revoked(lab, certificate, RevocationReason.CESSATION_OF_OPERATION)


async def test_one_that_somebody_else_revoked(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        await revoke.revoke(lab.inst, (await row_of(lab, certificate)).id, RevocationReason.SUPERSEDED, lab.admin)
        for reason in (None, 4, 1):
            refused(await ask(client, certificate, reason), "alreadyRevoked", 400)
        await is_revoked(lab, certificate, RevocationReason.SUPERSEDED)


async def test_twice_at_once(lab: World) -> None:
    """One revocation, with the reason of one of them."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in range(8)]
        client.nonces.clear()
        replies = await asyncio.gather(
            *(ask(client, certificate, (4, 5)[n % 2], header={"nonce": nonce}) for n, nonce in enumerate(nonces))
        )
        row = await row_of(lab, certificate)
        for n, reply in enumerate(replies):
            if reply.status != 200:
                refused(reply, "alreadyRevoked", 400)
            else:
                assert ALLOWED[(4, 5)[n % 2]].value == row.reason
        assert any(reply.status == 200 for reply in replies)
        assert len(await lab.events("certificate.revoked", certificate=row.id)) == 1


async def test_a_used_nonce_revokes_nothing(lab: World) -> None:
    """I-47: the nonce and the revocation are one transaction."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        nonce = await client.nonce()
        assert (await client.post(client.kid or "", header={"nonce": nonce})).status == 200
        refused(await ask(client, certificate, header={"nonce": nonce}), "badNonce", 400)
        assert await is_good(lab, certificate)


@pytest.mark.parametrize("traps", ["store.write:fail:1", "store.write:fail_persisted:1", "revoke.stored:fail"])
async def test_what_breaks_in_between(lab: World, traps: str) -> None:
    """Nobody was told that it is revoked; asking again says what is true."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        with armed(traps):
            assert (await ask(client, certificate)).status in (500, 503)
        again = await ask(client, certificate)
        if traps == "store.write:fail:1":
            assert again.status == 200
        else:
            refused(again, "alreadyRevoked", 400)
        await is_revoked(lab, certificate, RevocationReason.UNSPECIFIED)
        assert (await lab.counts())["certificate.revoked"] == 1


async def test_while_nothing_is_issued(lab: World) -> None:
    """I-25 at this door."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        await freeze_by(lab.inst, ISSUING, "a test", lab.admin)
        assert (await ask(client, certificate)).status == 200
        await is_revoked(lab, certificate, RevocationReason.UNSPECIFIED)
