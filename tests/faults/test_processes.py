"""Many askers, several processes: everything that ever left one is in the books, everything the key signed too, and a
process that was paused for longer than its lease does no harm when it wakes up.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from cryptography import x509

from rootward.ca.issue import LEASE, Issued
from rootward.ca.reconcile import reconcile
from rootward.core.problems import Problem
from rootward.core.revocation import Revoked
from rootward.store import certificates, db
from tests.faults import scenes
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, Play, books, killed, listed, opened, status

KILLS = [
    "issue.intended:kill:20",
    "key.asked:kill:15",
    "key.answered:kill:21",
    "issue.signed:kill:30",
    "issue.stored:kill:17",
    "store.write.before-commit:kill:40",
    "store.write.after-commit:kill:41",
]


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-06")
@pytest.mark.parametrize("traps", KILLS)
def test_whatever_was_given_out_or_signed_is_in_the_books(home: Home, traps: str) -> None:
    said = killed(home, scenes.ask_many, 8, 200, traps=traps)
    assert {what for what, _ in said} == {"signed", "released"}
    check(home, said)


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-06")
@pytest.mark.parametrize("after", [5, 23, 61])
def test_a_kill_from_outside_at_any_moment(home: Home, after: int) -> None:
    with Play(home, scenes.ask_many, 8, 200) as play:
        for _ in range(after):
            play.hear()
        play.kill()
        assert play.end() == -signal.SIGKILL
    check(home, play.said)


def check(home: Home, said: list[Any]) -> None:
    """Everything that was given out is stored and recorded, everything that was signed is known."""
    released = [der for what, der in said if what == "released"]
    signed = [tbs for what, tbs in said if what == "signed"]
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            rows = (await books(made.inst)).values()
            assert set(released) <= {row.der for row in rows if row.issued_at is not None}
            known = {row.tbs: row for row in rows}
            assert set(signed) <= known.keys()
            assert {x509.load_der_x509_certificate(der).tbs_certificate_bytes for der in released} <= set(signed)
            orphans = [row for row in rows if row.orphaned_at is not None]
            assert {known[tbs].id for tbs in signed if known[tbs].issued_at is None} <= {row.id for row in orphans}
            assert {row.serial for row in orphans} <= await listed(made)

    asyncio.run(after())


# ── several processes, which PostgreSQL alone allows ──────────────────────────────────────────────────────────────


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
