"""What a signer's administrator does on its host, and what is said when it is wrong: settings, keys, certificates,
profiles. By the commands.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.founding import first_profiles
from rootward.cli.app import run
from rootward.core.problems import Problem
from rootward.keys import Backend, Key
from rootward.signer import home as homes
from rootward.signer.home import open_store
from rootward.signer.settings import read_settings
from tests.support.authority import Authority
from tests.support.installation import PKI_URL
from tests.support.signer import Process, certify, exported, signer_home

SERVER = next(one for one in first_profiles("issuing") if one.name == "server")


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Process]:
    with signer_home(tmp_path) as made:
        yield made


@pytest.fixture
def installed(signer: Process) -> Process:
    certify(signer)
    return signer


def signer_command(home: Path, *arguments: str) -> int:
    verb, *rest = arguments
    return run(["signer", verb, *rest, "--home", str(home)])


# Settings


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nothing = 1", "nothing"),
        ("connections = 0", "connections"),
        ('group = "no-such-group-here"', "no group"),
        ("[authorities.issuing]\ncertificates_per_hour = 0", "certificates_per_hour"),
        ('[authorities.issuing]\nlifetime = "long"', "not a duration"),
        ('[authorities.issuing]\nnetworks = ["10.0.0.0/99"]', "networks"),
        ('[authorities.issuing]\ntls_hosts = ["a b"]', "tls_hosts"),
        ("[authorities.issuing]\nunknown = 1", "unknown"),
        ('[store]\nbackend = "file"', "backend"),
        ("[", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(signer: Process, line: str, says: str) -> None:
    settings = signer.home / "signer.toml"
    settings.write_text(settings.read_text().partition("# [authorities")[0] + line)
    with pytest.raises(Problem) as caught:
        read_settings(signer.home)
    assert caught.value.code == "RW-CONFIG"
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("peers", "socket", "says"),
    [
        ("[]", "/run/s.sock", "nobody may ask"),
        ('["no-such-user-here"]', "/run/s.sock", "no user"),
        ("[1]", "run/s.sock", "absolute path"),
        ("[1]", "/" + "x" * 120, "100 octets"),
    ],
)
def test_who_may_ask_and_where_is_checked(tmp_path: Path, peers: str, socket: str, says: str) -> None:
    (tmp_path / "signer.toml").write_text(f'socket = "{socket}"\npeers = {peers}\n')
    with pytest.raises(Problem) as caught:
        read_settings(tmp_path)
    assert says in caught.value.detail


def test_a_folder_that_is_no_home_and_a_home_that_is_one(
    signer: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert signer_command(tmp_path / "nowhere", "show") == 1
    assert "rootward signer init makes one" in " ".join(capsys.readouterr().err.split())
    assert signer_command(signer.home, "init", "--peer", str(os.geteuid())) == 1
    assert "is a signer's home already" in " ".join(capsys.readouterr().err.split())
    assert signer_command(signer.home, "journal") == 1
    assert "has not run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--peer", "no-such-user-here"), "no user"),
        (("--peer", "0", "--socket", "s.sock"), "absolute path"),
        (("--peer", '0", "1'), "no user"),
    ],
)
def test_an_init_that_fails_leaves_nothing_and_can_be_typed_again(
    tmp_path: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert signer_command(home, "init", *words) != 0
    assert says in " ".join(capsys.readouterr().err.split())
    assert not home.exists()
    assert signer_command(home, "init", "--peer", "0", "--socket", '/run/a "quoted" one.sock') == 0
    assert read_settings(home).socket == Path('/run/a "quoted" one.sock')


# Keys and certificates


def test_one_authority_has_one_key(signer: Process, capsys: pytest.CaptureFixture[str]) -> None:
    assert signer_command(signer.home, "generate", "issuing") == 1
    assert "A new key is a new authority" in " ".join(capsys.readouterr().err.split())
    assert signer_command(signer.home, "generate", "Über") == 1
    assert signer_command(signer.home, "generate", "other", "--key-type", "p257") == 2
    capsys.readouterr()
    assert signer_command(signer.home, "generate", "other", "--cn", "Other CA", "--org", "Test") == 0
    csr = x509.load_pem_x509_csr(capsys.readouterr().out.encode())
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "CN=Other CA,O=Test"
    assert signer_command(signer.home, "show") == 0
    assert capsys.readouterr().out.count("waits for its") == 2


def test_only_its_own_certificate_with_its_whole_chain_is_installed(
    signer: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, outcome = certify(signer)
    pem = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (outcome.issuing, outcome.root)]
    other = Authority("Other").pem.encode()

    def install(name: str, chain: bytes, url: str = PKI_URL) -> tuple[int, str]:
        (tmp_path / "chain.pem").write_bytes(chain)
        code = signer_command(
            signer.home, "install", name, "--certificate", str(tmp_path / "chain.pem"), "--pki-url", url
        )
        return code, " ".join(capsys.readouterr().err.split())

    assert install("issuing", pem[0] + pem[1]) == (0, "")
    for chain, says in (
        (other, "not for the key"),
        (pem[1] + pem[0], "not for the key"),
        (pem[0], "A chain has 2"),
        (pem[0] + other, "is not"),
        (b"nothing", "RW-CERTIFICATE"),
    ):
        code, said = install("issuing", chain)
        assert code == 1
        assert says in said
    assert install("other", pem[0] + pem[1])[0] == 1
    assert "slash" in install("issuing", pem[0] + pem[1], "http://pki.internal/")[1]


# Profiles


def test_a_profile_is_accepted_by_who_types_yes_and_by_nobody_else(
    installed: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = msgspec.structs.replace(
        SERVER, names=msgspec.structs.replace(SERVER.names, ip=("0.0.0.0/0",)), extended_key_usage=("server_auth",)
    )
    (tmp_path / "wide.json").write_bytes(exported(wide, 2))
    file = str(tmp_path / "wide.json")
    before = homes.accepted(installed.home)
    for said in ("", "no\n", "y\n", "YES\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        assert signer_command(installed.home, "accept", file) == 1
        assert homes.accepted(installed.home) == before
    shown = capsys.readouterr()
    assert "WIDER names.ip" in " ".join(shown.out.split())
    assert "against version 1" in shown.out
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert signer_command(installed.home, "accept", file) == 0
    (found,) = [one for one in homes.accepted(installed.home) if one.profile.name == "server"]
    assert (found.version, found.profile) == (2, wide)


def test_a_new_profile_is_shown_whole_and_what_the_signer_cannot_see_is_said(
    installed: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = msgspec.structs.replace(
        SERVER, name="new", approval=msgspec.structs.replace(SERVER.approval, required="always")
    )
    (tmp_path / "new.json").write_bytes(exported(new, 1))
    assert signer_command(installed.home, "accept", str(tmp_path / "new.json"), "--yes") == 0
    shown = capsys.readouterr()
    for field in ("names.dns.allow", "lifetime.maximum", "key_usage", "approval.required", "conditions"):
        assert field in shown.out
    assert "only the web process's word" in " ".join(shown.err.split())
    assert signer_command(installed.home, "forget", "new") == 0
    assert signer_command(installed.home, "forget", "new") == 1
    assert "No version of the profile new" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"version": "1", "profile": {}}).encode(),
        json.dumps({"version": 0, "profile": {"name": "a", "authority": "issuing"}}).encode(),
        json.dumps({"version": 1, "profile": {"name": "a", "authority": "issuing", "more": 1}}).encode(),
        json.dumps({"version": 1, "profile": {"name": "../a", "authority": "issuing"}}).encode(),
        json.dumps({"version": 1, "profile": {"name": "ocsp-responder", "authority": "issuing"}}).encode(),
        json.dumps({"version": 1, "profile": {"name": "a", "authority": "nobody"}}).encode(),
    ],
    ids=["empty", "list", "object", "text", "zero", "unknown", "path", "reserved", "authority"],
)
def test_what_is_no_version_of_a_profile_is_not_accepted(installed: Process, tmp_path: Path, body: bytes) -> None:
    before = homes.accepted(installed.home)
    (tmp_path / "file.json").write_bytes(body)
    assert signer_command(installed.home, "accept", str(tmp_path / "file.json"), "--yes") in (1, 2)
    assert homes.accepted(installed.home) == before


def test_a_pinned_file_that_was_changed_or_that_others_can_write_is_refused(installed: Process) -> None:
    path = installed.home / "profiles" / "server.json"
    text = path.read_text()
    assert "TLS servers" in text
    path.write_text(text.replace("TLS servers", "TLS"))
    with pytest.raises(Problem) as caught:
        homes.accepted(installed.home)
    assert "was changed after it was accepted" in caught.value.detail
    path.write_text(text)
    path.chmod(0o666)
    with pytest.raises(Problem) as caught:
        homes.accepted(installed.home)
    assert "chmod" in caught.value.detail


def test_a_file_that_cannot_be_read_leaves_a_running_signer_as_it_was(installed: Process) -> None:
    installed.start()
    path = installed.home / "profiles" / "server.json"
    text = path.read_text()
    homes.replace(path, b"nonsense", mode=0o600)
    other = msgspec.structs.replace(SERVER, name="other")
    installed.wait_for_log("cannot be read")
    homes.replace(path, text.encode(), mode=0o600)
    installed.accept(other, 1)
    installed.wait_for("pinned", "other")


def test_what_its_administrator_does_is_in_its_journal_once(installed: Process) -> None:
    serial = "40" + "0" * 38
    installed.command("let-go", "issuing", serial, "--yes")
    for _ in range(2):
        installed.start()
        assert installed.stop() == 0
    certificate = x509.load_pem_x509_certificate(homes.authority(installed.home, "issuing").chain[0].encode())
    (entry,) = installed.journal("installed")
    assert entry.what == "issuing"
    assert certificate.fingerprint(hashes.SHA256()).hex() in (entry.why or "")
    assert PKI_URL in (entry.why or "")
    assert [entry.what for entry in installed.journal("let-go")] == [serial]
    assert len(installed.journal("pinned")) == 5
    installed.command("forget", "server")
    installed.start()
    assert [entry.what for entry in installed.journal("forgotten")] == ["server"]
    assert installed.stop() == 0
    installed.accept(SERVER, 1)  # the same version again
    installed.start()
    assert len(installed.journal("pinned")) == 6


@pytest.mark.parametrize("field", ["csr", "chain", "let_go"])
def test_an_authority_that_is_nonsense_leaves_a_running_signer_as_it_was(installed: Process, field: str) -> None:
    installed.start()
    path = installed.home / "authorities" / "issuing.json"
    text = path.read_bytes()
    nonsense = json.loads(text) | {field: "nonsense" if field == "csr" else ["nonsense"]}
    homes.replace(path, json.dumps(nonsense).encode(), mode=0o600)
    installed.wait_for_log("cannot be read")
    homes.replace(path, text, mode=0o600)
    installed.accept(msgspec.structs.replace(SERVER, name="other"), 1)
    installed.wait_for("pinned", "other")


def test_a_folder_that_cannot_be_read_leaves_a_running_signer_as_it_was(installed: Process) -> None:
    installed.start()
    away = installed.home / "profiles-away"
    (installed.home / "profiles").rename(away)
    installed.wait_for_log("cannot be read")
    away.rename(installed.home / "profiles")
    installed.accept(msgspec.structs.replace(SERVER, name="other"), 1)
    installed.wait_for("pinned", "other")


@pytest.mark.invariant("I-38")
def test_what_is_forgotten_while_it_is_read_is_not_there(installed: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder was read already, and the file not yet: a running signer looks at any moment."""
    names = {one.profile.name for one in homes.accepted(installed.home)}
    read, files = homes.read_secret, homes._files

    def gone(path: Path, **how: Any) -> bytes:
        if path.name == "server.json":
            homes.forget(installed.home, "server")
        return read(path, **how)

    def listed(home: Path, folder: str) -> list[os.DirEntry[str]]:
        found = files(home, folder)
        (home / folder / "client.json").unlink(missing_ok=True)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(homes, "read_secret", gone)
        assert {one.profile.name for one in homes.accepted(installed.home)} == names - {"server"}
    with monkeypatch.context() as patch:
        patch.setattr(homes, "_files", listed)
        seen = homes.stamp(installed.home)
    assert seen == homes.stamp(installed.home)
    assert not any(path.endswith("client.json") for path, _, _ in seen)


