"""ACME accounts at the door (RFC 8555 7.3) on each kind of store: made, read, changed, ended; the directory; limits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from rootward.ca import people as persons
from rootward.ca import profiles
from rootward.ca.accounts import principal_of
from rootward.core.problems import Problem
from rootward.core.profile import Acme, Profile
from rootward.core.roles import Grant, Role
from rootward.protocols.acme import account as resource
from rootward.protocols.acme.app import Settings
from rootward.protocols.acme.limits import HOUR, source
from rootward.store import accounts, blocked, people
from rootward.store.schema_acme import orders
from tests.support.acme import Client, Reply, Wire, jwk_of, new_key, thumbprint
from tests.support.world import World

HERE = "https://localhost:8443"


@pytest.fixture
def wire(lab: World) -> Wire:
    return Wire.of(lab.inst)


async def registered(wire: Wire, **more: Any) -> Client:
    client = Client(wire, **more)
    assert (await client.register()).status == 201
    return client


def id_of(client: Client) -> str:
    return (client.kid or "").rpartition("/")[2]


def refused(reply: Reply, type: str, status: int = 400) -> None:
    assert (reply.problem, reply.status) == (type, status), reply
    assert reply.headers["replay-nonce"]


# ── newAccount ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519", "RSA-2048"])
async def test_a_new_account(lab: World, wire: Wire, kind: str) -> None:
    client = Client(wire, key=new_key(kind))
    made = await client.register(contact=["mailto:ann@a.test"], termsOfServiceAgreed=True, somethingElse=[1])
    assert made.status == 201, made.body
    assert made.headers["location"] == f"{HERE}/acme/account/{id_of(client)}"
    assert made.json == {
        "status": "valid",
        "contact": ["mailto:ann@a.test"],
        "orders": f"{made.headers['location']}/orders",
        "termsOfServiceAgreed": False,  # there are none
    }
    seen = await client.post(client.kid or "")
    assert (seen.status, seen.json) == (200, made.json)
    (event,) = await lab.events("acme.account-created")
    assert event.actor == id_of(client)
    assert event.values() == {
        "account": id_of(client),
        "thumbprint": thumbprint(jwk_of(client.key)),
        "binding": None,
        "owner": None,
        "profile": None,
    }
    assert "ann@" not in event.data  # contacts are personal, and events stay for ever


async def test_the_same_key_has_the_same_account(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    first = client.kid
    for payload in ({}, {"onlyReturnExisting": True}, {"contact": ["mailto:other@a.test"]}):
        again = await client.register(**payload)
        assert (again.status, again.headers["location"]) == (200, first)
        assert again.json["contact"] == []
    elsewhere = Client(wire, key=client.key, directory="server")
    assert (await elsewhere.register()).status == 200
    assert elsewhere.kid == first
    assert (await lab.counts())["acme.account-created"] == 1


async def test_144_only_one_that_exists(lab: World, wire: Wire) -> None:
    client = Client(wire)
    refused(await client.register(onlyReturnExisting=True), "accountDoesNotExist")
    assert (await lab.counts())["acme.account-created"] == 0


@pytest.mark.parametrize(
    ("contact", "type"),
    [
        (["mailto:a@b.test?cc=c@d.test"], "invalidContact"),
        (["mailto:a@b.test,c@d.test"], "invalidContact"),
        (["mailto:a%40b.test"], "invalidContact"),
        (["mailto:"], "invalidContact"),
        (["mailto:@b.test"], "invalidContact"),
        (["mailto:a@b.test\r\nBcc: c@d.test"], "invalidContact"),
        (["mailto:ä@b.test"], "invalidContact"),
        (["mailto:" + "a" * 400 + "@b.test"], "invalidContact"),
        (["a@b.test"], "invalidContact"),
        ([""], "invalidContact"),
        (["mailto:a@b.test", "tel:+12025551212"], "unsupportedContact"),
        (["https://a.test"], "unsupportedContact"),
        ([f"mailto:a{n}@b.test" for n in range(11)], "invalidContact"),
        ("mailto:a@b.test", "malformed"),
        ([1], "malformed"),
        ([["mailto:a@b.test"]], "malformed"),
    ],
)
async def test_contacts(wire: Wire, contact: object, type: str) -> None:
    refused(await Client(wire).register(contact=contact), type)
    client = await registered(wire)
    refused(await client.post(client.kid or "", {"contact": contact}), type)
    assert (await client.post(client.kid or "")).json["contact"] == []


@pytest.mark.parametrize("payload", ["", b"x", b"[]", b"null", b'{"contact":[],"contact":[]}', b"[" * 100])
async def test_what_is_no_object(wire: Wire, payload: object) -> None:
    refused(await Client(wire).post("new-account", payload, jwk=True), "malformed")


async def test_142_the_terms_of_service(lab: World) -> None:
    terms = "https://pki.test/terms"
    client = Client(Wire.of(lab.inst, Settings(terms=terms)))
    for payload in ({}, {"termsOfServiceAgreed": False}):
        reply = await client.register(**payload)
        refused(reply, "userActionRequired", 403)
        assert reply.json["instance"] == terms
        assert reply.links["terms-of-service"] == [terms]
    refused(await client.register(termsOfServiceAgreed="yes"), "malformed")
    made = await client.register(termsOfServiceAgreed=True)
    assert (made.status, made.json["termsOfServiceAgreed"]) == (201, True)


async def test_a_blocked_key_gets_no_account(lab: World, wire: Wire) -> None:
    from rootward.core.jwk import read_jwk

    client = Client(wire)
    await lab.inst.db.write(blocked.add(read_jwk(jwk_of(client.key)).id, why="leaked", at=lab.clock()))
    refused(await client.register(), "badPublicKey")


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_other_contacts(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    url = client.kid or ""
    done = await client.post(url, {"contact": ["mailto:a@b.test", "mailto:a@b.test", "MAILTO:c@D.test"]})
    assert (done.status, done.json["contact"]) == (200, ["mailto:a@b.test", "mailto:c@D.test"])
    ignored = {"orders": "x", "termsOfServiceAgreed": True, "status": "valid", "id": 1}  # RFC 8555 7.3.2
    assert (await client.post(url, ignored)).json == done.json
    assert (await client.post(url, {"contact": []})).json["contact"] == []
    events = await lab.events("acme.account-updated")
    assert [event.values() for event in events] == [{"account": id_of(client), "contacts": n} for n in (2, 0)]


@pytest.mark.invariant("I-49")
async def test_an_account_that_has_ended(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    url = client.kid or ""
    done = await client.post(url, {"status": "deactivated"})
    assert (done.status, done.json["status"]) == (200, "deactivated")
    for path, payload in (
        (url, ""),
        (url, {"contact": []}),
        (f"{url}/orders", ""),
        ("new-order", {}),
        ("key-change", {}),
    ):
        refused(await client.post(path, payload), "unauthorized", 401)
    refused(await client.register(), "unauthorized", 401)  # and its key never gets another one
    refused(await client.register(onlyReturnExisting=True), "unauthorized", 401)
    (event,) = await lab.events("acme.account-deactivated")
    assert event.actor == id_of(client)
    other = await registered(wire)
    assert (await other.post(other.kid or "")).status == 200


async def test_one_of_many_ends(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    for _ in range(20):
        await client.get("new-nonce")
    replies = await asyncio.gather(*(client.post(client.kid or "", {"status": "deactivated"}) for _ in range(20)))
    assert [reply.status for reply in replies].count(200) == 1
    assert {reply.problem for reply in replies if reply.status != 200} == {"unauthorized"}
    assert (await lab.counts())["acme.account-deactivated"] == 1


async def test_a_disabled_principal_is_no_account_any_more(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    await persons.disable_person(lab.inst, id_of(client), lab.admin)
    refused(await client.post(client.kid or ""), "unauthorized", 401)


@pytest.mark.invariant("I-48")
async def test_one_account_at_the_urls_of_another(wire: Wire) -> None:
    """The same answer as for what does not exist, to the last octet but the request's id and the nonce."""
    ann, bob = await registered(wire), await registered(wire)

    def told(reply: Reply) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        own = {"replay-nonce", "x-request-id", "content-length"}
        headers = [pair for pair in reply.header_list if pair[0] not in own]
        return reply.status, {**reply.json, "request_id": ""}, headers

    for payload in ("", {}, {"contact": []}, {"status": "deactivated"}):
        for end in ("", "/orders", "/orders?cursor=AAAAAAAAAAAAAAAAAAAAAA"):
            if end and payload != "":
                continue
            nobodys = f"{HERE}/acme/account/AAAAAAAAAAAAAAAAAAAAAA{end}"
            assert told(await bob.post(f"{ann.kid}{end}", payload)) == told(await bob.post(nobodys, payload))
            assert (await bob.post(nobodys, payload)).status == 404
    assert (await ann.post(ann.kid or "")).json["status"] == "valid"


