"""Several processes on one PostgreSQL: one that was paused for longer than its lease does no harm when it wakes up,
and one idempotency key is one certificate in both. Processes that die are the kill loop's (`test_kill_*.py`).
"""

from __future__ import annotations

import asyncio

import pytest

from rootward.ca.issue import LEASE, Issued
from rootward.ca.reconcile import reconcile
from rootward.core.problems import Problem
from rootward.core.revocation import Revoked
from rootward.store import certificates, db
from tests.faults import scenes
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, Play, books, opened, status


@pytest.mark.invariant("I-05")
def test_the_intent_of_a_living_process_is_left_to_it(postgres_home: Home) -> None:
    async def main() -> None:
        async with opened(postgres_home) as made:
            with Play(postgres_home, scenes.ask_or_say_why, wish("keyed"), traps="issue.signed:stop") as play:
                await asyncio.to_thread(play.until_stopped)
                (row,) = await made.inst.db.read(certificates.open_intents)
                now = await made.inst.db.read(db.clock)
                assert row.lease_until is not None
                assert now < row.lease_until <= now + LEASE
                assert await reconcile(made.inst) == 0
                play.go_on()
                assert await asyncio.to_thread(play.hear) == row.id
                assert await asyncio.to_thread(play.end) == 0
            assert (await books(made.inst))[row.id].issued_at is not None

    asyncio.run(main())


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("where", ["issue.intended", "key.asked", "key.answered", "issue.signed"])
def test_a_process_that_sleeps_longer_than_its_lease(postgres_home: Home, where: str) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(postgres_home) as made:
            with Play(postgres_home, scenes.ask_or_say_why, wanted, traps=f"{where}:stop") as play:
                await asyncio.to_thread(play.until_stopped)
                (row,) = await made.inst.db.read(certificates.open_intents)
                await asyncio.to_thread(postgres_home.lapse)
                assert await reconcile(made.inst) == 1
                assert isinstance(await status(made, row.serial), Revoked)
                again = await attempt(made, wanted)
                assert isinstance(again, Issued)
                assert again.certificate.retry_of == row.id
                play.go_on()
                assert await asyncio.to_thread(play.hear) == "RW-UNAVAILABLE"
                assert await asyncio.to_thread(play.end) == 0
            rows = (await books(made.inst)).values()
            mine = {row.id: row for row in rows if row.key_id == wanted.ask.csr.public_key.id}
            assert mine.keys() == {row.id, again.certificate.id}
            assert mine[row.id].status(made.inst.clock()) == "orphan"

    asyncio.run(main())


@pytest.mark.invariant("I-03")
@pytest.mark.invariant("I-07")
def test_one_key_asked_in_two_processes_at_once(postgres_home: Home) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(postgres_home) as made:
            with Play(postgres_home, scenes.ask_or_say_why, wanted, traps="issue.intended:stop") as play:
                await asyncio.to_thread(play.until_stopped)
                with pytest.raises(Problem) as caught:
                    await attempt(made, wanted)
                assert caught.value.code == "RW-IN-PROGRESS"
                play.go_on()
                id = await asyncio.to_thread(play.hear)
                assert await asyncio.to_thread(play.end) == 0
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.id == id
            await books(made.inst)

    asyncio.run(main())
