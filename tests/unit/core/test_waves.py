"""When each certificate of an authority that stops is renewed: at a bounded rate, none forgotten, none later."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from rootward.core.ari import Window
from rootward.core.waves import LONGEST, RATE, span, wave

BEGAN = datetime(2027, 3, 1, 12, tzinfo=UTC)
FAR = Window(BEGAN + timedelta(days=30), BEGAN + timedelta(days=31))
MINUTE = timedelta(minutes=1)


def seed(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.mark.parametrize(
    ("certificates", "minutes"),
    [(0, 0), (1, 0), (300, 0), (301, 1), (600, 1), (10_000, 33), (36_000, 119), (10**6, 120)],
)
def test_as_many_as_there_are_decide_how_long_it_takes(certificates: int, minutes: int) -> None:
    assert span(certificates) == minutes * MINUTE


def test_no_longer_than_told() -> None:
    assert span(10**6) == LONGEST
    assert span(10**6, longest=timedelta()) == timedelta()
    assert span(10**6, longest=timedelta(days=1)) == timedelta(days=1)


def test_each_minute_has_about_as_many() -> None:
    """The rate is kept: of 10,000, no minute has a third more than it should."""
    until = BEGAN + span(10_000)
    windows = [wave(BEGAN, until, seed=seed(n), normal=FAR) for n in range(10_000)]
    assert all(one is not None and BEGAN <= one.start <= until and one.end - one.start == MINUTE for one in windows)
    starts = Counter(one.start for one in windows if one is not None)
    assert len(starts) == 34
    assert max(starts.values()) < RATE * 60 * 4 / 3


def test_the_same_certificate_has_the_same_wave() -> None:
    until = BEGAN + timedelta(hours=1)
    assert wave(BEGAN, until, seed=seed(1), normal=FAR) == wave(BEGAN, until, seed=seed(1), normal=FAR)


def test_the_first_and_the_last_wave() -> None:
    until = BEGAN + timedelta(hours=1)
    first, last = (wave(BEGAN, until, seed=octet * 8, normal=FAR) for octet in (b"\x00", b"\xff"))
    assert first == Window(BEGAN, BEGAN + MINUTE)
    assert last == Window(until, until + MINUTE)


def test_at_once() -> None:
    assert wave(BEGAN, None, seed=seed(1), normal=FAR) is None
    assert wave(BEGAN, BEGAN, seed=seed(1), normal=FAR) is None


def test_what_ends_sooner_is_not_put_off() -> None:
    soon = Window(BEGAN - timedelta(hours=1), BEGAN)
    assert wave(BEGAN, BEGAN + timedelta(hours=1), seed=b"\xff" * 8, normal=soon) == soon
