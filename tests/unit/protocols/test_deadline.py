"""What a connection waits for: late once, at its time, whatever was waited for before; with one timer for all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rootward.protocols.deadline import Deadline


@dataclass
class Timer:
    at: float
    ring: Callable[[], None]
    cancelled: bool = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """A loop whose seconds the test moves."""

    now: float = 1000.0
    timers: list[Timer] = field(default_factory=list)
    made: int = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, ring: Callable[[], None]) -> Timer:
        self.made += 1
        self.timers.append(Timer(when, ring))
        return self.timers[-1]

    def move(self, seconds: float, *, held_up: float = 0.0) -> None:
        """Let so much time pass; `held_up` is how late everything that is due in it comes."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.at + held_up <= end]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = max(self.now, first.at + held_up)
            first.ring()
        self.now = end


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def late() -> list[float]:
    return []


@pytest.fixture
def deadline(loop: Loop, late: list[float]) -> Deadline:
    fake: Any = loop
    return Deadline(fake, late.append)


@pytest.mark.parametrize("before", [(), (10.0,), (60.0,), (10.0, 60.0, 75.0), (75.0, 10.0, 60.0)])
@pytest.mark.parametrize("seconds", [10.0, 60.0, 75.0])
def test_it_is_late_at_its_time_and_once(
    loop: Loop, late: list[float], deadline: Deadline, before: tuple[float, ...], seconds: float
) -> None:
    for other in before:
        deadline.set(other)
        loop.move(1)
    deadline.set(seconds)
    loop.move(seconds - 0.01)
    assert (late, deadline.is_set) == ([], True)
    loop.move(0.02)
    assert (late, deadline.is_set) == ([seconds], False)
    loop.move(1000)
    assert late == [seconds]


def test_what_is_not_waited_for_is_never_late(loop: Loop, late: list[float], deadline: Deadline) -> None:
    deadline.set(10)
    deadline.clear()
    loop.move(1000)
    deadline.set(10)
    deadline.end()
    loop.move(1000)
    assert (late, deadline.is_set) == ([], False)


def test_many_requests_take_few_timers(loop: Loop, late: list[float], deadline: Deadline) -> None:
    deadline.set(10)
    for _ in range(1000):  # header, body, the whole request, then idle
        deadline.set(10)
        deadline.set(60)
        deadline.clear()
        deadline.set(75)
        loop.move(0.01)
    assert (late, loop.made) == ([], 1)
    loop.move(74.98)
    assert late == []
    loop.move(0.02)
    assert late == [75]


def test_a_process_that_was_held_up_gives_one_moment_more(loop: Loop, late: list[float], deadline: Deadline) -> None:
    deadline.set(10)
    loop.move(13, held_up=3)
    assert (late, deadline.is_set) == ([], True)
    loop.move(0.2)
    assert late == []
    loop.move(5, held_up=3)  # held up again: once is enough
    assert late == [10]
    deadline.set(10)
    loop.move(13, held_up=3)
    assert late == [10]
