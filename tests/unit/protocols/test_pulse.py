"""The measure of the event loop's stalls: the longest of the last minute, and a count of those over 50 ms."""

from __future__ import annotations

import asyncio

from rootward import telemetry
from rootward.protocols.pulse import Pulse


def value(name: str) -> float:
    found = telemetry.METRICS.get_sample_value(name)
    assert found is not None
    return found


async def notes() -> None:
    pulse = Pulse()
    assert pulse.longest == 0
    before = value("rootward_loop_stalls_total")
    for now, late, longest in (
        (1, 0.001, 0.001),
        (2, 0.3, 0.3),
        (3, 0.06, 0.3),
        (4, 0.01, 0.3),
        (61.9, 0.002, 0.3),
        (62.1, 0.002, 0.06),
        (63.5, 0.002, 0.01),
        (200, 0.0, 0.0),
    ):
        pulse.note(now, late)
        assert pulse.longest == longest
        assert value("rootward_loop_stall_seconds") == longest
    assert value("rootward_loop_stalls_total") - before == 2


def test_the_longest_of_the_last_minute() -> None:
    asyncio.run(notes())


async def ticks() -> None:
    pulse = Pulse()
    pulse.start()
    while not pulse._late:  # noqa: ASYNC110  # until the first tick has come
        await asyncio.sleep(0)
    pulse.stop()


def test_it_ticks_by_itself() -> None:
    asyncio.run(ticks())
