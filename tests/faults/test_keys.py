"""Keys that fail, answer wrongly or not at all; and the order that holds for all of them: the row, then the key."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Callable

import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import make_url

from rootward.ca.issue import Issued
from rootward.ca.publish import publish, publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.revoke import revoke
from rootward.ca.sign import WrongSignature
from rootward.core.capture import assemble
from rootward.core.problems import Kind, Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason, Revoked
from rootward.keys import Key, NotSigned, SignatureUnknown
from rootward.store import events
from rootward.store.certificates import Certificate
from tests.faults.scenes import Wish, attempt, wish
from tests.support.faults import AUTHORITY, Home, Open, books, listed, opened, served, status, watch

Sign = Callable[[], bytes]


async def row_of(made: Open, wanted: Wish, *, open_intents: int = 0) -> Certificate:
    """The one row of this wish."""
    rows = (await books(made.inst, open_intents=open_intents)).values()
    (row,) = [row for row in rows if row.key_id == wanted.ask.csr.public_key.id]
    return row


# ── I-01: the intent is visible to others before the key is asked ─────────────────────────────────────────────────


def look_from_outside(url: str, tbs: bytes) -> list[tuple[object, ...]]:
    """What a connection of its own sees of the row with these bytes: only what is committed."""
    query = "SELECT issuer, serial, profile_version, requester, request_id, signature FROM certificates WHERE tbs = "
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        other = sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True)
        try:
            return other.execute(query + "?", (tbs,)).fetchall()
        finally:
            other.close()
    with psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False)) as conn:
        return conn.execute(query + "%s", (tbs,)).fetchall()


@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-02")
@pytest.mark.parametrize("remote", [False, True])
def test_the_key_is_asked_only_for_what_is_committed(home: Home, remote: bool) -> None:
    seen: list[tuple[bytes, list[tuple[object, ...]]]] = []

    def logged(tbs: bytes, sign: Sign) -> bytes:
        seen.append((tbs, look_from_outside(home.url, tbs)))
        return sign()

    async def main() -> None:
        async with opened(home) as made:
            watch(made.inst, logged, remote=remote)
            done = [await attempt(made, wish()) for _ in range(3)]
            rows = [one.certificate for one in done if isinstance(one, Issued)]
            assert len(rows) == len(seen) == 3
            stored = await books(made.inst)
            for row, (tbs, found) in zip(rows, seen, strict=True):
                # What was given out is what is in the inventory, but for the row's own number.
                assert msgspec.structs.replace(row, n=stored[row.id].n) == stored[row.id]
                assert tbs == row.tbs
                assert row.signature is not None
                assert row.der == assemble(tbs, row.algorithm, row.signature)
                version = row.profile_version
                assert found == [(row.issuer, row.serial, version, row.requester, row.request_id, None)]

    asyncio.run(main())


# ── keys that do not answer as they should ────────────────────────────────────────────────────────────────────────


def raising(error: Exception, *, after: bool) -> Callable[[bytes, Sign], bytes]:
    """A key that fails before it signs, or when it has signed already."""

    def hook(_tbs: bytes, sign: Sign) -> bytes:
        if after:
            sign()
        raise error

    return hook


@pytest.mark.invariant("I-05")
@pytest.mark.parametrize("remote", [False, True])
def test_a_key_that_surely_did_not_sign_ends_the_attempt(home: Home, remote: bool) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(home) as made:
            watch(made.inst, raising(NotSigned("busy"), after=False), remote=remote)
            with pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert (caught.value.code, caught.value.kind) == ("RW-KEY-UNAVAILABLE", Kind.UNAVAILABLE)
            row = await row_of(made, wanted)
            assert row.failed_at is not None
            assert await reconcile(made.inst) == 0
            watch(made.inst, lambda _tbs, sign: sign())
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.retry_of == row.id
            assert done.certificate.serial != row.serial
            assert row.serial not in await listed(made)

    asyncio.run(main())


@pytest.mark.invariant("I-05")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "error", [SignatureUnknown("silence"), RuntimeError("a library's"), TimeoutError()], ids=lambda e: type(e).__name__
)
def test_a_key_that_may_have_signed_leaves_an_orphan(home: Home, error: Exception, after: bool) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(home) as made:
            watch(made.inst, raising(error, after=after))
            expected = Problem if isinstance(error, SignatureUnknown) else type(error)
            with pytest.raises(expected) as caught:
                await attempt(made, wanted)
            if isinstance(caught.value, Problem):
                assert caught.value.kind is Kind.UNAVAILABLE
            await row_of(made, wanted, open_intents=1)
            assert await reconcile(made.inst) == 1  # in the same process, which goes on
            row = await row_of(made, wanted)
            assert row.status(made.inst.clock()) == "orphan"
            assert isinstance(await status(made, row.serial), Revoked)
            watch(made.inst, lambda _tbs, sign: sign())
            await publish_due(made.inst)
            assert row.serial in await listed(made)
            done = await attempt(made, wanted)
            assert isinstance(done, Issued)
            assert done.certificate.retry_of == row.id
            await books(made.inst)

    asyncio.run(main())


def wrong_bytes(tbs: bytes, sign: Sign) -> bytes:
    """A key that signs with another one's private half."""
    return ec.generate_private_key(ec.SECP256R1()).sign(tbs, ec.ECDSA(hashes.SHA256()))


