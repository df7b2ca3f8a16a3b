"""Revocation reasons by name and by number."""

from __future__ import annotations

import pytest
from cryptography import x509

from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason, parse_reason, reason_of


@pytest.mark.invariant("I-24")
def test_the_numbers_are_those_of_the_rfc() -> None:
    """RFC 5280 5.3.1, typed in again."""
    assert {reason.value: reason.number for reason in RevocationReason} == {
        "unspecified": 0,
        "keyCompromise": 1,
        "cACompromise": 2,
        "affiliationChanged": 3,
        "superseded": 4,
        "cessationOfOperation": 5,
        "certificateHold": 6,
        "removeFromCRL": 8,
        "privilegeWithdrawn": 9,
        "aACompromise": 10,
    }


def test_other_people_use_the_same_names() -> None:
    assert {reason.value for reason in RevocationReason} == {flag.value for flag in x509.ReasonFlags}


@pytest.mark.invariant("I-24")
@pytest.mark.parametrize("number", [7, 11, -1, 255])
def test_a_number_that_was_never_given_out_is_no_reason(number: int) -> None:
    assert reason_of(number) is None


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_a_reason_is_found_by_its_number(reason: RevocationReason) -> None:
    assert reason_of(reason.number) is reason


@pytest.mark.parametrize("reason", [reason for reason in RevocationReason if reason.number != 8])
def test_a_reason_is_read_by_its_name(reason: RevocationReason) -> None:
    assert parse_reason(reason.value) is reason


@pytest.mark.parametrize(
    "text", ["removeFromCRL", "", "KeyCompromise", "keycompromise", "1", "key-compromise", " superseded"]
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_reason(text, field="reason")
    assert refused.value.code == "RW-FIELD"
    assert refused.value.reasons[0].field == "reason"


def test_the_refusal_names_what_can_be_used_and_does_not_echo() -> None:
    with pytest.raises(Problem) as refused:
        parse_reason("<b>\x1b[31m")
    assert "keyCompromise" in refused.value.detail
    assert "removeFromCRL" not in refused.value.detail
    assert "<" not in refused.value.detail
    assert "\x1b" not in refused.value.detail
