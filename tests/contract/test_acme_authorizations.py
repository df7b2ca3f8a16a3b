"""Authorizations and challenges (RFC 8555 7.1.4, 7.5, 8), on each kind of store: the table of bad inputs, 164 and 165;
what proves what (I-49), and that nothing is awaited inside a transaction (I-53).
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from rootward.ca import accounts
from rootward.core.profile import Acme as AcmeRules
from rootward.core.profile import NameRules
from rootward.core.times import rfc3339
from rootward.protocols.acme.validator import LEASE, OF_ONE_ACCOUNT, Validator
from rootward.store.failpoint import armed
from rootward.store.schema_acme import authorizations
from tests.support.acme import Client, b64, flattened, jwk_of, new_key, thumbprint
from tests.support.orders import NOTHING, Acme, Json, acme, finalize, identifiers, refused
from tests.support.world import World

HERE = "https://localhost:8443/acme"


async def challenge_of(client: Client, authorization: str, kind: str = "http-01") -> Json:
    found = (await client.post(authorization)).json
    (challenge,) = [one for one in found["challenges"] if one["type"] == kind]
    return dict(challenge)


async def row_of(lab: World, authorization: str) -> Any:
    """Its row, as the store has it."""
    id = authorization.rpartition("/")[2]
    query = select(authorizations).where(authorizations.c.id == id)
    return await lab.inst.db.read(lambda conn: conn.execute(query).one())


async def set_row(lab: World, authorization: str, **values: Any) -> None:
    id = authorization.rpartition("/")[2]
    change = update(authorizations).where(authorizations.c.id == id).values(**values)
    await lab.inst.db.write(lambda conn: conn.execute(change))


async def retried(door: Acme) -> None:
    """What is due is tried, as the job does it each second."""
    await door.wire.validator.take_up(door.lab.inst)
    await door.tried()


async def test_an_authorization_from_beginning_to_end(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        pending = await client.post(url)
        assert (pending.status, pending.json["status"]) == (200, "pending")
        assert pending.json["identifier"] == {"type": "dns", "value": "a.internal"}
        assert "retry-after" not in pending.headers
        tokens = {one["token"] for one in pending.json["challenges"]}
        assert len(tokens) == 1
        assert len(tokens.pop()) == 43  # 256 random bits
        door.web.open.clear()
        answered = await door.answer(client, url)
        assert (answered.json["status"], answered.headers["retry-after"]) == ("processing", "1")
        assert answered.links["up"] == [url]
        await door.web.reached.wait()
        during = await client.post(url)
        assert (during.json["status"], during.headers["retry-after"]) == ("pending", "1")
        assert [one["status"] for one in during.json["challenges"]] == ["processing"]
        door.web.open.set()
        await door.tried()
        valid = await client.post(url)
        assert valid.json["status"] == "valid"
        assert datetime.fromisoformat(valid.json["expires"]) == lab.clock() + timedelta(days=30)
        (proof,) = valid.json["challenges"]
        assert (proof["status"], proof["validated"]) == ("valid", rfc3339(lab.clock()))
        assert proof == (await client.post(proof["url"])).json
        assert "retry-after" not in valid.headers
        assert len(door.web.asked) == 1
        counts = await lab.counts()
        assert (counts["acme.authorization-valid"], counts["acme.authorization-invalid"]) == (1, 0)


async def test_164_the_same_challenge_again(lab: World) -> None:
    """While it is tried and after it is decided: the same answer, and one validation."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal", "b.internal")
        one, two = order["authorizations"]
        door.web.open.clear()
        url = (await door.answer(client, one)).json["url"]
        for _ in range(3):
            again = await client.post(url, {})
            assert (again.status, again.json["status"]) == (200, "processing")
        door.web.open.set()
        await door.tried()
        assert len(door.web.asked) == 1
        for _ in range(2):
            assert (await client.post(url, {})).json["status"] == "valid"
        await retried(door)
        assert len(door.web.asked) == 1
        failing = (await challenge_of(client, two))["url"]
        await client.post(failing, {})
        await door.tried()
        assert len(door.web.asked) == 2
        for _ in range(2):
            again = await client.post(failing, {})
            assert (again.status, again.json["status"]) == (200, "invalid")
            assert again.json["error"]["type"] == "urn:ietf:params:acme:error:incorrectResponse"
        await retried(door)
        assert len(door.web.asked) == 2
        assert (await client.post(order["url"])).json["status"] == "invalid"


