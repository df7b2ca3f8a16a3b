"""A real signer process, and a lab whose issuing key lives in it. It runs as who runs the tests; that another user is
refused is tested by whom its settings name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import ceremony, founding, own
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.founding import first_profiles
from rootward.ca.installation import Installation
from rootward.ca.log import open_log
from rootward.ca.responder import Responder
from rootward.core.profile import Profile
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.times import whole_second
from rootward.keys import BACKENDS, KeySettings
from rootward.signer import home as homes
from rootward.signer.journal import Entry, read_entries
from rootward.signer.settings import read_settings
from rootward.store.db import open_database
from rootward.store.migrations import migrate
from tests.support.installation import PKI_URL, SEALER, memory_keys

ROOT = Path(__file__).parents[2]
LIMITS = """
[authorities.issuing]
certificates_per_hour = 500
own_per_day = 20
suffixes = ["localhost", "internal", "test", "home.arpa", "lan"]
tls_hosts = ["localhost", "127.0.0.1"]
"""


@dataclass
class Process:
    """`rootward signer run` in a process of its own, in a home of its own."""

    home: Path
    socket: Path
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"unix:{self.socket}"

    def start(self, program: str | None = None, environ: dict[str, str] | None = None) -> None:
        """Until it is ready. `program` is Python text that runs in its place."""
        command = [sys.executable, *(["-c", program] if program else ["-m", "rootward", "signer", "run"])]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "ROOTWARD_SIGNER_HOME": str(self.home), **(environ or {})},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=(self.home.parent / "signer.log").open("a"),
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("ready"):
                return
        raise AssertionError((self.home.parent / "signer.log").read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def log(self) -> str:
        return (self.home.parent / "signer.log").read_text()

    def journal(self, *kinds: str) -> list[Entry]:
        """The entries of these kinds, newest first."""
        return [one for one in read_entries(self.home, limit=10_000) if not kinds or one.kind in kinds]

    def accept(self, profile: Profile, version: int) -> None:
        """As its administrator does; a running signer takes it within a second or so."""
        homes.accept(read_settings(self.home), profile, version)


@contextlib.contextmanager
def signer_home(folder: Path, *, limits: str = LIMITS, peers: list[str] | None = None) -> Iterator[Process]:
    """A home without keys, and a process that is not started yet."""
    made = Process(folder / "home", folder / "s.sock")
    homes.make(made.home, socket=made.socket, peers=peers or [str(os.geteuid())])
    with (made.home / "signer.toml").open("a") as file:
        file.write(limits)
    try:
        yield made
    finally:
        if made.process is not None:
            made.stop(signal.SIGKILL)


@dataclass
class SignerLab:
    """An open installation whose authority `issuing` has its key in the signer."""

    inst: Installation
    admin: Caller
    responder: Responder
    signer: Process
    root: x509.Certificate


def issuing_key(signer: Process, algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> str:
    """Its CSR (PEM)."""
    settings = read_settings(signer.home)
    return homes.generate(settings, homes.open_store(settings, os.environ), "issuing", algorithm).csr


def certify(signer: Process, csr: str) -> tuple[ceremony.Script, ceremony.Outcome]:
    """A lab ceremony for it, and its outcome installed on the signer's host, with the five first profiles accepted."""
    script = ceremony.lab_script(
        organization="Test",
        pki_url=PKI_URL,
        csr_pem=csr,
        at=whole_second(datetime.now(UTC)),
        serials=(secrets.token_bytes(20), secrets.token_bytes(20)),
    )
    outcome = ceremony.perform(script, memory_keys().generate("root", script.root.key_algorithm))
    chain = [x509.load_der_x509_certificate(data) for data in (outcome.issuing, outcome.root)]
    homes.install(read_settings(signer.home), "issuing", chain, PKI_URL)
    for profile in first_profiles("issuing"):
        signer.accept(profile, 1)
    return script, outcome


@contextlib.contextmanager
def signer_lab(folder: Path, *, limits: str = LIMITS) -> Iterator[SignerLab]:
    """A running signer, and an installation that asks it."""
    with signer_home(folder, limits=limits) as signer:
        script, outcome = certify(signer, issuing_key(signer))
        signer.start()
        database = folder / "web"
        database.mkdir()
        db = open_database(f"sqlite:///{database}/rootward.db")
        try:
            db.write_sync(migrate)
            yield asyncio.run(_founded(db, signer, script, outcome))
        finally:
            db.close()


async def _founded(db: object, signer: Process, script: ceremony.Script, outcome: ceremony.Outcome) -> SignerLab:
    inst = Installation(
        db=db,  # type: ignore[arg-type]
        keys=memory_keys(),
        stores={"vault": BACKENDS["signer"](KeySettings(store="vault", uri=signer.uri))},
        sealer=SEALER,
        pki_url=PKI_URL,
        external_url="https://localhost:8443",
        lab=True,
    )
    value, digest = new_token()
    await founding.found(inst, script, outcome, backend="vault", domains=(), token_hash=digest)
    await founding.complete(inst, outcome)
    await open_log(inst)
    own.register(inst)
    responder = Responder(inst)
    await responder.renew()
    admin = Caller(await authenticate(inst, value), "req_admin")
    return SignerLab(inst, admin, responder, signer, x509.load_der_x509_certificate(outcome.root))


def exported(profile: Profile, version: int) -> bytes:
    """As `rootward profile show NAME --json` prints it."""
    body = {"name": profile.name, "version": version, "profile": json.loads(msgspec.json.encode(profile))}
    return json.dumps(body).encode()


def pem(certificate: bytes) -> str:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode()