async def test_the_list_of_orders(lab: World, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = await registered(wire), await registered(wire)
    now = lab.clock()

    def row(n: int, account: str) -> dict[str, object]:
        later = now + timedelta(days=1)
        base = {
            "profile": "server",
            "identifiers": "[]",
            "authorizations": "[]",
            "created_at": now,
            "expires_at": later,
        }
        return {"id": f"{account[:10]}{n:012}", "account": account, **base}

    made = [row(n, id_of(ann)) for n in range(7)] + [row(0, id_of(bob))]
    await lab.inst.db.write(lambda conn: conn.execute(insert(orders), made))
    monkeypatch.setattr(resource, "PAGE", 3)
    found, url, pages = [], f"{ann.kid}/orders", 0
    while url:
        reply = await ann.post(url)
        assert reply.status == 200, reply.body
        found += reply.json["orders"]
        url, pages = reply.links.get("next", [""])[0], pages + 1
    assert found == [f"{HERE}/acme/order/{one['id']}" for one in reversed(made[:-1])]
    assert pages == 3
    for cursor in ("AAAAAAAAAAAAAAAAAAAAAA", str(made[-1]["id"]), "3", "a" * 100):  # 205: forged, somebody else's
        refused(await ann.post(f"{ann.kid}/orders?cursor={cursor}"), "malformed")


# ── keyChange ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def rolled(client: Client, new: Any, **wrong: Any) -> Reply:
    """keyChange to `new`; `wrong` overrides parts of the inner JWS."""
    from tests.support.acme import flattened

    url = client.path("key-change")
    header = {"alg": wrong.get("alg", "ES256"), "jwk": jwk_of(new), "url": url} | wrong.get("header", {})
    header = {name: value for name, value in header.items() if value is not None}
    payload = {"account": client.kid, "oldKey": jwk_of(client.key)} | wrong.get("payload", {})
    inner = flattened(wrong.get("key", new), header, wrong.get("body", payload)) | wrong.get("members", {})
    return await client.post("key-change", wrong.get("raw", inner))


@pytest.mark.invariant("I-51")
@pytest.mark.parametrize("directory", ["", "server"])
async def test_another_key(lab: World, wire: Wire, directory: str) -> None:
    client = await registered(wire, directory=directory)
    old, new = client.key, new_key()
    done = await rolled(client, new)
    assert (done.status, done.json["status"]) == (200, "valid")
    refused(await client.post(client.kid or ""), "malformed")  # the old key's signature is not the account's
    client.key = new
    assert (await client.post(client.kid or "")).status == 200
    assert (await client.register()).headers["location"] == client.kid
    other = Client(wire, key=old)  # and the old key is nobody's
    refused(await other.register(onlyReturnExisting=True), "accountDoesNotExist")
    (event,) = await lab.events("acme.key-changed")
    prints = [thumbprint(jwk_of(key)) for key in (old, new)]
    assert event.values() == {"account": id_of(client), "was": prints[0], "thumbprint": prints[1]}


WRONG: list[dict[str, Any]] = [
    {"payload": {"account": f"{HERE}/acme/account/AAAAAAAAAAAAAAAAAAAAAA"}},
    {"payload": {"account": 1}},
    {"payload": {"oldKey": jwk_of(new_key())}},
    {"payload": {"oldKey": {}}},
    {"body": {}},
    {"body": b""},
    {"body": b"[]"},
    {"header": {"url": f"{HERE}/acme/new-account"}},
    {"header": {"url": None}},
    {"header": {"nonce": "AAAA"}},
    {"header": {"jwk": None}},
    {"header": {"jwk": None, "kid": f"{HERE}/acme/account/AAAAAAAAAAAAAAAAAAAAAA"}},
    {"header": {"kid": "x"}},
    {"key": new_key()},
    {"members": {"signature": ""}},
    {"members": {"header": {}}},
    {"raw": {}},
    {"raw": b"a.b.c"},
    {"raw": ""},
]


@pytest.mark.invariant("I-51")
async def test_a_key_change_that_is_wrong(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    for wrong in WRONG:
        reply = await rolled(client, new_key(), **wrong)
        assert (reply.status, reply.problem) in ((400, "malformed"), (400, "badPublicKey")), (wrong, reply)
        assert (await client.post(client.kid or "")).status == 200
    refused(await rolled(client, new_key(), alg="HS256"), "badSignatureAlgorithm")
    assert (await lab.counts())["acme.key-changed"] == 0


async def test_a_key_that_has_an_account(lab: World, wire: Wire) -> None:
    ann, bob = await registered(wire), await registered(wire)
    for new, where in ((bob.key, bob.kid), (ann.key, ann.kid)):
        reply = await rolled(ann, new)
        refused(reply, "malformed", 409)
        assert reply.headers["location"] == where
    await bob.post(bob.kid or "", {"status": "deactivated"})
    refused(await rolled(ann, bob.key), "malformed", 409)  # what was deactivated stays so
    assert (await lab.counts())["acme.key-changed"] == 0


async def test_a_blocked_key_is_no_new_key(lab: World, wire: Wire) -> None:
    from rootward.core.jwk import read_jwk

    client, new = await registered(wire), new_key()
    await lab.inst.db.write(blocked.add(read_jwk(jwk_of(new)).id, why="leaked", at=lab.clock()))
    refused(await rolled(client, new), "badPublicKey")


@pytest.mark.invariant("I-51")
async def test_204_two_key_changes_at_once(lab: World, wire: Wire) -> None:
    client, keys = await registered(wire), [new_key() for _ in range(10)]
    for _ in keys:
        await client.get("new-nonce")
    replies = await asyncio.gather(*(rolled(client, key) for key in keys))
    won = [key for key, reply in zip(keys, replies, strict=True) if reply.status == 200]
    assert len(won) == 1
    assert {reply.status for reply in replies} <= {200, 400, 409}
    works = []
    for key in [client.key, *keys]:
        works += [key] if (await Client(wire, key=key, kid=client.kid).post(client.kid or "")).status == 200 else []
    assert works == won
    assert (await lab.counts())["acme.key-changed"] == 1


@pytest.mark.invariant("I-51")
async def test_two_accounts_want_one_key(lab: World, wire: Wire) -> None:
    clients, new = [await registered(wire) for _ in range(4)], new_key()
    joining = Client(wire, key=new)
    replies = await asyncio.gather(*(rolled(one, new) for one in clients), joining.register())
    assert [reply.status for reply in replies[:4]].count(200) + (replies[4].status == 201) == 1
    owner = await Client(wire, key=new).register(onlyReturnExisting=True)
    assert owner.status == 200
    assert {reply.headers["location"] for reply in replies if reply.status in (200, 201, 409)} == {
        owner.headers["location"]
    }


# ── the directory ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_directory(lab: World, wire: Wire) -> None:
    await lab.profile("inner", description="For the inner network", acme=Acme("bound"))
    client = Client(wire)
    common = (await client.get("directory")).json
    assert common["newAccount"] == f"{HERE}/acme/new-account"
    assert common["renewalInfo"] == f"{HERE}/acme/renewal-info"
    meta = common["meta"]
    assert meta["website"] == HERE
    assert meta["externalAccountRequired"] is False
    assert meta["profiles"] == {
        "client": "TLS clients",
        "inner": "For the inner network",
        "peer": meta["profiles"]["peer"],
        "server": "TLS servers",
        "short": meta["profiles"]["short"],
    }
    own = (await client.get("/acme/inner/directory")).json
    assert own["newOrder"] == f"{HERE}/acme/inner/new-order"
    assert own["meta"]["externalAccountRequired"] is True
    assert own["meta"]["profiles"] == {"inner": "For the inner network"}
    names = {"newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo", "meta"}
    assert set(own) == set(common) == names


async def test_where_every_profile_wants_a_binding(lab: World, wire: Wire) -> None:
    for name in ("client", "peer", "server", "short"):
        await with_accounts(lab, name, "bound")
    assert (await Client(wire).get("directory")).json["meta"]["externalAccountRequired"] is True
    refused(await Client(wire).register(), "externalAccountRequired", 403)
    await with_accounts(lab, "short", "none")
    refused(await Client(wire, directory="server").register(), "externalAccountRequired", 403)
    assert (await Client(wire).get("/acme/short/directory")).status == 404
    await profiles.retire(lab.inst, "server", lab.admin)
    assert (await Client(wire).get("/acme/server/directory")).status == 404


async def with_accounts(lab: World, name: str, accounts: str) -> Profile:
    """The profile, changed in what ACME accounts it takes."""
    found = await profiles.current(lab.inst, name)
    assert found is not None
    changed = msgspec.structs.replace(found[1], acme=msgspec.structs.replace(found[1].acme, accounts=accounts))
    await profiles.update(lab.inst, changed, lab.admin)
    return changed


# ── as principals ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-45")
async def test_what_an_account_may_do(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    open_, bound = await lab.profile("open", acme=Acme("open")), await lab.profile("inner", acme=Acme("bound"))
    none = await lab.profile("none", acme=Acme())

    async def account() -> accounts.Account:
        found = await lab.inst.db.look(lambda conn: accounts.by_id(conn, id_of(client)))
        assert found is not None
        return found

    def may(found: accounts.Account, profile: Profile) -> bool:
        who = principal_of(found, profile)
        return who.holds(Role.REQUESTER, authority=profile.authority, profile=profile.name)

    found = await account()
    assert principal_of(found, open_).kind == "account"
    assert principal_of(found, open_).identity() == {"id": found.id, "kind": "account", "name": f"acme:{found.id}"}
    assert [may(found, profile) for profile in (open_, bound, none)] == [True, False, False]
    assert [grant.role for grant in principal_of(found, open_).grants] == [Role.REQUESTER]
    with_binding = msgspec.structs.replace(found, binding="x")
    assert [may(with_binding, profile) for profile in (open_, bound, none)] == [True, True, False]
    for_one = msgspec.structs.replace(found, binding="x", profile="inner")
    assert [may(for_one, profile) for profile in (open_, bound, none)] == [False, True, False]
    for name in ("inner", "none"):
        await persons.create_grant(
            lab.inst, principal_id=found.id, role=Role.REQUESTER, authority="issuing", profile=name, caller=lab.admin
        )
    found = await account()
    assert [may(found, profile) for profile in (open_, bound, none)] == [True, True, True]
    assert Grant(Role.REQUESTER, "issuing", "none") in principal_of(found, none).grants


async def test_an_account_is_a_principal(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    found = await lab.inst.db.look(lambda conn: people.by_id(conn, id_of(client)))
    assert found is not None
    assert (found.kind, found.name) == ("account", f"acme:{id_of(client)}")
    with pytest.raises(Problem, match="RW-FIELD"):
        await persons.create_person(lab.inst, found.name, lab.admin)  # no person is ever called so


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_counts_as_one_source() -> None:
    assert source("192.0.2.7") == "192.0.2.7"
    assert source("2001:db8:1:2::3") == source("2001:db8:1:ffff::") == "2001:db8:1::/48"
    assert source("2001:db8:2::") != source("2001:db8:1::")
    assert source("::ffff:192.0.2.7") == "192.0.2.7"
    assert source("") == ""


async def test_too_many_accounts_of_one_address(lab: World) -> None:
    wire = Wire.of(lab.inst, Settings(accounts_per_hour=3))
    for _ in range(3):
        await registered(wire, address="192.0.2.1")
        lab.clock.move(timedelta(seconds=10))
    late = Client(wire, address="192.0.2.1")
    reply = await late.register()
    refused(reply, "rateLimited", 429)
    assert int(reply.headers["retry-after"]) == HOUR.total_seconds() - 30
    assert (await late.register(onlyReturnExisting=True)).problem == "accountDoesNotExist"
    await registered(wire, address="192.0.2.2")
    await registered(wire, address="2001:db8:1:2::3")
    lab.clock.move(HOUR - timedelta(seconds=30))
    await late.get("new-nonce")
    late.nonces = late.nonces[-1:]
    assert (await late.register()).status == 201


async def test_bad_requests_count_for_nothing(lab: World) -> None:
    wire = Wire.of(lab.inst, Settings(accounts_per_hour=1))
    client = Client(wire)
    for _ in range(30):
        refused(await client.post("new-account", {}, jwk=True, key=new_key()), "malformed")
    assert (await client.register()).status == 201
