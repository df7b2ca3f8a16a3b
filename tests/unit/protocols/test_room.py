"""Room for request bodies."""

from __future__ import annotations

import pytest

from rootward.core.problems import Problem
from rootward.protocols.rest.bodies import MAX_BODY
from rootward.protocols.rest.operation import Operation
from rootward.protocols.rest.room import FREE, Room, Rooms


def test_short_bodies_need_none() -> None:
    with Room(0).guest() as guest:
        guest.grow(FREE)
        assert guest.held == 0


def test_a_body_takes_room_as_it_grows_and_gives_it_back() -> None:
    room = Room(1_000_000)

    def grow_and_fail() -> None:
        with room.guest() as guest:
            for size in range(0, 500_000, 1_000):
                guest.grow(size)
                assert guest.held >= size - FREE
            assert room.left == 1_000_000 - guest.held
            raise KeyError

    with pytest.raises(KeyError):
        grow_and_fail()
    assert room.left == 1_000_000


def test_who_finds_none_is_refused_and_leaves_it_to_the_others() -> None:
    room = Room(500_000)
    with room.guest() as first:
        first.grow(300_000)
        with room.guest() as second:
            second.grow(100_000)
            with pytest.raises(Problem, match="Try again") as refused:
                second.grow(300_000)
        assert [reason.code for reason in refused.value.reasons] == ["RW-UNAVAILABLE"]
        assert refused.value.retry_after is not None
        first.grow(500_000)
    assert room.left == 500_000


@pytest.mark.parametrize("largest", [64 * 1024, 32 * 1024 * 1024, 1024 * 1024 * 1024])
def test_the_largest_import_finds_room_where_it_is_alone(largest: int) -> None:
    rooms = Rooms(largest)
    with rooms.large.guest() as guest:
        for size in range(0, largest + 1, 65_536):
            guest.grow(size)


def test_a_large_body_is_not_for_everybody() -> None:
    async def handler(call: object) -> None: ...

    with pytest.raises(ValueError, match="from whom"):
        Operation(
            name="x",
            method="POST",
            path="/x",
            handler=handler,  # type: ignore[arg-type]  # never called
            summary="",
            result=None,
            largest=MAX_BODY + 1,
        )
