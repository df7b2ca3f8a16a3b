"""ACME accounts at the door (RFC 8555 7.3), on each kind of store."""

from __future__ import annotations

import pytest

from tests.support.acme import Client, Wire, new_key
from tests.support.world import World


@pytest.fixture
def wire(lab: World) -> Wire:
    return Wire.of(lab.inst)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519", "RSA-2048"])
async def test_a_new_account(lab: World, wire: Wire, kind: str) -> None:
    client = Client(wire, key=new_key(kind))
    made = await client.register()
    assert made.status == 201, made.body
    assert made.headers["location"].startswith("https://localhost:8443/acme/account/")
    assert made.headers["replay-nonce"]
    assert made.links["index"] == ["https://localhost:8443/acme/directory"]
    assert made.json["status"] == "valid"
    again = await client.register(onlyReturnExisting=True)
    assert (again.status, again.headers["location"]) == (200, made.headers["location"])
    seen = await client.post(made.headers["location"])
    assert (seen.status, seen.json) == (200, made.json)
    assert (await lab.counts())["acme.account-created"] == 1


async def test_the_directory(wire: Wire) -> None:
    client = Client(wire)
    common = await client.get("directory")
    assert common.json["meta"]["externalAccountRequired"] is False
    assert common.json["newAccount"] == "https://localhost:8443/acme/new-account"
    assert set(common.json["meta"]["profiles"]) >= {"server", "client"}
    assert (await client.get("/acme/server/directory")).json[
        "newNonce"
    ] == "https://localhost:8443/acme/server/new-nonce"
    assert (await client.get("/acme/device/directory")).problem == "malformed"
