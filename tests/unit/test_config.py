"""The settings: where they come from, what is allowed, what is said when one is wrong, and that the reference tells the
truth.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootward.config import (
    _RANGES,
    ENVIRONMENT,
    FILE_NAME,
    Config,
    address,
    home_of,
    load_config,
    secret_path,
    settings,
    write_config,
)
from rootward.core.problems import Problem

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def problems(
    home: Path, text: str = "", environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None
) -> list[str]:
    (home / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(Problem) as caught:
        load_config(home, environ or {}, flags or {})
    assert caught.value.code == "RW-CONFIG"
    return [reason.detail for reason in caught.value.reasons]


def load(home: Path, text: str, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None) -> Config:
    (home / FILE_NAME).write_text(text, encoding="utf-8")
    return load_config(home, environ or {}, flags or {})


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    config = load_config(tmp_path, {}, {})
    assert config.external_url == "https://localhost:8443"
    assert config.mtls_url == "https://localhost:8444"
    assert config.pki_url == "http://localhost:8080"
    assert config.database.url == f"sqlite:///{tmp_path}/rootward.db"
    assert (config.home, config.lab, config.kek.source) == (tmp_path, False, "file:kek")
    assert load(tmp_path, "") == config


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    text = '[listen]\nhttps = "127.0.0.1:1001"\nmtls = "127.0.0.1:1002"\nhttp = "127.0.0.1:1003"\n'
    environ = {"ROOTWARD_HTTPS": "127.0.0.1:2001", "ROOTWARD_MTLS": "127.0.0.1:2002", "ROOTWARD_HTTP": ""}
    listen = load(tmp_path, text, environ, {"listen.https": "127.0.0.1:3001", "listen.mtls": None}).listen
    assert (listen.https, listen.mtls, listen.http) == ("127.0.0.1:3001", "127.0.0.1:2002", "127.0.0.1:1003")


def test_the_environment_names_the_database(tmp_path: Path) -> None:
    url = "postgresql+psycopg://rootward@db.internal/rootward"
    assert load(tmp_path, "", {"ROOTWARD_DATABASE": url}).database.url == url


def test_urls_follow_from_hosts_and_ports(tmp_path: Path) -> None:
    config = load(tmp_path, 'hosts = ["pki.internal"]\n[listen]\nhttps = "0.0.0.0:443"\nhttp = "0.0.0.0:80"')
    assert (config.external_url, config.pki_url) == ("https://pki.internal", "http://pki.internal")
    assert load(tmp_path, 'hosts = ["::1"]').external_url == "https://[::1]:8443"


@pytest.mark.parametrize(
    ("line", "key", "allowed"),
    [
        ("nothing = 1", "nothing", "The settings are:"),
        ("[listen]\nftp = 1", "listen.ftp", "The settings are:"),
        ("[acme]\nport = 80", "acme.port", "The settings are:"),
        ('home = "/x"', "home", "The settings are:"),
        ("listen = 1", "listen", "The settings are:"),
        ('[log]\nformat = "xml"', "log.format", "console or json"),
        ('[log]\nlevel = "loud"', "log.level", "debug or info or warning or error"),
        ('lab = "yes"', "lab", "true or false"),
        ("lab = 1", "lab", "true or false"),
        ("org = 1", "org", "a string"),
        ('org = " x"', "org", "1 to 64 printable characters"),
        (f'org = "{"x" * 65}"', "org", "1 to 64 printable characters"),
        ("hosts = []", "hosts", "a list of 1 to 20"),
        ('hosts = "a"', "hosts", "a list of 1 to 20"),
        ('hosts = ["A"]', "hosts", "a list of 1 to 20"),
        ('hosts = ["*.a"]', "hosts", "a list of 1 to 20"),
        ('hosts = ["a b"]', "hosts", "a list of 1 to 20"),
        ('[listen]\nhttps = "localhost:1"', "listen.https", "an address and a port"),
        ('[listen]\nhttps = "127.0.0.1"', "listen.https", "an address and a port"),
        ('[listen]\nhttps = "127.0.0.1:0"', "listen.https", "an address and a port"),
        ('[listen]\nhttps = "127.0.0.1:65536"', "listen.https", "an address and a port"),
        ('[listen]\nhttps = "127.0.0.1:٨٤"', "listen.https", "an address and a port"),
        ('external_url = "http://a"', "external_url", "a URL"),
        ('external_url = "https://a/"', "external_url", "a URL"),
        ('external_url = "https://a?b"', "external_url", "a URL"),
        ('external_url = "https://u:p@a"', "external_url", "a URL"),
        ('external_url = "https://a:99999"', "external_url", "a URL"),
        ('pki_url = "ftp://a"', "pki_url", "a URL"),
        ('[database]\nurl = "mysql://x"', "database.url", "sqlite:////ABSOLUTE/PATH"),
        ('[database]\nurl = "sqlite:///relative"', "database.url", "sqlite:////ABSOLUTE/PATH"),
        ('[kek]\nsource = "kek"', "kek.source", "file:PATH"),
        ('[kek]\nsource = "env:KEK"', "kek.source", "file:PATH"),
        ('[kek]\nsource = "credential:../kek"', "kek.source", "file:PATH"),
        ('[metrics]\nscrape_token = "abc"', "metrics.scrape_token", "file:PATH"),
        ("[acme]\nhttp01_port = 0", "acme.http01_port", "a whole number from 1 to 65535"),
        ('[acme]\nresolvers = "127.0.0.1:53"', "acme.resolvers", "a list of 0 to 5 addresses with ports"),
        ('[acme]\nresolvers = ["127.0.0.1"]', "acme.resolvers", "a list of 0 to 5 addresses with ports"),
        ('[acme]\nresolvers = ["dns.internal:53"]', "acme.resolvers", "a list of 0 to 5 addresses with ports"),
        ("[acme]\nresolvers = [53]", "acme.resolvers", "a list of 0 to 5 addresses with ports"),
        ('[acme]\nchaos = "yes"', "acme.chaos", "true or false"),
        ('[acme]\nterms = "our terms"', "acme.terms", "a URL"),
        ('[acme]\nterms = "file:///etc/passwd"', "acme.terms", "a URL"),
        ('[egress]\nallow = ["10.0.0.1/8"]', "egress.allow", "a list of 0 to 200 networks"),
        ('[egress]\nallow = ["10.0.0.0/33"]', "egress.allow", "a list of 0 to 200 networks"),
        ('[egress]\nallow = ["a.internal"]', "egress.allow", "a list of 0 to 200 networks"),
        ("[egress]\nallow = [10]", "egress.allow", "a list of 0 to 200 networks"),
        ('[egress]\nsuffixes = [".internal"]', "egress.suffixes", "a list of 0 to 200 domains"),
        ('[egress]\nsuffixes = ["10.0.0.1"]', "egress.suffixes", "a list of 0 to 200 domains"),
        ("[limits]\nbody_bytes = 1", "limits.body_bytes", "a whole number from 65536 to"),
        ("[limits]\nbody_bytes = 1e6", "limits.body_bytes", "a whole number from"),
        ("[limits]\nbody_bytes = true", "limits.body_bytes", "a whole number from"),
    ],
)
def test_an_error_names_the_file_the_setting_and_what_is_allowed(
    tmp_path: Path, line: str, key: str, allowed: str
) -> None:
    (found,) = problems(tmp_path, line)
    assert found.startswith(f"{tmp_path / FILE_NAME}: ")
    assert key in found
    assert allowed in found


def test_all_errors_are_told_at_once_with_where_they_come_from(tmp_path: Path) -> None:
    found = problems(tmp_path, "lab = 1\nx = 2", {"ROOTWARD_HTTP": "nowhere"}, {"org": ""})
    assert len(found) == 4
    assert any(text.startswith("ROOTWARD_HTTP: listen.http must be") for text in found)
    assert any(text.startswith("the option for org: org must be") for text in found)


def test_what_is_not_toml_is_said_with_its_line(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "lab = = 1")
    assert str(tmp_path / FILE_NAME) in found
    assert "line 1" in found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"org = \xff")
    with pytest.raises(Problem, match="cannot be read"):
        load_config(tmp_path, {}, {})


def test_two_listeners_on_one_address(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, '[listen]\nhttps = "127.0.0.1:8080"')
    assert "three different addresses" in found


def test_a_written_file_reads_back_as_it_was(tmp_path: Path) -> None:
    flags = {
        "org": 'Mära "&" Söhne',
        "lab": True,
        "hosts": ["pki.internal", "10.0.0.1"],
        "acme.resolvers": ["10.0.0.53:53", "[fd00::53]:53"],
        "acme.terms": "https://pki.internal/terms?v=1",
        "egress.allow": [],
        "egress.suffixes": ["internal"],
        "listen.https": "[::1]:9443",
        "limits.body_bytes": 200_000,
        "log.format": "json",
        "metrics.scrape_token": "credential:scrape",
    }
    config = load_config(tmp_path, {}, flags)
    write_config(tmp_path / FILE_NAME, config)
    assert load_config(tmp_path, {}, {}) == config
    with pytest.raises(FileExistsError):
        write_config(tmp_path / FILE_NAME, config)


def test_a_written_file_shows_every_setting(tmp_path: Path) -> None:
    write_config(tmp_path / FILE_NAME, load_config(tmp_path, {}, {}))
    text = (tmp_path / FILE_NAME).read_text(encoding="utf-8")
    everything = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    shown = {f"{a}.{b}" for a, inner in everything.items() if isinstance(inner, dict) for b in inner}
    shown |= {name for name, value in everything.items() if not isinstance(value, dict)}
    assert shown == {key for key, _ in settings()}


def test_the_reference_is_complete_and_has_the_defaults_and_ranges() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9_.]+)` \| `(.*?)` \|(.*)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    documented = {key: (tomllib.loads(f"x = {default}")["x"], rest) for key, default, rest in rows}
    real = {key: list(value) if isinstance(value, tuple) else value for key, value in settings()}
    assert {key: default for key, (default, _) in documented.items()} == real
    assert len(rows) == len(documented)
    for key, (low, high) in _RANGES.items():
        assert documented[key][1].startswith(f" {low} | {high} |"), key
    for name, key in ENVIRONMENT.items():
        assert f"`{name}`" in documented[key][1]


def test_every_number_has_a_range_that_holds_its_default() -> None:
    numbers = {key: value for key, value in settings() if type(value) is int}
    assert numbers.keys() == _RANGES.keys()
    assert all(low <= numbers[key] <= high for key, (low, high) in _RANGES.items())


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().lab = True  # type: ignore[misc]  # what is tested
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"more": 1}, Config)


def test_the_home(tmp_path: Path) -> None:
    assert home_of(str(tmp_path), {"ROOTWARD_HOME": "/else"}) == tmp_path
    assert home_of(None, {"ROOTWARD_HOME": "/else"}) == Path("/else")
    assert home_of(None, {}) == Path.cwd() / "var"


@pytest.mark.parametrize(("text", "found"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:443", ("::1", 443))])
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


def test_where_secrets_are(tmp_path: Path) -> None:
    assert secret_path("file:kek", tmp_path, {}) == tmp_path / "kek"
    assert secret_path("file:/etc/kek", tmp_path, {}) == Path("/etc/kek")
    assert secret_path("credential:kek", tmp_path, {"CREDENTIALS_DIRECTORY": "/run/c"}) == Path("/run/c/kek")
    with pytest.raises(Problem, match="CREDENTIALS_DIRECTORY"):
        secret_path("credential:kek", tmp_path, {})
