"""CRL, OCSP and inventory, compared (I-34): silent while they agree, however fast things change, and loud where the
database was changed behind our back, each way.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from sqlalchemy import delete, select, update

from rootward.ca import agree as module
from rootward.ca import publish, revoke
from rootward.ca.agree import agree
from rootward.core.crl import parse_crl
from rootward.core.crl_serials import serials
from rootward.core.revocation import RevocationReason
from rootward.store.certificates import Certificate
from rootward.store.schema import certificates, crls, watermark
from tests.support.world import ISSUING, World

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0)


async def revoked(lab: World, name: str, reason: RevocationReason = RevocationReason.SUPERSEDED) -> Certificate:
    row = await lab.issue(name)
    await revoke.revoke(lab.inst, row.id, reason, lab.admin)
    return row


async def say(lab: World, statement: object) -> None:
    await lab.inst.db.write(lambda conn: conn.execute(statement).rowcount)  # type: ignore[call-overload]  # any DML


@pytest.mark.invariant("I-34")
async def test_they_agree_while_things_change(lab: World) -> None:
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    held = await revoked(lab, "held.internal", RevocationReason.CERTIFICATE_HOLD)
    for number in range(5):
        await lab.issue(f"a{number}.internal")
        await revoked(lab, f"r{number}.internal")
    assert await agree(lab.inst) == []  # the CRL does not know them yet, and that is no difference
    lab.clock.move(SECOND)
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    assert await agree(lab.inst) == []
    await revoke.release(lab.inst, held.id, lab.admin)
    assert await agree(lab.inst) == []  # it is still in the CRL
    lab.clock.move(timedelta(hours=20))
    assert await agree(lab.inst) == []
    lab.clock.move(timedelta(days=100))  # all have expired; the responder's certificate with them
    await lab.responder.renew()
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    assert await agree(lab.inst) == []


@pytest.mark.invariant("I-34")
async def test_a_revocation_that_the_crl_lost(lab: World) -> None:
    row = await revoked(lab, "a.internal")
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    lab.clock.move(SECOND)
    other = await lab.issue("b.internal")
    # revoked in the database alone, before the CRL and without counting
    changed = update(certificates).where(certificates.c.id == other.id)
    await say(lab, changed.values(revoked_at=lab.clock() - 2 * SECOND, reason="superseded"))
    (found,) = await agree(lab.inst)
    assert (found.serial, found.inventory, found.crl, found.ocsp) == (other.serial.hex(), "revoked", "good", "revoked")
    assert row.serial.hex() != found.serial


@pytest.mark.invariant("I-34")
async def test_an_answer_that_was_kept_too_long(lab: World) -> None:
    row = await lab.issue()
    await lab.status(row.serial)  # `good` is kept under this count of revocations
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    lab.clock.move(SECOND)
    changed = update(certificates).where(certificates.c.id == row.id)
    await say(lab, changed.values(revoked_at=lab.clock(), reason="superseded"))
    (found,) = await agree(lab.inst)
    assert (found.inventory, found.ocsp) == ("revoked", "good")


@pytest.mark.invariant("I-34")
async def test_a_certificate_that_the_inventory_forgot(lab: World) -> None:
    row = await revoked(lab, "a.internal")
    lab.clock.move(SECOND)
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    await say(lab, delete(certificates).where(certificates.c.id == row.id))
    (found,) = await agree(lab.inst)
    assert (found.serial, found.inventory, found.crl) == (row.serial.hex(), "unknown", "revoked")


async def test_a_finding_stays_until_it_is_mended_and_is_told_once(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await lab.issue()
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    lab.clock.move(SECOND)
    changed = update(certificates).where(certificates.c.id == row.id)
    await say(lab, changed.values(revoked_at=lab.clock() - 2 * SECOND, reason="superseded"))
    assert len(await agree(lab.inst)) == 1
    monkeypatch.setattr(module, "SAMPLE", 0)  # chance would not find it again
    assert len(await agree(lab.inst)) == 1
    assert len(await lab.events("status.mismatch")) == 1
    await say(lab, changed.values(revoked_at=None, reason=None))
    await say(lab, update(watermark).values(revocations=watermark.c.revocations + 1))
    lab.seconds[0] += 1  # the count that was read before is trusted no longer
    assert await agree(lab.inst) == []
    assert len(await lab.events("status.mismatch")) == 1


@pytest.mark.invariant("I-34", "I-66")
async def test_the_sample_is_bounded(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        await lab.issue(f"a{number}.internal")
    await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    asked: list[bytes] = []
    answer = lab.inst.process.ocsp
    assert answer is not None

    async def counting(name: str, request: bytes) -> bytes:
        asked.append(request)
        return await answer(name, request)

    lab.inst.process.ocsp = counting
    monkeypatch.setattr(module, "SAMPLE", 5)
    await agree(lab.inst)
    assert 0 < len(asked) <= 5


async def test_the_serials_of_a_list_are_those_that_another_reader_finds(lab: World) -> None:
    empty = await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    assert list(serials(empty.der)) == []
    rows = [await revoked(lab, f"a{number}.internal") for number in range(7)]
    lab.clock.move(SECOND)
    crl = await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    found = list(serials(crl.der))
    assert sorted(found) == sorted(row.serial for row in rows)
    read = x509.load_der_x509_crl(crl.der)
    assert [int.from_bytes(serial, "big") for serial in found] == [entry.serial_number for entry in read]
    assert found == [entry.serial for entry in parse_crl(crl.der)]


async def test_the_bytes_of_a_crl_are_read_once(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await publish.publish(lab.inst, lab.inst.authority(ISSUING))
    first = await publish.current_crl(lab.inst, ISSUING)
    assert first is await publish.current_crl(lab.inst, ISSUING)
    # another replica publishes: the store names a higher number, and the next one who asks gets it
    newer = msgspec.structs.replace(made, number=made.number + 1)
    lab.inst.process.crls.clear()
    await publish.current_crl(lab.inst, ISSUING)
    row = msgspec.structs.asdict(newer)
    await lab.inst.db.write(lambda conn: conn.execute(crls.insert().values(row)).rowcount)
    found = await publish.current_crl(lab.inst, ISSUING)
    assert found is not None
    assert found.number == newer.number
    # and what is kept is not served once the store has no such list
    await say(lab, delete(crls).where(crls.c.issuer == made.issuer))
    assert await publish.current_crl(lab.inst, ISSUING) is None
    count = await lab.inst.db.read(lambda conn: conn.execute(select(crls.c.number)).all())
    assert made.number not in {number for (number,) in count}
