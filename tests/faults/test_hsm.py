"""F9: a token that loses sessions, is pulled out, refuses its PIN, is slow, answers with errors at any place, signs and
loses the signature, or has another key under the same label. Nothing wrong is released, every signature is known, and
issuing comes back by itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, ObjectClass

from rootward.ca.access import new_token
from rootward.ca.installation import Installation
from rootward.ca.issue import Issued
from rootward.ca.publish import publish
from rootward.ca.reconcile import reconcile
from rootward.ca.revoke import revoke
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.fleet.health import of_this_process
from rootward.keys import Backend, Key, KeySettings, NotSigned, create_kek_file, open_pkcs11, token_objects
from rootward.store.db import open_database
from rootward.store.migrations import migrate
from tests.faults.scenes import attempt, wish
from tests.support.faults import AUTHORITY, Home, Open, books, listed, opened, served, status
from tests.support.installation import PKI_URL, found
from tests.support.shim import Faults, shimmed
from tests.support.softhsm import MODULE, PIN, SoftToken, soft_token

SEEDS = range(8)
RUNS = 25  # of each seed


@dataclass
class Hsm:
    """An installation whose issuing key is in a token; its other keys are files. `pin` is what the PIN's place has."""

    home: Home
    token: SoftToken
    backend: Backend
    faults: Faults
    pin: list[bytes]
    home_key: str  # the issuing key's public id

    @property
    def stores(self) -> dict[str, Backend]:
        return {"pkcs11": self.backend}

    def end_sessions(self) -> None:
        """The token forgets every session and login."""
        with self.token.open().slot() as slot:
            assert ctypes.CDLL(str(MODULE)).C_CloseAllSessions(ctypes.c_ulong(slot.slot_id)) == 0

    @contextmanager
    def pulled_out(self) -> Iterator[None]:
        """The token is not there."""
        away = self.token.folder.parent.parent / f"{self.token.label}-away"
        self.token.folder.rename(away)
        try:
            yield
        finally:
            away.rename(self.token.folder)

    @contextmanager
    def wrong_pin(self) -> Iterator[None]:
        """The PIN's place has another one, and the login is gone."""
        self.pin[0] = b"wrong-pin"
        self.end_sessions()
        try:
            yield
        finally:
            self.pin[0] = PIN.encode()


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hsm]:
    with soft_token() as token, shimmed(monkeypatch) as faults:
        pin = [PIN.encode()]
        backend = open_pkcs11(KeySettings(store="pkcs11", uri=token.uri, pin=lambda: pin[0]))
        home = make_home(tmp_path / "home", backend)
        ((_, key_id),) = backend.list()
        yield Hsm(home, token, backend, faults, pin, key_id)


def make_home(folder: Path, backend: Backend) -> Home:
    folder.mkdir(mode=0o700)
    create_kek_file(folder / "kek")
    secret, digest = new_token()
    home = Home(f"sqlite:///{folder}/rootward.db", folder, secret)
    asyncio.run(_found(home, backend, (secret, digest)))
    return home


async def _found(home: Home, backend: Backend, token: tuple[str, bytes]) -> None:
    db = open_database(home.url)
    try:
        db.write_sync(migrate)
        inst = Installation(db=db, keys=backend, pki_url=PKI_URL, external_url="https://localhost:8443", lab=True)
        await found(inst, token, ago=timedelta(days=1))
    finally:
        db.close()


async def issued(made: Open) -> Issued:
    done = await attempt(made, wish())
    assert isinstance(done, Issued)
    return done


async def refused(made: Open) -> Problem:
    with pytest.raises(Problem) as caught:
        await attempt(made, wish())
    return caught.value


# ── errors by schedule ────────────────────────────────────────────────────────────────────────────────────────────

# Those of which the specification says that the call ended before it began.
NOT_BEGUN = [
    pkcs11.SessionHandleInvalid,
    pkcs11.UserNotLoggedIn,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.OperationActive,
    pkcs11.MechanismInvalid,
    pkcs11.DataLenRange,
]
# Those that say nothing of how far it came.
AT_ANY_TIME = [
    pkcs11.DeviceError,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceMemory,
    pkcs11.SessionClosed,
    pkcs11.GeneralError,
    pkcs11.FunctionFailed,
    pkcs11.FunctionCancelled,
    pkcs11.HostMemory,
    pkcs11.PKCS11Error,
]
OPENING = [pkcs11.SessionCount, pkcs11.DeviceError, pkcs11.TokenNotPresent, pkcs11.GeneralError, pkcs11.PinExpired]

