"""kill -9 between any two steps of an issuance, then a restart: what was written stands, what was begun is closed as
the design says, and whoever asks again gets one living certificate at most.
"""

from __future__ import annotations

import asyncio
from enum import Enum

import pytest

from rootward.ca.approve import approve
from rootward.ca.issue import Issued, Pending
from rootward.core.problems import Problem
from rootward.core.revocation import Good, Revoked
from rootward.keys import NotSigned
from rootward.store import requests
from tests.faults import scenes
from tests.faults.scenes import Wish, attempt, park, wish
from tests.support.faults import Home, Open, books, killed, listed, opened, status, watch


class Left(Enum):
    """What a step leaves behind when the process dies there."""

    NOTHING = 0
    INTENT = 1
    CERTIFICATE = 2


# In the order of the road. The number behind a failpoint of the store counts the writes from the intent's on.
STEPS = [
    ("issue.admitted:kill", Left.NOTHING),
    ("store.write.before-commit:kill:1", Left.NOTHING),
    ("store.write.after-commit:kill:1", Left.INTENT),
    ("issue.intended:kill", Left.INTENT),
    ("key.asked:kill", Left.INTENT),
    ("key.answered:kill", Left.INTENT),
    ("issue.signed:kill", Left.INTENT),
    ("store.write.before-commit:kill:2", Left.INTENT),
    ("store.write.after-commit:kill:2", Left.CERTIFICATE),
    ("issue.stored:kill", Left.CERTIFICATE),
]
steps = pytest.mark.parametrize(("traps", "left"), STEPS, ids=[traps for traps, _ in STEPS])


async def prepared(home: Home, wanted: Wish) -> str | None:
    """Bring it to its last step, in a process that lives."""
    async with opened(home, serving=False) as made:
        return await park(made, wanted)


async def found_after(made: Open, wanted: Wish, left: Left) -> str | None:
    """Check what is there after the restart; the id of what the dead process left."""
    rows = await books(made.inst)
    mine = [row for row in rows.values() if row.key_id == wanted.ask.csr.public_key.id]
    if left is Left.NOTHING:
        assert mine == []
        return None
    (row,) = mine
    if left is Left.CERTIFICATE:
        assert row.status(made.inst.clock()) == "active"
        assert await status(made, row.serial) == Good()
        return row.id
    assert row.status(made.inst.clock()) == "orphan"
    assert isinstance(await status(made, row.serial), Revoked)
    assert row.serial in await listed(made)
    return row.id


async def living(made: Open, wanted: Wish) -> list[str]:
    """The ids of the certificates that this wish has, and that are good."""
    rows = await books(made.inst)
    now = made.inst.clock()
    return [
        row.id
        for row in rows.values()
        if row.key_id == wanted.ask.csr.public_key.id and row.issued_at and row.status(now) == "active"
    ]


@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@steps
def test_a_killed_ask_with_an_idempotency_key(home: Home, traps: str, left: Left) -> None:
    wanted = wish("keyed")
    assert killed(home, scenes.ask, wanted, None, traps=traps) == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            before = await found_after(made, wanted, left)
            again, once_more = await attempt(made, wanted), await attempt(made, wanted)
            assert isinstance(again, Issued)
            assert isinstance(once_more, Issued)
            assert again.certificate.id == once_more.certificate.id
            assert await living(made, wanted) == [again.certificate.id]
            if left is Left.INTENT:
                assert again.certificate.retry_of == before
            else:
                assert again.certificate.retry_of is None
            if left is Left.CERTIFICATE:
                assert again.certificate.id == before

    asyncio.run(after())


@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-05")
@pytest.mark.parametrize(("traps", "left"), [STEPS[0], STEPS[6], STEPS[9]], ids=["nothing", "intent", "certificate"])
def test_a_killed_ask_without_a_key_is_simply_asked_anew(home: Home, traps: str, left: Left) -> None:
    wanted = wish()
    assert killed(home, scenes.ask, wanted, None, traps=traps) == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            before = await found_after(made, wanted, left)
            again = await attempt(made, wanted)
            assert isinstance(again, Issued)
            assert again.certificate.id != before
            found = await living(made, wanted)
            assert found == ([before] if left is Left.CERTIFICATE else []) + [again.certificate.id]

    asyncio.run(after())


