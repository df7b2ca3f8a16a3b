"""`rootward ca cross` and `rootward request create`: what is sent, what is said, and how they end."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake
from tests.support.authority import PEM, Authority

CROSS = "authorities/issuing/cross-certificates"
SHA256 = "ab" * 32
ITEM = {
    "sha256": SHA256,
    "issuer": "CN=Their Root",
    "not_after": "2030-01-01T00:00:00Z",
    "added_at": "2026-01-01T00:00:00Z",
}


def sent(fake: Fake) -> list[x509.Certificate]:
    """The chain of the last call."""
    method, path, body = fake.seen[-1]
    assert (method, path, set(body)) == ("POST", f"/api/v1/{CROSS}", {"chain"})
    return x509.load_pem_x509_certificates(body["chain"].encode())


def test_cross_list(rootward: Rootward, fake: Fake) -> None:
    fake.bodies[CROSS] = {"items": [], "next_cursor": None}
    assert rootward("ca", "cross", "list", "issuing").out == "There is no cross-signed certificate.\n"
    fake.bodies[CROSS] = {"items": [ITEM], "next_cursor": None}
    lines = rootward("ca", "cross", "list", "issuing").out.splitlines()
    assert lines[0].split() == ["SHA256", "EXPIRES", "ADDED", "ISSUER"]
    assert lines[1].startswith(SHA256)
    assert json.loads(rootward("ca", "cross", "list", "issuing", "--json").out)["items"] == [ITEM]


@pytest.mark.parametrize("form", ["pem", "pem with text", "der"])
def test_cross_add_sends_certificates_in_their_order(rootward: Rootward, fake: Fake, form: str) -> None:
    fake.bodies[CROSS] = ITEM
    chain = (
        [Authority("One").certificate] if form == "der" else [Authority(name).certificate for name in ("One", "Two")]
    )
    pem = b"".join(b"# caf\xc3\xa9\n" * (form != "pem") + one.public_bytes(PEM) for one in chain)
    Path("chain").write_bytes(chain[0].public_bytes(serialization.Encoding.DER) if form == "der" else pem)
    done = rootward("ca", "cross", "add", "issuing", "chain")
    assert (done.code, done.out) == (0, f"The certificate by CN=Their Root is added: {SHA256}.\n")
    assert sent(fake) == chain


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"\x30\x00",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"\xfe\xed\xfe\xed\x00\x00",
    ],
)
def test_cross_add_refuses_what_is_no_chain(rootward: Rootward, fake: Fake, content: bytes) -> None:
    Path("chain").write_bytes(content)
    fake.bodies[CROSS] = ITEM
    done = rootward("ca", "cross", "add", "issuing", "chain")
    assert done.code == (0 if content == b"\x30\x00" else 2)  # whether DER is a certificate is the server's to say
    assert len(fake.seen) == (content == b"\x30\x00")


def test_cross_add_never_sends_a_private_key(rootward: Rootward, fake: Fake) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    Path("chain").write_bytes(Authority("One").certificate.public_bytes(PEM) + key.private_bytes(PEM, *form))
    done = rootward("ca", "cross", "add", "issuing", "chain")
    assert (done.code, fake.seen) == (2, [])
    assert "private key" in done.err
    assert rootward("ca", "cross", "add", "issuing", "nowhere").code == 2


def test_cross_remove_takes_a_fingerprint_as_people_have_it(rootward: Rootward, fake: Fake) -> None:
    fake.bodies[f"{CROSS}/{SHA256}/remove"] = ITEM
    for written in (SHA256, SHA256.upper(), ":".join(["AB"] * 32)):
        done = rootward("ca", "cross", "remove", "issuing", written)
        assert (done.code, done.out) == (0, f"The certificate by CN=Their Root is removed: {SHA256}.\n")
        assert fake.seen[-1] == ("POST", f"/api/v1/{CROSS}/{SHA256}/remove", {})
    rootward("ca", "cross", "remove", "issuing", "../x")
    assert fake.seen[-1][1] == f"/api/v1/{CROSS}/..%2Fx/remove"


ASKED = {"file": '{"x": 1}\n', "kind": "cross", "authority": "root", "subject": "root-2"}
ASKS = "authorities/root-2/cross-certificates/requests"


def test_cross_request_writes_the_file_for_the_ceremony(rootward: Rootward, fake: Fake) -> None:
    fake.bodies[ASKS] = ASKED
    done = rootward("ca", "cross", "request", "root-2", "--by", "root")
    assert done.code == 0
    assert fake.seen[-1] == ("POST", f"/api/v1/{ASKS}", {"by": "root"})
    assert Path("root-2-by-root-request.json").read_text() == ASKED["file"]
    assert hashlib.sha256(ASKED["file"].encode()).hexdigest() in done.out
    assert "root-2 waits to be certified by root." in done.err
    assert "--request root-2-by-root-request.json" in done.err
    again = rootward("ca", "cross", "request", "root-2", "--by", "root")
    assert (again.code, "is there already" in again.err) == (1, True)
    done = rootward("ca", "cross", "request", "root-2", "--by", "root", "--out", "x", "--json")
    assert (json.loads(done.out), Path("x").read_text()) == (ASKED, ASKED["file"])
    assert rootward("ca", "cross", "request", "root-2").code == 2


def test_cross_withdraw(rootward: Rootward, fake: Fake) -> None:
    fake.bodies[f"{ASKS}/withdraw"] = ASKED
    done = rootward("ca", "cross", "withdraw", "root-2", "--by", "root")
    assert (done.code, fake.seen[-1]) == (0, ("POST", f"/api/v1/{ASKS}/withdraw", {"by": "root"}))
    assert done.out.startswith("root is asked for no certificate of root-2 any more.")
    assert json.loads(rootward("ca", "cross", "withdraw", "root-2", "--by", "root", "--json").out) == ASKED


# ── request create ──────────────────────────────────────────────────────────────────────────────────────────────────

REQUEST: dict[str, Any] = {"id": "req-7", "status": "waiting", "certificate_id": None, "reasons": []}
CREATE = ("request", "create", "--account", "Acc_1", "--profile", "server")


def test_request_create_waits(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["requests"] = REQUEST
    done = rootward(*CREATE, "--name", "A.internal", "--name", "10.0.0.1", "--name", "dns:*.b.internal")
    assert (done.code, done.out) == (3, "")
    assert "rootward request approve req-7" in done.err
    names = ["dns:a.internal", "ip:10.0.0.1", "dns:*.b.internal"]
    assert fake.seen == [("POST", "/api/v1/requests", {"account": "Acc_1", "profile": "server", "names": names})]
    done = rootward(*CREATE, "--name", "a.internal", "--json")
    assert (done.code, json.loads(done.out)) == (3, REQUEST)


def test_request_create_where_there_is_a_yes(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["requests"] = {**REQUEST, "status": "approved"}
    done = rootward(*CREATE, "--name", "a.internal")
    assert (done.code, done.out) == (0, "The request req-7 is approved already.\n")
    assert json.loads(rootward(*CREATE, "--name", "a.internal", "--json").out)["status"] == "approved"


def test_request_create_wants_all_of_it(rootward: Rootward, fake: Fake) -> None:
    assert rootward(*CREATE).code == 2
    assert rootward(*CREATE, "--name", "a b").code == 2
    assert rootward("request", "create", "--account", "x", "--name", "a.internal").code == 2
    assert fake.seen == []
    fake.problems["requests POST"] = 409, "RW-CONFLICT"
    assert rootward(*CREATE, "--name", "a.internal").code == 1


def test_request_show_says_what_a_yes_is_to(rootward: Rootward, fake: Fake) -> None:
    base = {**REQUEST, "requester": "Acc_1", "asked_by": None, "binds": "plan"}
    fake.bodies["requests/req-7"] = base
    assert "exactly this plan, with its key" in rootward("request", "show", "req-7").out
    fake.bodies["requests/req-7"] = {**base, "binds": "names", "asked_by": "p1"}
    out = rootward("request", "show", "req-7").out
    assert "these names, whatever key comes with them, once" in out
    assert "asked by" in out