@pytest.mark.invariant("I-38")
def test_a_profile_is_forgotten_also_while_the_keys_are_away(installed: Process) -> None:
    """Their store may be what an administrator is stopping everything for."""
    settings = read_settings(installed.home)
    memory = open_store(settings, os.environ)
    before = homes.load(settings, memory)
    homes.forget(installed.home, "server")
    after = homes.load(settings, Away(), before)
    ((held,), (was,)) = after.values(), before.values()
    assert held.key is was.key
    assert held.pinned is not None
    assert "server" not in held.pinned.policies
    with pytest.raises(Problem):
        homes.load(settings, Away())


@pytest.mark.invariant("I-38")
def test_what_could_not_be_read_is_looked_at_again(installed: Process) -> None:
    """The file is the same one afterwards: only its mode was wrong."""
    installed.start()
    path = installed.home / "profiles" / "server.json"
    path.chmod(0o666)
    installed.accept(msgspec.structs.replace(SERVER, name="other"), 1)
    installed.wait_for_log("chmod")
    path.chmod(0o600)
    installed.wait_for("pinned", "other")


def test_limits_of_an_authority_that_is_not_there_are_said(installed: Process) -> None:
    """A misspelt name would leave the limits off."""
    path = installed.home / "signer.toml"
    path.write_text(path.read_text().replace("[authorities.issuing]", "[authorities.isuing]"))
    with pytest.raises(AssertionError):
        installed.start()
    assert installed.ended() == 1
    assert "no key for" in " ".join(installed.log.split())


class Away(Backend):
    """A store that cannot be asked now."""

    name = "away"
    algorithms = frozenset()

    def load(self, label: str, public_id: str) -> Key:
        raise Problem("RW-KEY-UNAVAILABLE", f"{label} {public_id} cannot be had now.")