async def test_many_answers_at_once_are_one_validation(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        found = (await client.post(order["authorizations"][0])).json["challenges"]
        nonces = [(await client.get("new-nonce", method="HEAD")).headers["replay-nonce"] for _ in range(12)]
        client.nonces.clear()
        urls = [found[n % len(found)]["url"] for n in range(12)]
        replies = await asyncio.gather(
            *(client.post(url, {}, header={"nonce": nonce}) for url, nonce in zip(urls, nonces, strict=True))
        )
        await door.tried()
        chosen = {reply.json["url"] for reply in replies if reply.status == 200 and reply.json["status"] != "pending"}
        assert len(chosen) == 1
        assert (await row_of(lab, order["authorizations"][0])).tries == 1
        for reply in replies:
            if reply.status != 200:
                refused(reply, "malformed", 404)  # another one was chosen a moment before


async def test_165_what_else_an_answer_says(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        url = (await challenge_of(client, order["authorizations"][0]))["url"]
        for payload in (b"[]", b"5", b'"x"', b"null", b"{", b'{"a":1,"a":2}', b"\xff"):
            refused(await client.post(url, payload), "malformed", 400)
        assert (await client.post(url)).json["status"] == "pending"  # a POST-as-GET chooses nothing
        challenge = await challenge_of(client, order["authorizations"][0])
        door.web.pages[f"/.well-known/acme-challenge/{challenge['token']}"] = (
            f"{challenge['token']}.{thumbprint(jwk_of(client.key))}".encode()
        )
        ignored = {"keyAuthorization": "x", "status": "valid", "validated": "now", "url": "x", "token": 5, "type": []}
        assert (await client.post(url, ignored)).json["status"] == "processing"
        await door.tried()
        assert (await client.post(url)).json["status"] == "valid"


async def test_which_challenges_there_are(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        challenge = (await challenge_of(client, url))["url"]
        base = challenge.removesuffix("http-01")
        for kind in ("dns-02", "http-1", "preauthorized", "device-attest-01", "x" * 40):
            refused(await client.post(base + kind, {}), "malformed", 404)
        for wrong in (
            f"{base}HTTP-01",
            base,
            f"{base}{'x' * 41}",
            f"{HERE}/challenge/{NOTHING}/http-01",
            f"{url}/",
            f"{url}A",
        ):
            refused(await client.post(wrong, {}), "malformed", 404)
        await door.answer(client, url)
        await door.tried()
        refused(await client.post(f"{base}dns-01", {}), "malformed", 404)  # it chose the other one


async def test_a_failure_that_may_pass_is_tried_again(lab: World) -> None:
    """RFC 8555 8.2: the error is there meanwhile, with when to look again; a client's own retry is at once."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        ways = door.wire.validator._ways
        door.wire.validator._ways = type(ways)(ways.egress, http01_port=1)
        assert (await door.answer(client, url)).status == 200
        await door.tried()
        look = await client.post((await challenge_of(client, url))["url"])
        assert (look.json["status"], look.json["error"]["type"]) == (
            "processing",
            "urn:ietf:params:acme:error:connection",
        )
        assert look.headers["retry-after"] == "3"  # the next try is in two seconds
        assert (await client.post(order["url"])).json["status"] == "pending"
        door.wire.validator._ways = ways
        assert (await client.post(look.json["url"], {})).headers["retry-after"] == "1"
        await retried(door)
        assert (await client.post(url)).json["status"] == "valid"
        assert "error" not in (await challenge_of(client, url))
        assert (await row_of(lab, url)).tries == 2


async def test_a_failure_that_does_not_pass(lab: World) -> None:
    """After the last try it is invalid for good, with the error of that; one event."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        ways = door.wire.validator._ways
        door.wire.validator._ways = type(ways)(ways.egress, http01_port=1)
        challenge = (await challenge_of(client, url))["url"]
        await client.post(challenge, {})
        await door.tried()
        for _ in range(2):
            assert (await client.post(url)).json["status"] == "pending"
            await client.post(challenge, {})
            await retried(door)
        found = (await client.post(url)).json
        assert found["status"] == "invalid"
        assert [one["error"]["type"] for one in found["challenges"]] == ["urn:ietf:params:acme:error:connection"]
        assert (await row_of(lab, url)).tries == 3
        assert (await lab.counts())["acme.authorization-invalid"] == 1
        refused(await finalize(client, order), "orderNotReady", 403)


@pytest.mark.invariant("I-49")
async def test_taking_an_authorization_back(lab: World) -> None:
    """Pending or valid, at once and for good; it is never used again."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal", "b.internal")
        one, two = order["authorizations"]
        for payload in ({}, {"status": "valid"}, {"status": "Deactivated"}, {"status": None}, {"status": 5}, []):
            refused(await client.post(one, payload), "malformed", 400)
        assert (await client.post(one)).json["status"] == "pending"
        assert (await client.post(one, {"status": "deactivated", "identifier": {}})).json["status"] == "deactivated"
        assert (await client.post(one)).json["status"] == "deactivated"
        refused(await client.post(one, {"status": "deactivated"}), "malformed", 400)
        refused(await door.answer(client, one), "malformed", 400)
        assert (await client.post(order["url"])).json["status"] == "invalid"
        assert (await door.answer(client, two)).status == 200
        await door.tried()
        assert (await client.post(two)).json["status"] == "valid"
        again = await door.order(client, "b.internal")
        assert (again["authorizations"], again["status"]) == ([two], "ready")
        await client.post(two, {"status": "deactivated"})
        assert (await client.post(again["url"])).json["status"] == "invalid"
        third = await door.order(client, "b.internal")
        assert third["authorizations"] != [two]
        assert (await lab.counts())["acme.authorization-deactivated"] == 2


@pytest.mark.invariant("I-49")
async def test_an_authorization_that_is_taken_back_while_it_is_tried(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        door.web.open.clear()
        await door.answer(client, url)
        await door.web.reached.wait()
        assert (await client.post(url, {"status": "deactivated"})).json["status"] == "deactivated"
        door.web.open.set()
        await door.tried()
        assert (await client.post(url)).json["status"] == "deactivated"
        assert (await row_of(lab, url)).validated_at is None
        assert (await lab.counts())["acme.authorization-valid"] == 0


@pytest.mark.invariant("I-49")
@pytest.mark.parametrize("by", ["client", "admin"])
async def test_an_account_that_ends_while_its_name_is_tried(lab: World, by: str) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        door.web.open.clear()
        await door.answer(client, url)
        await door.web.reached.wait()
        if by == "client":
            assert (await client.post(client.kid or "", {"status": "deactivated"})).status == 200
        else:
            await accounts.disable(lab.inst, (client.kid or "").rpartition("/")[2], lab.admin)
        door.web.open.set()
        await door.tried()
        row = await row_of(lab, url)
        assert row.validated_at is row.failed_at is row.next_try_at is None
        for where in (url, order["url"], order["finalize"]):
            assert (await client.post(where)).problem == "unauthorized"
        await retried(door)
        assert len(door.web.asked) == 1


@pytest.mark.invariant("I-49")
async def test_what_a_proof_serves(lab: World) -> None:
    """The same account, type, value and wildcard flag, as long as the profile says; and what proved it must still be
    taken.
    """
    await lab.profile("short-reuse", acme=AcmeRules("open", reuse="1h"))
    await lab.profile("alpn", acme=AcmeRules("open", challenges=("tls-alpn-01",)))
    async with acme(lab) as door:
        client, other = await door.client(), await door.client()
        order = await door.ready(client, "a.internal")
        (proof,) = order["authorizations"]
        again = await door.order(client, "a.internal", "b.internal")
        assert again["authorizations"][0] == proof
        assert [(await client.post(url)).json["status"] for url in again["authorizations"]] == ["valid", "pending"]
        for name in ("*.a.internal", "b.a.internal", "internal.a.internal"):
            assert proof not in (await door.order(client, name))["authorizations"]
        assert (await door.order(other, "a.internal"))["status"] == "pending"
        assert (await door.order(client, "A.internal", profile="peer"))["authorizations"] == [proof]
        assert (await door.order(client, "a.internal", profile="alpn"))["status"] == "pending"
        door.later(timedelta(hours=1))
        assert (await door.order(client, "a.internal", profile="short-reuse"))["status"] == "pending"
        assert (await door.order(client, "a.internal"))["status"] == "ready"
        door.later(timedelta(hours=23))
        assert (await door.order(client, "a.internal"))["status"] == "pending"
        wild = await door.order(client, "*.c.internal")
        challenge = await challenge_of(client, wild["authorizations"][0], "dns-01")
        proof = f"{challenge['token']}.{thumbprint(jwk_of(client.key))}"
        digest = b64(hashlib.sha256(proof.encode()).digest())
        door.names.set("_acme-challenge.c.internal", "TXT", [f'"{digest}"'])
        await client.post(challenge["url"], {})
        await door.tried()
        assert (await door.order(client, "*.c.internal"))["status"] == "ready"
        assert (await door.order(client, "c.internal"))["status"] == "pending"
        assert (await door.order(client, "d.c.internal"))["status"] == "pending"


@pytest.mark.invariant("I-49")
async def test_an_authorization_expires_for_good(lab: World) -> None:
    """Pending or valid; and one that is tried when its time is over is not valid afterwards (RFC 8555 7.1.6)."""
    async with acme(lab) as door:
        client = await door.client()
        pending = (await door.order(client, "a.internal"))["authorizations"][0]
        tried = (await door.order(client, "b.internal"))["authorizations"][0]
        valid = (await door.ready(client, "c.internal"))["authorizations"][0]
        door.web.open.clear()
        door.web.reached.clear()
        await door.answer(client, tried)
        await door.web.reached.wait()
        door.later(timedelta(days=7))
        door.web.open.set()
        await door.tried()
        for url, state in ((pending, "expired"), (tried, "expired"), (valid, "valid")):
            assert (await client.post(url)).json["status"] == state
        row = await row_of(lab, tried)
        assert row.validated_at is row.next_try_at is row.lease is None
        refused(await client.post(f"{pending.replace('/authz/', '/challenge/')}/http-01", {}), "malformed", 400)
        refused(await client.post(pending, {"status": "deactivated"}), "malformed", 400)
        door.later(timedelta(days=23))
        assert (await client.post(valid)).json["status"] == "expired"
        asked = len(door.web.asked)
        await set_row(lab, tried, next_try_at=datetime(2026, 1, 1, tzinfo=UTC))
        await retried(door)  # what was left behind is put away without another look
        assert (await row_of(lab, tried)).next_try_at is None
        assert len(door.web.asked) == asked


@pytest.mark.invariant("I-49")
async def test_a_new_key_of_the_account_while_a_name_is_proved(lab: World) -> None:
    """RFC 8555 7.3.5: nothing else changes; what is to be proved is what it was when the client answered (8.3)."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal", "b.internal")
        one, two = order["authorizations"]
        ways = door.wire.validator._ways
        door.wire.validator._ways = type(ways)(ways.egress, http01_port=1)
        await door.answer(client, one)
        await door.tried()
        assert (await client.post(one)).json["challenges"][0]["status"] == "processing"
        key = new_key()
        url = client.path("key-change")
        inner = flattened(
            key,
            {"alg": "ES256", "jwk": jwk_of(key), "url": url},
            {"account": client.kid, "oldKey": jwk_of(client.key)},
        )
        assert (await client.post(url, inner)).status == 200
        client.key = key
        door.wire.validator._ways = ways
        await client.post((await challenge_of(client, one))["url"], {})
        await retried(door)
        assert (await client.post(one)).json["status"] == "valid"
        await door.answer(client, two)  # with the new key
        await door.tried()
        assert (await client.post(order["url"])).json["status"] == "ready"


# ── validating is durable work ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-53")
async def test_the_store_is_free_while_the_network_is_slow(lab: World) -> None:
    """Tries of as many names as may be tried at once wait for the network; whoever writes meanwhile waits for none."""
    async with acme(lab) as door:
        client, other = await door.client(), await door.client()
        names = [f"n{n}.internal" for n in range(OF_ONE_ACCOUNT + 2)]
        order = await door.order(client, *names)
        door.web.open.clear()
        for url in order["authorizations"]:
            assert (await door.answer(client, url)).json["status"] == "processing"
        assert not door.wire.validator.has_room(client.kid.rpartition("/")[2] if client.kid else "")
        theirs = await door.order(other, "a.internal")
        assert (await other.post(theirs["authorizations"][0], {"status": "deactivated"})).status == 200
        await door.lab.issue("z.internal")
        door.web.open.set()
        await door.tried()
        assert len(door.web.asked) == OF_ONE_ACCOUNT  # the others had no room, and wait in the store
        assert (await client.post(order["url"])).json["status"] == "pending"
        await retried(door)
        assert len(door.web.asked) == len(names)
        assert (await client.post(order["url"])).json["status"] == "ready"


@pytest.mark.invariant("I-53")
@pytest.mark.parametrize("where", ["acme.claimed", "acme.validated"])
async def test_a_try_whose_process_died_is_taken_up_by_another(lab: World, where: str) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        with armed(f"{where}:fail"):
            await door.answer(client, url)
            await asyncio.gather(*door.wire.validator._tasks, return_exceptions=True)
        assert (await client.post(url)).json["status"] == "pending"
        row = await row_of(lab, url)
        assert (row.tries, row.lease, row.validated_at) == (0, lab.inst.db.lease, None)
        other = Validator(lab.inst, door.wire.validator._ways)
        await set_row(lab, url, lease_until=lab.clock() + timedelta(days=1))
        await other.take_up(lab.inst)
        assert not other._tasks  # its lease is not over
        await set_row(lab, url, lease="of a process that is gone", lease_until=datetime(2026, 1, 1, tzinfo=UTC))
        await other.take_up(lab.inst)
        await asyncio.gather(*other._tasks)
        assert (await client.post(url)).json["status"] == "valid"
        assert (await lab.counts())["acme.authorization-valid"] == 1


@pytest.mark.invariant("I-53")
async def test_a_try_that_slept_through_its_lease_changes_nothing(lab: World) -> None:
    """Another process took it over and failed it; what the sleeper found comes too late."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        door.web.open.clear()
        await door.answer(client, url)
        await door.web.reached.wait()
        await set_row(lab, url, lease="another", lease_until=lab.clock() + LEASE)
        door.web.open.set()
        await door.tried()
        row = await row_of(lab, url)
        assert (row.tries, row.lease, row.validated_at, row.failed_at) == (0, "another", None, None)
        assert (await lab.counts())["acme.authorization-valid"] == 0


@pytest.mark.parametrize("traps", ["store.write:fail:1", "store.write:fail_persisted:1", "acme.validation-stored:fail"])
async def test_the_end_of_a_try_that_cannot_be_written(lab: World, traps: str) -> None:
    """It is tried again, unless it was written after all; it is valid once."""
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(client, "a.internal")
        (url,) = order["authorizations"]
        door.web.open.clear()
        await door.answer(client, url)
        await door.web.reached.wait()
        with armed(traps):
            door.web.open.set()
            await asyncio.gather(*door.wire.validator._tasks, return_exceptions=True)
        if "persisted" not in traps and "stored" not in traps:
            assert (await client.post(url)).json["status"] == "pending"
            await set_row(lab, url, lease_until=datetime(2026, 1, 1, tzinfo=UTC))
        await retried(door)
        assert (await client.post(url)).json["status"] == "valid"
        assert (await lab.counts())["acme.authorization-valid"] == 1


async def test_an_address_is_proved_by_itself(lab: World) -> None:
    """RFC 8738: the host that is asked is the address; no name is looked up."""
    await lab.profile("here", names=NameRules(ip=("127.0.0.0/8",)))
    async with acme(lab) as door:
        client = await door.client("here")
        order = await door.order(client, "ip:127.0.0.1")
        assert order["identifiers"] == identifiers(["ip:127.0.0.1"])
        assert await door.prove(client, order) == ["valid"]
        assert door.names.asked == []
