"""`rootward` against a running server: the whole life of a certificate, approvals, JSON, exit codes, 80 columns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.pki import Pki, ocsp
from tests.support.programs import Done, run, said, terminal, until

DONE, REFUSED, USAGE, WAITING, UNREACHABLE = range(5)
COMMAND = (sys.executable, "-m", "rootward")
APPROVED = """\
name: {name}
authority: issuing
description: Needs somebody's yes
names: {{dns: {{allow: [.internal]}}}}
extended_key_usage: [server_auth]
approval: {{required: always}}
"""


@pytest.fixture
def cli(pki: Pki, tmp_path: Path) -> Cli:
    return Cli(pki, tmp_path)


class Cli:
    """The command line in a folder of its own."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki, self.folder = pki, folder

    def __call__(self, *words: str, code: int = DONE) -> Done:
        return run(*COMMAND, "--home", self.pki.server.home, *words, codes=(code,), cwd=self.folder)

    def json(self, *words: str, code: int = DONE) -> Any:
        """What it prints for programs: one JSON value and nothing else."""
        done = self(*words, "--json", code=code)
        return json.loads(done.stdout)

    def issue(self, name: str, out: str, *more: str, profile: str = "server", code: int = DONE) -> Done:
        return self("cert", "issue", "--profile", profile, "--name", name, "--out", out, *more, code=code)

    def seen(self, *words: str, columns: int = 80) -> str:
        """What a person sees in a terminal of 80 columns; no line may be longer."""
        code, text = terminal(*COMMAND, "--home", self.pki.server.home, *words, columns=columns, env={"NO_COLOR": "1"})
        assert code == DONE, text
        assert max(map(len, text.splitlines())) <= columns, text
        assert "\x1b[" not in text
        return text


def certificate(cli: Cli, out: str, *fields: str) -> str:
    return run("openssl", "x509", "-in", cli.folder / out / "cert.pem", "-noout", *fields).stdout


def serial_of(cli: Cli, out: str) -> str:
    return certificate(cli, out, "-serial").strip().partition("=")[2]


@pytest.mark.slow
def test_the_life_of_a_certificate(cli: Cli) -> None:
    cli.issue("a.internal", "a", "--name", "10.0.0.1", "--owner", "team-a", "--lifetime", "7d", "--key-type", "p384")
    folder = cli.folder / "a"
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "chain.pem", "fullchain.pem", "key.pem"]
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (folder / "fullchain.pem").read_text() == "".join(
        (folder / name).read_text() for name in ("cert.pem", "chain.pem")
    )
    trust = ("-CAfile", cli.pki.root, "-untrusted", folder / "chain.pem", "-x509_strict", "-purpose", "sslserver")
    run("openssl", "verify", *trust, folder / "cert.pem")
    public = run("openssl", "pkey", "-in", folder / "key.pem", "-pubout").stdout
    assert certificate(cli, "a", "-pubkey") == public
    assert "DNS:a.internal, IP Address:10.0.0.1" in certificate(cli, "a", "-ext", "subjectAltName")
    serial = serial_of(cli, "a")

    verified = cli("cert", "verify", "a/fullchain.pem", "--host", "a.internal").stdout
    assert "A hard-fail client accepts." in verified
    assert cli("cert", "verify", "a/fullchain.pem", "--host", "b.internal", code=REFUSED)

    shown = cli.json("cert", "show", serial)
    assert (shown["serial"], shown["owner"], shown["key_algorithm"]) == (serial.lower(), "team-a", "p384")
    assert shown["certificate"] == (folder / "cert.pem").read_text()
    assert shown == cli.pki.get(f"/api/v1/certificates/{shown['id']}")
    assert serial.lower() in [item["serial"] for item in cli.json("cert", "list", "--owner", "team-a")["items"]]

    renewed = cli.json("cert", "renew", serial, "--out", "b")
    assert renewed["names"] == shown["names"]
    assert certificate(cli, "b", "-pubkey") != public
    assert cli.pki.get(f"/api/v1/certificates/{renewed['id']}")["replaces"] == shown["id"]
    assert renewed["serial"] == serial_of(cli, "b").lower()

    revoked = cli("cert", "revoke", serial, "--reason", "superseded").stdout
    assert "is revoked" in revoked
    where = ("-cert", folder / "cert.pem", "-url", cli.pki.ocsp_url)
    assert ocsp(cli.pki, *where).reason == "superseded"
    refused = cli("cert", "verify", "a/fullchain.pem", "--host", "a.internal", code=REFUSED).stdout
    assert "superseded" in refused
    assert "A soft-fail client refuses." in refused
    assert cli.json("cert", "show", serial)["status"] == "revoked"


def test_a_csr_of_ones_own_and_hold(cli: Cli) -> None:
    key = cli.pki.make_key("rsa-2048")
    cli.pki.make_csr(key, names="DNS:c.internal")
    cli("cert", "issue", "--profile", "peer", "--csr", str(key.with_name("csr.pem")), "--out", "c")
    assert not (cli.folder / "c" / "key.pem").exists()
    serial = serial_of(cli, "c")
    cli("cert", "revoke", serial, "--reason", "certificateHold")
    assert cli.json("cert", "show", serial)["status"] == "held"
    cli("cert", "release", serial)
    assert cli.json("cert", "show", serial)["status"] == "active"


