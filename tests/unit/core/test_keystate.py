"""The states of NIST SP 800-57 part 1, section 7, as a function of facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rootward.core.keystate import KeyFacts, KeyState, state_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LATER, BEFORE = NOW + DAY, NOW - DAY


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "pre-activation"),
        ({"not_after": LATER}, "active"),
        ({"not_after": LATER, "signs_until": LATER}, "active"),
        # Both ends count (RFC 5280 4.1.2.5): at its last second it is still active.
        ({"not_after": NOW}, "active"),
        ({"not_after": LATER, "signs_until": NOW}, "active"),
        ({"not_after": LATER, "signs_until": NOW - timedelta(seconds=1)}, "deactivated"),
        ({"not_after": BEFORE}, "deactivated"),
        ({"not_after": LATER, "retired_at": BEFORE}, "deactivated"),
        ({"not_after": LATER, "frozen_at": BEFORE}, "suspended"),
        ({"not_after": LATER, "frozen_at": BEFORE, "retired_at": BEFORE}, "deactivated"),
        ({"not_after": LATER, "frozen_at": BEFORE, "signs_until": BEFORE}, "deactivated"),
        ({"not_after": LATER, "compromised_at": BEFORE}, "compromised"),
        ({"not_after": BEFORE, "retired_at": BEFORE, "compromised_at": BEFORE}, "compromised"),
        ({"compromised_at": BEFORE}, "compromised"),
        ({"destroyed_at": BEFORE}, "destroyed"),
        ({"not_after": LATER, "compromised_at": BEFORE, "destroyed_at": BEFORE}, "destroyed"),
        ({"not_after": BEFORE, "retired_at": BEFORE, "destroyed_at": BEFORE}, "destroyed"),
    ],
)
def test_a_state_follows_from_facts(facts: dict[str, datetime], state: str) -> None:
    assert state_of(KeyFacts(**facts), NOW) is KeyState(state)


def test_there_are_six() -> None:
    assert len(KeyState) == 6
