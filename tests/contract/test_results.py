"""What ceremonies bring, by the road that it really comes: a script, its steps, signatures of participants, the file. A
serial that an offline CRL has listed never leaves it (I-16).
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, delete, text

from rootward.ca import answers, authorities, ceremony, ending, offline_keys, publish, results, revoke
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.founding import FOUNDER, Beginning
from rootward.ca.installation import DESTROYING, Installation
from rootward.ca.recall import recall
from rootward.core import paperwork
from rootward.core.crl import parse_crl
from rootward.core.csr import parse_csr
from rootward.core.participants import Participant, participant_key
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason
from rootward.core.script import (
    BackUpKey,
    Certify,
    ChangeCustodians,
    DestroyKey,
    Entry,
    FileKey,
    Input,
    Present,
    Script,
    SignCrl,
    Step,
    sha256_of,
)
from rootward.core.times import rfc3339
from rootward.fleet import calendar, keylife
from rootward.store import authorities as rows
from rootward.store import certificates, events, facts
from rootward.store import paperwork as papers
from rootward.store.certificates import Certificate
from rootward.store.db import Database, open_database
from rootward.store.schema import certificates as table
from tests.contract.test_authorities import opened
from tests.support.ceremonies import AT, MemoryKeys, csr_pem, hold, public_hex, signature, signed_by, two_tier
from tests.support.postgres import Postgres
from tests.support.room import spec
from tests.support.store import prepare
from tests.support.world import refused

STRANGER = "51" * 20
DAY = timedelta(days=1)


@dataclass
class Hall:
    """An installation, and the room where its root is; a minute of the clock for each look at it."""

    inst: Installation
    keys: MemoryKeys = field(default_factory=MemoryKeys)
    admin: Caller = FOUNDER
    first: Script | None = None
    now: datetime = AT + timedelta(hours=1)

    def __post_init__(self) -> None:
        self.inst.clock = lambda: self.now

    async def found(self) -> None:
        """By a two-tier ceremony for a request of ours."""
        await authorities.create(self.inst, spec("issuing"), "root", "memory", FOUNDER)
        body = (await authorities.request(self.inst, "issuing"))[1].body
        self.first = two_tier(paperwork.read(body, paperwork.Request))
        token, digest = new_token()
        await self.bring(self.first, {sha256_of(body): body}, beginning=Beginning(digest))
        self.admin = Caller(await authenticate(self.inst, token), "req_admin")

    async def bring(self, script: Script, files: dict[str, bytes] | None = None, **more: Any) -> None:
        """Hold that ceremony, and import what came of it."""
        result = signed_by(hold(script, files or {}, keys=self.keys), "Ada", "Bob")
        await results.import_result(self.inst, paperwork.write(result), self.admin, **more)

    def script(self, *steps: Step) -> Script:
        """A later ceremony with these steps."""
        assert self.first is not None
        root = {"root": Present(self.inst.authority("root").issuer.pem(), "root")}
        return msgspec.structs.replace(self.first, title="Later", steps=steps, authorities=root)

    async def later(self, *steps: Step, files: dict[str, bytes] | None = None) -> None:
        """Hold it, and import what came of it."""
        await self.bring(self.script(*steps), files)

    def list(
        self, *entries: Entry, request: Input | None = None, number: int = 0, until: datetime | None = None
    ) -> Any:
        """The step that signs the root's CRL."""
        self.now += timedelta(minutes=1)
        number = number or int(self.now.timestamp() * 1000)
        return SignCrl("root", number, rfc3339(self.now), rfc3339(until or self.now + 90 * DAY), entries, request)

    async def answer(self) -> paperwork.SignCrl:
        """Ask for the next CRL, hold the ceremony for it, import it; what was asked."""
        asked = await ending.crl_request(self.inst, "root", self.admin)
        wanted = paperwork.read(asked.body, paperwork.Request).wanted
        assert isinstance(wanted, paperwork.SignCrl)
        step = self.list(request=Input("next.json", sha256_of(asked.body)), number=wanted.number)
        await self.later(step, files={sha256_of(asked.body): asked.body})
        return wanted

    async def listed(self) -> dict[str, str]:
        """Serials and reasons of the root's CRL as it is served."""
        crl = await publish.current_crl(self.inst, "root")
        assert crl is not None
        return {one.serial.hex(): one.reason.value for one in parse_crl(crl.der)}

    async def row(self, serial: str) -> Certificate | None:
        n = self.inst.authority("root").n
        return await self.inst.db.read(lambda conn: certificates.by_serial(conn, n, bytes.fromhex(serial)))


