"""Renewal information (RFC 9773), on each kind of store: the window, when it is over, and `replaces`; the table of bad
inputs, 162 and 206.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from rootward.ca.freeze import freeze_by
from rootward.ca.revoke import revoke
from rootward.core.profile import Lifetime
from rootward.core.pubkey import public_key_of
from rootward.core.revocation import RevocationReason
from rootward.store import authorities, certificates
from rootward.store.certificates import Certificate
from tests.support.acme import Client, Reply, Wire, b64, unb64
from tests.support.authority import Authority
from tests.support.orders import Acme, Json, acme, ari_id, csr_for, der, finalize, new_order, refused
from tests.support.store import intent
from tests.support.world import ISSUING, World

HERE = "https://localhost:8443/acme"


async def obtained(door: Acme, client: Client, *names: str, **fields: Any) -> x509.Certificate:
    order = await door.obtain(client, *(names or ("a.internal",)), **fields)
    return await door.certificate(client, order)


async def row_of(lab: World, certificate: x509.Certificate) -> Certificate:
    (row,) = [row for row in await lab.rows() if row.der == der(certificate)]
    return row


def window(reply: Reply) -> tuple[datetime, datetime]:
    """Of an answer that is as RFC 9773 4.2 has it."""
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert int(reply.headers["retry-after"]) == 21600
    assert reply.json["suggestedWindow"].keys() == {"start", "end"}
    start, end = (datetime.fromisoformat(reply.json["suggestedWindow"][name]) for name in ("start", "end"))
    assert start < end
    return start, end


async def test_the_window_of_a_certificate(lab: World) -> None:
    """In the last third of its life, the same each time, at every directory, for anybody."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        stranger = Client(door.wire)
        info = (await stranger.get("directory")).json["renewalInfo"]
        assert info == f"{HERE}/renewal-info"
        reply = await stranger.get(f"{info}/{ari_id(certificate)}")
        start, end = window(reply)
        assert reply.json.keys() == {"suggestedWindow"}
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert certificate.not_valid_before_utc + life * 2 / 3 - timedelta(seconds=2) <= start
        assert end <= certificate.not_valid_after_utc - life / 7
        other = await stranger.get(f"{HERE}/server/renewal-info/{ari_id(certificate)}")
        assert other.json == reply.json
        door.later(timedelta(days=1))
        assert window(await stranger.get(f"{info}/{ari_id(certificate)}")) == (start, end)
        door.later(timedelta(days=60))  # also when it has expired
        assert window(await stranger.get(f"{info}/{ari_id(certificate)}")) == (start, end)
        for method in ("HEAD", "POST", "PUT", "DELETE"):
            refusal = await stranger.wire.send(method, f"{info}/{ari_id(certificate)}")
            assert (refusal.status, refusal.headers["allow"]) == (405, "GET")


