"""Approvals, and who sees what: the REST door over a whole installation, on each kind of store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.postgres import Postgres
from tests.support.rest import Api, csr, rest
from tests.support.store import DIALECTS, fresh_url
from tests.vectors.rest import CERTIFICATES

V1 = "/api/v1"


@pytest.fixture(scope="module", params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    """One installation for the whole module, once on each dialect."""
    with rest(fresh_url(request.param, tmp_path_factory.mktemp("rest"), postgres)) as made:
        yield made


@pytest.fixture(scope="module")
def made(api: Api) -> dict[str, Any]:
    """A certificate that nobody changes."""
    found: dict[str, Any] = api.issue("stays.internal")
    return found


# ── approvals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def careful(api: Api) -> str:
    """A profile that wants somebody's yes."""
    body = {
        "name": "careful",
        "authority": "issuing",
        "names": {"dns": {"allow": [".internal"]}},
        "extended_key_usage": ["server_auth"],
        "approval": {"required": "always"},
    }
    reply = api.call("POST", V1 + "/profiles", body)
    assert reply.status == 201, reply.body
    assert reply.headers["location"] == V1 + "/profiles/careful"
    return "careful"


def test_a_request_waits_and_is_approved(api: Api, careful: str) -> None:
    wanted = {"profile": careful, "csr": csr("wait.internal")}
    parked = api.call("POST", CERTIFICATES, wanted)
    assert parked.status == 202
    url = parked.headers["location"]
    assert parked.json["status"] == "waiting"
    assert parked.json["certificate_id"] is None
    assert url == f"{V1}/requests/{parked.json['id']}"
    assert api.call("POST", CERTIFICATES, wanted).json["id"] == parked.json["id"]
    assert api.call("GET", url).json == parked.json
    assert parked.json["id"] in [one["id"] for one in api.call("GET", V1 + "/requests").json["items"]]
    done = api.call("POST", url + "/approve", {"comment": "fine"})
    assert done.status == 200
    assert done.json["status"] == "issued"
    assert done.json["approval"]["comment"] == "fine"
    assert api.call("GET", f"{CERTIFICATES}/{done.json['certificate_id']}").status == 200
    assert api.call("POST", url + "/approve").code == "RW-APPROVAL"


def test_a_request_is_denied(api: Api, careful: str) -> None:
    url = api.call("POST", CERTIFICATES, {"profile": careful, "csr": csr("no.internal")}).headers["location"]
    done = api.call("POST", url + "/deny", {"comment": "not this one"})
    assert (done.json["status"], done.json["denial"]["comment"]) == ("denied", "not this one")
    assert api.call("POST", url + "/approve", {}).code == "RW-APPROVAL"
    assert done.json["id"] in [one["id"] for one in api.call("GET", V1 + "/requests?status=denied").json["items"]]


# ── who sees what ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-45")
def test_without_a_role_there_is_nothing(api: Api, made: dict[str, Any]) -> None:
    _, token = api.person("nobody")
    for path in (
        f"/certificates/{made['id']}",
        "/authorities/issuing",
        "/profiles/server",
        "/principals/" + made["id"],
    ):
        assert api.call("GET", V1 + path, token=token).code == "RW-NOT-FOUND"
    for path in ("/certificates", "/authorities", "/profiles", "/requests", "/grants"):
        assert api.call("GET", V1 + path, token=token).json["items"] == []
    for path in ("/principals", "/blocked-keys", "/events", "/events/export", "/doctor"):
        assert api.call("GET", V1 + path, token=token).code == "RW-FORBIDDEN"
    assert api.call("GET", V1 + "/events/1", token=token).code == "RW-NOT-FOUND"
    assert api.call("GET", V1 + "/me", token=token).json["grants"] == []
    refused = api.call("POST", CERTIFICATES, {"profile": "server", "csr": csr("x.internal")}, token=token)
    assert refused.code == "RW-FORBIDDEN"
    assert api.call("POST", f"{CERTIFICATES}/{made['id']}/revoke", {}, token=token).code == "RW-FORBIDDEN"


