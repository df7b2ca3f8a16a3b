"""What the functions of requests, idempotency keys, blocked keys and jobs promise, on both dialects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from rootward.store import asking, authorities, blocked, facts, idempotency, jobs, profiles, requests
from rootward.store.db import Database, Lost, Taken
from rootward.store.ids import new_id
from tests.support.store import DAY, NOW, issued

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def park(db: Database, binding: str = "b", **changes: Any) -> str:
    """Park a request; returns its id."""
    values = {
        "id": new_id(),
        "principal": "p-1",
        "authority": "issuing",
        "profile": "server",
        "profile_version": 1,
        "names": "[]",
        "binding": binding,
        "binds": "plan",
        "plan": "hash",
        "summary": "{}",
        "ask": "{}",
        "created_at": NOW,
        "expires_at": NOW + DAY,
    } | changes
    db.write_sync(requests.park(values))
    return str(values["id"])


def parked(db: Database, id: str) -> requests.Parked:
    """The request of `id`."""
    found = db.read_sync(lambda conn: requests.by_id(conn, id))
    assert found is not None
    return found


def test_a_request_is_approved_and_used_once(db: Database) -> None:
    id = park(db)
    assert parked(db, id).status(NOW) == "waiting"
    with pytest.raises(Lost):
        db.write_sync(requests.use(id, certificate="c", at=NOW))
    db.write_sync(requests.approve(id, by="p-2", at=NOW, comment="yes"))
    assert parked(db, id).status(NOW) == "approved"
    for rows in (requests.approve(id, by="p-3", at=NOW), requests.deny(id, by="p-3", at=NOW)):
        with pytest.raises(Lost):
            db.write_sync(rows)
    db.write_sync(requests.use(id, certificate="c", at=NOW))
    done = parked(db, id)
    assert (done.status(NOW), done.certificate, done.approved_by, done.comment) == ("issued", "c", "p-2", "yes")
    with pytest.raises(Lost):
        db.write_sync(requests.use(id, certificate="c2", at=NOW))


def test_a_request_is_denied_for_good(db: Database) -> None:
    id = park(db)
    db.write_sync(requests.deny(id, by="p-2", at=NOW, comment="no"))
    assert parked(db, id).status(NOW) == "denied"
    for rows in (requests.approve(id, by="p-3", at=NOW), requests.use(id, certificate="c", at=NOW)):
        with pytest.raises(Lost):
            db.write_sync(rows)


def test_a_request_expires(db: Database) -> None:
    id = park(db)
    end = NOW + DAY
    assert parked(db, id).status(end - SECOND) == "waiting"
    assert parked(db, id).status(end) == "expired"
    with pytest.raises(Lost):
        db.write_sync(requests.approve(id, by="p-2", at=end))
    db.write_sync(requests.approve(id, by="p-2", at=NOW))
    with pytest.raises(Lost):
        db.write_sync(requests.use(id, certificate="c", at=end))
    db.write_sync(requests.expire(now=end))
    assert parked(db, id).closed_at == end
    assert parked(db, id).status(NOW) == "expired"


def test_a_request_that_fails_says_why(db: Database) -> None:
    id = park(db)
    db.write_sync(requests.approve(id, by="p-2", at=NOW) + requests.use(id, certificate="c", at=NOW))
    db.write_sync(requests.fail(id, at=NOW, reasons='["x"]'))
    assert (parked(db, id).status(NOW), parked(db, id).reasons) == ("failed", '["x"]')


def test_there_is_one_open_request_for_one_binding(db: Database) -> None:
    id = park(db)
    with pytest.raises(Taken) as caught:
        park(db)
    assert (caught.value.table, caught.value.columns) == ("requests", ("binding",))
    found = db.read_sync(lambda conn: requests.open_by_binding(conn, "b"))
    assert found is not None
    assert found.id == id
    db.write_sync(requests.close(id, at=NOW))
    second = park(db)
    park(db, created_at=NOW + DAY, expires_at=NOW + 2 * DAY)  # the second one has expired by then
    assert parked(db, second).closed_at == NOW + DAY


def test_requests_are_listed_by_their_status(db: Database) -> None:
    made = {name: park(db, name) for name in ("waiting", "approved", "denied", "issued", "failed")}
    made["expired"] = park(db, "expired", expires_at=NOW + SECOND)
    for name in ("approved", "issued", "failed"):
        db.write_sync(requests.approve(made[name], by="p-2", at=NOW))
    db.write_sync(requests.deny(made["denied"], by="p-2", at=NOW))
    db.write_sync(requests.use(made["issued"], certificate="c", at=NOW))
    db.write_sync(requests.fail(made["failed"], at=NOW, reasons="[]"))
    now = NOW + HOUR
    for name, id in made.items():
        found = db.read_sync(
            lambda conn, name=name: requests.list(conn, requests.Filters(status=name), now=now)  # type: ignore[arg-type]  # all are
        )
        assert [request.id for request in found] == [id]
        assert parked(db, id).status(now) == name
    every = db.read_sync(lambda conn: requests.list(conn, requests.Filters(principal="p-1"), now=now, limit=4))
    rest = db.read_sync(lambda conn: requests.list(conn, requests.Filters(), now=now, after=every[-1].n))
    assert [request.id for request in (*every, *rest)] == list(reversed(made.values()))
    assert db.read_sync(lambda conn: requests.list(conn, requests.Filters(authority="x", profile="y"), now=now)) == ()


def test_an_idempotency_key_is_used_once(db: Database) -> None:
    db.write_sync(idempotency.put("p-1", "k", digest=b"d", at=NOW))
    with pytest.raises(Taken):
        db.write_sync(idempotency.put("p-1", "k", digest=b"e", at=NOW))
    db.write_sync(idempotency.put("p-2", "k", digest=b"e", at=NOW))
    db.write_sync(idempotency.settle("p-1", "k", certificate="c"))
    entry = db.read_sync(lambda conn: idempotency.get(conn, "p-1", "k"))
    assert entry == idempotency.Entry("p-1", "k", b"d", NOW, "c", None)
    db.write_sync(idempotency.drop("p-2", "k"))
    assert db.read_sync(lambda conn: idempotency.get(conn, "p-2", "k")) is None
    db.write_sync(idempotency.forget(NOW))
    assert db.read_sync(lambda conn: idempotency.get(conn, "p-1", "k")) is not None
    db.write_sync(idempotency.forget(NOW + SECOND))
    assert db.read_sync(lambda conn: idempotency.get(conn, "p-1", "k")) is None


def test_blocked_keys(db: Database) -> None:
    db.write_sync(blocked.add("aa", why="compromised", at=NOW))
    keys = [("aa", "other"), ("bb", "Debian"), ("cc", "Debian")]
    assert db.write_sync(lambda conn: blocked.add_many(conn, keys, at=NOW)) == 2
    assert db.read_sync(lambda conn: blocked.contains(conn, "bb"))
    assert not db.read_sync(lambda conn: blocked.contains(conn, "dd"))
    assert db.read_sync(lambda conn: blocked.why(conn, "aa")) == "compromised"


def claim(db: Database, lease: str, now: Any, name: str = "crl") -> int | None:
    """Claim the job for an hour."""
    return db.write_sync(lambda conn: jobs.claim(conn, name, lease=lease, now=now, until=now + HOUR))


@pytest.mark.invariant("I-62")
def test_a_job_has_one_holder_and_the_old_one_can_do_no_harm(db: Database) -> None:
    db.write_sync(jobs.ensure("crl", due_at=NOW))
    db.write_sync(jobs.ensure("crl", due_at=NOW + DAY))
    assert claim(db, "a", NOW - SECOND) is None
    assert [job.name for job in db.read_sync(lambda conn: jobs.due(conn, NOW))] == ["crl"]
    assert claim(db, "a", NOW) == 1
    assert claim(db, "b", NOW) is None
    assert db.read_sync(lambda conn: jobs.due(conn, NOW)) == ()
    write = facts.put("written", at=NOW)
    db.write_sync(jobs.fenced("crl", fence=1) + write)
    assert claim(db, "b", NOW + HOUR) == 2  # a was paused for longer than its lease
    later = NOW + DAY
    for rows in (
        jobs.fenced("crl", fence=1) + facts.put("harm", at=NOW),
        jobs.renew("crl", fence=1, until=later),
        jobs.done("crl", fence=1, at=NOW, again=later),
        jobs.failed("crl", fence=1, failure="x", again=later),
    ):
        with pytest.raises(Lost):
            db.write_sync(rows)
    assert db.read_sync(lambda conn: facts.get(conn, "harm")) is None
    db.write_sync(jobs.done("crl", fence=2, at=NOW + HOUR, again=later))
    with pytest.raises(Lost):
        db.write_sync(jobs.fenced("crl", fence=2))
    job = db.read_sync(lambda conn: jobs.get(conn, "crl"))
    assert job == jobs.Job("crl", later, None, None, 2, NOW + HOUR, None)


def test_a_wake_up_while_a_job_runs_is_not_lost(db: Database) -> None:
    db.write_sync(jobs.ensure("crl", due_at=NOW))
    fence = claim(db, "a", NOW)
    assert fence is not None
    db.write_sync(jobs.set_due("crl", at=NOW + SECOND))
    db.write_sync(jobs.renew("crl", fence=fence, until=NOW + 2 * HOUR))
    db.write_sync(jobs.done("crl", fence=fence, at=NOW, again=NOW + DAY))
    assert claim(db, "a", NOW + SECOND) == fence + 1
    db.write_sync(jobs.failed("crl", fence=fence + 1, failure="why", again=NOW + DAY))
    (job,) = db.read_sync(jobs.list)
    assert (job.due_at, job.failure) == (NOW + DAY, "why")
    db.write_sync(jobs.set_due("crl", at=NOW + 2 * DAY))  # later than it is due anyway
    assert db.read_sync(lambda conn: jobs.get(conn, "crl")) == job


# What bears on one ask


def test_all_that_bears_on_an_ask_comes_in_one_look(db: Database) -> None:
    def standing(profile: str = "server", key: str = "k", who: str = "p-1") -> asking.Standing:
        return db.read_sync(
            lambda conn: asking.standing(conn, profile=profile, key_id=key, requester=who, idempotency_key="i")
        )

    assert standing() == asking.Standing(None, False, None, False, None, False, None)
    db.write_sync(authorities.add("issuing", "issuing", parent=None, settings="{}", at=NOW))
    for body in ("one", "two"):
        db.write_sync(
            lambda conn, body=body: profiles.put(conn, "server", authority="issuing", body=body, at=NOW, by="p-1")
        )
    issued(db, key_id="k", requester="p-1")
    db.write_sync(idempotency.put("p-1", "i", digest=b"d", at=NOW))
    db.write_sync(blocked.add("b", why="weak", at=NOW))
    assert standing() == asking.Standing(2, False, "issuing", False, None, False, asking.Before(b"d", None, None))
    assert standing(who="p-2") == asking.Standing(2, False, "issuing", False, None, True, None)
    assert standing(key="b").blocked == "weak"
    assert standing(profile="absent").version is None
    db.write_sync(authorities.freeze("issuing", at=NOW) + profiles.retire("server", 2, at=NOW))
    assert (standing().frozen, standing().retired) == (True, True)
