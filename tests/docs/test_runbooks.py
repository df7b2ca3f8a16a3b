"""docs/runbooks: every command runs as it stands, on a lab of its own whose ceremonies are answered from files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.keys import kek_from_passphrase
from rootward.keys.participant import make_key_file
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read
from tests.support.programs import run
from tests.support.rest import csr
from tests.support.second_person import second_person
from tests.support.server import Server

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
PASSPHRASE = "correct horse battery"
_ID = re.compile(r"(?:rootward request approve|The request is) ([0-9a-f-]{36})")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Server]:
    """A lab of its own: what is done to it is not taken back."""
    with Server(tmp_path / "home") as server:
        yield server


def prepare(server: Server, folder: Path) -> Terminal:
    """What a reader has: the home, a certificate in use, a participant's key, a second person's token, and answers."""
    (folder / "var").symlink_to(server.home)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "anna.pub").write_text(make_key_file(folder / "anna.key", kek_from_passphrase(PASSPHRASE)) + "\n")
    with server.client() as admin:
        second_person(admin, folder / "bob.token")
        made = admin.post("/api/v1/certificates", json={"profile": "server", "csr": csr("shop.internal")})
        assert made.status_code == 201, made.text
    opens, signs = (server.home / "offline-root" / "passphrase").read_text().strip(), ["anna.key", PASSPHRASE]
    begin = ["+"] * 2  # here, and the script's hash
    answers = {
        "answers": [*begin, "+", opens, "+", *signs],  # one certificate
        "answers-crl": [*begin, "+", opens, "+", "+", "+", *signs],  # and a CRL
        "answers-root": [*begin, "+", PASSPHRASE, PASSPHRASE, *["+"] * 5, *signs],  # a new key, root, CRL
        "answers-under": [*begin, "+", PASSPHRASE, "+", *signs],
    }
    for name, lines in answers.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return Terminal(folder, {"https://localhost:8443": server.url, "http://localhost:8080": server.pki})


def carry_out(page: Path, terminal: Terminal) -> str:
    """Every command of the page; all that they said."""
    said, id = "", "ID"
    for block in blocks(read(page), "console"):
        for command in commands(block.text):
            done = terminal.run(command.replace(" ID", f" {id}"))
            assert done.code == expected(command), done
            found = _ID.search(done.output)
            id = found[1] if found else id
            said += f"$ {command}\n{done.output}"
    return said


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_command(page: Path, home: Server, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    with home.client() as admin:
        before = admin.get("/roots.pem").content
        terminal = prepare(home, folder)
        old = leaf(admin, "old.internal")
        (folder / "old-root.pem").write_bytes(before)
        carry_out(page, terminal)
        trusted = folder / "trusted.pem"
        successor = folder / "root-2" / "root-2.pem"
        trusted.write_bytes(before + (successor.read_bytes() if successor.exists() else b""))
    # Some time after its root has a successor the server shows a certificate that is under that one.
    with home.client(trusted) as admin:
        if page.stem == "root-renewal":
            check_bridges(folder, old, leaf(admin, "new.internal"))
        after = admin.get("/roots.pem").content
        states = {one["name"]: one["state"] for one in admin.get("/api/v1/authorities").json()["items"]}
        profile = admin.get("/api/v1/profiles/server").json()
    roots = [one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(after)]
    stopped = "compromised" if "compromise" in page.stem else "retired"
    assert states["issuing"] == stopped
    if page.stem.startswith("issuing"):
        assert after == before
        assert (states["issuing-2"], profile["authority"]) == ("active", "issuing-2")
    else:
        assert (states["issuing-r2"], profile["authority"]) == ("active", "issuing-r2")
        assert len(roots) == (1 if stopped == "compromised" else 2)
        assert states["root"] == ("compromised" if stopped == "compromised" else "offline")
        home.stop()
        home.start()  # it comes up under the new root, and the commands of this machine trust that
        assert home.root.read_bytes() == after
        assert terminal.run("rootward ca list").code == 0


def leaf(admin: httpx.Client, name: str) -> str:
    """A certificate of the profile `server` and its chain, from whom it issues now."""
    made = admin.post("/api/v1/certificates", json={"profile": "server", "csr": csr(name)})
    assert made.status_code == 201, made.text
    return str(made.json()["certificate"] + made.json()["chain"])


def check_bridges(folder: Path, old: str, new: str) -> None:
    """Who trusts one root alone believes what is under the other, by the other root's certificate of that one; and
    without it does not.
    """
    old_root, new_root = folder / "old-root.pem", folder / "root-2" / "root-2.pem"
    for chain, anchor, bridge in ((new, old_root, "root-2-by-root"), (old, new_root, "root-by-root-2")):
        first, *between = x509.load_pem_x509_certificates(chain.encode())
        pem = first.public_bytes(Encoding.PEM)
        (folder / "leaf.pem").write_bytes(pem)
        (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in between))
        trust = ("-CAfile", anchor, "-no-CApath", "-no-CAstore", "-x509_strict", "-purpose", "sslserver")
        given = ("-untrusted", folder / "chain.pem")
        by = ("-untrusted", folder / bridge / f"{bridge}.pem")
        without = run("openssl", "verify", *trust, *given, folder / "leaf.pem", codes=None)
        assert without.returncode != 0
        run("openssl", "verify", *trust, *given, *by, folder / "leaf.pem")


def test_there_are_all_of_them() -> None:
    assert {page.stem for page in PAGES} == {
        "issuing-ca-compromise",
        "issuing-ca-renewal",
        "root-compromise",
        "root-renewal",
    }