@pytest.mark.invariant("I-43")
def test_a_role_elsewhere_gives_nothing_here(api: Api, made: dict[str, Any]) -> None:
    _, token = api.person("root-officer", {"role": "officer", "authority": "root"})
    assert api.call("GET", f"{CERTIFICATES}/{made['id']}", token=token).code == "RW-NOT-FOUND"
    assert api.call("GET", f"{CERTIFICATES}/{made['serial']}", token=token).code == "RW-NOT-FOUND"
    assert api.call("POST", f"{CERTIFICATES}/{made['id']}/revoke", {}, token=token).code == "RW-FORBIDDEN"
    assert {one["authority"] for one in api.pages(f"{CERTIFICATES}?limit=500", token=token)} == {"root"}
    assert [one["name"] for one in api.call("GET", V1 + "/authorities", token=token).json["items"]] == ["root"]
    assert api.call("GET", f"{CERTIFICATES}?authority=issuing", token=token).json["items"] == []


def test_a_requester_sees_own_requests_only(api: Api, careful: str) -> None:
    role = {"role": "requester", "authority": "issuing"}
    (_, one), (_, two) = api.person("asker-one", role), api.person("asker-two", role)
    parked = api.call("POST", CERTIFICATES, {"profile": careful, "csr": csr("mine.internal")}, token=one)
    assert parked.status == 202
    url = parked.headers["location"]
    assert api.call("GET", url, token=one).status == 200
    assert api.call("GET", url, token=two).code == "RW-NOT-FOUND"
    assert api.call("GET", V1 + "/requests", token=two).json["items"] == []
    assert [r["id"] for r in api.call("GET", V1 + "/requests", token=one).json["items"]] == [parked.json["id"]]
    assert api.call("POST", url + "/approve", {}, token=one).code == "RW-FORBIDDEN"


def test_people_tokens_and_grants(api: Api) -> None:
    id, token = api.person("gone", {"role": "auditor"})
    assert api.call("GET", V1 + "/me", token=token).json["principal"]["id"] == id
    assert api.call("POST", V1 + "/principals", {"name": "gone"}).code == "RW-CONFLICT"
    made = api.call("POST", V1 + "/tokens", {"label": "mine", "lifetime": "1h"}, token=token)
    assert made.status == 201
    assert made.json["token"].startswith("rwt_")
    listed = api.call("GET", V1 + "/tokens", token=token).json["items"]
    assert {one["principal"] for one in listed} == {id}
    assert all("token" not in one for one in listed)
    assert api.call("DELETE", f"{V1}/tokens/{made.json['id']}", token=token).json["revoked_at"] is not None
    assert api.call("GET", V1 + "/me", token=made.json["token"], address="192.0.2.104").status == 401
    grant = api.call("GET", f"{V1}/principals/{id}").json["grants"][0]
    assert api.call("DELETE", f"{V1}/grants/{grant['id']}").json["removed_at"] is not None
    assert api.call("GET", V1 + "/me", token=token).json["grants"] == []
    assert api.call("DELETE", f"{V1}/principals/{id}").json["disabled_at"] is not None
    assert api.call("GET", V1 + "/me", token=token, address="192.0.2.104").status == 401


def test_profiles_have_versions(api: Api) -> None:
    body = {"name": "versions", "authority": "issuing", "extended_key_usage": ["client_auth"]}
    assert api.call("POST", V1 + "/profiles", body).json["version"] == 1
    assert api.call("POST", V1 + "/profiles", body).code == "RW-CONFLICT"
    changed = api.call("PUT", V1 + "/profiles/versions", {**body, "description": "new"})
    assert (changed.status, changed.json["version"]) == (200, 2)
    assert api.call("GET", V1 + "/profiles/versions").json["profile"]["description"] == "new"
    assert "description" not in api.call("GET", V1 + "/profiles/versions/versions/1").json["profile"]
    assert api.call("DELETE", V1 + "/profiles/versions").json["state"] == "retired"
    assert api.call("GET", V1 + "/profiles/versions").json["state"] == "retired"