@pytest.mark.slow
def test_a_certificate_that_somebody_must_agree_to(cli: Cli) -> None:
    name = "agreed"
    (cli.folder / "profile.yaml").write_text(APPROVED.format(name=name))
    cli("profile", "create", "profile.yaml")
    assert name in [item["name"] for item in cli.json("profile", "list")["items"]]
    waiting = cli.issue("d.internal", "d", profile=name, code=WAITING)
    assert "rootward request approve" in said(waiting)
    assert sorted(path.name for path in (cli.folder / "d").iterdir()) == ["key.pem", "request.json"]
    key = (cli.folder / "d" / "key.pem").read_text()
    again = cli.issue("d.internal", "d", profile=name, code=WAITING)  # still waiting, and still the same request
    (request,) = cli.json("request", "list")["items"]
    assert request["id"] in said(waiting)
    assert request["id"] in said(again)
    assert cli.json("request", "show", request["id"])["names"] == ["dns:d.internal"]
    cli("request", "approve", request["id"], "--comment", "yes")
    cli.issue("d.internal", "d", profile=name)
    assert sorted(path.name for path in (cli.folder / "d").iterdir()) == [
        "cert.pem",
        "chain.pem",
        "fullchain.pem",
        "key.pem",
    ]
    assert (cli.folder / "d" / "key.pem").read_text() == key
    assert certificate(cli, "d", "-pubkey") == run("openssl", "pkey", "-pubout", stdin=key).stdout
    done = cli.json("request", "show", request["id"])
    assert done["status"] == "issued"
    assert cli.pki.get(f"/api/v1/certificates/{done['certificate_id']}")["serial"] == serial_of(cli, "d").lower()


def test_a_certificate_that_somebody_denies(cli: Cli) -> None:
    (cli.folder / "profile.yaml").write_text(APPROVED.format(name="denied"))
    cli("profile", "create", "profile.yaml")
    answer = cli.json("cert", "issue", "--profile", "denied", "--name", "e.internal", "--out", "e", code=WAITING)
    assert answer["status"] == "waiting"
    cli("request", "deny", answer["id"])
    refused = cli.issue("e.internal", "e", profile="denied", code=REFUSED)
    assert "denied" in refused.stderr
    assert not (cli.folder / "e" / "cert.pem").exists()


@pytest.mark.slow
def test_exit_codes(cli: Cli) -> None:
    """0 done, 1 refused or failed, 2 wrong usage, 3 waiting, 4 not reachable; each failure says what to do next."""
    refused = cli.issue("a.example.com", "f", code=REFUSED)
    assert "a.example.com" in refused.stderr
    assert not (cli.folder / "f" / "cert.pem").exists()
    problem = cli.json("cert", "issue", "--profile", "none", "--name", "a.internal", "--out", "g", code=REFUSED)
    assert problem["code"].startswith("RW-")
    for words in (
        ("cert", "issue", "--profile", "server", "--out", "h"),
        ("cert", "issue", "--profile", "server", "--name", "not a name", "--out", "h"),
        ("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "h", "--key-type", "rsa-512"),
        ("cert", "issue", "--nonsense"),
        ("cert", "nonsense"),
        ("nonsense",),
    ):
        assert cli(*words, code=USAGE).stderr, words
    assert not (cli.folder / "h").exists()
    away = cli("--url", "https://127.0.0.1:1", "cert", "list", code=UNREACHABLE)
    assert away.stderr
    assert cli("cert", "show", "00ff", code=REFUSED).stderr
    (cli.folder / "token").write_text("wrong")
    assert cli("--token-file", "token", "cert", "list", code=REFUSED).stderr


def test_nothing_is_overwritten(cli: Cli) -> None:
    cli.issue("a.internal", "i")
    before = {path.name: path.read_bytes() for path in (cli.folder / "i").iterdir()}
    refused = cli.issue("a.internal", "i", code=REFUSED)
    assert "i" in refused.stderr
    assert {path.name: path.read_bytes() for path in (cli.folder / "i").iterdir()} == before


def test_another_servers_root_is_not_trusted(cli: Cli) -> None:
    refused = cli("--ca-file", str(cli.pki.stranger), "cert", "list", code=UNREACHABLE)
    assert "certificate" in refused.stderr.lower()


@pytest.mark.slow
def test_at_80_columns_nothing_is_cut(cli: Cli) -> None:
    names = [f"{letter * 4}.internal" for letter in "wxyz"]
    cli.issue(names[0], "j", *(word for name in names[1:] for word in ("--name", name)), "--owner", "team-j")
    serial = serial_of(cli, "j").lower()
    found = cli.json("cert", "show", serial)
    listed = cli.seen("cert", "list", "--owner", "team-j")
    assert found["id"] in listed
    assert all(name in listed for name in names[:3])
    assert "and 1 more" in " ".join(listed.split())
    shown = cli.seen("cert", "show", serial)
    assert {found["id"], serial, found["sha256"], *names} <= set(shown.replace("dns:", "").split())
    assert {"server", "client", "peer", "device", "short"} <= set(cli.seen("profile", "list").split())
    assert names[0] in cli.seen("cert", "verify", str(cli.folder / "j" / "fullchain.pem"), "--host", names[0])
    until(lambda: cli.pki.get(f"/api/v1/certificates?q={names[0][1:]}")["items"], seconds=30)  # a job indexes names
    assert names[0] in cli("cert", "list", "--q", names[0][1:]).stdout
    # in a pipe each row is one whole line
    lines = [line for line in cli("cert", "list").stdout.splitlines() if serial in line]
    assert len(lines) == 1
    assert found["id"] in lines[0]
