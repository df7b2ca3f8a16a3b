"""A serial that only a CRL had told of, and then its certificate comes, on each kind of store: the row is filled, once,
and what was revoked stays so.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, text

from rootward.ca import adopt, authorities, publish, revoke
from rootward.ca.access import Caller, Principal, new_token
from rootward.ca.filing import Filer, file
from rootward.ca.founding import FOUNDER, Beginning
from rootward.ca.installation import Installation
from rootward.ca.recall import recall
from rootward.core import paperwork
from rootward.core.crl import parse_crl
from rootward.core.csr import parse_csr
from rootward.core.foreign import read_foreign
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.roles import Grant, Role
from rootward.core.script import Certify, Input, sha256_of
from rootward.fleet import books, inventory
from rootward.fleet.imports import Imported, import_certificates
from rootward.store import authorities as issuers
from rootward.store import blocked, certificates, events, search
from rootward.store.certificates import Certificate
from rootward.store.db import Database, Look
from rootward.store.errors import Lost
from tests.contract.test_adopt import arriving, list_of, old_ca
from tests.contract.test_authorities import opened
from tests.contract.test_results import Hall, entry
from tests.support.ceremonies import MemoryKeys, csr_pem
from tests.support.room import now, spec
from tests.support.store import complete, intent
from tests.support.tiers import Tier
from tests.support.world import OFFICER, World, new_key, refused

SERIAL, NAME = "41" * 20, "found.internal"
DAY = timedelta(days=1)


def leaf(tier: Tier, *, days: int = 90) -> bytes:
    """A certificate of before that the CA's list has, for so many days."""
    at = now() - 20 * DAY
    builder = x509.CertificateBuilder().issuer_name(tier.certificate.subject).subject_name(x509.Name([]))
    builder = builder.serial_number(int(SERIAL, 16)).public_key(new_key().public_key())
    builder = builder.not_valid_before(at).not_valid_after(at + DAY * days)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
    return builder.sign(tier.key._private, hashes.SHA256()).public_bytes(Encoding.DER)


def unaligned(der: bytes, unused: int) -> bytes:
    """That certificate with a signature whose last octet has so many bits that do not count."""
    at = len(der) - len(x509.load_der_x509_certificate(der).signature) - 1
    return der[:at] + bytes([unused]) + der[at + 1 :]


async def bare(db: Database, tier: Tier, serial: str = SERIAL, **more: Any) -> Installation:
    """An installation with that CA, whose old list has a serial that nobody knows more of."""
    inst = opened(db)
    crl = list_of(tier, serials=(int(serial, 16),), **more)
    done = await adopt.adopt(inst, arriving(tier, crl=crl), FOUNDER, beginning=Beginning(new_token()[1]))
    assert (done.revoked, done.unknown) == (1, 1)
    await db.write(lambda conn: certificates.index_names(conn, 100))
    return inst


def admin(*grants: Grant) -> Caller:
    return Caller(Principal("ann", "person", "ann", grants or (Grant(Role.ADMIN),)), "req_ann")


async def take_in(inst: Installation, content: bytes, caller: Caller | None = None) -> Imported:
    (one,) = await import_certificates(
        inst, lambda: content, password=None, owner=None, labels={}, caller=caller or admin()
    )
    return one


async def row_of(inst: Installation, authority: str = "old", serial: str = SERIAL) -> Certificate:
    n = inst.authority(authority).n
    found = await inst.db.read(lambda conn: certificates.by_serial(conn, n, bytes.fromhex(serial)))
    assert found is not None
    return found


async def told(inst: Installation, kind: str) -> list[events.Event]:
    return [*await inst.db.read(lambda conn: events.list(conn, events.Filters(kind=kind), limit=1000))]


async def named(inst: Installation, part: str) -> list[str]:
    """The ids of what the search finds."""
    while await inst.db.write(lambda conn: certificates.index_names(conn, 100)):
        pass
    filters = inventory.Filters(q=part)
    found = await inst.db.read(lambda conn: inventory.search(conn, filters, now=inst.clock(), limit=10))
    return [one.id for one in found.certificates]


async def listed(inst: Installation, name: str = "old") -> set[str]:
    await publish.publish(inst, inst.authority(name))
    current = await publish.current_crl(inst, name)
    assert current is not None
    return {one.serial.hex() for one in parse_crl(current.der)}