async def test_certificates_of_one_moment_are_not_renewed_at_one_moment(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.bound(preauthorized=(".internal",))
        found = [await obtained(door, client, f"n{n}.internal") for n in range(12)]
        windows = {window(await client.get(f"{HERE}/renewal-info/{ari_id(one)}")) for one in found}
        assert len(windows) > 6


async def test_the_shortest_certificate_has_a_window_too(lab: World) -> None:
    await lab.profile("minutes", lifetime=Lifetime(default="5m", maximum="5m", minimum="2m"))
    async with acme(lab) as door:
        client = await door.client("minutes")
        certificate = await obtained(door, client)
        start, end = window(await client.get(f"{HERE}/renewal-info/{ari_id(certificate)}"))
        assert lab.clock() < start
        assert end <= certificate.not_valid_after_utc


async def test_a_revoked_certificate_is_to_be_renewed_at_once(lab: World) -> None:
    """And a page says why, to people."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        url = f"{HERE}/renewal-info/{ari_id(certificate)}"
        await freeze_by(lab.inst, ISSUING, "a test", lab.admin)
        assert window(await client.get(url))[0] > lab.clock()  # this will pass
        await revoke(lab.inst, (await row_of(lab, certificate)).id, RevocationReason.SUPERSEDED, lab.admin)
        reply = await client.get(url)
        assert window(reply)[1] < lab.clock()
        page = await client.get(reply.json["explanationURL"])
        assert (page.status, page.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert b"revoked" in page.body
        for wrong in ("why/nothing", "why/", "why/revoked/", "why/Revoked"):
            assert (await client.get(f"{HERE}/{wrong}")).problem == "malformed"


async def test_certificates_of_an_authority_that_is_retired(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        await lab.inst.db.write(authorities.retire(ISSUING, at=lab.clock()))  # by whichever process
        reply = await client.get(f"{HERE}/renewal-info/{ari_id(certificate)}")
        assert window(reply)[1] < lab.clock()
        assert b"replaced" in (await client.get(reply.json["explanationURL"])).body
        refused(await new_order(client, "a.internal"), "serverInternal", 503)


async def test_206_what_names_no_certificate(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client)
        key, _, serial = ari_id(certificate).partition(".")
        number = certificate.serial_number.to_bytes(20)
        root = b64(lab.inst.authority("root").issuer.subject_key_id)
        for text in (
            *(key, f"{key}.", f".{serial}", ".", "..", f"{key}.{serial}.", f"{key}..{serial}", f"{key}{serial}"),
            *(f"{key}=.{serial}", f"{key}.{serial}=", f"{key}.{b64(bytes(1) + number)}", f"{key}.{b64(number[1:])}"),
            *(f"{key}.{b64(bytes([0x80]) + number[1:])}", f"{key}.AA", f"{key}.gA", f"{key}.AAAA", f"{key}.AB"),
            *(
                f"{key}.{serial[:-1]}{chr(ord(serial[-1]) + 1)}",
                f"{serial}.{key}",
                f"{key}.{serial}/",
                f"{key}/{serial}",
            ),
            *(
                f"{root}.{serial}",
                f"{'A' * 27}.{serial}",
                f"{'A' * 300}.{serial}",
                f"{key}.{'A' * 600}",
                "%2e",
                "a b.c",
            ),
            *(f"{key}.{serial}%00", f"{key}.{serial}\n", f"{key.swapcase()}.{serial}", f"{key}.{serial}?x=1"),
        ):
            reply = await client.get(f"{HERE}/renewal-info/{text}")
            assert reply.problem == "malformed", text
            assert reply.status == (400 if "?" in text else 404), text
            assert "retry-after" not in reply.headers
        assert (await client.get(f"{HERE}/renewal-info/{ari_id(certificate)}")).status == 200


async def test_an_attempt_that_came_to_nothing_is_no_certificate(lab: World) -> None:
    """Neither an intent nor an orphan."""
    client = Client(Wire.of(lab.inst))
    values = intent(lab.inst.db.lease, issuer=lab.inst.authority(ISSUING).n)
    await lab.inst.db.write(certificates.intend(values))
    name = f"{b64(lab.inst.authority(ISSUING).issuer.subject_key_id)}.{b64(b'1' + values['serial'])}"
    await lab.inst.db.write(certificates.intend(values | {"id": "other", "serial": b"1" + values["serial"]}))
    assert (await client.get(f"{HERE}/renewal-info/{name}")).status == 404
    await lab.inst.db.write(certificates.orphan("other", at=lab.clock(), lease=lab.inst.db.lease))
    assert (await client.get(f"{HERE}/renewal-info/{name}")).status == 404


# ── replaces (RFC 9773 5) ──────────────────────────────────────────────────────────────────────────────────────────


async def test_what_replaces_what(lab: World) -> None:
    """Echoed in every answer, and the lineage in the inventory."""
    async with acme(lab) as door:
        client = await door.client()
        old = await obtained(door, client, "a.internal", "b.internal")
        name = ari_id(old)
        order = await door.ready(client, "b.internal", "c.internal", replaces=name)  # one name in common
        assert order["replaces"] == name
        assert (await client.post(order["url"])).json["replaces"] == name
        assert [row.replaces for row in await lab.rows() if row.profile == "server"] == [None]
        done = await finalize(client, order)
        assert (done.json["status"], done.json["replaces"]) == ("valid", name)
        new = await row_of(lab, await door.certificate(client, done.json))
        assert new.replaces == (await row_of(lab, old)).id
        refused(await new_order(client, "a.internal", replaces=name), "alreadyReplaced", 409)
        chain = await door.order(client, "c.internal", replaces=ari_id(await door.certificate(client, done.json)))
        assert chain["status"] == "ready"


async def test_162_what_cannot_be_replaced(lab: World) -> None:
    async with acme(lab) as door:
        client, other = await door.client(), await door.client()
        certificate = await obtained(door, client)
        name = ari_id(certificate)
        key, _, serial = name.partition(".")
        root = b64(lab.inst.authority("root").issuer.subject_key_id)
        before = await lab.counts()
        for text in ("", ".", key, f"{key}.", f"{key}.{serial}=", f"{key}.AA", f"{name}.{serial}", "A" * 5000, "ü.ü"):
            refused(await new_order(client, "a.internal", replaces=text), "malformed", 400)
        for text in (f"{key}.fwECAwQ", f"{root}.{serial}", f"{key}.{b64(bytes(1) + unb64(serial))}"):
            refused(await new_order(client, "a.internal", replaces=text), "malformed", 400)
        refused(await new_order(other, "a.internal", replaces=name), "unauthorized", 403)
        refused(await new_order(client, "b.internal", replaces=name), "malformed", 400)
        refused(await new_order(client, "*.a.internal", replaces=name), "malformed", 400)
        assert await lab.counts() == before
        foreign = await door.order(client, "a.internal", replaces=f"{'A' * 27}.{serial}")
        assert "replaces" not in foreign  # another CA's: no business of ours, and not echoed
        assert "replaces" not in (await client.post(foreign["url"])).json
        done = await finalize(client, foreign)
        assert (await row_of(lab, await door.certificate(client, done.json))).replaces is None
        assert (await door.order(client, "a.internal", replaces=name))["replaces"] == name


async def test_of_two_orders_for_one_certificate_the_first_to_finish_counts(lab: World) -> None:
    """An order that is not finished has replaced nothing: its client may have given it up."""
    async with acme(lab) as door:
        client = await door.client()
        old = await obtained(door, client)
        first = await door.order(client, "a.internal", replaces=ari_id(old))
        second = await door.order(client, "a.internal", replaces=ari_id(old))
        assert (await finalize(client, second)).json["status"] == "valid"
        refused(await finalize(client, first), "alreadyReplaced", 409)
        assert (await client.post(first["url"])).json["status"] == "ready"
        rows = [row for row in await lab.rows() if row.replaces is not None]
        assert len(rows) == 1


async def test_one_order_for_a_certificate_that_is_finalized_many_times(lab: World) -> None:
    """Its own certificate is not another one's that was first."""
    async with acme(lab) as door:
        client = await door.client()
        old = await obtained(door, client)
        order = await door.order(client, "a.internal", replaces=ari_id(old))
        csr = csr_for(order)
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in range(12)]
        client.nonces.clear()
        replies = await asyncio.gather(
            *(client.post(order["finalize"], {"csr": b64(csr)}, header={"nonce": nonce}) for nonce in nonces)
        )
        assert {reply.status for reply in replies} == {200}
        assert len([row for row in await lab.rows() if row.replaces is not None]) == 1