def flipped(_tbs: bytes, sign: Sign) -> bytes:
    """A fault in the middle of the computation."""
    good = bytearray(sign())
    good[-1] ^= 1
    return bytes(good)


@pytest.mark.invariant("I-13")
@pytest.mark.parametrize("hook", [wrong_bytes, flipped, lambda _tbs, _sign: b""], ids=["other", "flipped", "empty"])
def test_a_key_that_signs_wrongly_stops_its_authority(fresh: Home, hook: Callable[[bytes, Sign], bytes]) -> None:
    wanted = wish("keyed")

    async def main() -> None:
        async with opened(fresh) as made:
            good = await attempt(made, wish())
            assert isinstance(good, Issued)
            before = await served(made)
            watch(made.inst, hook)
            with pytest.raises(Problem) as caught:
                await attempt(made, wanted)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            assert made.inst.authority(AUTHORITY).state == "frozen"
            frozen = events.Filters(kind="authority.frozen")
            (event,) = await made.inst.db.read(lambda conn: events.list(conn, frozen))
            assert event.authority == AUTHORITY
            for again in (wanted, wish()):
                with pytest.raises(Problem) as caught:
                    await attempt(made, again)
                assert caught.value.code in {"RW-FROZEN", "RW-IN-PROGRESS"}
            assert await reconcile(made.inst) == 1
            assert (await row_of(made, wanted)).status(made.inst.clock()) == "orphan"
            # A CRL by that key is no better, and the good one stays.
            with pytest.raises(WrongSignature):
                await publish(made.inst, made.inst.authority(AUTHORITY))
            assert (await served(made)).number == before.number
            # Revoking does not need the key.
            await revoke(made.inst, good.certificate.id, RevocationReason.SUPERSEDED, made.admin)
            assert isinstance(await status(made, good.certificate.serial), Revoked)
        async with opened(fresh) as made:
            assert made.inst.authority(AUTHORITY).state == "frozen"
            assert {good.certificate.serial, (await row_of(made, wanted)).serial} <= await listed(made)
            with pytest.raises(Problem) as caught:
                await attempt(made, wish())
            assert caught.value.code == "RW-FROZEN"

    asyncio.run(main())


@pytest.mark.invariant("I-13")
@pytest.mark.invariant("I-61")
def test_a_key_swapped_under_its_label_is_never_used(sqlite_home: Home) -> None:
    keys = sqlite_home.folder / "keys"
    (mine,) = keys.glob("issuing-*.key")
    other = sqlite_home.keys().generate("issuing", KeyAlgorithm.P256)
    (theirs,) = set(keys.glob("issuing-*.key")) - {mine}
    assert other.public.id[:16] in theirs.name
    theirs.replace(mine)

    async def main() -> None:
        with pytest.raises(Problem) as caught:
            async with opened(sqlite_home):
                raise AssertionError("it must not open")
        assert caught.value.code == "RW-KEY-MISMATCH"

    asyncio.run(main())


@pytest.mark.invariant("I-19")
def test_one_authority_s_broken_key_holds_up_no_other_s_crl(sqlite_home: Home) -> None:
    async def main() -> None:
        async with opened(sqlite_home) as made:
            inst, issuing = made.inst, made.inst.authority(AUTHORITY)
            done = await attempt(made, wish())
            assert isinstance(done, Issued)
            await revoke(inst, done.certificate.id, RevocationReason.SUPERSEDED, made.admin)
            watch(inst, raising(NotSigned("broken"), after=False))
            broken = dataclasses.replace(inst.authority(AUTHORITY), name="broken")
            inst.authorities = {"broken": broken, AUTHORITY: issuing}
            assert isinstance(broken.key, Key)
            with pytest.raises(NotSigned):
                await publish_due(inst)
            assert done.certificate.serial in await listed(made)

    asyncio.run(main())
