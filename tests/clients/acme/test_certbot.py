"""certbot, as Debian has it (2.x) and as PyPI has it (5.x): http-01, dns-01, addresses, external account binding, and
the renewal that the server asks for (RFC 9773).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.acme.world import World, assert_good, assert_revoked, serial_of
from tests.support.programs import Done, run, said

PROGRAMS = {"2": Path("/usr/bin/certbot"), "5": Path(sys.prefix) / "bin" / "certbot"}
# certbot runs it once for each name and once more to clean up; nsupdate speaks RFC 2136, as most DNS servers do.
HOOK = """\
#!/bin/sh
nsupdate <<EOF
server 127.0.0.1 {port}
update {verb} _acme-challenge.$CERTBOT_DOMAIN. 1 TXT "$CERTBOT_VALIDATION"
send
EOF
"""


class Certbot:
    """One certbot with folders of its own. `live` is where it keeps the newest certificate of a name."""

    def __init__(self, program: Path, world: World, folder: Path) -> None:
        self.program, self.world, self.folder = program, world, folder
        self.http = ("--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", str(world.http01_port))

    def __call__(self, verb: str, *words: str | Path, codes: Sequence[int] = (0,)) -> Done:
        folders = [part for kind in ("config", "work", "logs") for part in (f"--{kind}-dir", self.folder / kind)]
        return run(
            *(self.program, verb, "--non-interactive", *folders, *words),
            codes=codes,
            env={"REQUESTS_CA_BUNDLE": str(self.world.root)},
        )

    def obtain(self, *words: str | Path, directory: str | None = None, codes: Sequence[int] = (0,)) -> Done:
        account = ("--agree-tos", "--register-unsafely-without-email")
        return self("certonly", "--server", directory or self.world.directory(), *account, *words, codes=codes)

    def live(self, name: str) -> Path:
        return self.folder / "config" / "live" / name

    def good(self, name: str, *names: str) -> str:
        files = self.live(name)
        return assert_good(self.world, files / "fullchain.pem", *names, key=files / "privkey.pem")

    def wait(self, name: str, *, days: int) -> None:
        """Renew when so many days are left: 2.x otherwise renews at each run what lives for 30 days."""
        settings = self.folder / "config" / "renewal" / f"{name}.conf"
        wanted = f"renew_before_expiry = {days} days"
        text, count = re.subn("(?m)^# renew_before_expiry = .*$", wanted, settings.read_text())
        assert count == 1
        settings.write_text(text)

    @property
    def log(self) -> str:
        """What the last run wrote down."""
        return (self.folder / "logs" / "letsencrypt.log").read_text()


@pytest.fixture(params=list(PROGRAMS))
def certbot(acme: World, request: pytest.FixtureRequest, tmp_path: Path) -> Certbot:
    return Certbot(PROGRAMS[request.param], acme, tmp_path)


@pytest.fixture
def certbot5(acme: World, tmp_path: Path) -> Certbot:
    return Certbot(PROGRAMS["5"], acme, tmp_path)


@pytest.mark.parametrize(("major", "program"), list(PROGRAMS.items()))
def test_the_versions_are_the_ones_we_speak_of(major: str, program: Path) -> None:
    assert said(run(program, "--version")).startswith(f"certbot {major}.")


@pytest.mark.slow
def test_http_01(certbot: Certbot) -> None:
    certbot.obtain(*certbot.http, "-d", "a.internal", "-d", "b.internal")
    first = certbot.good("a.internal", "DNS:a.internal", "DNS:b.internal")
    if certbot.program == PROGRAMS["2"]:
        certbot.wait("a.internal", days=10)
    assert "not due for renewal" in said(certbot("renew", "--no-random-sleep-on-renew"))

    certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
    second = certbot.good("a.internal", "DNS:a.internal", "DNS:b.internal")
    assert second != first

    cert = certbot.live("a.internal") / "cert.pem"
    server = ("--server", certbot.world.directory())
    certbot("revoke", *server, "--cert-path", cert, "--reason", "superseded", "--no-delete-after-revoke")
    assert_revoked(certbot.world, second, 4)


@pytest.mark.slow
def test_revoked_with_the_certificates_own_key(certbot: Certbot) -> None:
    certbot.obtain(*certbot.http, "-d", "c.internal")
    serial = certbot.good("c.internal", "DNS:c.internal")
    files = certbot.live("c.internal")
    stranger = Certbot(certbot.program, certbot.world, certbot.folder / "stranger")  # it has no account
    proof = ("--cert-path", files / "cert.pem", "--key-path", files / "privkey.pem", "--reason", "keycompromise")
    stranger("revoke", "--server", certbot.world.directory(), *proof, "--no-delete-after-revoke")
    assert_revoked(certbot.world, serial, 1)


@pytest.mark.slow
def test_dns_01(certbot: Certbot) -> None:
    hooks = {}
    for verb in ("add", "delete"):
        hooks[verb] = certbot.folder / verb
        hooks[verb].write_text(HOOK.format(port=certbot.world.dns.port, verb=verb))
        hooks[verb].chmod(0o755)
    how = (
        "--preferred-challenges",
        "dns",
        "--manual-auth-hook",
        hooks["add"],
        "--manual-cleanup-hook",
        hooks["delete"],
    )
    certbot.obtain("--manual", *how, "-d", "d.internal", "-d", "*.d.internal")
    certbot.good("d.internal", "DNS:d.internal", "DNS:*.d.internal")
    assert certbot.world.dns.get("_acme-challenge.d.internal", "TXT") == []


def test_an_address(certbot5: Certbot) -> None:
    http = ("--standalone", "--http-01-address", "127.0.0.2", "--http-01-port", str(certbot5.world.http01_port))
    certbot5.obtain(*http, "--ip-address", "127.0.0.2")
    certbot5.good("127.0.0.2", "IP Address:127.0.0.2")


def test_external_account_binding(certbot: Certbot) -> None:
    key = certbot.world.eab()
    bound = ("--eab-kid", key["kid"], "--eab-hmac-key", key["hmac_key"])
    certbot.obtain(*certbot.http, *bound, "-d", "e.internal")
    serial = certbot.good("e.internal", "DNS:e.internal")
    assert certbot.world.found(serial)["owner"] == "me"


def test_a_profile_of_the_directory_of_all(certbot5: Certbot) -> None:
    wanted = ("--required-profile", "short", "-d", "f.internal")
    certbot5.obtain(*certbot5.http, *wanted, directory=certbot5.world.directory(None))
    serial = serial_of(certbot5.live("f.internal") / "fullchain.pem")
    assert certbot5.world.found(serial)["profile"] == "short"


def test_it_renews_when_the_server_asks_for_it(certbot5: Certbot) -> None:
    """A revocation moves the window into the past; certbot follows it, and not what OCSP says."""
    certbot5.obtain(*certbot5.http, "-d", "g.internal")
    first = certbot5.good("g.internal", "DNS:g.internal")
    found = certbot5.world.found(first)
    status, _ = certbot5.world.pki.post(f"/api/v1/certificates/{found['id']}/revoke", {"reason": "superseded"})
    assert status == 200
    certbot5("renew", "--no-random-sleep-on-renew")
    assert certbot5.good("g.internal", "DNS:g.internal") != first
    assert "certificate is revoked" not in certbot5.log  # what certbot writes where OCSP told it


def test_the_terms_of_a_refusal_reach_the_person(certbot: Certbot) -> None:
    refused = certbot.obtain(*certbot.http, "-d", "a.example.org", codes=(1,))
    assert "rejectedIdentifier" in said(refused) + certbot.log
    assert "a.example.org" in said(refused)
