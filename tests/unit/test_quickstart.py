"""What `quickstart` and `serve` say of their addresses: those that are served, not those that the settings hope for."""

from __future__ import annotations

import pytest

from rootward.config import Config, Listen
from rootward.quickstart import _elsewhere, _served

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
