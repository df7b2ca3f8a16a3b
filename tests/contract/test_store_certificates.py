"""What `store.certificates` and `store.search` promise, on both dialects."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from rootward.core.capture import assemble
from rootward.store import certificates, events, people, search
from rootward.store import listed as listing
from rootward.store import rows as rows_of
from rootward.store.db import Database, Look, Lost, open_database
from rootward.store.listed import listed as entries
from tests.support.store import DAY, NOW, complete, intent, issued, prepare

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def get(db: Database, id: str) -> certificates.Certificate:
    """The row of `id`, whatever its state."""
    found = db.read_sync(lambda conn: certificates.intent(conn, id))
    assert found is not None
    return found


def test_a_certificate_is_its_intent_and_its_signature(db: Database) -> None:
    values = intent(db.lease, names=("dns:a.internal", "ip:10.0.0.1"), labels={"team": "a"})
    db.write_sync(certificates.intend(values))
    assert db.read_sync(lambda conn: certificates.by_id(conn, values["id"])) is None
    waiting = get(db, values["id"])
    assert waiting.signature is None
    assert waiting.der is None
    with pytest.raises(ValueError, match="status"):
        waiting.status(NOW)
    done = certificates.complete(values["id"], signature=b"sig", sha256="ab", issued_at=NOW, lease=db.lease)
    db.write_sync(done)
    found = db.read_sync(lambda conn: certificates.by_id(conn, values["id"]))
    assert found is not None
    assert found.der == assemble(values["tbs"], values["algorithm"], b"sig")
    assert found.names == ("dns:a.internal", "ip:10.0.0.1")
    assert found.labels == {"team": "a"}
    assert found.serial_hex == values["serial"].hex()
    assert (found.not_before, found.not_after, found.issued_at) == (NOW, NOW + 30 * DAY, NOW)
    assert db.read_sync(lambda conn: certificates.by_sha256(conn, "ab", serial=values["serial"])) == found
    assert db.read_sync(lambda conn: certificates.by_sha256(conn, "cd", serial=values["serial"])) is None
    assert db.read_sync(lambda conn: certificates.by_serial(conn, 1, values["serial"])) == found
    assert db.read_sync(lambda conn: certificates.by_serial(conn, 2, values["serial"])) is None
    assert db.read_sync(lambda conn: certificates.by_serial_anywhere(conn, values["serial"])) == [found]
    assert db.read_sync(lambda conn: certificates.by_key(conn, values["key_id"])) == [found]


def test_a_certificate_of_others_is_its_der(db: Database) -> None:
    values = intent("", source="imported", issuer=0, tbs=b"whole", algorithm=b"", issued_at=NOW, sha256="cd")
    db.write_sync(certificates.add(values))
    assert get(db, values["id"]).der == b"whole"


def test_of_the_same_under_its_issuer_and_as_one_of_others_ours_is_found(db: Database) -> None:
    """It was imported by an officer, and an admin filed it later: its status is that of ours."""
    ours = issued(db, serial=b"\x07")
    sha256 = str(get(db, ours).sha256)
    of = certificates.issuer_of_others(sha256)
    others = intent("", source="imported", serial=b"\x07", issuer=of, sha256=sha256, issued_at=NOW, authority=None)
    db.write_sync(certificates.add(others))
    assert db.read_sync(lambda conn: certificates.by_sha256(conn, sha256, serial=b"\x07")) == get(db, ours)


@pytest.mark.invariant("I-65")
def test_a_serial_that_thousands_share_is_not_walked(db: Database) -> None:
    """Others may give one serial to as many as they like: whoever asks for one of them sees the rows that are meant."""
    serial, many = b"\x01", 2_000
    hashes = [f"{n:016x}{'0' * 48}" for n in range(0, 2 * many, 2)]  # the last bit of these 64 is not in the issuer
    ours = issued(db, serial=serial)
    rows = [
        intent("", source="imported", serial=serial, issuer=certificates.issuer_of_others(sha256), sha256=sha256)
        | {"issued_at": NOW, "authority": None}
        for sha256 in hashes
    ]
    db.write_sync(lambda conn: [certificates.add(row).run(conn) for row in rows])
    if db.dialect == "postgresql":
        db.write_sync(lambda conn: conn.execute(text("ANALYZE certificates")))
    for sha256, row in zip(hashes[:: many // 4], rows[:: many // 4], strict=True):
        found = db.read_sync(lambda conn, of=sha256: certificates.by_sha256(conn, of, serial=serial))
        assert found is not None
        assert found.id == row["id"]
    sha256 = str(get(db, ours).sha256)
    of = certificates.issuer_of_others(hashes[-1])
    asked: list[tuple[Look, dict[str, Any], int]] = [
        (certificates._BY_SHA256_OF_OTHERS, {"of": of, "digest": hashes[-1]}, 1),
        (certificates._BY_SHA256_OF_OURS, {"digest": sha256}, 1),
        (certificates._BY_SHA256_OF_OURS, {"digest": "f" * 64}, 1),
        (certificates._BY_SERIAL_ANYWHERE, {}, 100),
    ]
    for look, values, rows_meant in asked:
        given = {"number": serial, **values}
        assert db.read_sync(lambda conn, look=look, given=given: _visited(conn, look, given)) <= 2 * rows_meant
    assert db.read_sync(lambda conn: certificates.by_sha256(conn, sha256, serial=serial)) == get(db, ours)
    assert db.read_sync(lambda conn: certificates.by_sha256(conn, "f" * 64, serial=serial)) is None
    some = db.read_sync(lambda conn: certificates.by_serial_anywhere(conn, serial))
    assert (some[0].id, len(some)) == (ours, 100)


def _visited(conn: Connection, look: Look, values: dict[str, Any]) -> float:
    """How many rows the store looks at. SQLite: by the steps of its machine, of which a row that is given has 100."""
    if conn.dialect.name == "sqlite":
        driver: Any = conn.connection.dbapi_connection
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        driver.set_progress_handler(step, 1)
        try:
            look.all(conn, values)
        finally:
            driver.set_progress_handler(None, 0)
        return steps / 100
    compiled = rows_of._compiled(look._statement, tuple(values), conn.dialect)
    (plans,) = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled.sql}", compiled.bind(values)).one()
    return float(_seen(plans[0]["Plan"]))


def _seen(plan: dict[str, Any]) -> int:
    below = sum(_seen(one) for one in plan.get("Plans", ()))
    return max(below, int(plan["Actual Rows"])) + int(plan.get("Rows Removed by Filter", 0))


@pytest.mark.invariant("I-05")
@pytest.mark.parametrize("first", ["complete", "fail", "orphan"])
@pytest.mark.parametrize("second", ["complete", "fail", "orphan"])
def test_an_intent_is_closed_once(db: Database, first: str, second: str) -> None:
    values = intent(db.lease)
    ways: dict[str, Any] = {
        "complete": complete(values["id"], db.lease),
        "fail": certificates.fail(values["id"], at=NOW, lease=db.lease),
        "orphan": certificates.orphan(values["id"], at=NOW, lease=db.lease),
    }
    db.write_sync(certificates.intend(values))
    db.write_sync(ways[first])
    closed = get(db, values["id"])
    with pytest.raises(Lost):
        db.write_sync(ways[second])
    assert get(db, values["id"]) == closed
    assert db.read_sync(certificates.open_intents) == []


@pytest.mark.invariant("I-05")
def test_only_the_holder_of_an_intent_closes_it(db: Database) -> None:
    values = intent("mine")
    db.write_sync(certificates.intend(values))
    for rows in (complete(values["id"], "yours"), certificates.fail(values["id"], at=NOW, lease="yours")):
        with pytest.raises(Lost):
            db.write_sync(rows)
    db.write_sync(complete(values["id"], "mine"))


@pytest.mark.invariant("I-05")
def test_an_intent_is_abandoned_once_its_time_ran_out(db: Database) -> None:
    timed = intent("other", lease_until=NOW)
    gone = intent("gone")
    mine = intent("mine", lease_until=NOW - HOUR)
    for values in (timed, gone, mine):
        db.write_sync(certificates.intend(values))

    def abandoned(now: Any) -> set[str]:
        found = db.read_sync(lambda conn: certificates.abandoned(conn, lease="mine", now=now))
        return {certificate.id for certificate in found}

    assert abandoned(NOW - SECOND) == {gone["id"]}
    assert abandoned(NOW) == {gone["id"], timed["id"]}
    assert len(db.read_sync(certificates.open_intents)) == 3
    assert len(db.read_sync(lambda conn: certificates.open_intents(conn, but="mine"))) == 2


@pytest.mark.invariant("I-05")
def test_an_orphan_counts_as_issued_and_is_revoked(db: Database) -> None:
    values = intent(db.lease)
    db.write_sync(certificates.intend(values))
    before = db.read_sync(certificates.watermark)
    db.write_sync(certificates.orphan(values["id"], at=NOW, lease=db.lease))
    found = db.read_sync(lambda conn: certificates.by_serial(conn, 1, values["serial"]))
    assert found is not None
    assert found.status(NOW) == "orphan"
    status = db.read_sync(lambda conn: certificates.status_of(conn, 1, values["serial"]))
    assert status == (NOW, "unspecified", NOW + 30 * DAY)
    assert db.read_sync(certificates.watermark) == before + 1


def test_status_is_the_first_that_holds(db: Database) -> None:
    id = issued(db)
    certificate = get(db, id)
    assert certificate.status(NOW + 30 * DAY) == "active"
    assert certificate.status(NOW + 30 * DAY + SECOND) == "expired"
    held = db.write_sync(lambda conn: certificates.revoke(conn, id, at=NOW, reason="certificateHold"))
    assert held.status(NOW) == "held"
    released = db.write_sync(lambda conn: certificates.release(conn, id))
    assert released.status(NOW) == "active"
    assert (released.revoked_at, released.reason) == (None, None)
    db.write_sync(lambda conn: certificates.revoke(conn, id, at=NOW, reason="certificateHold"))
    revoked = db.write_sync(lambda conn: certificates.revoke(conn, id, at=NOW + HOUR, reason="keyCompromise"))
    assert revoked.status(NOW + 60 * DAY) == "revoked"
    assert db.read_sync(certificates.watermark) == 4
    with pytest.raises(Lost):
        db.write_sync(lambda conn: certificates.revoke(conn, id, at=NOW, reason="superseded"))
    with pytest.raises(Lost):
        db.write_sync(lambda conn: certificates.release(conn, id))
    assert db.read_sync(certificates.watermark) == 4
    assert get(db, id) == revoked


def test_what_was_never_issued_has_no_status(db: Database) -> None:
    waiting, failed = intent(db.lease), intent(db.lease)
    db.write_sync(certificates.intend(waiting) + certificates.intend(failed))
    db.write_sync(certificates.fail(failed["id"], at=NOW, lease=db.lease))
    for values in (waiting, failed):
        assert db.read_sync(lambda conn, v=values: certificates.status_of(conn, 1, v["serial"])) is None
        with pytest.raises(Lost):
            db.write_sync(lambda conn, v=values: certificates.revoke(conn, v["id"], at=NOW, reason="superseded"))


def test_a_crl_lists_what_is_revoked_and_not_long_expired(db: Database) -> None:
    kept, old, other, good = issued(db), issued(db, not_after=NOW), issued(db, issuer=2), issued(db)
    for i, id in enumerate((kept, old, other)):
        db.write_sync(lambda conn, id=id, i=i: certificates.revoke(conn, id, at=NOW + i * SECOND, reason="superseded"))

    def listed(cutoff: Any) -> list[Any]:
        return db.read_sync(lambda conn: [*chain(*entries(conn, 1, not_after_from=cutoff))])

    at = int(NOW.timestamp())
    entry = (get(db, kept).serial, at, "superseded")
    assert listed(NOW + SECOND) == [entry]
    assert listed(NOW) == [entry, (get(db, old).serial, at + 1, "superseded")]
    assert get(db, good).revoked_at is None


def test_a_long_list_is_read_in_parts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of one second among them: a part ends anywhere."""
    monkeypatch.setattr(listing, "_AT_ONCE", 3)
    ids = [issued(db) for _ in range(11)]
    for number, id in enumerate(ids):
        at = NOW + (number // 5) * SECOND
        db.write_sync(lambda conn, id=id, at=at: certificates.revoke(conn, id, at=at, reason="superseded"))
    parts = db.read_sync(lambda conn: [list(part) for part in entries(conn, 1, not_after_from=NOW)])
    assert max(map(len, parts)) == 3
    assert [serial for serial, _, _ in chain(*parts)] == [get(db, id).serial for id in ids]


def test_names_are_found_by_any_part(db: Database) -> None:
    for i in range(5):
        issued(db, names=(f"dns:Host-{i}.Example.internal", f"ip:10.0.0.{i}"), subject=f'CN="quoted" %_{i}')
    assert db.write_sync(lambda conn: certificates.index_names(conn, 3)) == 3
    assert db.write_sync(lambda conn: certificates.index_names(conn, 3)) == 2
    assert db.write_sync(lambda conn: certificates.index_names(conn, 3)) == 0

    def found(part: str) -> int:
        if db.dialect == "sqlite":
            query, value = "SELECT count(*) FROM certificate_search WHERE text MATCH :x", search.matching(part)
        else:
            query, value = "SELECT count(*) FROM certificate_search WHERE text LIKE :x", f"%{part.lower()}%"
        return int(db.read_sync(lambda conn: conn.execute(text(query), {"x": value}).scalar_one()))

    assert [found(part) for part in ("host-3", "EXAMPLE.int", "0.0.4", "dns:", "absent")] == [1, 5, 1, 0, 0]
    assert found('"quoted"') == 5


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (certificates._BY_SERIAL_ANYWHERE, {"number": b"1"}),
        (certificates._BY_SHA256_OF_OTHERS, {"of": -1, "number": b"1", "digest": "ab"}),
        (certificates._BY_SHA256_OF_OURS, {"number": b"1", "digest": "ab"}),
        (certificates._STATUS, {"of": 1, "number": b"1"}),
        (certificates._BY_KEY, {"key": "k", "most": 9}),
        (certificates._OPEN_INTENTS, {"mine": "", "most": 9}),
        (events._UNSEQUENCED, {"most": 9}),
        (people._BY_TOKEN, {"digest": b"1", "moment": NOW}),
    ],
    ids=["serial", "of others", "of ours", "status", "key", "open", "unsequenced", "token"],
)
def test_no_look_up_reads_a_whole_table(tmp_path: Path, statement: Look, values: dict[str, Any]) -> None:
    prepare(f"sqlite:///{tmp_path}/a.db")
    db = open_database(f"sqlite:///{tmp_path}/a.db")

    def plan(conn: Connection) -> list[str]:
        sql = str(statement._statement.compile(dialect=conn.dialect, compile_kwargs={"render_postcompile": True}))
        return [row[3] for row in conn.exec_driver_sql("EXPLAIN QUERY PLAN " + sql, (None,) * sql.count("?"))]

    steps = db.read_sync(plan)
    db.close()
    # These indexes hold nothing but what is open.
    fine = re.compile("SCAN (certificates USING INDEX certificates_open|events USING INDEX events_unsequenced)")
    assert [step for step in steps if step.startswith("SCAN") and not fine.match(step)] == []
