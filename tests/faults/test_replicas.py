"""Several servers on one PostgreSQL: what one revokes the other says within a second, and one that was stopped for
longer than its lease, at whatever step, does no harm when it wakes up. Real processes, real sockets.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootward import home as homes
from rootward.core.ocsp import OcspError
from rootward.core.revocation import Good, Revoked
from rootward.fleet.auditor import Report
from rootward.store import events
from rootward.store.certificates import Certificate
from rootward.store.db import open_database
from tests.support.faults import Founder, Home, books, opened
from tests.support.postgres import Postgres
from tests.support.replicas import CERTIFICATES, SECONDS, Replica, replicas
from tests.support.rest import csr

SECOND = 1.0  # I-30


@pytest.fixture(scope="module")
def shared(founder: Founder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home on PostgreSQL for the tests that change nothing but certificates."""
    with founder.home("postgresql", tmp_path_factory.mktemp("shared")) as made:
        yield made


def load(home: Home) -> Any:
    """The installation, for its authorities' certificates."""

    async def main() -> Any:
        async with opened(home, serving=False) as made:
            return made.inst

    return asyncio.run(main())


@pytest.fixture(scope="module")
def pair(shared: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two replicas that run."""
    with replicas(shared, tmp_path_factory.mktemp("pair"), load(shared)) as made:
        yield made


def issued(replica: Replica, key: str = "", name: str = "a.internal") -> tuple[str, bytes]:
    """A new certificate from this replica: its id and serial."""
    with replica.client() as client:
        reply = client.post(CERTIFICATES, json={"profile": "server", "csr": csr(name)})
    assert reply.status_code == 201, reply.text
    return reply.json()["id"], bytes.fromhex(reply.json()["serial"])


def revoke(replica: Replica, id: str) -> None:
    """Revoke it there."""
    with replica.client() as client:
        assert client.post(f"{CERTIFICATES}/{id}/revoke", json={"reason": "superseded"}).status_code == 200


def until(true: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    for _ in range(SECONDS * 20):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come")


def background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Do it in a thread; what comes of it is put into the list."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


# ── OCSP (I-30, I-33) ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-30")
def test_a_revocation_at_one_is_seen_at_the_other_within_a_second(pair: list[Replica]) -> None:
    for here, there in (pair, pair[::-1]):
        id, serial = issued(here)
        for _ in range(3):
            assert there.status(serial) == Good()  # kept by now
        revoke(here, id)
        assert isinstance(here.status(serial), Revoked)  # at once
        time.sleep(SECOND)
        assert isinstance(there.status(serial), Revoked)


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-34")
def test_both_serve_one_crl_with_what_either_revoked(pair: list[Replica]) -> None:
    ids = [issued(one) for one in pair]
    for (id, _), one in zip(ids, pair, strict=True):
        revoke(one, id)
    serials = {serial for _, serial in ids}
    until(lambda: all(serials <= one.crl()[1] for one in pair))
    assert len({one.crl() for one in pair}) == 1
    for one in pair:
        assert all(isinstance(one.status(serial), Revoked) for serial in serials)


@pytest.mark.invariant("I-30")
@pytest.mark.invariant("I-33")
@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_server_that_was_stopped_says_no_good_that_is_old(pair: list[Replica], seconds: float) -> None:
    here, there = pair
    id, serial = issued(here)
    assert there.status(serial) == Good()
    there.pause()
    try:
        revoke(here, id)
        time.sleep(SECOND + seconds)
        threads = [background(lambda: there.status(serial)) for _ in range(8)]  # asked while it sleeps
    finally:
        there.go_on()
    for thread, found in threads:
        thread.join(SECONDS)
        assert isinstance(found[0], Revoked)
    assert isinstance(there.status(serial), Revoked)


@pytest.mark.invariant("I-33")
def test_a_database_that_hangs_leaves_kept_answers_then_try_later(
    postgres: Postgres, shared: Home, pair: list[Replica], tmp_path: Path
) -> None:
    with replicas(shared, tmp_path, load(shared), 1, promise=4.0) as (brief,):
        id, serial = issued(pair[0])
        _, fresh = issued(pair[0], name="b.internal")
        assert brief.status(serial) == Good()
        postgres.pause()
        try:
            assert brief.status(serial) == Good()
            with pytest.raises(OcspError, match="no answer"):
                brief.status(fresh)  # never asked before
            time.sleep(4.0)  # the promise that this one was given
            with pytest.raises(OcspError) as caught:
                brief.status(serial)
            assert caught.value.status.value == "tryLater"
        finally:
            postgres.go_on()
        until(lambda: answers(brief, fresh))
        assert brief.status(serial) == Good()
        revoke(brief, id)
        assert isinstance(brief.status(serial), Revoked)


def answers(replica: Replica, serial: bytes) -> bool:
    """Whether OCSP says a status again."""
    try:
        replica.status(serial)
    except OcspError:
        return False
    return True


# ── stopped for longer than a lease (F11; I-05, I-17, I-62) ───────────────────────────────────────────────────────


@pytest.fixture
def alone(postgres_home: Home, tmp_path: Path) -> Iterator[tuple[Home, Replica, Replica]]:
    """A home and two replicas that do not run yet."""
    inst = load(postgres_home)
    first, second = (Replica(postgres_home, tmp_path / name, inst) for name in ("first", "second"))
    try:
        yield postgres_home, first, second
    finally:
        first.kill()
        second.kill()


def rows(home: Home) -> dict[str, Certificate]:
    """The books, which must agree."""

    async def main() -> dict[str, Certificate]:
        async with opened(home, serving=False) as made:
            return await books(made.inst)

    return asyncio.run(main())


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("where", ["issue.intended", "issue.signed"])
def test_stopped_between_intent_and_store(alone: tuple[Home, Replica, Replica], where: str) -> None:
    home, first, second = alone
    first.start()  # its own certificates are made
    first.stop()
    first.start(f"{where}:stop:1")
    body = {"profile": "server", "csr": csr("a.internal")}
    headers = {"Idempotency-Key": "the-one"}
    with first.client() as here:
        thread, said = background(lambda: here.post(CERTIFICATES, json=body, headers=headers))
        first.until_stopped()
        home.lapse()
        second.start()  # which takes over what nobody works on
        with second.client() as there:
            again = there.post(CERTIFICATES, json=body, headers=headers)
        assert again.status_code == 201
        first.go_on()
        thread.join(SECONDS)
        assert (said[0].status_code, said[0].json()["code"]) == (503, "RW-UNAVAILABLE")
        assert here.post(CERTIFICATES, json=body, headers=headers).json()["id"] == again.json()["id"]
    found = rows(home)
    new = found[again.json()["id"]]
    assert new.retry_of is not None
    old = found[new.retry_of]
    assert old.orphaned_at is not None
    for one in (first, second):
        assert isinstance(one.status(old.serial), Revoked)
        assert one.status(new.serial) == Good()
        until(lambda one=one: old.serial in one.crl()[1])  # type: ignore[misc]  # mypy does not see the default


@pytest.mark.invariant("I-17")
@pytest.mark.invariant("I-18")
@pytest.mark.invariant("I-62")
@pytest.mark.parametrize("where", ["crl.claimed", "crl.drafted", "crl.signed"])
def test_stopped_between_a_crl_and_its_publication(alone: tuple[Home, Replica, Replica], where: str) -> None:
    home, first, second = alone
    first.start()
    first.stop()
    first.start(f"{where}:stop:1")
    id, serial = issued(first)
    before, _ = first.crl()
    thread, _ = background(lambda: revoke(first, id))  # which may be stopped before it answers
    first.until_stopped()
    home.lapse()
    second.start()  # which is ready once there is a CRL that says it
    number, listed = second.crl()
    assert number > before
    assert serial in listed
    other, other_serial = issued(second)
    revoke(second, other)
    until(lambda: other_serial in second.crl()[1])
    newest, _ = second.crl()
    first.go_on()
    thread.join(SECONDS)
    first.until_said("job.lost")
    for one in (first, second):
        now, listed = one.crl()
        assert now >= newest
        assert {serial, other_serial} <= listed
    # Another job may have been in a transaction when it was stopped: the database has ended that meanwhile.
    failed = [line for line in first.said().splitlines() if "job.failed" in line]
    assert not [line for line in failed if "job=publish" in line], failed
    assert "Traceback" not in first.said(), first.said()


@pytest.mark.invariant("I-32")
@pytest.mark.invariant("I-62")
def test_stopped_while_it_renews_its_responder(alone: tuple[Home, Replica, Replica]) -> None:
    home, first, second = alone
    for key in (first.folder / "keys").glob("*"):
        if "ocsp" in key.name:
            key.unlink()
    first.start("issue.signed:stop:1", wait=False)
    first.until_stopped()
    home.lapse()
    second.start()
    _, serial = issued(second)
    first.go_on()
    first.until_said("ready")
    until(lambda: answers(first, serial))  # it has another one by then
    assert first.status(serial) == Good()
    orphans = [row for row in rows(home).values() if row.orphaned_at is not None]
    assert [row.profile for row in orphans] == ["ocsp-responder"]


def waiting(home: Home) -> int:
    """Events without a place in the audit tree."""
    db = open_database(home.url)
    try:
        return len(db.read_sync(lambda conn: events.unsequenced(conn, 1000)))
    finally:
        db.close()


@pytest.mark.invariant("I-57")
@pytest.mark.invariant("I-62")
@pytest.mark.parametrize("where", ["sequence.taken", "sequence.appended", "sequence.signed"])
def test_stopped_while_it_takes_events_into_the_audit_tree(alone: tuple[Home, Replica, Replica], where: str) -> None:
    home, first, second = alone
    first.start(f"{where}:stop:1", wait=False)
    first.until_stopped()
    home.lapse()
    second.start()
    for _ in range(3):
        issued(second)
    until(lambda: waiting(home) == 0)
    first.go_on()
    first.until_said("ready")
    for _ in range(3):
        issued(first)
        issued(second)
    until(lambda: waiting(home) == 0)
    rows(home)
    for one in (first, second):
        one.stop()
        report = Report()
        assert list(homes.verify(one.folder, None, report, {"ROOTWARD_DATABASE": home.url})) == []
        assert report.size > 0
        assert "Traceback" not in one.said()