Trouble = Callable[[Hsm, random.Random, ExitStack], None]


def some(dice: random.Random, errors: list[type[Exception]]) -> list[Exception]:
    """One to four errors, one call after the other."""
    return [dice.choice(errors)() for _ in range(dice.randint(1, 4))]


def sign_not_begun(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.faults.before["sign"] = some(dice, NOT_BEGUN)


def sign_broken_off(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.faults.before["sign"] = some(dice, AT_ANY_TIME)


def result_lost(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.faults.after["sign"] = some(dice, AT_ANY_TIME)


def no_sessions(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.end_sessions()
    hsm.faults.before["open"] = some(dice, OPENING)


def no_objects(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.end_sessions()
    hsm.faults.before["get_objects"] = some(dice, NOT_BEGUN + AT_ANY_TIME)


def no_slots(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.end_sessions()
    hsm.faults.before["get_slots"] = some(dice, AT_ANY_TIME)


def does_not_start(hsm: Hsm, dice: random.Random, _: ExitStack) -> None:
    hsm.end_sessions()
    hsm.faults.before["get_slots"] = some(dice, AT_ANY_TIME)
    hsm.faults.before["initialize"] = some(dice, AT_ANY_TIME)


def sessions_gone(hsm: Hsm, _dice: random.Random, _: ExitStack) -> None:
    hsm.end_sessions()


def pulled_out(hsm: Hsm, _dice: random.Random, until: ExitStack) -> None:
    until.enter_context(hsm.pulled_out())


def pin_changed(hsm: Hsm, _dice: random.Random, until: ExitStack) -> None:
    until.enter_context(hsm.wrong_pin())


TROUBLES: list[Trouble] = [
    sign_not_begun,
    sign_broken_off,
    result_lost,
    no_sessions,
    no_objects,
    no_slots,
    does_not_start,
    sessions_gone,
    pulled_out,
    pin_changed,
]


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-13")
def test_two_hundred_troubles(hsm: Hsm) -> None:
    async def main() -> None:
        seen: dict[str, set[str]] = {}
        async with opened(hsm.home, stores=hsm.stores) as made:
            hsm.faults.signed.clear()
            for seed in SEEDS:
                dice = random.Random(seed)
                for _ in range(RUNS):
                    trouble = dice.choice(TROUBLES)
                    with ExitStack() as until:
                        trouble(hsm, dice, until)
                        try:
                            await issued(made)
                            end = "issued"
                        except Problem as problem:
                            end = problem.code
                    seen.setdefault(trouble.__name__, set()).add(end)
                    hsm.faults.clear()
                    await issued(made)  # by itself, at the first try
            await reconcile(made.inst)
            rows = (await books(made.inst)).values()
            signed = set(hsm.faults.signed)
            ours = {hashlib.sha256(row.tbs).digest(): row for row in rows}
            assert signed <= set(ours)
            assert all(ours[one].issued_at is not None or ours[one].orphaned_at is not None for one in signed)
            assert not any(row.failed_at is not None for one, row in ours.items() if one in signed)
            orphans = [row for row in rows if row.orphaned_at is not None]
            assert orphans
            for row in orphans[:3]:
                assert isinstance(await status(made, row.serial), Revoked)
        assert {end for ends in seen.values() for end in ends} == {"issued", "RW-KEY-UNAVAILABLE"}
        assert set(seen) == {trouble.__name__ for trouble in TROUBLES}
        for name in ("sign_broken_off", "result_lost", "does_not_start", "pulled_out", "pin_changed"):
            assert seen[name] == {"RW-KEY-UNAVAILABLE"}, name
        assert seen["sessions_gone"] == {"issued"}

    asyncio.run(main())


# ── a key that is another ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-13")
def test_a_key_swapped_under_label_id_and_public_key_signs_nothing_that_is_released(hsm: Hsm) -> None:
    async def main() -> None:
        async with opened(hsm.home, stores=hsm.stores) as made:
            await issued(made)
            before = await served(made)
            key_id = made.inst.authority(AUTHORITY).issuer.key_id
            hsm.backend.generate("other", KeyAlgorithm.P256)
            with hsm.token.open().session(write=True) as session:
                private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
                (mine,) = session.open.get_objects({**private, Attribute.LABEL: AUTHORITY})
                (other,) = session.open.get_objects({**private, Attribute.LABEL: "other"})
                mine.destroy()
                other[Attribute.LABEL], other[Attribute.ID] = AUTHORITY, bytes.fromhex(key_id)
            assert (await refused(made)).code == "RW-KEY-UNAVAILABLE"
            assert made.inst.authority(AUTHORITY).state == "frozen"
            assert await reconcile(made.inst) == 1
            assert (await served(made)).number == before.number
            await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_an_extractable_key_is_refused_at_start(hsm: Hsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def extractable(label: str, _algorithm: KeyAlgorithm) -> Key:
        with hsm.token.open().session(write=True) as session:
            curve = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
            parameters = session.open.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            parameters.generate_keypair(store=True, label=label, private_template={Attribute.EXTRACTABLE: True})
        (public_id,) = [one for of, one in hsm.backend.list() if of == label and one != hsm.home_key]
        return hsm.backend.load(label, public_id)

    async def opens(home: Home) -> None:
        async with opened(home, stores=hsm.stores) as made:
            await issued(made)

    with monkeypatch.context() as patch:
        patch.setattr(token_objects, "judge", lambda *_: None)
        patch.setattr(hsm.backend, "generate", extractable)
        home = make_home(tmp_path / "other", hsm.backend)
        asyncio.run(opens(home))
    with pytest.raises(Problem, match="can leave its token") as caught:
        asyncio.run(opens(home))
    assert caught.value.code == "RW-KEY-EXTRACTABLE"
    asyncio.run(opens(hsm.home))


# ── a token that is away or slow ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-19")
@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("trouble", [Hsm.pulled_out, Hsm.wrong_pin], ids=["away", "pin"])
def test_a_token_that_is_away_at_start_keeps_no_status_from_being_served(
    hsm: Hsm, trouble: Callable[[Hsm], ExitStack]
) -> None:
    async def main() -> None:
        async with opened(hsm.home, stores=hsm.stores) as made:
            good, bad = await issued(made), await issued(made)
        with ExitStack() as until:
            until.enter_context(trouble(hsm))
            async with opened(hsm.home, stores=hsm.stores) as made:
                assert isinstance(await status(made, good.certificate.serial), Good)
                before = await served(made)
                await revoke(made.inst, bad.certificate.id, RevocationReason.SUPERSEDED, made.admin)
                assert isinstance(await status(made, bad.certificate.serial), Revoked)
                assert (await refused(made)).code == "RW-KEY-UNAVAILABLE"
                with pytest.raises(NotSigned):
                    await publish(made.inst, made.inst.authority(AUTHORITY))
                assert (await served(made)).number == before.number
                checks = {check.name: check for check in await of_this_process(made.inst)}
                assert checks[f"key.{AUTHORITY}"].state == "error"
                assert "Bring its token" in (checks[f"key.{AUTHORITY}"].mend or "")
                until.close()
                await issued(made)
                await publish(made.inst, made.inst.authority(AUTHORITY))
                assert bad.certificate.serial in await listed(made)
                checks = {check.name: check for check in await of_this_process(made.inst)}
                assert checks[f"key.{AUTHORITY}"].state == "ok"
                await books(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-25")
def test_a_signature_that_takes_its_time_holds_up_no_other(hsm: Hsm) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        if not asked.is_set():
            asked.set()
            assert go_on.wait(60)

    async def main() -> None:
        async with opened(hsm.home, stores=hsm.stores) as made:
            hsm.faults.signing = slow
            first = asyncio.create_task(issued(made))
            assert await asyncio.to_thread(asked.wait, 60)
            second = await issued(made)
            assert isinstance(await status(made, second.certificate.serial), Good)
            assert not first.done()
            go_on.set()
            await first
            await books(made.inst)

    asyncio.run(main())
