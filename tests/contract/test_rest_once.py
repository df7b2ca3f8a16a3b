"""Idempotency keys on every write but issuing: carried out once, answered the same (issuing has its own tests)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rest import Api, rest


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with rest(f"sqlite:///{tmp_path_factory.mktemp('once')}/t.db") as made:
        yield made


def post(door: Api, path: str, body: object, key: str):  # type: ignore[no-untyped-def]  # a Reply
    return door.call("POST", "/api/v1" + path, body, headers={"idempotency-key": key})


def test_the_same_write_is_answered_the_same_and_done_once(door: Api) -> None:
    first = post(door, "/principals", {"name": "ann"}, "k1")
    again = post(door, "/principals", {"name": "ann"}, "k1")
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    grant = {"principal": first.json["id"], "role": "requester"}
    assert post(door, "/grants", grant, "k2").json == post(door, "/grants", grant, "k2").json
    assert len(door.call("GET", "/api/v1/grants").json["items"]) == 7


def test_a_token_is_told_once(door: Api) -> None:
    body = {"label": "ci", "lifetime": "1d"}
    first, again = post(door, "/tokens", body, "k"), post(door, "/tokens", body, "k")
    assert first.json["token"].startswith("rwt_")
    assert again.json == {**first.json, "token": None}


def test_another_request_with_the_key_is_refused(door: Api) -> None:
    post(door, "/principals", {"name": "ann"}, "k")
    assert post(door, "/principals", {"name": "bob"}, "k").code == "RW-IDEMPOTENCY"
    assert post(door, "/tokens", {"label": "x", "lifetime": "1d"}, "k").code == "RW-IDEMPOTENCY"


def test_a_refused_write_frees_its_key(door: Api) -> None:
    assert post(door, "/principals", {"name": ""}, "k").status >= 400
    assert post(door, "/principals", {"name": "ann"}, "k").status == 201
