"""`rootward acme eab` and `rootward acme account`: what is sent, and what is shown of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

KID = "A" * 22
BINDING: dict[str, Any] = {
    "kid": KID,
    "status": "open",
    "owner": "shop",
    "profile": None,
    "names": [".shop.internal"],
    "preauthorized": [],
    "uses": 2,
    "used": 1,
    "expires_at": "2027-01-01T00:00:00Z",
}
ACCOUNT: dict[str, Any] = {
    "id": KID,
    "status": "valid",
    "owner": "shop",
    "profile": "server",
    "contacts": ["mailto:a@b.test", "mailto:c@d.test"],
    "created_at": "2026-01-01T00:00:00Z",
}


def test_a_binding_is_made_and_its_key_told_once(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["eab"] = BINDING | {"hmac_key": "c2VjcmV0"}
    result = rootward(
        *("acme", "eab", "create", "--profile", "server", "--owner", "shop", "--name", ".shop.internal"),
        *("--preauthorize", "10.0.0.0/8", "--preauthorize", "a.internal", "--uses", "2", "--expires", "7d"),
    )
    assert result.code == 0, result.err
    assert result.out == f"kid       {KID}\nhmac key  c2VjcmV0\n"
    assert "shop" in result.err
    assert fake.seen[0] == (
        "POST",
        "/api/v1/eab",
        {
            "owner": "shop",
            "profile": "server",
            "names": [".shop.internal"],
            "preauthorized": ["10.0.0.0/8", "a.internal"],
            "uses": 2,
            "expires": "7d",
        },
    )


def test_what_a_binding_is_if_nothing_is_said(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["eab"] = BINDING | {"hmac_key": "c2VjcmV0"}
    result = rootward("acme", "eab", "create", "--owner", "shop", "--json")
    assert json.loads(result.out) == fake.bodies["eab"]
    assert fake.seen[0][2] == {"owner": "shop", "names": [], "preauthorized": [], "uses": 1, "expires": "30d"}


@pytest.mark.parametrize("arguments", [[], ["--owner", "a", "--uses", "0"], ["--owner", "a", "--uses", "many"]])
def test_a_wrong_call_is_not_sent(rootward: Rootward, fake: Fake, arguments: list[str]) -> None:
    assert rootward("acme", "eab", "create", *arguments).code == 2
    assert fake.seen == []


def test_the_lists(rootward: Rootward, fake: Fake) -> None:
    fake.lists["eab"], fake.lists["acme-accounts"] = [BINDING], [ACCOUNT]
    lines = rootward("acme", "eab", "list", "--status", "open").out.splitlines()
    assert lines[1].split() == [KID, "open", "shop", "every", "1", "of", "2", *lines[1].split()[7:]]
    assert fake.seen[0][1].startswith("/api/v1/eab?status=open")
    lines = rootward("acme", "account", "list", "--owner", "shop").out.splitlines()
    assert "a@b.test, c@d.test" in lines[1]
    assert fake.seen[1][1].startswith("/api/v1/acme-accounts?owner=shop")
    assert json.loads(rootward("acme", "account", "list", "--json").out)["items"] == [ACCOUNT]
    fake.lists["eab"] = []
    assert rootward("acme", "eab", "list").out == "There is none.\n"


@pytest.mark.parametrize(
    ("verb", "path", "says"),
    [
        (["eab", "revoke"], f"eab/{KID}/revoke", "makes no more accounts"),
        (["account", "deactivate"], f"acme-accounts/{KID}/deactivate", "is ended"),
    ],
)
def test_what_ends(rootward: Rootward, fake: Fake, verb: list[str], path: str, says: str) -> None:
    fake.bodies[path] = ACCOUNT
    assert rootward("acme", *verb, KID).out == f"{KID} {says}.\n"
    assert fake.seen[0] == ("POST", f"/api/v1/{path}", {})
    assert json.loads(rootward("acme", *verb, KID, "--json").out) == ACCOUNT
    assert rootward("acme", *verb, "../tokens").code == 1
    assert "..%2Ftokens" in fake.seen[2][1]


@pytest.mark.parametrize(("noun", "path"), [("eab", "eab"), ("account", "acme-accounts")])
def test_one(rootward: Rootward, fake: Fake, noun: str, path: str) -> None:
    fake.bodies[f"{path}/{KID}"] = BINDING
    shown = rootward("acme", noun, "show", KID).out
    assert ".shop.internal" in shown
    assert json.loads(rootward("acme", noun, "show", KID, "--json").out) == BINDING
    assert rootward("acme", noun, "show", "B" * 22).code == 1


def test_an_account_can_be_given_a_role(rootward: Rootward, fake: Fake) -> None:
    fake.lists["principals"] = []
    fake.bodies["grants"] = {"id": "g1"}
    assert rootward("access", "grant", "create", "--principal", KID, "--role", "requester").code == 0
    assert fake.seen[1][2] == {"principal": KID, "role": "requester"}
    assert rootward("access", "grant", "create", "--principal", "nobody", "--role", "requester").code == 1
