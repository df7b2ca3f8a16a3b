"""Every code through every door's table, and what a refusal may and may not say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rootward.core.problems import CODES, Kind, Problem, Reason
from rootward.protocols.problems import MEDIA_TYPE, STATUS, internal, render

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "problems.md"


@pytest.mark.parametrize("door", list(STATUS))
@pytest.mark.parametrize("code", list(CODES))
def test_every_code_goes_through_every_door(door: str, code: str) -> None:
    status, headers, body = render(Problem(code, "why", field="f"), "req-1", table=STATUS[door])
    found, named = json.loads(body), dict(headers)
    assert 400 <= status < 600
    assert found["status"] == status == STATUS[door][CODES[code].kind]
    assert (found["code"], found["title"], found["request_id"]) == (code, CODES[code].title, "req-1")
    assert found["type"] == f"/api/docs#{code}"
    assert named[b"content-type"].decode() == MEDIA_TYPE
    assert named[b"cache-control"] == b"no-store"
    assert (b"www-authenticate" in named) == (status == 401)
    assert (b"retry-after" in named) == (status == 503)
    assert ("why" in body.decode()) == (CODES[code].kind is not Kind.INTERNAL)


@pytest.mark.parametrize("door", list(STATUS))
def test_a_door_knows_every_kind(door: str) -> None:
    assert set(STATUS[door]) == set(Kind)


def test_the_statuses_are_the_contract_s() -> None:
    wanted = {
        "RW-MALFORMED": 400,
        "RW-NAME": 400,
        "RW-UNAUTHENTICATED": 401,
        "RW-FORBIDDEN": 403,
        "RW-NOT-FOUND": 404,
        "RW-METHOD": 405,
        "RW-CONFLICT": 409,
        "RW-TOO-LARGE": 413,
        "RW-MEDIA-TYPE": 415,
        "RW-FIELD": 422,
        "RW-RATE": 429,
        "RW-INTERNAL": 500,
        "RW-STORE": 503,
    }
    assert {code: STATUS["rest"][CODES[code].kind] for code in wanted} == wanted


def test_all_reasons_are_told_in_their_order() -> None:
    problem = Problem.of([Reason("RW-NAME", "one", "names[0]"), Reason("RW-KEY-WEAK", "two", "csr")])
    found = json.loads(render(problem, "r")[2])
    assert found["reasons"] == [
        {"code": "RW-NAME", "field": "names[0]", "detail": "one"},
        {"code": "RW-KEY-WEAK", "field": "csr", "detail": "two"},
    ]
    assert (found["code"], found["detail"]) == ("RW-NAME", "one two")


def test_retry_after_is_the_problem_s_own() -> None:
    assert dict(render(Problem("RW-STORE", "x", retry_after=7), "r")[1])[b"retry-after"] == b"7"
    assert dict(render(Problem("RW-RATE", "x", retry_after=7), "r")[1])[b"retry-after"] == b"7"


def test_an_unknown_exception_is_logged_and_not_told() -> None:
    unexpected = KeyError("the secret")
    with capture_logs() as logged:
        body = render(internal(unexpected, "req-9"), "req-9")[2]
    assert b"secret" not in body
    assert [(line["request_id"], line["exc_info"]) for line in logged] == [("req-9", unexpected)]


def test_the_reference_has_every_code_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(RW-[A-Z-]+)` \| ([0-9]{3}) \|", REFERENCE.read_text(), re.MULTILINE))
    assert rows == {code: str(STATUS["rest"][entry.kind]) for code, entry in CODES.items()}
    titles = dict(re.findall(r"^\| `(RW-[A-Z-]+)` \| [0-9]{3} \| (.*) \|$", REFERENCE.read_text(), re.MULTILINE))
    assert titles == {code: entry.title for code, entry in CODES.items()}
