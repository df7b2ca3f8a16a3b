"""docs/keys: the guides of the cloud key services. Their commands and tables run as they stand, against the doubles,
and their permissions are exactly what the product asks for.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rootward import keys
from rootward.cli.app import run
from rootward.keys import sign_tbs
from tests.docs.console import commands
from tests.docs.markdown import ROOT, blocks, read
from tests.support.clouds import CLOUDS, Cloud

FOLDER = ROOT / "docs" / "keys"
AWS = {name: f"kms:{name}" for name in "CreateKey CreateAlias DescribeKey GetPublicKey Sign ListAliases".split()}
AWS |= {name: f"kms:{name}" for name in "ScheduleKeyDeletion DeleteAlias".split()}
GCP = {
    "ListCryptoKeys": "cloudkms.cryptoKeys.list",
    "GetCryptoKeyVersion": "cloudkms.cryptoKeyVersions.get",
    "GetPublicKey": "cloudkms.cryptoKeyVersions.viewPublicKey",
    "AsymmetricSign": "cloudkms.cryptoKeyVersions.useToSign",
    "CreateCryptoKey": "cloudkms.cryptoKeys.create",
    "DestroyCryptoKeyVersion": "cloudkms.cryptoKeyVersions.destroy",
}
AZURE = {
    **dict.fromkeys(("list", "versions", "get"), "Microsoft.KeyVault/vaults/keys/read"),
    "sign": "Microsoft.KeyVault/vaults/keys/sign/action",
    "create": "Microsoft.KeyVault/vaults/keys/create/action",
    "delete": "Microsoft.KeyVault/vaults/keys/delete",
}
# What each call needs, by the vendors' permission references.
NEEDS = {"aws-kms": AWS, "gcp-kms": GCP, "azure-kv": AZURE}
# Tags at the making of a key are no call of their own.
WITH_IT = {"CreateKey": {"kms:TagResource"}}
LIBRARIES = {
    "aws-kms": ["boto3"],
    "gcp-kms": ["google-cloud-kms"],
    "azure-kv": ["azure-keyvault-keys", "azure-identity"],
}


@pytest.fixture(params=CLOUDS)
def kind(request: pytest.FixtureRequest) -> Cloud:
    return CLOUDS[request.param]


@pytest.fixture
def service(kind: Cloud, tmp_path: Path) -> Iterator[tuple[Any, keys.KeySettings]]:
    with kind.opening(tmp_path) as opened:
        yield opened


def page(kind: Cloud) -> str:
    return read(FOLDER / f"{kind.name}.md")


def permitted(kind: Cloud) -> list[set[str]]:
    """The permissions of the guide: for running, making, deleting."""
    text = page(kind)
    if kind.name == "gcp-kms":
        return [set(yaml.safe_load(block.text)["includedPermissions"]) for block in blocks(text, "yaml")]
    documents = [json.loads(block.text) for block in blocks(text, "json")]
    if kind.name == "azure-kv":
        return [set(one["DataActions"]) for one in documents]
    return [{action for part in one["Statement"] for action in part["Action"]} for one in documents]


def needed(kind: Cloud, calls: list[str]) -> set[str]:
    """The permissions that these calls take."""
    found = {NEEDS[kind.name][call] for call in calls if call != "challenge"}
    return found.union(*(WITH_IT.get(call, set()) for call in calls))


def test_the_guide_makes_an_authority_and_names_what_it_needs(
    kind: Cloud, service: tuple[Any, keys.KeySettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, settings = service
    running, making, deleting = permitted(kind)
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOTWARD_HOME", str(home))
    assert run(["init"]) == 0
    (table,) = blocks(page(kind), "toml")
    more = f'endpoint = "{settings.endpoint}"\n' if settings.endpoint else ""
    uri = settings.uri.partition("?")[0]
    assert f'uri = "{uri}"' in table.text
    config = home / "rootward.toml"
    config.write_text(f"{config.read_text()}\n{table.text}\n{more}")
    for block in blocks(page(kind), "console"):
        for command in commands(block.text):
            words = command.split()
            assert words[0] == "rootward"
            assert run(words[1:]) == 0
    assert json.loads((tmp_path / "issuing-request.json").read_text())
    made = fake.script.asked.copy()

    # A server that starts, and signs; then the authority is given up.
    fake.script.asked.clear()
    backend = keys.BACKENDS[kind.name](settings)
    ((label, public_id),) = backend.list()
    assert label == "issuing"
    fake.script.asked.clear()
    sign_tbs(backend.load(label, public_id), b"to be signed")
    assert needed(kind, fake.script.asked) == running
    assert needed(kind, made) - running == making
    fake.script.asked.clear()
    backend.delete(label, public_id)
    assert needed(kind, fake.script.asked) - running == deleting


def test_the_versions_are_the_ones_that_run_here(kind: Cloud) -> None:
    for library in LIBRARIES[kind.name]:
        (named,) = re.findall(rf"\b{library} ([0-9]+\.[0-9]+)", page(kind))
        assert importlib.metadata.version(library).startswith(f"{named}.")


def test_each_guide_says_what_it_was_never_run_against(kind: Cloud) -> None:
    assert "It was never run against" in page(kind)


def test_each_guide_lists_the_kinds_of_keys(kind: Cloud, service: tuple[Any, keys.KeySettings]) -> None:
    (line,) = re.findall(r"^- Keys: ((?:.+\n)+?)(?=- )", page(kind), re.MULTILINE)
    backend = keys.BACKENDS[kind.name](service[1])
    words = {"p256": "P-256", "p384": "P-384", "p521": "P-521", "ed25519": "Ed25519", "ml-dsa-44": "ML-DSA"}
    for algorithm, word in words.items():
        has = algorithm in {str(one) for one in backend.algorithms}
        named = word in line and f"no {word}" not in line
        assert has == named, (algorithm, line)
