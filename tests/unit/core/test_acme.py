"""ACME's states against RFC 8555 7.1.6, diagram by diagram, and the identifiers of an order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from rootward.core.acme import (
    AuthorizationFacts,
    OrderFacts,
    UnsupportedIdentifier,
    account_status,
    authorization_status,
    challenge_status,
    check_pattern,
    covers,
    distinct,
    identifier,
    order_status,
    read_identifier,
)
from rootward.core.problems import Problem

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER, BEFORE = NOW + timedelta(hours=1), NOW - timedelta(hours=1)

# The diagrams, as (what happened, the state that follows). Of an authorization:
AUTHORIZATIONS = [
    (AuthorizationFacts(LATER), "pending"),
    (AuthorizationFacts(LATER, "http-01"), "pending"),
    (AuthorizationFacts(LATER, "http-01", validated_at=BEFORE), "valid"),
    (AuthorizationFacts(LATER, "http-01", failed_at=BEFORE), "invalid"),
    (AuthorizationFacts(LATER, deactivated_at=BEFORE), "deactivated"),  # pending -> deactivated
    (AuthorizationFacts(LATER, "http-01", validated_at=BEFORE, deactivated_at=BEFORE), "deactivated"),
    (AuthorizationFacts(BEFORE, "http-01", validated_at=BEFORE), "expired"),  # valid -> expired
    (AuthorizationFacts(NOW, "http-01", validated_at=BEFORE), "expired"),  # its last moment is over
    (AuthorizationFacts(BEFORE), "expired"),
    (AuthorizationFacts(BEFORE, "http-01", failed_at=BEFORE), "invalid"),  # an end stays an end
    (AuthorizationFacts(BEFORE, deactivated_at=BEFORE), "deactivated"),
]
# Of a challenge, asked for http-01:
CHALLENGES = [
    (AuthorizationFacts(LATER), "pending"),
    (AuthorizationFacts(LATER, "http-01"), "processing"),
    (AuthorizationFacts(LATER, "http-01", validated_at=BEFORE), "valid"),
    (AuthorizationFacts(LATER, "http-01", failed_at=BEFORE), "invalid"),
    (AuthorizationFacts(LATER, "dns-01"), "pending"),
    (AuthorizationFacts(LATER, "dns-01", validated_at=BEFORE), "pending"),
    (AuthorizationFacts(LATER, "dns-01", failed_at=BEFORE), "pending"),
]
# Of an order: (facts, its authorizations, state)
ORDERS = [
    (OrderFacts(LATER), ["pending"], "pending"),
    (OrderFacts(LATER), ["valid", "pending"], "pending"),
    (OrderFacts(LATER), ["valid", "valid"], "ready"),
    (OrderFacts(LATER), ["valid", "invalid"], "invalid"),
    (OrderFacts(LATER), ["valid", "deactivated"], "invalid"),
    (OrderFacts(LATER), ["expired", "valid"], "invalid"),
    (OrderFacts(BEFORE), ["valid"], "invalid"),  # the order expires
    (OrderFacts(NOW), ["valid"], "invalid"),
    (OrderFacts(LATER, finalized_at=NOW), [], "processing"),
    (OrderFacts(LATER, finalized_at=NOW), ["deactivated"], "processing"),  # no way back from there
    (OrderFacts(BEFORE, finalized_at=BEFORE), [], "processing"),
    (OrderFacts(LATER, finalized_at=NOW, settled_at=NOW), [], "valid"),
    (OrderFacts(BEFORE, finalized_at=BEFORE, settled_at=BEFORE), ["expired"], "valid"),
    (OrderFacts(LATER, finalized_at=NOW, settled_at=NOW, failed=True), [], "invalid"),
    (OrderFacts(LATER, settled_at=NOW, failed=True), ["valid"], "invalid"),
]


@pytest.mark.parametrize(("facts", "state"), AUTHORIZATIONS)
@pytest.mark.invariant("I-49")
def test_an_authorization(facts: AuthorizationFacts, state: str) -> None:
    assert authorization_status(facts, NOW) == state


@pytest.mark.parametrize(("facts", "state"), CHALLENGES)
def test_a_challenge(facts: AuthorizationFacts, state: str) -> None:
    assert challenge_status("http-01", facts) == state


@pytest.mark.parametrize(("facts", "authorizations", "state"), ORDERS)
@pytest.mark.invariant("I-50")
def test_an_order(facts: OrderFacts, authorizations: list[str], state: str) -> None:
    assert order_status(facts, authorizations, NOW) == state  # type: ignore[arg-type]  # the words of the table


def test_an_account() -> None:
    assert account_status(deactivated=False, disabled=False) == "valid"
    assert account_status(deactivated=True, disabled=False) == "deactivated"
    assert account_status(deactivated=False, disabled=True) == "revoked"
    assert account_status(deactivated=True, disabled=True) == "revoked"


# RFC 8555 7.1.6 as arrows: what may follow what, once each is over.
ARROWS = {
    "pending": {"ready", "invalid"},
    "ready": {"processing", "invalid"},
    "processing": {"valid", "invalid"},
    "valid": set[str](),
    "invalid": set[str](),
}


def test_time_and_facts_move_an_order_along_the_arrows_only() -> None:
    """Every fact that can be added, and the passing of its time, to every order."""
    moments = (None, NOW)
    shapes = [
        OrderFacts(expires, finalized, settled, failed=failed)
        for expires, finalized, settled, failed in product((LATER,), moments, moments, (False, True))
        if not (settled and not finalized and not failed) and not (failed and not settled)
    ]
    for facts, states in product(shapes, (["pending"], ["valid"], ["invalid"])):
        was = order_status(facts, states, NOW)  # type: ignore[arg-type]  # words again
        after = order_status(facts, ["expired"], LATER + timedelta(days=1))
        assert after == was or after in reach(was), (facts, states, was, after)


def reach(state: str) -> set[str]:
    """Every state that can follow, however late."""
    found = set(ARROWS[state])
    for one in ARROWS[state]:
        found |= reach(one)
    return found


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("dns", "a.internal", "dns:a.internal"),
        ("dns", "A.Internal", "dns:a.internal"),
        ("dns", "*.a.internal", "dns:*.a.internal"),
        ("ip", "10.0.0.1", "ip:10.0.0.1"),
        ("ip", "2001:db8::1", None),
        ("ip", "fd00::1", "ip:fd00::1"),
        ("ip", "::1", "ip:::1"),
        ("ip", "010.0.0.1", None),
        ("ip", "10.0.0.1/32", None),
        ("ip", "fd00:0:0:0:0:0:0:1", None),  # not RFC 5952
        ("ip", "FD00::1", None),
        ("ip", "fe80::1%eth0", None),
        ("ip", "::ffff:127.0.0.1", None),
        ("ip", "[::1]", None),
        ("ip", "2130706433", None),
        ("ip", "", None),
        ("dns", "", None),
        ("dns", "a..internal", None),
        ("dns", "a.internal.", None),
        ("dns", "*.*.internal", None),
        ("dns", "a.*.internal", None),
        ("dns", "*", None),
        ("dns", "10.0.0.1", None),
        ("dns", "ä.internal", None),
        ("dns", "a b.internal", None),
        ("dns", "a" * 64 + ".internal", None),
    ],
)
def test_an_identifier_is_read_strictly(kind: str, value: str, name: str | None) -> None:
    if name is None and value != "2001:db8::1":
        with pytest.raises(Problem) as refused:
            read_identifier(kind, value)
        assert refused.value.code.startswith("RW-NAME")
    elif name is not None:
        assert str(read_identifier(kind, value)) == name
        assert identifier(read_identifier(kind, value)) == {"type": kind, "value": name.partition(":")[2]}


@pytest.mark.parametrize("kind", ["email", "", "DNS", "permanent-identifier", "dns\n"])
def test_other_types_are_not_supported(kind: str) -> None:
    with pytest.raises(UnsupportedIdentifier):
        read_identifier(kind, "a.internal")


def test_each_name_counts_once() -> None:
    names = [read_identifier("dns", text) for text in ("a.test", "A.test", "*.a.test", "b.test", "a.test")]
    assert [str(name) for name in distinct(names)] == ["dns:a.test", "dns:*.a.test", "dns:b.test"]


@pytest.mark.parametrize(
    ("patterns", "kind", "value", "inside"),
    [
        (["a.test"], "dns", "a.test", True),
        (["a.test"], "dns", "b.a.test", False),
        (["a.test"], "dns", "*.a.test", False),
        ([".test"], "dns", "b.a.test", True),
        ([".test"], "dns", "*.a.test", True),
        ([".test"], "dns", "*.test", False),
        ([".test"], "dns", "atest.local", False),
        (["10.0.0.0/8"], "ip", "10.1.2.3", True),
        (["10.0.0.0/8"], "ip", "11.1.2.3", False),
        (["10.0.0.0/8"], "ip", "fd00::1", False),
        (["fd00::/8"], "ip", "fd00::1", True),
        ([".test"], "ip", "10.0.0.1", False),
        ([], "dns", "a.test", False),
        (["10.0.0.1"], "ip", "10.0.0.1", True),
    ],
)
def test_patterns_stand_for_names(patterns: list[str], kind: str, value: str, inside: bool) -> None:
    assert covers(patterns, read_identifier(kind, value)) is inside


@pytest.mark.parametrize("text", ["{name}.test", "*.test", "", ".", "a b", "10.0.0.1/8", "https://a.test"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(Problem) as refused:
        check_pattern(text, field="names")
    assert (refused.value.code, refused.value.reasons[0].field) == ("RW-FIELD", "names")
