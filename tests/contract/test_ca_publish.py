"""CRLs on both stores: when one is due, numbers that only rise, and entries that stay long enough."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from rootward.ca import publish as publish_module
from rootward.ca.publish import KEPT, accept, current_crl, publish, publish_due
from rootward.ca.revoke import revoke
from rootward.core.crl import BadCrl, check_crl, parse_crl
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.store import authorities
from rootward.store.authorities import Crl
from rootward.store.errors import Lost
from rootward.store.failpoint import Injected, armed
from tests.support.world import ISSUING, World, refused

Reason = RevocationReason
HOUR = timedelta(hours=1)


async def make(lab: World) -> Crl:
    """A CRL made now, and what is served from then on."""
    made = await publish(lab.inst, lab.inst.authority(ISSUING))
    assert await current_crl(lab.inst, ISSUING) == made
    return made


def serials(crl: Crl) -> set[bytes]:
    return {entry.serial for entry in parse_crl(crl.der)}


@pytest.mark.invariant("I-18", "I-24")
async def test_what_is_published(lab: World) -> None:
    row = await lab.issue()
    await revoke(lab.inst, row.id, Reason.KEY_COMPROMISE, lab.admin)
    lab.clock.move(HOUR)
    crl = await make(lab)
    authority = lab.inst.authority(ISSUING)
    check_crl(crl.der, authority.issuer, now=lab.clock(), last_number=crl.number - 1)
    seen = x509.load_der_x509_crl(crl.der)
    assert seen.is_signature_valid(authority.issuer.certificate.public_key())  # type: ignore[arg-type]  # an EC key
    assert (seen.last_update_utc, seen.next_update_utc) == (lab.clock(), lab.clock() + timedelta(hours=24))
    assert seen.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == crl.number
    (entry,) = seen
    assert entry.revocation_date_utc == lab.clock() - HOUR
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    event = (await lab.events("crl.published"))[-1]
    assert (event.authority, event.values()) == (ISSUING, {"number": crl.number, "entries": 1})


@pytest.mark.invariant("I-19")
async def test_a_crl_is_due_at_half_of_its_life(lab: World) -> None:
    assert await publish_due(lab.inst) == 1
    first = await current_crl(lab.inst, ISSUING)
    assert first is not None
    lab.clock.now = first.this_update + timedelta(hours=12) - timedelta(seconds=1)
    assert await publish_due(lab.inst) == 0
    lab.clock.move(timedelta(seconds=1))
    assert await publish_due(lab.inst) == 1
    second = await current_crl(lab.inst, ISSUING)
    assert second is not None
    assert second.number > first.number


@pytest.mark.invariant("I-17", "I-61")
async def test_numbers_rise_whatever_the_clock_does(lab: World) -> None:
    lab.clock.move(HOUR)  # the authority is new: there is room to go back
    numbers = [(await make(lab)).number]
    assert numbers[0] == int(lab.clock().timestamp() * 1000)
    for span in (
        timedelta(),
        timedelta(seconds=1),
        -timedelta(seconds=30),
        -timedelta(seconds=1),
        timedelta(seconds=30),
    ):
        lab.clock.move(span)
        numbers.append((await make(lab)).number)
    assert numbers == sorted(set(numbers))


@pytest.mark.invariant("I-17", "I-18")
async def test_a_clock_far_behind_never_makes_numbers_fall(lab: World) -> None:
    """What was dated by a clock that ran ahead stays above; whatever comes of it, nothing older takes its place."""
    lab.clock.move(timedelta(days=2))
    ahead = await make(lab)
    lab.clock.move(-timedelta(days=2))
    await lab.responder.renew()
    try:
        made = await publish(lab.inst, lab.inst.authority(ISSUING))
    except (BadCrl, Problem):
        assert (await current_crl(lab.inst, ISSUING)) == ahead
    else:
        assert made.number > ahead.number
    claimed = await lab.inst.db.read(authorities.crl_numbers_claimed)
    assert claimed[lab.inst.authority(ISSUING).n, "full"] > ahead.number


@pytest.mark.invariant("I-17")
async def test_many_at_once_have_numbers_of_their_own(lab: World) -> None:
    authority = lab.inst.authority(ISSUING)
    outcomes = await asyncio.gather(*(publish(lab.inst, authority) for _ in range(8)), return_exceptions=True)
    made = [one for one in outcomes if isinstance(one, Crl)]
    assert made
    assert all(isinstance(one, Crl | BadCrl | Lost | Problem) for one in outcomes), outcomes
    assert len({crl.number for crl in made}) == len(made)
    current = await current_crl(lab.inst, ISSUING)
    assert current is not None
    assert current.number == max(crl.number for crl in made)


@pytest.mark.invariant("I-17")
async def test_a_failure_burns_the_number_and_leaves_the_last_good_one(lab: World) -> None:
    for where in ("crl.claimed", "crl.drafted", "crl.signed"):
        first = await make(lab)
        with armed(f"{where}:fail"), pytest.raises(Injected):
            await publish(lab.inst, lab.inst.authority(ISSUING))
        assert await current_crl(lab.inst, ISSUING) == first
        assert (await make(lab)).number == first.number + 2


@pytest.mark.invariant("I-18")
async def test_an_older_crl_never_takes_the_place_of_a_newer(lab: World) -> None:
    first, second = await make(lab), await make(lab)
    with pytest.raises((BadCrl, Lost, Problem)):
        await accept(lab.inst, lab.inst.authority(ISSUING), first.der, lab.admin)
    with pytest.raises((BadCrl, Lost, Problem)):
        await accept(lab.inst, lab.inst.authority(ISSUING), second.der, lab.admin)
    assert await current_crl(lab.inst, ISSUING) == second


@pytest.mark.invariant("I-18", "I-23")
async def test_a_crl_of_another_or_a_broken_one_is_not_accepted(lab: World) -> None:
    root = lab.inst.authority("root")
    served = await current_crl(lab.inst, "root")
    assert served is not None
    mine = await make(lab)
    flipped = served.der[:-1] + bytes([served.der[-1] ^ 1])
    for bad in (mine.der, flipped, served.der[:-1], b"", b"\x30\x00", served.der):
        with pytest.raises((BadCrl, Problem, Lost)):
            await accept(lab.inst, root, bad, lab.admin)
    assert await current_crl(lab.inst, "root") == served


async def test_an_offline_authority_signs_no_crl(lab: World) -> None:
    assert await refused(publish(lab.inst, lab.inst.authority("root"))) == "RW-KEY-UNAVAILABLE"
    assert await refused(current_crl(lab.inst, "none")) == "RW-NOT-FOUND"


async def test_only_the_last_ones_are_kept(lab: World) -> None:
    made = [await make(lab) for _ in range(KEPT + 2)]
    n = lab.inst.authority(ISSUING).n
    gone = await lab.inst.db.write(lambda conn: authorities.prune_crls(conn, n, "full", keep=1))
    assert gone == KEPT - 1
    assert await current_crl(lab.inst, ISSUING) == made[-1]


# ── How long an entry stays (I-16, I-21) ────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-16", "I-21")
async def test_an_entry_stays_two_crl_lives_beyond_its_certificate(lab: World) -> None:
    row = await lab.issue(lifetime=timedelta(days=3))
    other = await lab.issue("b.internal", lifetime=timedelta(days=80))
    for one in (row, other):
        await revoke(lab.inst, one.id, Reason.SUPERSEDED, lab.admin)
    shown_after = 0
    while lab.clock() <= row.not_after + timedelta(hours=48):
        crl = await make(lab)
        assert serials(crl) == {row.serial, other.serial}, lab.clock()
        shown_after += lab.clock() > row.not_after
        lab.clock.move(timedelta(hours=12))
    assert shown_after >= 2
    for _ in range(3):
        await make(lab)
        lab.clock.move(timedelta(hours=12))
    assert serials(await make(lab)) == {other.serial}


@pytest.mark.invariant("I-16", "I-21")
async def test_a_clock_that_jumped_ahead_drops_no_entry_at_once(lab: World) -> None:
    row = await lab.issue(lifetime=timedelta(days=30))
    await revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin)
    await make(lab)
    lab.clock.move(timedelta(days=400))
    assert serials(await make(lab)) == {row.serial}
    lab.clock.move(-timedelta(days=400) + timedelta(seconds=5))
    assert (await lab.row(row.id)).reason == "superseded"


@pytest.mark.invariant("I-16")
async def test_an_expired_certificate_can_still_be_revoked_and_is_listed(lab: World) -> None:
    row = await lab.issue(lifetime=timedelta(hours=1))
    lab.clock.move(timedelta(hours=5))
    assert (await revoke(lab.inst, row.id, Reason.KEY_COMPROMISE, lab.admin)).status(lab.clock()) == "revoked"
    assert serials(await make(lab)) == {row.serial}


@pytest.mark.invariant("I-19", "I-22")
async def test_a_crl_never_outlives_its_authority(lab: World) -> None:
    end = lab.inst.authority(ISSUING).issuer.not_after
    lab.clock.now = end - timedelta(hours=3)
    crl = await make(lab)
    assert crl.next_update == end
    assert await publish_due(lab.inst) == 0


@pytest.mark.invariant("I-19")
async def test_a_start_waits_for_a_short_list_and_not_for_a_long_one(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(lab)
    assert await publish_module.ready(lab.inst)
    row = await lab.issue()
    await revoke(lab.inst, row.id, Reason.SUPERSEDED, lab.admin)
    assert not await publish_module.ready(lab.inst)
    monkeypatch.setattr(publish_module, "LONG", 0)
    assert await publish_module.ready(lab.inst)
    lab.clock.move(timedelta(hours=24))
    assert not await publish_module.ready(lab.inst)
