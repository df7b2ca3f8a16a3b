"""`/eab` and `/acme-accounts` at the REST door, with the accounts that ACME clients made meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.acme import Client, Wire, b64, bound, jwk_of, unb64
from tests.support.postgres import Postgres
from tests.support.rest import Api, rest
from tests.support.store import DIALECTS, fresh_url

V1 = "/api/v1"
ADMIN = {"role": "admin", "authority": "issuing"}
AUDITOR = {"role": "auditor", "authority": "issuing"}
SERVER = {"profile": "server", "owner": "shop"}


@pytest.fixture(params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[Api]:
    with rest(fresh_url(request.param, tmp_path, postgres)) as made:
        yield made


def create(api: Api, body: dict[str, Any], **more: Any) -> Any:
    """The body of a 201."""
    reply = api.call("POST", V1 + "/eab", body, **more)
    assert reply.status == 201, reply.body
    return reply.json


def account(api: Api, made: Any, directory: str = "server") -> str:
    """The id of an account that a client makes with a binding."""
    client = Client(Wire.of(api.inst), directory=directory)
    eab = bound(made["kid"], unb64(made["hmac_key"]), jwk_of(client.key), client.path("new-account"))
    reply = api.run(client.register(externalAccountBinding=eab, contact=["mailto:a@b.test"]))
    assert reply.status == 201, reply.body
    return (client.kid or "").rpartition("/")[2]


def test_a_binding_from_its_making_to_its_end(api: Api) -> None:
    body = {**SERVER, "names": [".shop.internal"], "preauthorized": ["10.0.0.0/8"], "uses": 2, "expires": "7d"}
    made = create(api, body)
    assert len(unb64(made["hmac_key"])) == 32
    assert (made["status"], made["uses"], made["used"]) == ("open", 2, 0)
    assert (made["names"], made["preauthorized"], made["owner"]) == ([".shop.internal"], ["10.0.0.0/8"], "shop")
    shown = api.call("GET", f"{V1}/eab/{made['kid']}").json
    assert shown == {name: value for name, value in made.items() if name != "hmac_key"}
    id = account(api, made)
    assert api.call("GET", f"{V1}/eab/{made['kid']}").json["used"] == 1
    ended = api.call("POST", f"{V1}/eab/{made['kid']}/revoke", {})
    assert (ended.status, ended.json["status"]) == (200, "revoked")
    again = api.call("POST", f"{V1}/eab/{made['kid']}/revoke")
    assert again.json == ended.json
    assert api.call("GET", f"{V1}/acme-accounts/{id}").json["status"] == "valid"


def test_what_is_left_out(api: Api) -> None:
    made = create(api, {"owner": "shop"})
    assert (made["profile"], made["names"], made["preauthorized"], made["uses"]) == (None, [], [], 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"owner": ""}, "owner"),
        ({"profile": "nothing"}, "profile"),
        ({"names": ["*"]}, "names"),
        ({"preauthorized": ["10.0.0.1/8"]}, "preauthorized"),
        ({"uses": 0}, "uses"),
        ({"expires": "2y"}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_what_a_binding_cannot_be(api: Api, changes: dict[str, Any], field: str) -> None:
    reply = api.call("POST", V1 + "/eab", SERVER | changes)
    assert reply.status in (400, 422)
    assert field in [reason["field"] for reason in reply.json["reasons"]], reply.json
    assert api.call("GET", V1 + "/eab").json["items"] == []


@pytest.mark.invariant("I-60")
def test_a_secret_is_told_once(api: Api) -> None:
    headers = {"idempotency-key": "k1"}
    made = create(api, SERVER, headers=headers)
    again = create(api, SERVER, headers=headers)
    assert again == made | {"hmac_key": None}
    kept = api.inst.db.read_sync(lambda conn: conn.exec_driver_sql("SELECT answer FROM idempotency").scalars().all())
    assert len(kept) == 1
    assert made["hmac_key"] not in kept[0]
    assert made["kid"] in kept[0]
    events = api.call("GET", V1 + "/events?kind=acme.*").body
    assert made["kid"].encode() in events
    assert made["hmac_key"].encode() not in events


def test_who_sees_what(api: Api) -> None:
    one, every = create(api, SERVER), create(api, {"owner": "all"})
    accounts = [account(api, one), account(api, every)]
    _, auditor = api.person("ann", AUDITOR)
    _, admin = api.person("bob", ADMIN)
    _, nobody = api.person("cid", {"role": "requester"})
    for token, kids, ids in (
        ("", [every["kid"], one["kid"]], accounts[::-1]),
        (auditor, [one["kid"]], accounts[:1]),
        (admin, [one["kid"]], accounts[:1]),
        (nobody, [], []),
    ):
        seen = api.call("GET", V1 + "/eab", token=token).json["items"]
        assert [item["kid"] for item in seen] == kids
        found = api.call("GET", V1 + "/acme-accounts", token=token).json["items"]
        assert [item["id"] for item in found] == ids
        for path, mine in (("eab", kids), ("acme-accounts", ids)):
            for name in (one["kid"], every["kid"], *accounts):
                status = 200 if name in mine else 404
                assert api.call("GET", f"{V1}/{path}/{name}", token=token).status == status
    assert api.call("POST", V1 + "/eab", SERVER, token=auditor).code == "RW-FORBIDDEN"
    assert api.call("POST", f"{V1}/eab/{one['kid']}/revoke", token=auditor).code == "RW-FORBIDDEN"
    assert api.call("POST", f"{V1}/eab/{one['kid']}/revoke", token=nobody).code == "RW-NOT-FOUND"
    assert api.call("POST", f"{V1}/acme-accounts/{accounts[0]}/deactivate", token=auditor).code == "RW-FORBIDDEN"
    assert api.call("POST", f"{V1}/acme-accounts/{accounts[1]}/deactivate", token=admin).code == "RW-NOT-FOUND"
    assert api.call("POST", f"{V1}/acme-accounts/{accounts[0]}/deactivate", token=admin).json["status"] == "revoked"
    assert create(api, SERVER, token=admin)["status"] == "open"


def test_lists_and_their_filters(api: Api) -> None:
    open_ = [create(api, SERVER | {"owner": f"o{n}"}) for n in range(5)]
    revoked = create(api, SERVER)
    api.call("POST", f"{V1}/eab/{revoked['kid']}/revoke")
    used = create(api, SERVER)
    id = account(api, used)
    for status, made in (("open", open_[::-1]), ("used", [used]), ("revoked", [revoked]), ("expired", [])):
        found = api.pages(f"{V1}/eab?status={status}&limit=2")
        assert [item["kid"] for item in found] == [one["kid"] for one in made], status
        assert all(item["status"] == status for item in found)
    assert len(api.pages(V1 + "/eab?limit=3")) == 7
    more = [account(api, one) for one in open_]
    api.call("POST", f"{V1}/acme-accounts/{id}/deactivate")
    assert [item["id"] for item in api.pages(V1 + "/acme-accounts?limit=2")] == [*more[::-1], id]
    assert [item["id"] for item in api.pages(V1 + "/acme-accounts?status=revoked&limit=1")] == [id]
    assert [item["id"] for item in api.pages(V1 + "/acme-accounts?owner=o3&limit=1")] == [more[3]]
    assert api.pages(V1 + "/acme-accounts?status=deactivated&limit=1") == []
    for path in ("/eab?status=good", "/acme-accounts?status=good", "/eab?cursor=AAAAAAAAAAAAAAAAAAAAAAAA"):
        assert api.call("GET", V1 + path).code == "RW-QUERY"


def test_an_account_as_it_is_told(api: Api) -> None:
    made = create(api, SERVER | {"names": [".a.internal"]})
    id = account(api, made)
    shown = api.call("GET", f"{V1}/acme-accounts/{id}").json
    assert shown["contacts"] == ["mailto:a@b.test"]
    assert (shown["owner"], shown["binding"], shown["profile"]) == ("shop", made["kid"], "server")
    assert (shown["names"], shown["address"], shown["deactivated_at"]) == ([".a.internal"], "127.0.0.1", None)
    assert len(unb64(shown["thumbprint"])) == 32
    assert api.call("POST", f"{V1}/acme-accounts/{id}/deactivate").json["deactivated_at"] is not None
    assert b64(unb64(shown["thumbprint"])) == shown["thumbprint"]


def test_accounts_are_principals_that_are_listed_apart(api: Api) -> None:
    id = account(api, create(api, SERVER))
    people = api.pages(V1 + "/principals?limit=1")
    assert {one["kind"] for one in people} == {"person"}
    (found,) = api.pages(V1 + "/principals?kind=account&limit=1")
    assert (found["id"], found["kind"], found["name"]) == (id, "account", f"acme:{id}")
    assert api.call("GET", V1 + "/principals?kind=person").code == "RW-QUERY"
    grant = api.call("POST", V1 + "/grants", {"principal": id, "role": "requester", "profile": "device"})
    assert grant.status == 201
    (found,) = api.pages(V1 + "/principals?kind=account&limit=1")
    assert [one["profile"] for one in found["grants"]] == ["device"]
