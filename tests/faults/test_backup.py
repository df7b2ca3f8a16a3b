"""A backup taken while eight clients issue and revoke through a real server, restored elsewhere and served there, while
the original goes on: nothing that was acknowledged before is missing, and nothing of the two collides.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from rootward import home as homes
from tests.support.backup import cli, passphrase_file
from tests.support.faults import books
from tests.support.postgres import Postgres
from tests.support.programs import until
from tests.support.server import Server
from tests.support.store import DIALECTS
from tests.vectors.csr_parts import good_csr

CLIENTS = 8
SECONDS = 60
NO_LEFTOVER = {"home", "home.log", "other", "other.log", "passphrase", "x.backup"}


@dataclass
class Seen:
    """What clients got answers for: certificates by id, and the ids of those that were revoked."""

    issued: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)


def issue(client: httpx.Client) -> dict[str, Any]:
    """A certificate, as REST answers it."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.load_der_x509_csr(good_csr(names=["dns:a.internal"], key=key)).public_bytes(Encoding.PEM).decode()
    answer = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@contextmanager
def clients(server: Server, seen: Seen) -> Iterator[None]:
    """Eight of them at work for as long as the block lasts; each revokes its every fourth certificate."""
    stop = threading.Event()

    def work() -> None:
        with server.client() as client:
            count = 0
            while not stop.is_set():
                made = issue(client)
                seen.issued[made["id"]] = made
                count += 1
                if count % 4 == 0:
                    answer = client.post(f"/api/v1/certificates/{made['id']}/revoke", json={"reason": "superseded"})
                    assert answer.status_code == 200, answer.text
                    seen.revoked.add(made["id"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(work) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
        for one in working:
            one.result(SECONDS)


def crl(server: Server) -> x509.CertificateRevocationList:
    """The issuing authority's list, as anybody gets it."""
    answer = httpx.get(f"{server.pki}/crl/issuing.crl", trust_env=False, timeout=30)
    assert answer.status_code == 200
    return x509.load_der_x509_crl(answer.content)


def number(found: x509.CertificateRevocationList) -> int:
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def status(server: Server, made: dict[str, Any]) -> ocsp.OCSPCertStatus:
    """What OCSP says."""
    certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
    issuer = x509.load_pem_x509_certificate(made["chain"].encode())
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, SHA256()).build()
    headers = {"Content-Type": "application/ocsp-request"}
    url, body = f"{server.pki}/ocsp/issuing", asked.public_bytes(Encoding.DER)
    answer = httpx.post(url, content=body, headers=headers, trust_env=False, timeout=30)
    return ocsp.load_der_ocsp_response(answer.content).certificate_status


@pytest.mark.invariant("I-03")
@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_backup_while_eight_clients_issue(dialect: str, tmp_path: Path, postgres: Postgres) -> None:
    environ = {} if dialect == "sqlite" else {"ROOTWARD_DATABASE": postgres.url()}
    secret, out = passphrase_file(tmp_path), tmp_path / "x.backup"
    with Server(tmp_path / "home", environ=environ) as original:
        seen = Seen()
        with clients(original, seen):
            until(lambda: len(seen.revoked) >= CLIENTS, seconds=SECONDS)
            before = Seen(dict(seen.issued), set(seen.revoked))
            made = cli("create", "--home", original.home, "--out", out, "--passphrase-file", secret, **environ)
            assert made.returncode == 0, made.stderr
            at = len(seen.issued)
            until(lambda: len(seen.issued) >= at + CLIENTS, seconds=SECONDS)  # and it goes on
        revoked = {int(seen.issued[one]["serial"], 16) for one in seen.revoked}
        until(lambda: revoked <= {entry.serial_number for entry in crl(original)}, seconds=SECONDS)

        checked = cli("verify", out, "--passphrase-file", secret)
        assert checked.returncode == 0, checked.stderr
        elsewhere = {} if dialect == "sqlite" else {"ROOTWARD_DATABASE": postgres.url()}
        done = cli("restore", out, "--home", tmp_path / "other", "--passphrase-file", secret, **elsewhere)
        assert done.returncode == 0, done.stderr
        last = number(crl(original))
        homes.recover(tmp_path / "other", elsewhere)  # a token for the restored home
        with Server(tmp_path / "other", environ=elsewhere) as other:
            both(original, other, before, seen, last)
    url = elsewhere.get("ROOTWARD_DATABASE", f"sqlite:///{tmp_path}/other/rootward.db")
    agree(tmp_path / "other", url)
    agree(tmp_path / "home", environ.get("ROOTWARD_DATABASE", f"sqlite:///{tmp_path}/home/rootward.db"))
    assert {path.name for path in tmp_path.iterdir()} == NO_LEFTOVER


def both(original: Server, other: Server, before: Seen, seen: Seen, last: int) -> None:
    """The restored server has what was acknowledged before its backup began, and the two go on without each other."""
    with other.client() as client:
        for id, made in before.issued.items():
            found = client.get(f"/api/v1/certificates/{id}").json()
            assert (found["serial"], found["sha256"]) == (made["serial"], made["sha256"])
            assert id not in before.revoked or found["status"] == "revoked"
    for id in before.revoked:
        assert status(other, before.issued[id]) is ocsp.OCSPCertStatus.REVOKED
    good = next(made for id, made in before.issued.items() if id not in seen.revoked)
    assert status(other, good) is ocsp.OCSPCertStatus.GOOD
    fresh = Seen()
    with clients(other, fresh):
        until(lambda: len(fresh.revoked) >= CLIENTS, seconds=SECONDS)
    with original.client() as client:
        late = issue(client)
    serials = [made["serial"] for made in (*seen.issued.values(), *fresh.issued.values(), late)]
    assert len(set(serials)) == len(serials)
    revoked = {int(fresh.issued[one]["serial"], 16) for one in fresh.revoked}
    until(lambda: revoked <= {entry.serial_number for entry in crl(other)}, seconds=SECONDS)
    assert number(crl(other)) > last
    assert status(original, late) is ocsp.OCSPCertStatus.GOOD
    assert status(other, late) is ocsp.OCSPCertStatus.UNKNOWN


def agree(folder: Path, url: str) -> None:
    """Inventory and events say the same."""
    config = homes.read_config(folder, {"ROOTWARD_DATABASE": url} if url.startswith("postgresql") else {})

    async def check() -> None:
        db = homes.open_store(config)
        try:
            await books(await homes.open_checked(config, db, {}))
        finally:
            db.close()

    asyncio.run(check())
