"""From nothing to a two-tier PKI with an offline root, and through the replacement of its issuing CA, by the commands
that people give and the questions that they answer.

Once the root's key is in a file, and the issuing CA is compromised; once it is in a token whose PIN 3 of 5 custodians
have together, and the issuing CA is replaced and revoked. The page docs/getting-serious.md tells the same.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootward import __version__
from tests.clients.acme.test_certbot import PROGRAMS, Certbot
from tests.clients.acme.world import World
from tests.clients.pki import Pki
from tests.support.bundle import install_as_told, signed_bundle
from tests.support.dns import Dns
from tests.support.ports import free_port
from tests.support.programs import said, until
from tests.support.story import (
    CUSTODIANS,
    SOCKETS,
    AirGap,
    Online,
    Room,
    chain_of,
    root_token,
)

OLD, NEW = "issuing", "issuing-2"


@pytest.fixture(scope="module")
def installed(alone: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program as the offline bundle brings it where there is no network."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "machine").mkdir()
    program, shown = install_as_told(signed_bundle(folder), alone, folder / "machine")
    assert shown[-1] == f"rootward {__version__}"
    yield program
    shutil.rmtree(folder)


def test_a_socket_would_be_seen(alone: list[str], tmp_path: Path) -> None:
    gap = AirGap(tmp_path, alone, Path(sys.executable))
    gap("-c", "import socket; socket.socket().close()", cwd=tmp_path)
    assert [line for line in gap.calls() if SOCKETS.search(line)] != []


@pytest.mark.slow
@pytest.mark.timeout(900)  # of processes that are started one after the other, on a machine that may have others
@pytest.mark.invariant("I-22", "I-36", "I-37", "I-39")
@pytest.mark.parametrize("where", ["file", "token"])
def test_from_nothing_to_a_replaced_authority(
    where: str, installed: Path, alone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quorum = where == "token"
    compromised, issue = not quorum, ("cert", "issue", "--profile", "server")
    gap_folder = tmp_path / "gap"
    gap_folder.mkdir()
    tokens = root_token(gap_folder, alone) if quorum else {}
    room = Room(tmp_path, AirGap(gap_folder, alone, installed, tokens), quorum)
    room.invite()
    online = Online(tmp_path / "online")
    online.folder.mkdir()

    with Dns() as dns:
        ports = free_port(), free_port()
        acme = {"http01_port": ports[0], "tls_alpn01_port": ports[1], "resolvers": [dns.at]}
        settings = {"acme": acme, "egress": {"allow": ["127.0.0.0/8"]}}
        for name, value in online.begin(settings).items():
            monkeypatch.setenv(name, value)

        # The server asks, people meet, and what they made founds the installation.
        online("ca", "create", OLD, "--parent", "root", "--key-store", "hsm", "--out", room.medium / "issuing.json")
        room.plan("first", "--root", "root", "--org", "Example", "--request", "issuing.json")
        online("ceremony", "import", room.hold("first", "issuing.json"))

        with online.serving() as server:
            root, pki = server.root, Pki(server, tmp_path)
            certbot = Certbot(PROGRAMS["5"], World(server, pki, dns, *ports), tmp_path / "certbot")
            by_cli, by_acme = online.folder / "a" / "fullchain.pem", certbot.live("c.internal") / "fullchain.pem"
            online(*issue, "--name", "a.internal", "--out", "a")
            by_rest = pki.issue(names="DNS:b.internal").fullchain
            certbot.obtain(*certbot.http, "-d", "c.internal")
            for leaf in (by_cli, by_rest, by_acme):
                chain_of(leaf, root)
            before = by_acme.read_bytes()

            # Another issuing CA is asked for, two people end the old one, and the root says so in its CRL.
            online.second_person()
            online("ca", "renew", OLD, "--as", NEW, "--out", room.medium / "issuing-2.json")
            if compromised:
                online.agreed("ca", "compromise", OLD, "--successor", NEW, "--waves", "0s")
            else:
                online.agreed("ca", "revoke", OLD, "--reason", "superseded")
            assert ("compromised" if compromised else "retired") in online("ca", "show", OLD).stdout
            assert "RW-FROZEN" in said(online(*issue, "--name", "x.internal", "--out", "x", code=1))
            waiting = json.loads(online("ceremony", "requests", "--json").stdout)["items"]
            crl = next(one["id"] for one in waiting if one["kind"] == "crl")
            online("ceremony", "request", crl, "--out", room.medium / "crl.json")
            chain_of(by_cli, root)  # nobody else knows yet
            requests = ("--request", "issuing-2.json", "--request", "crl.json")
            room.plan("second", "--under", f"root={root}", *requests)
            result = room.hold("second", "issuing-2.json", "crl.json", custodians=CUSTODIANS[1:4])
            assert "another script" in room.verify(result, "first.yaml", code=1)
            online("ceremony", "import", result)

            if not compromised:
                online.agreed("ca", "succeed", OLD, NEW)
            with server.client() as admin:
                until(lambda: admin.get("/api/v1/profiles/server").json()["authority"] == NEW, seconds=120, every=1)
            assert "not due for renewal" not in said(certbot("renew", "--no-random-sleep-on-renew", *certbot.http))
            online(*issue, "--name", "d.internal", "--out", "d")
            for leaf in (by_acme, online.folder / "d" / "fullchain.pem", pki.issue(names="DNS:e.internal").fullchain):
                chain_of(leaf, root)
            old = tmp_path / "old.pem"
            old.write_bytes(before)
            for leaf in (by_cli, by_rest, old):
                chain_of(leaf, root, revoked=True)

    assert any(str(installed) in line and "execve(" in line for line in room.gap.calls())
    assert [line for line in room.gap.calls() if SOCKETS.search(line)] == []