@pytest.fixture
def hall(db: Database) -> Hall:
    """Nothing is founded yet."""
    return Hall(opened(db))


def entry(serial: str = STRANGER, reason: str = "keyCompromise") -> Entry:
    return Entry(serial, rfc3339(AT), reason)


def reasons(caught: pytest.ExceptionInfo[Problem]) -> str:
    return " ".join(reason.detail for reason in caught.value.reasons)


@pytest.mark.invariant("I-16", "I-22")
async def test_a_serial_that_nobody_knows_here_stays_listed(hall: Hall) -> None:
    await hall.found()
    await hall.later(hall.list(entry()))
    assert await hall.listed() == {STRANGER: "keyCompromise"}
    row = await hall.row(STRANGER)
    assert row is not None
    assert (row.reason, row.tbs, row.authority) == ("keyCompromise", b"", "root")
    with pytest.raises(Problem) as caught:
        await hall.later(hall.list())
    assert f"the serial {STRANGER}, which is revoked here" in reasons(caught)
    wanted = await hall.answer()
    assert [(one.serial, one.reason) for one in wanted.entries] == [(STRANGER, "keyCompromise")]
    assert await hall.listed() == {STRANGER: "keyCompromise"}
    other = opened(hall.inst.db, hall.inst.keys)  # nothing of it is this process's alone
    await other.load_authorities()
    hall.inst = other
    hall.__post_init__()
    await ending.revoke(other, "issuing", RevocationReason.SUPERSEDED, hall.admin)
    mine = other.authority("issuing").issuer.serial.hex()
    wanted = await hall.answer()
    assert {one.serial for one in wanted.entries} == {STRANGER, mine}
    assert await hall.listed() == {STRANGER: "keyCompromise", mine: "superseded"}


@pytest.mark.invariant("I-16")
async def test_what_a_list_has_and_the_inventory_has_lost_is_asked_for_all_the_same(hall: Hall) -> None:
    """As with a CRL that came in before its serials were filed."""
    await hall.found()
    await hall.later(hall.list(entry()))
    await hall.inst.db.write(lambda conn: conn.execute(delete(table).where(table.c.tbs == b"")).rowcount)
    assert await hall.row(STRANGER) is None
    with pytest.raises(Problem) as caught:
        await hall.later(hall.list())
    assert f"the serial {STRANGER}, which is revoked here" in reasons(caught)
    assert [one.serial for one in (await hall.answer()).entries] == [STRANGER]
    assert await hall.listed() == {STRANGER: "keyCompromise"}
    assert await hall.row(STRANGER) is not None


@pytest.mark.invariant("I-16")
async def test_a_hold_that_a_list_makes_final_is_final_and_a_final_one_is_never_a_hold_again(hall: Hall) -> None:
    await hall.found()
    await hall.later(hall.list(entry(reason="certificateHold")))
    await hall.later(hall.list(entry()))
    row = await hall.row(STRANGER)
    assert row is not None
    assert await refused(revoke.release(hall.inst, row.id, hall.admin)) == "RW-NOT-HELD"
    with pytest.raises(Problem) as caught:
        await hall.later(hall.list(entry(reason="certificateHold")))
    assert "on hold, which is revoked here for good" in reasons(caught)
    assert [one.reason for one in (await hall.answer()).entries] == ["keyCompromise"]


