"""Random numbers that repeat: the store's constraint holds, and nobody gets a second certificate with one serial."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import pytest

from rootward.ca.issue import Issued
from rootward.core.problems import Kind, Problem
from rootward.keys import NotSigned
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, books, opened, watch


@pytest.mark.invariant("I-03")
@pytest.mark.parametrize("kind", ["plain", "keyed"])
def test_a_serial_that_was_used_is_refused_and_the_next_one_taken(home: Home, kind: str) -> None:
    constant, other = secrets.token_bytes(20), secrets.token_bytes(20)
    draws = [constant, constant, other]
    asked: list[bytes] = []

    def logged(tbs: bytes, sign: Callable[[], bytes]) -> bytes:
        asked.append(tbs)
        return sign()

    async def main() -> None:
        async with opened(home) as made:
            made.inst.random = lambda size: draws.pop(0)[:size]
            watch(made.inst, logged)
            first = await attempt(made, wish())
            wanted = wish(kind)
            with pytest.raises(Problem, match="serial") as caught:
                await attempt(made, wanted)
            assert (caught.value.code, caught.value.kind) == ("RW-UNAVAILABLE", Kind.UNAVAILABLE)
            assert caught.value.retry_after is not None
            second = await attempt(made, wanted)
            assert isinstance(first, Issued)
            assert isinstance(second, Issued)
            assert first.certificate.serial != second.certificate.serial
            assert asked == [first.certificate.tbs, second.certificate.tbs]
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-03")
def test_a_failed_attempt_burns_its_serial(home: Home) -> None:
    constant = secrets.token_bytes(20)

    async def main() -> None:
        async with opened(home) as made:
            made.inst.random = lambda size: constant[:size]

            def refuses(_tbs: bytes, _sign: object) -> bytes:
                raise NotSigned("busy")

            watch(made.inst, refuses)
            with pytest.raises(Problem):
                await attempt(made, wish())
            watch(made.inst, lambda _tbs, sign: sign())
            with pytest.raises(Problem, match="serial"):
                await attempt(made, wish())
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-03")
def test_askers_at_one_moment_with_the_same_random_numbers(home: Home) -> None:
    """Some draw the serial of another asker of the same moment; each of them is told, and no other one is."""
    pool = [secrets.token_bytes(20) for _ in range(4)]
    drawn = [pool[number % 4] for number in range(16)]

    async def main() -> None:
        async with opened(home) as made:
            before = set(await books(made.inst))
            made.inst.random = lambda size: drawn.pop()[:size]
            done = await asyncio.gather(*(attempt(made, wish()) for _ in range(16)), return_exceptions=True)
            issued = [one.certificate for one in done if isinstance(one, Issued)]
            refused = [one.code for one in done if isinstance(one, Problem)]
            assert len({row.serial for row in issued}) == len(issued) == 4
            assert refused == ["RW-UNAVAILABLE"] * 12
            assert set(await books(made.inst)) - before == {row.id for row in issued}

    asyncio.run(main())
