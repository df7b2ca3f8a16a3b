"""Counting failures: per address, within a window, in bounded memory."""

from __future__ import annotations

import pytest

from rootward.protocols.auth import ADDRESSES, LIMIT, WINDOW, Failures


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def exhausted(failures: Failures, address: str) -> None:
    for _ in range(LIMIT):
        assert failures.count(address) is None


def test_after_the_limit_there_is_a_wait_until_the_window_ends() -> None:
    clock = Clock()
    failures = Failures(clock)
    exhausted(failures, "192.0.2.1")
    assert failures.count("192.0.2.1") == WINDOW
    assert failures.count("192.0.2.2") is None
    clock.now += WINDOW - 1
    assert failures.count("192.0.2.1") == 1
    clock.now += 1
    assert failures.count("192.0.2.1") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "192.0.2.1", False),
    ],
)
def test_what_is_one_source(one: str, other: str, same: bool) -> None:
    failures = Failures(Clock())
    exhausted(failures, one)
    assert (failures.count(other) is not None) is same


def test_memory_is_bounded() -> None:
    failures = Failures(Clock())
    for n in range(ADDRESSES * 2):
        failures.count(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(failures) == ADDRESSES
