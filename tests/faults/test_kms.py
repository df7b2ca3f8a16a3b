"""F10: key services that refuse, break off, answer wrongly or for another key, through the whole road of an issuance.

The doubles keep a journal of every signature that was really made; after each run the inventory is held against it:
what was signed is issued or an orphan, what is called failed was not signed, and what was given out verifies.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootward import keys
from rootward.ca import authorities
from rootward.ca.freeze import unfreeze_by
from rootward.ca.issue import Issued
from rootward.ca.publish import publish, publish_due
from rootward.ca.reconcile import reconcile
from rootward.core.problems import Problem
from rootward.core.revocation import Good, Revoked
from rootward.store.certificates import Certificate
from tests.faults.scenes import Wish, attempt, wish
from tests.support.clouds import CLOUDS, Cloud
from tests.support.faults import AUTHORITY, books, listed, status
from tests.support.installation import STORE, Lab, lab
from tests.support.postgres import Postgres
from tests.support.room import spec
from tests.support.store import DIALECTS

SEEDS = 34  # for each service and store: 204 runs


@dataclasses.dataclass
class Scene:
    """An installation whose issuing key is in a cloud, and the double of that cloud."""

    kind: Cloud
    fake: Any
    settings: keys.KeySettings
    made: Lab


@pytest.fixture(params=CLOUDS)
def kind(request: pytest.FixtureRequest) -> Cloud:
    return CLOUDS[request.param]


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/rootward.db"
        return
    made = postgres.url()
    yield made
    postgres.drop(made)


@contextlib.asynccontextmanager
async def scene(kind: Cloud, url: str, folder: Path) -> AsyncIterator[Scene]:
    """A founded installation."""
    with kind.opening(folder) as (fake, settings):
        async with lab(url, store=keys.BACKENDS[kind.name](settings)) as made:
            yield Scene(kind, fake, settings, made)


async def rows_of(there: Scene, *, open_intents: int = 0) -> dict[str, Certificate]:
    """Every row, once the books agree with themselves and with what was really signed."""
    rows = await books(there.made.inst, open_intents=open_intents)
    for row in rows.values():
        if row.profile is None or row.authority != AUTHORITY:
            continue
        signed = there.fake.script.signed(row.tbs)
        assert signed or row.issued_at is None, "a certificate that nobody signed"
        assert not (signed and row.failed_at is not None), "a signature was forgotten"
    return rows


def attempts(rows: dict[str, Certificate], wanted: Wish) -> list[Certificate]:
    """Its attempts, the oldest first."""
    key = wanted.ask.csr.public_key.id
    return sorted((row for row in rows.values() if row.key_id == key), key=lambda row: row.n)


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-06")
@pytest.mark.invariant("I-13")
def test_whatever_a_key_service_does_nothing_wrong_is_released_and_nothing_forgotten(
    kind: Cloud, url: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with scene(kind, url, tmp_path) as there:
            said: list[tuple[Wish, bool]] = []
            for seed in range(SEEDS):
                said += await run(there, random.Random(f"{kind.name} {seed}"))
            rows = await rows_of(there)
            for wanted, at_once in said:
                first, *later = attempts(rows, wanted)
                assert [row.issued_at is not None for row in (first, *later)] == ([True] if at_once else [False, True])
            orphans = [row for row in rows.values() if row.orphaned_at is not None]
            assert len(orphans) > SEEDS / 2
            for row in random.Random(0).sample(orphans, 5):
                assert isinstance(await status(there.made, row.serial), Revoked)
            await publish_due(there.made.inst)
            assert {row.serial for row in orphans} <= await listed(there.made)

    asyncio.run(main())


async def run(there: Scene, chance: random.Random) -> list[tuple[Wish, bool]]:
    """Some people ask at once while the service has its faults, and again when it has none. Who got theirs at once."""
    script = there.fake.script
    doubts = [fault for fault in there.kind.doubts if fault != "hang"]  # tests/contract/test_keys_cloud.py waits for it
    wanted = [wish("keyed") for _ in range(chance.randint(1, 4))]
    faults = [chance.choice(["", chance.choice(there.kind.refusals), chance.choice(doubts)]) for _ in wanted]
    script.faults.extend(faults)
    signs = script.count(there.kind.sign)
    outcomes = await asyncio.gather(*(attempt(there.made, one) for one in wanted), return_exceptions=True)
    assert script.count(there.kind.sign) == signs + len(wanted), faults  # nobody asked twice
    assert {type(outcome) for outcome in outcomes} <= {Issued, Problem}, outcomes
    at_once = [isinstance(outcome, Issued) for outcome in outcomes]
    assert at_once.count(True) == faults.count("")
    assert await reconcile(there.made.inst) == sum(fault in there.kind.doubts for fault in faults)
    # The service is well again, and so is everybody, without a hand.
    for one in wanted:
        assert isinstance(await attempt(there.made, one), Issued)
    return list(zip(wanted, at_once, strict=True))


@pytest.mark.invariant("I-13")
def test_a_service_that_signs_with_another_key_stops_the_authority(kind: Cloud, url: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(kind, url, tmp_path) as there:
            made, wanted = there.made, wish("keyed")
            there.fake.script.faults.append("swapped")
            with pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            assert made.inst.authority(AUTHORITY).state == "frozen"
            with pytest.raises(Problem) as caught:
                await attempt(made, wish())
            assert caught.value.code == "RW-FROZEN"
            assert await reconcile(made.inst) == 1
            await unfreeze_by(made.inst, AUTHORITY, "the vendor explained it", made.admin)
            assert isinstance(await attempt(made, wanted), Issued)
            await rows_of(there)

    asyncio.run(main())


@pytest.mark.invariant("I-19")
def test_a_crl_that_the_service_did_not_sign_is_made_at_the_next_try(kind: Cloud, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(kind, f"sqlite:///{tmp_path}/rootward.db", tmp_path) as there:
            inst = there.made.inst
            issuing = inst.authority(AUTHORITY)
            number = (await publish(inst, issuing)).number
            for fault in (there.kind.refusals[0], there.kind.doubts[0]):
                there.fake.script.faults.append(fault)
                with pytest.raises((keys.NotSigned, keys.SignatureUnknown)):
                    await publish(inst, issuing)
            assert (await publish(inst, issuing)).number > number

    asyncio.run(main())


def test_an_authority_whose_key_does_not_sign_its_request_is_not_made(kind: Cloud, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(kind, f"sqlite:///{tmp_path}/rootward.db", tmp_path) as there:
            made, store = there.made, there.made.inst.key_store(STORE)
            before = store.list()
            for fault in (there.kind.refusals[0], there.kind.doubts[0]):
                there.fake.script.faults.append(fault)
                with pytest.raises(Problem) as caught:
                    await authorities.create(made.inst, spec("second"), "root", STORE, made.admin)
                assert caught.value.code == "RW-KEY-UNAVAILABLE"
                assert store.list() == before
            await authorities.create(made.inst, spec("second"), "root", STORE, made.admin)
            assert len(store.list()) == len(before) + 1

    asyncio.run(main())


def test_a_service_that_is_away_at_the_start_keeps_nobody_from_starting(kind: Cloud, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(kind, f"sqlite:///{tmp_path}/rootward.db", tmp_path) as there:
            made, script = there.made, there.fake.script
            done = await attempt(made, wish())
            assert isinstance(done, Issued)
            script.away = True
            made.inst.stores = {STORE: keys.BACKENDS[kind.name](there.settings)}
            await made.inst.load_authorities()
            wanted = wish("keyed")
            with pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            assert isinstance(await status(made, done.certificate.serial), Good)
            script.away = False
            assert isinstance(await attempt(made, wanted), Issued)  # by itself, with the key that was expected
            await rows_of(there)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_a_moved_alias_is_found_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(CLOUDS["aws-kms"], f"sqlite:///{tmp_path}/rootward.db", tmp_path) as there:
            made, fake = there.made, there.fake
            done = await attempt(made, wish())
            assert isinstance(done, Issued)
            (alias,) = [name for name in fake.aliases if name.startswith(f"alias/rootward/{AUTHORITY}/")]
            other = made.inst.key_store(STORE).generate("other", done.issuer.key.algorithm)
            fake.aliases[alias] = fake.aliases[f"alias/rootward/other/{other.public.id[:16]}"]
            # What runs goes on with the key that it found.
            assert isinstance(await attempt(made, wish()), Issued)
            made.inst.stores = {STORE: keys.BACKENDS["aws-kms"](there.settings)}
            with pytest.raises(Problem) as caught:
                await made.inst.load_authorities()
            assert caught.value.code == "RW-KEY-MISMATCH"
            await rows_of(there)

    asyncio.run(main())
