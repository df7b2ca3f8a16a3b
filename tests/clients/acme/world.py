"""A server of ours with its ACME door, the DNS server that it asks, and what its clients are judged by."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.pki import PROMISE, Pki, ocsp
from tests.support.dns import Dns
from tests.support.ports import free_port
from tests.support.programs import run, said, until
from tests.support.server import Server

# RFC 5280 5.3.1: what a client writes as a number, as `openssl ocsp` and our REST call it.
REASONS = {1: "keyCompromise", 4: "superseded", 5: "cessationOfOperation"}


@dataclass(frozen=True)
class World:
    """`http01_port` and `tls_alpn01_port` are where the server looks for its clients' answers, on 127.0.0.x."""

    server: Server
    pki: Pki
    dns: Dns
    http01_port: int
    tls_alpn01_port: int

    @property
    def root(self) -> Path:
        return self.server.root

    def directory(self, profile: str | None = "server") -> str:
        """The directory of one profile, or with None the one of all."""
        return f"{self.server.url}/acme/{profile}/directory" if profile else f"{self.server.url}/acme/directory"

    def eab(self, *words: str, profile: str = "server") -> dict[str, Any]:
        """A key for external account binding, as an administrator makes one."""
        done = self.server.cli("acme", "eab", "create", "--profile", profile, "--owner", "me", *words, "--json")
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    def found(self, serial: str) -> dict[str, Any]:
        """The certificate in the inventory."""
        return self.pki.get(f"/api/v1/certificates/{serial}")


@contextlib.contextmanager
def world(folder: Path, *, chaos: bool = False, more: Mapping[str, object] | None = None) -> Iterator[World]:
    """Serve in a folder that is there already. `more` are further lines of `[acme]` in rootward.toml."""
    with Dns() as dns:
        ports = free_port(), free_port()
        acme: dict[str, object] = {
            "http01_port": ports[0],
            "tls_alpn01_port": ports[1],
            "resolvers": [dns.at],
            "chaos": chaos,
            **(more or {}),
        }
        server = Server(folder / "home")
        server.home.mkdir(mode=0o700)
        lines = ["lab = true", "[listen]", *(f'{door} = "127.0.0.1:{port}"' for door, port in server.ports.items())]
        lines += ["[egress]", 'allow = ["127.0.0.0/8"]']
        lines += ["[acme]", *(f"{name} = {json.dumps(value)}" for name, value in acme.items())]
        (server.home / "rootward.toml").write_text("\n".join(lines) + "\n")
        (folder / "made").mkdir()
        with server:
            yield World(server, Pki(server, folder / "made"), dns, *ports)


def serial_of(cert: Path) -> str:
    """The serial of a PEM file's first certificate, in lower case, as REST has it."""
    return run("openssl", "x509", "-in", cert, "-noout", "-serial").stdout.strip().partition("=")[2].lower()


def names_of(cert: Path) -> set[str]:
    """Its names, as OpenSSL writes them: `DNS:a.internal`, `IP Address:127.0.0.1`."""
    text = run("openssl", "x509", "-in", cert, "-noout", "-ext", "subjectAltName").stdout
    return {name.strip() for name in text.splitlines()[-1].split(",")}


def assert_good(world: World, fullchain: Path, *names: str, key: Path | None = None) -> str:
    """The file is a chain up to the root, without it, for a TLS server with just these names, and for that key; the
    certificate is in the inventory. Its serial.
    """
    trust = ("-CAfile", world.root, "-no-CApath", "-no-CAstore", "-untrusted", fullchain)
    done = run("openssl", "verify", *trust, "-x509_strict", "-purpose", "sslserver", fullchain, codes=None)
    assert done.returncode == 0, said(done)
    assert fullchain.read_text().count("BEGIN CERTIFICATE") == 2
    assert names_of(fullchain) == set(names)
    if key is not None:
        public = run("openssl", "x509", "-in", fullchain, "-noout", "-pubkey").stdout
        assert run("openssl", "pkey", "-in", key, "-pubout").stdout == public
    serial = serial_of(fullchain)
    assert asked(world, serial) == ("good", None)
    return serial


def assert_revoked(world: World, serial: str, reason: int) -> None:
    """OCSP says so at once, and the CRL within the promise."""
    assert asked(world, serial) == ("revoked", REASONS[reason])
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", REASONS[reason]).title()
    listed = until(lambda: serial in (found := world.pki.revocations()) and found, seconds=PROMISE)
    assert isinstance(listed, dict)
    assert listed[serial] == words


def asked(world: World, serial: str) -> tuple[str, str | None]:
    """What `openssl ocsp` hears, and believes, of a serial: status and reason."""
    answer = ocsp(world.pki, "-serial", f"0x{serial}", "-url", world.pki.ocsp_url)
    assert answer.verified, answer.text
    return answer.status, answer.reason
