"""A store whose answer to a write is no: that did not happen, or (its twin) that did all the same. The asker is told to
come again, and the living process itself clears up; nobody has to restart it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from rootward.ca.installation import Installation
from rootward.ca.issue import Issued
from rootward.ca.reconcile import reconcile
from rootward.ca.revoke import revoke
from rootward.core.problems import Kind, Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.store.failpoint import Injected, armed
from rootward.store.rows import Rows
from rootward.worker import JOBS, Job, Worker
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, books, opened, status, watch
from tests.support.postgres import Postgres

# What the row is right after the failure, and whether the retry is answered with what there is already.
FAILURES = [
    ("store.write.before-commit:fail:1", None),
    ("store.write.after-commit:fail:1", "open"),
    ("store.write.before-commit:fail:2", "open"),
    ("store.write.after-commit:fail:2", "active"),
]


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.parametrize(("traps", "state"), FAILURES, ids=[traps for traps, _ in FAILURES])
def test_an_ask_whose_write_fails(home: Home, traps: str, state: str | None) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(home) as made:
            with armed(traps), pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert (caught.value.code, caught.value.kind) == ("RW-STORE", Kind.UNAVAILABLE)
            assert caught.value.retry_after is not None
            rows = await books(made.inst, open_intents=int(state == "open"))
            mine = [row for row in rows.values() if row.key_id == wanted.ask.csr.public_key.id]
            assert len(mine) == int(state is not None)
            if state == "open":
                with pytest.raises(Problem, match="under way") as caught:
                    await attempt(made, wanted)
                assert caught.value.code == "RW-IN-PROGRESS"
            assert await reconcile(made.inst) == int(state == "open")
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.retry_of == (mine[0].id if state == "open" else None)
            rows = await books(made.inst)
            if state == "active":
                assert done.certificate.id == mine[0].id
            if state == "open":
                assert rows[mine[0].id].status(made.inst.clock()) == "orphan"
                assert isinstance(await status(made, mine[0].serial), Revoked)
            assert await status(made, done.certificate.serial) == Good()

    asyncio.run(main())


@pytest.mark.invariant("I-05")
def test_the_worker_closes_what_its_own_process_left_open(home: Home) -> None:
    assert JOBS["reconcile"].every <= timedelta(seconds=30)  # with the lease of an intent, within the minute of I-05

    async def main() -> None:
        async with opened(home) as made:
            with armed("issue.signed:fail"), pytest.raises(Injected):
                await attempt(made, wish())
            await books(made.inst, open_intents=1)
            done = asyncio.Event()

            async def run(inst: Installation, fence: Rows) -> None:
                await JOBS["reconcile"].run(inst, fence)
                done.set()

            worker = Worker(made.inst, shared={"reconcile": Job(JOBS["reconcile"].every, run)})
            worker.start()
            async with asyncio.timeout(10):
                await done.wait()
            await worker.stop(5)
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-05")
def test_what_is_under_way_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(home) as made:
            closed = []
            real: Any = made.inst.db.write

            async def between(work: Any) -> Any:
                result = await real(work)
                if made.inst.process.in_flight:
                    closed.append(await reconcile(made.inst))
                return result

            # A reconciler's turn after each write.
            monkeypatch.setattr(made.inst.db, "write", between)
            assert isinstance(await attempt(made, wish()), Issued)
            assert closed == [0, 0]
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-05")
def test_an_asker_who_goes_away_does_not_leave_an_intent_open(home: Home) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(home) as made:
            loop, asked, gone = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

            def slow(_tbs: bytes, sign: Callable[[], bytes]) -> bytes:
                loop.call_soon_threadsafe(asked.set)
                assert gone.wait(10)
                return sign()

            watch(made.inst, slow, remote=True)
            asking = asyncio.create_task(attempt(made, wanted))
            await asked.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            gone.set()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
            before = await books(made.inst)
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.id in before

    asyncio.run(main())


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("traps", ["store.write.before-commit:fail:1", "store.write.after-commit:fail:1"])
def test_a_revocation_whose_write_fails_is_repeated(home: Home, traps: str) -> None:
    async def main() -> None:
        async with opened(home) as made:
            done = await attempt(made, wish())
            assert isinstance(done, Issued)
            row, reason = done.certificate, RevocationReason.SUPERSEDED
            assert await status(made, row.serial) == Good()
            with armed(traps), pytest.raises(Problem) as caught:
                await revoke(made.inst, row.id, reason, made.admin)
            assert caught.value.code == "RW-STORE"
            happened = isinstance(await status(made, row.serial), Revoked)
            assert happened == ("after" in traps)
            assert (await books(made.inst))[row.id].status(made.inst.clock()) == ("revoked" if happened else "active")
            await revoke(made.inst, row.id, reason, made.admin)
            assert isinstance(await status(made, row.serial), Revoked)
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-05")
def test_a_database_server_that_dies_while_the_key_signs(postgres_home: Home, postgres: Postgres) -> None:
    # A copied database has its template's sequences as if they were logged: without a checkpoint between the copy and
    # the crash PostgreSQL gives numbers out twice.
    postgres.restart()
    wanted = wish("keyed")
    asked: list[bytes] = []

    def dies(tbs: bytes, sign: Callable[[], bytes]) -> bytes:
        asked.append(tbs)
        postgres.stop(immediate=True)
        return sign()

    async def main() -> None:
        async with opened(postgres_home) as made:
            watch(made.inst, dies)
            with pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert caught.value.code == "RW-STORE"
            postgres.start()
            (row,) = [row for row in (await books(made.inst, open_intents=1)).values() if row.tbs == asked[0]]
            watch(made.inst, lambda _tbs, sign: sign())
            assert await reconcile(made.inst) == 1
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.retry_of == row.id
            await books(made.inst)

    asyncio.run(main())