def one_later(traps: str) -> str:
    """The same step where one more write comes first: the yes itself."""
    head, _, number = traps.rpartition(":")
    return f"{head}:{int(number) + 1}" if number.isdecimal() else traps


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize(
    ("traps", "status_then"),
    [("store.write.before-commit:kill:1", "waiting"), ("store.write.after-commit:kill:1", "approved")],
)
def test_a_yes_is_there_whole_or_not_at_all(home: Home, traps: str, status_then: str) -> None:
    wanted = wish("approved")
    request = asyncio.run(prepared(home, wanted))
    assert request is not None
    assert killed(home, scenes.ask, wanted, request, traps=traps) == []

    async def after() -> None:
        async with opened(home) as made:
            assert await found_after(made, wanted, Left.NOTHING) is None
            parked = await made.inst.db.read(lambda conn: requests.by_id(conn, request))
            assert parked is not None
            assert parked.status(made.inst.clock()) == status_then
            if status_then == "waiting":
                await approve(made.inst, request, None, made.admin)
            else:
                assert isinstance(await attempt(made, wanted), Issued)
            assert len(await living(made, wanted)) == 1

    asyncio.run(after())


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("kind", ["approved", "named"])
@steps
def test_one_yes_never_gives_two_living_certificates(home: Home, kind: str, traps: str, left: Left) -> None:
    wanted = wish(kind)
    request = asyncio.run(prepared(home, wanted))
    armed = traps if request is None else one_later(traps)
    assert killed(home, scenes.ask, wanted, request, traps=armed) == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            before = await found_after(made, wanted, left)
            again = [await attempt(made, wanted) for _ in range(3)]
            found = await living(made, wanted)
            assert found == ([again[0].certificate.id] if isinstance(again[0], Issued) else [])
            assert len({type(one) for one in again}) == 1
            if left is Left.CERTIFICATE:
                assert found == [before]
            if left is Left.NOTHING:
                assert len(found) == 1

    asyncio.run(after())


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("kind", ["approved", "named"])
def test_the_retry_of_an_orphan_goes_on_under_the_same_yes(home: Home, kind: str) -> None:
    wanted = wish(kind)
    request = asyncio.run(prepared(home, wanted))
    assert killed(home, scenes.ask, wanted, request, traps="issue.signed:kill") == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            before = await found_after(made, wanted, Left.INTENT)
            again = await attempt(made, wanted)
            assert isinstance(again, Issued), "it is parked anew"
            assert again.certificate.retry_of == before
            assert await living(made, wanted) == [again.certificate.id]

    asyncio.run(after())


@pytest.mark.invariant("I-07")
def test_the_retry_of_an_orphan_ends_with_another_yes(home: Home) -> None:
    wanted = wish("approved")
    request = asyncio.run(prepared(home, wanted))
    assert killed(home, scenes.ask, wanted, request, traps="issue.signed:kill") == []
    home.lapse()

    async def after() -> None:
        async with opened(home) as made:
            again = await attempt(made, wanted)
            if isinstance(again, Pending):
                await approve(made.inst, again.request.id, None, made.admin)
                again = await attempt(made, wanted)
            assert isinstance(again, Issued), "it is parked for ever"
            assert await living(made, wanted) == [again.certificate.id]

    asyncio.run(after())


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("kind", ["approved", "named"])
def test_a_yes_stands_when_the_key_did_not_sign(home: Home, kind: str) -> None:
    wanted = wish(kind)

    def busy(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("busy")

    async def main() -> None:
        async with opened(home) as made:
            request = await park(made, wanted)
            watch(made.inst, busy)
            with pytest.raises(Problem) as caught:
                await (attempt(made, wanted) if request is None else approve(made.inst, request, None, made.admin))
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            await books(made.inst)
            watch(made.inst, lambda _tbs, sign: sign())
            again = await attempt(made, wanted)
            assert isinstance(again, Issued), "it is parked anew"

    asyncio.run(main())
