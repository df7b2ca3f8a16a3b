"""Revocations and CRLs over kill -9: what was acknowledged is said by OCSP at once and by the next CRL, numbers only
rise, and a good CRL is there at every moment.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from rootward.ca.issue import Issued
from rootward.ca.publish import publish, publish_due
from rootward.ca.revoke import revoke
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.store import authorities
from rootward.store.certificates import Certificate
from tests.faults import scenes
from tests.faults.scenes import attempt, wish
from tests.support.faults import AUTHORITY, Home, Open, books, killed, listed, opened, served, status


async def issued(home: Home) -> Certificate:
    """A certificate, made in a process that lives."""
    async with opened(home, serving=False) as made:
        done = await attempt(made, wish())
        assert isinstance(done, Issued)
        return done.certificate


async def held(home: Home) -> Certificate:
    """A certificate on hold, which a CRL shows."""
    row = await issued(home)
    async with opened(home, serving=False) as made:
        await revoke(made.inst, row.id, RevocationReason.CERTIFICATE_HOLD, made.admin)
        await publish_due(made.inst)
        assert row.serial in await listed(made)
    return row


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("reason", ["keyCompromise", "certificateHold"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_revocation_is_there_whole_or_not_at_all(home: Home, when: str, reason: str) -> None:
    row = asyncio.run(issued(home))
    assert killed(home, scenes.revoke_one, row.id, reason, traps=f"store.write.{when}-commit:kill") == []

    async def after() -> None:
        async with opened(home) as made:
            now = (await books(made.inst))[row.id]
            if when == "before":
                assert now.revoked_at is None
                assert await status(made, row.serial) == Good()
                assert row.serial not in await listed(made)
                await revoke(made.inst, row.id, RevocationReason(reason), made.admin)
            else:
                assert now.reason == reason
                assert row.serial in await listed(made)  # the CRL that the start made
            found = await status(made, row.serial)
            assert isinstance(found, Revoked)
            assert found.reason == reason

    asyncio.run(after())


@pytest.mark.invariant("I-16")
@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_release_is_there_whole_or_not_at_all(home: Home, when: str) -> None:
    row = asyncio.run(held(home))
    assert killed(home, scenes.release_one, row.id, traps=f"store.write.{when}-commit:kill") == []

    async def after() -> None:
        async with opened(home) as made:
            now = (await books(made.inst))[row.id]
            assert now.status(made.inst.clock()) == ("held" if when == "before" else "active")
            assert (row.serial in await listed(made)) == (when == "before")
            assert isinstance(await status(made, row.serial), Revoked if when == "before" else Good)

    asyncio.run(after())


CRL_STEPS = [
    ("store.write.before-commit:kill:1", False),
    ("store.write.after-commit:kill:1", False),
    ("crl.claimed:kill", False),
    ("crl.drafted:kill", False),
    ("key.asked:kill", False),
    ("key.answered:kill", False),
    ("crl.signed:kill", False),
    ("store.write.before-commit:kill:2", False),
    ("store.write.after-commit:kill:2", True),
    ("crl.published:kill", True),
]


async def numbers(made: Open) -> tuple[int, int]:
    """The number of the CRL that is served, and the last one that was claimed."""
    n = made.inst.authority(AUTHORITY).n
    claimed = await made.inst.db.read(authorities.crl_numbers_claimed)
    return (await served(made)).number, claimed[n, "full"]


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-17")
@pytest.mark.invariant("I-18")
@pytest.mark.invariant("I-19")
@pytest.mark.parametrize(("traps", "stored"), CRL_STEPS, ids=[traps for traps, _ in CRL_STEPS])
def test_a_crl_that_is_cut_off(home: Home, traps: str, stored: bool) -> None:
    async def before() -> tuple[Certificate, int]:
        row = await issued(home)
        async with opened(home, serving=False) as made:
            first = await publish(made.inst, made.inst.authority(AUTHORITY))
            await revoke(made.inst, row.id, RevocationReason.SUPERSEDED, made.admin)
            return row, first.number

    row, first = asyncio.run(before())
    assert killed(home, scenes.publish_one, traps=traps) == []

    async def after() -> None:
        async with opened(home, serving=False) as made:
            then, claimed = await numbers(made)  # the good one stays until there is a better one
            assert (then > first) == stored
            assert then <= claimed
            assert (row.serial in await listed(made)) == stored
            assert await publish_due(made.inst) == int(not stored)
            now, _ = await numbers(made)
            assert row.serial in await listed(made)
            if not stored:
                assert now > claimed  # what was claimed is burnt
            forced = await publish(made.inst, made.inst.authority(AUTHORITY))
            assert forced.number > now
            await books(made.inst)

    asyncio.run(after())


@pytest.mark.invariant("I-17")
@pytest.mark.invariant("I-19")
@pytest.mark.parametrize("ahead", [timedelta(seconds=1), timedelta(hours=1), timedelta(days=400)], ids=str)
def test_numbers_rise_also_when_a_clock_that_ran_ahead_is_put_right(home: Home, ahead: timedelta) -> None:
    async def main() -> None:
        async with opened(home, serving=False) as made:
            real, authority = made.inst.clock, made.inst.authority(AUTHORITY)
            made.inst.clock = lambda: real() + ahead
            before = await publish(made.inst, authority)
            made.inst.clock = real
            again = await publish_due(made.inst)
            after = await publish(made.inst, authority)
            assert after.number > before.number
            if ahead > timedelta(minutes=1):
                assert again == 1  # by the right clock it is not valid yet

    asyncio.run(main())


@pytest.mark.invariant("I-19")
def test_a_crl_is_renewed_long_before_it_ends(home: Home) -> None:
    """An installation that stood still for a week has a good CRL before it answers anybody."""

    async def main() -> None:
        made_at: datetime
        async with opened(home, serving=False) as made:
            crl = await publish(made.inst, made.inst.authority(AUTHORITY))
            made_at, life = crl.this_update, crl.next_update - crl.this_update
            made.inst.clock = lambda: made_at + life / 2 - timedelta(seconds=1)
            assert await publish_due(made.inst) == 0
            made.inst.clock = lambda: made_at + life / 2
            assert await publish_due(made.inst) == 1
        async with opened(home, clock=lambda: made_at + timedelta(days=7)) as made:
            assert (await served(made)).number > crl.number

    asyncio.run(main())
