"""`rootward acme snippet`: what is printed is the client's own language and says what the server says."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from rootward.cli.snippets import SNIPPETS
from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

DIRECTORY = "https://pki.internal:8443/acme/server/directory"
SHELL = {"certbot", "lego", "nginx", "apache", "acme.sh"}
YAML = {"traefik", "cert-manager"}


@pytest.fixture
def snippet(rootward: Rootward, fake: Fake) -> Any:
    """Prints one for a profile whose `acme` is given."""

    def ask(client: str, *words: str, acme: dict[str, Any] | None = None, base: str = DIRECTORY) -> Any:
        profile = {"name": "server", "authority": "issuing", "lifetime": {"default": "30d"}}
        asked = {"accounts": "open"} if acme is None else acme
        fake.bodies["profiles/server"] = {"name": "server", "profile": {**profile, "acme": asked}}
        fake.bodies["/acme/server/directory"] = {"newNonce": base.replace("directory", "new-nonce")}
        return rootward("acme", "snippet", "--client", client, "--profile", "server", *words)

    return ask


@pytest.mark.parametrize("client", SNIPPETS)
@pytest.mark.parametrize("accounts", ["open", "bound"])
def test_each_says_where_and_whom_to_trust(snippet: Any, client: str, accounts: str) -> None:
    done = snippet(client, "--name", "a.internal", "--name", "b.internal", acme={"accounts": accounts})
    assert done.code == 0, done
    assert DIRECTORY in done.out
    assert "a.internal" in done.out
    assert "b.internal" in done.out
    assert ("KID" in done.out) == ("HMAC_KEY" in done.out) == (accounts == "bound")
    if client != "cert-manager":
        assert str(Path("var/root.pem").absolute()) in done.out
    assert ("# Tested here." in done.out) == SNIPPETS[client].tested
    assert ("# Not tested here." in done.out) != SNIPPETS[client].tested


@pytest.mark.parametrize("client", sorted(SHELL))
@pytest.mark.parametrize("accounts", ["open", "bound"])
def test_a_shell_reads_it(snippet: Any, client: str, accounts: str) -> None:
    text = snippet(client, "--name", "a.internal", "--root", "/srv/our pki/root.pem", acme={"accounts": accounts}).out
    read = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("accounts", ["open", "bound"])
def test_lego_renews_where_a_binding_is_wanted(snippet: Any, accounts: str) -> None:
    text = snippet("lego", "--name", "a.internal", acme={"accounts": accounts}).out
    _, _, timer = text.partition("<<'END'")
    assert ("--eab " in timer) == (accounts == "bound")
    assert "KID" not in timer


def test_cert_manager_reads_what_it_is_given(snippet: Any, fake: Fake) -> None:
    text = snippet("cert-manager", "--name", "a.internal", "--name", "b.internal", acme={"accounts": "bound"}).out
    secret, issuer, certificate = yaml.safe_load_all(text)
    acme = issuer["spec"]["acme"]
    assert acme["server"] == DIRECTORY
    assert b64decode(acme["caBundle"]).decode() == fake.root.pem
    binding = acme["externalAccountBinding"]
    assert binding["keyID"] == "KID"
    assert binding["keySecretRef"] == {"name": secret["metadata"]["name"], "key": "hmac"}
    assert secret["stringData"] == {"hmac": "HMAC_KEY"}
    assert certificate["spec"]["dnsNames"] == ["a.internal", "b.internal"]
    assert certificate["spec"]["issuerRef"] == {"name": issuer["metadata"]["name"], "kind": issuer["kind"]}


def test_traefik_renews_at_a_third_of_the_life(snippet: Any) -> None:
    static, sites = yaml.safe_load_all(snippet("traefik", "--name", "a.internal", "--name", "b.internal").out)
    acme = static["certificatesResolvers"]["rootward"]["acme"]
    assert (acme["caServer"], acme["certificatesDuration"]) == (DIRECTORY, 720)
    assert acme["httpChallenge"]["entryPoint"] in static["entryPoints"]
    assert sites["http"]["routers"]["site"]["tls"] == {
        "certResolver": "rootward",
        "domains": [{"main": "a.internal", "sans": ["b.internal"]}],
    }


@pytest.mark.parametrize("client", sorted(YAML))
def test_a_place_for_the_name_where_none_was_given(snippet: Any, client: str) -> None:
    text = snippet(client).out
    assert "NAME" in text
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))


def test_programs_get_it_as_json(snippet: Any) -> None:
    told = json.loads(snippet("caddy", "--name", "a.internal", "--json").out)
    assert told["directory"] == DIRECTORY
    assert told["text"] == snippet("caddy", "--name", "a.internal").out


def test_where_the_root_will_be(snippet: Any) -> None:
    text = snippet("certbot", "--name", "a.internal", "--root", "/etc/ssl/our root.pem").out
    assert "export REQUESTS_CA_BUNDLE='/etc/ssl/our root.pem'" in text.split("\n")


@pytest.mark.parametrize(
    ("acme", "said"),
    [
        ({"accounts": "none"}, "takes no ACME accounts"),
        ({}, "takes no ACME accounts"),
        ({"accounts": "open", "challenges": ["dns-01"]}, "does not take http-01"),
    ],
)
def test_not_for_a_profile_that_would_refuse_it(snippet: Any, acme: dict[str, Any], said: str) -> None:
    done = snippet("certbot", "--name", "a.internal", acme=acme)
    assert (done.code, done.out) == (1, "")
    assert said in done.err


@pytest.mark.parametrize("name", ["*.a.internal", "10.0.0.1", "a.internal; reboot", "$(reboot)", "a b"])
def test_names_that_no_line_can_hold(snippet: Any, name: str) -> None:
    done = snippet("certbot", "--name", name)
    assert (done.code, done.out) == (1, "")
    assert name.split(maxsplit=1)[0] in done.err


@pytest.mark.parametrize("path", ['/srv/"root".pem', "/srv/$HOME/root.pem", "/srv/root`id`.pem", "/srv/a\nb.pem"])
def test_paths_that_no_file_can_hold(snippet: Any, path: str) -> None:
    done = snippet("apache", "--name", "a.internal", "--root", path)
    assert (done.code, done.out) == (2, "")
    assert "--root" in done.err


@pytest.mark.parametrize("base", ["http://pki.internal/acme/server/directory", "https://$(id)/acme/server/directory"])
def test_a_directory_that_is_none(snippet: Any, base: str) -> None:
    done = snippet("certbot", "--name", "a.internal", base=base)
    assert (done.code, done.out) == (1, "")
    assert "directory cannot be read" in done.err
