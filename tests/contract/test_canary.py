"""No secret where none belongs (I-35): days of a whole installation at log level debug, good and bad requests, failures
and kills, then every artefact of them is searched for every secret that there is.

Artefacts: what the server and the commands printed, tracebacks among it, every answer, metrics, doctor, the export of
events, a backup, the home's files with the database and its WAL, and what the kernel was told of each process that was
started. Secrets: private keys, the key-encryption key, the offline root's passphrase, tokens, a binding's MAC key, a
backup's passphrase, and a client's own key; each in every form that `tests/support/canary.py` knows. One may be found
only in the file that is its place, and must be found there.

Ceremonies are in `test_canary_ceremony.py`, the memory of processes in `test_canary_memory.py`.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from rootward.keys import BACKENDS, KeySettings, kek_from_file, kek_from_passphrase_file
from tests.support.canary import Needles, core_limit, files, forms, leaks, private_octets, started, traced
from tests.support.rest import csr
from tests.support.server import Server

BACKUP_PASSPHRASE = "the canary that a backup is sealed with"

# A key that fails as no backend may: the frame of the failure has the private key's own octets in a variable.
_BROKEN = """
import rootward.ca.sign as signing
from rootward.cli import main
sound = signing.sign_tbs
def sign_tbs(key, *rest):
    if key.label != "issuing":
        return sound(key, *rest)
    octets = key._private.private_numbers().private_value.to_bytes(32, "big")
    raise RuntimeError(f"a key of {len(octets)} octets broke")
signing.sign_tbs = sign_tbs
main()
"""


@dataclass
class Days:
    """The server, its artefacts by name, the secrets, and the core limit of the process while it served."""

    server: Server
    folder: Path
    artefacts: dict[str, bytes] = field(default_factory=dict)
    needles: Needles = field(default_factory=Needles)
    core: list[str] = field(default_factory=list)

    def log(self, day: str) -> bytes:
        """What the server printed that day; the next start begins it anew."""
        data = self.server.home.with_suffix(".log").read_bytes()
        self.artefacts[f"log {day}"] = data
        return data


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    folder = tmp_path_factory.mktemp("canary")
    server, trace = Server(folder / "home"), folder / "started"
    made = Days(server, folder)
    server.program = (*traced(trace), *Server.program)
    with server:
        pass
    made.log("first")
    settings = server.home / "rootward.toml"
    text, count = re.subn(r'(?m)^# level = "info"$', 'level = "debug"', settings.read_text())
    assert count == 1
    settings.write_text(text)
    with server:
        made.artefacts |= dict(_visited(made))
        assert server.process is not None
        made.core = core_limit(server.process.pid)
        made.artefacts |= files(server.home)  # while it runs: the WAL is there
        server.kill()
        made.log("killed")
        made.artefacts |= files(server.home, prefix="killed/")
    _bad_days(made)
    made.artefacts["started"] = started(trace)
    _keys(made)
    return made


def _visited(days: Days) -> Iterator[tuple[str, bytes]]:
    """What a day of work leaves: (name, bytes). What is told once, to who asked, is a secret of everything else."""
    server, out, once = days.server, days.folder / "client", days.folder / "once"
    sealing = days.folder / "passphrase"
    sealing.write_text(BACKUP_PASSPHRASE)
    sealing.chmod(0o600)
    for number, arguments in enumerate(
        (
            ("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", str(out)),
            ("cert", "list", "--json"),
            ("doctor",),
            ("cert", "issue", "--profile", "nothing", "--name", "a.internal", "--out", str(once)),
            ("--token-file", "/nowhere", "cert", "list"),
            ("backup", "create", "--passphrase-file", str(sealing), "--out", str(days.folder / "backup")),
            ("backup", "verify", "--passphrase-file", str(sealing), str(days.folder / "backup")),
            ("backup", "verify", "--passphrase-file", str(out / "key.pem"), str(days.folder / "backup")),
        )
    ):
        done = server.cli(*arguments, check=False)
        yield f"cli {number} {' '.join(arguments[:2])}", (done.stdout + done.stderr).encode()
    yield "backup", (days.folder / "backup").read_bytes()
    days.needles.add("backup passphrase", BACKUP_PASSPHRASE)
    days.needles.add("admin.token", server.token)
    made = server.cli("access", "token", "create", "--label", "second", "--json").stdout
    second = json.loads(made)["token"]
    days.needles.add("a second token", second)
    yield "token", made.replace(second, "").encode()
    made = server.cli("acme", "eab", "create", "--owner", "web team", "--json").stdout
    mac = json.loads(made)["hmac_key"]
    days.needles.add("a MAC key", mac, base64.urlsafe_b64decode(mac + "=="))
    yield "binding", made.replace(mac, "").encode()
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
        for what, body in (
            ("no CSR", {"profile": "server", "csr": token}),
            ("no profile", {"profile": token, "csr": csr("b.internal")}),
            ("unknown field", {"profile": "server", "csr": csr("b.internal"), token: token}),
            ("private key", {"profile": "server", "csr": (out / "key.pem").read_text()}),
        ):
            answer = client.post("/api/v1/certificates", json=body, headers={"Idempotency-Key": "k"})
            yield f"POST {what}", answer.content
        body, again = {"label": "third", "lifetime": "1d"}, {"Idempotency-Key": "told-once"}
        days.needles.add("a third token", client.post("/api/v1/tokens", json=body, headers=again).json()["token"])
        yield "told again", client.post("/api/v1/tokens", json=body, headers=again).content
        wrong = client.get("/api/v1/certificates", headers={"Authorization": f"Basic {token}"})
        yield "wrong scheme", wrong.content
        issued = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr("c.internal")}).json()
        revoked = client.post(f"/api/v1/certificates/{issued['id']}/revoke", json={"reason": "keyCompromise"})
        yield "revoke", revoked.content


def _bad_days(days: Days) -> None:
    """A key that breaks, a process that aborts, the wrong key-encryption key, a key file that was damaged."""
    server = days.server
    traced_program, server.program = server.program, (sys.executable, "-c", _BROKEN)
    with server, server.client() as client:
        answer = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr("d.internal")})
        days.artefacts["broken key"] = answer.content
        assert server.process is not None
        server.process.send_signal(signal.SIGABRT)
        assert server.process.wait(30) == -signal.SIGABRT
        days.log("broken key")
    server.program = traced_program
    kek, (key, *_) = server.home / "kek", sorted((server.home / "keys").glob("*issuing*"))
    for day, path, wrong in (
        ("wrong kek", kek, b"0" * 64 + b"\n"),
        ("short kek", kek, kek.read_bytes()[:40]),
        ("damaged key", key, key.read_bytes()[:-8] + b"AAAAAAAA"),
    ):
        right, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o600)
        path.write_bytes(wrong)
        try:
            with server:
                pass
        except AssertionError:  # it does not start
            pass
        days.log(day)
        path.write_bytes(right)
        path.chmod(mode)


def _keys(days: Days) -> None:
    home, needles = days.server.home, days.needles
    offline = home / "offline-root"
    for folder, kek in (
        (home / "keys", kek_from_file(home / "kek")),
        (offline / "keys", kek_from_passphrase_file(offline / "passphrase")),
    ):
        backend = BACKENDS["file"](KeySettings(folder=folder, kek=kek))
        for label, key_id in backend.list():
            needles.add(f"key {label}", *private_octets(backend.load(label, key_id)._private))
    own = serialization.load_pem_private_key((days.folder / "client" / "key.pem").read_bytes(), None)
    needles.add("a client's key", *private_octets(own))
    needles.add("kek", bytes.fromhex((home / "kek").read_text()))
    needles.add("passphrase", (offline / "passphrase").read_bytes().strip())


@pytest.mark.invariant("I-35", "I-60")
def test_no_artefact_has_a_secret(days: Days) -> None:
    assert {"rootward.db", "rootward.db-wal", "GET /metrics", "backup"} <= days.artefacts.keys()
    assert "killed/rootward.db-wal" in days.artefacts
    assert b"debug" in days.artefacts["log killed"]
    keys = {f"key {label}" for label in ("issuing", "root", "ocsp-issuing", "rootward-tls", "log")}
    told = {"a second token", "a third token", "a MAC key", "backup passphrase", "admin.token", "kek", "passphrase"}
    assert keys | told <= days.needles.keys()
    places = {"kek": ["kek"], "passphrase": ["offline-root/passphrase"], "admin.token": ["admin.token"]}
    both = {name: [*paths, *(f"killed/{path}" for path in paths)] for name, paths in places.items()}
    both["admin.token"].append("POST unknown field")  # who sent it as a field's name is told that there is none
    assert leaks(days.needles, days.artefacts, both) == set()


@pytest.mark.invariant("I-35")
def test_the_failures_were_there(days: Days) -> None:
    """What was searched has a traceback out of the key's own frame, and the refusals of the key-encryption key."""
    broken = days.artefacts["log broken key"]
    assert b"Traceback" in broken
    assert b"a key of 32 octets broke" in broken
    assert b"a key of 32 octets broke" not in days.artefacts["broken key"]
    assert b"RW-KEK" in days.artefacts["log wrong kek"]
    assert b"64 lower-case hex digits" in days.artefacts["log short kek"]
    assert days.artefacts["log damaged key"]


