"""The REST door over a whole installation on each kind of store: the contract's answers, good and bad."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from rootward.core.problems import CODES, Problem
from rootward.protocols.auth import LIMIT
from rootward.protocols.rest import resources
from tests.support.postgres import Postgres
from tests.support.rest import Api, csr, rest
from tests.support.store import DIALECTS, fresh_url
from tests.vectors.rest import BAD, CERTIFICATES, CREDENTIALS, Bad

V1 = "/api/v1"


@pytest.fixture(scope="module", params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    """One installation for the whole module, once on each dialect."""
    with rest(fresh_url(request.param, tmp_path_factory.mktemp("rest"), postgres)) as made:
        yield made


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Api]:
    """An installation for one test."""
    with rest(f"sqlite:///{tmp_path}/rootward.db") as made:
        yield made


@pytest.fixture(scope="module")
def made(api: Api) -> dict[str, Any]:
    """A certificate that nobody changes."""
    found: dict[str, Any] = api.issue("stays.internal")
    return found


# ── bad inputs ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_each_bad_input_gets_its_one_answer(api: Api, made: dict[str, Any], bad: Bad) -> None:
    path = bad.path.replace("{id}", made["id"])
    body = json.loads(json.dumps(bad.body).replace('"{csr}"', json.dumps(csr("bad.internal"))))
    reply = api.call(bad.method, path, body, raw=bad.raw, headers=bad.headers)
    assert (reply.status, reply.code) == (bad.status, bad.code), reply.body
    assert b"<script>" not in reply.body
    if bad.status == 405:
        assert bad.method not in reply.headers["allow"].split(", ")


@pytest.mark.parametrize("value", CREDENTIALS)
def test_wrong_credentials_are_one_answer(api: Api, value: str) -> None:
    headers = [(b"authorization", value.encode("latin-1"))]
    reply = api.scope("GET", V1 + "/me", headers, address=f"192.0.2.{CREDENTIALS.index(value)}")
    nobody = api.scope("GET", V1 + "/me", [], address="192.0.2.100")
    assert reply.status == nobody.status == 401
    assert reply.code == nobody.code == "RW-UNAUTHENTICATED"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json["detail"] == nobody.json["detail"]


def test_two_tokens_are_none(api: Api) -> None:
    header = (b"authorization", b"Bearer " + api.token.encode())
    assert api.scope("GET", V1 + "/me", [header], address="192.0.2.101").status == 200
    assert api.scope("GET", V1 + "/me", [header, header], address="192.0.2.101").code == "RW-UNAUTHENTICATED"


def test_a_client_certificate_alone_makes_nobody_a_principal(api: Api, made: dict[str, Any]) -> None:
    peer = x509.load_pem_x509_certificate(made["certificate"].encode()).public_bytes(Encoding.DER)
    reply = api.scope("GET", V1 + "/me", [], address="192.0.2.102", extensions={"rootward.peer_certificate": peer})
    assert reply.code == "RW-UNAUTHENTICATED"


def test_many_failures_of_one_address_hold_up_nobody_else(lone: Api) -> None:
    for _ in range(LIMIT):
        assert lone.call("GET", V1 + "/me", token=None, address="198.51.100.1").status == 401
    held = lone.call("GET", V1 + "/me", token=None, address="198.51.100.1")
    assert held.code == "RW-RATE"
    assert 1 <= int(held.headers["retry-after"]) <= 60
    assert lone.call("GET", V1 + "/me", address="198.51.100.1").status == 200
    assert lone.call("GET", V1 + "/me", token=None, address="198.51.100.2").status == 401


def test_nobody_unknown_makes_us_read_a_body(api: Api) -> None:
    reply = api.call("POST", CERTIFICATES, raw=b"\xff" * 300_000, token=None, address="192.0.2.103")
    assert reply.code == "RW-UNAUTHENTICATED"


def test_unknown_exceptions_say_nothing_but_the_request_id(lone: Api) -> None:
    def broken() -> None:
        raise RuntimeError("the secret is 4711")

    lone.inst.clock = broken  # type: ignore[assignment]  # a clock that breaks
    with capture_logs() as logged:
        reply = lone.call("GET", V1 + "/me")
    assert (reply.status, reply.code) == (500, "RW-INTERNAL")
    assert b"4711" not in reply.body
    (line,) = [line for line in logged if line["event"] == "request.failed"]
    assert "4711" in str(line["exc_info"])
    assert line["request_id"] == reply.json["request_id"]


def test_a_store_that_is_away_is_503(lone: Api) -> None:
    async def away(_work: object) -> None:
        raise Problem("RW-STORE", "The store is not reachable.", retry_after=5)

    lone.inst.db.look = away  # type: ignore[assignment, method-assign]  # a store that is away
    reply = lone.call("GET", V1 + "/me")
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "RW-STORE", "5")


# ── certificates ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_issue_answers_as_the_contract_says(api: Api) -> None:
    body = {"profile": "server", "csr": csr("a.internal"), "lifetime": "2d", "owner": "team", "labels": {"k": "v"}}
    reply = api.call("POST", CERTIFICATES, body)
    found = reply.json
    assert reply.status == 201
    assert reply.headers["location"] == f"{CERTIFICATES}/{found['id']}"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/json"
    assert list(found) == (
        "id serial status profile authority names not_before not_after sha256 owner certificate chain".split()
    )
    leaf = x509.load_pem_x509_certificate(found["certificate"].encode())
    chain = x509.load_pem_x509_certificates(found["chain"].encode())
    assert found["certificate"] == leaf.public_bytes(Encoding.PEM).decode()
    assert [link.subject for link in chain] == [leaf.issuer]
    assert chain[0].subject != chain[0].issuer  # no root
    assert int(found["serial"], 16) == leaf.serial_number
    assert len(found["serial"]) % 2 == 0
    assert (found["status"], found["profile"], found["authority"]) == ("active", "server", "issuing")
    assert (found["names"], found["owner"]) == (["dns:a.internal"], "team")
    assert found["not_after"] == leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    detail = api.call("GET", reply.headers["location"]).json
    assert {key: detail[key] for key in found} == found
    assert detail["labels"] == {"k": "v"}
    assert detail["chain_state"] == {"valid": True, "reasons": []}
    assert detail["urls"]["crl"] == "http://127.0.0.1:8080/crl/issuing.crl"
    assert api.call("GET", f"{CERTIFICATES}/{found['serial']}").json == detail
    assert api.call("HEAD", f"{CERTIFICATES}/{found['serial']}").body == b""


@pytest.mark.invariant("I-07")
def test_an_idempotency_key_gives_one_certificate(api: Api) -> None:
    body = {"profile": "server", "csr": csr("idem.internal")}
    first = api.call("POST", CERTIFICATES, body, headers={"idempotency-key": "k1"})
    again = api.call("POST", CERTIFICATES, body, headers={"idempotency-key": "k1"})
    assert (first.status, first.json) == (again.status, again.json) == (201, first.json)
    other = api.call("POST", CERTIFICATES, {**body, "owner": "x"}, headers={"idempotency-key": "k1"})
    assert (other.status, other.code) == (409, "RW-IDEMPOTENCY")


def test_all_reasons_at_once(api: Api) -> None:
    reply = api.call("POST", CERTIFICATES, {"profile": "server", "csr": csr("a.example.com", "b.example.org")})
    assert reply.code == "RW-NAME-PERMITTED"
    assert len(reply.json["reasons"]) == 2
    reply = api.call("POST", CERTIFICATES, {"profil": "server", "x": 1})
    assert [reason["field"] for reason in reply.json["reasons"]] == ["profil", "x", "profile", "csr"]


def test_revoke_and_release(api: Api) -> None:
    one = api.issue("held.internal")
    url = f"{CERTIFICATES}/{one['id']}"
    held = api.call("POST", url + "/revoke", {"reason": "certificateHold"})
    assert (held.status, held.json["status"]) == (200, "held")
    assert api.call("POST", url + "/release").json["status"] == "active"
    assert api.call("POST", url + "/release").code == "RW-NOT-HELD"
    assert api.call("POST", url + "/revoke").json["status"] == "revoked"
    assert api.call("POST", url + "/revoke", {}).status == 200
    assert api.call("POST", url + "/revoke", {"reason": "unspecified"}).status == 200
    assert api.call("POST", url + "/revoke", {"reason": "superseded"}).code == "RW-ALREADY-REVOKED"
    assert api.call("GET", url).json["reason"] == "unspecified"


def test_revocations_by_serial_and_by_key(api: Api) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pair = [api.issue(name, csr=csr(name, key=key)) for name in ("k1.internal", "k2.internal")]
    other = api.issue("k3.internal")
    body = {"serial": other["serial"], "authority": "issuing", "reason": "superseded"}
    found = api.call("POST", V1 + "/revocations", body)
    assert (found.status, [item["id"] for item in found.json["items"]]) == (200, [other["id"]])
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    found = api.call("POST", V1 + "/revocations", {"public_key": pem, "reason": "keyCompromise"})
    assert {item["id"] for item in found.json["items"]} == {one["id"] for one in pair}
    assert {item["status"] for item in found.json["items"]} == {"revoked"}


def test_impact_says_what_is_known(api: Api) -> None:
    old = api.issue("renewed.internal", owner="team", labels={"a": "b"})
    new = api.issue("renewed.internal", replaces=old["id"])
    api.index()
    found = api.call("GET", f"{CERTIFICATES}/{old['id']}/impact").json
    assert (found["owner"], found["labels"], found["replaced_by"]) == ("team", {"a": "b"}, new["id"])
    assert found["deployments"] == found["dependents"] == []
    assert [(one["id"], one["same_names"], one["same_key"]) for one in found["certificates"]] == [
        (new["id"], True, False)
    ]
    assert api.call("GET", f"{CERTIFICATES}/{old['id']}").json["replaced_by"] == new["id"]


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "query", ["", "&status=active", "&status=revoked", "&source=issued", "&q=internal", "&profile=server"]
)
def test_pages_make_the_whole_list(api: Api, query: str) -> None:
    for n in range(5):
        one = api.issue(f"page{n}.internal")
        if n % 2:
            api.call("POST", f"{CERTIFICATES}/{one['id']}/revoke")
    api.index()
    whole = [one["id"] for one in api.pages(f"{CERTIFICATES}?limit=500{query}")]
    assert whole
    assert [one["id"] for one in api.pages(f"{CERTIFICATES}?limit=2{query}")] == whole
    assert len(set(whole)) == len(whole)


@pytest.mark.parametrize(
    "path",
    [
        "/authorities",
        "/profiles",
        "/principals",
        "/tokens",
        "/grants",
        "/events",
        "/blocked-keys",
        "/requests?status=issued",
    ],
)
def test_every_list_has_pages(api: Api, path: str) -> None:
    api.call("POST", V1 + "/blocked-keys", {"keys": [{"sha256": f"{n:064x}", "why": "test"} for n in range(3)]})
    mark = "&" if "?" in path else "?"
    whole = api.pages(f"{V1}{path}{mark}limit=500")
    assert api.pages(f"{V1}{path}{mark}limit=1") == whole
    if "requests" not in path:
        assert whole


def test_a_cursor_belongs_to_its_list_and_filters(api: Api) -> None:
    cursor = api.call("GET", f"{CERTIFICATES}?limit=1&profile=server").json["next_cursor"]
    assert api.call("GET", f"{CERTIFICATES}?limit=1&profile=server&cursor={cursor}").status == 200
    for other in ("", "&profile=client", "&profile=server&status=active"):
        assert api.call("GET", f"{CERTIFICATES}?limit=1{other}&cursor={cursor}").code == "RW-QUERY"
    assert api.call("GET", f"{V1}/profiles?cursor={cursor}").code == "RW-QUERY"


@pytest.mark.parametrize(
    "q", ["%%%", "___", "a%b_c", "'; DROP TABLE", '"or"', "(a+)+$", "inter*", "NOT foo", "a OR b", "\\\\x"]
)
def test_a_search_is_literal(api: Api, made: dict[str, Any], q: str) -> None:
    from urllib.parse import quote

    api.index()
    reply = api.call("GET", f"{CERTIFICATES}?q={quote(q)}")
    assert (reply.status, reply.json["items"]) == (200, [])


def test_a_search_finds_any_part_of_a_name(api: Api, made: dict[str, Any]) -> None:
    api.index()
    for part in ("stays.internal", "tays.in", "STAYS"):
        assert made["id"] in [one["id"] for one in api.pages(f"{CERTIFICATES}?q={part}&limit=500")]


def test_expiry_takes_times_and_durations(api: Api) -> None:
    short = api.issue("soon.internal", lifetime="1h")
    ids = {one["id"] for one in api.pages(f"{CERTIFICATES}?expires_before=2h&limit=500")}
    assert short["id"] in ids
    assert short["id"] in {
        one["id"] for one in api.pages(f"{CERTIFICATES}?expires_before=9999-12-31T23:59:59Z&limit=500")
    }
    assert short["id"] in {one["id"] for one in api.pages(f"{CERTIFICATES}?expires_before=999999y&limit=500")}
    assert short["id"] not in {one["id"] for one in api.pages(f"{CERTIFICATES}?expires_after=2h&limit=500")}


# ── the document ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_and_its_page_need_no_login(api: Api) -> None:
    import hashlib
    import re

    document = api.call("GET", "/api/openapi.json", token=None)
    assert document.headers["content-type"] == "application/json"
    assert document.json["openapi"] == "3.1.0"
    page = api.call("GET", "/api/docs", token=None)
    text = page.body.decode()
    styles = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["content-security-policy"]
    assert len(styles) == 1
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!/api/)', text)
    assert all(f'id="{code}"' in text for code in CODES)
    assert all(operation.url in text for operation in resources.OPERATIONS)
