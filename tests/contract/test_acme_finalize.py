"""From a ready order to its certificate (RFC 8555 7.4), on each kind of store: the table of bad inputs, 190 to 194; of
many finalizations one counts (I-50); what stands in the way goes, and the order goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from rootward.ca import accounts
from rootward.ca.freeze import freeze_by, unfreeze_by
from rootward.ca.reconcile import reconcile
from rootward.keys import NotSigned, SignatureUnknown
from rootward.protocols.acme import issuing
from rootward.store import accounts as rows
from rootward.store import authorizations
from rootward.store.accounts import Account
from rootward.store.certificates import Certificate
from rootward.store.failpoint import armed
from tests.support.acme import Client, b64, new_key
from tests.support.faults import books, watch
from tests.support.orders import NOTHING, Acme, Json, acme, csr_for, der, finalize, refused
from tests.support.world import ISSUING, World
from tests.vectors.csr_parts import good_csr, pem, spki_of
from tests.vectors.csrs import BAD_CSRS

HERE = "https://localhost:8443/acme"
NAMES = ("a.internal", "b.internal")


async def made(lab: World) -> list[Certificate]:
    """The rows of what ACME accounts asked for, whatever came of them."""
    return [row for row in await lab.rows() if row.profile == "server"]


async def one_living(lab: World, order: Json) -> Certificate:
    """Of all attempts at an order, the one certificate; every other one is revoked or nothing."""
    rows = await made(lab)
    (living,) = [row for row in rows if row.issued_at is not None and row.status(lab.clock()) == "active"]
    assert set(living.names) == {f"{one['type']}:{one['value']}" for one in order["identifiers"]}
    return living


async def test_an_order_from_beginning_to_end(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, *NAMES)
        assert order["status"] == "pending"
        assert await door.prove(client, order) == ["valid", "valid"]
        assert (await client.post(order["url"])).json["status"] == "ready"
        refused(await client.post(f"{order['url'].replace('/order/', '/certificate/')}"), "malformed", 404)
        key = new_key()
        done = await finalize(client, order, key=key)
        assert (done.status, done.json["status"]) == (200, "valid")
        assert done.headers["location"] == order["url"]
        assert "retry-after" not in done.headers
        assert done.json == (await client.post(order["url"])).json
        assert {name: done.json[name] for name in ("identifiers", "authorizations", "finalize", "expires")} == {
            name: order[name] for name in ("identifiers", "authorizations", "finalize", "expires")
        }
        leaf = await door.certificate(client, done.json)
        assert leaf.public_key() == key.public_key()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
        row = await one_living(lab, order)
        assert (row.der, row.owner, row.requester) == (der(leaf), None, (client.kid or "").rpartition("/")[2])


async def test_the_download(lab: World) -> None:
    """RFC 8555 7.4.2 and 9.1: certificates and nothing else, the issuing CA first, no root."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.obtain(client, "a.internal")
        url = order["certificate"]
        reply = await client.post(url)
        blocks = reply.body.decode().split("-----END CERTIFICATE-----\n")
        assert len(blocks) == 3
        assert blocks[-1] == ""
        assert all(block.startswith("-----BEGIN CERTIFICATE-----\n") for block in blocks[:2])
        assert "alternate" not in reply.links
        refused(await client.post(url, {}), "malformed", 400)
        for wrong in (f"{url}/1", f"{url}/0", f"{url}/01", f"{url}/1000", f"{HERE}/certificate/{NOTHING}", f"{url}/"):
            refused(await client.post(wrong), "malformed", 404)
        assert (await client.get(url)).problem == "malformed"


