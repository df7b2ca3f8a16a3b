"""Caddy gets its certificate itself and serves with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.acme.servers import caddy, visit
from tests.clients.acme.world import World, assert_good
from tests.support.programs import SECONDS, until


@pytest.mark.slow
def test_caddy_serves_with_a_certificate_of_ours(acme: World, tmp_path: Path) -> None:
    with caddy(acme, tmp_path, "caddy.test"):
        page = until(lambda: visit(acme, "caddy.test"), seconds=SECONDS)
    assert page == "hello from caddy.test"
    (chain,) = (tmp_path / "storage").rglob("caddy.test.crt")
    assert_good(acme, chain, "DNS:caddy.test", key=chain.with_suffix(".key"))


@pytest.mark.slow
def test_caddy_serves_an_address(acme: World, tmp_path: Path) -> None:
    """By http-01. At tls-alpn-01 this version shows the address as a DNS name, which RFC 8738 6 does not allow."""
    with caddy(acme, tmp_path, "127.0.0.1", "disable_tlsalpn_challenge"):
        assert until(lambda: visit(acme, "127.0.0.1"), seconds=SECONDS) == "hello from 127.0.0.1"
    (chain,) = (tmp_path / "storage").rglob("127.0.0.1.crt")
    assert_good(acme, chain, "IP Address:127.0.0.1", key=chain.with_suffix(".key"))