@pytest.mark.invariant("I-17", "I-16")
async def test_the_result_with_a_list_that_a_restore_has_read_is_taken_in(hall: Hall) -> None:
    await hall.found()
    script = hall.script(hall.list(entry()))
    held = signed_by(hold(script, {}, keys=hall.keys), "Ada", "Bob")
    der = base64.b64decode(held.crls[0].crl)
    await hall.inst.db.write(lambda conn: recall(conn, der, at=hall.now))
    assert await hall.listed() == {STRANGER: "keyCompromise"}  # it is served from now on
    await results.import_result(hall.inst, paperwork.write(held), hall.admin)
    current = await publish.current_crl(hall.inst, "root")
    assert current is not None
    assert current.der == der
    with pytest.raises(Problem) as caught:  # another one of that number
        await hall.later(hall.list(entry(), entry("52" * 20), number=current.number))
    assert "not above the last one" in reasons(caught)


@pytest.mark.invariant("I-17")
async def test_a_restore_refuses_no_list_that_a_ceremony_made_before_it(hall: Hall) -> None:
    await hall.found()
    n = hall.inst.authority("root").n
    await hall.inst.db.write(lambda conn: rows.claim_number(conn, n, "full", at_least=1))
    step = hall.list(entry())
    await hall.inst.db.write(rows.raise_numbers(step.number + 1000))
    await hall.later(step)
    assert await hall.listed() == {STRANGER: "keyCompromise"}


@pytest.mark.invariant("I-16")
async def test_only_a_hold_that_was_released_leaves_the_list(hall: Hall) -> None:
    await hall.found()
    await hall.later(hall.list(entry(reason="certificateHold")))
    with pytest.raises(Problem):
        await hall.later(hall.list())
    row = await hall.row(STRANGER)
    assert row is not None
    await revoke.release(hall.inst, row.id, hall.admin)
    assert (await hall.answer()).entries == ()
    assert await hall.listed() == {}


@pytest.mark.invariant("I-16")
async def test_of_two_lists_at_one_moment_the_second_must_have_what_the_first_has(postgres: Postgres) -> None:
    url = postgres.url(prepare)
    hall, db = Hall(opened(open_database(url))), open_database(url)
    await hall.found()
    other = opened(db, hall.inst.keys)
    await other.load_authorities()
    other.clock = hall.inst.clock
    steps = hall.list(entry()), hall.list()
    first, second = [hold(hall.script(step), {}, keys=hall.keys).result.crls[0].crl for step in steps]
    stored, go_on = threading.Event(), threading.Event()

    def slowly(conn: Connection) -> None:
        publish.take(conn, hall.inst, hall.inst.authority("root"), base64.b64decode(first), hall.admin)
        stored.set()
        assert go_on.wait(60)

    def waiting(conn: Connection) -> bool:
        return bool(conn.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())

    one = asyncio.create_task(hall.inst.db.write(slowly))
    assert await asyncio.to_thread(stored.wait, 60)
    two = asyncio.create_task(publish.accept(other, other.authority("root"), base64.b64decode(second), hall.admin))
    while not two.done() and not await db.read(waiting):
        await asyncio.wait([two], timeout=0.01)
    go_on.set()
    await one
    with pytest.raises(Problem) as caught:
        await two
    assert "which is revoked here" in reasons(caught)
    assert await hall.listed() == {STRANGER: "keyCompromise"}
    for each in (hall.inst.db, db):
        each.close()


@pytest.mark.invariant("I-22")
async def test_a_list_that_comes_before_what_it_lists_stops_it(hall: Hall) -> None:
    """The authority waits on, and its revoked serial stays on the list."""
    await hall.found()
    await authorities.create(hall.inst, spec("two"), "root", "memory", hall.admin)
    body = (await authorities.request(hall.inst, "two"))[1].body
    asked = paperwork.read(body, paperwork.Request)
    assert isinstance(asked.wanted, paperwork.Certify)
    key = parse_csr(asked.wanted.csr.encode()).public_key
    certify = Certify("root", "77" * 20, asked.wanted.spec, Input("two.json", sha256_of(body)), key.id)
    await hall.later(hall.list(entry("77" * 20)))
    with pytest.raises(Problem) as caught:
        await hall.later(certify, files={sha256_of(body): body})
    assert "is revoked by root already" in caught.value.detail
    assert [one.name for one in await authorities.waiting(hall.inst)] == ["two"]
    assert "two" not in hall.inst.authorities
    # In one result, the other way round: it comes, and issues nothing.
    again = msgspec.structs.replace(certify, serial="78" * 20)
    await hall.later(again, hall.list(entry("77" * 20), entry("78" * 20)), files={sha256_of(body): body})
    assert hall.inst.authority("two").state == "retired"
    assert set(await hall.listed()) == {"77" * 20, "78" * 20}


