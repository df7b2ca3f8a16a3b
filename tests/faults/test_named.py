"""Failpoints that no client of the kill loop comes to: each with a process that dies there, and the next one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from rootward.ca.access import authenticate
from rootward.ca.freeze import unfreeze_by
from rootward.ca.issue import Issued
from rootward.core.problems import Problem
from rootward.fleet import blocklist
from rootward.home import renew_admin_token
from rootward.store import events, requests
from tests.faults import scenes
from tests.faults.scenes import attempt, park, wish
from tests.support.faults import AUTHORITY, Home, books, killed, opened

LATER = timedelta(days=70)  # the administrator's token has 20 days left


@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("place", ["freeze.held", "freeze.stored"])
def test_a_killed_freeze_is_there_whole_or_not_at_all(fresh: Home, place: str) -> None:
    assert killed(fresh, scenes.freeze_one, traps=f"{place}:kill") == []

    async def after() -> None:
        async with opened(fresh) as made:
            frozen = await made.inst.db.read(lambda conn: events.list(conn, events.Filters(kind="authority.frozen")))
            if place == "freeze.held":
                assert frozen == ()
                assert isinstance(await attempt(made, wish()), Issued)
            else:
                assert len(frozen) == 1
                with pytest.raises(Problem) as caught:
                    await attempt(made, wish())
                assert caught.value.code == "RW-FROZEN"
                await unfreeze_by(made.inst, AUTHORITY, None, made.admin)
                assert isinstance(await attempt(made, wish()), Issued)
            await books(made.inst)

    asyncio.run(after())


@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-56")
def test_a_yes_that_came_to_nothing_says_so(fresh: Home) -> None:
    wanted = wish("approved")

    async def before() -> str:
        async with opened(fresh, serving=False) as made:
            request = await park(made, wanted)
            assert request is not None
            await blocklist.add(made.inst, [(wanted.ask.csr.public_key.id, "known")], made.admin)
            return request

    request = asyncio.run(before())
    assert killed(fresh, scenes.approve_one, request, traps="approve.failed-stored:kill") == []

    async def after() -> None:
        async with opened(fresh) as made:
            parked = await made.inst.db.read(lambda conn: requests.by_id(conn, request))
            assert parked is not None
            assert parked.status(made.inst.clock()) == "failed"
            failed = await made.inst.db.read(lambda conn: events.list(conn, events.Filters(kind="request.failed")))
            assert len(failed) == 1
            assert all(row.key_id != wanted.ask.csr.public_key.id for row in (await books(made.inst)).values())

    asyncio.run(after())


@pytest.mark.invariant("I-56")
def test_a_token_that_was_renewed_and_not_written_down(fresh: Home) -> None:
    path = fresh.folder / "admin.token"
    path.write_text(fresh.token)
    path.chmod(0o600)
    assert killed(fresh, scenes.renew_token, fresh.folder, LATER, traps="token.renewal-stored:kill") == []
    assert path.read_text() == fresh.token

    async def after() -> None:
        async with opened(fresh, serving=False) as made:
            real = made.inst.clock
            made.inst.clock = lambda: real() + LATER
            assert (await authenticate(made.inst, fresh.token)).name == "admin"  # for a day
            await renew_admin_token(made.inst, fresh.folder)
            new = path.read_text().strip()
            assert new != fresh.token
            assert (await authenticate(made.inst, new)).name == "admin"

    asyncio.run(after())
