"""OCSP on both stores: good is said of what was issued and nothing else, a revocation is seen at once, and an outage
never makes anything good.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.ca import freeze
from rootward.ca.installation import PROMISE
from rootward.ca.issue import issue
from rootward.ca.reconcile import reconcile
from rootward.ca.responder import Answer, Responder
from rootward.ca.revoke import release, revoke
from rootward.core import der
from rootward.core.issuer import Issuer
from rootward.core.ocsp import (
    BadResponse,
    CertId,
    OcspStatus,
    cert_id_for,
    check_response,
    error_response,
    parse_response,
    request_for,
)
from rootward.core.revocation import Good, RevocationReason, Revoked, Unknown
from rootward.store import authorities
from rootward.store.failpoint import Injected, armed
from tests.support.authority import Authority
from tests.support.postgres import Postgres
from tests.support.world import ISSUING, World, ask, refused

HOLD, SUPERSEDED = RevocationReason.CERTIFICATE_HOLD, RevocationReason.SUPERSEDED
NONCE = b"\x07" * 32
TRY_LATER = error_response(OcspStatus.TRY_LATER)
UNAUTHORIZED = error_response(OcspStatus.UNAUTHORIZED)
INTERNAL = error_response(OcspStatus.INTERNAL)
MALFORMED = error_response(OcspStatus.MALFORMED)


def cert_id(lab: World, serial: bytes, algorithm: Any = "sha1") -> CertId:
    return cert_id_for(lab.inst.authority(ISSUING).issuer, serial, algorithm)


async def answer(lab: World, *asked: CertId, nonce: bytes | None = None, name: str = ISSUING) -> Answer:
    return await lab.responder.answer(name, request_for(asked, nonce))


def responder_of(lab: World) -> x509.Certificate:
    """The certificate that the responder signs with now."""
    return lab.responder._own[ISSUING].certificate


# ── What is said of what ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-27", "I-30")
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_good_revoked_held_and_released_at_once(lab: World, algorithm: Any) -> None:
    row = await lab.issue()
    steps: list[tuple[Any, Any]] = [
        (None, Good()),
        (HOLD, Revoked(lab.clock(), HOLD)),
        ("release", Good()),
        (SUPERSEDED, Revoked(lab.clock(), SUPERSEDED)),
    ]
    for step, expected in steps:
        if step == "release":
            await release(lab.inst, row.id, lab.admin)
        elif step is not None:
            await revoke(lab.inst, row.id, step, lab.admin)
        for _ in range(2):  # made, then kept
            assert await lab.status(row.serial, algorithm=algorithm) == expected


@pytest.mark.invariant("I-30")
async def test_a_revocation_makes_every_kept_answer_old_for_every_process(lab: World) -> None:
    row, other = await lab.issue(), await lab.issue("b.internal")
    second = Responder(lab.inst)  # another process on the same store
    await second.renew()
    for responder in (lab.responder, second):
        for algorithm in ("sha1", "sha256"):
            await responder.answer(ISSUING, request_for([cert_id(lab, row.serial, algorithm)]))
    await revoke(lab.inst, row.id, SUPERSEDED, lab.admin)
    for responder in (lab.responder, second):
        for algorithm in ("sha1", "sha256"):
            asked = cert_id(lab, row.serial, algorithm)
            told = await responder.answer(ISSUING, request_for([asked]))
            assert told.status == "revoked"
    assert await lab.status(other.serial) == Good()


@pytest.mark.invariant("I-27")
async def test_an_intent_is_unknown_until_it_is_a_certificate(lab: World) -> None:
    drawn: list[bytes] = []
    draw = lab.inst.random

    def watched(size: int) -> bytes:
        drawn.append(draw(size))
        return drawn[-1]

    lab.inst.random = watched
    with armed("issue.intended:fail"), pytest.raises(Injected):
        await issue(lab.inst, ask(), lab.admin)
    (row,) = [row for row in await lab.rows() if row.profile == "server"]
    assert row.issued_at is row.failed_at is row.orphaned_at is None
    for _ in range(2):
        assert await lab.status(row.serial) == Unknown()
    told = await answer(lab, cert_id(lab, row.serial))
    assert (told.status, told.max_age, told.etag) == ("unknown", 0, None)
    assert await reconcile(lab.inst) == 1  # whoever held it is gone: it counts as issued, and is revoked
    assert await lab.status(row.serial) == Revoked(lab.clock(), RevocationReason.UNSPECIFIED)
    assert len(drawn) == 1


@pytest.mark.invariant("I-27")
async def test_what_was_unknown_is_good_once_it_is_issued(lab: World) -> None:
    lab.inst.random = lambda _size: bytes(range(20))
    serial = lab.inst.new_serial()
    assert await lab.status(serial) == Unknown()
    assert (await lab.issue()).serial == serial
    assert await lab.status(serial) == Good()


@pytest.mark.invariant("I-23", "I-28")
async def test_nobody_answers_for_another_authority(lab: World) -> None:
    row = await lab.issue()
    root = lab.inst.authority("root").issuer
    other = Authority("Test Issuing CA")
    issuer = lab.inst.authority(ISSUING).issuer
    stranger = Issuer("x", other.certificate, (other.certificate,), "http://x.test")
    same_name = dataclasses.replace(
        cert_id(lab, row.serial), key_hash=cert_id_for(stranger, row.serial, "sha1").key_hash
    )
    same_key = dataclasses.replace(cert_id(lab, row.serial), name_hash=cert_id_for(root, row.serial, "sha1").name_hash)
    foreign = [cert_id_for(root, row.serial, "sha1"), cert_id_for(stranger, row.serial, "sha256")]
    for wrong in [*foreign, *(_encoded(one) for one in (same_name, same_key))]:
        assert (await answer(lab, wrong)).body == UNAUTHORIZED
        assert (await answer(lab, cert_id(lab, row.serial), wrong)).body == UNAUTHORIZED  # 277: mixed
        assert (await answer(lab, wrong, nonce=NONCE)).max_age == 0
    for name in ("root", ISSUING):
        assert (await answer(lab, cert_id_for(root, row.serial, "sha1"), name=name)).body == UNAUTHORIZED
    assert (await answer(lab, cert_id(lab, row.serial), name="root")).body == UNAUTHORIZED
    assert await refused(answer(lab, cert_id(lab, row.serial), name="none")) == "RW-NOT-FOUND"
    assert issuer.key_id != root.key_id


def _encoded(wrong: CertId) -> CertId:
    """A CertID with DER that says what its fields say."""
    algorithm = der.children(wrong.der)[0].whole
    fields = (der.octet_string(wrong.name_hash), der.octet_string(wrong.key_hash), der.tlv(der.INTEGER, wrong.serial))
    return dataclasses.replace(wrong, der=der.sequence(algorithm, *fields))


async def test_what_is_no_request_is_malformed(lab: World) -> None:
    for bad in (b"", b"x", b"\x30\x00", bytes(20_000), request_for([cert_id(lab, b"\x01")])[:-1]):
        told = await lab.responder.answer(ISSUING, bad)
        assert (told.body, told.max_age, told.etag) == (MALFORMED, 0, None)


# ── What is kept ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-29", "I-30")
async def test_an_answer_is_kept_and_promises_no_more_than_a_minute(lab: World) -> None:
    row = await lab.issue()
    first = await answer(lab, cert_id(lab, row.serial))
    assert await answer(lab, cert_id(lab, row.serial)) == first
    assert (first.status, first.max_age, first.expires) == ("good", 60, lab.clock() + PROMISE)
    read = parse_response(first.body)
    lab.clock.move(timedelta(minutes=29))
    kept = await answer(lab, cert_id(lab, row.serial))
    assert (kept.body, kept.max_age) == (first.body, 60)
    assert kept.expires == lab.clock() + PROMISE
    lab.clock.move(timedelta(minutes=1))  # half of its hour: made anew
    fresh = await answer(lab, cert_id(lab, row.serial))
    assert fresh.body != first.body
    assert fresh.etag != first.etag
    assert read != parse_response(fresh.body)
    lab.clock.move(-timedelta(minutes=5))  # a clock that went back: nothing from the future
    back = await answer(lab, cert_id(lab, row.serial))
    assert (
        check_response(
            parse_response(back.body),
            cert_id=cert_id(lab, row.serial),
            issuer=lab.inst.authority(ISSUING).issuer,
            now=lab.clock(),
            nonce=None,
        )
        == Good()
    )


@pytest.mark.invariant("I-30", "I-31")
async def test_an_answer_with_a_nonce_is_never_kept(lab: World) -> None:
    row = await lab.issue()
    plain = await answer(lab, cert_id(lab, row.serial))
    issuer = lab.inst.authority(ISSUING).issuer
    for number in range(3):
        nonce = bytes([number]) * 32
        told = await answer(lab, cert_id(lab, row.serial), nonce=nonce)
        assert (told.max_age, told.etag, told.expires) == (0, None, None)
        asked = cert_id(lab, row.serial)
        good = check_response(parse_response(told.body), cert_id=asked, issuer=issuer, now=lab.clock(), nonce=nonce)
        assert good == Good()
        with pytest.raises(BadResponse):
            check_response(parse_response(told.body), cert_id=asked, issuer=issuer, now=lab.clock(), nonce=NONCE)
    assert await answer(lab, cert_id(lab, row.serial)) == plain


async def test_several_at_once_are_answered_in_one_and_not_kept(lab: World) -> None:
    rows = [await lab.issue(f"n{number}.internal") for number in range(3)]
    await revoke(lab.inst, rows[1].id, SUPERSEDED, lab.admin)
    asked = [cert_id(lab, row.serial) for row in rows]
    told = await answer(lab, *asked)
    assert (told.status, told.max_age) == ("revoked", 0)
    issuer = lab.inst.authority(ISSUING).issuer
    seen = [
        check_response(parse_response(told.body), cert_id=one, issuer=issuer, now=lab.clock(), nonce=None)
        for one in asked
    ]
    assert seen == [Good(), Revoked(lab.clock(), SUPERSEDED), Good()]


# ── The responder's own certificate (I-32) ──────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-32")
async def test_the_responders_certificate_is_for_that_alone(lab: World) -> None:
    made = responder_of(lab)
    issuer = lab.inst.authority(ISSUING).issuer
    made.verify_directly_issued_by(issuer.certificate)
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert made.extensions.get_extension_for_class(x509.OCSPNoCheck)
    kinds = {type(one.value) for one in made.extensions}
    assert not kinds & {x509.CRLDistributionPoints, x509.AuthorityInformationAccess, x509.SubjectAlternativeName}
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(hours=48)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


@pytest.mark.invariant("I-32")
async def test_it_is_renewed_at_half_of_its_life(lab: World) -> None:
    row = await lab.issue()
    kept = await answer(lab, cert_id(lab, row.serial))
    first = responder_of(lab)
    half = first.not_valid_before_utc + (first.not_valid_after_utc - first.not_valid_before_utc) / 2
    lab.clock.now = half - timedelta(seconds=1)
    await lab.responder.renew()
    assert responder_of(lab) == first
    lab.clock.now = half + timedelta(seconds=1)
    await lab.responder.renew()
    second = responder_of(lab)
    assert second.serial_number != first.serial_number
    assert second.public_key() != first.public_key()
    assert await lab.status(row.serial) == Good()
    assert (await answer(lab, cert_id(lab, row.serial))).body != kept.body
    assert len([entry for entry in lab.inst.keys.list() if entry[0] == f"ocsp-{ISSUING}"]) == 1
    await lab.responder.renew()
    assert responder_of(lab) == second


@pytest.mark.invariant("I-32", "I-33")
async def test_an_expired_responder_answers_nothing(lab: World) -> None:
    """276."""
    row = await lab.issue()
    await answer(lab, cert_id(lab, row.serial))
    lab.clock.now = responder_of(lab).not_valid_after_utc + timedelta(seconds=1)
    for nonce in (None, NONCE):
        told = await answer(lab, cert_id(lab, row.serial), nonce=nonce)
        assert (told.body, told.max_age) == (INTERNAL, 0)
    await lab.responder.renew()
    assert await lab.status(row.serial) == Good()


@pytest.mark.invariant("I-29")
async def test_no_answer_outlives_its_responder(lab: World) -> None:
    row = await lab.issue()
    end = responder_of(lab).not_valid_after_utc
    lab.clock.now = end - timedelta(minutes=10)
    told = await answer(lab, cert_id(lab, row.serial))
    assert ocsp.load_der_ocsp_response(told.body).next_update_utc == end
    lab.clock.now = end - timedelta(seconds=20)
    told = await answer(lab, cert_id(lab, row.serial))
    assert told.expires == end
    assert told.max_age == 20


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize("state", ["frozen_at", "retired_at"])
async def test_an_authority_that_issues_no_more_still_answers(lab: World, state: str) -> None:
    row = await lab.issue()
    if state == "frozen_at":
        await freeze.freeze(lab.inst, ISSUING, "test", lab.admin)
    else:
        await lab.inst.db.write(authorities.retire(ISSUING, at=lab.clock()))
    lab.clock.move(timedelta(hours=40))
    await lab.responder.renew()
    assert await lab.status(row.serial) == Good()
    await revoke(lab.inst, row.id, SUPERSEDED, lab.admin)
    assert await lab.status(row.serial) == Revoked(lab.clock(), SUPERSEDED)


@pytest.mark.invariant("I-24")
async def test_a_revocation_by_a_clock_a_little_ahead_is_a_revocation(lab: World) -> None:
    row = await lab.issue()
    lab.clock.move(timedelta(seconds=5))
    await revoke(lab.inst, row.id, SUPERSEDED, lab.admin)
    lab.clock.move(-timedelta(seconds=5))
    assert await lab.status(row.serial) == Revoked(lab.clock(), SUPERSEDED)


# ── The store away (I-33) ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def away(lab: World, postgres: Postgres) -> Iterator[None]:
    """The store does not answer: the server stopped; SQLite, which is no server, closed."""
    if lab.dialect == "sqlite":
        lab.inst.db.close()
        yield
        return
    # Not `immediate`: a recovery sets the sequences of a database that was copied from a template back (PostgreSQL).
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@pytest.mark.invariant("I-33")
async def test_without_the_store_kept_answers_for_a_minute_then_try_later(lab: World, postgres: Postgres) -> None:
    """274."""
    row, fresh = await lab.issue(), await lab.issue("b.internal")
    kept = await answer(lab, cert_id(lab, row.serial))
    with away(lab, postgres):
        for seconds in (0.0, 30.0, 59.9):
            lab.seconds[0] = seconds
            assert (await answer(lab, cert_id(lab, row.serial))).body == kept.body
            for told in (
                await answer(lab, cert_id(lab, fresh.serial)),  # never asked before
                await answer(lab, cert_id(lab, b"\x01")),
                await answer(lab, cert_id(lab, row.serial), nonce=NONCE),
            ):
                assert (told.body, told.status, told.max_age) == (TRY_LATER, "tryLater", 0)
        for seconds in (60.0, 61.0, 1e9):
            lab.seconds[0] = seconds
            assert (await answer(lab, cert_id(lab, row.serial))).body == TRY_LATER
        lab.seconds[0] = 30.0
        lab.clock.move(timedelta(minutes=31))  # past half of its life it is not given out either
        assert (await answer(lab, cert_id(lab, row.serial))).body == TRY_LATER
    if lab.dialect == "postgresql":
        assert await lab.status(row.serial) == Good()
        await revoke(lab.inst, row.id, SUPERSEDED, lab.admin)
        assert await lab.status(row.serial) == Revoked(lab.clock(), SUPERSEDED)


@pytest.mark.invariant("I-33")
async def test_a_responder_that_never_saw_the_store_says_try_later(lab: World, postgres: Postgres) -> None:
    row = await lab.issue()
    assert lab.responder.count._last is None
    with away(lab, postgres):
        assert (await answer(lab, cert_id(lab, row.serial))).body == TRY_LATER


async def test_many_questions_at_once(lab: World) -> None:
    rows = [await lab.issue(f"n{number}.internal") for number in range(5)]
    revoked = {row.id for row in rows[::2]}
    for row in rows[::2]:
        await revoke(lab.inst, row.id, SUPERSEDED, lab.admin)
    told = await asyncio.gather(*(lab.status(row.serial) for row in rows * 10))
    assert told == [Revoked(lab.clock(), SUPERSEDED) if row.id in revoked else Good() for row in rows * 10]