@pytest.mark.invariant("I-22")
async def test_a_hold_that_was_released_does_not_stop_its_certificate(hall: Hall) -> None:
    """Only its serial was known until it came."""
    await hall.found()
    await authorities.create(hall.inst, spec("two"), "root", "memory", hall.admin)
    body = (await authorities.request(hall.inst, "two"))[1].body
    asked = paperwork.read(body, paperwork.Request)
    assert isinstance(asked.wanted, paperwork.Certify)
    key = parse_csr(asked.wanted.csr.encode()).public_key
    certify = Certify("root", "77" * 20, asked.wanted.spec, Input("two.json", sha256_of(body)), key.id)
    await hall.later(hall.list(entry("77" * 20, "certificateHold")))
    row = await hall.row("77" * 20)
    assert row is not None
    await revoke.release(hall.inst, row.id, hall.admin)
    await hall.later(certify, files={sha256_of(body): body})
    assert hall.inst.authority("two").state == "active"
    await ending.revoke(hall.inst, "two", RevocationReason.SUPERSEDED, hall.admin)
    row = await hall.row("77" * 20)
    assert row is not None
    assert row.reason == "superseded"


async def test_a_list_that_is_taken_in_answers_what_was_asked(hall: Hall) -> None:
    """An older request would make a list that is refused."""
    await hall.found()
    await ending.crl_request(hall.inst, "root", hall.admin)
    await hall.later(hall.list(entry()))
    assert await hall.inst.db.read(papers.open_requests) == ()
    await calendar.remind(hall.inst)
    assert await hall.inst.db.read(papers.open_requests) == ()  # it lists everything


@pytest.mark.invariant("I-16")
async def test_the_ca_of_another_system_is_in_the_inventory_and_no_authority(hall: Hall) -> None:
    await hall.found()
    csr = csr_pem(MemoryKeys().make("vault", KeyAlgorithm.P256)).encode()
    key = parse_csr(csr).public_key
    step = Certify("root", "66" * 20, spec("vault"), Input("vault.csr", sha256_of(csr)), key.id)
    await hall.later(step, files={sha256_of(csr): csr})
    assert "vault" not in hall.inst.authorities
    row = await hall.row("66" * 20)
    assert row is not None
    assert (row.authority, row.key_id, row.status(hall.now)) == ("root", key.id, "active")
    assert row.der is not None
    assert x509.load_der_x509_certificate(row.der).subject.rfc4514_string() == row.subject
    await hall.later(hall.list(entry("66" * 20, "superseded")))
    assert [(one.serial, one.reason) for one in (await hall.answer()).entries] == [("66" * 20, "superseded")]
    with pytest.raises(Problem) as caught:  # a serial is used once
        await hall.later(msgspec.structs.replace(step, spec=spec("other")), files={sha256_of(csr): csr})
    assert "that of another certificate by root" in caught.value.detail


async def test_a_bare_csr_of_an_authority_that_waits_is_no_other_systems(hall: Hall) -> None:
    await hall.found()
    pending = await authorities.create(hall.inst, spec("two"), "root", "memory", hall.admin)
    csr = x509.load_der_x509_csr(pending.csr).public_bytes(Encoding.PEM)
    step = Certify("root", "66" * 20, spec("vault"), Input("vault.csr", sha256_of(csr)), pending.key_id)
    with pytest.raises(Problem) as caught:
        await hall.later(step, files={sha256_of(csr): csr})
    assert "answers no request of ours" in reasons(caught)


def destroy(hall: Hall) -> DestroyKey:
    return DestroyKey("root", hall.inst.authority("root").issuer.key_id, "replaced")


@contextmanager
def held_at(moment: datetime) -> Iterator[None]:
    """Results that are imported in here are of then."""
    real = results.vouch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "vouch", lambda *args: replace(real(*args), held_at=moment))
        yield