async def test_a_revoked_certificate_is_replaced_too(lab: World) -> None:
    """That is what its window is moved for."""
    async with acme(lab) as door:
        client = await door.client()
        old = await obtained(door, client)
        assert (await client.post("revoke-cert", {"certificate": b64(der(old)), "reason": 4})).status == 200
        order = await door.obtain(client, "a.internal", replaces=ari_id(old))
        assert order["replaces"] == ari_id(old)


async def test_a_certificate_of_an_authority_that_was_replaced(lab: World) -> None:
    """The lineage goes on under the one that takes its place."""
    async with acme(lab) as door:
        client = await door.client()
        id = (client.kid or "").rpartition("/")[2]
        old = await former(lab, id)
        assert (await client.get(f"{HERE}/renewal-info/{old}")).json["explanationURL"].endswith("/replaced")
        order: Json = await door.obtain(client, "a.internal", replaces=old)
        assert order["replaces"] == old
        row = await row_of(lab, await door.certificate(client, order))
        assert (row.authority, row.replaces) == (ISSUING, "former-1")
        stranger = await door.client()
        refused(await new_order(stranger, "a.internal", replaces=await former(lab, id, "2")), "unauthorized", 403)


async def former(lab: World, account: str, number: str = "1") -> str:
    """The ARI name of a certificate that an account has of an authority that is retired by now."""
    authority = Authority(f"Former {number}")
    name, key_id = f"former{number}", public_key_of(authority.key.public_key()).id
    now = lab.clock()
    made = authorities.add(name, "issuing", parent=None, settings="{}", at=now)
    made += authorities.add_issuer(name, key_id=key_id, certificate=der(authority.certificate), backend=None, at=now)
    await lab.inst.db.write(made)
    await lab.inst.load_authorities()
    leaf = authority.leaf("a.internal")
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    values = intent(
        lab.inst.db.lease,
        id=f"former-{number}",
        issuer=lab.inst.authority(name).n,
        authority=name,
        serial=serial,
        requester=account,
    )
    await lab.inst.db.write(certificates.intend(values))
    done = {"signature": b"x", "sha256": "00" * 32, "issued_at": now, "lease": lab.inst.db.lease}
    await lab.inst.db.write(certificates.complete(f"former-{number}", **done))
    await lab.inst.db.write(authorities.retire(name, at=now))
    await lab.inst.load_authorities()
    return ari_id(leaf)


@pytest.mark.parametrize("other", [b"\x80", b"\0\x80", b"\x7f" * 20])
async def test_serials_as_they_are_in_der(lab: World, other: bytes) -> None:
    """Of 4.1: a leading zero where the next octet would make the number negative, and no other."""
    client = Client(Wire.of(lab.inst))
    authority = lab.inst.authority(ISSUING)
    values = intent(lab.inst.db.lease, issuer=authority.n, serial=other, not_before=lab.clock())
    await lab.inst.db.write(certificates.intend(values | {"not_after": lab.clock() + timedelta(days=30)}))
    done = {"signature": b"x", "sha256": "00" * 32, "issued_at": lab.clock(), "lease": lab.inst.db.lease}
    await lab.inst.db.write(certificates.complete(values["id"], **done))
    reply = await client.get(f"{HERE}/renewal-info/{b64(authority.issuer.subject_key_id)}.{b64(other)}")
    assert reply.status == (404 if other[0] == 0x80 else 200)
