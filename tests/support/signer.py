"""A real signer process, and a lab whose issuing key lives in it. It runs as who runs the tests; that another user is
refused is tested by whom its settings name.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from rootward.core.script import Script
from rootward.core.times import whole_second
from rootward.keys import Backend, KeySettings, open_signer
from rootward.signer import home as homes
from rootward.signer.journal import Entry, read_entries
from rootward.signer.settings import read_settings
from rootward.store.db import Database, open_database
from rootward.store.migrations import migrate
from tests.support.ceremonies import hold_for
from tests.support.installation import PKI_URL, SEALER, memory_keys
from tests.support.softhsm import PIN, SoftToken

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

    def command(self, verb: str, *arguments: str) -> str:
        """What `rootward signer` says."""
        command = [sys.executable, "-m", "rootward", "signer", verb, "--home", str(self.home), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def uri(self) -> str:
        return f"unix:{self.socket}"

    def start(self, program: str | None = None, *, prefix: tuple[str, ...] = ()) -> None:
        """Until it is ready. `program` is Python text that runs in its place, `prefix` a command that runs it."""
        command = [*prefix, sys.executable, *(["-c", program] if program else ["-m", "rootward", "signer", "run"])]
        with (self.home.parent / "signer.log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "ROOTWARD_SIGNER_HOME": str(self.home)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
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
        return self.ended()

    def ended(self) -> int:
        """The exit code of one that ends by itself."""
        assert self.process is not None
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

    def wait_for(self, kind: str, what: str, *, seconds: float = 30) -> Entry:
        """The newest entry of this kind about this, once it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in self.journal(kind):
                if one.what == what:
                    return one
            time.sleep(0.05)  # the signer writes when it has looked, and says so nowhere else
        raise AssertionError(f"the journal has no {kind} {what}")

    def wait_for_log(self, text: str, *, seconds: float = 30) -> None:
        """Until its log has this text."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, self.log
            time.sleep(0.05)  # it looks once a second, and says so nowhere else

    def accept(self, profile: Profile, version: int) -> None:
        """As its administrator does; a running signer takes it within a second or so."""
        homes.accept(read_settings(self.home), profile, version)


@functools.cache
def _template() -> Path:
    """A home with the key `issuing`, made once, by a process of its own: this one never has what opens the keys, nor a
    key.
    """
    folder = Path(tempfile.mkdtemp(prefix="rootward-signer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Process(folder / "home", Path("/nowhere/s.sock"))
    made.command("init", "--socket", str(made.socket), "--peer", "4294967294")
    made.command("generate", "issuing", "--out", str(folder / "csr.pem"))
    return made.home


def _take_token(made: Process, token: SoftToken) -> None:
    """As its administrator does: the token's table and PIN, and then the key."""
    shutil.rmtree(made.home / "keys")
    (made.home / "authorities" / "issuing.json").unlink()
    (made.home / "pin").write_text(PIN)
    (made.home / "pin").chmod(0o600)
    with (made.home / "signer.toml").open("a") as settings:
        settings.write(f'\n[store]\nbackend = "pkcs11"\nuri = "{token.uri}"\npin = "file:pin"\n')
    made.command("generate", "issuing", "--out", str(made.home / "csr.pem"))


@contextlib.contextmanager
def signer_home(
    folder: Path, *, limits: str = LIMITS, peer: int | None = None, token: SoftToken | None = None
) -> Iterator[Process]:
    """A home with the key `issuing`, in a file or in the token, and its CSR; and a process that is not started yet."""
    made = Process(folder / "home", folder / "s.sock")
    subprocess.run(["cp", "-a", str(_template()), str(made.home)], check=True)
    settings = made.home / "signer.toml"
    text = settings.read_text().replace("/nowhere/s.sock", str(made.socket))
    settings.write_text(text.replace("4294967294", str(os.geteuid() if peer is None else peer)) + limits)
    if token is not None:
        _take_token(made, token)
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


def certify(signer: Process) -> tuple[Script, ceremony.Outcome]:
    """A lab ceremony for it, and its outcome installed on the signer's host, with the five first profiles accepted."""
    at = whole_second(datetime.now(UTC) - timedelta(days=1))
    csr = homes.authority(signer.home, "issuing").csr
    script, outcome = hold_for(ceremony.lab_request(organization="Test", pki_url=PKI_URL, csr_pem=csr, at=at), at=at)
    chain = b"".join(
        x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM) for data in (outcome.issuing, outcome.root)
    )
    homes.install(read_settings(signer.home), "issuing", chain, PKI_URL)
    for profile in first_profiles("issuing"):
        signer.accept(profile, 1)
    return script, outcome


@contextlib.contextmanager
def signer_lab(folder: Path, *, limits: str = LIMITS, token: SoftToken | None = None) -> Iterator[SignerLab]:
    """A running signer, and an installation that asks it."""
    with signer_home(folder, limits=limits, token=token) as signer:
        script, outcome = certify(signer)
        signer.start()
        database = folder / "web"
        database.mkdir()
        db = open_database(f"sqlite:///{database}/rootward.db")
        try:
            db.write_sync(migrate)
            store = open_signer(KeySettings(store="vault", uri=signer.uri))
            with contextlib.closing(store):
                yield _now(_founded(db, signer, store, (script, outcome)))
        finally:
            db.close()


def _now(founding: Coroutine[Any, Any, SignerLab]) -> SignerLab:
    """Run in a thread of its own: whoever wants a lab may be in an event loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, founding).result()


async def _founded(db: Database, signer: Process, store: Backend, held: tuple[Script, ceremony.Outcome]) -> SignerLab:
    script, outcome = held
    inst = Installation(
        db=db,
        keys=memory_keys(),
        stores={"vault": store},
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