def differences(conn: Connection) -> list[str]:
    """Where the inventory and the log do not agree."""
    every = events.page(conn, after=0, limit=10_000)
    known = {one.n: one.key_id for one in issuers.list_issuers(conn)}
    found = []
    for raw in conn.execute(text("SELECT id FROM certificates ORDER BY n")).scalars():
        row = certificates.intent(conn, raw)
        assert row is not None
        found += books.differences(row, [one for one in every if one.certificate == row.id], known)
    return found


def full(row: Certificate, der: bytes) -> bool:
    """Whether the row has that certificate, and is found by all that it says."""
    found = read_foreign(der)
    mine = (row.tbs, row.algorithm, row.signature, row.sha256, row.key_id, row.subject, row.names)
    theirs = (found.tbs, found.algorithm, found.signature, found.sha256, found.key_id, found.subject, found.names)
    return (*mine, row.not_before, row.not_after) == (*theirs, found.not_before, found.not_after)


@pytest.mark.invariant("I-16", "I-56")
async def test_a_certificate_that_is_imported_later_fills_its_row(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    before = await row_of(inst)
    assert (before.der, before.sha256, await named(inst, NAME)) == (None, None, [])
    done = await take_in(inst, der)
    assert (done.result, done.certificate_id, done.reasons) == ("imported", before.id, ())
    row = await row_of(inst)
    assert (row.der, full(row, der)) == (der, True)
    kept = ("id", "n", "issuer", "serial", "authority", "requester", "intended_at", "issued_at", "revoked_at", "reason")
    assert [getattr(row, name) for name in kept] == [getattr(before, name) for name in kept]
    assert row.revoked_at is not None
    assert await named(inst, NAME) == [row.id]
    assert [one.id for one in await db.read(lambda conn: certificates.by_key(conn, row.key_id))] == [row.id]
    assert await listed(inst) == {SERIAL}
    (event,) = await told(inst, "certificate.filled")
    assert (event.certificate, event.authority, event.actor) == (row.id, "old", "ann")
    assert event.values() == {
        "serial": SERIAL,
        "issuer": "old",
        "issuer_key": tier.issuer.key_id,
        "sha256": row.sha256,
    }
    assert await db.read(differences) == []
    assert (await take_in(inst, der)).result == "known"
    assert await row_of(inst) == row
    assert len(await told(inst, "certificate.filled")) == 1


@pytest.mark.invariant("I-16")
async def test_the_same_import_of_its_ca_with_the_certificate_fills_it(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    came = replace(arriving(tier, crl=list_of(tier, serials=(int(SERIAL, 16),))), inventory=(der,))
    done = await adopt.adopt(inst, came, FOUNDER)
    assert (done.certificates, done.revoked, done.unknown) == (1, 0, 0)
    assert full(await row_of(inst), der)
    assert (await adopt.adopt(inst, came, FOUNDER)).certificates == 0
    assert await db.read(differences) == []


@pytest.mark.invariant("I-12")
async def test_a_key_that_its_list_calls_compromised_is_blocked_once_it_is_known(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier, reason=x509.ReasonFlags.key_compromise), leaf(tier)
    await take_in(inst, der)
    row = await row_of(inst)
    assert await db.read(lambda conn: blocked.contains(conn, row.key_id))


async def test_a_hold_that_is_filled_can_still_be_released(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier, reason=x509.ReasonFlags.certificate_hold), leaf(tier)
    await take_in(inst, der)
    row = await row_of(inst)
    assert row.status(inst.clock()) == "held"
    await revoke.release(inst, row.id, FOUNDER)
    assert (await row_of(inst)).status(inst.clock()) == "active"
    assert await db.read(differences) == []


@pytest.mark.invariant("I-16", "I-21")
async def test_one_that_has_ended_leaves_the_list_once_two_have_shown_it_since(db: Database) -> None:
    """As every other: nobody knew its end before."""
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    await take_in(inst, der)
    later = read_foreign(der).not_after + 3 * DAY
    inst.clock = lambda: later
    assert [await listed(inst) for _ in range(3)] == [{SERIAL}, {SERIAL}, set()]


@pytest.mark.invariant("I-16")
async def test_one_that_no_list_would_show_any_more_stays_bare(db: Database) -> None:
    """It ended before its CA began, as it says: its serial is all that can be relied on."""
    tier = old_ca()
    inst, before = await bare(db, tier), leaf(tier, days=2)
    assert read_foreign(before).not_after < tier.certificate.not_valid_before_utc
    assert (await take_in(inst, before)).result == "known"
    assert (await row_of(inst)).tbs == b""
    assert [await listed(inst) for _ in range(3)] == [{SERIAL}] * 3


@pytest.mark.invariant("I-16")
async def test_what_has_ended_already_does_not_take_a_living_serial_off_the_list(db: Database) -> None:
    """Where a CA gave one serial to two, nobody knows which of them its list means."""
    tier = old_ca()
    inst, ended, living = await bare(db, tier), leaf(tier, days=22), leaf(tier)
    later = read_foreign(ended).not_after + timedelta(seconds=1)
    inst.clock = lambda: later
    assert (await take_in(inst, ended)).result == "known"
    assert (await row_of(inst)).tbs == b""
    assert [await listed(inst) for _ in range(3)] == [{SERIAL}] * 3
    assert (await take_in(inst, living)).result == "imported"
    assert [await listed(inst) for _ in range(3)] == [{SERIAL}] * 3
    assert await db.read(differences) == []


@pytest.mark.invariant("I-59")
@pytest.mark.parametrize("serial", [SERIAL, "42"])
async def test_a_signature_that_is_not_of_whole_octets_is_filed_nowhere(db: Database, serial: str) -> None:
    """The same certificate by another hash: what is put together anew of its parts would not be it."""
    tier = old_ca()
    inst, der = await bare(db, tier, serial), leaf(tier)
    while der[-1] & 1:
        der = leaf(tier)
    altered = unaligned(der, 1)
    assert x509.load_der_x509_certificate(altered).signature == x509.load_der_x509_certificate(der).signature
    for one in (altered, unaligned(der, 3)):
        assert await refused(take_in(inst, one)) == "RW-IMPORT-ITEM"
    came = replace(arriving(tier, crl=list_of(tier, serials=(int(serial, 16),))), inventory=(altered,))
    assert (await adopt.adopt(inst, came, FOUNDER)).certificates == 0
    assert [one.sha256 for one in await told(inst, "certificate.filled")] == []
    assert await db.read(differences) == []
    assert (await take_in(inst, der)).result == "imported"
    assert full(await row_of(inst), der)
    assert await db.read(differences) == []


async def test_only_a_bare_row_is_ever_filled(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    await take_in(inst, der)
    row = await row_of(inst)
    values = {"tbs": b"other", "algorithm": b"", "signature": b"x", "sha256": "0" * 64, "key_id": "", "subject": ""}
    dates = {"not_before": row.not_before, "not_after": row.not_after}
    with pytest.raises(Lost):
        await db.write(lambda conn: certificates.fill(conn, row, {**values, "names": (), **dates}))
    assert await row_of(inst) == row
    # A second certificate of the same serial is another one, and changes nothing.
    assert (await take_in(inst, leaf(tier))).result == "known"
    assert await row_of(inst) == row


@pytest.mark.invariant("I-59")
@pytest.mark.parametrize(
    "change",
    [
        "tbs = algorithm",
        "signature = tbs",
        "sha256 = NULL",
        "key_id = ''",
        "subject = 'CN=x'",
        "names = '[]'",
        "not_after = not_after - 86400",
        "not_before = not_before + 1",
        "revoked_at = NULL, reason = NULL",
        "tbs = '', algorithm = '', signature = NULL, sha256 = NULL, key_id = '', subject = '', names = '[]'",
    ],
)
async def test_a_filled_row_that_somebody_changed_is_found(db: Database, change: str) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    await take_in(inst, der)
    assert await db.read(differences) == []
    sql = text(f"UPDATE certificates SET {change} WHERE serial = :serial")  # noqa: S608 -- of the list above
    await db.write(lambda conn: conn.execute(sql, {"serial": bytes.fromhex(SERIAL)}).rowcount)
    assert await db.read(differences) != []


@pytest.mark.invariant("I-16", "I-59")
@pytest.mark.parametrize(
    "change",
    [
        "subject = 'CN=x'",
        "not_after = not_after - 86400",
        "algorithm = serial",
        "tbs = serial",
        "tbs = serial, not_after = not_after - 86400",
        "tbs = serial, subject = 'CN=x', key_id = 'x'",
    ],
)
async def test_a_bare_row_that_says_more_than_its_list_is_found(db: Database, change: str) -> None:
    tier = old_ca()
    await bare(db, tier)
    assert await db.read(differences) == []
    sql = text(f"UPDATE certificates SET {change} WHERE serial = :serial")  # noqa: S608 -- of the list above
    await db.write(lambda conn: conn.execute(sql, {"serial": bytes.fromhex(SERIAL)}).rowcount)
    assert await db.read(differences) != []


@pytest.mark.invariant("I-59")
async def test_an_export_of_before_says_that_it_was_bare(db: Database) -> None:
    tier = old_ca()
    inst, der = await bare(db, tier), leaf(tier)
    before = await row_of(inst)
    await take_in(inst, der)
    row = await row_of(inst)
    every = await db.read(lambda conn: events.page(conn, after=0, limit=1000))
    mine = [one for one in every if one.certificate == row.id]
    then = books.as_of(row, [one for one in mine if one.kind != "certificate.filled"])
    assert then == before
    assert books.as_of(row, mine) == row
    known = {one.n: one.key_id for one in await db.read(lambda conn: issuers.list_issuers(conn))}
    assert [*books.differences(then, mine[:-1], known)] == []


# ── By ceremonies ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hall(db: Database) -> Hall:
    return Hall(opened(db))


@pytest.mark.invariant("I-16")
async def test_a_ceremonys_certificate_fills_what_an_earlier_list_had(hall: Hall) -> None:
    await hall.found()
    csr = csr_pem(MemoryKeys().make("vault", KeyAlgorithm.P256)).encode()
    key = parse_csr(csr).public_key
    step = Certify("root", SERIAL, spec("vault"), Input("vault.csr", sha256_of(csr)), key.id)
    await hall.later(hall.list(entry(SERIAL, "superseded")))
    before = await row_of(hall.inst, "root")
    await hall.later(step, files={sha256_of(csr): csr})
    row = await row_of(hall.inst, "root")
    assert (row.id, row.key_id, row.reason, row.revoked_at) == (before.id, key.id, "superseded", before.revoked_at)
    assert row.der is not None
    assert full(row, row.der)
    assert len(await told(hall.inst, "certificate.filled")) == 1
    with pytest.raises(Problem) as caught:
        await hall.later(msgspec.structs.replace(step, spec=spec("other")), files={sha256_of(csr): csr})
    assert "that of another certificate by root" in caught.value.detail
    assert [(one.serial, one.reason) for one in (await hall.answer()).entries] == [(SERIAL, "superseded")]
    assert await hall.listed() == {SERIAL: "superseded"}
    assert await hall.inst.db.read(differences) == []


@pytest.mark.invariant("I-22")
async def test_an_authority_whose_hold_was_released_before_it_came_is_in_the_inventory(hall: Hall) -> None:
    await hall.found()
    await authorities.create(hall.inst, spec("two"), "root", "memory", hall.admin)
    body = (await authorities.request(hall.inst, "two"))[1].body
    asked = paperwork.read(body, paperwork.Request)
    assert isinstance(asked.wanted, paperwork.Certify)
    key = parse_csr(asked.wanted.csr.encode()).public_key
    certify = Certify("root", SERIAL, asked.wanted.spec, Input("two.json", sha256_of(body)), key.id)
    await hall.later(hall.list(entry(SERIAL, "certificateHold")))
    await revoke.release(hall.inst, (await row_of(hall.inst, "root")).id, hall.admin)
    await hall.later(certify, files={sha256_of(body): body})
    row = await row_of(hall.inst, "root")
    assert row.der == hall.inst.authority("two").issuer.der
    assert full(row, row.der)
    await hall.later(hall.list(entry(SERIAL)))  # it is known as that authority's
    assert hall.inst.authority("two").state == "retired"
    assert len(await told(hall.inst, "authority.revoked")) == 1
    assert await hall.inst.db.read(differences) == []


# ── After a restore ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-16")
async def test_what_a_restore_knew_by_a_list_alone_is_filled_by_its_admin(lab: World) -> None:
    """Issued here after the backup, so it is not from before its CA came; an officer's import leaves the row alone."""
    row = await lab.issue()
    der, id = row.der, row.id
    assert der is not None
    await revoke.revoke(lab.inst, id, revoke.RevocationReason.SUPERSEDED, lab.admin)
    crl = await publish.publish(lab.inst, lab.inst.authority("issuing"))
    await lab.inst.db.write(lambda conn: conn.execute(text("DELETE FROM certificates WHERE id = :id"), {"id": id}))
    await lab.inst.db.write(lambda conn: recall(conn, crl.der, at=lab.clock()))
    by_officer = await take_in(lab.inst, der, admin(OFFICER))
    assert by_officer.result == "odd"
    there = await row_of(lab.inst, "issuing", row.serial_hex)
    assert there.tbs == b""
    done = await take_in(lab.inst, der, lab.admin)
    assert (done.result, done.certificate_id) == ("imported", there.id)
    filled = await row_of(lab.inst, "issuing", row.serial_hex)
    assert full(filled, der)
    assert (filled.revoked_at, filled.reason) == (there.revoked_at, "superseded")


# ── At one moment ───────────────────────────────────────────────────────────────────────────────────────────────────


def waits(conn: Connection) -> bool:
    return bool(conn.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())


class Pause:
    """A transaction that waits in its midst until another one has come as far as it can."""

    def __init__(self) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.there.set()
        assert self.go_on.wait(60)


async def beside(
    first: Callable[[Connection], Any], db: Database, second: Callable[[], Any], pause: Pause | None = None
) -> bool:
    """`second` while the transaction that does `first` is at its `pause`, or at its end, and not committed; whether it
    had to wait for that.
    """
    wait = pause or Pause()

    def slowly(conn: Connection) -> None:
        first(conn)
        if pause is None:
            wait()

    one = asyncio.create_task(db.write(slowly))
    assert await asyncio.to_thread(wait.there.wait, 60)
    two = asyncio.create_task(second())
    while not two.done() and not await db.read(waits):
        await asyncio.wait([two], timeout=0.01)
    waited = not two.done()
    wait.go_on.set()
    await one
    await two
    return waited


async def test_of_two_that_fill_it_at_one_moment_one_does(postgres_db: Database) -> None:
    tier, db = old_ca(), postgres_db
    inst, der = await bare(db, tier), leaf(tier)
    issuer = (await db.read(lambda conn: issuers.list_issuers(conn, "old")))[-1]
    found, filer = read_foreign(der), Filer(FOUNDER, inst.clock(), "")
    results = []

    async def second() -> None:
        results.append(await take_in(inst, der))

    await beside(lambda conn: file(conn, issuer, found, filer), db, second)
    assert [one.result for one in results] == ["known"]
    assert len(await told(inst, "certificate.filled")) == 1
    assert full(await row_of(inst), der)


class Slowly:
    """A look of the search after which it waits, before it writes."""

    def __init__(self, look: Look, pause: Pause) -> None:
        self.look, self.pause = look, pause

    def all(self, conn: Connection, values: Any) -> Any:
        found = self.look.all(conn, values)
        self.pause()
        return found


async def index_beside(inst: Installation, look: str, second: Callable[[], Any]) -> bool:
    """`second` while the search takes everything in anew, after it has looked so; whether it had to wait for that."""

    def anew(conn: Connection) -> int:
        conn.execute(text("DELETE FROM certificate_search"))
        return conn.execute(text("UPDATE certificates SET indexed_at = NULL")).rowcount

    await inst.db.write(anew)
    pause = Pause()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, look, Slowly(getattr(search, look), pause))
        return await beside(lambda conn: search.index(conn, 100, at=inst.clock()), inst.db, second, pause)


@pytest.mark.parametrize("look", ["_WAITING", "_BARE"])
async def test_what_is_filled_while_the_search_takes_it_in_is_found(postgres_db: Database, look: str) -> None:
    tier = old_ca()
    inst, der = await bare(postgres_db, tier), leaf(tier)
    await index_beside(inst, look, lambda: take_in(inst, der))
    assert await named(inst, NAME) == [(await row_of(inst)).id]


async def test_an_intent_is_completed_while_the_search_has_it_before_it(postgres_db: Database) -> None:
    """Of an intent nothing changes that is searched: nobody who issues waits for the search to have looked."""
    inst, db = await bare(postgres_db, old_ca()), postgres_db
    values = intent(db.lease, issuer=inst.authority("old").n, authority="old")
    await db.write(certificates.intend(values))
    assert not await index_beside(inst, "_WAITING", lambda: db.write(complete(values["id"], db.lease)))


async def test_a_serial_that_is_not_this_certificates_fills_nothing(db: Database) -> None:
    """Another CA's certificate with the same serial is another certificate."""
    tier, other = old_ca(), old_ca("else")
    inst = await bare(db, tier)
    assert (await take_in(inst, leaf(other))).result == "imported"
    assert (await row_of(inst)).tbs == b""
