"""What every POST at the ACME door must be (RFC 8555 6.2 to 6.5): the table of bad inputs, 120 to 141 and 208, through
the whole application on each kind of store.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs

from rootward.core.jose import LARGEST
from rootward.core.jwk import ALGORITHMS
from rootward.protocols.acme.app import Settings
from rootward.protocols.acme.nonces import AHEAD, LIFETIME, Nonces
from rootward.store.schema_acme import accounts, nonces
from rootward.worker import forget_nonces
from tests.support.acme import Client, Nothing, Reply, Wire, b64, flattened, jwk_of, new_key, unb64
from tests.support.world import World
from tests.vectors.jws import BAD_JWS

HERE = "https://localhost:8443"


@pytest.fixture
def wire(lab: World) -> Wire:
    return Wire.of(lab.inst)


async def rows(lab: World, table: Any) -> int:
    found: int = await lab.inst.db.read(lambda conn: conn.execute(select(func.count()).select_from(table)).scalar_one())
    return found


async def registered(wire: Wire, **more: Any) -> Client:
    client = Client(wire, **more)
    assert (await client.register()).status == 201
    return client


def refused(reply: Reply, type: str, status: int = 400) -> None:
    """It is that problem, and the client may try again with a fresh nonce."""
    assert (reply.problem, reply.status) == (type, status), reply
    assert len(unb64(reply.headers["replay-nonce"])) == 40
    assert reply.links["index"]


async def test_the_table_of_signed_objects(lab: World, wire: Wire) -> None:
    client = Client(wire)
    for bad in BAD_JWS:
        with capture_logs() as lines:
            reply = await client.post("new-account", raw=bad.make())
        refused(reply, bad.type)
        assert (reply.json.get("algorithms") == list(ALGORITHMS)) is (bad.type == "badSignatureAlgorithm"), bad
        assert [line["event"] for line in lines] == (["acme.private-key"] if bad.number == 130 else []), bad
    assert len(set(client.nonces)) == len(BAD_JWS)
    assert await rows(lab, nonces) == await rows(lab, accounts) == 0  # nobody without a right signature writes anything


@pytest.mark.parametrize("type", ["", "application/json", "application/jose", "text/plain", "application/jose+json2"])
async def test_120_the_media_type(wire: Wire, type: str) -> None:
    refused(await Client(wire).post("new-account", {}, jwk=True, content_type=type), "malformed", 415)


@pytest.mark.parametrize("type", ["application/jose+json", "Application/JOSE+JSON; charset=utf-8"])
async def test_the_right_media_type(wire: Wire, type: str) -> None:
    assert (await Client(wire).post("new-account", {}, jwk=True, content_type=type)).status == 201


async def test_121_a_large_body(wire: Wire) -> None:
    client = Client(wire)
    refused(await client.post("new-account", raw=b"[" * (LARGEST + 1)), "malformed", 413)
    refused(await client.post("new-account", raw=b"[" * LARGEST), "malformed", 400)
    told = {"content-type": "application/jose+json", "content-length": str(LARGEST + 1)}
    refused(await wire.send("POST", "/acme/new-account", b"", told), "malformed", 413)


NOBODY = HERE + "/acme/account/AAAAAAAAAAAAAAAAAAAAAA"
# What stands in the header in place of what is right, whether the key itself does too, and what that gets. `{}` is the
# path of the account below /acme/.
HEADERS: list[tuple[dict[str, Any], bool, str, int]] = [
    ({"kid": "x"}, True, "malformed", 400),  # 133: both
    ({"jwk": Nothing, "kid": Nothing}, True, "malformed", 400),  # 133: none
    ({}, True, "malformed", 400),  # a resource of accounts
    ({"kid": "https://elsewhere.test/acme/account/AAAAAAAAAAAAAAAAAAAAAA"}, False, "malformed", 400),  # 134
    ({"kid": HERE + "/acme/account/../account/AAAAAAAAAAAAAAAAAAAAAA"}, False, "malformed", 400),
    ({"kid": HERE + "/acme/server/account/AAAAAAAAAAAAAAAAAAAAAA"}, False, "malformed", 400),
    ({"kid": HERE + "/acme/account/AAAAAAAAAAAAAAAAAAAAAA?"}, False, "malformed", 400),
    ({"kid": HERE + "/acme/account/AAAAAAAAAAAAAAAAAAAAA%41"}, False, "malformed", 400),
    ({"kid": HERE + "/acme/account/AAAAAAAAAAAAAAAAAAAAAA\n"}, False, "malformed", 400),
    ({"kid": "/acme/account/AAAAAAAAAAAAAAAAAAAAAA"}, False, "malformed", 400),
    ({"kid": ""}, False, "malformed", 400),
    ({"kid": HERE + "/acme/account/AAAAAAAAAAAAAAAAAAAAAA"}, False, "accountDoesNotExist", 400),
    ({"alg": "ES384"}, False, "badSignatureAlgorithm", 400),  # 128: of another curve than the account's key
    ({"alg": "RS256"}, False, "badSignatureAlgorithm", 400),
    ({"url": Nothing}, False, "unauthorized", 403),  # 138
    ({"url": ""}, False, "unauthorized", 403),
    ({"url": HERE + "/acme/new-order"}, False, "unauthorized", 403),
    ({"url": "http://localhost:8443/acme/{}"}, False, "unauthorized", 403),
    ({"url": "https://localhost/acme/{}"}, False, "unauthorized", 403),
    ({"url": "https://LOCALHOST:8443/acme/{}"}, False, "unauthorized", 403),
    ({"url": HERE + "/acme/{}?"}, False, "unauthorized", 403),
    ({"url": HERE + "/acme/{}?a=b"}, False, "unauthorized", 403),
    ({"url": HERE + "/acme/{}#"}, False, "unauthorized", 403),
    ({"url": "/acme/{}"}, False, "unauthorized", 403),
    ({"nonce": Nothing}, False, "badNonce", 400),  # 136
    ({"nonce": ""}, False, "badNonce", 400),
    ({"nonce": "AAAA"}, False, "badNonce", 400),
    ({"nonce": b64(bytes(40))}, False, "badNonce", 400),
    ({"nonce": "not base64url!"}, False, "malformed", 400),  # RFC 8555 6.5.2
    ({"nonce": "AAAA=="}, False, "malformed", 400),
]


async def test_the_header(wire: Wire) -> None:
    client = await registered(wire)
    url = client.kid or ""
    path = url.removeprefix(HERE + "/acme/")
    for header, jwk, type, status in HEADERS:
        given = {name: value.replace("{}", path) if isinstance(value, str) else value for name, value in header.items()}
        refused(await client.post(url, header=given, jwk=jwk), type, status)
        assert (await client.post(url)).status == 200


async def test_what_must_be_signed_by_its_own_key(wire: Wire) -> None:
    client = await registered(wire)
    refused(await client.post("new-account", {}), "malformed")


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
async def test_140_a_wrong_signature(lab: World, wire: Wire, kind: str) -> None:
    client = await registered(wire, key=new_key(kind))
    before = await rows(lab, nonces)
    url = client.kid or ""
    right = flattened(client.key, await client.header(url), {"contact": ["mailto:a@b.test"]})
    other = flattened(client.key, await client.header(url), {"contact": []})
    bad = [
        right | {"payload": other["payload"]},
        right | {"payload": ""},
        right | {"protected": other["protected"]},
        right | {"signature": ""},
        right | {"signature": other["signature"]},
        right | {"signature": b64(bytes(64))},
        flattened(new_key(kind), await client.header(url), {"contact": ["mailto:a@b.test"]}),
    ]
    for one in bad:
        refused(await client.post(url, raw=json.dumps(one).encode()), "malformed")
    assert await rows(lab, nonces) == before
    # none of it used the nonce: the right one still may
    done = await client.post(url, raw=json.dumps(right).encode())
    assert (done.status, done.json["contact"]) == (200, ["mailto:a@b.test"])


async def test_a_private_key_is_told_whoever_sends_it(wire: Wire) -> None:
    client = await registered(wire)
    jwk = jwk_of(client.key)
    inner = flattened(new_key(), {"alg": "ES256", "jwk": jwk | {"d": "AAAA"}}, {})
    with capture_logs() as lines:
        refused(await client.post("key-change", inner), "malformed")
    assert [line["event"] for line in lines] == ["acme.private-key"]
    assert "AAAA" not in str(lines)


async def test_141_only_an_empty_payload_reads(wire: Wire) -> None:
    client = await registered(wire)
    orders = f"{client.kid}/orders"
    assert (await client.post(orders)).json == {"orders": []}
    for payload in ({}, b" ", b"null", []):
        refused(await client.post(orders, payload), "malformed")


async def test_directory_and_nonces_are_read_by_accounts_too(wire: Wire) -> None:
    """RFC 8555 6.3: GET and POST-as-GET."""
    client = await registered(wire)
    assert (await client.post("directory")).json == (await client.get("directory")).json
    assert (await client.post("new-nonce")).status == 204
    refused(await client.post("new-nonce", {}), "malformed")


# ── nonces ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_new_nonces(lab: World, wire: Wire) -> None:
    client = Client(wire)
    found = set()
    for _ in range(20):
        for method, status in (("HEAD", 200), ("GET", 204)):
            reply = await client.get("new-nonce", method=method)
            assert (reply.status, reply.body) == (status, b"")
            assert reply.headers["cache-control"] == "no-store"
            assert "content-type" not in reply.headers
            found.add(reply.headers["replay-nonce"])
    assert len(found) == 40
    assert await rows(lab, nonces) == 0  # handing out writes nothing


@pytest.mark.invariant("I-47")
async def test_a_nonce_is_used_once_whatever_comes_of_it(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    url = client.kid or ""
    for payload, status in (("", 200), ({"contact": []}, 200), ({"contact": ["tel:1"]}, 400)):
        nonce = await client.nonce()
        assert (await client.post(url, payload, header={"nonce": nonce})).status == status
        for _ in range(2):
            refused(await client.post(url, payload, header={"nonce": nonce}), "badNonce")
    assert (await client.post(url)).json["contact"] == []


@pytest.mark.invariant("I-47")
@pytest.mark.parametrize("payload", ["", {"contact": ["mailto:a@b.test"]}, {"contact": ["tel:1"]}])
async def test_137_one_nonce_a_hundred_times_at_once(lab: World, wire: Wire, payload: object) -> None:
    client = await registered(wire)
    before = await rows(lab, nonces), len(await lab.events("acme.account-updated"))
    nonce = await client.nonce()
    raw = json.dumps(flattened(client.key, await client.header(client.kid or "", {"nonce": nonce}), payload)).encode()
    replies = await asyncio.gather(*(client.post(client.kid or "", raw=raw) for _ in range(100)))
    kinds = [reply.status if reply.status == 200 else reply.problem for reply in replies]
    assert kinds.count("badNonce") == 99, kinds
    assert kinds.count("unsupportedContact" if payload == {"contact": ["tel:1"]} else 200) == 1
    assert await rows(lab, nonces) == before[0] + 1
    done = 1 if payload == {"contact": ["mailto:a@b.test"]} else 0
    assert len(await lab.events("acme.account-updated")) == before[1] + done


async def test_a_hundred_at_once_make_one_account(lab: World, wire: Wire) -> None:
    """The same key with a hundred nonces: one is 201, the others are told the same account."""
    client = Client(wire)
    for _ in range(100):
        await client.get("new-nonce")
    raws = [
        json.dumps(flattened(client.key, await client.header(client.path("new-account"), jwk=True), {})).encode()
        for _ in range(100)
    ]
    replies = await asyncio.gather(*(client.post("new-account", raw=raw) for raw in raws))
    assert sorted(reply.status for reply in replies) == [200] * 99 + [201]
    assert len({reply.headers["location"] for reply in replies}) == 1
    assert await rows(lab, accounts) == 1
    assert (await lab.counts())["acme.account-created"] == 1


async def test_136_the_age_of_a_nonce(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    url = client.kid or ""
    old = [await client.nonce(), (await client.get("new-nonce")).headers["replay-nonce"]]
    lab.clock.move(LIFETIME - timedelta(seconds=1))
    assert (await client.post(url, header={"nonce": old[0]})).status == 200
    lab.clock.move(timedelta(seconds=1))
    refused(await client.post(url, header={"nonce": old[1]}), "badNonce")
    ahead = (await client.get("new-nonce")).headers["replay-nonce"]
    lab.clock.move(-AHEAD)  # as a replica's whose clock is behind
    assert (await client.post(url, header={"nonce": ahead})).status == 200
    lab.clock.move(AHEAD + timedelta(seconds=1))
    future = (await client.get("new-nonce")).headers["replay-nonce"]
    lab.clock.move(-AHEAD - timedelta(seconds=1))
    refused(await client.post(url, header={"nonce": future}), "badNonce")


async def test_a_nonce_of_another_installation(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    other = Nonces(secrets.token_bytes(32)).make(lab.clock(), secrets.token_bytes(16))
    refused(await client.post(client.kid or "", header={"nonce": other}), "badNonce")
    good = await client.nonce()
    changed = b64(unb64(good)[:-1] + bytes([unb64(good)[-1] ^ 1]))
    refused(await client.post(client.kid or "", header={"nonce": changed}), "badNonce")
    longer = b64(unb64(good) + b"\0")
    refused(await client.post(client.kid or "", header={"nonce": longer}), "badNonce")


async def test_used_nonces_are_forgotten_when_they_are_too_old(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    nonce = await client.nonce()
    await client.post(client.kid or "", header={"nonce": nonce})
    used = await rows(lab, nonces)
    lab.clock.move(LIFETIME)
    await forget_nonces(lab.inst)
    assert await rows(lab, nonces) == used  # another replica's clock may be an hour behind
    lab.clock.move(timedelta(hours=1, seconds=1))
    await forget_nonces(lab.inst)
    assert await rows(lab, nonces) == 0
    refused(await client.post(client.kid or "", header={"nonce": nonce}), "badNonce")


# ── addresses ─────────────────────────────────────────────────────────────────────────────────────────────────────


NOTHING = [
    "/acme/",
    "/acme/nothing",
    "/acme//directory",
    "/acme/./directory",
    "/acme/server/../directory",
    "/acme/%64irectory",
    "/acme/directory/",
    "/acme/Directory",
    "/acme/server/account/AAAAAAAAAAAAAAAAAAAAAA",
    "/acme/nowhere/directory",
    "/acme/device/directory",  # takes no ACME accounts
    "/acme/account/AAAAAAAAAAAAAAAAAAAAA",
    "/acme/account/AAAAAAAAAAAAAAAAAAAAAAA",
    "/acme/account/AAAAAAAAAAAAAAAAAAAA.A",
    "/acme/account/AAAAAAAAAAAAAAAAAAAAAA\n",
    "/acme/account/AAAAAAAAAAAAAAAAAAAAAA\0",
    "/acme/directory\xff",
    "/acme/" + "a" * 2000,
]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_208_a_path_that_names_nothing(wire: Wire, method: str) -> None:
    headers = {"content-type": "application/jose+json"}
    for path in NOTHING:
        reply = await wire.send(method, path, b"{}", headers)
        assert (reply.problem, reply.status) == ("malformed", 404), path
        assert ("replay-nonce" in reply.headers) is (method == "POST")
    for resource in ("new-nonce", "new-account", "key-change"):  # of a profile that has no directory
        assert (await wire.send("POST", f"/acme/device/{resource}", b"{}", headers)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/acme/new-account", "POST"),
        ("GET", "/acme/account/AAAAAAAAAAAAAAAAAAAAAA", "POST"),
        ("DELETE", "/acme/directory", "GET, HEAD, POST"),
        ("PUT", "/acme/server/new-nonce", "GET, HEAD, POST"),
    ],
)
async def test_a_wrong_method(wire: Wire, method: str, path: str, allow: str) -> None:
    reply = await wire.send(method, path)
    assert (reply.problem, reply.status) == ("malformed", 405)
    assert reply.headers["allow"] == allow


async def test_a_query_that_nobody_wants(wire: Wire) -> None:
    assert (await wire.send("GET", "/acme/directory?a=b")).problem == "malformed"
    client = await registered(wire)
    for query in ("?", "?cursor=", "?cursor=a&cursor=b", "?limit=1"):
        url = f"{client.kid}/orders{query}"
        reply = await client.post(url, header={"url": url.removesuffix("?")})
        assert (reply.status == 200) is (query == "?"), query  # an empty one is none: ASGI does not tell them apart


async def test_every_answer_says_where_its_directory_is(wire: Wire) -> None:
    for directory in ("", "server"):
        client = Client(wire, directory=directory)
        where = [f"{HERE}/acme/directory" if not directory else f"{HERE}/acme/{directory}/directory"]
        assert (await client.get("directory")).links == {}
        assert (await client.get("new-nonce")).links["index"] == where
        assert (await client.register()).links["index"] == where
        assert (await client.post("new-account", [], jwk=True)).links["index"] == where


# ── when something of ours fails ──────────────────────────────────────────────────────────────────────────────────


async def test_a_store_that_is_away(lab: World, wire: Wire) -> None:
    client = await registered(wire)
    lab.inst.db.close()
    reply = await client.post(client.kid or "")
    refused(reply, "serverInternal", 503)
    assert reply.headers["retry-after"] == "5"


async def test_a_mistake_of_ours_tells_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await registered(wire)

    def broken(*_args: object) -> Any:
        raise RuntimeError("the shelf fell from the wall")

    monkeypatch.setattr("rootward.protocols.acme.account.answer", broken)
    with capture_logs() as lines:
        reply = await client.post(client.kid or "")
    refused(reply, "serverInternal", 500)
    assert b"shelf" not in reply.body
    assert [line["event"] for line in lines] == ["request.failed"]


async def test_half_a_request_gets_no_answer(lab: World) -> None:
    wire = Wire.of(lab.inst)
    sent: list[Any] = []

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/acme/new-account",
        "raw_path": b"/acme/new-account",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/jose+json")],
        "client": None,
        "extensions": {},
    }
    await wire.app(scope, gone, send)
    assert sent == []


async def test_how_many_statements_a_post_costs(lab: World, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up by kid and the nonce's row: nothing else, but what the resource itself needs."""
    from rootward.store import rows as module

    client = await registered(wire)
    await client.nonce()
    seen: list[str] = []
    execute = module._execute

    def counting(conn: Any, compiled: Any, values: Any) -> Any:
        seen.append(str(compiled.sql))
        return execute(conn, compiled, values)

    together = module.run_together

    def all_of(conn: Any, group: list[Any]) -> None:
        seen.extend(str(step[0]) for rows in group for step in rows.steps)
        together(conn, group)

    monkeypatch.setattr(module, "_execute", counting)
    monkeypatch.setattr("rootward.store.group.run_together", all_of)
    assert (await client.post(client.kid or "")).status == 200
    assert len(seen) == 2, seen
    assert "acme_accounts" in seen[0]
    assert "acme_nonces" in seen[1]


async def test_settings_reach_every_request(lab: World) -> None:
    wire = Wire.of(lab.inst, Settings(terms="https://pki.test/terms"))
    meta = (await Client(wire).get("directory")).json["meta"]
    assert meta["termsOfService"] == "https://pki.test/terms"
    assert "termsOfService" not in (await Client(Wire.of(lab.inst)).get("directory")).json["meta"]
