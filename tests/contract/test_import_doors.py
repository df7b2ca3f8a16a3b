"""Imports through the doors of a real server: the table of bad uploads, each with its status and code; what a report
says; and the command line, which opens files by itself.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tests.vectors import imports as made
from tests.vectors.csr_parts import pem

IMPORTS = "/api/v1/imports"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("imports") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def body(content: bytes, password: str | None = None) -> dict[str, Any]:
    """An import of these bytes."""
    more = {} if password is None else {"password": password}
    return {"content": base64.b64encode(content).decode(), **more}


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("bad", made.BAD_IMPORTS, ids=str)
def test_a_bad_upload_gets_its_answer(bad: made.BadImport, client: httpx.Client) -> None:
    answer = client.post(IMPORTS, json=body(bad.make(), bad.password))
    found = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, found["status"], found["code"]) == (bad.status, bad.status, bad.code), found
    assert found["reasons"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({}, 422, "RW-FIELD"),
        ({"content": ""}, 422, "RW-FIELD"),
        ({"content": 7}, 422, "RW-FIELD"),
        ({"content": " "}, 422, "RW-IMPORT"),
        ({"content": "%%%"}, 415, "RW-MEDIA-TYPE"),
        ({"content": "ééé"}, 415, "RW-MEDIA-TYPE"),
        ({"content": "MAA="}, 422, "RW-IMPORT-ITEM"),
        ({"content": "MAA=", "key": "x"}, 422, "RW-FIELD"),
        ({"content": "MAA=", "password": "x" * 1_001}, 422, "RW-FIELD"),
        ({"content": "MAA=", "owner": "a\nb"}, 422, "RW-FIELD"),
        ({"content": "MAA=", "labels": {"a": 1}}, 422, "RW-FIELD"),
    ],
)
def test_a_bad_body_gets_its_answer(sent: dict[str, Any], status: int, code: str, client: httpx.Client) -> None:
    answer = client.post(IMPORTS, json=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_nothing_of_the_table_was_kept(client: httpx.Client) -> None:
    assert client.get("/api/v1/certificates", params={"source": "imported"}).json()["items"] == []


def test_a_hundred_megabytes_are_refused_before_they_come(server: Server) -> None:
    """318: by their length alone."""
    context = ssl.create_default_context(cafile=str(server.root))
    plain = http.client.HTTPSConnection("localhost", server.ports["https"], context=context, timeout=30)
    plain.putrequest("POST", IMPORTS)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    for name, value in {**headers, "Content-Length": str(100 * 1024 * 1024)}.items():
        plain.putheader(name, value)
    plain.endheaders()
    answer = plain.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "RW-TOO-LARGE")
    plain.close()


def test_the_report_and_what_it_leads_to(client: httpx.Client) -> None:
    content = (
        pem(made.real_der(), "CERTIFICATE") + made.private_key() + pem(made.certificate(serial=b"\x80"), "CERTIFICATE")
    )
    sent = {"content": content.decode(), "owner": "team-a", "labels": {"env": "lab"}}
    answer = client.post(IMPORTS, json=sent, headers={"Idempotency-Key": "first"})
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert [(one["index"], one["result"]) for one in items] == [(0, "imported"), (1, "refused"), (2, "odd")]
    assert list(items[0]) == ["index", "result", "certificate_id", "sha256", "subject", "reasons"]
    assert items[1]["certificate_id"] is None
    assert [reason["code"] for reason in items[1]["reasons"]] == ["RW-IMPORT-KEY"]
    assert [(reason["code"], reason["field"]) for reason in items[2]["reasons"]] == [("RW-IMPORT-ODD", "serial")]
    assert client.post(IMPORTS, json=sent, headers={"Idempotency-Key": "first"}).json()["items"] == items
    again = client.post(IMPORTS, json=sent).json()["items"]
    assert [one["result"] for one in again] == ["known", "refused", "known"]
    assert [one["certificate_id"] for one in again] == [one["certificate_id"] for one in items]
    for item in (items[0], items[2]):
        found = client.get(f"/api/v1/certificates/{item['certificate_id']}").json()
        assert (found["source"], found["owner"], found["labels"]) == ("imported", "team-a", {"env": "lab"})
        assert found["chain_state"]["valid"] is False
        assert (found["authority"], found["profile"], found["chain"]) == (None, None, "")
        assert found["key_algorithm"] == "p256"
        revoked = client.post(f"/api/v1/certificates/{item['certificate_id']}/revoke")
        assert (revoked.status_code, revoked.json()["code"]) == (409, "RW-CONFLICT")
    listed = client.get("/api/v1/certificates", params={"source": "imported"}).json()["items"]
    assert {one["id"] for one in listed} == {items[0]["certificate_id"], items[2]["certificate_id"]}


def test_every_odd_certificate_can_be_shown(client: httpx.Client) -> None:
    content = b"".join(pem(make(), "CERTIFICATE") for _, make in made.ODD.values())
    items = client.post(IMPORTS, json=body(content)).json()["items"]
    assert {one["result"] for one in items} == {"odd"}
    for item in items:
        for path in ("", "/impact"):
            answer = client.get(f"/api/v1/certificates/{item['certificate_id']}{path}")
            assert answer.status_code == 200, answer.text
    page = client.get("/api/v1/certificates", params={"source": "imported", "limit": 500})
    assert page.status_code == 200


def test_a_serial_of_ours_is_revoked_though_others_use_it(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.cli("cert", "issue", "--profile", "server", "--name", "ours.internal", "--out", str(tmp_path / "ours"))
    mine = client.get("/api/v1/certificates", params={"profile": "server"}).json()["items"][0]
    client.post(IMPORTS, json=body(made.certificate(serial=bytes.fromhex(mine["serial"])))).raise_for_status()
    done = client.post(f"/api/v1/certificates/{mine['serial']}/revoke", json={"reason": "superseded"})
    assert (done.status_code, done.json()["id"]) == (200, mine["id"])


def test_the_command_line(server: Server, tmp_path: Path) -> None:
    """Files of every form; a key and a password stay here."""
    forms = {
        "a.p12": made.pkcs12_of(),
        "b.p7b": made.pkcs7_of("b.test"),
        "c.pem": made.private_key() + pem(made.real_der("c.test"), "CERTIFICATE"),
        "d.der": made.real_der("d.test"),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "password").write_text(f"{made.PASSWORD}\n")
    files = [str(tmp_path / name) for name in forms]
    more = ["--password-file", str(tmp_path / "password"), "--label", "from=cli", "--json"]
    done = server.cli("cert", "import", *files, *more, check=False)
    assert done.returncode == 1, done.stderr  # the key was refused
    items = json.loads(done.stdout)["items"]
    assert [(Path(one["file"]).name, one["index"], one["result"]) for one in items] == [
        ("a.p12", 0, "known"),
        ("a.p12", 1, "imported"),
        ("b.p7b", 0, "imported"),
        ("c.pem", 0, "refused"),
        ("c.pem", 1, "imported"),
        ("d.der", 0, "imported"),
    ]
    table = server.cli("cert", "import", files[1], files[3])
    assert "2 known" in table.stdout
    (tmp_path / "e.der").write_bytes(made.real_der("e.test"))
    wrong = server.cli("cert", "import", str(tmp_path / "e.der"), files[0], check=False)
    assert wrong.returncode == 1
    for said in ("a.p12: ", "RW-IMPORT-PASSWORD", "No password was given", "--password-file", "Nothing was imported."):
        assert said in " ".join(wrong.stderr.split())
    assert "1 imported" in server.cli("cert", "import", str(tmp_path / "e.der")).stdout  # it was not before
    listed = json.loads(server.cli("cert", "list", "--source", "imported", "--json").stdout)["items"]
    assert {one["certificate_id"] for one in items} - {None} <= {one["id"] for one in listed}
