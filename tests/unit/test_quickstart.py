"""What `quickstart` and `serve` say of their addresses: those that are served, not those that the settings hope for.

And what a lab allows.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from rootward import home
from rootward.config import FILE_NAME, Config, Database, Listen, load_config, write_config
from rootward.quickstart import _elsewhere, _served, lab_flags

NAMED = {
    "external_url": "https://localhost:8443",
    "mtls_url": "https://localhost:8444",
    "pki_url": "http://localhost:8080",
}


def test_the_settings_addresses_where_they_are_served() -> None:
    config = Config(**NAMED)  # type: ignore[arg-type]  # all of them are strings
    assert (_served(config, "https"), _elsewhere(config)) == ("https://localhost:8443", "")
    standard = Config(external_url="https://pki.internal", listen=Listen(https="10.0.0.1:443"))
    assert _served(standard, "https") == "https://pki.internal"


@pytest.mark.parametrize(
    ("listens", "served"),
    [
        ("127.0.0.1:9443", "https://localhost:9443"),
        ("0.0.0.0:9443", "https://localhost:9443"),
        ("127.0.0.2:8443", "https://127.0.0.2:8443"),
        ("[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_another_address_for_this_once(listens: str, served: str) -> None:
    config = Config(**NAMED, listen=Listen(https=listens))  # type: ignore[arg-type]  # as above
    assert _served(config, "https") == served
    said = _elsewhere(config)
    assert said.count("\n") == 1
    assert "external_url https://localhost:8443." in said
    assert "rootward.toml" in said


def test_a_lab_validates_names_on_its_own_machine_and_says_so_in_its_settings(tmp_path: Path) -> None:
    made = load_config(tmp_path, {}, lab_flags())
    write_config(tmp_path / FILE_NAME, made)
    assert load_config(tmp_path, {}, {}) == made
    egress = home.ways(made).egress
    assert egress.localhost
    for address in ("127.0.0.1", "127.0.0.53", "::1", "10.0.0.1"):
        assert egress.rules.refusal(ip_address(address), 80) is None
    assert egress.rules.refusal(ip_address("127.0.0.1"), 8443) == "own listener"
    assert egress.rules.refusal(ip_address("169.254.169.254"), 80) == "metadata"


def test_another_installation_validates_on_private_addresses_only() -> None:
    ways = home.ways(Config())
    assert not ways.egress.localhost
    assert (ways.http01_port, ways.tls_alpn01_port, ways.egress.resolvers) == (80, 443, (("127.0.0.1", 53),))
    for address, why in (
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("8.8.8.8", "not allowed"),
        ("10.0.0.1", None),
    ):
        assert ways.egress.rules.refusal(ip_address(address), 80) == why


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("postgresql+psycopg://u:p@10.0.0.9:5433/n", "10.0.0.9", 5433),
        ("postgresql+psycopg://u@10.0.0.9/n", "10.0.0.9", 5432),
        ("postgresql+psycopg://u@[fd00::9]/n", "fd00::9", 5432),
    ],
)
def test_the_database_is_not_called_by_anybodys_wish(url: str, address: str, port: int) -> None:
    config = Config(database=Database(url))
    assert home.ways(config).egress.rules.refusal(ip_address(address), port) == "own listener"
    assert home.ways(Config()).egress.rules.refusal(ip_address(address), port) is None


@pytest.mark.parametrize("url", ["sqlite:////var/rootward.db", "postgresql+psycopg://u@db.internal/n"])
def test_a_database_without_an_address(url: str) -> None:
    assert len(home.ways(Config(database=Database(url))).egress.rules.own) == 4