@pytest.mark.invariant("I-50")
async def test_190_only_a_ready_order_is_finalized(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        pending = await door.order(client, *NAMES)
        refused(await finalize(client, pending), "orderNotReady", 403)
        assert (await door.answer(client, pending["authorizations"][0])).status == 200
        await door.tried()
        refused(await finalize(client, pending), "orderNotReady", 403)  # one of two is proved
        failed = await door.order(client, "c.internal")
        url = next(
            one["url"]
            for one in (await client.post(failed["authorizations"][0])).json["challenges"]
            if one["type"] == "http-01"
        )
        await client.post(url, {})
        await door.tried()
        assert (await client.post(failed["url"])).json["status"] == "invalid"
        refused(await finalize(client, failed), "orderNotReady", 403)
        assert await made(lab) == []
        ready = await door.ready(client, "d.internal")
        csr = csr_for(ready)
        first = await finalize(client, ready, csr)
        assert first.json["status"] == "valid"
        assert (await finalize(client, ready, csr)).json == first.json  # once more changes nothing
        refused(await finalize(client, ready), "orderNotReady", 403)  # with another CSR
        assert len(await made(lab)) == 1


@pytest.mark.invariant("I-50")
@pytest.mark.parametrize("same", [True, False])
async def test_193_fifty_at_once_give_one_certificate(lab: World, same: bool) -> None:
    """With one CSR all of them hear of it; with many, the others never hear that their own was taken."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        csrs = [csr_for(order)] * 50 if same else [csr_for(order) for _ in range(50)]
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in csrs]
        client.nonces.clear()
        replies = await asyncio.gather(
            *(
                client.post(order["finalize"], {"csr": b64(csr)}, header={"nonce": nonce})
                for csr, nonce in zip(csrs, nonces, strict=True)
            )
        )
        row = await one_living(lab, order)
        assert len(await made(lab)) == 1
        taken = [csr for csr, reply in zip(csrs, replies, strict=True) if reply.status == 200]
        others = [reply for reply in replies if reply.status != 200]
        assert len(taken) == (50 if same else 1)
        assert {spki_of(x509.load_der_x509_csr(csr).public_key()) for csr in taken} == {
            spki_of(x509.load_der_x509_certificate(row.der or b"").public_key())
        }
        for reply in others:
            refused(reply, "orderNotReady", 403)
        assert (await client.post(order["url"])).json["status"] == "valid"
        counts = await lab.counts()
        assert (counts["issue.intended"], counts["issue.done"]) == (2, 2)  # the responder's is the other one
        assert len({reply.headers["replay-nonce"] for reply in replies}) == 50


async def test_bad_requests_leave_the_order_ready(lab: World) -> None:
    """1 to 116 at this door: badCSR with what is wrong, the order stays ready (RFC 8555 7.4), nothing is written."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, "a.internal")
        before = await lab.counts()
        for payload, type in (
            ({}, "malformed"),
            ({"csr": None}, "malformed"),
            ({"csr": 5}, "malformed"),
            ({"csr": "MII="}, "malformed"),
            ({"csr": "MI I"}, "malformed"),
            ({"csr": "a+/b"}, "malformed"),
            ("", "malformed"),
            ({"csr": ""}, "badCSR"),
            ({"csr": b64(pem(csr_for(order)))}, "badCSR"),
        ):
            refused(await client.post(order["finalize"], payload), type, 400)
        for bad in BAD_CSRS:
            csr = bad.make()
            if len(csr) > 35_000 or bad.number == 37:
                continue  # the body is too large; 37 needs somebody else
            reply = await client.post(order["finalize"], {"csr": b64(csr)})
            refused(reply, "badCSR" if bad.code not in NAME_CODES else reply.problem, 400)
            assert reply.problem in ("badCSR", "rejectedIdentifier"), (str(bad), reply)
        assert await lab.counts() == before
        assert await made(lab) == []
        assert (await finalize(client, order)).json["status"] == "valid"


NAME_CODES = {"RW-NAME", "RW-NAME-TYPE", "RW-NAME-SCRIPT", "RW-TOO-MANY"}


async def test_the_names_of_the_request_are_those_of_the_order(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        for names, cn in (
            (["dns:a.internal"], None),
            (["dns:a.internal", "dns:b.internal", "dns:c.internal"], None),
            (["dns:a.internal", "dns:b.internal", "ip:127.0.0.1"], None),
            (["dns:a.internal", "dns:b.internal", "email:a@a.internal"], None),
            (["dns:a.internal", "dns:b.internal", "uri:spiffe://a.internal/x"], None),
            (["dns:a.internal", "dns:*.b.internal"], None),
            ([], None),
            ([], "a.internal"),
            (["dns:a.internal", "dns:b.internal"], "c.internal"),
            (["dns:a.internal", "dns:b.internal"], "Administrator"),
            (["dns:a.internal", "dns:b.internal"], "10.0.0.1"),
        ):
            refused(await finalize(client, order, good_csr(names=names, cn=cn, key=new_key())), "badCSR", 400)
        assert (await client.post(order["url"])).json["status"] == "ready"
        assert await made(lab) == []
        for more in (
            {"names": ["dns:b.internal"], "cn": "A.internal"},
            {"names": ["dns:b.internal"], "cn": "b.internal"},
        ):
            if more["cn"] == "b.internal":
                order = await door.ready(client, "b.internal")
                more = {"names": [], "cn": "b.internal"}
            done = await finalize(client, order, good_csr(**more, key=new_key()))  # type: ignore[arg-type]  # a table
            leaf = await door.certificate(client, done.json)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [one["value"] for one in order["identifiers"]]


async def test_a_common_name_that_nobody_proved_is_in_no_certificate(lab: World) -> None:
    """Whatever else the profile takes: of clients, the common name is who they are."""
    async with acme(lab) as door:
        client = await door.client("client")
        order = await door.ready(client, "a.internal")
        refused(await finalize(client, order, good_csr(cn="root", key=new_key())), "badCSR", 400)
        done = await finalize(client, order, good_csr(cn="a.internal", key=new_key()))
        subject = (await door.certificate(client, done.json)).subject
        assert [part.value for part in subject] == ["a.internal"]


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519", "RSA-2048"])
async def test_192_the_key_of_an_account(lab: World, kind: str) -> None:
    """One's own and anybody else's, whether or not it has ended (RFC 8555 11.1)."""
    async with acme(lab) as door:
        client = Client(door.wire, key=new_key(kind))
        assert (await client.register()).status == 201
        other, ended = await door.client(), await door.client()
        await ended.post(ended.kid or "", {"status": "deactivated"})
        order = await door.ready(client, "a.internal")
        for key in (client.key, other.key, ended.key):
            kind_of = "ed25519" if kind == "Ed25519" and key is client.key else "p256"
            reply = await finalize(client, order, good_csr(kind_of, key=key))
            refused(reply, "badCSR", 400)
        assert await made(lab) == []
        assert (await finalize(client, order)).json["status"] == "valid"


@pytest.mark.invariant("I-49")
async def test_194_after_an_authorization_was_taken_back_or_expired(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        taken = await client.post(order["authorizations"][1], {"status": "deactivated"})
        assert (taken.status, taken.json["status"]) == (200, "deactivated")
        refused(await finalize(client, order), "orderNotReady", 403)
        assert (await client.post(order["url"])).json["status"] == "invalid"
        late = await door.ready(client, *NAMES)
        door.later(timedelta(days=8))
        refused(await finalize(client, late), "orderNotReady", 403)
        assert await made(lab) == []


@pytest.mark.invariant("I-49", "I-50")
async def test_an_authorization_that_is_taken_back_at_the_last_moment(lab: World, monkeypatch: Any) -> None:
    """Between the door's look at it and the transaction that would finalize."""
    real = issuing.issue
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)

        async def too_late(*args: Any) -> None:
            id = order["authorizations"][0].rpartition("/")[2]
            await lab.inst.db.write(authorizations.deactivate(id, at=lab.clock()))
            await real(*args)

        monkeypatch.setattr(issuing, "issue", too_late)
        refused(await finalize(client, order), "orderNotReady", 403)
        assert await made(lab) == []
        assert (await client.post(order["url"])).json["status"] == "invalid"


@pytest.mark.invariant("I-49", "I-50")
@pytest.mark.parametrize("ended", ["deactivated", "revoked"])
async def test_an_account_that_ends_at_the_last_moment(lab: World, monkeypatch: Any, ended: str) -> None:
    """Between the door's look at it and the transaction that would finalize: by its client, or by an administrator."""
    real = issuing.issue
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        id = (client.kid or "").rpartition("/")[2]

        async def too_late(*args: Any) -> None:
            if ended == "revoked":
                await accounts.disable(lab.inst, id, lab.admin)
            elif (await account()).status == "valid":
                await accounts.deactivate(lab.inst, await account(), args[0].caller, lab.inst.db.write)
            await real(*args)

        async def account() -> Account:
            found = await lab.inst.db.read(lambda conn: rows.by_id(conn, id))
            assert found is not None
            return found

        monkeypatch.setattr(issuing, "issue", too_late)
        reply = await finalize(client, order)
        assert reply.status >= 400
        assert (await account()).status == ended
        assert await made(lab) == []


@pytest.mark.invariant("I-50")
async def test_a_key_that_is_away_for_a_while(lab: World) -> None:
    """The order is processing, its client's looks cost an attempt now and then, and it becomes valid."""

    def refuse(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("a test")

    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        csr = csr_for(order)
        watch(lab.inst, refuse)
        reply = await finalize(client, order, csr)
        assert (reply.status, reply.json["status"]) == (200, "processing")
        assert int(reply.headers["retry-after"]) > 0
        assert (await finalize(client, order, csr)).json["status"] == "processing"
        refused(await finalize(client, order), "orderNotReady", 403)
        for attempts in (1, 1, 2):
            if attempts == 2:
                door.later(issuing.PAUSE)
            look = await client.post(order["url"])
            assert (look.status, look.json["status"]) == (200, "processing"), look
            assert int(look.headers["retry-after"]) > 0
            assert Counter(row.failed_at is not None for row in await made(lab)) == {True: attempts}
        watch(lab.inst, lambda _tbs, sign: sign())
        door.later(issuing.PAUSE)
        done = await client.post(order["url"])
        assert done.json["status"] == "valid"
        row = await one_living(lab, order)
        assert row.retry_of in {other.id for other in await made(lab) if other.failed_at is not None}
        assert der(await door.certificate(client, done.json)) == row.der
        await books(lab.inst)


@pytest.mark.invariant("I-50", "I-07")
async def test_a_key_that_does_not_say_whether_it_signed(lab: World) -> None:
    """Nothing is made until that attempt is closed; it is revoked, and the next one names it."""

    def unsure(_tbs: bytes, sign: Any) -> bytes:
        sign()
        raise SignatureUnknown("a test")

    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        watch(lab.inst, unsure)
        assert (await finalize(client, order)).json["status"] == "processing"
        watch(lab.inst, lambda _tbs, sign: sign())
        door.later(issuing.PAUSE)
        assert (await client.post(order["url"])).json["status"] == "processing"
        assert len(await made(lab)) == 1
        assert await reconcile(lab.inst) == 1
        assert (await client.post(order["url"])).json["status"] == "valid"
        orphan, row = await made(lab)
        assert (orphan.status(lab.clock()), row.retry_of) == ("orphan", orphan.id)
        assert row.id == (await one_living(lab, order)).id


async def test_an_authority_that_is_stopped_for_a_while(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        csr = csr_for(order)
        await freeze_by(lab.inst, ISSUING, "a test", lab.admin)
        reply = await finalize(client, order, csr)
        refused(reply, "serverInternal", 503)
        assert int(reply.headers["retry-after"]) > 0
        assert (await client.post(order["url"])).json["status"] == "ready"
        assert await made(lab) == []
        await unfreeze_by(lab.inst, ISSUING, "it is well", lab.admin)
        assert (await finalize(client, order, csr)).json["status"] == "valid"


async def finalize_with(door: Acme, traps: str) -> tuple[Client, Json, int]:
    """An order whose finalization meets these failures, and the status of its answer."""
    client = await door.client()
    order = await door.ready(client, *NAMES)
    with armed(traps):
        reply = await finalize(client, order)
    assert reply.headers["replay-nonce"]
    return client, order, reply.status


# What fails on the way, and whether the order has begun then.
BROKEN = [
    ("acme.finalize:fail", False),
    ("issue.drafted:fail", False),
    ("issue.admitted:fail", False),
    ("issue.intended:fail", True),
    ("issue.signed:fail", True),
    ("issue.stored:fail", True),
    ("acme.finalized:fail", True),
    ("store.write:fail:1", False),
    ("store.write:fail_persisted:1", True),
    ("store.write:fail:2", True),
    ("store.write:fail_persisted:2", True),
]


@pytest.mark.invariant("I-50", "I-07")
@pytest.mark.parametrize(("traps", "begun"), BROKEN)
async def test_what_breaks_in_between_leaves_an_order_that_goes_on(lab: World, traps: str, begun: bool) -> None:
    """No half state: it is ready and can be finalized, or its client's next looks lead to the one certificate."""
    async with acme(lab) as door:
        client, order, status = await finalize_with(door, traps)
        assert status in (200, 500, 503)
        state = (await client.post(order["url"])).json["status"]
        if not begun:
            assert state == "ready"
            assert (await finalize(client, order)).json["status"] == "valid"
        else:
            assert state in ("processing", "valid")
            await reconcile(lab.inst)
            door.later(issuing.PAUSE)
            assert (await client.post(order["url"])).json["status"] == "valid"
        await one_living(lab, order)
        await books(lab.inst)


async def test_a_used_nonce_finalizes_nothing(lab: World) -> None:
    """I-47: not even where the request would do something new."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        nonce = await client.nonce()
        wrong = await client.post(order["finalize"], {"csr": "MII"}, header={"nonce": nonce})
        assert wrong.problem in ("malformed", "badCSR")
        reply = await client.post(order["finalize"], {"csr": b64(csr_for(order))}, header={"nonce": nonce})
        refused(reply, "badNonce", 400)
        assert await made(lab) == []
        assert (await client.post(order["url"])).json["status"] == "ready"


async def test_a_store_that_is_away(lab: World) -> None:
    """Whatever is asked: 503 with Retry-After and a nonce, never 500; and it goes on where it was."""
    async with acme(lab) as door:
        client = await door.client()
        order, pending = await door.ready(client, "a.internal"), await door.order(client, "b.internal")
        authorization = pending["authorizations"][0]
        challenge = (await client.post(authorization)).json["challenges"][0]["url"]
        asked: list[tuple[str, object]] = [
            *((url, "") for url in (client.kid or "", f"{client.kid}/orders", order["url"], authorization, challenge)),
            (order["finalize"], {"csr": b64(csr_for(order))}),
            (challenge, {}),
            (authorization, {"status": "deactivated"}),
            ("new-order", {"identifiers": order["identifiers"]}),
            ("revoke-cert", {"certificate": b64(lab.inst.authority(ISSUING).issuer.der)}),
        ]
        lab.inst.db._closed = True
        for url, payload in asked:
            reply = await client.post(url, payload)
            refused(reply, "serverInternal", 503)
            assert int(reply.headers["retry-after"]) > 0
        assert (await client.get(f"{HERE}/renewal-info/{'A' * 27}.{'A' * 27}")).status in (404, 503)
        lab.inst.db._closed = False
        assert (await finalize(client, order)).json["status"] == "valid"
        assert (await client.post(authorization)).json["status"] == "pending"


async def test_an_order_that_is_too_old_to_go_on(lab: World) -> None:
    def refuse(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("a test")

    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        watch(lab.inst, refuse)
        assert (await finalize(client, order)).json["status"] == "processing"
        watch(lab.inst, lambda _tbs, sign: sign())
        door.later(timedelta(days=8))
        ended = await client.post(order["url"])
        assert (ended.json["status"], ended.json["error"]["type"]) == (
            "invalid",
            "urn:ietf:params:acme:error:malformed",
        )
        assert (await client.post(order["url"])).json == ended.json
        refused(await finalize(client, order), "orderNotReady", 403)
        assert [row.failed_at is not None for row in await made(lab)] == [True]


@pytest.mark.invariant("I-49")
async def test_an_authorization_that_is_taken_back_while_the_order_waits(lab: World) -> None:
    """RFC 8555 7.5.2: it is no longer sufficient for anything."""

    def refuse(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("a test")

    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, *NAMES)
        watch(lab.inst, refuse)
        assert (await finalize(client, order)).json["status"] == "processing"
        watch(lab.inst, lambda _tbs, sign: sign())
        await client.post(order["authorizations"][0], {"status": "deactivated"})
        door.later(issuing.PAUSE)
        ended = await client.post(order["url"])
        assert (ended.json["status"], ended.json["error"]["type"]) == (
            "invalid",
            "urn:ietf:params:acme:error:unauthorized",
        )
        assert [row.failed_at is not None for row in await made(lab)] == [True]