def test_authorities_show_their_chain_and_crl(api: Api) -> None:
    root, issuing = (api.call("GET", f"{V1}/authorities/{name}").json for name in ("root", "issuing"))
    assert (root["state"], issuing["state"]) == ("offline", "active")
    assert root["ocsp_url"] is None
    assert issuing["chain"] == issuing["certificate"] + root["certificate"]
    assert root["crl"]["entries"] == 0
    parsed = x509.load_pem_x509_certificate(root["certificate"].encode())
    assert int(root["serial"], 16) == parsed.serial_number


def test_an_authority_is_frozen_and_unfrozen(api: Api) -> None:
    path = V1 + "/authorities/issuing"
    _, officer = api.person("cold", {"role": "officer"})
    _, requester = api.person("asker", {"role": "requester"})
    _, stranger = api.person("stranger", {"role": "officer", "authority": "root"})
    assert api.call("POST", path + "/freeze", token=requester).code == "RW-FORBIDDEN"
    assert api.call("POST", path + "/freeze", token=stranger).code == "RW-NOT-FOUND"
    assert api.call("POST", path + "/freeze", {"reason": "a\nb"}, token=officer).code == "RW-FIELD"
    for body in ({"reason": "a leak"}, None):
        frozen = api.call("POST", path + "/freeze", body, token=officer)
        assert (frozen.status, frozen.json["state"], frozen.json["name"]) == (200, "frozen", "issuing")
        assert frozen.json == api.call("GET", path).json
    refused = api.call("POST", CERTIFICATES, {"profile": "server", "csr": csr("frozen.internal")})
    assert (refused.status, refused.code) == (409, "RW-FROZEN")
    assert api.call("POST", path + "/unfreeze", token=officer).code == "RW-FORBIDDEN"
    for _ in range(2):
        assert api.call("POST", path + "/unfreeze", {"reason": "mended"}).json["state"] == "active"
    api.issue("thawed.internal")
    told = api.pages(V1 + "/events?authority=issuing&kind=authority.*")
    assert [(event["kind"], event["data"]) for event in told[:2]] == [
        ("authority.unfrozen", {"reason": "mended"}),
        ("authority.frozen", {"reason": "a leak"}),
    ]
    assert api.call("POST", V1 + "/authorities/nobody/freeze").code == "RW-NOT-FOUND"


@pytest.mark.invariant("I-60")
def test_an_export_is_an_event_and_holds_every_event(api: Api) -> None:
    before = api.pages(V1 + "/events?limit=500")
    reply = api.call("GET", V1 + "/events/export")
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    events = [line for line in lines if "kind" in line]
    assert [line["leaf"] for line in events] == list(range(len(events)))
    assert {event["id"] for event in before} <= {line["id"] for line in events}
    assert {"audit.exported", "log.head"} <= {line["kind"] for line in events}
    assert api.call("GET", f"{V1}/events/{events[-1]['id']}").json == events[-1]
    assert [[*line] for line in lines[len(events) : -1]] == [["certificate"]] * (len(lines) - len(events) - 1)
    assert [*lines[-1]] == ["head", "key"]


def test_events_of_a_certificate(api: Api, made: dict[str, Any]) -> None:
    found = api.pages(f"{V1}/events?certificate={made['id']}")
    assert [event["kind"] for event in found] == ["issue.done", "issue.intended"]
    assert api.pages(f"{V1}/events?kind=issue.*&certificate={made['id']}") == found


def test_blocked_keys_get_no_certificate(api: Api) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = {"keys": [{"sha256": hashlib.sha256(spki).hexdigest(), "why": "leaked"}]}
    assert api.call("POST", V1 + "/blocked-keys", body).json == {"added": 1}
    assert api.call("POST", V1 + "/blocked-keys", body).json == {"added": 0}
    refused = api.call("POST", CERTIFICATES, {"profile": "server", "csr": csr("b.internal", key=key)})
    assert refused.code == "RW-KEY-BLOCKED"
