"""The yardstick of ACME: `pebble`, the reference test server, at full speed. It keeps everything in memory.

It runs with PEBBLE_VA_NOSLEEP=1 (no pauses before validations), PEBBLE_WFE_NONCEREJECT=0 (no good nonces refused) and
PEBBLE_AUTHZREUSE=0; its keys are RSA of 2048 bits, which it chooses itself. 2.4 locks itself up where a newOrder runs
beside somebody's look at an authorization (two of its locks are taken in either order), so its clients keep these two
apart by a `Gate`; it uses all of the machine nevertheless.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.order import Gate
from tests.support.ports import free_port
from tests.support.programs import environment, until

_FAST = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}


class Pebble:
    """One server, as a context manager; `dns` and `http` are the ports that it validates by."""

    def __init__(self, folder: Path, *, dns: int, http: int) -> None:
        found = shutil.which("pebble")
        if found is None:
            raise SystemExit("pebble is not installed: apt-get install pebble")
        folder.mkdir()
        self._folder, self._program = folder, found
        self._dns = dns
        self._port = free_port()
        self.gate = Gate(("new-order", "authorization"))
        self.directory = f"https://localhost:{self._port}/dir"
        self.root = folder / "tls.pem"
        self._write_config(http)

    def __enter__(self) -> Self:
        command = [self._program, "-config", "pebble.json", "-dnsserver", f"127.0.0.1:{self._dns}"]
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, env=environment(os.environ | _FAST)
            )
        try:
            until(self._is_up, seconds=30, every=0.02)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"pebble ended: {(self._folder / 'log').read_text()}")
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._port)) == 0

    def _write_config(self, http: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.root.write_bytes(made.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self._folder / "tls.key").write_bytes(pem)
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": "",
            "certificate": "tls.pem",
            "privateKey": "tls.key",
            "httpPort": http,
            "tlsPort": 1,
        }
        (self._folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
