"""Idempotency keys on every write but issuing: carried out once, answered the same (issuing has its own tests)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rootward.store.failpoint import armed
from tests.support.rest import Api, csr, rest


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


@pytest.mark.invariant("I-15")
@pytest.mark.parametrize("where", ["once.claimed", "once.carried-out"])
def test_a_revocation_never_waits_for_a_process_that_died(door: Api, where: str) -> None:
    """It is the same when it is done twice; what is not has to wait."""
    made = door.call("POST", "/api/v1/certificates", {"profile": "server", "csr": csr("a.internal")}).json
    path = f"/certificates/{made['id']}/revoke"
    with armed(f"{where}:fail"):
        assert post(door, path, {"reason": "superseded"}, "k1").status >= 500
        assert post(door, "/principals", {"name": "ann"}, "k2").status >= 500
    for _ in range(2):
        again = post(door, path, {"reason": "superseded"}, "k1")
        assert (again.status, again.json["status"]) == (200, "revoked")
    assert post(door, path, {"reason": "unspecified"}, "k1").code == "RW-IDEMPOTENCY"
    assert post(door, "/principals", {"name": "ann"}, "k2").code == "RW-IN-PROGRESS"
