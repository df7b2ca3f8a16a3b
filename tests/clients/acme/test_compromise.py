"""One of two issuing CAs is compromised, on a server that certbot and lego have certificates from: two people say so,
the clients replace them on their next run, and nobody else notices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.clients.acme.test_certbot import PROGRAMS, Certbot
from tests.clients.acme.test_lego import Lego
from tests.clients.acme.world import World, world
from tests.support.programs import Done, run, said, until
from tests.support.second import add_sibling
from tests.support.second_person import second_person

OLD, NEW = "issuing", "issuing-2"
WAITING = 3


class OtherLego(Lego):
    """lego with the profile of the other CA."""

    def __call__(self, *words: str, codes: Any = (0,), **environ: str) -> Done:
        account = (
            "--server",
            self.world.directory("other"),
            "--accept-tos",
            "--email",
            "me@b.test",
            "--path",
            self.folder,
        )
        return run("lego", *account, *words, codes=codes, env={"LEGO_CA_CERTIFICATES": str(self.world.root), **environ})


@dataclass
class Site:
    """The server, and the second person's token."""

    world: World
    bob: Path

    def cli(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What an administrator's command prints."""
        done = self.world.server.cli(*words, check=False)
        assert done.returncode in codes, said(done)
        return said(done)

    def report(self) -> dict[str, Any]:
        """How far the old one's certificates are replaced."""
        found: dict[str, Any] = json.loads(self.world.server.cli("ca", "report", OLD, "--json", check=False).stdout)
        return found

    def roots(self) -> bytes:
        """What relying parties trust, as the server gives it."""
        done = run("curl", "-sSf", "--cacert", self.world.root, f"{self.world.server.url}/roots.pem")
        return done.stdout.encode() + self.world.root.read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("two")
    with world(folder) as made:
        made.server.stop()
        add_sibling(made.server.home, NEW)
        made.server.start()
        with made.server.client() as admin:
            yield Site(made, _second_person(admin, folder))


def _second_person(admin: Any, folder: Path) -> Path:
    """The file with an approver's token; and a profile of the other CA."""
    profile = admin.get("/api/v1/profiles/server").json()["profile"]
    made = admin.post("/api/v1/profiles", json={**profile, "name": "other", "authority": NEW})
    assert made.status_code == 201, made.text
    second_person(admin, folder / "bob.token")
    return folder / "bob.token"


def issuer_of(fullchain: Path) -> str:
    """The issuer's common name of the first certificate of a file, which must be a chain to the root."""
    leaf, issuing = x509.load_pem_x509_certificates(fullchain.read_bytes())
    leaf.verify_directly_issued_by(issuing)
    return issuing.subject.rfc4514_string()


def good(site: Site, fullchain: Path) -> str:
    """OpenSSL accepts it, and its issuer's own responder calls it good; the issuer."""
    trust = ("-CAfile", site.world.root, "-no-CApath", "-no-CAstore", "-untrusted", fullchain)
    done = run("openssl", "verify", *trust, "-x509_strict", "-purpose", "sslserver", fullchain, codes=None)
    assert done.returncode == 0, said(done)
    _, issuing = x509.load_pem_x509_certificates(fullchain.read_bytes())
    issuer = fullchain.with_name("issuer-of-it.pem")
    issuer.write_bytes(issuing.public_bytes(Encoding.PEM))
    url = run("openssl", "x509", "-in", fullchain, "-noout", "-ocsp_uri").stdout.strip()
    asked = ("-CAfile", site.world.root, "-issuer", issuer, "-cert", fullchain, "-url", url)
    assert "good" in said(run("openssl", "ocsp", *asked, "-no_nonce"))
    return issuer_of(fullchain)


@pytest.mark.slow
def test_they_replace_their_certificates_on_their_next_run(site: Site, tmp_path: Path) -> None:
    certbot = Certbot(PROGRAMS["5"], site.world, tmp_path / "certbot")
    lego, other = Lego(site.world, tmp_path / "lego"), OtherLego(site.world, tmp_path / "other")
    certbot.obtain(*certbot.http, "-d", "a.internal")
    lego("-d", "b.test", *lego.http, "run")
    other("-d", "c.test", *other.http, "run")
    files = certbot.live("a.internal") / "fullchain.pem", lego.folder / "certificates" / "b.test.crt"
    theirs = other.folder / "certificates" / "c.test.crt"
    was = [good(site, file) for file in files]
    assert len(set(was)) == 1
    before, untouched = site.roots(), theirs.read_bytes()
    branch = good(site, theirs)
    assert branch not in was

    told = site.cli("ca", "compromise", OLD, "--successor", NEW, "--reason", "a token was lost", codes=(WAITING,))
    id = told.partition("rootward request approve ")[2].split(".")[0]
    assert id in site.cli("request", "list")
    assert "RW-SAME-PERSON" in site.cli("request", "approve", id, codes=(1,))
    assert "active" in site.cli("ca", "show", OLD)
    assert "is done" in site.cli("request", "approve", id, "--token-file", str(site.bob))
    assert "compromised" in site.cli("ca", "show", OLD)
    assert {"a.internal", "b.test"} <= {
        name.partition(":")[2] for item in site.report()["items"] for name in item["names"]
    }

    said_by_certbot = said(certbot("renew", "--no-random-sleep-on-renew", *certbot.http))
    assert "not due for renewal" not in said_by_certbot
    lego("-d", "b.test", *lego.http, "renew", "--days", "99999", "--no-random-sleep")
    assert {good(site, file) for file in files} == {branch}
    site.world.server.stop()  # its own certificate is among them: replaced each minute, and at a start
    site.world.server.start()
    until(lambda: site.report()["over"], seconds=60)
    report = site.report()
    assert (report["remaining"], report["items"], report["successor"]) == (0, [], NEW)
    assert "Everything is replaced" in site.cli("ca", "report", OLD)

    assert site.roots() == before
    assert theirs.read_bytes() == untouched
    assert good(site, theirs) == branch
    other("-d", "d.test", *other.http, "run")
    assert good(site, other.folder / "certificates" / "d.test.crt") == branch