async def test_a_key_that_a_ceremony_destroyed_is_counted_down_no_more(hall: Hall) -> None:
    await hall.found()
    last = hall.list(until=hall.inst.authority("root").issuer.not_after)
    await hall.later(last, destroy(hall))
    root = hall.inst.authority("root")
    assert root.destroyed_at == hall.now
    assert [due for due in await calendar.dates(hall.inst) if due.authority == "root"] == []
    assert await refused(ending.crl_request(hall.inst, "root", hall.admin)) == "RW-CONFLICT"
    found = await hall.inst.db.read(lambda conn: [*keylife.read_keys(conn, hall.inst)])
    assert [one.state for one in found if one.authority == "root"] == ["destroyed"]
    # What it certified can still be stopped here; its list says nothing of that any more.
    await ending.revoke(hall.inst, "issuing", RevocationReason.SUPERSEDED, hall.admin)
    assert hall.inst.authority("issuing").state == "retired"
    (event,) = [one for one in await _events(hall) if one.kind == "key.destroyed"]
    assert event.authority == "root"
    assert event.values()["by"] == ["Ada", "Bob"]


async def test_a_copy_that_was_destroyed_is_not_the_key(hall: Hall) -> None:
    """While what it certified needs another list."""
    await hall.found()
    await hall.later(hall.list(), destroy(hall))
    assert hall.inst.authority("root").destroyed_at is None
    assert (await ending.crl_request(hall.inst, "root", hall.admin)).is_open


@pytest.mark.invariant("I-19", "I-22")
async def test_a_root_that_lasts_longer_than_its_list_needs_its_key(hall: Hall) -> None:
    """Also when the list covers all that it has certified so far."""
    await hall.found()
    await hall.later(hall.list(until=hall.inst.authority("issuing").issuer.not_after + DAY), destroy(hall))
    assert hall.inst.authority("root").destroyed_at is None
    await ending.revoke(hall.inst, "issuing", RevocationReason.KEY_COMPROMISE, hall.admin)
    assert [one.kind for one in await hall.inst.db.read(papers.open_requests)] == ["crl"]


@pytest.mark.parametrize("what", ["copied", "new shares", "another place"])
async def test_what_has_another_copy_in_its_ceremony_is_not_destroyed(hall: Hall, what: str) -> None:
    await hall.found()
    script = hall.script(
        *([BackUpKey("root", "vault")] if what == "copied" else []),
        *([ChangeCustodians("root", ("Ada", "Bob"), 2)] if what == "new shares" else []),
        msgspec.structs.replace(destroy(hall), key="old"),
    )
    old = FileKey("old")
    keys = {"root": script.keys["root"], "old": old}
    assert offline_keys.destroyed(msgspec.structs.replace(script, keys=keys)) == frozenset()
    steps = (*script.steps[:-1], destroy(hall))
    alone = msgspec.structs.replace(script, keys={"root": old}, steps=steps)
    gone = {destroy(hall).public} if what == "another place" else set()
    assert offline_keys.destroyed(alone) == gone


@pytest.mark.invariant("I-19", "I-22")
async def test_a_key_that_signs_again_was_not_destroyed(hall: Hall) -> None:
    await hall.found()
    await hall.later(hall.list(until=hall.inst.authority("root").issuer.not_after), destroy(hall))
    assert hall.inst.authority("root").destroyed_at == (since := hall.now)
    with held_at(AT + DAY):
        await hall.later(hall.list(entry()))
    root = hall.inst.authority("root")
    assert (root.destroyed_at, root.retired_at, root.state) == (None, None, "offline")
    (event,) = [one for one in await _events(hall) if one.kind == "key.found"]
    assert (event.authority, event.values()["destroyed_at"]) == ("root", rfc3339(since))
    await ending.revoke(hall.inst, "issuing", RevocationReason.KEY_COMPROMISE, hall.admin)
    assert [one.kind for one in await hall.inst.db.read(papers.open_requests)] == ["crl"]


