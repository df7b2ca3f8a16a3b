"""No secret where none belongs (I-35): a whole run at log level debug, good and bad requests, then every artefact of it
is searched for every secret that there is.

Artefacts: what the server and the commands printed, every answer, metrics, doctor, the export of events, the home's
files with the database and its WAL, and what the process shows of itself in /proc. Secrets: the private keys (as raw
octets, hex, base64 and decimal), the key-encryption key, the offline root's passphrase, tokens, and a client's own key.
A needle may be found only in the files that are its place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from rootward.keys import BACKENDS, KeySettings, kek_from_file, kek_from_passphrase_file
from tests.support.rest import csr
from tests.support.server import Server

SHORTEST = 16  # octets of a needle: less could be there by chance


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, bytes], dict[str, list[bytes]]]]:
    """The server, its artefacts by name, and the needles by name."""
    folder = tmp_path_factory.mktemp("canary")
    server = Server(folder / "home")
    with server:
        pass
    settings = server.home / "rootward.toml"
    text, count = re.subn(r'(?m)^# level = "info"$', 'level = "debug"', settings.read_text())
    assert count == 1
    settings.write_text(text)
    with server:
        artefacts = dict(_visited(server, folder / "client"))
        assert server.process is not None
        for name in ("environ", "cmdline", "maps"):
            artefacts[f"/proc/{name}"] = Path(f"/proc/{server.process.pid}/{name}").read_bytes()
        artefacts["/proc/limits"] = Path(f"/proc/{server.process.pid}/limits").read_bytes()
        for path in server.home.rglob("*"):  # while it runs: the WAL is there
            if path.is_file():
                artefacts[str(path.relative_to(server.home))] = path.read_bytes()
        yield server, artefacts, dict(_needles(server.home, folder / "client"))


def _visited(server: Server, out: Path) -> Iterator[tuple[str, bytes]]:
    """What a day of work leaves: (name, bytes)."""
    for number, arguments in enumerate(
        (
            ("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", str(out)),
            ("cert", "list", "--json"),
            ("doctor",),
            ("access", "token", "create", "--label", "second", "--json"),
            ("cert", "issue", "--profile", "nothing", "--name", "a.internal", "--out", str(out) + "x"),
            ("--token-file", "/nowhere", "cert", "list"),
        )
    ):
        done = server.cli(*arguments, check=False)
        if "token" in arguments:
            found = re.search(r'"token":\s*"([^"]+)"', done.stdout)
            if found is not None:
                (out.parent / "second.token").write_text(found[1])
                yield f"cli {number}", done.stdout.replace(found[1], "").encode()  # it is told once, to who asked
                continue
        yield f"cli {number}", (done.stdout + done.stderr).encode()
    token = server.token
    with server.client() as client:
        for method, path in (
            ("GET", "/metrics"),
            ("GET", "/api/v1/doctor"),
            ("GET", "/api/v1/events"),
            ("GET", "/api/v1/events/export"),
            ("GET", "/api/v1/certificates"),
            ("GET", "/api/v1/tokens"),
            ("GET", "/api/v1/principals"),
            ("GET", "/api/v1/authorities"),
            ("GET", "/api/openapi.json"),
            ("GET", f"/api/v1/certificates?token={token}"),
            ("GET", f"/api/v1/certificates/{token}"),
            ("GET", f"/crl/{token}.crl"),
            ("GET", f"/{token}?access_token={token}"),
        ):
            answer = client.request(method, path)
            yield f"{method} {path[:24]}", answer.content + repr(answer.headers).encode()
        for body in (
            {"profile": "server", "csr": token},
            {"profile": token, "csr": csr("b.internal")},
            {"profile": "server", "csr": csr("b.internal"), token: token},
            {"profile": "server", "csr": (out / "key.pem").read_text()},
        ):
            answer = client.post("/api/v1/certificates", json=body, headers={"Idempotency-Key": "k"})
            yield f"POST {next(iter(body))}", answer.content
        wrong = client.get("/api/v1/certificates", headers={"Authorization": f"Basic {token}"})
        yield "wrong scheme", wrong.content
        made = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr("c.internal")}).json()
        revoked = client.post(f"/api/v1/certificates/{made['id']}/revoke", json={"reason": "keyCompromise"})
        yield "revoke", revoked.content


def _needles(home: Path, client: Path) -> Iterator[tuple[str, list[bytes]]]:
    online = BACKENDS["file"](KeySettings(folder=home / "keys", kek=kek_from_file(home / "kek")))
    offline = BACKENDS["file"](
        KeySettings(
            folder=home / "offline-root" / "keys", kek=kek_from_passphrase_file(home / "offline-root/passphrase")
        )
    )
    for backend in (online, offline):
        for label, key_id in backend.list():
            yield f"key {label}", _forms_of(backend.load(label, key_id)._private)
    own = serialization.load_pem_private_key((client / "key.pem").read_bytes(), None)
    yield "a client's key", _forms_of(own)
    kek = (home / "kek").read_bytes().strip()
    yield "kek", [kek, *([bytes.fromhex(kek.decode())] if re.fullmatch(rb"[0-9a-f]+", kek) else [])]
    yield "passphrase", [(home / "offline-root" / "passphrase").read_bytes().strip()]
    yield "admin.token", [(home / "admin.token").read_bytes().strip()]
    second = client.parent / "second.token"
    yield "a second token", [second.read_bytes()]


def _forms_of(private: object) -> list[bytes]:
    """A private key in the forms in which it could be written down."""
    assert isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.private_bytes_raw()
    else:
        raw = private.private_numbers().private_value.to_bytes((private.curve.key_size + 7) // 8, "big")
    number = int.from_bytes(raw, "big")
    encoded = base64.b64encode(raw)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    lines = pem.splitlines()[1:-1]
    hexed = raw.hex().encode()
    return [
        raw,
        raw[::-1],
        hexed,
        hexed.upper(),
        raw.hex(":").encode(),
        encoded.rstrip(b"="),
        str(number).encode(),
        *lines[1:2],
    ]


PLACES = {"kek": {"kek"}, "passphrase": {"offline-root/passphrase"}, "admin.token": {"admin.token"}}


@pytest.mark.invariant("I-35", "I-60")
def test_no_artefact_has_a_secret(run: tuple[Server, dict[str, bytes], dict[str, list[bytes]]]) -> None:
    server, artefacts, needles = run
    artefacts["log so far"] = server.home.with_suffix(".log").read_bytes()
    assert {"rootward.db", "rootward.db-wal", "/proc/environ", "GET /metrics", "admin.token"} <= artefacts.keys()
    assert b"debug" in artefacts["log so far"]
    assert {
        "key issuing",
        "key root",
        "key ocsp-issuing",
        "key rootward-tls",
        "key log",
        "a second token",
    } <= needles.keys()
    leaks = [
        (needle, artefact)
        for needle, forms in needles.items()
        for artefact, data in artefacts.items()
        if artefact not in PLACES.get(needle, set())
        for form in forms
        if len(form) >= SHORTEST and form in data
    ]
    assert leaks == []
    for needle, places in PLACES.items():  # the search finds what is there
        assert all(any(form in artefacts[place] for form in needles[needle]) for place in places)


@pytest.mark.invariant("I-35")
def test_a_crash_writes_no_memory_to_a_disk(run: tuple[Server, dict[str, bytes], dict[str, list[bytes]]]) -> None:
    _, artefacts, _ = run
    (line,) = [line for line in artefacts["/proc/limits"].splitlines() if line.startswith(b"Max core file size")]
    assert line.split()[4:6] == [b"0", b"0"]


def test_the_needles_are_found_where_they_are() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for text in (pem, der, repr(key.private_numbers().private_value).encode(), der.hex().encode()):
        assert any(form in text for form in _forms_of(key))