@pytest.mark.invariant("I-35")
def test_no_program_was_started_with_a_secret(days: Days) -> None:
    """Arguments and environments of every process, as the kernel had them: the lab's ceremony was one."""
    assert b'"rootward.lab"' in days.artefacts["started"]
    assert days.artefacts["started"].count(b"PATH=") >= 4
    assert leaks(days.needles, {"started": days.artefacts["started"]}) == set()


@pytest.mark.invariant("I-35")
def test_a_crash_writes_no_memory_to_a_disk(days: Days) -> None:
    assert days.core == ["0", "0"]


def test_the_needles_are_found_where_they_are() -> None:
    """In each form in which a key is written down, wherever in a text it begins."""
    for private in (
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        needles = Needles()
        needles.add("key", *private_octets(private))
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        der = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        shifted = [base64.b64encode(bytes(before) + der + bytes(5)) for before in range(3)]
        for text in (pem, json.dumps(pem.decode()).encode(), der, der.hex().encode(), der.hex(":").encode(), *shifted):
            assert needles.within(text) == {"key"}
        assert not needles.within(private.public_key().public_bytes(serialization.Encoding.DER, _SPKI))


_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def test_a_passphrase_is_found_in_addresses_and_json() -> None:
    needles = Needles()
    needles.add("passphrase", 'a "quoted" passphrase')
    assert needles.within(b"/?p=a%20%22quoted%22%20passphrase") == {"passphrase"}
    assert needles.within(json.dumps({"p": 'a "quoted" passphrase'}).encode()) == {"passphrase"}
    assert all(len(form) >= 8 for form in forms(b"12345678"))