async def test_a_list_of_before_the_end_of_its_key_shows_no_copy(hall: Hall) -> None:
    await hall.found()
    last = hall.list(until=hall.inst.authority("root").issuer.not_after)
    await hall.later(last, destroy(hall))
    with held_at(AT - DAY):
        await hall.later(hall.list(entry()))
    assert hall.inst.authority("root").destroyed_at is not None


async def test_a_request_that_goes_while_its_answer_comes_is_a_conflict(hall: Hall) -> None:
    await hall.found()
    real = results.against

    def slow(*args: Any) -> Any:
        taken = real(*args)
        taken.answered = ["not-open"]
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "against", slow)
        with pytest.raises(Problem) as caught:
            await hall.later(hall.list(entry()))
    assert (caught.value.code, caught.value.retry_after) == ("RW-CONFLICT", 1)
    assert await hall.listed() == {}


async def test_a_key_that_is_being_destroyed_makes_no_authority_an_offline_one(hall: Hall) -> None:
    await hall.found()
    await hall.inst.db.write(facts.put_once(DESTROYING + "issuing", at=hall.now))
    other = opened(hall.inst.db, hall.inst.keys)
    await other.load_authorities()
    other.clock = lambda: hall.now
    assert other.authority("issuing").key is None
    assert await refused(ending.crl_request(other, "issuing", hall.admin)) == "RW-CONFLICT"
    assert ("issuing", "crl") not in {(due.authority, due.what) for due in await calendar.dates(other)}
    await calendar.remind(other)
    assert await other.db.read(papers.open_requests) == ()
    known = await other.db.read(answers.known_to)
    listed = paperwork.Result(crls=(paperwork.SignedCrl("issuing", "", ""),), script="", transcript="")
    taken = answers.against(other, listed, known)
    assert "which is no offline authority here" in taken.reasons[0].detail


async def test_who_was_forgotten_does_not_come_back_by_a_script(hall: Hall) -> None:
    """Nor does anybody get another key by a script that others have signed."""
    await hall.found()
    assert set(await results.participants(hall.inst)) == {"Ada", "Bob", "Cyd"}
    before = await results.participants(hall.inst)
    await results.forget(hall.inst, "Cyd", hall.admin)
    await hall.later(hall.list())  # its script has all three
    assert set(await results.participants(hall.inst)) == {"Ada", "Bob"}
    (first, second) = [one.values() for one in await _events(hall) if one.kind == "ceremony.imported"]
    assert (first["new_participants"], second["new_participants"]) == (["Ada", "Bob", "Cyd"], [])
    assert hall.first is not None
    people = (*hall.first.participants[:1], Participant("Bob", "witness", public_hex("Bob")))
    other = (Participant("Cyd", "witness", public_hex("Eve")), Participant("Fay", "witness", public_hex("Cyd")))
    hall.first = msgspec.structs.replace(hall.first, participants=(*people, *other))
    await hall.later(hall.list())
    now = await results.participants(hall.inst)
    assert set(now) == {"Ada", "Bob", "Cyd"}  # a new key is a new person, and the old one is nobody's
    assert now["Cyd"] not in before.values()
    hall.first = msgspec.structs.replace(
        hall.first, participants=(*people, Participant("Cyd", "witness", public_hex("Mallory")))
    )
    await hall.later(hall.list())
    assert await results.participants(hall.inst) == now


async def test_who_signs_with_a_new_key_has_it(hall: Hall) -> None:
    await hall.found()
    assert hall.first is not None
    people = tuple(
        Participant("Cyd", "witness", public_hex("Cyd2")) if one.name == "Cyd" else one
        for one in hall.first.participants
    )
    held = hold(msgspec.structs.replace(hall.script(hall.list()), participants=people), {}, keys=hall.keys)
    result = signed_by(held, "Ada", "Bob")
    result = ceremony.signed(result, signature(held.result, "Cyd", "witness", key="Cyd2"))
    await results.import_result(hall.inst, paperwork.write(result), hall.admin)
    key = participant_key(public_hex("Cyd2")).id
    assert (await results.participants(hall.inst))["Cyd"] == key


async def _events(hall: Hall) -> list[Any]:
    return [*await hall.inst.db.read(lambda conn: events.page(conn, after=0, limit=10_000))]
