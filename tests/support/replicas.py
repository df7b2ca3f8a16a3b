"""Real server processes on one PostgreSQL, each with a home and ports of its own, as the documentation sets them up.

A home is founded once (`tests.support.faults.Founder`); a replica's is a copy of it without the database. The processes
come from the fork server that has imported everything, so one is up in a fraction of a second.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from unittest import mock

import httpx
from cryptography.hazmat.primitives.serialization import Encoding

from rootward import quickstart
from rootward.ca import reading
from rootward.ca.installation import Installation
from rootward.config import FILE_NAME, load_config, write_config
from rootward.core.crl import check_crl, parse_crl
from rootward.core.issuer import Issuer
from rootward.core.ocsp import cert_id_for, check_response, parse_response
from rootward.core.ocsp_request import request_for
from rootward.core.revocation import Status
from rootward.store.failpoint import armed
from tests.support.faults import AUTHORITY, Home, processes
from tests.support.installation import PKI_URL
from tests.support.ports import free_port

SECONDS = 60
CERTIFICATES = "/api/v1/certificates"


class Replica:
    """One server. `promise` (seconds) shortens the time for which an answer is kept while the store is away; `settings`
    are further ones, by their dotted names.
    """

    def __init__(
        self,
        home: Home,
        folder: Path,
        inst: Installation,
        *,
        promise: float | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.home = home
        self._settings = dict(settings or {})
        self.folder = folder
        self.ports = {door: free_port() for door in ("https", "mtls", "http")}
        self.issuer: Issuer = inst.authority(AUTHORITY).issuer
        self._root = inst.authority("root").issuer.certificate
        self._promise = promise
        self._process: Any = None
        self._log = folder.with_suffix(".log")
        self._clone()

    def _clone(self) -> None:
        """What `docs/reference/configuration.md` says: the home without its database."""
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            shutil.copy(self.home.folder / "kek", self.folder / "kek")
            shutil.copytree(self.home.folder / "keys", self.folder / "keys")
            config = load_config(self.folder, {}, {"pki_url": PKI_URL, "lab": True} | self._settings)
            write_config(self.folder / FILE_NAME, config)
            (self.folder / "root.pem").write_bytes(self._root.public_bytes(Encoding.PEM))
        self.context = ssl.create_default_context(cafile=str(self.folder / "root.pem"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, traps: str = "", *, wait: bool = True) -> None:
        """Start it; `wait` until it is ready."""
        self._log.write_text("")
        addresses = {f"ROOTWARD_{door.upper()}": f"127.0.0.1:{port}" for door, port in self.ports.items()}
        environ = addresses | {"ROOTWARD_DATABASE": self.home.url}
        arguments = (self.folder, environ, traps, self._promise, self._log)
        self._process = processes.Process(target=_serve, args=arguments)
        self._process.start()
        if wait:
            self.until_said("ready")

    def until_said(self, word: str) -> None:
        """Wait until its log has this word."""
        for _ in range(SECONDS * 50):
            if word in self._log.read_text():
                return
            self._process.join(0.02)
            if self._process.exitcode is not None:
                raise AssertionError(f"ended with {self._process.exitcode}: {self.said()}")
        raise AssertionError(f"never said {word}: {self.said()}")

    def said(self) -> str:
        """Its log since its last start."""
        return self._log.read_text()

    def stop(self) -> None:
        """SIGTERM, and wait for its end, which must be a good one."""
        self._process.terminate()
        self._process.join(SECONDS)
        assert self._process.exitcode == 0, (self._process.exitcode, self.said())

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None and self._process.exitcode is None:
            self._process.kill()
            self._process.join(SECONDS)

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self._process.pid, signal.SIGSTOP)
        self.until_stopped()

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self._process.pid, signal.SIGCONT)

    def until_stopped(self) -> None:
        """Wait until it is stopped, by a trap or by `pause`."""
        for _ in range(SECONDS * 100):
            state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return
            self._process.join(0.01)
            assert self._process.exitcode is None, self.said()
        raise AssertionError(f"does not stop: {self.said()}")

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports['https']}"

    def client(self, **options: Any) -> httpx.Client:
        """A client that trusts this root and speaks as admin."""
        headers = {"Authorization": f"Bearer {self.home.token}"}
        settings: dict[str, Any] = {"base_url": self.url, "verify": self.context, "headers": headers} | options
        return httpx.Client(trust_env=False, timeout=SECONDS, **settings)

    def status(self, serial: bytes) -> Status:
        """What its OCSP says, over plain HTTP; OcspError where it says nothing."""
        asked = cert_id_for(self.issuer, serial, "sha256")
        url = f"http://127.0.0.1:{self.ports['http']}/ocsp/{AUTHORITY}"
        headers = {"Content-Type": "application/ocsp-request"}
        reply = httpx.post(url, content=request_for([asked]), headers=headers, timeout=SECONDS, trust_env=False)
        assert reply.status_code == 200
        return self.read_status(serial, reply.content)

    def read_status(self, serial: bytes, body: bytes) -> Status:
        """The checked status in an OCSP response."""
        asked = cert_id_for(self.issuer, serial, "sha256")
        return check_response(parse_response(body), cert_id=asked, issuer=self.issuer, now=_now(), nonce=None)

    def crl(self) -> tuple[int, frozenset[bytes]]:
        """The number and the serials of the CRL that it serves, which must be a good one."""
        url = f"http://127.0.0.1:{self.ports['http']}/crl/{AUTHORITY}.crl"
        reply = httpx.get(url, timeout=SECONDS, trust_env=False).raise_for_status()
        check_crl(reply.content, self.issuer, now=_now(), last_number=None)
        found = parse_crl(reply.content)
        assert found.number is not None
        return found.number, frozenset(entry.serial for entry in found)


def _now() -> datetime:
    return datetime.now(UTC)


def _serve(folder: Path, environ: dict[str, str], traps: str, promise: float | None, log: Path) -> None:
    """In the process of its own."""
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environ)
    kept = reading.PROMISE if promise is None else timedelta(seconds=promise)
    with armed(traps), mock.patch.object(reading, "PROMISE", kept):
        quickstart.serve_home(folder)


@contextmanager
def replicas(home: Home, folder: Path, inst: Installation, count: int = 2, **options: Any) -> Iterator[list[Replica]]:
    """`count` replicas that run."""
    made = [Replica(home, folder / f"replica-{number}", inst, **options) for number in range(count)]
    try:
        for one in made:
            one.start()
        yield made
    finally:
        for one in made:
            one.kill()


class Balanced:
    """A client behind a load balancer: each try goes to the next replica; what is not answered, or answered 503, is
    tried again with the same idempotency key.
    """

    def __init__(self, made: list[Replica]) -> None:
        self._made = [(one, one.client()) for one in made]
        self._clients = itertools.cycle(self._made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _one, client in self._made:
            client.close()

    def post(self, path: str, body: object, key: str) -> httpx.Response:
        """The first answer that is one."""
        until = time.monotonic() + 2 * SECONDS  # a lease of 30 s, and what closes an intent comes every 30 s
        while time.monotonic() < until:
            try:
                reply = next(self._clients)[1].post(path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                time.sleep(0.05)  # as clients do
                continue
            if reply.status_code not in {409, 503} or (
                reply.status_code == 409 and reply.json()["code"] != "RW-IN-PROGRESS"
            ):
                return reply
            time.sleep(0.05)
        raise AssertionError(f"no answer to {path}")

    def crl(self) -> int:
        """The number of the CRL that the next replica serves; of the one after it where that one does not answer."""
        until = time.monotonic() + 2 * SECONDS
        while time.monotonic() < until:
            try:
                return next(self._clients)[0].crl()[0]
            except httpx.TransportError:
                time.sleep(0.05)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 503:
                    raise
                time.sleep(0.05)
        raise AssertionError("no CRL")
