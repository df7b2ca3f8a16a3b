"""lego: http-01, tls-alpn-01, dns-01 with a wildcard, external account binding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.acme.world import World, assert_good, assert_revoked
from tests.support.programs import Done, run, said


class Lego:
    """lego with a folder of its own."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.http = ("--http", "--http.port", f"127.0.0.1:{world.http01_port}")

    def __call__(self, *words: str, codes: Sequence[int] = (0,), **environ: str) -> Done:
        account = ("--server", self.world.directory(), "--accept-tos", "--email", "me@a.test", "--path", self.folder)
        return run("lego", *account, *words, codes=codes, env={"LEGO_CA_CERTIFICATES": str(self.world.root), **environ})

    def good(self, name: str, *names: str) -> str:
        files = self.folder / "certificates" / name
        return assert_good(self.world, files.with_name(f"{name}.crt"), *names, key=files.with_name(f"{name}.key"))


@pytest.fixture
def lego(acme: World, tmp_path: Path) -> Lego:
    return Lego(acme, tmp_path)


@pytest.mark.slow
def test_http_01(lego: Lego) -> None:
    names = ("-d", "a.test", "-d", "b.test")
    lego(*names, *lego.http, "run")
    first = lego.good("a.test", "DNS:a.test", "DNS:b.test")
    lego(*names, *lego.http, "renew", "--days", "99999", "--no-random-sleep")
    second = lego.good("a.test", "DNS:a.test", "DNS:b.test")
    assert second != first
    lego("-d", "a.test", "revoke", "--reason", "4", "--keep")
    assert_revoked(lego.world, second, 4)


def test_tls_alpn_01(lego: Lego) -> None:
    lego("-d", "c.test", "--tls", "--tls.port", f"127.0.0.1:{lego.world.tls_alpn01_port}", "run")
    lego.good("c.test", "DNS:c.test")


def test_dns_01_with_a_wildcard(lego: Lego) -> None:
    resolver = ("--dns.resolvers", lego.world.dns.at, "--dns.disable-cp")
    names = ("-d", "*.d.test", "-d", "d.test")
    # one name after the other, and a minute in between unless told otherwise
    environ = {"RFC2136_NAMESERVER": lego.world.dns.at, "RFC2136_SEQUENCE_INTERVAL": "1"}
    lego(*names, "--dns", "rfc2136", *resolver, "run", **environ)
    lego.good("_.d.test", "DNS:*.d.test", "DNS:d.test")


def test_an_address_is_more_than_this_version_can(lego: Lego) -> None:
    """It orders the address as a name; so that nobody puts it down to the server, the refusal says so."""
    refused = said(lego("-d", "127.0.0.1", *lego.http, "run", codes=(1,)))
    assert '"127.0.0.1" is not a DNS name' in refused
    assert "malformed" in refused


def test_external_account_binding(lego: Lego) -> None:
    key = lego.world.eab()
    lego("-d", "e.test", *lego.http, "--eab", "--kid", key["kid"], "--hmac", key["hmac_key"], "run")
    serial = lego.good("e.test", "DNS:e.test")
    assert lego.world.found(serial)["owner"] == "me"


def test_a_refusal_says_why(lego: Lego) -> None:
    refused = said(lego("-d", "a.example.org", *lego.http, "run", codes=(1,)))
    assert "rejectedIdentifier" in refused
    assert "a.example.org" in refused
