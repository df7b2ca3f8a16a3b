"""How the ACME door says no: every code of ours, and what an answer may and may not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rootward.core.jwk import Fault, JoseError
from rootward.core.problems import CODES, Kind, Problem, Reason, shown
from rootward.protocols.acme.problems import TYPES, URN, AcmeError, Subproblem, document_of, of_jose, render
from tests.docs.markdown import codes, read, rows

REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "acme.md"


def told(error: AcmeError | Problem) -> tuple[int, dict[str, str], dict[str, object]]:
    status, headers, body = render(error, "req-1")
    return status, {name.decode(): value.decode() for name, value in headers}, json.loads(body)


@pytest.mark.parametrize("code", list(CODES))
def test_every_code(code: str) -> None:
    status, headers, body = told(Problem(code, "why"))
    assert headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"], body["request_id"]) == (status, code, "req-1")
    assert str(body["type"]).removeprefix(URN) in TYPES
    assert 400 <= status < 600
    assert (status == 500) == (CODES[code].kind is Kind.INTERNAL)
    assert ("retry-after" in headers) == (status == 503)
    assert ("why" in str(body["detail"])) == (status != 500)


@pytest.mark.parametrize(
    ("code", "type", "status"),
    [
        ("RW-CSR-SIGNATURE", "badCSR", 400),
        ("RW-CSR-SIZE", "badCSR", 400),
        ("RW-KEY-WEAK", "badCSR", 400),
        ("RW-KEY-IN-USE", "badCSR", 400),
        ("RW-KEY-UNAVAILABLE", "serverInternal", 503),
        ("RW-NAME-PERMITTED", "rejectedIdentifier", 400),
        ("RW-TOO-MANY", "rejectedIdentifier", 400),
        ("RW-VALIDITY", "malformed", 400),
        ("RW-FORBIDDEN", "unauthorized", 403),
        ("RW-RATE", "rateLimited", 429),
        ("RW-STORE", "serverInternal", 503),
        ("RW-FROZEN", "serverInternal", 503),
        ("RW-ALREADY-REVOKED", "alreadyRevoked", 400),
        ("RW-PROFILE", "invalidProfile", 400),
    ],
)
def test_what_a_code_is_in_acme_s_words(code: str, type: str, status: int) -> None:
    found, _, body = told(Problem(code, "why"))
    assert (str(body["type"]).removeprefix(URN), found) == (type, status)


def test_names_become_subproblems() -> None:
    """RFC 8555 6.7.1."""
    reasons = [
        Reason("RW-NAME-PERMITTED", f"{shown('dns:a.test')} is outside.", "names"),
        Reason("RW-NAME-CONSTRAINED", f"{shown('ip:192.0.2.1')} is outside.", "names"),
        Reason("RW-VALIDITY", "Too long."),
        Reason("RW-NAME", f"{shown('dns:' + chr(27) + '.test')} is no name.", "names"),
    ]
    _, _, body = told(Problem.of(reasons))
    assert body["subproblems"] == [
        {
            "type": URN + "rejectedIdentifier",
            "detail": '"dns:a.test" is outside.',
            "identifier": {"type": "dns", "value": "a.test"},
            "code": "RW-NAME-PERMITTED",
        },
        {
            "type": URN + "rejectedIdentifier",
            "detail": '"ip:192.0.2.1" is outside.',
            "identifier": {"type": "ip", "value": "192.0.2.1"},
            "code": "RW-NAME-CONSTRAINED",
        },
    ]


def test_what_only_acme_says() -> None:
    error = AcmeError("compound", "two", subproblems=(Subproblem("caa", "one"), Subproblem("dns", "other")))
    _, _, body = told(error)
    assert body["subproblems"] == [{"type": URN + "caa", "detail": "one"}, {"type": URN + "dns", "detail": "other"}]
    assert "code" not in body
    limited = AcmeError("rateLimited", "slowly", headers=((b"retry-after", b"7"),))
    assert told(limited)[:2] == (429, {"content-type": "application/problem+json", "retry-after": "7"})
    assert document_of(AcmeError("malformed", "gone", 404)).status == 404
    with pytest.raises(KeyError):
        AcmeError("noSuchType", "why")


@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_of_a_signed_object(fault: Fault) -> None:
    _, _, body = told(of_jose(JoseError(fault, "why"), ("ES256",)))
    assert body["type"] == URN + fault
    assert body.get("algorithms") == (["ES256"] if fault is Fault.ALGORITHM else None)


def test_the_reference_has_every_type() -> None:
    found = {codes(cells[0])[0]: cells[1].strip() for cells in rows(read(REFERENCE), "type")}
    assert found == {type: str(status) for type, status in TYPES.items()}
